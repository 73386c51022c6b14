"""Damage a small file in many ways, read each in a process of its own, and count what comes of it.

    python benchmarks/torture.py [--flips 2000] [--places 300] [--seconds 20]

Prints a Markdown table. *Detected*: an error of the package. *Harmless*: all values are right. *Silent*: some value is
wrong, and nobody says so. *Hang*: no answer within the time. *Crash*: the process died, or raised something else.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

import compositeh5 as ch5
from compositeh5 import targets

Damage = Callable[[bytearray], object]
OUTCOMES = ("detected", "harmless", "silent", "hang", "crash")


def make(path: Path) -> dict[str, bytes]:
    """Write a file with large and small components, and return what they hold."""
    rng = np.random.default_rng(1)
    shape = (260, 300)
    ch5.Composite(
        None,
        image=ch5.Image(rng.normal(0, 23, shape).astype("f4")),
        mask=ch5.Mask((rng.random(shape) > 0.99).astype("i4"), {"BAD": 0}),
        psf=ch5.Psf.constant(np.ones((9, 9)) / 81),
        info={"visit": 7, "filter": "i_39", "exposure_time": 30.0, "dithers": [1, 2, 3]},
        data_id={"visit": 7, "detector": 1},
        provenance={"inputs": ["raw"]},
    ).write(path)
    return read(path)


def read(path: Path) -> dict[str, bytes]:
    """Return all that a file holds, read as a user does."""
    targets.cache.clear()
    with ch5.open(path) as c:
        content = {"attributes": repr((sorted(c), c.data_id, c.provenance, c.stage, c.run, c.definition)).encode()}
        content["image"] = c["image"].array.tobytes()
        content["mask"] = c["mask"].array.tobytes() + repr(c["mask"]).encode()
        content["psf"] = np.asarray(c["psf"].kernels).tobytes()
        content["info"] = repr(c["info"]).encode()
        content["cutout"] = c.lazy("image")[100:140, 50:90].tobytes()
    return content


def outcome(path: Path, expected: dict[str, bytes], seconds: int) -> str:
    """Read a file in a child process, and say what came of it."""
    pid = os.fork()
    if pid == 0:
        code = OUTCOMES.index("crash")
        signal.alarm(seconds)
        try:
            code = OUTCOMES.index("harmless" if read(path) == expected else "silent")
        except ch5.CompositeH5Error:
            code = OUTCOMES.index("detected")
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return OUTCOMES[code] if code >= 0 else "hang" if code == -signal.SIGALRM else "crash"


def flip(position: int, bit: int) -> Damage:
    def damage(data: bytearray) -> None:
        data[position] ^= 1 << bit

    return damage


def flips(count: int, ranges: list[tuple[int, int]], seed: int) -> Iterator[Damage]:
    """Yield flips of one bit, at random in ranges of the file."""
    rng = np.random.default_rng(seed)
    places = np.concatenate([np.arange(*r) for r in ranges])
    for position in rng.choice(places, count):
        yield flip(int(position), int(rng.integers(8)))


def chunk_ranges(path: Path) -> list[tuple[int, int]]:
    """Return where the pixels are."""
    from compositeh5.container.reader import StoredFile

    file = StoredFile.open(str(path))
    try:
        found = sorted((start, start + size) for start, size in file.root.group("composite").array("image").extents())
        found += [(start, start + size) for start, size in file.root.group("composite").array("mask").extents()]
    finally:
        file.close()
    return sorted(found)


def damages(path: Path, flip_count: int, places: int) -> Iterator[tuple[str, Iterable[Damage]]]:
    """Yield each sort of damage with its cases."""
    size = path.stat().st_size
    chunks = chunk_ranges(path)
    first = chunks[0][0]
    rng = np.random.default_rng(5)
    at = sorted(int(n) for n in rng.integers(0, size, places))

    def hole(start: int) -> Damage:
        def damage(data: bytearray) -> None:
            start_ = start // 4096 * 4096
            data[start_ : start_ + 4096] = bytes(len(data[start_ : start_ + 4096]))

        return damage

    def swap(a: int, b: int) -> Damage:
        def damage(data: bytearray) -> None:
            i, j = a // 4096 * 4096, b // 4096 * 4096
            one, other = bytes(data[i : i + 4096]), bytes(data[j : j + 4096])
            if len(one) == len(other):
                data[i : i + 4096], data[j : j + 4096] = other, one

        return damage

    yield "bit flips, whole file", flips(flip_count, [(0, size)], 1)
    yield "bit flips, metadata", flips(flip_count, [(0, first)], 2)
    yield "bit flips, pixels", flips(flip_count, chunks, 3)
    yield "truncated", (lambda data, n=n: data.__delitem__(slice(n, None)) for n in at)
    yield "4 KiB zeroed", map(hole, at)
    yield "bytes appended", (lambda data, n=n: data.extend(rng.bytes(1 + n % 5000)) for n in at[: max(1, places // 10)])
    yield "4 KiB blocks swapped", map(swap, at, reversed(at))


def torture(folder: Path, flip_count: int, places: int, seconds: int) -> dict[str, Counter[str]]:
    """Return how often each outcome was met, for each sort of damage."""
    good, bad = folder / "good.h5", folder / "bad.h5"
    expected = make(good)
    data = good.read_bytes()
    table: dict[str, Counter[str]] = {}
    for name, cases in damages(good, flip_count, places):
        table[name] = Counter()
        for damage in cases:
            damaged = bytearray(data)
            damage(damaged)
            bad.unlink(missing_ok=True)
            bad.write_bytes(damaged)
            table[name][outcome(bad, expected, seconds)] += 1
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--places", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = torture(Path(folder), arguments.flips, arguments.places, arguments.seconds)
    print("| damage | cases | " + " | ".join(OUTCOMES) + " |\n|---|---|" + "---|" * len(OUTCOMES))
    for name, counts in table.items():
        print(f"| {name} | {counts.total()} | " + " | ".join(str(counts[o]) for o in OUTCOMES) + " |")


if __name__ == "__main__":
    main()
