"""Composite scientific objects in HDF5: components stored once, shared by links, read alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import nested  # noqa: F401  registers the kind of composites in composites
from ._version import __version__
from .composite import Composite
from .container.limits import Limits
from .definition import Definition, get_definition, load_definition, register_definition
from .errors import CompositeH5Error
from .geometry import Box
from .kinds.image import Image
from .kinds.mask import Mask
from .kinds.photo_calib import PhotoCalib
from .kinds.psf import Psf
from .kinds.record import Record
from .links import Link
from .opening import open_composite as open
from .recipes import Recipe
from .session import Session
from .writing import write_file

if TYPE_CHECKING:
    from .operations.choosing import choose, compose
    from .operations.diff import diff
    from .operations.gather import gather
    from .operations.index import index, open_index
    from .operations.many import cutouts, read_many
    from .operations.promote import promote
    from .operations.pruning import prune, remove
    from .operations.references import refs, refs_to
    from .operations.relinking import relink
    from .operations.rescue import rescue
    from .operations.sharing import split, write_together
    from .operations.subset import subset
    from .operations.verify import verify_files
    from .operations.visit_files import open_visit

_OPERATIONS = {
    "choose": "choosing",
    "compose": "choosing",
    "cutouts": "many",
    "diff": "diff",
    "gather": "gather",
    "index": "index",
    "open_index": "index",
    "open_visit": "visit_files",
    "promote": "promote",
    "prune": "pruning",
    "read_many": "many",
    "refs": "references",
    "refs_to": "references",
    "relink": "relinking",
    "remove": "pruning",
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
    # Operations are loaded when they are asked for: most scripts only read.
    if name in _OPERATIONS:
        value = getattr(import_module(f"{__name__}.operations.{_OPERATIONS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
