"""What a notebook shows of a composite: its components, where they are, and a thumbnail of its image.

All text is escaped: files may come from strangers. Values are not read, but for some of the pixels of the image.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from html import escape

from ..box import Box
from ..errors import CompositeH5Error
from .describe import CELLS, ComponentInfo, cells, human_bytes
from .lazy import LazyArray
from .pictures import block_means, png, stretched

THUMBNAIL = 192
"""Rows and columns of a thumbnail, at most."""

THUMBNAIL_READS = 1024
"""A thumbnail is made of no more than so many rows and columns: of larger images it shows the middle, for to see all of
one, all its chunks would have to be unpacked."""


def html(title: str, about: Mapping[str, str], infos: Collection[ComponentInfo], thumbnail: str) -> str:
    """Return the element that shows a composite.

    Parameters
    ----------
    title : str
        What it is.
    about : mapping of str to str
        What else is told of it; empty texts are left out.
    infos : collection of ComponentInfo
        Its components.
    thumbnail : str
        The element that `thumbnail` returns.
    """
    rows = [f"<tr>{''.join(f'<th>{name}</th>' for name in CELLS)}</tr>"]
    for info in infos:
        *texts, where = cells(info)
        more = info.note or info.target or (f"copied from {info.origin}" if info.origin else "")
        columns = "".join(f"<td>{escape(text)}</td>" for text in texts)
        rows.append(f'<tr>{columns}<td title="{escape(more)}">{escape(where)}</td></tr>')
    about = {**about, "size": human_bytes(sum(info.nbytes for info in infos))}
    lines = "<br>".join(f"{key}: {escape(text)}" for key, text in about.items() if text)
    return (
        f"<div><b>{escape(title)}</b>"
        f'<div style="display: flex; gap: 1em; align-items: flex-start"><div>{lines}</div>{thumbnail}</div>'
        f"<table>{''.join(rows)}</table></div>"
    )


def thumbnail(name: str, lazy: LazyArray) -> str:
    """Return the element of a thumbnail of an image; empty for one that can't be shown."""
    if lazy.ndim != 2 or 0 in lazy.shape:
        return ""
    middle = tuple(slice((n - min(n, THUMBNAIL_READS)) // 2, (n + min(n, THUMBNAIL_READS)) // 2) for n in lazy.shape)
    try:
        part = lazy[middle]
    except (CompositeH5Error, OSError):
        # The table says what is lost; a picture of what is damaged isn't worth an error.
        return ""
    grey, low, high = stretched(block_means(part, max(-(-n // THUMBNAIL) for n in part.shape)))
    box = Box(*(limit + lazy.origin[axis] for axis, s in enumerate(middle) for limit in (s.start, s.stop)))
    what = name if part.shape == lazy.shape else f"{name}, rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"
    source = b64encode(png(grey)).decode("ascii")
    return (
        f'<figure style="margin: 0"><img alt="{escape(name)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(what)}: {low:.4g} to {high:.4g}</figcaption></figure>"
    )
