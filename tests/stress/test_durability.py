"""What is forced to the disk before a call returns: contents, and the names that lead to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

import compositeh5 as ch5
from compositeh5.fits import convert_files
from compositeh5.storage import publish


def _composite(value: int = 1) -> ch5.Composite:
    return ch5.Composite(None, image=np.full((90, 90), value, "f4"), data_id={"visit": 1})


@contextmanager
def forced(monkeypatch: pytest.MonkeyPatch, number: int = 0) -> Iterator[list[str]]:
    """List what is forced to the disk, as by a new process; with an `errno`, for folders that fails."""
    paths: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if number and os.path.isdir(path):
            raise OSError(number, os.strerror(number))
        fsync(fd)
        paths.append(path)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("/proc/self/fd is needed to see which files are forced to the disk")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted)
        yield paths


def test_the_names_of_new_folders_are_forced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "visit" / "x.h5"
    with forced(monkeypatch) as paths:
        _composite().write(path)
        above = [str(tmp_path / "run" / "visit"), str(tmp_path / "run"), str(tmp_path)]
        assert paths[0].startswith(f"{above[0]}/.x.h5.")
        assert paths[1:4] == above
        # What this process has done once, it doesn't again.
        _composite(2).write(path, replace=True)
        assert len(paths[paths.index(above[0]) + 1 :]) >= 4
        assert paths[-1] == above[0]
        count = len(paths)
        _composite(2).write(tmp_path / "run" / "other" / "x.h5")
        assert str(tmp_path / "run") in paths[count:]


def test_who_finds_an_equal_file_forces_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _composite().write(tmp_path / "x.h5")
    with forced(monkeypatch) as paths:
        _composite().write(tmp_path / "x.h5")
        assert str(tmp_path) in paths


def test_what_a_killed_conversion_has_finished_is_forced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "a.fits", tmp_path / "out"
    fits.PrimaryHDU(np.ones((5, 5))).writeto(source)
    convert_files([source], out)
    stale = out / ".a.h5.0123456789abcdef.tmp"
    stale.touch()
    os.utime(stale, (0, 0))
    # As another process would.
    monkeypatch.setattr(publish, "STALE_SECONDS", 0)
    with forced(monkeypatch) as paths:
        assert [each.status for each in convert_files([source], out)] == ["unchanged"]
        assert str(out) in paths
    assert not stale.exists()


def test_file_systems_without_fsync_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with forced(monkeypatch, errno.EINVAL) as paths:
        _composite().write(tmp_path / "x.h5")
        assert len(paths) == 1
    with forced(monkeypatch, errno.EIO), pytest.raises(OSError) as caught:
        _composite(2).write(tmp_path / "x.h5", replace=True)
    assert caught.value.errno == errno.EIO


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise here")
@pytest.mark.parametrize("works", [True, False])
def test_large_files_begin_to_reach_the_disk_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    advise, begun = os.posix_fadvise, []

    def noted(fd: int, offset: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        assert offset + size <= os.fstat(fd).st_size
        begun.append((offset, offset + size))
        if not works:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        advise(fd, offset, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", noted)
    pixels = np.random.default_rng(1).normal(size=(1500, 2000)).astype("f4")
    with forced(monkeypatch) as paths:
        ch5.Composite(None, image=pixels).write(tmp_path / "x.h5", recipes={"image": "raw"})
        # It is nonetheless waited for.
        assert paths[0].startswith(f"{tmp_path}/.x.h5.")
    assert [start for start, _ in begun] == [0, *(end for _, end in begun[:-1])]
    assert 0 < pixels.nbytes - begun[-1][1] < publish.AHEAD_BYTES
    with ch5.open(tmp_path / "x.h5") as c:
        np.testing.assert_array_equal(c["image"], pixels)


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    from butler_support import RUN, create_repo
    from lsst.daf.butler import Butler

    from compositeh5.butler import register_dataset_type

    root = tmp_path_factory.mktemp("durable") / "repo"
    create_repo(root)
    butler = Butler.from_config(str(root), run=RUN)
    register_dataset_type(butler, "calexp", "exposure")
    return butler


def test_a_put_forces_the_file_and_all_names(butler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from support import exposure

    with forced(monkeypatch) as paths:
        ref = butler.put(exposure((30, 40)), "calexp", instrument="DemoCam", visit=903334, detector=1)
    path = Path(butler.getURI(ref).ospath)
    root = Path(butler._config.configDir.ospath)
    above = [str(folder) for folder in path.parents if folder.is_relative_to(root)]
    assert len(above) >= 4
    assert paths[0].startswith(f"{path.parent}/.{path.name}.")
    assert paths[1 : 1 + len(above)] == above


def test_a_put_whose_name_cannot_be_kept_is_undone(butler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from support import exposure

    data_id = {"instrument": "DemoCam", "visit": 903334, "detector": 2}
    with forced(monkeypatch, errno.EIO), pytest.raises(RuntimeError) as caught:
        butler.put(exposure((30, 40)), "calexp", data_id)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO
    assert not butler.query_datasets("calexp", where="detector = 2", **data_id, explain=False)
    root = Path(butler._config.configDir.ospath)
    assert not [path for path in root.rglob("*") if path.name.endswith((".tmp", "_R22_S02.h5"))]
    butler.put(exposure((30, 40)), "calexp", data_id)


def test_leftovers_of_the_dead_are_swept_and_nothing_else(tmp_path: Path) -> None:
    stale = tmp_path / ".x.h5.0123456789abcdef.tmp"
    young = tmp_path / ".x.h5.fedcba9876543210.tmp"
    others = [tmp_path / ".x.tmp", tmp_path / "x.h5.0123456789abcdef.tmp", tmp_path / ".y.0123456789ABCDEF.tmp"]
    target = tmp_path / "target"
    for path in (stale, young, target, *others):
        path.write_bytes(b"?")
    link = tmp_path / ".z.0123456789abcdef.tmp"
    link.symlink_to(target)
    for path in (stale, target, *others):
        os.utime(path, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    _composite().write(tmp_path / "x.h5")
    assert not stale.exists()
    assert all(path.exists() for path in (young, target, link, *others))
