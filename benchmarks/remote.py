"""Count requests, bytes and seconds of reads over HTTP with latency, beside h5py through a stream of lsst.resources.

    python benchmarks/remote.py [--size 4000] [--latency 0.03] [--runs 3] [--json figures.json]

The server is on this machine and answers each request after the latency. Prints a Markdown table: requests, MB sent,
and seconds (median), for the same file and the same parts of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import h5py
import numpy as np
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


def measure(server: RangeServer, url: str, size: int, runs: int) -> dict[str, Row]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4000, help="rows and columns of the exposure")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args()
    environment = f"Python {platform.python_version()}, h5py {h5py.__version__}, numpy {np.__version__}"
    with tempfile.TemporaryDirectory() as folder, range_server(Path(folder)) as server:
        shape = (args.size, args.size)
        exposure(shape, variance=ch5.Image(pixels(shape, 2), origin=(100, 200))).write(Path(folder) / "x.h5")
        megabytes = (Path(folder) / "x.h5").stat().st_size / 1e6
        server.latency = args.latency
        rows = measure(server, f"{server.url}/x.h5", args.size, args.runs)
    print(f"{environment}, file of {megabytes:.0f} MB, {args.latency * 1000:.0f} ms latency, {args.runs} runs\n")
    print("| what is read | compositeh5: requests, MB, s | h5py by hand: requests, MB, s |\n|---|---|---|")
    for name, row in rows.items():
        cells = [f"{requests}, {sent:.1f}, {seconds:.2f}" for requests, sent, seconds in row.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    if args.json:
        sizes = {"size": args.size, "latency": args.latency, "runs": args.runs, "megabytes": megabytes}
        args.json.write_text(json.dumps({"environment": environment, **sizes, "reads": rows}, indent=2))


if __name__ == "__main__":
    main()
