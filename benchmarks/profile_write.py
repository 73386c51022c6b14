"""Show where the time of writing an exposure goes.

    python benchmarks/profile_write.py [--size 4000] [--recipe lossless]

Prints, as Markdown, what each step takes of the CPU time of one write (`cProfile`), and what cannot be left out: the
SHA-256 of all content, and deflating what is compressed. One thread does all of it here.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
from pathlib import Path

import containers
from data import Exposure

RECIPES = {kind.recipe: kind for kind in (containers.Composite, containers.CompositeRaw, containers.CompositeQuantized)}

STEPS = {
    "deflate (ISA-L)": ("isal_zlib.Compress", "zlib.Compress"),
    "SHA-256": ("_hashlib.HASH", "openssl_sha256"),
    "shuffle, and other copies": ("ascontiguousarray", "'copy'", "'astype'", "'join'", "'tobytes'"),
    "least and largest value, rounding": ("rounded", "ufunc"),
    "checksums of chunks (Adler-32, CRC-32)": ("adler32", "crc32"),
    "writing to the file, fsync, rename": ("posix.",),
}


def profile(data: Exposure, recipe: str) -> pstats.Stats:
    """Return the profile of the second of two writes."""
    with tempfile.TemporaryDirectory() as folder:
        peer = RECIPES[recipe](Path(folder))
        peer.write(data)
        profiler = cProfile.Profile()
        profiler.runcall(peer.write, data)
    return pstats.Stats(profiler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000, help="pixels along each axis")
    parser.add_argument("--recipe", default="lossless", choices=RECIPES, help="how it is stored")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    stats = profile(Exposure(arguments.size), arguments.recipe)
    found = dict.fromkeys(STEPS, 0.0)
    for (file, _, function), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        name = function if file == "~" or file.endswith("quantized.py") else ""
        step = next((step for step, parts in STEPS.items() if any(part in name for part in parts)), None)
        if step is not None:
            found[step] += own
    total = stats.total_tt  # type: ignore[attr-defined]
    found["all else"] = total - sum(found.values())
    print(f"| step of writing {arguments.recipe}, {arguments.size} x {arguments.size} pixels | ms | % |\n|---|---|---|")
    for step, seconds in found.items():
        if seconds >= 0.0005:
            print(f"| {step} | {1e3 * seconds:.0f} | {100 * seconds / total:.0f} |")
    print(f"| | {1e3 * total:.0f} | 100 |")


if __name__ == "__main__":
    main()
