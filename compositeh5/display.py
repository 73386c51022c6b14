"""Composites for the eye: pictures with the contrast of zscale and the mask in colours, and HTML for notebooks."""

from __future__ import annotations

import struct
import warnings
import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .composite import Composite
from .errors import CompositeH5Error, NoSuchComponentError, WrongTypeError, suggest
from .geometry import Box
from .kinds.mask import Mask
from .report import CELLS, cells, human_bytes

THUMBNAIL = 192
"""Rows and columns of a thumbnail, at most."""

THUMBNAIL_READS = 1024
"""A thumbnail is made of no more than so many rows and columns: of larger images it shows the middle, for to see all of
one, all its chunks would have to be unpacked."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (230, 25, 25),
    "green": (40, 200, 60),
    "blue": (40, 90, 255),
    "yellow": (240, 220, 30),
    "magenta": (230, 40, 220),
    "cyan": (40, 210, 220),
    "orange": (255, 140, 20),
}
"""Colours of planes of masks: red, green, blue by name."""

PLANE_COLOURS: Mapping[str, str] = {
    "BAD": "red",
    "CR": "magenta",
    "DETECTED": "blue",
    "DETECTED_NEGATIVE": "cyan",
    "EDGE": "yellow",
    "INTRP": "green",
    "NO_DATA": "orange",
    "SAT": "green",
    "SUSPECT": "yellow",
}
"""Colours that ``lsst.afw.display`` has for planes; others take those of `COLOURS` in turn."""


class Picture(NamedTuple):
    """An image as it is shown.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8, shape (ny, nx, 3)
        Red, green, blue; the first row is the lowest.
    low, high : float
        Values of the image that are black and white.
    step : int
        Rows and columns of the image that became one.
    colours : dict
        The name of the colour of each plane of the mask that is seen.
    """

    pixels: NDArray[np.uint8]
    low: float
    high: float
    step: int
    colours: dict[str, str]


def shown_component(composite: Composite) -> str:
    """Return the name of the component that stands for a composite in a picture.

    Raises
    ------
    NoSuchComponentError
        If it has no image.
    """
    images = [name for name in composite if composite.kind(name) == "image"]
    if not images:
        raise NoSuchComponentError(f"{composite!r} has no image to be shown{suggest('image', list(composite))}")
    return next((name for name in (composite._signal, "image") if name in images), images[0])


def picture(composite: Composite, side: int = 1024, *, planes: Iterable[str] | None = None) -> Picture:
    """Return an image, reduced to at most ``side`` rows and columns, with its mask in colours.

    Parameters
    ----------
    composite : Composite
        One with an image of two axes; all its pixels are read.
    side : int, optional
        Rows and columns at most. Each pixel is the mean of a block; it has the colour of a plane if any pixel of the
        block does.
    planes : iterable of str, optional
        The planes of the mask that are shown; none if it is empty; all by default.

    Raises
    ------
    NoSuchComponentError
        If there is no image.
    MaskPlaneError
        If the mask has no plane of one of the names.
    TypeError
        If the image doesn't have two axes.
    CompositeH5Error
        As reading the image and the mask does.
    """
    name = shown_component(composite)
    shape = composite.lazy(name).shape
    step = max(1, *(-(-n // side) for n in shape))
    image = composite[name].array
    if image.ndim != 2:
        raise WrongTypeError(f"{composite!r}: component {name!r} has {image.ndim} axes, but a picture needs two")
    grey, low, high = _stretched(_reduced(image, step))
    pixels = np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    colours: dict[str, str] = {}
    if "mask" in composite and (planes is None or planes):
        mask = composite["mask"]
        # A mask of another shape belongs to something else.
        if isinstance(mask, Mask) and mask.shape == shape:
            colours = _paint(pixels, mask, step, list(mask.planes) if planes is None else list(planes))
    return Picture(pixels, low, high, step, colours)


def _reduced(image: NDArray[Any], step: int) -> NDArray[np.float32]:
    """Return the means of blocks of pixels, those at the last edges maybe smaller; NaN doesn't count."""
    padded = np.pad(image.astype(np.float32, copy=False), [(0, -n % step) for n in image.shape], constant_values=np.nan)
    ny, nx = padded.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means: NDArray[np.float32] = np.nanmean(padded.reshape(ny // step, step, nx // step, step), axis=(1, 3))
    return means


def _stretched(image: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, float]:
    """Return values as grey levels, and those that are black and white; NaN is black."""
    from astropy.visualization import ZScaleInterval

    finite = image[np.isfinite(image)]
    low, high = (float(limit) for limit in ZScaleInterval().get_limits(finite)) if finite.size else (0.0, 1.0)
    if not low < high:
        high = low + 1
    with np.errstate(over="ignore", invalid="ignore"):
        levels = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return np.nan_to_num(levels).astype(np.uint8), low, high


def _paint(pixels: NDArray[np.uint8], mask: Mask, step: int, planes: list[str]) -> dict[str, str]:
    """Mix the colours of planes into pixels; return those that are seen."""
    ny, nx = (-(-n // step) for n in mask.shape)
    padded = np.pad(mask.array, [(0, -n % step) for n in mask.shape])
    bits = np.bitwise_or.reduce(padded.reshape(ny, step, nx, step), axis=(1, 3))
    seen = {}
    names = list(COLOURS)
    for number, plane in enumerate(planes):
        where = bits & bits.dtype.type(mask.bits(plane)) != 0
        if where.any():
            seen[plane] = PLANE_COLOURS.get(plane, names[number % len(names)])
            pixels[where] = (pixels[where].astype(np.uint16) + COLOURS[seen[plane]]) // 2
    return seen


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


# ---- Notebooks ---------------------------------------------------------------------------------------------


def html(composite: Composite) -> str:
    """Return what a notebook shows of a composite: its components, where they are, and a thumbnail of its image.

    All text is escaped: files may come from strangers. Values are not read, but for some of the pixels of the image.
    """
    if composite._closed:
        return f"<pre>{escape(repr(composite))}</pre>"
    infos = composite.components().values()
    rows = [f"<tr>{''.join(f'<th>{name}</th>' for name in CELLS)}</tr>"]
    for info in infos:
        *texts, where = cells(info)
        more = info.note or info.target or (f"copied from {info.origin}" if info.origin else "")
        columns = "".join(f"<td>{escape(text)}</td>" for text in texts)
        rows.append(f'<tr>{columns}<td title="{escape(more)}">{escape(where)}</td></tr>')
    about = {
        "data ID": " ".join(f"{key}={value}" for key, value in composite.data_id.items()),
        "dataset type": composite.dataset_type,
        "run": composite.run,
        "stage": composite.stage,
        "id": composite.id,
        "file": composite.location or "not stored",
        "size": human_bytes(sum(info.nbytes for info in infos)),
    }
    lines = "<br>".join(f"{key}: {escape(text)}" for key, text in about.items() if text)
    return (
        f"<div><b>Composite {escape(composite.definition)}</b>"
        f'<div style="display: flex; gap: 1em; align-items: flex-start"><div>{lines}</div>{_thumbnail(composite)}</div>'
        f"<table>{''.join(rows)}</table></div>"
    )


def _thumbnail(composite: Composite) -> str:
    """Return the element of a thumbnail; empty for a composite without an image that can be shown."""
    try:
        name = shown_component(composite)
        lazy = composite.lazy(name)
        if lazy.ndim != 2 or 0 in lazy.shape:
            return ""
        middle = [slice((n - min(n, THUMBNAIL_READS)) // 2, (n + min(n, THUMBNAIL_READS)) // 2) for n in lazy.shape]
        part = lazy[tuple(middle)]
        grey, low, high = _stretched(_reduced(part, max(-(-n // THUMBNAIL) for n in part.shape)))
    except (CompositeH5Error, OSError):
        # The table says what is lost; a picture of what is damaged isn't worth an error.
        return ""
    box = Box(*(limit + lazy.origin[axis] for axis, s in enumerate(middle) for limit in (s.start, s.stop)))
    what = name if part.shape == lazy.shape else f"{name}, rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"
    return (
        f'<figure style="margin: 0"><img alt="{escape(name)}" src="data:image/png;base64,{_text(png(grey))}">'
        f"<figcaption>{escape(what)}: {low:.4g} to {high:.4g}</figcaption></figure>"
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def on_terminal(shown: Picture) -> Any:
    """Return a picture as text of rich: two rows of pixels in each line, in half blocks. Needs the extra ``cli``."""
    from rich.text import Text

    pixels = shown.pixels[::-1]
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", style="rgb({},{},{}) on rgb({},{},{})".format(*above, *below))
        text.append("\n")
    return text
