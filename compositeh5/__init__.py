"""Composite scientific objects in HDF5: components stored once, shared by links, read alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .box import Box
from .composite import nested  # noqa: F401  registers the kind of composites in composites
from .composite.composite import Composite
from .composite.definition import Definition
from .composite.definitions import get_definition, load_definition, register_definition
from .composite.link import Link
from .composite.opening import open_composite as open
from .composite.session import Session
from .composite.writing import write_file
from .errors import CompositeH5Error
from .kinds.image import Image
from .kinds.mask import Mask
from .kinds.photo_calib import PhotoCalib
from .kinds.psf import Psf
from .kinds.record import Record
from .storage.limits import Limits
from .storage.recipes import Recipe

if TYPE_CHECKING:
    from .comparison import diff
    from .trees.choosing import choose, compose
    from .trees.gather import gather
    from .trees.index import index, open_index
    from .trees.many import cutouts, read_many
    from .trees.promote import promote
    from .trees.prune import prune, remove
    from .trees.references import refs, refs_to
    from .trees.relink import relink
    from .trees.rescue import rescue
    from .trees.sharing import split, write_together
    from .trees.subset import subset
    from .trees.verify import verify_files
    from .trees.visit_files import open_visit

_OPERATIONS = {
    "choose": "choosing",
    "compose": "choosing",
    "cutouts": "many",
    "gather": "gather",
    "index": "index",
    "open_index": "index",
    "open_visit": "visit_files",
    "promote": "promote",
    "prune": "prune",
    "read_many": "many",
    "refs": "references",
    "refs_to": "references",
    "relink": "relink",
    "remove": "prune",
    "rescue": "rescue",
    "split": "sharing",
    "subset": "subset",
    "verify_files": "verify",
    "write_together": "sharing",
}

__all__ = [
    "Box",
    "Composite",
    "CompositeH5Error",
    "Definition",
    "Image",
    "Limits",
    "Link",
    "Mask",
    "PhotoCalib",
    "Psf",
    "Recipe",
    "Record",
    "Session",
    "__version__",
    "choose",
    "compose",
    "cutouts",
    "diff",
    "gather",
    "get_definition",
    "index",
    "load_definition",
    "open",
    "open_index",
    "open_visit",
    "promote",
    "prune",
    "read_many",
    "refs",
    "refs_to",
    "register_definition",
    "relink",
    "remove",
    "rescue",
    "split",
    "subset",
    "verify_files",
    "write_file",
    "write_together",
]


def __getattr__(name: str) -> Any:
    if name == "diff":
        from .comparison import diff

        return diff
    # Operations are loaded when they are asked for: most scripts only read.
    if name in _OPERATIONS:
        value = getattr(import_module(f"{__name__}.trees.{_OPERATIONS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
