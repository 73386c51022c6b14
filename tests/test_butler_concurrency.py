"""Many readers of one repository at once: threads with clones of a Butler, and processes."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import pytest
from astropy.table import Table
from support import pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5.composite.session import current

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN, VISIT, ccd, digest_of, new_repo, nothing_cached, visit  # noqa: F401
from lsst.daf.butler import Butler

from compositeh5.butler import link, put_overlay, put_visit

DETECTORS = range(3)
READERS = 4
ROUNDS = 2

Answers = dict[str, list[str]]


class Barrier(Protocol):
    """What threads and processes wait at for each other."""

    def wait(self, timeout: float | None = None) -> int: ...


def catalog() -> Table:
    # Larger than what is kept in memory: it is read from the file by each who follows a link to it.
    return Table({"flux": pixels((210_000, 5))})


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visit, its detectors, overlays of these, and catalogues with links to one table: all is linked."""
    root = tmp_path_factory.mktemp("readers") / "repo"
    butler = new_repo(root)
    _, refs = put_visit(butler, visit(), map(ccd, DETECTORS))
    for ref in refs:
        put_overlay(butler, ref, {"wcs": simple_wcs((30, 40))}, "calexp", run="overlays", stage="jointcal")
    first = butler.put(ch5.Composite("source_catalog", table=catalog()), "src", refs[0].dataId)
    for ref in refs[1:]:
        butler.put(ch5.Composite("source_catalog", table=link(butler, first, "table")), "src", ref.dataId)
    return root


@pytest.fixture(scope="module")
def expected() -> Answers:
    """What was put, told by digests."""
    info = digest_of(ch5.Record(visit_info()))
    answers = {"table": [digest_of(catalog())]}
    for detector in DETECTORS:
        whole = ccd(detector)
        part = whole.cutout(ch5.Box(100, 110, 200, 220), components=["image"])
        digests = sorted(whole.component_digest(name) for name in whole)
        answers[str(detector)] = [info, part.component_digest("image"), *sorted([*digests, info])]
    return answers


def read(butler: Butler) -> Answers:
    """Read linked components, parts and whole composites of all detectors."""
    answers = {}
    for detector in DETECTORS:
        data_id = {**VISIT, "detector": detector}
        info = butler.get("calexp.visit_info", data_id)
        part = butler.get("calexp.image", data_id, parameters={"bbox": ch5.Box(100, 110, 200, 220)})
        # All of an overlay is linked but its WCS.
        whole = butler.get("calexp", data_id, collections="overlays")
        assert set(whole.links) == {*whole} - {"wcs"}
        answers[str(detector)] = [digest_of(info), digest_of(part), *sorted(map(digest_of, whole.values()))]
    answers["table"] = [digest_of(butler.get("src.table", {**VISIT, "detector": DETECTORS[-1]}))]
    return answers


def read_at_once(butler: Butler, barrier: Barrier) -> list[Answers]:
    """Read all again and again, with nothing read before, when all others start to."""
    answers = []
    for _ in range(ROUNDS):
        barrier.wait(60)
        current().clear_cache()
        answers.append(read(butler))
    return answers


def test_threads_with_clones_get_the_same(repo: Path, expected: Answers) -> None:
    butler = Butler.from_config(str(repo), collections=RUN)
    barrier = threading.Barrier(READERS)
    with ThreadPoolExecutor(READERS) as pool:
        running = [pool.submit(read_at_once, butler.clone(), barrier) for _ in range(READERS)]
        answers = [each.result() for each in running]
    assert answers == [[expected] * ROUNDS] * READERS


_barrier: Barrier


def _start(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def read_in_process(root: str) -> list[Answers]:
    return read_at_once(Butler.from_config(root, collections=RUN), _barrier)


def test_processes_get_the_same(repo: Path, expected: Answers) -> None:
    # New processes, but for the imports, which would take most of the time.
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["compositeh5.butler.formatter", "compositeh5.butler.delegate", "lsst.daf.butler.direct_butler"]
    )
    with ProcessPoolExecutor(READERS, context, initializer=_start, initargs=(context.Barrier(READERS),)) as pool:
        answers = list(pool.map(read_in_process, [str(repo)] * READERS))
    assert answers == [[expected] * ROUNDS] * READERS
