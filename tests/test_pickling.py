"""A composite pickles as where it is, its id and its digest; processes and threads read it at once."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compositeh5 as ch5
from compositeh5.dask import to_dask
from compositeh5.errors import ClosedError, DigestMismatchError, EncodeError, WrongIdError

COMPONENTS = ("image", "mask", "psf", "visit_info")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pickling")
    visit = ch5.Composite("visit", visit_info={"visit": 7, "note": "clear"}, data_id={"visit": 7})
    visit.write(folder / "visit.h5")
    make(visit.link("visit_info"), 1).write(folder / "calexp.h5")
    return folder


def make(link: ch5.Link, seed: int) -> ch5.Composite:
    rng = np.random.default_rng(seed)
    return ch5.Composite(
        "exposure",
        image=ch5.Image(rng.normal(0, 23, (700, 600)).astype("f4"), (100, 200), "nJy"),
        mask=ch5.Mask(rng.integers(0, 2, (700, 600)).astype(np.int32), {"BAD": 0}),
        psf=ch5.Psf.constant(np.ones((5, 5)) / 25),
        photo_calib=ch5.PhotoCalib(2.5, 0.01),
        visit_info=link,
        data_id={"visit": 7, "detector": 1},
        stage="single_frame",
    )


def content(composite: ch5.Composite) -> list[str]:
    """Return something that tells each value."""
    image, mask, psf, info = (composite[name] for name in COMPONENTS)
    return [str(image.array.sum(dtype="f8")), str(mask.array.sum()), repr(psf), repr(info)]


def content_and_file(composite: ch5.Composite) -> tuple[list[str], Any]:
    with composite:
        return content(composite), os.getpid()


def test_the_copy_opens_the_file_when_it_is_used_and_keeps_all_options(tree: Path) -> None:
    limits = ch5.Limits(depth=9)
    with ch5.open(tree / "calexp.h5", limits=limits, anywhere=True) as c:
        data, wanted, data_id = pickle.dumps(c), content(c), c.data_id
    assert len(data) < 2000
    open_files = len(os.listdir("/proc/self/fd"))
    copy = pickle.loads(data)
    assert len(os.listdir("/proc/self/fd")) == open_files, "nothing is opened yet"
    with copy:
        assert content(copy) == wanted
        assert (copy.location, copy.data_id, copy.stage) == (str(tree / "calexp.h5"), data_id, "single_frame")
        assert (copy.session.anywhere, copy.session.limits) == (True, limits)
        assert content(pickle.loads(pickle.dumps(copy))) == wanted
    assert len(os.listdir("/proc/self/fd")) == open_files
    with pytest.raises(ClosedError):
        copy["image"]
    unused = pickle.loads(data)
    unused.close()
    with pytest.raises(ClosedError):
        unused["image"]


def test_it_is_refused_if_the_file_is_another_by_then(tree: Path, tmp_path: Path) -> None:
    with ch5.open(tree / "calexp.h5") as c:
        link, id_ = c.links["visit_info"], c.id
    path = tmp_path / "c.h5"
    make(link, 1).replace(id=id_).write(path)
    with ch5.open(path) as c:
        data = pickle.dumps(c)
    make(link, 2).replace(id=id_).write(path, replace=True)
    with pytest.raises(DigestMismatchError, match=r"c\.h5.*has changed"):
        pickle.loads(data)["image"]
    make(link, 2).write(path, replace=True)
    with pytest.raises(WrongIdError):
        pickle.loads(data)["image"]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(data)["image"]


def test_the_stage_that_was_asked_for_is_kept(tree: Path) -> None:
    with ch5.open(tree / "calexp.h5", stage="jointcal", fallback="single_frame") as c:
        data, fallbacks = pickle.dumps(c), c.fallbacks
        assert set(fallbacks.values()) == {"single_frame"}
    with pickle.loads(data) as copy:
        assert copy.fallbacks == fallbacks


def test_a_version_that_was_chosen_is_kept(tree: Path, tmp_path: Path) -> None:
    with ch5.open(tree / "calexp.h5") as c:
        c.overlay(psf=ch5.Psf.constant(np.ones((3, 3)) / 9), keep=["psf"], stage="piff").write(tmp_path / "o.h5")
    with ch5.open(tmp_path / "o.h5") as o:
        chosen = o.require_stage("single_frame", ["psf"])
        assert chosen is not o
        with pytest.raises(EncodeError, match=r"write\(\) it"):
            pickle.dumps(chosen)


def test_what_is_in_memory_is_pickled_by_value(tree: Path) -> None:
    with ch5.open(tree / "calexp.h5") as c:
        wanted, loaded = content(c), c.load()
        changed = c.replace({"mask": None})
        with pytest.raises(EncodeError, match=r"calexp\.h5:/composite.*write\(\) it"):
            pickle.dumps(changed)
    copy = pickle.loads(pickle.dumps(loaded))
    assert content(copy) == wanted
    assert copy.digest == loaded.digest
    in_memory = make(c.links["visit_info"], 1)
    assert content(pickle.loads(pickle.dumps(in_memory))) == wanted


def test_a_file_object_is_not_pickled(tree: Path) -> None:
    with (
        ch5.open(io.BytesIO((tree / "calexp.h5").read_bytes()), location=tree / "calexp.h5") as c,
        pytest.raises(EncodeError, match=r"load\(\)"),
    ):
        pickle.dumps(c)


def test_a_composite_within_one_is_pickled_by_value(tree: Path, tmp_path: Path) -> None:
    inner = ch5.Composite(None, {"text": "inside"})
    ch5.Composite(None, {"inner": inner}).write(tmp_path / "outer.h5")
    with ch5.open(tmp_path / "outer.h5") as outer:
        found = pickle.loads(pickle.dumps(outer["inner"]))
        with pytest.raises(EncodeError, match=r"outer\.h5:/composite/inner: .*load\(\)"):
            pickle.dumps(outer.part("inner"))
    assert found["text"] == "inside"


def test_threads_open_a_pickled_one_once(tree: Path) -> None:
    with ch5.open(tree / "calexp.h5") as c:
        data, wanted = pickle.dumps(c), content(c)
    open_files = len(os.listdir("/proc/self/fd"))
    with pickle.loads(data) as copy, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(content, [copy] * 8)) == [wanted] * 8
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_forked_process_reads_on_and_the_parent_too(tree: Path) -> None:
    with ch5.open(tree / "calexp.h5") as c:
        wanted = content(c)
        children = []
        for _ in range(2):
            readable, writable = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    found = content(c)
                    c.close()
                    os.write(writable, "\n".join(found).encode())
                finally:
                    os._exit(0)
            os.close(writable)
            children.append((child, readable))
        # All at once.
        assert content(c) == wanted
        for child, readable in children:
            with open(readable) as pipe:
                assert pipe.read().splitlines() == wanted
            os.waitpid(child, 0)
        assert content(c) == wanted


def test_workers_get_it_by_pickling(tree: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ch5.open(tree / "calexp.h5") as c, ProcessPoolExecutor(2, mp_context=context) as pool:
        wanted = content(c)
        for found, pid in pool.map(content_and_file, [c] * 4):
            assert found == wanted
            assert pid != os.getpid()


def test_a_dask_array_opens_what_it_was_made_of(tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("dask.array")
    with ch5.open(tree / "calexp.h5") as c:
        link = c.links["visit_info"]
    make(link, 1).replace(id="6d2c1a52-1f0e-4c57-9a3b-3d0c3f3f1a11").write(tmp_path / "c.h5")
    with ch5.open(tmp_path / "c.h5") as c:
        array, total = to_dask(c, "image"), c["image"].array.sum(dtype="f8")
    assert array.sum(dtype="f8").compute(scheduler="synchronous") == pytest.approx(total)
    make(link, 2).replace(id="6d2c1a52-1f0e-4c57-9a3b-3d0c3f3f1a11").write(tmp_path / "c.h5", replace=True)
    with pytest.raises(DigestMismatchError):
        array.sum().compute(scheduler="synchronous")
