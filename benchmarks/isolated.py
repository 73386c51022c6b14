"""Time reading in a process of its own (``isolated=True``), and a checked copy (``digest=``), beside a plain open.

    python benchmarks/isolated.py [--size 4000] [--runs 5]

Prints a Markdown table: wall-clock time in ms (median; CPU time would leave out the other process), and the ratio to
the plain open in brackets.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from data import Exposure

import compositeh5 as ch5
from compositeh5 import targets


def make(folder: Path, size: int) -> Path:
    """Write an exposure that links to its visit."""
    data, path = Exposure(size), folder / "calexp.h5"
    visit = ch5.Composite("visit", visit_info={"visit": 7, "exposure_time": 30.0}, data_id={"visit": 7})
    visit.write(folder / "visit.h5")
    mask = ch5.Mask(data.mask, {"BAD": 0, "SAT": 1})
    link = visit.link("visit_info")
    ch5.Composite("exposure", image=data.image, mask=mask, variance=data.variance, wcs=data.wcs, visit_info=link).write(
        path
    )
    return path


def timed(open_one: Callable[[], ch5.Composite], size: int) -> dict[str, float]:
    """Return the seconds of each task, on one composite."""
    targets.cache.clear()
    side = size // 4
    tasks: dict[str, Callable[[ch5.Composite], Any]] = {
        "open": repr,
        "wcs": lambda c: c["wcs"],
        "visit_info, through its link": lambda c: c["visit_info"],
        "cutout of 256 x 256": lambda c: c.read("image", box=ch5.Box(side, side + 256, side, side + 256)),
        "100 cutouts of 64 x 64": lambda c: [
            c.read("image", box=ch5.Box(y, y + 64, y, y + 64)) for y in range(0, size - 64, (size - 64) // 100 + 1)
        ],
        "image": lambda c: c["image"],
        "everything": lambda c: [c[name] for name in c],
    }
    seconds = {}
    start = time.perf_counter()
    with open_one() as composite:
        for name, task in tasks.items():
            start = start if name == "open" else time.perf_counter()
            task(composite)
            seconds[name] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder), options.size)
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        ways: dict[str, Callable[[], ch5.Composite]] = {
            "plain": lambda: ch5.open(path),
            "isolated": lambda: ch5.open(path, isolated=True),
            "digest": lambda: ch5.open(path, digest=digest),
        }
        runs = {way: [timed(open_one, options.size) for _ in range(options.runs + 1)] for way, open_one in ways.items()}
    print(f"| task, {options.size} x {options.size} | {' | '.join(ways)} |\n|---|{'---|' * len(ways)}")
    for task in runs["plain"][0]:
        # The first run of each loads modules.
        times = {way: 1e3 * median(run[task] for run in of_way[1:]) for way, of_way in runs.items()}
        cells = (f"{value:.1f} ({value / times['plain']:.2g})" for value in times.values())
        print(f"| {task} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
