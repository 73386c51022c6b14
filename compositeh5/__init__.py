"""Composite scientific objects in HDF5: components stored once, shared by links, read alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .box import Box
from .composite import composite_kind  # noqa: F401  registers the kind of composites in composites
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
    from . import trees
    from .comparison import diff

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
    "diff",
    "get_definition",
    "load_definition",
    "open",
    "register_definition",
    "trees",
    "write_file",
]


def __getattr__(name: str) -> Any:
    # Most scripts only read: the rest is loaded when it is asked for.
    if name == "trees":
        return import_module(f"{__name__}.trees")
    if name == "diff":
        return import_module(f"{__name__}.comparison").diff
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
