"""What the demonstration finds: the bytes that reading parts takes, what sharing saves, and all of it as text."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import QTable
from lsst.daf.butler import Butler

from ..composite.composite import Composite
from ..composite.cutout import image_box
from ..composite.display import columns, human_bytes
from ..composite.opening import open_composite
from ..composite.session import current
from .repository import Stored

_CUTOUT = 64
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


@dataclass(frozen=True)
class Report:
    """What was stored where, what reading parts of it took, and what sharing saved."""

    directory: str
    stored: Stored
    reads: list[Read]
    sharing: list[Sharing]
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return {
            "directory": self.directory,
            "seconds": self.seconds,
            "files": [dataset.path for dataset in self.stored],
            "reads": [asdict(read) for read in self.reads],
            "sharing": [asdict(sharing) for sharing in self.sharing],
        }

    def text(self) -> str:
        """Return all of it for people, with commands to type next."""
        datasets, exposure = list(self.stored), self.stored.exposures[0]
        size = human_bytes(sum(os.path.getsize(dataset.path) for dataset in datasets))
        counts = f"1 visit, {len(self.stored.exposures)} exposures, {len(self.stored.catalogs)} catalogs"
        made = f"Made the Butler repository {self.directory} in {self.seconds:.0f} s:"
        with open_composite(exposure.path) as composite:
            tree, centre = composite.tree(), _cutout_centre(composite)
        commands = _COMMANDS.format(
            directory=shlex.quote(self.directory),
            path=shlex.quote(exposure.path),
            directory_text=self.directory,
            path_text=exposure.path,
            run=exposure.ref.run,
            centre=centre,
            size=_CUTOUT,
            dataset_type=exposure.ref.datasetType.name,
            data_id=", ".join(f"{name}={value!r}" for name, value in exposure.ref.dataId.required.items()),
        )
        sections = {
            "One file": f"{exposure.path}\n{tree}",
            "What was read, and the size of the files it is in": self._reads(),
            "What sharing saves": self._sharing(),
            "The visit": "\n".join(_visit_summary(self.stored).pformat(max_lines=-1, max_width=-1)),
            "What to type next": commands,
        }
        told = (f"{title}\n{'-' * len(title)}\n{text}" for title, text in sections.items())
        return "\n\n".join([f"{made}\n{len(datasets)} files, {size} ({counts}).", *told])

    def _reads(self) -> str:
        rows = [("", "read", "stored", "")]
        for read in self.reads:
            if read.bytes_read is None:
                return "It can't be counted here: this system has no /proc/self/io."
            share = f"{100 * read.bytes_read / read.bytes_stored:.2g} %"
            rows.append((read.what, human_bytes(read.bytes_read), human_bytes(read.bytes_stored), share))
        return columns(rows)

    def _sharing(self) -> str:
        rows: list[tuple[str, ...]] = [("component", "in files", "as copies", "shared", "saved")]
        for sharing in self.sharing:
            sizes = (sharing.bytes_copied, sharing.bytes_shared, sharing.bytes_copied - sharing.bytes_shared)
            rows.append((sharing.component, str(sharing.users), *map(human_bytes, sizes)))
        return f"{columns(rows)}\n{_SHARING_NOTE}"


_SHARING_NOTE = """\
A link also records id, digest and data ID of what it leads to: for the smallest components that is more than a copy
takes, and what is gained is that there is one truth."""

_COMMANDS = """\
compositeh5 info {path}
compositeh5 get {path} visit_info
h5ls -r -E {path}
butler query-datasets {directory} {dataset_type} --collections {run}
python - <<'END'
import compositeh5
from lsst.daf.butler import Butler

butler = Butler({directory_text!r}, collections={run!r})
print(butler.get("{dataset_type}.wcs", {data_id}))
with compositeh5.open({path_text!r}) as exposure:
    print(exposure.cutout({centre}, {size}))
END"""


def measure_reads(butler: Butler, stored: Stored) -> list[Read]:
    """Read a component, a linked one, a cutout, two columns of a table, and a component of all detectors."""
    exposures, catalogs = stored.exposures, stored.catalogs

    def wcs(i: int) -> object:
        return butler.get(exposures[i].ref.makeComponentRef("wcs"))

    def visit_info(i: int) -> object:
        return butler.get(exposures[i].ref.makeComponentRef("visit_info"))

    def cutout(i: int) -> object:
        with open_composite(exposures[i].path) as exposure:
            return exposure.cutout(_cutout_centre(exposure), _CUTOUT)

    def positions(i: int) -> object:
        table = catalogs[i].ref.makeComponentRef("table")
        return butler.get(table, parameters={"columns": ["ra", "dec"]})

    every = range(len(exposures))
    size = [os.path.getsize(dataset.path) for dataset in exposures]
    plan: list[tuple[str, Callable[[int], object], Iterable[int], int]] = [
        ("WCS of one detector", wcs, [0], size[0]),
        ("its visit_info, through the link", visit_info, [0], size[0] + os.path.getsize(stored.visit.path)),
        (f"cutout of {_CUTOUT} x {_CUTOUT} pixels: image, mask, variance, WCS", cutout, [0], size[0]),
        ("WCS of all detectors", wcs, every, sum(size)),
        ("visit_info of all detectors, decoded once", visit_info, every, sum(size)),
    ]
    if catalogs:
        plan.append(("two columns of its catalog", positions, [0], os.path.getsize(catalogs[0].path)))
    # Modules are loaded, and connections made, when they are first needed: that isn't counted.
    for _, read, _, _ in plan:
        read(len(exposures) - 1)
    current().clear_cache()
    return [Read(what, _bytes_read(read, numbers), stored_bytes) for what, read, numbers, stored_bytes in plan]


def _bytes_read(read: Callable[[int], object], numbers: Iterable[int]) -> int | None:
    """Return how many bytes the process reads while it does something; None where the system doesn't tell."""
    # Asking is reading, too.
    first, before = _read_so_far(), _read_so_far()
    for number in numbers:
        read(number)
    after = _read_so_far()
    return None if first is None or before is None or after is None else after - before - (before - first)


def _read_so_far() -> int | None:
    """Return the bytes that this process has asked the system for: from files, sockets and pipes."""
    try:
        with open("/proc/self/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("rchar:"))
    except (OSError, StopIteration):
        return None


def _cutout_centre(exposure: Composite) -> tuple[int, int]:
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
            contents: list[dict[str, Any]] = [{}, {name: composite[name]}, {name: link}]
            empty, copied, linked = (len(Composite(None, content).file_image(paths[0])) for content in contents)
        copy_size, link_size = copied - empty, linked - empty
        # The copy in an exposure is there in any case; that of the visit is there to be shared.
        shared_size = copy_size if link.id == str(stored.visit.ref.id) else 0
        result.append(Sharing(name, len(paths), len(paths) * copy_size, shared_size + len(paths) * link_size))
    return result


def _visit_summary(stored: Stored) -> QTable:
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
