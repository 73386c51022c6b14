"""What a composite holds, told without reading the values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import BrokenLinkError, CompositeH5Error
from ..storage.arrays import StoredArray
from ..storage.nodes import ArrayNode, GroupNode, Node
from .parts import LinkedPart, Part


@dataclass(frozen=True)
class ComponentInfo:
    """What is known of a component.

    Attributes
    ----------
    name, kind : str
        Its name and kind; the kind of an absent one is empty.
    state : str
        ``"stored"`` (in this file), ``"linked"`` (in another), ``"lost"`` (linked, and not found; or
        lost to damage before the file was rescued),
        ``"absent"`` (known to be None) or ``"memory"``.
    shape : tuple of int
        Shape of the array, or of a table (rows, columns); empty for others.
    dtype, units, stage, digest : str
        Type of the elements, units, processing step and digest; empty where there is none.
    nbytes, stored_bytes : int
        Size of its arrays in memory, and of their bytes in the file.
    target : str
        Where the link leads.
    origin : str
        Where the content was copied from, if it was.
    note : str
        Why it is lost.
    """

    name: str
    kind: str
    state: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    units: str = ""
    stage: str = ""
    digest: str = ""
    nbytes: int = 0
    stored_bytes: int = 0
    target: str = ""
    origin: str = ""
    note: str = ""


def component_infos(
    parts: Mapping[str, Part], absent: Iterable[str], lost: Mapping[str, str]
) -> dict[str, ComponentInfo]:
    """Return what is known of each component, also of those that are absent, and of those that were lost, and why."""
    infos = {name: _info(name, part) for name, part in parts.items()}
    infos |= {name: ComponentInfo(name, "", "absent") for name in absent}
    return infos | {name: ComponentInfo(name, "", "lost", note=reason) for name, reason in lost.items()}


def _info(name: str, part: Part) -> ComponentInfo:
    link = part.link if isinstance(part, LinkedPart) else None
    state, note = part.state, ""
    node, file = None, None
    try:
        node, file = part.open_node()
    except BrokenLinkError as error:
        state, note = "lost", str(error)
    except CompositeH5Error as error:
        note = str(error)
    try:
        nbytes, stored_bytes = _bytes(node)
        return ComponentInfo(
            name,
            part.kind,
            state,
            shape=_shape(node),
            dtype=_dtype(node),
            units=_text(node, "units"),
            stage=part.stage,
            digest=_text(node, "digest") if link is None else link.digest,
            nbytes=nbytes,
            stored_bytes=stored_bytes,
            target=f"{link} in {part.place}" if isinstance(part, LinkedPart) else "",
            origin="" if part.origin is None or link is not None else f"{part.origin} in {part.origin.uri}",
            note=note,
        )
    finally:
        if file is not None:
            file.close()


def _text(node: Node | None, name: str) -> str:
    return "" if node is None else str(node.attrs.get(name, ""))


def _shape(node: Node | None) -> tuple[int, ...]:
    if isinstance(node, ArrayNode):
        return node.shape
    if node is not None and node.attr("kind", str, "") == "table":
        columns = [name for name in node if not name.startswith("@")] if isinstance(node, GroupNode) else []
        return node.attr("rows", int, 0), len(columns)
    return ()


def _dtype(node: Node | None) -> str:
    if not isinstance(node, ArrayNode):
        return ""
    return "text" if node.dtype.kind == "U" else node.dtype.name


def _bytes(node: Node | None) -> tuple[int, int]:
    """Return the sizes in memory and in the file of all arrays of a component."""
    if isinstance(node, ArrayNode):
        return node.nbytes, node.stored_bytes if isinstance(node, StoredArray) else node.nbytes
    if isinstance(node, GroupNode):
        sizes = [_bytes(node[name]) for name in node]
        return sum(size[0] for size in sizes), sum(size[1] for size in sizes)
    return 0, 0


CELLS = ("component", "kind", "shape", "type", "units", "size", "stored", "stage", "where")
"""What the texts of `cells` are."""


def cells(info: ComponentInfo) -> tuple[str, ...]:
    """Return what is told of a component, as one line of a table."""
    return (
        info.name,
        info.kind,
        " x ".join(map(str, info.shape)),
        info.dtype,
        info.units,
        human_bytes(info.nbytes) if info.kind else "",
        human_bytes(info.stored_bytes) if info.kind and info.state != "memory" else "",
        info.stage,
        f"{info.state} -> {info.target.partition(' (id ')[0]}" if info.target else info.state,
    )


def tree(infos: Iterable[ComponentInfo]) -> str:
    """Return a table of components as text."""
    lines = columns([CELLS, *map(cells, infos)]).split("\n")
    return "\n".join(f"  {line}" for line in lines)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows of text as aligned columns; characters that would act on a terminal are escaped."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def printable(text: str) -> str:
    """Return a text of one line with what would act on a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def human_bytes(size: float) -> str:
    """Return a number of bytes in the unit in which people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
