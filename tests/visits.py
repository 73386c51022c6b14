"""A simulated visit of twelve detectors, for the tests of what looks at many composites."""

from __future__ import annotations

from pathlib import Path

import pytest

from compositeh5.demo.simulate import Camera, simulate_exposure, simulate_visit

SIZE = 128
DETECTORS = tuple(range(12))
CAMERA = Camera(len(DETECTORS), SIZE)
VISIT = {"instrument": "DemoCam", "visit": 2025052000042}


def detector_path(root: Path, detector: int) -> Path:
    """Return the file of a detector; the names don't sort as the numbers do."""
    return root / "calexp" / f"calexp_{detector}.h5"


def write_simulated_visit(root: Path) -> Path:
    """Write a visit, and exposures of its detectors that link to its metadata; return the file of the visit."""
    visit = simulate_visit(CAMERA)
    path = root / "visit" / "visit.h5"
    visit.write(path)
    for detector in DETECTORS:
        exposure, _ = simulate_exposure(CAMERA, detector, seed=1)
        exposure.replace({"visit_info": visit.link("visit_info")}).write(detector_path(root, detector))
    return path


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with such a visit; not to be changed."""
    root = tmp_path_factory.mktemp("visit")
    write_simulated_visit(root)
    return root
