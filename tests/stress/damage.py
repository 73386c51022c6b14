"""Damage files in many ways, read each in a child process, and count what comes of it.

*Refused*: errors of the package. *Harmless*: all values are right. *Told by verify*: values are others, which was not
noticed when they were read, but is by `verify`. *Silent*: not by that either. *Foreign*: an error that isn't of the
package. *Leak*: a file was left open. *Hang*: no answer in time. *Crash*: the process died.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import traceback
import warnings
import zlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from checksums import structures
from processes import Verdict, judged
from reporting import Table

import compositeh5 as ch5
from compositeh5.composite.opening import file_info
from compositeh5.composite.session import current

SAMPLES = Path(__file__).parents[1] / "samples" / "1.0"
BAD = frozenset({"silent", "foreign", "leak", "hang", "crash"})
SECTOR = 4096
SHAPE, TILE = (360, 400), (120, 134)

TILES = " by tiles"

Content = dict[str, str | Exception]
Damage = Callable[[bytearray, np.random.Generator], object]


# ---- Files --------------------------------------------------------------------------------------------------


def write_large(path: Path, seed: int = 1) -> None:
    """Write a file most of which is pixels, packed and raw; those of the samples are few."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 23, SHAPE).astype("f4")
    ch5.Composite(
        None,
        image=ch5.Image(image),
        mask=ch5.Mask((rng.random(SHAPE) > 0.99).astype("i4"), {"BAD": 0}),
        raw=image[:200],
        psf=ch5.Psf.constant(np.ones((9, 9)) / 81 + np.arange(9)),
        info={"visit": 7, "filter": "i_39", "exposure_time": 30.0, "dithers": [1, 2, 3]},
        data_id={"visit": 7, "detector": 1},
        provenance={"inputs": ["raw"]},
    ).write(path, replace=True, recipes={"raw": "raw"})


def files(folder: Path) -> dict[str, Path]:
    """Return the files to damage: copies of the samples, with what their links lead to, and a large one."""
    folder.mkdir(exist_ok=True)
    for sample in SAMPLES.glob("*.h5"):
        shutil.copy(sample, folder)
    if not (folder / "large.h5").exists():
        write_large(folder / "large.h5")
    return {path.stem: path for path in sorted(folder.glob("*.h5"))}


def pixel_ranges(path: Path) -> list[tuple[int, int]]:
    """Return where the values of large arrays are: all else is metadata here."""
    found: list[tuple[int, int]] = []

    def add(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.nbytes > 16_384:
            if node.chunks is None:
                found.append((node.id.get_offset(), node.id.get_storage_size()))
            else:
                chunks = [node.id.get_chunk_info(i) for i in range(node.id.get_num_chunks())]
                found.extend((chunk.byte_offset, chunk.size) for chunk in chunks)

    with h5py.File(path) as file:
        file.visititems(add)
    return [(start, start + size) for start, size in sorted(found)]


# ---- Damage -------------------------------------------------------------------------------------------------


def flip(ranges: Sequence[tuple[int, int]]) -> Damage:
    """Return what flips a bit in one of some ranges."""
    places = np.concatenate([np.arange(*each) for each in ranges])

    def damage(data: bytearray, rng: np.random.Generator) -> None:
        data[int(rng.choice(places))] ^= 1 << int(rng.integers(8))

    return damage


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def zero_sector(data: bytearray, rng: np.random.Generator) -> None:
    first = int(rng.integers(len(data))) // SECTOR * SECTOR
    data[first : first + SECTOR] = bytes(len(data[first : first + SECTOR]))


def swap_sectors(data: bytearray, rng: np.random.Generator) -> None:
    i, j = (int(n) * SECTOR for n in rng.integers(len(data) // SECTOR, size=2))
    data[i : i + SECTOR], data[j : j + SECTOR] = data[j : j + SECTOR], data[i : i + SECTOR]


def append(data: bytearray, rng: np.random.Generator) -> None:
    data.extend(rng.bytes(int(rng.integers(1, 5000))))


INTERESTING = [0, 1, 2, 7, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
"""Numbers at the limits of what sizes, counts and addresses are kept in."""


def overwrite(data: bytearray, rng: np.random.Generator, start: int, stop: int, numbers: list[int]) -> None:
    """Change bytes in a range: a byte, a number, or up to 64 of them."""
    at = int(rng.integers(start, stop))
    size = min(int(rng.integers(1, 65)), stop - at)
    match int(rng.integers(4)):
        case 0:
            data[at] = int(rng.integers(256))
        case 1:
            width = min(1 << int(rng.integers(4)), stop - at)
            number = numbers[rng.integers(len(numbers))] + int(rng.integers(-1, 2))
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        case 2:
            source = int(rng.integers(len(data) - size + 1))
            data[at : at + size] = data[source : source + size]
        case 3:
            data[at : at + size] = bytes([int(rng.choice([0, 255]))]) * size


def move(data: bytearray, rng: np.random.Generator) -> None:
    """Remove, repeat or insert a block."""
    at, size = int(rng.integers(len(data))), int(rng.integers(1, SECTOR))
    match int(rng.integers(3)):
        case 0:
            del data[at : at + size]
        case 1:
            data[at:at] = data[at : at + size]
        case 2:
            data[at:at] = rng.bytes(size)


def signed(good: bytes) -> Damage:
    """Return what changes structures of HDF5, and makes their checksums right again."""
    parts = structures(good)
    # So that objects can be found where others were.
    numbers = INTERESTING + [part.start for part in parts]

    def damage(data: bytearray, rng: np.random.Generator) -> None:
        for _ in range(int(rng.integers(1, 4))):
            part = parts[rng.integers(len(parts))]
            overwrite(data, rng, part.start, part.stop, numbers)
            part.sign(data)

    return damage


SIGNED = "right checksums"


def damages(path: Path) -> dict[str, Damage]:
    """Return each sort of damage that a file can have."""
    size, pixels = path.stat().st_size, pixel_ranges(path)
    bounds = [0, *(edge for each in pixels for edge in each), size]
    metadata = list(zip(bounds[::2], bounds[1::2], strict=True))
    return {
        "bit flips, metadata": flip(metadata),
        **({"bit flips, pixels": flip(pixels)} if pixels else {}),
        "bytes overwritten": partial(overwrite, start=0, stop=size, numbers=INTERESTING),
        "blocks moved": move,
        "truncated": truncate,
        "4 KiB zeroed": zero_sector,
        **({"4 KiB blocks swapped": swap_sectors} if size > 2 * SECTOR else {}),
        "bytes appended": append,
        SIGNED: signed(path.read_bytes()),
    }


def damaged(good: bytes, sort: str, damage: Damage, number: int) -> bytes:
    """Return a damaged file: the sort and the number say all of how."""
    data = bytearray(good)
    damage(data, np.random.default_rng([number, zlib.crc32(sort.encode())]))
    return bytes(data)


# ---- What comes of it ---------------------------------------------------------------------------------------


def digest(value: object) -> str:
    """Return the digest of what was read, not the one that is recorded."""
    return ch5.Composite(None, value=value).component_digest("value")


def content(path: Path, known: Collection[str] = ()) -> Content:
    """Return digests of all that a file holds, and of what is known to be in it, or the errors of reading it."""
    found: Content = {}

    def attempt(name: str, read: Callable[[], str]) -> None:
        try:
            found[name] = read()
        except Exception as error:
            found[name] = error

    def tiles(c: ch5.Composite, name: str) -> str:
        pixels, starts = c.lazy(name), [range(0, n, step) for n, step in zip(SHAPE, TILE, strict=True)]
        read = [np.asarray(pixels[y : y + TILE[0], x : x + TILE[1]]).tobytes() for y in starts[0] for x in starts[1]]
        return f"{zlib.crc32(b''.join(read))}"

    def read_all() -> str:
        for name in file_info(path).composites:
            with ch5.open(path, name) as c:
                about = (c.id, c.data_id, c.provenance, c.stage, c.run, c.definition)
                attempt(name, lambda about=about: repr(about))
                missing = {each.removeprefix(f"{name}/") for each in known if each.startswith(f"{name}/")} - {*c}
                for each in [*c, *missing]:
                    attempt(f"{name}/{each}", lambda c=c, each=each: digest(c[each]))
                    if path.stem == "large" and each in ("image", "mask", "raw"):
                        attempt(f"{name}/{each}{TILES}", lambda c=c, each=each: tiles(c, each))
        return "read"

    current().clear_cache()
    attempt("", read_all)
    return found


def examine(path: Path, expected: Content) -> Verdict:
    """Return what comes of reading a file, and details."""
    before = len(os.listdir("/proc/self/fd"))
    found = content(path, [name for name in expected if not name.endswith(TILES)])
    errors = [value for value in found.values() if isinstance(value, Exception)]
    wrong = [name for name, value in expected.items() if isinstance(found.get(name), str) and found[name] != value]
    if foreign := [error for error in errors if not isinstance(error, ch5.CompositeH5Error)]:
        return "foreign", "".join(traceback.format_exception(foreign[0])[-6:])
    for error in errors:
        # Frames would keep files open.
        error.__traceback__ = error.__context__ = error.__cause__ = None
    current().clear_cache()
    if (left := len(os.listdir("/proc/self/fd")) - before) > 0:
        return "leak", f"{left} files"
    if wrong or (not errors and found.keys() != expected.keys()):
        is_told = any(problem.path == str(path) for problem in ch5.trees.verify_files(path).problems)
        return "told by verify" if is_told else "silent", f"{wrong} {sorted(found.keys() ^ expected.keys())}"
    return ("refused", type(errors[0]).__name__) if errors else ("harmless", "")


def examine_rescued(path: Path, expected: Content) -> Verdict:
    """Return how much of a file `rescue` saves, and whether all of that is right."""
    out = path.with_suffix(".rescued")
    try:
        ch5.trees.rescue(path, out, replace=True)
    except ch5.CompositeH5Error as error:
        return "nothing", type(error).__name__
    found = {
        name: value
        for name, value in content(out).items()
        if "/" in name and not isinstance(value, ch5.errors.LostComponentError)
    }
    wrong = [name for name, value in found.items() if value != expected[name]]
    if wrong or ch5.trees.verify_files(out).problems:
        return "silent", f"{wrong} {found}"
    return ("all" if len(found) == len([name for name in expected if "/" in name]) else "some"), ""


def judge(
    table: Table, row: tuple[str, ...], good: Path, cases: Sequence[Callable[[Path], object]], *, rescue: bool = False
) -> None:
    """Note what comes of each case of a file, which is damaged where it is, beside what its links lead to."""
    expected, data = content(good), good.read_bytes()
    assert not [value for value in expected.values() if isinstance(value, Exception)]

    def verdict(number: int) -> Verdict:
        warnings.simplefilter("ignore")
        good.unlink()
        good.write_bytes(data)
        cases[number](good)
        return examine_rescued(good, expected) if rescue else examine(good, expected)

    # What HDF5 makes of metadata that are wrong, and signed, may also be the end of what it reads later.
    how = {"batch": 1} if SIGNED in row else {}
    for number, outcome, detail in judged(len(cases), verdict, **how):
        # HDF5 itself may crash where all checksums are right; that isn't ours, and said in the threat model.
        is_known = outcome == "crash" and SIGNED in row
        table.note(*row, counts="crash of HDF5" if is_known else outcome, detail=f"{number}: {detail}")
    good.write_bytes(data)


def damage(table: Table, folder: Path, seed: int, cases: int = 50, only: Sequence[str] = ()) -> None:
    """Read files with each sort of damage; a quarter of as many are rescued."""
    for name, path in files(folder).items():
        if only and name not in only:
            continue
        good = path.read_bytes()
        for sort, how in damages(path).items():
            made = [
                lambda path, n=n, sort=sort, how=how, good=good: path.write_bytes(damaged(good, sort, how, n))
                for n in range(seed * cases, (seed + 1) * cases)
            ]
            judge(table, (name, sort), path, made)
            if name == "large" and sort != SIGNED:
                judge(table, ("rescue", sort), path, made[::4], rescue=True)


def damage_table() -> Table:
    return Table(("file", "damage"), BAD)


# ---- Changes by other software ------------------------------------------------------------------------------


def _replace_mask(group: h5py.Group) -> None:
    del group["mask"]
    group["mask"] = np.zeros(SHAPE, "i4")


EDITS: dict[str, Callable[[h5py.Group], object]] = {
    "a pixel": lambda group: group["image"].__setitem__((5, 6), 7),
    "a tile of pixels": lambda group: group["image"].__setitem__(np.s_[100:200, 50:90], 0),
    "a small array": lambda group: group["psf/kernels"].__setitem__(..., 1),
    "an attribute of an array": lambda group: group["mask"].attrs.__setitem__("planes", np.bytes_("{}")),
    "an attribute of a group": lambda group: group.attrs.__setitem__("run", np.bytes_("other")),
    "a dataset replaced": _replace_mask,
    "a dataset deleted": lambda group: group.__delitem__("psf"),
    "a dataset renamed": lambda group: group.move("mask", "flags"),
    "a dataset added": lambda group: group.create_dataset("more", data=np.arange(9)),
}

REPACKED: dict[str, list[str]] = {
    "as it is": [],
    "GZIP=9": ["-f", "GZIP=9"],
    "SHUF, GZIP": ["-f", "SHUF", "-f", "GZIP=1"],
    "FLET": ["-f", "FLET"],
    "no filters": ["-f", "NONE"],
    "contiguous": ["-l", "CONTI"],
    "other chunks": ["-l", "composite/image,composite/mask:CHUNK=64x64"],
    "latest": ["-L"],
}


def edited(change: Callable[[h5py.Group], object], path: Path) -> None:
    with h5py.File(path, "r+") as file:
        change(file["composite"])


def repacked(options: Sequence[str], path: Path) -> None:
    out = path.with_suffix(".repacked")
    subprocess.run(["h5repack", *options, str(path), str(out)], check=True, capture_output=True)
    out.replace(path)


def other_software(table: Table, folder: Path) -> None:
    """Read what h5py and h5repack make of the large file."""
    path = files(folder)["large"]
    for name, edit in EDITS.items():
        judge(table, ("h5py r+", name), path, [partial(edited, edit)])
    for name, options in REPACKED.items() if shutil.which("h5repack") else ():
        judge(table, ("h5repack", name), path, [partial(repacked, options)])
