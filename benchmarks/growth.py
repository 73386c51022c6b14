"""How the cost grows: with the number of components, of files, of pixels and of cutouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from containers import Composite, forget_links
from data import Exposure
from timing import timed

import compositeh5 as ch5

Task = Callable[[], object]
SEEN = 100
"""Cutouts, and their size in pixels."""


def of_components(folder: Path, number: int) -> dict[str, Task]:
    """Return what is done with a composite of many small components."""
    path = folder / f"components_{number}.h5"
    arrays = {f"part_{n}": np.arange(16.0) + n for n in range(number)}
    composite = ch5.Composite(None, arrays)
    composite.write(path)

    def read_one() -> Any:
        with ch5.open(path) as c:
            return c["part_1"]

    def read_all() -> None:
        with ch5.open(path) as c:
            c.load()

    return {
        "write": lambda: composite.write(path, replace=True),
        "open, read one of them": read_one,
        "read all": read_all,
    }


def of_files(folder: Path, number: int) -> dict[str, Task]:
    """Return what is done with the detectors of a visit."""
    peer = Composite(folder / f"files_{number}")
    peer.path.parent.mkdir()
    peer.write_visit([Exposure(32, n) for n in range(number)])
    forget_links()
    return {"record of each": lambda: peer.records(number), "all WCS": lambda: peer.all_wcs(number)}


def of_pixels(folder: Path, number: int) -> dict[str, Task]:
    """Return what is done with an exposure of about so many pixels."""
    side = round(number**0.5)
    data, peer = Exposure(side), Composite(folder / f"pixels_{number}")
    peer.path.parent.mkdir()
    peer.write(data)
    box = ch5.Box(side // 2, side // 2 + SEEN, side // 2, side // 2 + SEEN)

    def cutout() -> Any:
        with ch5.open(peer.path) as c:
            return c.read("image", box=box)

    return {"write": lambda: peer.write(data), "read whole": peer.planes, f"{SEEN} x {SEEN} cutout": cutout}


def of_cutouts(folder: Path, number: int) -> dict[str, Task]:
    """Return what is done with an exposure of which many parts are wanted."""
    peer = Composite(folder / f"cutouts_{number}")
    peer.path.parent.mkdir()
    peer.write(Exposure(1500))
    places = np.random.default_rng(1).uniform(100, 1400, (number, 2))
    return {
        "together": lambda: list(ch5.trees.cutouts(peer.path, places, SEEN)),
        "one by one": lambda: [next(ch5.trees.cutouts(peer.path, place, SEEN)) for place in map(tuple, places)],
    }


SERIES: dict[str, tuple[Callable[[Path, int], dict[str, Task]], list[int]]] = {
    "components": (of_components, [4, 16, 64, 256, 1024]),
    "files": (of_files, [12, 47, 189, 756]),
    "pixels": (of_pixels, [250_000, 1_000_000, 4_000_000, 16_000_000]),
    "cutouts": (of_cutouts, [4, 16, 64, 256]),
}


def measure(folder: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Return for each kind of growth and task the numbers, the medians of CPU time in ms, and x of t ~ n^x."""
    runs, seconds = (1, 0.1) if quick else (5, 1)
    found: dict[str, dict[str, Any]] = {}
    for what, (prepare, numbers) in SERIES.items():
        kept = numbers[:2] if quick else numbers
        tasks = {number: prepare(folder, number) for number in kept}
        for name in tasks[kept[0]]:
            times = [timed(tasks[number][name], runs, seconds)["cpu"] for number in kept]
            exponent = float(np.polyfit(np.log(kept), np.log(times), 1)[0])
            found.setdefault(what, {})[name] = {"numbers": kept, "cpu": times, "exponent": exponent}
    return found
