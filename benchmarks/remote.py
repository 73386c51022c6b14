"""Requests, bytes and seconds of reads over HTTP with latency, beside h5py through a stream of lsst.resources.

The server is on this machine and answers each request after the latency.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import h5py
from lsst.resources import ResourcePath

import compositeh5 as ch5

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from range_server import RangeServer, range_server
from support import exposure, pixels

PLANES = ("image", "mask", "variance")
Row = dict[str, tuple[int, float, float]]


def tasks(size: int) -> dict[str, tuple[Callable[[ch5.Composite], object], Callable[[h5py.Group], object]]]:
    """Return what is read, by us and by h5py."""
    first = size // 2
    part = slice(first, first + 256)
    box = ch5.Box(first, first + 256, first, first + 256)
    return {
        "WCS": (lambda c: c["wcs"], lambda g: g["wcs"][()]),
        "256 x 256 pixels of the image": (lambda c: c.read("image", box=box), lambda g: g["image"][part, part]),
        "256 x 256 pixels of all planes": (lambda c: c.cutout(box), lambda g: [g[name][part, part] for name in PLANES]),
        "image": (lambda c: c["image"], lambda g: g["image"][...]),
        "all planes": (lambda c: c.load(), lambda g: [g[name][...] for name in PLANES]),
    }


def rows(server: RangeServer, url: str, size: int, runs: int) -> dict[str, Row]:
    def ours(read: Callable[[ch5.Composite], object]) -> None:
        with ch5.open(url) as c:
            read(c)

    def by_hand(read: Callable[[h5py.Group], object]) -> None:
        with ResourcePath(url).open("rb") as stream, h5py.File(stream) as file:
            read(file["composite"])

    def count(call: Callable[[], object]) -> tuple[int, float, float]:
        seconds = []
        for _ in range(runs):
            # h5py waits for the server with its lock held. If a thread of the server then collected what is left of
            # objects of h5py, it would wait for that lock.
            gc.collect()
            gc.disable()
            server.reset()
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
            gc.enable()
        return len(server.requests), server.sent / 1e6, median(seconds)

    return {
        name: {"compositeh5": count(lambda read=read: ours(read)), "h5py": count(lambda plain=plain: by_hand(plain))}
        for name, (read, plain) in tasks(size).items()
    }


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Return requests, MB and seconds of each read."""
    size, runs, latency = (1000, 1, 0.03) if quick else (4000, 3, 0.03)
    with range_server(folder) as server:
        shape = (size, size)
        exposure(shape, variance=ch5.Image(pixels(shape, 2), origin=(100, 200))).write(folder / "x.h5")
        server.latency = latency
        reads = rows(server, f"{server.url}/x.h5", size, runs)
    return {"latency": latency, "megabytes": (folder / "x.h5").stat().st_size / 1e6, "reads": reads}
