"""Comparing two composites, component by component."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..composite import Composite
from ..container.nodes import GroupNode
from ..container.reader import StoredGroup
from ..errors import BrokenLinkError, DigestMismatchError, NoSuchComponentError, checked_names, suggest
from ..links import absolute_location
from ..opening import open_composite
from ..parts import LinkedPart
from ..report import columns
from ..stored import from_group
from .diff_kinds import compare_parts, diff_nodes, diff_values
from .differences import Difference, unequal

__all__ = ["Comparison", "ComponentComparison", "Difference", "diff", "diff_nodes", "diff_values"]

Source: TypeAlias = Composite | str | os.PathLike[str]

_FITS = b"SIMPLE  ="
"""How every FITS file begins."""

COLUMNS = ("component", "part", "A", "B", "difference")
ATTRIBUTE_COLUMNS = ("attribute", "A", "B")
"""What the texts of rows of a `Comparison` are."""

_WIDTH, _LINE = 48, 100
"""Values longer than this are cut in a report; lists of names are broken into lines of this length."""


@dataclass(frozen=True)
class ComponentComparison:
    """One component of two composites, compared.

    Attributes
    ----------
    name : str
        Its name.
    a, b : str
        Its state in each: ``"stored"``, ``"linked"``, ``"lost"`` (linked, and not found), ``"memory"``, ``"absent"``
        (known to be None) or ``"missing"`` (not mentioned at all).
    identical : bool
        Whether the digests are the same, or it is absent in both.
    differences : tuple of Difference
        How they differ; empty if they are identical, or if one has nothing to compare.
    note : str
        Why a lost one is.
    """

    name: str
    a: str
    b: str
    identical: bool
    differences: tuple[Difference, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two composites, compared.

    Attributes
    ----------
    a, b : str
        What was compared.
    components : tuple of ComponentComparison
        The components, or for two FITS files the HDUs.
    attributes : tuple of Difference
        What the composites say of themselves and differ in: definition, data ID, dataset type, run, stages and
        provenance. They are no content: composites that differ in nothing else are identical.
    """

    a: str
    b: str
    components: tuple[ComponentComparison, ...]
    attributes: tuple[Difference, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether all components are identical."""
        return all(component.identical for component in self.components)

    def text(self, limit: int | None = 20) -> str:
        """Return the comparison as text for people.

        Parameters
        ----------
        limit : int, optional
            So many differences of a component are shown; all if it is None.
        """
        lines = [f"A  {self.a}", f"B  {self.b}", ""]
        if rows := self.rows(limit):
            lines += [columns([COLUMNS, *rows]), ""]
        lines.append(self.summary())
        if self.attributes:
            lines += ["", columns([ATTRIBUTE_COLUMNS, *self.attribute_rows()])]
        return "\n".join(lines)

    def rows(self, limit: int | None = 20) -> list[tuple[str, ...]]:
        """Return the differences of components as texts, one for each of `COLUMNS`; ``limit`` is that of `text`."""
        return [row for component in self.components if not component.identical for row in _rows(component, limit)]

    def attribute_rows(self) -> list[tuple[str, ...]]:
        """Return the differences of attributes as texts, one for each of `ATTRIBUTE_COLUMNS`."""
        return [(d.what, _cell(d.a), _cell(d.b)) for d in self.attributes]

    def summary(self) -> str:
        """Return how many components differ, and which don't, as text."""
        same = [component for component in self.components if component.identical]
        text = f"{len(self.components) - len(same)} of {len(self.components)} components differ"
        if not same:
            return text
        names = f"identical: {', '.join(map(_same_text, same))}"
        return "\n".join([text, *textwrap.wrap(names, _LINE, subsequent_indent=" " * 11)])


def diff(a: Source, b: Source, *, components: Collection[str] | None = None) -> Comparison:
    """Compare two composites.

    Components whose digests are the same are identical, wherever they are stored; their values aren't read. Others
    are read, large arrays in blocks, to tell how they differ.

    Parameters
    ----------
    a, b : Composite, path or URL
        The composites. Also FITS files: one is compared as what it converts to, two are
        compared HDU by HDU.
    components : collection of str, optional
        The components to compare; all by default.

    Returns
    -------
    Comparison

    Raises
    ------
    NoSuchComponentError
        If neither has one of the components that were asked for.
    ConversionError
        If a FITS file can't be converted.
    CompositeH5Error, OSError
        If a file, or a component that differs, can't be read.
    """
    both = _is_fits(a) and _is_fits(b)
    with _opened(a, as_hdus=both) as one, _opened(b, as_hdus=both) as other:
        return Comparison(
            _name(a), _name(b), tuple(_components(one, other, components)), tuple(_attributes(one, other))
        )


def diff_groups(a: GroupNode, b: GroupNode) -> Iterator[tuple[str, Difference]]:
    """Compare two composites that are components: return each difference, and the name of the part that has it."""
    one, other = (from_group(g, g.file.name if isinstance(g, StoredGroup) else None) for g in (a, b))
    for difference in _attributes(one, other):
        yield "", difference
    for component in _components(one, other, None):
        if component.differences:
            for difference in component.differences:
                yield component.name, difference
        elif not component.identical:
            yield component.name, Difference("state", component.a, component.b, note=component.note)


def _is_fits(source: Source) -> bool:
    if isinstance(source, Composite) or not os.path.isfile(path := absolute_location(source)):
        return False
    with open(path, "rb") as file:
        return file.read(len(_FITS)) == _FITS


def _name(source: Source) -> str:
    return (source.location or repr(source)) if isinstance(source, Composite) else os.fspath(source)


@contextmanager
def _opened(source: Source, as_hdus: bool) -> Iterator[Composite]:
    if isinstance(source, Composite):
        yield source
    elif as_hdus:
        from .diff_fits import open_hdus

        with open_hdus(source) as composite:
            yield composite
    elif _is_fits(source):
        from ..convert.fits import read_fits

        yield read_fits(source)
    else:
        with open_composite(source) as composite:
            yield composite


# ---- Components --------------------------------------------------------------------------------------------


def _components(a: Composite, b: Composite, wanted: Collection[str] | None) -> Iterator[ComponentComparison]:
    names = list(dict.fromkeys([*a, *a.absent, *b, *b.absent]))
    for name in names if wanted is None else checked_names(wanted, "the name of a component"):
        if name not in names:
            raise NoSuchComponentError(
                f"neither {_name(a)} nor {_name(b)} has a component {name!r}{suggest(name, names)}"
            )
        yield _component(name, a, b)


def _component(name: str, a: Composite, b: Composite) -> ComponentComparison:
    (state, note), (other_state, other_note) = _state(name, a), _state(name, b)
    identical = state == other_state
    found: tuple[Difference, ...] = ()
    if name in a and name in b:
        identical = a.component_digest(name) == b.component_digest(name)
        if not identical and "lost" not in (state, other_state):
            found = tuple(compare_parts("", a._part(name), b._part(name)))
            # There is always something to tell: what isn't found may be what a later release adds to its kind.
            found = found or (Difference("digest", a.component_digest(name), b.component_digest(name)),)
    return ComponentComparison(name, state, other_state, identical, found, "; ".join(filter(None, (note, other_note))))


def _state(name: str, composite: Composite) -> tuple[str, str]:
    """Return the state of a component, and why it is lost if it is."""
    if name not in composite:
        return ("absent" if name in composite.absent else "missing"), ""
    part = composite._part(name)
    if isinstance(part, LinkedPart):
        try:
            target = part.open_node()[1]
        except (BrokenLinkError, DigestMismatchError) as error:
            return "lost", str(error)
        if target is not None:
            target.close()
    return part.state, ""


# ---- Attributes --------------------------------------------------------------------------------------------


def _attributes(a: Composite, b: Composite) -> Iterator[Difference]:
    for name in ("definition", "definition_version", "data_id", "dataset_type", "run", "stage", "provenance"):
        yield from _json(name, getattr(a, name), getattr(b, name))
    for name in a:
        if name in b and a.component_stage(name) != b.component_stage(name):
            yield Difference(f"stage of {name}", a.component_stage(name), b.component_stage(name))


def _json(path: str, a: Any, b: Any) -> Iterator[Difference]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from _json(f"{path}.{key}", a.get(key), b.get(key))
    elif type(a) is not type(b) or a != b:
        yield unequal(path, a, b)


# ---- The report --------------------------------------------------------------------------------------------


def _rows(component: ComponentComparison, limit: int | None) -> list[tuple[str, str, str, str, str]]:
    if not component.differences:
        a, b = ("present" if state == "memory" else state for state in (component.a, component.b))
        return [(component.name, "", a, b, _cell(component.note))]
    shown = component.differences[:limit]
    rows = [
        ("" if number else component.name, d.what, _cell(d.a), _cell(d.b), d.details) for number, d in enumerate(shown)
    ]
    if len(shown) < len(component.differences):
        rows.append(("", f"... {len(component.differences) - len(shown)} more", "", "", ""))
    return rows


def _cell(text: str | None) -> str:
    if text is None:
        return "(none)"
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _same_text(component: ComponentComparison) -> str:
    told = {component.a, component.b} & {"lost", "absent"}
    return f"{component.name} ({told.pop()})" if told else component.name
