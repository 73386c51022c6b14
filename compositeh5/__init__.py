"""Composite scientific objects in HDF5: components stored once, shared by links, read alone."""

from ._version import __version__
from .composite import Composite
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
from .operations.gather import gather
from .operations.overlay import choose, compose
from .operations.sharing import split, write_together
from .recipes import Recipe
from .writing import write_file

__all__ = [
    "Box",
    "Composite",
    "CompositeH5Error",
    "Definition",
    "Image",
    "Link",
    "Mask",
    "PhotoCalib",
    "Psf",
    "Recipe",
    "Record",
    "__version__",
    "choose",
    "compose",
    "gather",
    "get_definition",
    "load_definition",
    "open",
    "register_definition",
    "split",
    "write_file",
    "write_together",
]
