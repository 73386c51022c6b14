"""Writing objects of ``lsst.images`` as composites, and reading them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

from lsst.images import Box as ImagesBox
from lsst.images import NoOverlapError
from lsst.images.serialization import InvalidComponentError, InvalidParameterError, Reader, public_type_for_schema

from ..box import Box
from ..composite.composite import Composite
from ..composite.definitions import register_definition
from ..composite.link import DataId, Link
from ..composite.opening import Source
from ..errors import (
    CompositeH5Error,
    DigestMismatchError,
    EncodeError,
    FormatError,
    NoSuchComponentError,
    OutsideError,
    UnsupportedParameterError,
    suggest,
)
from ..kinds import wcs as wcs_kind
from ..storage.recipes import Recipes
from ._archives import CompositeInputArchive, CompositeOutputArchive
from ._trees import take_apart

register_definition(str(files(__package__) / "visit_image.yaml"))


def to_composite(
    obj: Any,
    *,
    links: Mapping[str, Link] | None = None,
    metadata: Mapping[str, Any] | None = None,
    butler_info: Any = None,
    **attributes: Any,
) -> Composite:
    """Return an object of ``lsst.images`` as a composite in memory; its arrays are not copied.

    Parameters
    ----------
    obj
        An object of any type that its archives can write.
    links : mapping, optional
        Links in place of components that are stored elsewhere, and equal.
    metadata, butler_info : optional
        What is written beside that of the object, as for ``lsst.images.serialization.write_archive``.
    **attributes
        ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as of `Composite`.

    Raises
    ------
    EncodeError
        If the object is of another type, or a component can't be stored.
    NoSuchComponentError, DigestMismatchError
        If a link is for a component that there isn't, or leads to another content.
    """
    if not hasattr(obj, "serialize"):
        raise EncodeError(f"expected an object of lsst.images, which can serialize itself, not {type(obj).__name__}")
    archive = CompositeOutputArchive()
    try:
        tree = archive.tree(obj, metadata, butler_info)
    except TypeError as error:
        # Such as for a PSF that could not be read, and so can't be written.
        raise EncodeError(f"{type(obj).__name__}: {error}") from error
    components = take_apart(tree, archive.arrays)
    if "wcs" not in components and (wcs := getattr(obj, "fits_wcs", None)) is not None:
        # A copy for readers without lsst.images: one that FITS, or astropy, can't express exactly has none.
        with suppress(EncodeError):
            wcs_kind.encode(wcs)
            components["wcs"] = wcs
    composite = Composite(None, components, **attributes)
    schema, _, version = tree["schema_url"].rpartition("/")[2].rpartition("-")
    composite.definition, composite.definition_version = schema.replace("-", "_"), int(version.split(".")[0])
    composite.signal = "image" if "image" in composite else ""
    for name, link in (links or {}).items():
        if name not in composite:
            raise NoSuchComponentError(f"{type(obj).__name__} has no component {name!r}{suggest(name, composite)}")
        if (own := composite.component_digest(name)) != link.digest:
            raise DigestMismatchError(
                f"component {name!r} of this {type(obj).__name__} isn't that of {link}: its digest is {own}, not "
                f"{link.digest}"
            )
    return composite.replace(links) if links else composite


def write(
    obj: Any,
    path: str | os.PathLike[str],
    *,
    links: Mapping[str, Link] | None = None,
    metadata: Mapping[str, Any] | None = None,
    butler_info: Any = None,
    data_id: DataId | None = None,
    replace: bool = False,
    recipes: Recipes | None = None,
) -> Composite:
    """Write an object of ``lsst.images`` to a file, all of it or nothing.

    Parameters
    ----------
    obj, links, metadata, butler_info
        As for `to_composite`.
    path : path
        The file.
    data_id : mapping, optional
        Data ID: numbers or text by dimension.
    replace, recipes
        As for `Composite.write`.

    Returns
    -------
    Composite
        What was written: ``write(...).link("obs_info")`` is a link for others.

    Raises
    ------
    EncodeError, NoSuchComponentError, DigestMismatchError
        As `to_composite` does.
    ConflictError, OSError
        As `Composite.write` does.
    """
    composite = to_composite(obj, links=links, metadata=metadata, butler_info=butler_info, data_id=data_id)
    composite.write(path, replace=replace, recipes=recipes)
    return composite


@contextmanager
def open(source: Source | Composite, cls: type[Any] | None = None, **parameters: Any) -> Iterator[Reader[Any]]:
    """Open a composite as an object of ``lsst.images``, to read it or some of its components.

    Parameters
    ----------
    source : path, URL, binary file object or Composite
        The file, or an open composite.
    cls : type, optional
        The type that the object must have.
    **parameters
        Those of `compositeh5.open`.

    Yields
    ------
    lsst.images.serialization.Reader
        As ``lsst.images.serialization.open_archive`` does: ``reader.get_component("psf")``, ``reader.read(bbox=box)``.

    Raises
    ------
    TypeError
        If the object is of another type.
    UnknownKindError, UnsupportedVersionError
        If the installed ``lsst.images`` can't read it.
    FormatError
        If it isn't an object of ``lsst.images``.
    OSError, CompositeH5Error
        As `compositeh5.open` does.
    """
    with CompositeInputArchive.open_tree(source, **parameters) as (archive, tree, info):
        found = public_type_for_schema(info.schema_name)
        if cls is not None and found is not None and not issubclass(found, cls):
            raise TypeError(f"{archive._where}: holds a {found.__name__}, not a {cls.__name__}")
        yield Reader(archive, tree, info, cls)


def read(
    source: Source | Composite, cls: type[Any] | None = None, *, component: str | None = None, **parameters: Any
) -> Any:
    """Read an object of ``lsst.images``, or a component or a part of it; nothing else is read.

    Parameters
    ----------
    source : path, URL, binary file object or Composite
        The file, or an open composite.
    cls : type, optional
        The type that the object must have.
    component : str, optional
        Name of a component, as the type has it: also what follows from others, such as ``"masked_image"``.
    **parameters
        What to read of it: ``bbox``, a `Box` or that of ``lsst.images``, for what has pixels.

    Raises
    ------
    NoSuchComponentError, UnsupportedParameterError
        If the type has no such component, or parameter.
    OutsideError
        If the box isn't wholly inside the image, or has no valid pixel.
    FormatError
        If what is stored doesn't make such an object.
    TypeError, CompositeH5Error, OSError
        As `open` does.
    """
    if isinstance(box := parameters.get("bbox"), Box):
        parameters["bbox"] = ImagesBox.from_shape(box.shape, start=box.origin)
    with open(source, cls) as reader:
        try:
            return reader.read(**parameters) if component is None else reader.get_component(component, **parameters)
        except InvalidComponentError as error:
            raise NoSuchComponentError(f"{source!r}: {error}") from error
        except InvalidParameterError as error:
            raise UnsupportedParameterError(f"{source!r}: {error}") from error
        except (CompositeH5Error, OSError, MemoryError):
            raise
        except Exception as error:
            if "bbox" in parameters and isinstance(error, IndexError | NoOverlapError):
                raise OutsideError(f"{source!r}: {error}") from error
            # What it says to values that its own types can't have.
            raise FormatError(f"{source!r}: lsst.images can't make an object of it: {error}") from error
