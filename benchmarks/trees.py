"""Time the operations that look at every file of a tree, on small composites of which most link to a shared one.

    python benchmarks/trees.py [--files 1000 10000] [--jobs 2] [--directory DIR]

Prints a Markdown table: seconds and files per second for each size of tree, in this process (CPU time) and on several
(wall time, to which adds what else the machine does), and how the time grows: t ~ n^x. The files are in the cache of
the operating system.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import compositeh5 as ch5
from compositeh5.trees import refs_to, verify_files

CCDS = 9
"""Of ten files, nine link to the tenth."""


def write(composite: ch5.Composite, path: Path) -> None:
    """Write a file without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(composite.file_image(path))
    composite.location = str(path)


def make_tree(root: Path, files: int) -> Path:
    pixels = np.zeros((8, 8), np.float32)
    for visit in range(files // (CCDS + 1)):
        shared = ch5.Composite("visit", visit_info={"visit": visit, "exposure_time": 30.0}, data_id={"visit": visit})
        write(shared, root / "visit" / f"{visit}.h5")
        link = shared.link("visit_info")
        for detector in range(CCDS):
            data_id = {"visit": visit, "detector": detector}
            ccd = ch5.Composite("exposure", image=pixels, visit_info=link, data_id=data_id)
            write(ccd, root / "calexp" / str(visit) / f"{detector}.h5")
    return root


def tasks(root: Path) -> dict[str, Callable[..., object]]:
    return {
        "refs --to": partial(refs_to, root / "visit" / "0.h5", root),
        "verify --quick": partial(verify_files, root, quick=True),
        "verify": partial(verify_files, root),
    }


def seconds(task: Callable[..., object], executor: Executor | None) -> float:
    clock = time.process_time if executor is None else time.perf_counter
    start = clock()
    task(executor=executor)
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--directory", default=None)
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {CCDS} of {CCDS + 1} files link to one\n")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        trees = {count: make_tree(Path(folder) / str(count), count) for count in arguments.files}
        print("| | " + " | ".join(f"{count} files" for count in trees) + " | t ~ n^x |")
        print("|" + "---|" * (len(trees) + 2))
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            # They have started and imported everything.
            verify_files(next(iter(trees.values())), executor=pool)
            for name in tasks(Path()):
                for where, executor in (("1 process, CPU", None), (f"{arguments.jobs} processes, wall", pool)):
                    times = {count: seconds(tasks(root)[name], executor) for count, root in trees.items()}
                    cells = [f"{spent:.2f} s, {count / spent:.0f}/s" for count, spent in times.items()]
                    (few, short), (many, long) = min(times.items()), max(times.items())
                    growth = f"{math.log(long / short) / math.log(many / few):.2f}" if many > few else ""
                    print(f"| {name}, {where} | " + " | ".join(cells) + f" | {growth} |", flush=True)


if __name__ == "__main__":
    main()
