"""Medians of wall and CPU time, and what machine they are of."""

from __future__ import annotations

import importlib
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

Timing = dict[str, float]
"""Medians in ms: ``wall``, and ``cpu``, which counts all threads."""


def timed(function: Callable[[], object], runs: int, seconds: float = 60) -> Timing:
    """Return the medians of some runs; of fewer, at least one, if they would take longer than allowed.

    The first one loads modules and isn't counted, unless it is the only one.
    """
    times: list[tuple[float, float]] = []
    until = time.monotonic() + seconds
    while len(times) < runs + 1 and (not times or time.monotonic() < until):
        start, cpu = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
    return _medians(times[1:] or times)


def timed_process(program: str, argument: object, runs: int, expected: str) -> Timing:
    """Return the medians of processes that run a program, which must print what is expected."""
    times = []
    for _ in range(runs):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, str(argument)], capture_output=True, text=True, check=True
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.stdout.strip() == expected, done.stdout
        times.append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return _medians(times)


def _medians(times: list[tuple[float, float]]) -> Timing:
    wall, cpu = zip(*times, strict=True)
    return {"wall": median(wall) * 1000, "cpu": median(cpu) * 1000}


def versions(*modules: str) -> dict[str, str]:
    """Return the versions of Python and of those modules that are installed."""
    found = {"Python": platform.python_version()}
    for name in modules:
        try:
            found[name] = importlib.import_module(name).__version__
        except ImportError:
            continue
    return found


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
