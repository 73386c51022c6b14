"""What people see of a composite: a line, a table, the page of a notebook, pictures.

Values are not read, but for some of the pixels of a thumbnail. All text of pages is escaped: files may come from
strangers.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..errors import BrokenLinkError, CompositeH5Error, NoSuchComponentError, suggest
from ..storage.arrays import StoredArray
from ..storage.nodes import ArrayNode, GroupNode, Node
from .cutout import lazy
from .interface import CompositeLike
from .lazy import LazyArray
from .parts import LinkedPart, Part

THUMBNAIL = 192
"""Rows and columns of a thumbnail, at most."""

THUMBNAIL_READS = 1024
"""A thumbnail is made of no more than so many rows and columns: of larger images it shows the middle, for to see all of
one, all its chunks would have to be unpacked."""


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


def components(composite: CompositeLike) -> dict[str, ComponentInfo]:
    """Return what is known of each component without reading its values, absent ones included."""
    infos = {name: _info(name, part) for name, part in composite.parts.items()}
    infos |= {name: ComponentInfo(name, "", "absent") for name in composite.absent}
    return infos | {name: ComponentInfo(name, "", "lost", note=reason) for name, reason in composite.lost.items()}


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


def line(composite: CompositeLike) -> str:
    """Return what a composite is, in one line; nothing of a closed one is read."""
    if composite.closed:
        return f"<Composite {composite.location} closed>"
    links = composite.links
    names = ", ".join(
        f"{name} -> {links[name].dataset_type or links[name].definition or 'link'}" if name in links else name
        for name in composite.parts
    )
    words = [composite.definition, _data_id(composite), f"({names})"]
    return f"<Composite {' '.join(word for word in words if word)}>"


def tree(composite: CompositeLike) -> str:
    """Return a table of the components as text: kind, shape, size, where each is."""
    lines = columns([CELLS, *map(cells, components(composite).values())]).split("\n")
    return "\n".join([line(composite), *(f"  {text}" for text in lines)])


def page(composite: CompositeLike) -> str:
    """Return the HTML element that shows a composite in a notebook."""
    if composite.closed:
        return f"<pre>{escape(line(composite))}</pre>"
    picture = ""
    with suppress(CompositeH5Error, OSError):
        name = shown_image(composite)
        picture = _thumbnail(name, lazy(composite, name))
    infos = components(composite).values()
    rows = [f"<tr>{''.join(f'<th>{name}</th>' for name in CELLS)}</tr>"]
    for info in infos:
        *texts, where = cells(info)
        more = info.note or info.target or (f"copied from {info.origin}" if info.origin else "")
        row = "".join(f"<td>{escape(text)}</td>" for text in texts)
        rows.append(f'<tr>{row}<td title="{escape(more)}">{escape(where)}</td></tr>')
    about = {
        "data ID": _data_id(composite),
        "dataset type": composite.dataset_type,
        "run": composite.run,
        "stage": composite.stage,
        "id": composite.id,
        "file": composite.location or "not stored",
        "size": human_bytes(sum(info.nbytes for info in infos)),
    }
    lines = "<br>".join(f"{key}: {escape(text)}" for key, text in about.items() if text)
    return (
        f"<div><b>{escape(f'Composite {composite.definition}')}</b>"
        f'<div style="display: flex; gap: 1em; align-items: flex-start"><div>{lines}</div>{picture}</div>'
        f"<table>{''.join(rows)}</table></div>"
    )


def _data_id(composite: CompositeLike) -> str:
    return " ".join(f"{key}={value}" for key, value in composite.data_id.items())


def shown_image(composite: CompositeLike) -> str:
    """Return the name of the image that stands for the composite in a picture.

    Raises
    ------
    NoSuchComponentError
        If it has no image.
    """
    images = [name for name, part in composite.parts.items() if part.kind == "image"]
    if not images:
        raise NoSuchComponentError(f"{composite!r} has no image to be shown{suggest('image', list(composite.parts))}")
    return next((name for name in (composite.signal, "image") if name in images), images[0])


def _thumbnail(name: str, image: LazyArray) -> str:
    """Return the element of a thumbnail of an image; empty for one that can't be shown."""
    if image.ndim != 2 or 0 in image.shape:
        return ""
    middle = tuple(slice((n - min(n, THUMBNAIL_READS)) // 2, (n + min(n, THUMBNAIL_READS)) // 2) for n in image.shape)
    try:
        part = image[middle]
    except (CompositeH5Error, OSError):
        # The table says what is lost; a picture of what is damaged isn't worth an error.
        return ""
    grey, low, high = stretched(block_means(part, max(-(-n // THUMBNAIL) for n in part.shape)))
    box = Box(*(limit + image.origin[axis] for axis, s in enumerate(middle) for limit in (s.start, s.stop)))
    what = name if part.shape == image.shape else f"{name}, rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"
    source = b64encode(png(grey)).decode("ascii")
    return (
        f'<figure style="margin: 0"><img alt="{escape(name)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(what)}: {low:.4g} to {high:.4g}</figcaption></figure>"
    )


def block_means(array: NDArray[Any], step: int) -> NDArray[np.float32]:
    """Return the means of blocks of ``step`` by ``step`` pixels, smaller at the last edges; NaN don't count."""
    padding = [(0, -n % step) for n in array.shape]
    padded = np.pad(array.astype(np.float32, copy=False), padding, constant_values=np.nan)
    ny, nx = padded.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means: NDArray[np.float32] = np.nanmean(padded.reshape(ny // step, step, nx // step, step), axis=(1, 3))
    return means


def stretched(array: NDArray[Any]) -> tuple[NDArray[np.uint8], float, float]:
    """Return values as grey levels, and those that are black and white; NaN is black."""
    from astropy.visualization import ZScaleInterval

    finite = array[np.isfinite(array)]
    low, high = (float(limit) for limit in ZScaleInterval().get_limits(finite)) if finite.size else (0.0, 1.0)
    if not low < high:
        high = low + 1
    with np.errstate(over="ignore", invalid="ignore"):
        levels = np.clip((array.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.nan_to_num(levels).astype(np.uint8), low, high


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file (ISO/IEC 15948) of grey levels, shape (ny, nx), or colours, shape (ny, nx, 3).

    The first row is the lowest of the picture, as in FITS images.
    """
    ny, nx = pixels.shape[:2]
    # Each line is preceded by its filter: 0, none.
    lines = np.pad(pixels[::-1].reshape(ny, -1), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", nx, ny, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
