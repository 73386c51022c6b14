"""Reading parts of what the demonstration stored, and counting the bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import QTable
from lsst.daf.butler import Butler

from ..composite.composite import Composite
from ..composite.cutout import image_box
from ..composite.opening import open_composite
from ..composite.session import current

if TYPE_CHECKING:
    from .repository import Stored

CUTOUT = 64
"""Rows and columns of the cutout, in pixels."""


@dataclass(frozen=True)
class Read:
    """One read: what it was, the bytes that the process read meanwhile (None if unknown), those of the files."""

    what: str
    bytes_read: int | None
    bytes_stored: int


@dataclass(frozen=True)
class Sharing:
    """A component that several files use: the bytes of a copy in each, and those of one copy and links to it."""

    component: str
    users: int
    bytes_copied: int
    bytes_shared: int


def measure_reads(butler: Butler, stored: Stored) -> list[Read]:
    """Read a component, a linked one, a cutout, two columns of a table, and a component of all detectors."""
    exposures, catalogs = stored.exposures, stored.catalogs
    every = range(len(exposures))

    def component(name: str) -> Callable[[int], object]:
        return lambda i: butler.get(exposures[i].ref.makeComponentRef(name))

    def cutout(i: int) -> object:
        with open_composite(exposures[i].path) as exposure:
            return exposure.cutout(cutout_centre(exposure), CUTOUT)

    def positions(i: int) -> object:
        table = catalogs[i].ref.makeComponentRef("table")
        return butler.get(table, parameters={"columns": ["ra", "dec"]})

    # Modules are loaded, and connections made, when they are first needed: that isn't counted.
    for read in (component("wcs"), component("visit_info"), cutout):
        read(len(exposures) - 1)
    current().clear_cache()

    size = [os.path.getsize(dataset.path) for dataset in exposures]
    visit_size = os.path.getsize(stored.visit.path)
    reads = [
        Read("WCS of one detector", _bytes_read(component("wcs"), 0), size[0]),
        Read("its visit_info, through the link", _bytes_read(component("visit_info"), 0), size[0] + visit_size),
        Read(f"cutout of {CUTOUT} x {CUTOUT} pixels: image, mask, variance, WCS", _bytes_read(cutout, 0), size[0]),
        Read("WCS of all detectors", _bytes_read(component("wcs"), *every), sum(size)),
        Read("visit_info of all detectors, decoded once", _bytes_read(component("visit_info"), *every), sum(size)),
    ]
    if catalogs:
        positions(len(catalogs) - 1)
        stored_bytes = os.path.getsize(catalogs[0].path)
        reads.append(Read("two columns of its catalog", _bytes_read(positions, 0), stored_bytes))
    return reads


def cutout_centre(exposure: Composite) -> tuple[int, int]:
    """Return a position (y, x) inside an image, in parent coordinates, that is no corner of chunks by design."""
    box = image_box(exposure)
    return box.y0 + box.shape[0] // 3, box.x0 + box.shape[1] // 3


def measure_sharing(stored: Stored) -> list[Sharing]:
    """Return what each shared component takes as copies and as links: differences of sizes of files without pixels."""
    users: dict[str, list[str]] = {}
    for dataset in (*stored.exposures, *stored.catalogs):
        with open_composite(dataset.path) as composite:
            for name in composite.links:
                users.setdefault(name, []).append(dataset.path)
    result = []
    for name, paths in users.items():
        with open_composite(paths[0]) as composite:
            link = composite.links[name]
            empty = _file_size(Composite(), paths[0])
            copy_size = _file_size(Composite(None, {name: composite[name]}), paths[0]) - empty
            link_size = _file_size(Composite(None, {name: link}), paths[0]) - empty
        # The copy in an exposure is there in any case; that of the visit is there to be shared.
        shared_size = copy_size if link.id == str(stored.visit.ref.id) else 0
        result.append(Sharing(name, len(paths), len(paths) * copy_size, shared_size + len(paths) * link_size))
    return result


def visit_summary(stored: Stored) -> QTable:
    """Return number, centre on the sky and zero point of each detector; NaN where they aren't known."""
    rows = []
    for dataset in stored.exposures:
        with open_composite(dataset.path) as exposure:
            ra = dec = zero_point = np.nan
            if "wcs" in exposure:
                ny, nx = exposure.lazy("image").shape
                centre = exposure["wcs"].pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
                ra, dec = centre.ra.deg, centre.dec.deg
            if "photo_calib" in exposure:
                zero_point = (exposure["photo_calib"].mean * u.nJy).to_value(u.ABmag)
            rows.append((exposure.data_id["detector"], ra, dec, zero_point))
    table = QTable(rows=rows, names=["detector", "ra", "dec", "zero_point"], units=[None, u.deg, u.deg, u.ABmag])
    table["ra"].info.format = table["dec"].info.format = ".5f"
    table["zero_point"].info.format = ".3f"
    return table


def _file_size(composite: Composite, path: str) -> int:
    return len(composite.file_image(path))


def _bytes_read(read: Callable[[int], object], *numbers: int) -> int | None:
    """Return how many bytes the process reads while it does something; None where the system doesn't tell."""
    before = _read_so_far()
    if before is None:
        return None
    # Asking is reading, too.
    asking = (_read_so_far() or 0) - before
    before = _read_so_far() or 0
    for number in numbers:
        read(number)
    return (_read_so_far() or 0) - before - asking


def _read_so_far() -> int | None:
    """Return the bytes that this process has asked the system for: from files, sockets and pipes."""
    try:
        with open("/proc/self/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("rchar:"))
    except (OSError, StopIteration):
        return None
