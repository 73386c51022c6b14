"""Write one exposure in chunks of several shapes and by several recipes: why the default is what it is.

    python benchmarks/recipes.py [--size 4000] [--runs 3]

Prints a Markdown table of sizes and of medians of wall times, in ms, beside h5py by hand; all are run in turn.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

import containers
from data import Exposure
from peers import corners_in
from timing import timed_in_turn

import compositeh5 as ch5

RECIPES: dict[str, ch5.Recipe | str] = {
    "`lossless` (chunks of 256 x 256)": "lossless",
    "chunks of 64 x 64": ch5.Recipe(chunks=(64, 64)),
    "chunks of 128 x 128": ch5.Recipe(chunks=(128, 128)),
    "chunks of 512 x 512": ch5.Recipe(chunks=(512, 512)),
    "chunks of 1024 x 1024": ch5.Recipe(chunks=(1024, 1024)),
    "chunks of 16 rows": ch5.Recipe(chunks=(16, 4096)),
    "not shuffled": ch5.Recipe(shuffle=False),
    "gzip 4": ch5.Recipe(gzip=4),
    "`archive` (gzip 9)": "archive",
    "`raw`": "raw",
    "`quantized`": "quantized",
}
TASKS = ("write", "read whole", "one cutout", "100 cutouts")


def peers(folder: Path) -> dict[str, containers.Peer]:
    """Return what writes the exposure by each recipe, and by h5py."""
    found: dict[str, containers.Peer] = {}
    for number, (name, recipe) in enumerate(RECIPES.items()):
        (place := folder / str(number)).mkdir()
        found[name] = peer = containers.Composite(place)
        peer.recipe = recipe  # type: ignore[misc, assignment]
    return {**found, "h5py gzip (chunks of 256 x 256)": containers.Plain(folder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000, help="pixels along each axis")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    data, corners = Exposure(arguments.size), corners_in(arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        known = peers(Path(folder))
        tasks = [
            [partial(peer.write, data) for peer in known.values()],
            [peer.planes for peer in known.values()],
            [partial(peer.cutouts, corners[:1]) for peer in known.values()],
            [partial(peer.cutouts, corners) for peer in known.values()],
        ]
        # The files are there once they have been written.
        times = [[timing["wall"] for timing in timed_in_turn(of_task, arguments.runs, 600)] for of_task in tasks]
        sizes = [os.path.getsize(peer.path) / 1e6 for peer in known.values()]
    print(f"| | size, MB | {' | '.join(TASKS)} |\n|---|---|{'---|' * len(TASKS)}")
    for name, size, *own in zip(known, sizes, *times, strict=True):
        print(f"| {name} | {size:.1f} | {' | '.join(f'{value:.3g}' for value in own)} |")


if __name__ == "__main__":
    main()
