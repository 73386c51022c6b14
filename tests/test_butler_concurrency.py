"""Many readers of one repository at once: threads with clones of a Butler, and processes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from support import exposure, visit_info

import compositeh5 as ch5
from compositeh5 import targets

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import DETECTORS, RUN, create_repo
from lsst.daf.butler import Butler

from compositeh5.butler import put_visit

VISIT = {"instrument": "DemoCam", "visit": 903334}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers") / "repo"
    create_repo(root)
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT)
    ccds = [exposure((30, 40)).replace(data_id={**VISIT, "detector": d}) for d in DETECTORS]
    put_visit(Butler.from_config(str(root), run=RUN), visit, ccds)
    targets.cache.clear()
    return root


def read(butler: Butler) -> list[tuple[float, float, str]]:
    """Read linked components, parts and whole composites of all detectors."""
    answers = []
    for detector in DETECTORS:
        data_id = {**VISIT, "detector": detector}
        info = butler.get("calexp.visit_info", data_id)
        part = butler.get("calexp.image", data_id, parameters={"bbox": ch5.Box(100, 110, 200, 220)})
        whole = butler.get("calexp", data_id)
        answers.append((info["exposure_time"].value, float(part.array.sum()), whole.component_digest("mask")))
    return answers


def read_in_process(root: str) -> list[tuple[float, float, str]]:
    return read(Butler.from_config(root, collections=RUN))


def test_threads_with_clones_get_the_same(repo: Path) -> None:
    butler = Butler.from_config(str(repo), collections=RUN)
    clones = [butler.clone() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(read, clones))
    assert answers == [read(butler)] * 8


def test_eight_processes_get_the_same(repo: Path) -> None:
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        answers = list(pool.map(read_in_process, [str(repo)] * 8))
    assert answers == [read_in_process(str(repo))] * 8
