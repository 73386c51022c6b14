"""Medians of wall and CPU time, and what machine they are of."""

from __future__ import annotations

import importlib
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

Timing = dict[str, float]
"""Medians in ms: ``wall``, and ``cpu``, which counts all threads."""


def timed(function: Callable[[], object], runs: int, seconds: float = 60) -> Timing:
    """Return the medians of some runs; of fewer, at least one, if they would take longer than allowed.

    The first one loads modules and isn't counted, unless it is the only one.
    """
    return timed_in_turn([function], runs, seconds)[0]


def timed_in_turn(functions: Sequence[Callable[[], object]], runs: int, seconds: float = 60) -> list[Timing]:
    """Return the medians of functions that are run in turn, so that a machine that becomes slower is so for all.

    What others have written is forced to the disk before each run, and the waiting for it isn't counted.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in functions]
    until = time.monotonic() + seconds
    while len(times[0]) < runs + 1 and (not times[0] or time.monotonic() < until):
        for function, own in zip(functions, times, strict=True):
            os.sync()
            start, cpu = time.perf_counter(), _cpu_time()
            function()
            own.append((time.perf_counter() - start, _cpu_time() - cpu))
    return [_medians(own[1:] or own) for own in times]


def _cpu_time() -> float:
    """Return the CPU time of this process, in all threads, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run_program(program: str, argument: object, expected: str) -> None:
    """Run a program in a new process of Python; it must print what is expected."""
    command = [sys.executable, "-c", program, str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected, done.stdout


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
