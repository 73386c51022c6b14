"""What the demonstration found, as text."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..composite.describe import columns, human_bytes
from ..composite.opening import open_composite
from .measure import CUTOUT, cutout_centre

if TYPE_CHECKING:
    from astropy.table import QTable

    from .measure import Read, Sharing
    from .repository import Stored


@dataclass(frozen=True)
class Report:
    """What was stored where, what reading parts of it took, and what sharing saved."""

    directory: str
    stored: Stored
    summary: QTable
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
        sections = (
            ("", self._overview()),
            ("One file", self._tree()),
            ("What was read, and the size of the files it is in", self._reads()),
            ("What sharing saves", self._sharing()),
            ("The visit", "\n".join(self.summary.pformat(max_lines=-1, max_width=-1))),
            ("What to type next", self._commands()),
        )
        return "\n\n".join(f"{title}\n{'-' * len(title)}\n{text}" if title else text for title, text in sections)

    def _overview(self) -> str:
        datasets = list(self.stored)
        size = sum(os.path.getsize(dataset.path) for dataset in datasets)
        counts = f"1 visit, {len(self.stored.exposures)} exposures, {len(self.stored.catalogs)} catalogs"
        return (
            f"Made the Butler repository {self.directory} in {self.seconds:.0f} s:\n"
            f"{len(datasets)} files, {human_bytes(size)} ({counts})."
        )

    def _tree(self) -> str:
        path = self.stored.exposures[0].path
        with open_composite(path) as exposure:
            return f"{path}\n{exposure.tree()}"

    def _reads(self) -> str:
        rows = [("", "read", "stored", "")]
        for read in self.reads:
            if read.bytes_read is None:
                return "It can't be counted here: this system has no /proc/self/io."
            share = f"{100 * read.bytes_read / read.bytes_stored:.2g} %"
            rows.append((read.what, human_bytes(read.bytes_read), human_bytes(read.bytes_stored), share))
        return columns(rows)

    def _sharing(self) -> str:
        rows = [("component", "in files", "as copies", "shared", "saved")]
        for sharing in self.sharing:
            saved = sharing.bytes_copied - sharing.bytes_shared
            copied, shared = human_bytes(sharing.bytes_copied), human_bytes(sharing.bytes_shared)
            rows.append((sharing.component, str(sharing.users), copied, shared, human_bytes(saved)))
        return f"{columns(rows)}\n{_SHARING_NOTE}"

    def _commands(self) -> str:
        exposure = self.stored.exposures[0]
        directory, path = shlex.quote(self.directory), shlex.quote(exposure.path)
        with open_composite(exposure.path) as composite:
            centre = cutout_centre(composite)
        return _COMMANDS.format(
            directory=directory,
            path=path,
            directory_text=self.directory,
            path_text=exposure.path,
            run=exposure.ref.run,
            centre=centre,
            size=CUTOUT,
            dataset_type=exposure.ref.datasetType.name,
            data_id=", ".join(f"{name}={value!r}" for name, value in exposure.ref.dataId.required.items()),
        )


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
