"""Conversion of FITS files to composites, and back."""

from .many import Conversion, convert_files
from .one import convert

__all__ = ["Conversion", "convert", "convert_files"]
