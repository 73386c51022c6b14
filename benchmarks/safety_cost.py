"""What safety costs: writing, opening and cutouts, beside h5py by hand on the same pixels in the same run.

    python benchmarks/safety_cost.py [--size 4000] [--runs 7]

Prints a Markdown table of medians of wall-clock times, in ms, with the goals. Ours checks all it reads, and what it
writes is forced to the disk before it gets its name; h5py does neither, and closes its files.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from timing import timed_in_turn

import compositeh5 as ch5

CHUNKS = (256, 256)
ROWS = slice(1000, 1256)


def tables(folder: Path, size: int, runs: int) -> list[tuple[str, float, float, str]]:
    """Return for each task its name, our time and that of h5py, and how they compare with the goal."""
    pixels = np.random.default_rng(1).normal(0, 23, (size, size)).astype("f4")
    raw, packed, plain, gzip = (folder / name for name in ("raw.h5", "packed.h5", "plain.h5", "gzip.h5"))
    composite = ch5.Composite(None, image=ch5.Image(pixels))

    def write_plain() -> None:
        with h5py.File(plain, "w") as file:
            file["image"] = pixels

    def write_gzip() -> None:
        with h5py.File(gzip, "w") as file:
            file.create_dataset("image", data=pixels, chunks=CHUNKS, compression="gzip", shuffle=True)

    def open_plain() -> None:
        with h5py.File(gzip):
            pass

    def open_ours() -> None:
        with ch5.open(packed) as c:
            assert c.id

    def cutout_ours() -> None:
        with ch5.open(packed) as c:
            c.lazy("image")[ROWS, ROWS]

    def cutout_plain() -> None:
        with h5py.File(packed) as file:
            file["composite/image"][ROWS, ROWS]

    def times(runs: int, *tasks: Callable[[], object]) -> list[float]:
        return [timing["wall"] for timing in timed_in_turn(tasks, runs)]

    rows = []
    ours, theirs = times(runs, lambda: composite.write(raw, replace=True, recipes={"image": "raw"}), write_plain)
    rows.append(("write, contiguous", ours, theirs, f"{ours / theirs:.2f} x (goal: 2 x)"))
    ours, theirs = times(max(1, runs // 3), lambda: composite.write(packed, replace=True), write_gzip)
    rows.append(("write, gzip", ours, theirs, f"{ours / theirs:.2f} x (goal: 0.25 x)"))
    ours, theirs = times(20 * runs, open_ours, open_plain)
    rows.append(("open", ours, theirs, f"{ours - theirs:+.2f} ms (goal: +1 ms)"))
    ours, theirs = times(5 * runs, cutout_ours, cutout_plain)
    rows.append(("open, cutout of 256 x 256", ours, theirs, f"{ours / theirs:.2f} x (goal: 1.2 x)"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = tables(Path(folder), arguments.size, arguments.runs)
    print("| task | compositeh5, ms | h5py, ms | |\n|---|---|---|---|")
    for name, ours, theirs, goal in rows:
        print(f"| {name} | {ours:.2f} | {theirs:.2f} | {goal} |")


if __name__ == "__main__":
    main()
