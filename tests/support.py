"""What several test modules use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time
from astropy.wcs import WCS
from numpy.typing import NDArray

import compositeh5 as ch5
from compositeh5.composite.encoding import composite_node
from compositeh5.storage.nodes import Group

DATA = Path(os.environ.get("COMPOSITEH5_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def data_file(name: str) -> Path:
    """Return a real FITS file, or skip the test."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} isn't in {DATA} (set COMPOSITEH5_TEST_DATA to the folder that has it)")
    return path


def tool(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run one of the HDF5 command-line tools, or skip the test."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} isn't installed (Debian package hdf5-tools)")
    return subprocess.run([name, *map(str, args)], capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def counted_reads() -> Iterator[Callable[[], int]]:
    """Count the bytes that this process reads from files, sockets and pipes (Linux)."""

    def total() -> int:
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])

    if not os.path.exists("/proc/self/io"):
        pytest.skip("/proc/self/io is needed to count what is read")
    first = total()
    own = total() - first
    before = total()
    yield lambda: total() - before - own


def visit_info(visit: int = 903334) -> dict[str, object]:
    """Return the metadata of a visit, with values of many types."""
    from astropy import units as u

    site = EarthLocation.from_geodetic(-70.7494 * u.deg, -30.2446 * u.deg, 2663 * u.m)
    return {
        "visit": visit,
        "exposure_time": 30.0 * u.s,
        "date": Time("2025-03-01T04:05:06.789", scale="tai"),
        "boresight": SkyCoord(150.1 * u.deg, 2.2 * u.deg),
        "observatory": site,
        "filter": "i_39",
        "airmass": 1.0625,
        "weather": {"temperature": 9.5 * u.deg_C, "humidity": None},
        "dithers": [1, 2, 3],
    }


def simple_wcs(shape: tuple[int, int]) -> WCS:
    """Return a tangent-plane WCS whose reference point is the middle of the image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    wcs.wcs.cd = [[-5.5e-5, 1e-7], [1e-7, 5.5e-5]]
    wcs.wcs.set()
    wcs.pixel_shape = shape[::-1]
    return wcs


def pixels(shape: tuple[int, int], seed: int = 1) -> NDArray[np.float32]:
    """Return noise, which doesn't compress."""
    return np.random.default_rng(seed).normal(0, 23, shape).astype(np.float32)


def exposure(
    shape: tuple[int, int] = (300, 400), origin: tuple[int, int] = (100, 200), **more: object
) -> ch5.Composite:
    """Return an exposure of one detector."""
    mask = np.zeros(shape, np.int32)
    mask[10:20, 30:40] = 1
    components: dict[str, object] = {
        "image": ch5.Image(pixels(shape), origin=origin, unit="nJy"),
        "mask": ch5.Mask(mask, {"BAD": 0, "SAT": 1}, origin=origin),
        "variance": ch5.Image(np.full(shape, 529, np.float32), origin=origin, unit="nJy2"),
        "wcs": simple_wcs(shape),
        "psf": ch5.Psf.constant(np.ones((5, 5)) / 25),
        **more,
    }
    data_id = {"instrument": "DemoCam", "visit": 903334, "detector": 11}
    return ch5.Composite("exposure", components, data_id=data_id, stage="single_frame")


def write_visit(root: Path, visit: int = 903334, ccds: int = 2) -> tuple[Path, list[Path]]:
    """Write a visit and exposures that link to its metadata."""
    whole = ch5.Composite(
        "visit", visit_info=visit_info(visit), data_id={"instrument": "DemoCam", "visit": visit}, stage="raw"
    )
    visit_path = root / "visit" / f"visit_{visit}.h5"
    whole.write(visit_path)
    paths = []
    for detector in range(ccds):
        path = root / "calexp" / f"calexp_{visit}_{detector}.h5"
        exposure(visit_info=whole.link("visit_info")).write(path)
        paths.append(path)
    return visit_path, paths


def group_of(composite: ch5.Composite) -> Group:
    """Return the group that is written of a composite."""
    return composite_node(composite)


def make_definition(components: Mapping[str, object], **top: object) -> ch5.Definition:
    """Return a definition whose components are given by kind or by their keys."""
    entries = {name: {"kind": entry} if isinstance(entry, str) else entry for name, entry in components.items()}
    return ch5.load_definition({"name": "test", "version": 1, "components": entries, **top})
