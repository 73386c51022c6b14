"""Time compositeh5 beside other containers, on the same exposure in one run.

    python benchmarks/peers.py [--size 4000] [--runs 5] [--seconds 30] [--only NAME ...] [--json FILE]

Prints a Markdown table: for each task the CPU time of each peer in ms (median), and in brackets its ratio to that of
compositeh5 with its default recipe. Peers that aren't installed are named below it; the extra ``benchmarks`` has all.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import astropy
import h5py
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from exposure import Exposure

import compositeh5 as ch5

PLANES = ("image", "mask", "variance")
SIDE = 256
CALIBRATION = 31.5
"""nJy for each count."""

Corner = tuple[int, int]


class Peer:
    """A container: how an exposure is written to it and read from it."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    """Module that must be installed."""
    cold: ClassVar[str]
    """Program that prints the calibration of the file of which the path is its argument."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{type(self).__name__}.data"

    def write(self, data: Exposure) -> None:
        raise NotImplementedError

    def planes(self) -> list[Any]:
        """Return all pixels, in memory."""
        raise NotImplementedError

    def calibration(self) -> float:
        raise NotImplementedError

    def wcs(self) -> WCS:
        raise NotImplementedError

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        """Return cutouts of the image from the file, which is opened once."""
        raise NotImplementedError


class Composite(Peer):
    name, recipe = "compositeh5", "lossless"
    cold = "import sys, compositeh5\nwith compositeh5.open(sys.argv[1]) as c:\n    print(c['photo_calib'].mean)"

    def write(self, data: Exposure) -> None:
        mask = ch5.Mask(data.mask, {"BAD": 0, "SAT": 1})
        calib = ch5.PhotoCalib(CALIBRATION, 0.1)
        ch5.Composite(
            "exposure", image=data.image, mask=mask, variance=data.variance, wcs=data.wcs, photo_calib=calib
        ).write(self.path, replace=True, recipes={"default": self.recipe})

    def planes(self) -> list[Any]:
        with ch5.open(self.path) as c:
            return [c["image"].array, c["mask"].array, c["variance"].array]

    def calibration(self) -> float:
        with ch5.open(self.path) as c:
            return float(c["photo_calib"].mean)

    def wcs(self) -> WCS:
        with ch5.open(self.path) as c:
            return c["wcs"]

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with ch5.open(self.path) as c:
            image = c.lazy("image")
            return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class CompositeRaw(Composite):
    name, recipe = "compositeh5 raw", "raw"


class CompositeQuantized(Composite):
    name, recipe = "compositeh5 quantized", "quantized"


class Plain(Peer):
    """What one writes with h5py in a few lines."""

    name = "h5py gzip"
    options: ClassVar[dict[str, Any]] = {
        "chunks": (256, 256), "compression": "gzip", "compression_opts": 1, "shuffle": True,
    }  # fmt: skip
    group = ""
    cold = "import sys, h5py\nwith h5py.File(sys.argv[1]) as f:\n    print(f['calibration'][()])"

    def write(self, data: Exposure) -> None:
        with h5py.File(self.path, "w") as file:
            for name in PLANES:
                file.create_dataset(name, data=getattr(data, name), **self.options)
            file["wcs"] = data.wcs.to_header_string()
            file["calibration"] = CALIBRATION

    def planes(self) -> list[Any]:
        with h5py.File(self.path) as file:
            found = []
            for name in PLANES:
                dataset = file[self.group + name]
                out = np.empty(dataset.shape, dataset.dtype)
                dataset.read_direct(out)
                found.append(out)
            return found

    def calibration(self) -> float:
        with h5py.File(self.path) as file:
            return float(file["calibration"][()])

    def wcs(self) -> WCS:
        with h5py.File(self.path) as file:
            return WCS(fits.Header.fromstring(file["wcs"].asstr()[()]))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with h5py.File(self.path) as file:
            image = file[self.group + "image"]
            return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class PlainContiguous(Plain):
    name = "h5py contiguous"
    options: ClassVar[dict[str, Any]] = {}


class _OnComposite(Plain):
    """h5py on the file that compositeh5 wrote."""

    writer: ClassVar[type[Composite]]
    group = "composite/"
    cold = "import sys, h5py\nwith h5py.File(sys.argv[1]) as f:\n    print(f['composite/photo_calib/mean'][()])"

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{self.writer.__name__}.data"

    def write(self, data: Exposure) -> None:
        raise NotImplementedError("it is written by compositeh5")

    def calibration(self) -> float:
        with h5py.File(self.path) as file:
            return float(file["composite/photo_calib/mean"][()])

    def wcs(self) -> WCS:
        with h5py.File(self.path) as file:
            cards = file["composite/wcs"].asstr()[()]
            return WCS(fits.Header.fromstring(cards, sep="\n"))


class OnLossless(_OnComposite):
    name, writer = "h5py on compositeh5's file", Composite


class OnRaw(_OnComposite):
    name, writer = "h5py on the raw one", CompositeRaw


class Fits(Peer):
    name = "FITS"
    cold = "import sys\nfrom astropy.io import fits\nwith fits.open(sys.argv[1]) as h:\n    print(h[0].header['CALIB'])"

    def hdu(self, values: Any, name: str) -> Any:
        return fits.ImageHDU(values, name=name)

    def write(self, data: Exposure) -> None:
        primary = fits.PrimaryHDU(header=data.wcs.to_header())
        primary.header["CALIB"] = CALIBRATION
        hdus = [self.hdu(getattr(data, name), name) for name in PLANES]
        fits.HDUList([primary, *hdus]).writeto(self.path, overwrite=True)

    def planes(self) -> list[Any]:
        with fits.open(self.path, memmap=False) as hdus:
            # In the byte order of the machine, as the others give them.
            return [hdus[i].data.astype(hdus[i].data.dtype.newbyteorder("="), copy=False) for i in (1, 2, 3)]

    def calibration(self) -> float:
        with fits.open(self.path) as hdus:
            return float(hdus[0].header["CALIB"])

    def wcs(self) -> WCS:
        with fits.open(self.path) as hdus:
            return WCS(hdus[0].header)

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with fits.open(self.path) as hdus:
            image = hdus[1].section
            return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class FitsRice(Fits):
    name = "FITS RICE q16"

    def hdu(self, values: Any, name: str) -> Any:
        level = {"quantize_level": 16, "quantize_method": 1} if values.dtype.kind == "f" else {}
        return fits.CompImageHDU(values, name=name, compression_type="RICE_1", **level)


class FitsGzip(Fits):
    name = "FITS GZIP_2"

    def hdu(self, values: Any, name: str) -> Any:
        return fits.CompImageHDU(values, name=name, compression_type="GZIP_2", quantize_level=0)


class FitsioRice(Peer):
    name, needs = "fitsio RICE q16", "fitsio"
    cold = "import sys, fitsio\nprint(fitsio.read_header(sys.argv[1])['CALIB'])"

    def write(self, data: Exposure) -> None:
        fitsio = importlib.import_module("fitsio")
        self.path.unlink(missing_ok=True)
        with fitsio.FITS(str(self.path), "rw") as file:
            header = dict(data.wcs.to_header()) | {"CALIB": CALIBRATION}
            file.write(None, header=header)
            for name in PLANES:
                values = getattr(data, name)
                level = {"qlevel": 16, "qmethod": 1} if values.dtype.kind == "f" else {}
                file.write(values, compress="RICE", tile_dims=[1, values.shape[1]], extname=name, **level)

    def planes(self) -> list[Any]:
        with importlib.import_module("fitsio").FITS(str(self.path)) as file:
            return [file[i].read() for i in (1, 2, 3)]

    def calibration(self) -> float:
        return float(importlib.import_module("fitsio").read_header(str(self.path))["CALIB"])

    def wcs(self) -> WCS:
        header = importlib.import_module("fitsio").read_header(str(self.path))
        return WCS(fits.Header({key: header[key] for key in header if key and key not in ("COMMENT", "HISTORY")}))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with importlib.import_module("fitsio").FITS(str(self.path)) as file:
            return [file[1][y : y + SIDE, x : x + SIDE] for y, x in corners]


class Asdf(Peer):
    name, needs = "asdf", "asdf"
    cold = "import sys, asdf\nwith asdf.open(sys.argv[1]) as f:\n    print(f['calibration'])"

    def write(self, data: Exposure) -> None:
        tree = {name: getattr(data, name) for name in PLANES}
        tree |= {"wcs": data.wcs.to_header_string(), "calibration": CALIBRATION}
        importlib.import_module("asdf").AsdfFile(tree).write_to(self.path)

    def planes(self) -> list[Any]:
        with importlib.import_module("asdf").open(self.path) as file:
            return [np.array(file[name]) for name in PLANES]

    def calibration(self) -> float:
        with importlib.import_module("asdf").open(self.path) as file:
            return float(file["calibration"])

    def wcs(self) -> WCS:
        with importlib.import_module("asdf").open(self.path) as file:
            return WCS(fits.Header.fromstring(file["wcs"]))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with importlib.import_module("asdf").open(self.path, memmap=True) as file:
            image = file["image"]
            return [np.array(image[y : y + SIDE, x : x + SIDE]) for y, x in corners]


class Zarr(Peer):
    name, needs = "zarr 3 (zstd, sharded)", "zarr"
    cold = "import sys, zarr\nprint(zarr.open_group(sys.argv[1], mode='r').attrs['calibration'])"

    def write(self, data: Exposure) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        group = importlib.import_module("zarr").open_group(self.path, mode="w")
        group.attrs.update({"wcs": data.wcs.to_header_string(), "calibration": CALIBRATION})
        for name in PLANES:
            values = getattr(data, name)
            whole = tuple(-(-n // 256) * 256 for n in values.shape)
            array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(256, 256), shards=whole)
            array[...] = values

    def group(self) -> Any:
        return importlib.import_module("zarr").open_group(self.path, mode="r")

    def planes(self) -> list[Any]:
        group = self.group()
        return [group[name][...] for name in PLANES]

    def calibration(self) -> float:
        return float(self.group().attrs["calibration"])

    def wcs(self) -> WCS:
        return WCS(fits.Header.fromstring(self.group().attrs["wcs"]))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        image = self.group()["image"]
        return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class Npz(Peer):
    name = "npz"
    cold = "import sys, numpy\nwith numpy.load(sys.argv[1]) as f:\n    print(f['calibration'])"

    def write(self, data: Exposure) -> None:
        with self.path.open("wb") as file:
            planes = {name: getattr(data, name) for name in PLANES}
            np.savez(file, **planes, wcs=data.wcs.to_header_string(), calibration=CALIBRATION)

    def planes(self) -> list[Any]:
        with np.load(self.path) as file:
            return [file[name] for name in PLANES]

    def calibration(self) -> float:
        with np.load(self.path) as file:
            return float(file["calibration"])

    def wcs(self) -> WCS:
        with np.load(self.path) as file:
            return WCS(fits.Header.fromstring(str(file["wcs"])))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with np.load(self.path) as file:
            image = file["image"]
            return [image[y : y + SIDE, x : x + SIDE].copy() for y, x in corners]


PEERS: tuple[type[Peer], ...] = (
    Composite, CompositeRaw, CompositeQuantized, Plain, PlainContiguous, OnLossless, OnRaw,
    Fits, FitsRice, FitsGzip, FitsioRice, Asdf, Zarr, Npz,
)  # fmt: skip


def timed(function: Callable[[], object], runs: int, seconds: float) -> float:
    """Return the median CPU time in ms; of fewer runs, at least one, where they would take longer than allowed."""
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < runs and (not times or time.monotonic() < until):
        start = time.process_time()
        function()
        times.append((time.process_time() - start) * 1000)
    # The first one loads modules.
    return median(times[1:] or times)


def timed_cold(program: str, path: Path, runs: int) -> float:
    """Return the median CPU time in ms of a process that runs a program."""
    times: list[float] = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert float(done.stdout) == CALIBRATION
        times.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    return median(times)


def size_of(path: Path) -> float:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def measured(peer: Peer, data: Exposure, runs: int, seconds: float) -> Iterator[tuple[str, float]]:
    """Yield each task and what it takes, having checked that the result is right."""
    size = len(data.image)
    corners = [(int(y), int(x)) for y, x in np.random.default_rng(3).integers(0, size - SIDE, (100, 2))]
    if not isinstance(peer, _OnComposite):
        yield "write, ms", timed(lambda: peer.write(data), runs + 1, seconds)
    yield "size, MB", size_of(peer.path)
    for name, values in zip(PLANES, peer.planes(), strict=True):
        error = values.astype("f8") - getattr(data, name)
        if name == "image":
            yield "rms error of pixels, counts", float(error.std())
        assert np.abs(error).max() < 25, f"{peer.name}: wrong {name}"
    assert peer.calibration() == CALIBRATION
    assert peer.wcs().wcs.crpix.tolist() == data.wcs.wcs.crpix.tolist()
    assert peer.cutouts(corners[:1])[0].shape == (SIDE, SIDE)
    yield "read all pixels, ms", timed(peer.planes, runs + 1, seconds)
    yield "calibration, new process, ms", timed_cold(peer.cold, peer.path, runs)
    yield "open, calibration, ms", timed(peer.calibration, 20 * runs, seconds)
    yield "open, WCS, ms", timed(peer.wcs, 20 * runs, seconds)
    yield "open, 256 x 256 cutout, ms", timed(lambda: peer.cutouts(corners[:1]), 4 * runs, seconds)
    yield "open, 100 cutouts, ms", timed(lambda: peer.cutouts(corners), runs + 1, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4000, help="pixels along each side")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="after which a task isn't run once more")
    parser.add_argument("--only", nargs="+", help="names of peers", choices=[peer.name for peer in PEERS])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    data = Exposure(args.size)
    results: dict[str, dict[str, float]] = {}
    skipped: dict[str, str] = {}
    versions = {"Python": platform.python_version()}
    versions |= {module.__name__: module.__version__ for module in (ch5, h5py, np, astropy)}
    with tempfile.TemporaryDirectory() as folder:
        for peer in PEERS:
            if args.only and peer.name not in (*args.only, Composite.name):
                continue
            if peer.needs:
                try:
                    versions[peer.needs] = importlib.import_module(peer.needs).__version__
                except ImportError as error:
                    skipped[peer.name] = str(error)
                    continue
            print(f"{peer.name} ...", file=sys.stderr)
            results[peer.name] = dict(measured(peer(Path(folder)), data, args.runs, args.seconds))
    environment = {
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "pixels": args.size,
        "runs": args.runs,
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{environment['machine']}; {args.size} x {args.size} pixels, {args.runs} runs\n")
    print(table(results))
    for name, reason in skipped.items():
        print(f"\n{name} was left out: {reason}")
    if args.json:
        args.json.write_text(
            json.dumps({"environment": environment, "results": results, "skipped": skipped}, indent=2) + "\n"
        )


def table(results: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table: a row for each peer, a column for each task."""
    ours = results[Composite.name]
    lines = [f"| | {' | '.join(ours)} |", f"|---|{'---|' * len(ours)}"]
    for peer, found in results.items():
        cells = []
        for task, base in ours.items():
            value = found.get(task)
            cell = "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
            cells.append(cell + (f" ({value / base:.2g})" if value and base else ""))
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
