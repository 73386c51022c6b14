"""Conversion of FITS files to composites, and back."""

from .conversion import Conversion, convert, convert_files

__all__ = ["Conversion", "convert", "convert_files"]
