"""Converting directories: many files at once, again after an interruption, and without harm to what is there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from fits_samples import AFW2, PHOTO_CALIB, VISIT_INFO
from support import data_file

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.errors import ConflictError
from compositeh5.fits import Conversion, convert_files

FILES = [AFW2, PHOTO_CALIB, VISIT_INFO]


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Make a directory with FITS files, in directories of their own, and other files."""
    root = tmp_path / "night"
    for number, name in enumerate(FILES):
        (root / f"ccd_{number}").mkdir(parents=True)
        shutil.copy(data_file(name), root / f"ccd_{number}" / name)
    fits.PrimaryHDU(np.ones((5, 5))).writeto(root / "flat.fits")
    (root / "log.txt").write_text("clear")
    (root / "empty.fits").touch()
    return root


def statuses(done: list[Conversion]) -> dict[str, int]:
    return dict(Counter(conversion.status for conversion in done))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_directory_there_and_back(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(night), str(tmp_path / "h5")]) == 0
    assert capsys.readouterr().out == "4 converted, 0 unchanged, 0 failed\n"
    names = {f"ccd_{number}/{Path(name).stem}.h5" for number, name in enumerate(FILES)} | {"flat.h5"}
    assert set(files(tmp_path / "h5")) == names
    assert main(["convert", "--to", "fits", str(tmp_path / "h5"), str(tmp_path / "back")]) == 0
    original = files(night)
    del original["log.txt"], original["empty.fits"]
    assert files(tmp_path / "back") == original


def test_processes_give_the_same_files_in_the_same_order(night: Path, tmp_path: Path, processes: Executor) -> None:
    here = convert_files([night], tmp_path / "one")
    shown = []
    there = convert_files([night], tmp_path / "two", executor=processes, progress=lambda *step: shown.append(step))
    assert [conversion.source for conversion in there] == [conversion.source for conversion in here]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert shown[-1] == ("converting", 4, 4)


def test_what_was_done_is_not_done_again(night: Path, tmp_path: Path) -> None:
    target = tmp_path / "h5"
    assert statuses(convert_files([night], target)) == {"converted": 4}
    (target / "flat.h5").unlink()
    before = {path: path.stat() for path in target.rglob("*.h5")}
    assert statuses(convert_files([night], target)) == {"unchanged": 3, "converted": 1}
    for path, stat in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    back = tmp_path / "back"
    assert statuses(convert_files([target], back, to="fits")) == {"converted": 4}
    assert statuses(convert_files([target], back, to="fits")) == {"unchanged": 4}


def test_other_files_in_the_way_are_left_as_they_are(
    night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "h5"
    convert_files([night], target)
    (night / "flat.fits").unlink()
    fits.PrimaryHDU(np.zeros((5, 5))).writeto(night / "flat.fits")
    (target / "ccd_0" / "exposure-version-2.h5").write_bytes(b"mine")
    before = files(target)
    assert main(["convert", str(night), str(target), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    failed = {Path(entry["source"]).name: entry["message"] for entry in report if entry["status"] == "failed"}
    assert failed.keys() == {"flat.fits", "exposure-version-2.fits"}
    assert all("not written" in message for message in failed.values())
    assert files(target) == before
    assert statuses(convert_files([night], target, replace=True)) == {"converted": 4}
    with ch5.open(target / "flat.h5") as composite:
        assert not composite["image"].array.any()


def test_damaged_files_do_not_stop_the_others(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = night / "ccd_1" / FILES[1]
    path.write_bytes(path.read_bytes()[:-2880])
    assert main(["convert", str(night), str(tmp_path / "h5")]) == 2
    out = capsys.readouterr().out
    assert out.endswith("3 converted, 0 unchanged, 1 failed\n")
    assert "truncated" in out
    assert str(path) in out
    assert not list((tmp_path / "h5").glob("ccd_1/*"))


def test_two_files_for_one_name_are_refused_before_anything_is_done(night: Path, tmp_path: Path) -> None:
    shutil.copy(night / "flat.fits", night / "flat.fit")
    with pytest.raises(ConflictError, match="both be converted to"):
        convert_files([night], tmp_path / "h5")
    assert not (tmp_path / "h5").exists()


def test_single_files(night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat, target = str(night / "flat.fits"), tmp_path / "h5"
    assert main(["convert", flat, str(tmp_path / "flat.h5"), "--json"]) == 0
    entry = {"source": flat, "target": str(tmp_path / "flat.h5"), "status": "converted", "message": ""}
    assert json.loads(capsys.readouterr().out) == [entry]
    assert main(["convert", flat, str(night / "ccd_2" / FILES[2]), str(target)]) == 0
    assert set(files(target)) == {"flat.h5", "visitInfo-version-5.h5"}
    for more in ([], [flat]):
        assert main(["convert", str(tmp_path / "none"), *more, str(tmp_path / "out")]) == 2
        assert str(tmp_path / "none") in capsys.readouterr().err
