"""What a file may ask of a reader; the writer keeps to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a file may ask of a reader."""

    depth: int = 32
    """Groups inside groups."""
    children: int = 65_536
    """Links in one group."""
    attributes: int = 256
    """Attributes of one object."""
    attribute_bytes: int = 65_536
    """Size of one attribute."""
    ratio: int = 1100
    """Size of an array over that of its stored bytes; deflate can't exceed 1032."""


LIMITS = Limits()
