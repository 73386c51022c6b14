"""Time a VisitImage of lsst.images in our files beside its own FITS and NDF back ends: one object, one run.

    python benchmarks/images.py [--size 4000] [--runs 5]

Needs the extra `images` (Python 3.12). Prints a Markdown table: CPU time in ms (median), with the ratio to compositeh5
in brackets, and the sizes of the files. All are lossless; theirs are as they are by default, which is without
compression for NDF, so that there is a column for our recipe "raw" as well.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lsst.images import Box, VisitImage
from lsst.images.serialization import open_archive, read_archive, write_archive
from lsst.images.tests import assert_visit_images_equal

from compositeh5 import lsst_images

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import images_samples as samples

COMPONENTS = ("psf", "obs_info", "detector", "sky_projection")


def make(size: int) -> VisitImage:
    """Return noise with stars, a sparse mask, a smooth variance."""
    visit_image = samples.visit_image(shape=(size, size))
    visit_image.metadata["note"] = "ASCII"  # Their NDF back end takes no other.
    rng = np.random.default_rng(1)
    image = visit_image.image.array
    image[...] = rng.normal(0, 23, image.shape)
    for y, x in rng.integers(20, size - 20, (500, 2)):
        image[y - 9 : y + 10, x - 9 : x + 10] += rng.uniform(100, 5000)
    visit_image.variance.array[...] = 529 + np.maximum(image, 0)
    visit_image.mask.clear()
    visit_image.mask.set("SATURATED", image > 4000)
    visit_image.mask.set("BAD", rng.random(image.shape) < 1e-4)
    return visit_image


def component(path: Path, name: str, **parameters: Any) -> Any:
    with open_archive(path) as reader:
        return reader.get_component(name, **parameters)


def tasks(obj: VisitImage, folder: Path) -> dict[str, dict[str, Callable[[], Any]]]:
    ours, raw = folder / "ours.h5", folder / "raw.hdf5"
    fits, ndf = folder / "theirs.fits", folder / "theirs.sdf"
    start = (samples.ORIGIN[0] + obj.bbox.y.size // 4, samples.ORIGIN[1] + obj.bbox.x.size // 4)
    box = Box.from_shape((256, 256), start=start)

    def rewrite(path: Path) -> None:
        # Theirs don't replace files.
        path.unlink(missing_ok=True)
        write_archive(obj, path)

    found: dict[str, dict[str, Callable[[], Any]]] = {
        "write": {
            "compositeh5": lambda: lsst_images.write(obj, ours, replace=True),
            "raw": lambda: lsst_images.write(obj, raw, replace=True, recipes={"default": "raw"}),
            "FITS": lambda: rewrite(fits),
            "NDF": lambda: rewrite(ndf),
        },
        "read": {
            "compositeh5": lambda: lsst_images.read(ours),
            "raw": lambda: lsst_images.read(raw),
            "FITS": lambda: read_archive(fits),
            "NDF": lambda: read_archive(ndf),
        },
        "256 x 256 of all planes": {
            "compositeh5": lambda: lsst_images.read(ours, bbox=box),
            "raw": lambda: lsst_images.read(raw, bbox=box),
            "FITS": lambda: read_archive(fits, bbox=box),
            "NDF": lambda: read_archive(ndf, bbox=box),
        },
        "256 x 256 of the image": {
            "compositeh5": lambda: lsst_images.read(ours, component="image", bbox=box),
            "raw": lambda: lsst_images.read(raw, component="image", bbox=box),
            "FITS": lambda: component(fits, "image", bbox=box),
            "NDF": lambda: component(ndf, "image", bbox=box),
        },
    }
    for name in COMPONENTS:
        found[f"component `{name}`"] = {
            "compositeh5": lambda name=name: lsst_images.read(ours, component=name),
            "raw": lambda name=name: lsst_images.read(raw, component=name),
            "FITS": lambda name=name: component(fits, name),
            "NDF": lambda name=name: component(ndf, name),
        }
    return found


def measure(task: Callable[[], Any], runs: int) -> float:
    """Return the median of the CPU times of some runs, in ms, after one that warms up; NaN if it fails."""
    try:
        task()
    except TypeError as error:
        # The NDF back end of 30.2026.4300 gives h5py 3.16 an index that isn't a tuple.
        print(f"failed: {error}", file=sys.stderr)
        return nan
    times = []
    for _ in range(runs):
        before = time.process_time()
        task()
        times.append(1e3 * (time.process_time() - before))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    obj = make(args.size)
    versions = ", ".join(f"{name} {version(name)}" for name in ("lsst-images", "h5py", "astropy", "numpy"))
    print(f"Python {platform.python_version()}, {versions}; {args.size} x {args.size} pixels, {args.runs} runs\n")
    print("| task | compositeh5 | raw | FITS | NDF |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task, peers in tasks(obj, folder).items():
            times = {peer: measure(run, args.runs) for peer, run in peers.items()}
            own = times["compositeh5"]
            cells = [
                "fails" if isnan(times[peer]) else f"{times[peer]:.1f} ({times[peer] / own:.2f})"
                for peer in ("raw", "FITS", "NDF")
            ]
            print(f"| {task} | {own:.1f} | {' | '.join(cells)} |", flush=True)
        sizes = {path.suffix: path.stat().st_size / 1e6 for path in folder.iterdir()}
        print(f"| size of the file (MB) | {' | '.join(f'{sizes[x]:.1f}' for x in ('.h5', '.hdf5', '.fits', '.sdf'))} |")
        for path in (folder / "theirs.fits", folder / "theirs.sdf"):
            assert_visit_images_equal(read_archive(path), lsst_images.read(folder / "ours.h5"))


if __name__ == "__main__":
    main()
