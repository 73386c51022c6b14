"""Damage small files in many ways, read each in a child process, and count what comes of it.

    TMPDIR=/dev/shm python benchmarks/torture.py [--flips 2000] [--places 300] [--seconds 20] [--formats NAME ...]

Prints Markdown tables: of all formats, of ours in detail, of changes by other software, and of what `rescue` saves.
*Detected*: an error that says so. *Harmless*: all values are right. *Silent*: some value is wrong, and nobody says so.
*Hang*: no answer within the time. *Crash*: the process died; of ours also if it raised what isn't an error of ours.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from torture_formats import FORMATS, OURS, VERIFIED, Format, open_ours

import compositeh5 as ch5

Damage = Callable[[Path], object]
Judge = Callable[[Path], str]
Table = dict[str, Counter[str]]

OUTCOMES = ("detected", "harmless", "silent", "hang", "crash")
SAVED = ("all", "some", "nothing", "silent", "hang", "crash")
_CODES = (*OUTCOMES, *SAVED[:3])

BATCH = 250
"""A process reads so many files; what one does to its memory isn't the fault of many others."""

MEMORY = 8 * 2**30
"""Who asks for more gets an error instead of the machine's memory."""

SECTOR = 4096


# ---- What is done to files ----------------------------------------------------------------------------------


def changed(change: Callable[[bytearray], object]) -> Damage:
    """Return the damage that changes the bytes of a file."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)

    return damage


def flips(count: int, ranges: Iterable[tuple[int, int]], seed: int) -> list[Damage]:
    """Return flips of one bit, at random in ranges of the file."""
    rng = np.random.default_rng(seed)
    places = np.concatenate([np.arange(*r) for r in ranges])
    bits = zip(rng.choice(places, count).tolist(), rng.integers(8, size=count).tolist(), strict=True)
    return [changed(lambda data, i=i, bit=bit: data.__setitem__(i, data[i] ^ 1 << bit)) for i, bit in bits]


def _hole(start: int) -> Damage:
    def change(data: bytearray) -> None:
        first = start // SECTOR * SECTOR
        data[first : first + SECTOR] = bytes(len(data[first : first + SECTOR]))

    return changed(change)


def _swapped(a: int, b: int) -> Damage:
    def change(data: bytearray) -> None:
        i, j = a // SECTOR * SECTOR, b // SECTOR * SECTOR
        one, other = bytes(data[i : i + SECTOR]), bytes(data[j : j + SECTOR])
        if len(one) == len(other):
            data[i : i + SECTOR], data[j : j + SECTOR] = other, one

    return changed(change)


def _others(ranges: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield what isn't in ranges."""
    start = 0
    for first, last in sorted(ranges):
        yield start, first
        start = last
    yield start, size


PIXELS = "bit flips, pixels"
"""Those are read as cutouts."""


def damages(good: Path, pixels: list[tuple[int, int]], flip_count: int, places: int) -> dict[str, list[Damage]]:
    """Return each sort of damage with its cases."""
    size = good.stat().st_size
    rng = np.random.default_rng(5)
    at = sorted(rng.integers(0, size, places).tolist())
    tails = [rng.bytes(1 + n % 5000) for n in at[: max(1, places // 10)]]
    return {
        "bit flips, whole file": flips(flip_count, [(0, size)], 1),
        "bit flips, metadata": flips(flip_count, _others(pixels, size), 2),
        PIXELS: flips(flip_count, pixels, 3),
        "truncated": [lambda path, n=n: os.truncate(path, n) for n in at],
        "4 KiB zeroed": [_hole(n) for n in at],
        "bytes appended": [changed(lambda data, tail=tail: data.extend(tail)) for tail in tails],
        "4 KiB blocks swapped": [_swapped(a, b) for a, b in zip(at, reversed(at), strict=True)],
    }


def _edited(change: Callable[[h5py.Group], object]) -> Damage:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file.get("composite", file))

    return damage


def _replace(group: h5py.Group) -> None:
    del group["mask"]
    group["mask"] = np.zeros((360, 400), "i4")


EDITS: dict[str, Damage] = {
    "a pixel": _edited(lambda group: group["image"].__setitem__((5, 6), 7)),
    "a tile of pixels": _edited(lambda group: group["image"].__setitem__(np.s_[100:200, 50:90], 0)),
    "a small array": _edited(lambda group: (group.get("psf/kernels") or group["psf"]).__setitem__(..., 1)),
    "an attribute of an array": _edited(lambda group: group["mask"].attrs.__setitem__("planes", np.bytes_("{}"))),
    "an attribute of a group": _edited(lambda group: group.attrs.__setitem__("run", np.bytes_("other"))),
    "a dataset replaced": _edited(_replace),
    "a dataset deleted": _edited(lambda group: group.__delitem__("psf")),
    "a dataset renamed": _edited(lambda group: group.move("mask", "flags")),
    "a dataset added": _edited(lambda group: group.create_dataset("more", data=np.arange(9))),
}

REPACKED = {
    "as it is": [],
    "GZIP=9": ["-f", "GZIP=9"],
    "SHUF, GZIP": ["-f", "SHUF", "-f", "GZIP=1"],
    "FLET": ["-f", "FLET"],
    "no filters": ["-f", "NONE"],
    "contiguous": ["-l", "CONTI"],
    "other chunks": ["-l", "image,mask:CHUNK=64x64"],
    "latest": ["-L"],
}


def repacked(options: Sequence[str]) -> Damage:
    """Return what h5repack makes of a file."""

    def damage(path: Path) -> None:
        with h5py.File(path) as file:
            is_ours = "composite" in file
        chosen = [option.replace("image,mask", "composite/image,composite/mask") for option in options]
        out = path.with_suffix(".repacked")
        subprocess.run(
            ["h5repack", *(chosen if is_ours else options), str(path), str(out)], check=True, capture_output=True
        )
        out.replace(path)

    return damage


# ---- What comes of it ---------------------------------------------------------------------------------------


def judge(form: Format, good: Path, *, cutouts: bool = False) -> Judge:
    """Return what reads a file in a format, and says what came of it."""
    read = form.read_cutouts if cutouts else form.read
    expected = read(good)

    def judged(path: Path) -> str:
        try:
            return "harmless" if read(path) == expected else "silent"
        except form.errors:
            return "detected"

    return judged


def judge_rescue(good: Path) -> Judge:
    """Return what rescues a file, and says what was saved, and whether all of that is right."""

    def content(path: Path) -> dict[str, object]:
        with ch5.open(path) as c:
            own = {name: np.asarray(c[name]).tobytes() for name in ("image", "mask") if name in c}
            own |= {"psf": np.asarray(c["psf"].kernels).tobytes()} if "psf" in c else {}
            return own | ({"info": repr(c["info"])} if "info" in c else {})

    with open_ours(good):
        expected = content(good)

    def judged(path: Path) -> str:
        out = path.with_suffix(".rescued")
        try:
            ch5.trees.rescue(path, out, replace=True)
            found = content(out)
        except ch5.CompositeH5Error:
            return "nothing"
        if ch5.trees.verify_files(out).problems or any(found[name] != expected[name] for name in found):
            return "silent"
        return "all" if found == expected else "some" if found else "nothing"

    return judged


def outcomes(cases: Sequence[Damage], good: Path, judged: Judge, seconds: int) -> Iterator[str]:
    """Damage a file in each of the ways, and yield what came of it, from child processes that may die."""
    done = 0
    while done < len(cases):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(cases[done : done + BATCH], good, judged, seconds, writer)
        os.close(writer)
        with open(reader, "rb") as pipe:
            codes = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        yield from (_CODES[code] for code in codes)
        done += len(codes)
        if code:
            yield "hang" if code == -signal.SIGALRM else "crash"
            done += 1


def _child(cases: Sequence[Damage], good: Path, judged: Judge, seconds: int, writer: int) -> None:
    """Write the outcome of each case as one byte; the one at which this process ends has none."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # What libraries print about damage isn't asked for.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for number, damage in enumerate(cases):
            bad = good.with_name(f"bad{number}{good.suffix}")
            shutil.copyfile(good, bad)
            damage(bad)
            signal.alarm(seconds)
            outcome = judged(bad)
            signal.alarm(0)
            bad.unlink()
            os.write(writer, bytes([_CODES.index(outcome)]))
        os._exit(0)
    finally:
        os._exit(1)


def torture(folder: Path, name: str, flip_count: int, places: int, seconds: int) -> Table:
    """Return how often each outcome was met in a format, for each sort of damage."""
    good = _good(folder, name)
    form, table = FORMATS[name], {}
    for sort, cases in damages(good, form.pixels(good), flip_count, places).items():
        table[sort] = Counter(outcomes(cases, good, judge(form, good, cutouts=sort == PIXELS), seconds))
    return table


def rescued(folder: Path, flip_count: int, places: int, seconds: int) -> Table:
    """Return how often how much was saved, for each sort of damage."""
    good = _good(folder, OURS)
    cases = damages(good, FORMATS[OURS].pixels(good), flip_count, places)
    return {sort: Counter(outcomes(own, good, judge_rescue(good), seconds)) for sort, own in cases.items()}


def edited(folder: Path, names: Iterable[str], seconds: int) -> dict[str, list[str]]:
    """Return what came of each change by h5py and each repacking, by formats."""
    changes = {f"h5py r+: {name}": edit for name, edit in EDITS.items()}
    if shutil.which("h5repack"):
        changes |= {f"h5repack: {name}": repacked(options) for name, options in REPACKED.items()}
    found: dict[str, list[str]] = {change: [] for change in changes}
    for name in names:
        good = _good(folder, name)
        judged = judge(FORMATS[name], good)
        for change, outcome in zip(changes, outcomes(list(changes.values()), good, judged, seconds), strict=True):
            found[change].append(outcome)
    return found


def _good(folder: Path, name: str) -> Path:
    path = folder / str(list(FORMATS).index(name)) / "good.h5"
    if not path.exists():
        path.parent.mkdir()
        FORMATS[name].write(path)
    return path


# ---- Tables -------------------------------------------------------------------------------------------------


def _print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _print_header(*cells: object) -> None:
    print()
    _print_row(*cells)
    print("|" + "---|" * len(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--places", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--formats", nargs="+", default=[name for name in FORMATS if name != VERIFIED], choices=FORMATS)
    arguments = parser.parse_args()
    how = arguments.flips, arguments.places, arguments.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables: dict[str, Table] = {}
        for form in arguments.formats:
            tables[form] = torture(folder, form, *how)
            if len(tables) == 1:
                print("Wrong values that nobody noticed / hangs / crashes:")
                _print_header("format", *(f"{sort} ({n.total()})" for sort, n in tables[form].items()))
            cells = (" / ".join(str(n[o]) for o in OUTCOMES[2:]) for n in tables[form].values())
            _print_row(form, *cells)
        if OURS not in tables:
            return
        _print_header(OURS, "cases", *OUTCOMES)
        for sort, n in tables[OURS].items():
            _print_row(sort, n.total(), *(n[o] for o in OUTCOMES))
        names = [OURS, VERIFIED, "h5py, gzip + shuffle"]
        _print_header("changed by", *names)
        for change, found in edited(folder, names, arguments.seconds).items():
            _print_row(change, *found)
        _print_header("`rescue` saves", "cases", *SAVED)
        for sort, n in rescued(folder, *how).items():
            _print_row(sort, n.total(), *(n[o] for o in SAVED))


if __name__ == "__main__":
    main()
