"""Show where the time of writing an exposure, of reading it, or of a cutout goes.

    python benchmarks/profiles.py [--size 4000] [--task "write lossless"]

Prints, as Markdown, what each step takes of the CPU time (`cProfile`, which makes many small steps look slower), for
one task or for all. One thread does all of it here.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
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
CHECKS = ("reader.py", "attributes.py", "h5types.py", "source.py", "files.py", "arrays.py", "layout.py", "nodes.py")
"""Modules that call HDF5; what it takes counts as time of its callers."""


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
    return HDF5 if f"container{os.sep}" in file and file.endswith(CHECKS) else "all else"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000, help="pixels along each axis")
    parser.add_argument("--task", choices=TASKS, action="append", help="all of them by default")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        known = tasks(Path(folder), arguments.size)
        found = {name: profile(*known[name]) for name in arguments.task or TASKS}
    print(f"| step, ms | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for step in [*STEPS, HDF5, "all else"]:
        print(f"| {step} | {' | '.join(shown(steps[step]) for steps in found.values())} |")
    print(f"| | {' | '.join(shown(sum(steps.values())) for steps in found.values())} |")


def shown(milliseconds: float) -> str:
    if milliseconds < 0.005:
        return ""
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2g}"


if __name__ == "__main__":
    main()
