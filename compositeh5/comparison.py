"""Comparing two composites, component by component, and two FITS files."""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .composite.composite import Composite
from .composite.link import Link
from .composite.opening import open_composite
from .composite.parts import Part
from .errors import (
    BrokenLinkError,
    ConversionError,
    DigestMismatchError,
    NoSuchComponentError,
    WrongValueError,
    checked_names,
    suggest,
)
from .storage.digests import canonical, digest, read_json
from .storage.layout import is_content
from .storage.locations import absolute_location, checked_path
from .storage.nodes import Array, ArrayNode, ExternalLink, GroupNode, Node

Source: TypeAlias = Composite | str | os.PathLike[str]

Side: TypeAlias = Node | Link | str | None
"""What is compared: a node; the link of one that is stored elsewhere; a text that says what there is; or nothing."""

_BLOCK_BYTES = 16 * 1024 * 1024
"""Arrays are compared in blocks of whole rows of about this size."""


@dataclass(frozen=True)
class Difference:
    """One thing in which two composites differ.

    Attributes
    ----------
    path : str
        The component, and the path of an array or a group within it; empty for what the composites say of themselves.
    what : str
        What of it: ``values``, ``lines`` (of a text), the name of an attribute, or ``content``: whether it is there,
        absent, lost, or linked from a list, and shape and type of an array.
    a, b : str or None
        Both sides as text, of values and lines the first ones that differ. None where one hasn't got it.
    count, total : int
        How many values or lines differ, and how many there are; 0 for all else.
    largest : float or None
        The largest absolute difference of two values; None for what aren't numbers.
    at : tuple of int
        Index of the first values or the first line that differ.
    """

    path: str
    what: str
    a: str | None
    b: str | None
    count: int = 0
    total: int = 0
    largest: float | None = None
    at: tuple[int, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two composites, or two FITS files, compared.

    Attributes
    ----------
    a, b : str
        What was compared.
    components : tuple of str
        Names of the components that were compared.
    differences : tuple of Difference
        How these differ.
    attributes : tuple of Difference
        What the composites say of themselves and differ in: definition, data ID, dataset type, run, stages and
        provenance. They are no content: composites that differ in nothing else are identical.
    fits_report : str
        How two FITS files differ, as `astropy.io.fits.FITSDiff` reports it; empty if they don't.
    """

    a: str
    b: str
    components: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    attributes: tuple[Difference, ...] = ()
    fits_report: str = ""

    @property
    def identical(self) -> bool:
        """Whether all components, or the FITS files, are identical."""
        return not self.differences and not self.fits_report


def diff(a: Source, b: Source, *, components: Collection[str] | None = None) -> Comparison:
    """Compare two composites, or two FITS files.

    Components with the same digest are identical, wherever they are stored, and aren't read. Others are read, large
    arrays in blocks, and compared as they are stored: array by array, attribute by attribute. Values are equal if their
    bits are; links, if they lead to the same digest.

    Parameters
    ----------
    a, b : Composite, path or URL
        The composites. Also local FITS files: one is compared as what it converts to, two are compared by astropy.
    components : collection of str, optional
        The components to compare; all by default.

    Raises
    ------
    NoSuchComponentError
        If neither has one of the components that were asked for.
    ConversionError
        If a FITS file can't be read or converted.
    WrongValueError
        If components are asked for of two FITS files.
    CompositeH5Error, OSError
        If a file, or a component that differs, can't be read.
    """
    name, other_name = _name(a), _name(b)
    if _is_fits(a) and _is_fits(b):
        if components is not None:
            raise WrongValueError(f"{name} and {other_name} are FITS files, which have no components to choose")
        return Comparison(name, other_name, fits_report=_fits_report(name, other_name))
    with _opened(a) as one, _opened(b) as other:
        known = list(dict.fromkeys([*one, *one.absent, *other, *other.absent]))
        chosen = tuple(known) if components is None else checked_names(components, "the name of a component")
        if unknown := [component for component in chosen if component not in known]:
            raise NoSuchComponentError(
                f"neither {name} nor {other_name} has a component {unknown[0]!r}{suggest(unknown[0], known)}"
            )
        differences = tuple(found for component in chosen for found in _component(component, one, other))
        return Comparison(name, other_name, chosen, differences, tuple(_attributes(one, other)))


def _name(source: Source) -> str:
    return (source.location or repr(source)) if isinstance(source, Composite) else checked_path(source)


@contextmanager
def _opened(source: Source) -> Iterator[Composite]:
    if isinstance(source, Composite):
        yield source
    elif _is_fits(source):
        from .fits.conversion import read_fits

        yield read_fits(source)
    else:
        with open_composite(source) as composite:
            yield composite


def _is_fits(source: Source) -> bool:
    if isinstance(source, Composite) or not os.path.isfile(path := absolute_location(source)):
        return False
    with open(path, "rb") as file:
        return file.read(9) == b"SIMPLE  ="


def _fits_report(a: str, b: str) -> str:
    if filecmp.cmp(a, b, shallow=False):
        return ""
    from astropy.io.fits import FITSDiff

    with warnings.catch_warnings():
        # astropy warns of old headers, which are to be compared as they are; damage is an error.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", "File may have been truncated|Unexpected extra padding")
        try:
            found = FITSDiff(a, b, ignore_blanks=False, ignore_blank_cards=False)
        except Exception as error:  # those of astropy for what it doesn't understand have no common base
            if isinstance(error, OSError) and error.errno:
                raise
            raise ConversionError(f"{a}, {b}: astropy can't compare them, one may be damaged: {error}") from error
        return "" if found.identical else str(found.report()).strip("\n")


def _attributes(a: Composite, b: Composite) -> Iterator[Difference]:
    for name in ("definition", "definition_version", "data_id", "dataset_type", "run", "stage", "provenance"):
        if (one := getattr(a, name)) != (other := getattr(b, name)):
            yield Difference("", name, str(one), str(other))
    for name in a:
        if name in b and (one := a.component_stage(name)) != (other := b.component_stage(name)):
            yield Difference("", f"stage of {name}", one, other)


def _component(name: str, a: Composite, b: Composite) -> Iterator[Difference]:
    if name not in a or name not in b:
        yield from _compare(
            name, *(c.kind(name) if name in c else "absent" if name in c.absent else None for c in (a, b))
        )
    elif (one := a.component_digest(name)) != (other := b.component_digest(name)):
        with ExitStack() as stack:
            sides = [_opened_node(c.part(name), stack) for c in (a, b)]
            # There is always something to tell.
            yield from list(_compare(name, *sides)) or [Difference(name, "digest", one, other)]


def _opened_node(part: Part, stack: ExitStack) -> Node | str:
    """Return the node of a component; if it is lost, why."""
    try:
        node, target = part.open_node()
    except (BrokenLinkError, DigestMismatchError) as error:
        return f"lost: {error}"
    if target is not None:
        stack.callback(target.close)
    return node


def _compare(path: str, a: Side, b: Side) -> Iterator[Difference]:
    """Compare two nodes with all below them."""
    content = _described(a), _described(b)
    if not (isinstance(a, Node) and isinstance(b, Node)):
        if _identity(a) != _identity(b):
            yield Difference(path, "content", *content)
        return
    if a.attrs.get("kind") == b.attrs.get("kind") == "composite" and digest(a) == digest(b):
        return
    for name in sorted(filter(is_content, {*a.attrs, *b.attrs})):
        one, other = (Array(np.asarray(node.attrs[name])) if name in node.attrs else None for node in (a, b))
        if _identity(one) != _identity(other):
            texts = [None if side is None else str(side.data) for side in (one, other)]
            yield Difference(path, name, texts[0], texts[1])
    if content[0] != content[1]:
        yield Difference(path, "content", *content)
    elif isinstance(a, GroupNode) and isinstance(b, GroupNode):
        for name in dict.fromkeys([*a, *b]):
            yield from _compare(f"{path}/{name}", _child(a, name), _child(b, name))
    elif isinstance(a, ArrayNode) and isinstance(b, ArrayNode):
        yield from (_values if a.shape or a.dtype.kind != "U" else _lines)(path, a, b)


def _child(group: GroupNode, name: str) -> Node | Link | None:
    """Return a child of a group, or its link if it lives elsewhere; None if there is none."""
    child = group.get(name)
    if isinstance(child, ExternalLink):
        return Link.from_record(read_json(group, "links", dict).get(name), f"{group.where}/{name}")
    return child


def _identity(side: Side) -> str | None:
    return digest(side) if isinstance(side, Node) else side.digest if isinstance(side, Link) else side


def _described(side: Side) -> str | None:
    """Return what something is; of an array its shape and type, without byte order and widths of strings."""
    if isinstance(side, ArrayNode):
        dtype = {"U": "text", "S": "bytes"}.get(side.dtype.kind, side.dtype.name)
        return f"{' x '.join(map(str, side.shape))} {dtype}".lstrip()
    if isinstance(side, Link):
        return f"{side} {side.digest}"
    return "group" if isinstance(side, Node) else side


# ---- Arrays of the same shape and type ---------------------------------------------------------------------


def _lines(path: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    lines = list(zip_longest(str(a.read()).split("\n"), str(b.read()).split("\n")))
    if different := [number for number, (one, other) in enumerate(lines) if one != other]:
        first = different[0]
        yield Difference(path, "lines", *lines[first], len(different), len(lines), at=(first,))


def _values(path: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    count, largest = 0, -1.0
    first: tuple[str, str, tuple[int, ...]] | None = None
    length = a.shape[0] if a.shape else 1
    rows = max(1, _BLOCK_BYTES * length // max(a.nbytes, 1))
    for start in range(0, length, rows):
        one, other = (np.asarray(node.read((slice(start, start + rows),) if a.shape else ())) for node in (a, b))
        places = np.flatnonzero(_different(one, other))
        if not places.size:
            continue
        count += len(places)
        if first is None:
            index = tuple(map(int, np.unravel_index(places[0], one.shape)))
            first = str(one[index]), str(other[index]), (start + index[0], *index[1:]) if index else ()
        if a.dtype.kind not in "US":
            # In this type differences of 64-bit integers neither overflow nor are rounded.
            wide = np.clongdouble if a.dtype.kind == "c" else np.longdouble
            with np.errstate(invalid="ignore"):
                sizes = np.abs(one.reshape(-1)[places].astype(wide) - other.reshape(-1)[places].astype(wide))
            largest = float(np.fmax.reduce(sizes, initial=largest))
    if first is not None:
        total = int(np.prod(a.shape, dtype=np.int64))
        yield Difference(path, "values", first[0], first[1], count, total, None if largest < 0 else largest, first[2])


def _different(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each of the values of two arrays whether they differ."""
    if a.dtype.kind in "US":
        return np.asarray(a != b)
    # By their bits, as digests see them: NaN is equal to itself, and the two zeros are not.
    one, other = (
        np.frombuffer(canonical(values, "array")[1], np.uint8).reshape(-1, a.dtype.itemsize) for values in (a, b)
    )
    return np.asarray((one != other).any(axis=1))
