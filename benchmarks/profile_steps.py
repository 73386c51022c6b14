"""Where the CPU time of writing an exposure, of reading it, or of a cutout goes; one thread does all of it here.

`cProfile` makes many small steps look slower.
"""

from __future__ import annotations

import cProfile
import os
import pstats
from collections.abc import Callable
from functools import partial
from pathlib import Path

import containers
from data import Exposure
from peers import corners_in

KINDS = (containers.Composite, containers.CompositeQuantized, containers.CompositeRaw)
TASKS = (
    *(f"write {kind.recipe}" for kind in KINDS),
    "read whole lossless",
    "read whole raw",
    "256 x 256 cutout",
    "open, calibration",
    "open, record of the visit",
)
OFTEN = 200
"""So many times is a short task run; what is printed is of one."""

STEPS = {
    "deflate, inflate (ISA-L)": ("isal_zlib.Compress", "zlib.Compress", "isal_zlib.Decompress", "zlib.Decompress"),
    "SHA-256": ("_hashlib.HASH", "openssl_sha256"),
    "shuffle, unshuffle, and other copies": ("ascontiguousarray", "'copy'", "'astype'", "'join'", "'tobytes'", "place"),
    "least and largest value, rounding": ("rounded", "ufunc"),
    "checksums (Adler-32, CRC-32)": ("adler32", "crc32"),
    "the system: read, write, fsync, rename": ("posix.",),
}
"""Functions that do each step."""

HDF5 = "HDF5, and checks of what is in the file"
"""What the modules of ``storage`` take that call HDF5; what that takes counts as time of its callers."""


def tasks(folder: Path, size: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Return what is done for each task, and how often."""
    data = Exposure(size)
    lossless, quantized, raw = (kind(folder) for kind in KINDS)
    writes = [(partial(peer.write, data), 1) for peer in (lossless, quantized, raw)]
    for write, _ in writes:
        write()
    reads = [(lossless.planes, 1), (raw.planes, 1)]
    cutout = partial(lossless.cutouts, corners_in(size)[:1])
    short = [(task, OFTEN) for task in (cutout, lossless.calibration, lossless.record)]
    return dict(zip(TASKS, [*writes, *reads, *short], strict=True))


def step_of(file: str, function: str) -> str:
    """Return the step to which a function belongs."""
    is_known = file == "~" or file.endswith(("quantized.py", "chunks.py"))
    for step, parts in STEPS.items():
        if is_known and any(part in function for part in parts):
            return step
    return HDF5 if f"{os.sep}storage{os.sep}" in file else "all else"


def profile(task: Callable[[], object], often: int) -> dict[str, float]:
    """Return what each step takes in ms, but for the first run."""
    task()
    os.sync()
    profiler = cProfile.Profile()
    for _ in range(often):
        profiler.runcall(task)
    found = dict.fromkeys([*STEPS, HDF5, "all else"], 0.0)
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        found[step_of(file, function)] += 1000 * own / often
    return found


def measure(folder: Path, quick: bool) -> dict[str, dict[str, float]]:
    """Return for each task what each step takes in ms."""
    os.environ["OMP_NUM_THREADS"] = "1"
    known = tasks(folder, 400 if quick else 4000)
    return {name: profile(task, 1 if quick else often) for name, (task, often) in known.items()}
