"""The same work on many items, here or on any executor: the same results in the same order."""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest
from linked_trees import ccd_path, visit_path, write_tree

from compositeh5.trees.pruning import prune, remove
from compositeh5.trees.references import refs_to
from compositeh5.trees.relinking import relink
from compositeh5.trees.running import map_in_order
from compositeh5.trees.verify import verify_files


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("count", [0, 1, 256, 257])
def test_results_are_in_order(executor: Executor, count: int) -> None:
    numbers = [n % 20 for n in range(count)]
    expected = list(map(math.factorial, numbers))
    assert list(map_in_order(math.factorial, numbers)) == expected
    assert list(map_in_order(math.factorial, numbers, executor=executor)) == expected


def test_the_first_failure_is_raised(executor: Executor) -> None:
    results = map_in_order(math.sqrt, [4.0, 9.0, -1.0, 16.0], executor=executor)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ValueError, match=r"domain|nonnegative"):
        next(results)


def test_progress_is_told(executor: Executor) -> None:
    told: list[tuple[str, int, int]] = []
    list(map_in_order(math.sqrt, [1.0] * 600, executor=executor, progress=lambda *now: told.append(now), step="roots"))
    assert told[0] == ("roots", 0, 600)
    assert told[-1] == ("roots", 600, 600)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    alone: list[tuple[str, int, int]] = []
    list(map_in_order(math.sqrt, [1.0] * 3, progress=lambda *now: alone.append(now), step="roots"))
    assert alone == [("roots", n, 3) for n in range(4)]


def test_what_was_said_of_a_file_is_not_said_again_of_another(executor: Executor, tmp_path: Path) -> None:
    """Dask gives equal calls one result while anyone holds it."""
    paths = [str(tmp_path / "a")] * 100
    (tmp_path / "a").write_bytes(b"1")
    unfinished = map_in_order(os.path.getsize, paths, executor=executor)
    assert next(unfinished) == 1
    (tmp_path / "a").write_bytes(b"22")
    assert list(map_in_order(os.path.getsize, paths, executor=executor)) == [2] * 100
    unfinished.close()


class _Waiting(Executor):
    """An executor that counts what was handed to it, and runs nothing before it is asked for the result."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.submitted += 1
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_not_everything_is_handed_out_at_once() -> None:
    executor = _Waiting()
    results = map_in_order(math.sqrt, [1.0] * 10_000, executor=executor)
    next(results)
    assert executor.submitted < 40
    assert len(list(results)) == 9_999
    assert executor.submitted < 300


def test_what_was_not_begun_is_cancelled() -> None:
    hold, started = threading.Event(), []

    def work(item: int) -> int:
        started.append(item)
        if item:
            hold.wait(30)
        return item

    with ThreadPoolExecutor(1) as executor:
        results = map_in_order(work, range(200), executor=executor)
        assert next(results) == 0
        results.close()
        hold.set()
    assert len(started) < 10


def test_trees_are_seen_the_same_by_processes(processes: Executor, tmp_path: Path) -> None:
    tree = write_tree(tmp_path, visits=4, ccds=2)
    (tree / "damaged.h5").write_bytes(b"x")
    with h5py.File(ccd_path(tree, 3), "r+") as file:
        file["composite/image"][...] = 9
    visit_path(tree, 2).rename(tree / "moved.h5")
    for detector in range(2):
        ccd_path(tree, 4, detector).unlink()
    for serial, parallel in (
        (refs_to(visit_path(tree), tree), refs_to(visit_path(tree), tree, executor=processes)),
        (verify_files(tree), verify_files(tree, executor=processes)),
        (verify_files(tree / "calexp"), verify_files(tree / "calexp", executor=processes)),
        (prune(tree, older_than=0), prune(tree, older_than=0, executor=processes)),
        (remove([visit_path(tree)], tree), remove([visit_path(tree)], tree, executor=processes)),
        (relink(tree, dry_run=True), relink(tree, executor=processes)),
    ):
        assert serial == parallel
    assert {problem.finding for problem in verify_files(tree, executor=processes).problems} == {"digest", "unread"}
