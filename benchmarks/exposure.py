"""Time the everyday tasks with one exposure, beside h5py by hand and astropy's FITS, on the same data in one run.

    python benchmarks/exposure.py [--size 4000] [--runs 5]

Prints a Markdown table: CPU time in ms (median), and the ratio to compositeh5 in brackets.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

import compositeh5 as ch5

Task = Callable[[], object]


def make_wcs(size: int) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [size / 2, size / 2]
    wcs.wcs.cdelt = [-5.5e-5, 5.5e-5]
    wcs.pixel_shape = (size, size)
    return wcs


class Exposure:
    """Noise with stars, a sparse mask, a smooth variance."""

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(1)
        self.image = rng.normal(0, 23, (size, size)).astype("f4")
        for y, x in rng.integers(20, size - 20, (500, 2)):
            self.image[y - 9 : y + 10, x - 9 : x + 10] += rng.uniform(100, 5000)
        self.mask = np.zeros((size, size), "i4")
        self.mask[self.image > 4000] = 2
        self.variance = (529 + np.maximum(self.image, 0)).astype("f4")
        self.wcs = make_wcs(size)


def tasks(data: Exposure, folder: Path) -> dict[str, dict[str, Task]]:
    ours, plain, raw = folder / "a.h5", folder / "plain.h5", folder / "a.fits"
    box = ch5.Box(1000, 1256, 1000, 1256)

    def write_ours() -> None:
        mask = ch5.Mask(data.mask, {"BAD": 0, "SAT": 1})
        ch5.Composite("exposure", image=data.image, mask=mask, variance=data.variance, wcs=data.wcs).write(
            ours, replace=True
        )

    def write_plain() -> None:
        with h5py.File(plain, "w") as file:
            for name in ("image", "mask", "variance"):
                options = {"chunks": (256, 256), "compression": "gzip", "compression_opts": 1, "shuffle": True}
                file.create_dataset(name, data=getattr(data, name), **options)
            file["wcs"] = data.wcs.to_header_string()

    def write_raw() -> None:
        planes = [fits.ImageHDU(getattr(data, name), name=name) for name in ("image", "mask", "variance")]
        fits.HDUList([fits.PrimaryHDU(header=data.wcs.to_header()), *planes]).writeto(raw, overwrite=True)

    def read_ours() -> None:
        with ch5.open(ours) as c:
            c["image"], c["mask"], c["variance"]

    def read_plain() -> None:
        with h5py.File(plain) as file:
            file["image"][...], file["mask"][...], file["variance"][...]

    def read_raw() -> None:
        with fits.open(raw, memmap=False) as hdus:
            for i in (1, 2, 3):
                hdus[i].data.sum(dtype="f4")

    def wcs_ours() -> None:
        with ch5.open(ours) as c:
            c["wcs"]

    def wcs_plain() -> None:
        with h5py.File(plain) as file:
            WCS(fits.Header.fromstring(file["wcs"].asstr()[()]))

    def wcs_raw() -> None:
        with fits.open(raw) as hdus:
            WCS(hdus[0].header)

    def cutout_ours() -> None:
        with ch5.open(ours) as c:
            c.read("image", box=box)

    def cutout_plain() -> None:
        with h5py.File(plain) as file:
            file["image"][1000:1256, 1000:1256]

    def cutout_raw() -> None:
        with fits.open(raw) as hdus:
            hdus[1].section[1000:1256, 1000:1256]

    return {
        "write": {"compositeh5": write_ours, "h5py gzip": write_plain, "FITS": write_raw},
        "read all pixels": {"compositeh5": read_ours, "h5py gzip": read_plain, "FITS": read_raw},
        "open, read WCS": {"compositeh5": wcs_ours, "h5py gzip": wcs_plain, "FITS": wcs_raw},
        "open, 256 x 256 cutout": {"compositeh5": cutout_ours, "h5py gzip": cutout_plain, "FITS": cutout_raw},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    versions = f"Python {platform.python_version()}, h5py {h5py.__version__}, numpy {np.__version__}"
    print(f"{versions}, {args.size} x {args.size} pixels")
    print("\n| task | compositeh5 | h5py gzip | FITS |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task, peers in tasks(Exposure(args.size), folder).items():
            times: dict[str, list[float]] = {peer: [] for peer in peers}
            for run in range(args.runs + 1):
                for peer, function in peers.items():
                    start = time.process_time()
                    function()
                    if run:
                        times[peer].append((time.process_time() - start) * 1000)
            ms = {peer: median(values) for peer, values in times.items()}
            cells = [f"{value:.1f} ({value / ms['compositeh5']:.2f})" for value in ms.values()]
            print(f"| {task} | {' | '.join(cells)} |")
        sizes = [(folder / file).stat().st_size / 1e6 for file in ("a.h5", "plain.h5", "a.fits")]
        print(f"| size, MB | {' | '.join(f'{size:.1f}' for size in sizes)} |")


if __name__ == "__main__":
    main()
