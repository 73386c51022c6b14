"""Objects of ``lsst.images`` (``VisitImage``, ``MaskedImage``, ``CellCoadd``, ...) as composites.

Needs ``lsst-images``, which needs Python 3.12 (extra ``images``)::

    from compositeh5 import lsst_images

    lsst_images.write(visit_image, "visit_image.h5")
    lsst_images.read("visit_image.h5", bbox=box)  # reads the chunks of this box
    with lsst_images.open("visit_image.h5") as reader:
        psf = reader.get_component("psf")  # reads this component

What is written are ordinary composites, which `compositeh5.open` reads without ``lsst.images``. Its types say what a
file holds as a tree of JSON that refers to arrays. The fields at the root of this tree are the components:

=============================  ==========================================================================
field                          component
=============================  ==========================================================================
an image, a mask               ``image``, ``mask``: pixels, origin, unit, planes. So are those deeper in the
                               tree, by the names on the way to them: ``noise_realizations_0``. A mask has up to
                               31 planes, ``mask_2`` the next ones
another model, a dict          ``record`` of its entries; ``json`` is the JSON of those that are nested, and of
                               versions of schemas. The ``source`` of an array in it is the component and the
                               name of the entry that has it
text; a number; null           ``text``; ``array`` without axes; absent
=============================  ==========================================================================

All that isn't a component of its own (lists, versions of schemas, what images and masks have beside pixels) is in the
record ``tree``. Components of reserved names have ``_`` at their end: ``provenance_``. Of ``obs_info``, what differs
among the detectors of a visit is the component ``obs_info_detector``, so that ``obs_info`` can be the same for all,
and a link.
``wcs`` is not of the tree: it is the FITS approximation of the sky projection, for those who only have astropy.

The tree follows from the components: a cutout, an overlay or a flattened composite reads as such an object, too.
FITS headers that an object carries along from a file are not kept.
"""

from ._archives import CompositeInputArchive, CompositeOutputArchive
from ._exposures import to_exposure, to_visit_image
from ._files import open, read, to_composite, write

__all__ = [
    "CompositeInputArchive",
    "CompositeOutputArchive",
    "open",
    "read",
    "to_composite",
    "to_exposure",
    "to_visit_image",
    "write",
]
