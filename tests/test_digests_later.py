"""Digests of large components are made while these are being written, by another thread."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.table import QTable

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.storage.threads import WORTHWHILE_BYTES
from compositeh5.trees.verify import verify

SIDE = 1100
ID = "7280c70e-0000-5000-8000-000000000000"


def large(value: int = 0, id: str | None = None) -> ch5.Composite:
    pixels = np.random.default_rng(value).normal(0, 23, (SIDE, SIDE)).astype("f4")
    assert pixels.nbytes > WORTHWHILE_BYTES
    table = QTable({f"c{i}": np.arange(200_000) + i for i in range(3)})
    composite = ch5.Composite(
        None, image=ch5.Image(pixels), mask=ch5.Mask(np.zeros((SIDE, SIDE), "i4")), table=table, small={"a": 1}
    )
    return composite if id is None else composite.replace(id=id)


@pytest.mark.parametrize(("recipe", "id"), [("lossless", None), ("raw", ID), ("quantized", None)])
def test_files_are_the_same_by_one_thread_and_by_two_and_in_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, id: str | None
) -> None:
    found = set()
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        given = large(id=id)
        given.write(tmp_path / f"{threads}.h5", recipes={"image": recipe})
        with ch5.open(tmp_path / f"{threads}.h5") as stored:
            verify(stored)
            assert stored.id == given.id == (id or stored.id)
            assert stored.recorded_digest == given.digest
            for name in given:
                assert stored.link(name).digest == given.link(name).digest == given.component_digest(name)
            # Here all digests are known before.
            stored.write(tmp_path / "copy.h5", replace=True)
        found |= {(tmp_path / name).read_bytes() for name in (f"{threads}.h5", "copy.h5")}
    assert len(found) == 1


def test_what_stands_there_is_compared(tmp_path: Path) -> None:
    large(1).write(tmp_path / "a.h5")
    again = large(1)
    again.write(tmp_path / "a.h5")
    with ch5.open(tmp_path / "a.h5") as stored:
        assert again.id == stored.id
    other = large(2)
    with pytest.raises(errors.ConflictError, match=r"a\.h5"):
        other.write(tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_what_the_digest_can_not_read_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    large().write(tmp_path / "bad.h5")
    with ch5.open(tmp_path / "bad.h5") as stored:
        offset, size = list(stored.part("image").open_node()[0].extents())[-1]
    data = bytearray((tmp_path / "bad.h5").read_bytes())
    data[offset + size - 1] ^= 1
    (tmp_path / "bad.h5").write_bytes(data)
    with ch5.open(tmp_path / "bad.h5") as stored, pytest.raises(errors.CorruptFileError, match="damaged"):
        stored.write(tmp_path / "new.h5", recipes={"image": "quantized"})
    assert [path.name for path in tmp_path.iterdir()] == ["bad.h5"]


def test_at_the_end_of_the_interpreter_when_no_thread_can_be_started_it_is_done_without(tmp_path: Path) -> None:
    large().write(tmp_path / "a.h5")
    code = """
import atexit, sys
import compositeh5 as ch5

@atexit.register
def copy():
    with ch5.open(sys.argv[1]) as c:
        new = ch5.Composite(None, {name: c[name] for name in c})
    new.write(sys.argv[2])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.h5"), str(tmp_path / "b.h5")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with ch5.open(tmp_path / "a.h5") as old, ch5.open(tmp_path / "b.h5") as new:
        verify(new)
        assert {name: new.component_digest(name) for name in new} == {name: old.component_digest(name) for name in old}


@pytest.mark.parametrize("threads", ["1", "2"])
def test_what_was_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for number in range(3):
            large(number).write(tmp_path / f"{number}.h5")
        assert tracemalloc.get_traced_memory()[0] < WORTHWHILE_BYTES
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize(("recipe", "size"), [("lossless", 500_000), ("quantized", 100_000)])
def test_a_full_disk_ends_the_threads_and_leaves_nothing(tmp_path: Path, recipe: str, size: int) -> None:
    code = """
import errno, os, resource, signal, sys, threading
import compositeh5 as ch5
from test_digests_later import large

given = large()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    given.write(sys.argv[1], recipes={"image": sys.argv[2]})
except ch5.errors.NoSpaceError as error:
    print(errno.errorcode[error.errno])
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30)
print(threading.active_count())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
given.write(sys.argv[1], recipes={"image": sys.argv[2]})
"""
    path = tmp_path / "a" / "x.h5"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), recipe, str(size)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["EFBIG", "1"]
    assert [each.name for each in path.parent.iterdir()] == ["x.h5"]
    with ch5.open(path) as stored:
        verify(stored)


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("recipe", ["lossless", "raw"])
def test_damage_is_found_by_the_threads_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, threads: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    path = tmp_path / "x.h5"
    large().write(path, recipes={"image": recipe})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = threading.active_count()
    with ch5.open(path) as damaged, pytest.raises(errors.CorruptFileError, match="image.*damaged"):
        damaged["image"]
    assert threading.active_count() == before
