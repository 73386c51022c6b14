"""Images as small pictures: fewer pixels, the contrast of zscale, PNG files."""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def block_means(array: NDArray[Any], step: int) -> NDArray[np.float32]:
    """Return the means of blocks of ``step`` by ``step`` pixels, those at the last edges maybe smaller.

    Parameters
    ----------
    array : numpy.ndarray, shape (ny, nx)
        Pixels of an image. Those that are NaN don't count.
    step : int
        Rows and columns of a block.
    """
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
