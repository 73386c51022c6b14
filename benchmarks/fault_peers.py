"""Kills at random moments of other formats, when they replace an image of a file by another."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asdf
import h5py
import numpy as np
import zarr
from astropy.io import fits
from numpy.typing import NDArray

import compositeh5 as ch5

Pixels = NDArray[Any]
NAMES = ("image", "variance")
SHAPE = (500, 500)


@dataclass
class Peer:
    """How a format writes two images, the first time and in place of others, and reads them."""

    write: Callable[[Path, Pixels], object]
    replace: Callable[[Path, Pixels], object]
    read: Callable[[Path], list[Pixels]]


def _compositeh5(path: Path, pixels: Pixels) -> None:
    ch5.Composite(None, {name: ch5.Image(pixels) for name in NAMES}).write(path, replace=True)


def _read_compositeh5(path: Path) -> list[Pixels]:
    with ch5.open(path) as c:
        return [np.asarray(c[name].array) for name in NAMES]


def _h5py(path: Path, pixels: Pixels) -> None:
    with h5py.File(path, "w") as file:
        for name in NAMES:
            file.create_dataset(name, data=pixels, compression="gzip", shuffle=True)


def _h5py_update(path: Path, pixels: Pixels) -> None:
    with h5py.File(path, "r+") as file:
        for name in NAMES:
            del file[name]
            file.create_dataset(name, data=pixels, compression="gzip", shuffle=True)


def _read_h5py(path: Path) -> list[Pixels]:
    with h5py.File(path, "r") as file:
        return [file[name][...] for name in NAMES]


def _fits(path: Path, pixels: Pixels) -> None:
    images = [fits.ImageHDU(pixels, name=name) for name in NAMES]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path, overwrite=True)


def _read_fits(path: Path) -> list[Pixels]:
    with fits.open(path, memmap=False) as hdus:
        return [np.array(hdus[name.upper()].data) for name in NAMES]


def _zarr(path: Path, pixels: Pixels) -> None:
    group = zarr.open_group(path, mode="a", zarr_format=3)
    for name in NAMES:
        group.create_array(name, data=pixels, overwrite=True)


def _read_zarr(path: Path) -> list[Pixels]:
    group = zarr.open_group(path, mode="r")
    return [np.asarray(group[name][...]) for name in NAMES]


def _asdf(path: Path, pixels: Pixels) -> None:
    asdf.AsdfFile(dict.fromkeys(NAMES, pixels)).write_to(path)


def _read_asdf(path: Path) -> list[Pixels]:
    with asdf.open(path, memmap=False) as file:
        return [np.array(file[name]) for name in NAMES]


PEERS = {
    "compositeh5, replace=True": Peer(_compositeh5, _compositeh5, _read_compositeh5),
    'h5py, File(path, "w")': Peer(_h5py, _h5py, _read_h5py),
    'h5py, "r+", del and create_dataset': Peer(_h5py, _h5py_update, _read_h5py),
    "astropy.io.fits, writeto(overwrite=True)": Peer(_fits, _fits, _read_fits),
    "zarr 3, create_array(overwrite=True)": Peer(_zarr, _zarr, _read_zarr),
    "asdf, write_to": Peer(_asdf, _asdf, _read_asdf),
}


def _pixels(seed: int) -> Pixels:
    return np.random.default_rng(seed).normal(0, 23, SHAPE).astype("f4")


def _child(function: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = function()
        except Exception:
            os._exit(2)
        finally:
            os._exit(code)
    return pid


def _outcome(peer: Peer, path: Path, old: Pixels, new: Pixels) -> int:
    """Return 0 if all is old, 1 if all is new, and 2 if it can't be read, or is a mixture."""

    def look() -> int:
        found = peer.read(path)
        return next((i for i, pixels in enumerate((old, new)) if all(np.array_equal(f, pixels) for f in found)), 2)

    code = os.waitstatus_to_exitcode(os.waitpid(_child(look), 0)[1])
    return code if code in (0, 1) else 2


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def kill_peers(folder: Path, kills: int) -> str:
    """Return a Markdown table of what is there after kills at random moments."""
    old, new = _pixels(1), _pixels(2)
    lines = ["| format | kills | old | new | unreadable or mixed |", "|---|---|---|---|---|"]
    rng = random.Random(3)
    for number, (name, peer) in enumerate(PEERS.items()):
        before, path = folder / f"before{number}", folder / f"file{number}"
        peer.write(before, old)
        times = []
        for _ in range(5):
            _copy(before, path)
            start = time.perf_counter()
            pid = _child(lambda peer=peer, path=path: int(bool(peer.replace(path, new)) and False))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, name
            times.append(time.perf_counter() - start)
        assert _outcome(peer, path, old, new) == 1
        counts: Counter[int] = Counter()
        while counts.total() < kills:
            _copy(before, path)
            pid = _child(lambda peer=peer, path=path: int(bool(peer.replace(path, new)) and False))
            time.sleep(rng.random() * median(times))
            os.kill(pid, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
                counts[_outcome(peer, path, old, new)] += 1
        bad = f"{counts[2]} ({counts[2] / kills:.1%})"
        lines.append(f"| {name} | {kills} | {counts[0]} | {counts[1]} | {bad} |")
    return "\n".join(lines)
