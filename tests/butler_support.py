"""Repositories for the tests of the Butler plug-in."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

from lsst.daf.butler import Butler, Config
from support import data_file

SEED = "resource://compositeh5/butler/configs/seed.yaml"
RUN = "demo/run"
DETECTORS = range(9)


def create_repo(root: Path) -> None:
    """Make a repository as users do, and an instrument with two visits in it."""
    shutil.copytree(_created_repo(), root)


@cache
def _created_repo() -> Path:
    """Return a repository made with the command that users give; all others are copies of it."""
    butler = shutil.which("butler", path=os.path.dirname(sys.executable)) or shutil.which("butler")
    assert butler is not None
    folder = Path(tempfile.mkdtemp(prefix="compositeh5-tests-"))
    atexit.register(shutil.rmtree, folder)
    root = folder / "repo"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([butler, "create", str(root), "--seed-config", SEED], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    add_instrument(Butler.from_config(str(root), writeable=True))
    return root


def create_repo_with(root: Path, changes: dict[str, object], *, own_roots: bool = False) -> Butler:
    """Make a repository with other settings than those of the seed configuration, maybe roots of datastores."""
    config = Config(SEED)
    config.update(changes)
    Butler.makeRepo(str(root), config=config, forceConfigRoot=not own_roots)
    butler = Butler.from_config(str(root), run=RUN)
    add_instrument(butler)
    return butler


def add_instrument(butler: Butler) -> None:
    """Register an invented instrument with nine detectors and two visits."""
    registry = butler.registry
    registry.insertDimensionData("instrument", {"name": "DemoCam", "class_name": "demo.DemoCam"})
    registry.insertDimensionData("physical_filter", {"instrument": "DemoCam", "name": "i_39", "band": "i"})
    registry.insertDimensionData("day_obs", {"instrument": "DemoCam", "id": 20250301})
    registry.insertDimensionData(
        "detector",
        *({"instrument": "DemoCam", "id": d, "full_name": f"R22_S{d // 3}{d % 3}"} for d in DETECTORS),
    )
    registry.insertDimensionData(
        "visit",
        *(
            {
                "instrument": "DemoCam",
                "id": visit,
                "name": str(visit),
                "physical_filter": "i_39",
                "day_obs": 20250301,
            }
            for visit in (903334, 903335)
        ),
    )


def add_megaprime(butler: Butler) -> None:
    """Import the dimension records of real visits, without the datasets that the export also lists."""
    export = data_file("megaprime_exports.yaml").read_text()
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # The export is older than the dimension day_obs.
        butler.import_(filename=io.StringIO(export.split("- type: collection")[0]))


def files_of(root: Path) -> set[Path]:
    """Return all files of a repository but its configuration and its database."""
    return {path for path in root.rglob("*") if path.is_file() and path.parent != root}
