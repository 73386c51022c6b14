"""Threads and processes that share files, folders that can't be written to, locks; many at once are in ``stress``."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import exposure, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    current().clear_cache()
    yield
    current().clear_cache()


# ---- Threads ------------------------------------------------------------------------------------------------


def test_threads_read_write_and_close_the_same_files(tmp_path: Path) -> None:
    """Each opens and closes on its own what all of them share: one open file."""
    _, paths = write_visit(tmp_path, ccds=2)
    with ch5.open(paths[0]) as c:
        expected = c["image"].array.copy()
    barrier = threading.Barrier(6)

    def work(number: int) -> bool:
        barrier.wait(60)
        right = True
        for i in range(5):
            with ch5.open(paths[i % 2]) as c:
                right &= bool((c["image"].array == expected).all()) and c["visit_info"]["visit"] == 903334
            exposure((20, 20)).write(tmp_path / "new" / f"{i}.h5")
            if number % 2:
                current().clear_cache()
        return right

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f"{i}.h5" for i in range(5)]


# ---- Folders that can't be written to -----------------------------------------------------------------------


def as_nobody(work: Callable[[], None]) -> None:
    """Do something in a process without the rights of root, for which no folder is read-only."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder that others can look into."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-")) and folder.owner() == Path.home().owner():
            folder.chmod(0o755)
    return tmp_path


def test_a_read_only_tree_is_read(public: Path) -> None:
    _, (path,) = write_visit(public, ccds=1)
    for folder in (path.parent, public / "visit", public):
        folder.chmod(0o555)
    before = sorted(public.rglob("*"))

    def read() -> None:
        with ch5.open(path) as c:
            assert c["visit_info"]["visit"] == 903334
            assert c["image"].shape == (300, 400)
        assert ch5.trees.verify_files(public).problems == ()

    try:
        as_nobody(read)
    finally:
        for folder in (public, path.parent, public / "visit"):
            folder.chmod(0o755)
    assert sorted(public.rglob("*")) == before


def test_a_read_only_folder_is_not_written_to(public: Path) -> None:
    folder = public / "read-only"
    exposure((20, 20)).write(folder / "x.h5")
    folder.chmod(0o555)
    before = (folder / "x.h5").read_bytes()

    def write() -> None:
        for name, replace in (("new.h5", False), ("x.h5", True), ("deeper/x.h5", False)):
            with pytest.raises(PermissionError, match="read-only"):
                exposure((30, 30)).write(folder / name, replace=replace)

    try:
        as_nobody(write)
    finally:
        folder.chmod(0o755)
    assert [path.name for path in folder.iterdir()] == ["x.h5"]
    assert (folder / "x.h5").read_bytes() == before


# ---- Locks of HDF5 ------------------------------------------------------------------------------------------

LOCKING = """
import os, sys
import h5py
import numpy as np
import compositeh5 as ch5

path = sys.argv[1]
ch5.Composite(None, x=np.arange(9)).write(path)
# Somebody reads it with plain HDF5, and holds a lock if there are any.
with h5py.File(path) as other:
    with ch5.open(path) as c:
        assert c["x"].sum() == 36
    ch5.Composite(None, x=np.arange(10)).write(path, replace=True)
    assert other["composite/x"].shape == (9,)
with ch5.open(path) as c, h5py.File(path) as other:
    assert c["x"].shape == other["composite/x"].shape == (10,)
"""


@pytest.mark.parametrize("locking", ["TRUE", None])
def test_locks_are_neither_taken_nor_needed(tmp_path: Path, locking: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    if locking is not None:
        environment["HDF5_USE_FILE_LOCKING"] = locking
    script = [sys.executable, "-c", LOCKING, str(tmp_path / "x.h5")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_somebody_edits_is_busy(tmp_path: Path) -> None:
    """HDF5 marks a file that is open for writing; what is in it may change at any time."""
    path = tmp_path / "x.h5"
    ch5.Composite(None, x=np.arange(9)).write(path)
    with h5py.File(path, "r+"), pytest.raises(errors.BusyError, match="x.h5: .*open for writing"):
        ch5.open(path)
    with ch5.open(path) as c:
        assert c["x"].sum() == 36


def test_a_file_that_somebody_edits_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    ch5.Composite(None, x=np.arange(9)).write(path)
    with h5py.File(path, "r+") as other:
        ch5.Composite(None, x=np.arange(10)).write(path, replace=True)
        other.attrs["edited"] = 1
    with ch5.open(path) as c:
        assert c["x"].shape == (10,)
