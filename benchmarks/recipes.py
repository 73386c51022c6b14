"""One exposure in chunks of several shapes and by several recipes, in turn: why the default is what it is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import containers
from data import Exposure
from peers import corners_in, megabytes
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


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Return for each recipe the size in MB, and wall times in ms."""
    size = 400 if quick else 4000
    data, corners, known = Exposure(size), corners_in(size), peers(folder)
    tasks = [
        [partial(peer.write, data) for peer in known.values()],
        [peer.planes for peer in known.values()],
        [partial(peer.cutouts, corners[:1]) for peer in known.values()],
        [partial(peer.cutouts, corners) for peer in known.values()],
    ]
    # The files are there once they have been written.
    times = [
        [timing["wall"] for timing in timed_in_turn(task, 1 if quick else 3, 0.1 if quick else 600)] for task in tasks
    ]
    sizes = [megabytes(peer.path) for peer in known.values()]
    columns = {"size, MB": sizes, **dict(zip(TASKS, times, strict=True))}
    return {name: {what: values[i] for what, values in columns.items()} for i, name in enumerate(known)}
