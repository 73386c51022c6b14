"""Trees of small files that link to each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import compositeh5 as ch5


def visit_path(root: Path, visit: int = 1) -> Path:
    return root / "visit" / f"visit_{visit}.h5"


def ccd_path(root: Path, visit: int = 1, detector: int = 0) -> Path:
    return root / "calexp" / f"calexp_{visit}_{detector}.h5"


def write_shared(root: Path, visit: int = 1, **more: object) -> ch5.Composite:
    """Write what the detectors of a visit share."""
    info = {"visit": visit, "exposure_time": 30.0}
    shared = ch5.Composite("visit", visit_info=info, data_id={"visit": visit}, stage="raw", **more)
    shared.write(visit_path(root, visit))
    return shared


def ccd(link: ch5.Link | None, visit: int = 1, detector: int = 0, **more: object) -> ch5.Composite:
    """Return an exposure of a few pixels."""
    pixels = np.full((6, 8), detector, np.float32)
    data_id = {"visit": visit, "detector": detector}
    return ch5.Composite("exposure", image=pixels, visit_info=link, data_id=data_id, stage="single_frame", **more)


def write_tree(root: Path, visits: int = 2, ccds: int = 3) -> Path:
    """Write visits, and exposures that link to them."""
    for visit in range(1, visits + 1):
        link = write_shared(root, visit).link("visit_info")
        for detector in range(ccds):
            ccd(link, visit, detector).write(ccd_path(root, visit, detector))
    return root
