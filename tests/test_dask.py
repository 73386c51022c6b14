"""Operations on trees in the worker processes of a cluster of Dask: the results are the same as without it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import QTable
from linked_trees import ccd, ccd_path, write_shared

import compositeh5 as ch5
from compositeh5 import errors, index, open_index, subset, verify_files
from compositeh5.operations.running import each

distributed = pytest.importorskip("distributed", reason="needs dask (the extra `dask`)")


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def executor(client: distributed.Client) -> Executor:
    return client.get_executor()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exposures of three visits, and catalogs that link to their calibrations."""
    root = tmp_path_factory.mktemp("original")
    for visit in (1, 2, 3):
        info = write_shared(root, visit).link("visit_info")
        for detector in range(4):
            exposure = ccd(info, visit, detector, photo_calib=ch5.PhotoCalib(visit + detector / 10, 0.01))
            exposure.write(ccd_path(root, visit, detector))
            links = {"photo_calib": exposure.link("photo_calib"), "visit_info": info}
            table = QTable({"flux": np.arange(5.0) + detector})
            catalog = ch5.Composite("source_catalog", table=table, **links, data_id=exposure.data_id)
            catalog.write(root / f"src/src_{visit}_{detector}.h5")
    return root


@pytest.fixture
def damaged(original: Path, tmp_path: Path) -> Path:
    """A copy with changed pixels, a file cut off, and one that is found only where all was copied from."""
    root = Path(shutil.copytree(original, tmp_path / "damaged"))
    with h5py.File(ccd_path(root, 2, 1), "r+") as file:
        file["composite/image"][...] = 9
    os.truncate(root / "src/src_1_3.h5", 1000)
    ccd_path(root, 3, 0).unlink()
    return root


def contents(root: Path) -> dict[str, str]:
    """Return digests of the bytes of all files of a tree but the unfinished ones of writers that were killed."""
    found = root.rglob("[!.]*.h5")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def process(_: int) -> int:
    return os.getpid()


def test_the_work_is_done_in_the_workers(client: distributed.Client, executor: Executor) -> None:
    workers = set(client.run(os.getpid).values())
    assert len(workers - {os.getpid()}) == 2
    assert set(each(process, range(100), executor=executor)) == workers


def test_verify(damaged: Path, executor: Executor) -> None:
    told: list[tuple[str, int, int]] = []
    found = verify_files(damaged, executor=executor, progress=lambda *now: told.append(now))
    assert found == verify_files(damaged)
    assert {(Path(problem.path).name, problem.component, problem.finding) for problem in found.problems} == {
        ("calexp_2_1.h5", "image", "digest"),
        ("src_1_3.h5", "", "unread"),
        ("src_3_0.h5", "photo_calib", "moved"),
    }
    assert {(done, total) for _, done, total in told} >= {(0, 26), (26, 26)}


def test_subset(original: Path, tmp_path: Path, executor: Executor) -> None:
    new = tmp_path / "new"
    alone = subset(original, new, definition="source_catalog"), contents(new)
    shutil.rmtree(new)
    assert (subset(original, new, definition="source_catalog", executor=executor), contents(new)) == alone
    assert len(alone[1]) == 27
    assert verify_files(new, executor=executor).problems == ()


def test_index(damaged: Path, tmp_path: Path, executor: Executor) -> None:
    alone, ours = tmp_path / "alone.h5", tmp_path / "dask.h5"
    one, two = index(damaged, alone), index(damaged, ours, executor=executor)
    assert alone.read_bytes() == ours.read_bytes()
    assert (one.composites, one.problems) == (two.composites, two.problems)
    assert len(open_index(ours)) == 26
    assert list(two.problems) == ["src/src_1_3.h5"]


def test_an_error_in_a_worker_is_raised_here(original: Path, tmp_path: Path, executor: Executor) -> None:
    ch5.Composite(x=np.arange(3)).write(tmp_path / "new/src/src_2_1.h5")
    with pytest.raises(errors.ConflictError, match=r"src_2_1.h5: holds other composites"):
        subset(original, tmp_path / "new", definition="source_catalog", executor=executor)


def test_a_subset_is_the_same_if_a_worker_is_killed(
    original: Path, tmp_path: Path, client: distributed.Client, executor: Executor
) -> None:
    new = tmp_path / "new"
    subset(original, new, definition="source_catalog")
    expected = contents(new)
    shutil.rmtree(new)
    victims = list(client.run(os.getpid).values())[:1]

    def kill(step: str, done: int, total: int) -> None:
        if step == "writing" and done and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    subset(original, new, definition="source_catalog", executor=executor, progress=kill)
    assert victims == []
    assert contents(new) == expected
