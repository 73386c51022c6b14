"""The demonstration: what it says must be so, and what it tells people to type must work."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from support import data_file, tool
from terminal import ENVIRONMENT

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.demo import run
from compositeh5.demo.simulate import Camera, make_wcs, simulate_exposure, simulate_visit

if TYPE_CHECKING:
    from compositeh5.demo.report import Report

SIZE = 128
MIDDLE = (SIZE - 1) / 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What a small demonstration found; its folder isn't to be changed."""
    pytest.importorskip("lsst.daf.butler")
    return run(tmp_path_factory.mktemp("a demo") / "repo", detectors=3, size=SIZE)


def section(report: Report, title: str) -> str:
    """Return one section of the text."""
    rest = report.text().partition(f"\n{title}\n")[2].partition("\n")[2]
    return re.split(r"\n\n(?=[^\n]+\n-+\n)|\Z", rest)[0].rstrip("\n")


def files(directory: str | Path, kind: str = "*") -> list[Path]:
    return sorted(Path(directory).glob(f"demo/{kind}/**/*.h5"))


def test_files_are_as_many_and_as_large_as_it_says(small: Report) -> None:
    found = files(small.directory)
    assert sorted(str(path) for path in found) == sorted(small.document()["files"])
    overview = re.match(rf"Made the Butler repository {small.directory} in \d+ s:\n(.*)\.\n", small.text())
    kilobytes = sum(path.stat().st_size for path in found) / 1000
    assert overview[1] == f"7 files, {kilobytes:.1f} kB (1 visit, 3 exposures, 3 catalogs)"


def test_the_butler_finds_everything(small: Report) -> None:
    from lsst.daf.butler import Butler

    butler = Butler.from_config(small.directory, collections="demo", instrument="DemoCam")
    found = {name: butler.query_datasets(name) for name in ("visit_metadata", "calexp", "src")}
    assert {name: len(refs) for name, refs in found.items()} == {"visit_metadata": 1, "calexp": 3, "src": 3}
    (visit,) = butler.query_dimension_records("visit")
    info = butler.get("calexp.visit_info", visit=visit.id, detector=1)
    assert visit.timespan.begin == info["date_begin"]
    assert visit.exposure_time == info["exposure_time"].to_value("s")
    assert info["boresight_altitude"].to_value("deg") == pytest.approx(90 - visit.zenith_angle)
    assert info["boresight_airmass"] == pytest.approx(1 / np.cos(np.radians(visit.zenith_angle)))
    regions = {record.detector: record.region for record in butler.query_dimension_records("visit_detector_region")}
    centre = butler.get("calexp.wcs", visit=visit.id, detector=1).pixel_to_world(MIDDLE, MIDDLE)
    inside = [number for number, region in regions.items() if region.contains(centre.ra.radian, centre.dec.radian)]
    assert inside == [1]
    assert visit.region.contains(centre.ra.radian, centre.dec.radian)


def test_the_visit_is_stored_once_and_linked(small: Report) -> None:
    (visit,) = files(small.directory, "visit_metadata")
    catalogs = files(small.directory, "src")
    for path in (*files(small.directory, "calexp"), *catalogs):
        with ch5.open(path) as composite, ch5.open(visit) as shared:
            link = composite.links["visit_info"]
            assert link.id == shared.id
            assert composite["visit_info"] == shared["visit_info"]
    with ch5.open(catalogs[0]) as catalog:
        assert catalog.links["photo_calib"].dataset_type == "calexp"
        assert catalog["photo_calib"].mean > 0


def test_reads_are_small_where_they_should_be(small: Report) -> None:
    if not os.path.exists("/proc/self/io"):
        assert "can't be counted" in small.text()
        return
    reads = {read.what: read for read in small.reads}
    assert len(reads) == 6
    read = reads["WCS of one detector"]
    assert read.bytes_stored == files(small.directory, "calexp")[0].stat().st_size
    assert 500 < read.bytes_read < 20_000
    # Decoded once: then only what says where the link leads is read from each file.
    linked = reads["its visit_info, through the link"].bytes_read
    assert reads["visit_info of all detectors, decoded once"].bytes_read < 3 * linked
    line = next(line for line in small.text().splitlines() if line.startswith(read.what))
    assert line.split()[-2:] == [f"{100 * read.bytes_read / read.bytes_stored:.2g}", "%"]


def test_sharing_saves_what_it_says(small: Report) -> None:
    sharing = {sharing.component: sharing for sharing in small.sharing}["visit_info"]
    saved = sharing.bytes_copied - sharing.bytes_shared
    assert sharing.users == 6
    assert re.search(rf"^visit_info +6 .* {saved / 1000:.1f} kB$", small.text(), re.MULTILINE)
    # What a copy takes, found in another way: by writing one instead of the link.
    path = files(small.directory, "calexp")[0]
    with ch5.open(path) as exposure:
        bare = exposure.replace({"image": ch5.Image(np.zeros((2, 2))), "mask": None, "variance": None})
        linked = len(bare.file_image(path))
        whole = len(bare.replace({"visit_info": exposure["visit_info"]}).file_image(path))
    assert saved == pytest.approx(6 * (whole - linked) - sharing.bytes_copied / 6, rel=0.1)


def test_the_tree_and_the_summary_are_of_these_files(small: Report) -> None:
    paths = files(small.directory, "calexp")
    with ch5.open(paths[0]) as exposure:
        assert section(small, "One file") == f"{paths[0]}\n{exposure.tree()}"
    rows = [line.split() for line in section(small, "The visit").splitlines()[3:]]
    for path, (detector, ra, dec, zero_point) in zip(paths, rows, strict=True):
        with ch5.open(path) as exposure:
            assert exposure.data_id["detector"] == int(detector)
            centre = exposure["wcs"].pixel_to_world(MIDDLE, MIDDLE)
            assert SkyCoord(float(ra), float(dec), unit="deg").separation(centre) < 0.05 * u.arcsec
            assert exposure["summary_stats"]["zero_point"].value == pytest.approx(float(zero_point), abs=1e-3)


def test_hdf5_tools_follow_the_links(small: Report) -> None:
    listing = tool("h5ls", "-r", "-E", files(small.directory, "calexp")[0])
    assert re.search(r"^/composite/visit_info/exposure_time +Dataset", listing.stdout, re.MULTILINE)


def test_what_it_says_to_type_works(small: Report, tmp_path: Path) -> None:
    commands = section(small, "What to type next")
    if shutil.which("h5ls") is None:
        commands = "\n".join(line for line in commands.splitlines() if not line.startswith("h5ls"))
    # The commands of this environment, installed or not.
    script = tmp_path / "compositeh5"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m compositeh5 "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.run(
        ["sh", "-e", "-c", commands],
        capture_output=True, text=True, check=False, env={**ENVIRONMENT, "PATH": path}, cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "\n    visit_info\n      kind          record\n" in process.stdout
    assert re.search(r"^exposure_time +30\.0 s$", process.stdout, re.MULTILINE)
    assert len(re.findall(r"^calexp +demo ", process.stdout, re.MULTILINE)) == 3
    assert "CTYPE : 'RA---TAN-SIP' 'DEC--TAN-SIP'" in process.stdout
    assert "(image, mask, variance, wcs)" in process.stdout


def test_another_run_replaces_only_what_the_first_made(small: Report, tmp_path: Path) -> None:
    shutil.copytree(small.directory, tmp_path / "demo")
    note = tmp_path / "demo" / "my notes.txt"
    note.write_text("mine")
    again = run(tmp_path / "demo", detectors=1, size=64)
    assert note.read_text() == "mine"
    assert len(files(tmp_path / "demo")) == len(list(again.stored)) == 3


def test_a_folder_with_other_things_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lsst.daf.butler")
    (tmp_path / "butler.yaml").write_text("precious: true")
    assert main(["demo", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["butler.yaml"]
    assert (tmp_path / "butler.yaml").read_text() == "precious: true"


def test_without_the_butler_it_says_what_to_install(tmp_path: Path) -> None:
    # None in sys.modules is how Python says that a module can't be imported.
    code = "import sys\nsys.modules['lsst'] = None\nfrom compositeh5.cli import main\nsys.exit(main(sys.argv[1:]))"
    process = subprocess.run(
        [sys.executable, "-c", code, "demo", str(tmp_path / "demo")],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.returncode == 2
    assert "pip install 'compositeh5[butler]'" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("arguments", [["--detectors", "0"], ["--size", "huge"]])
def test_wrong_numbers_are_refused(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demo", str(tmp_path / "demo"), *arguments])
    assert arguments[0] in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_with_a_fits_file(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler")
    steps: list[tuple[str, int, int]] = []
    source = data_file("exposure-version-2.fits")
    done = run(tmp_path / "demo", fits=[source], progress=lambda *step: steps.append(step))
    assert [step[1:] for step in steps] == [(number, 5) for number in range(6)]
    assert steps[1][0] == f"converting {source}"
    assert "1 visit, 1 exposures, 0 catalogs" in done.text()
    (path,) = files(tmp_path / "demo", "calexp")
    with ch5.open(path) as exposure:
        assert exposure.links.keys() == {"visit_info"}
        assert exposure["filter"].to_dict() == {"band": "N656", "physical": "ha"}
    with pytest.raises(ch5.errors.ConflictError, match="leave one out"):
        run(tmp_path / "demo", fits=[source, source])


def test_simulated_noise_is_what_the_variance_says() -> None:
    exposure, catalog = simulate_exposure(Camera(1, 256), 0, seed=5)
    quiet = ~exposure["mask"].has("DETECTED", "CR", "BAD", "SAT")
    pull = exposure["image"].array[quiet] / np.sqrt(exposure["variance"].array[quiet])
    # The wings of stars add a little.
    assert pull.std() == pytest.approx(1, abs=0.15)
    assert np.median(pull) == pytest.approx(0, abs=0.1)
    assert exposure["image"].dtype == np.float32
    np.testing.assert_allclose(exposure["psf"].kernels.sum(axis=(1, 2)), 1)
    ra, dec = exposure["wcs"].all_pix2world(catalog["x"].value, catalog["y"].value, 0)
    np.testing.assert_allclose(catalog["ra"].value, ra, atol=1e-9)
    np.testing.assert_allclose(catalog["dec"].value, dec, atol=1e-9)


def test_the_same_seed_gives_the_same_visit() -> None:
    camera = Camera(2, 64)
    same, again, other = (simulate_exposure(camera, 1, seed)[0] for seed in (1, 1, 2))
    assert same.digest == again.digest != other.digest
    assert simulate_visit(camera).digest == simulate_visit(camera).digest


def test_detectors_stand_around_the_boresight() -> None:
    camera = Camera(9, 1024)
    centres = SkyCoord([make_wcs(camera, detector).pixel_to_world(511.5, 511.5) for detector in range(9)])
    boresight = simulate_visit(camera)["visit_info"]["boresight"]
    distances = centres.separation(boresight).to_value("arcsec")
    assert distances[4] < 0.01
    pitch = 0.2 * (1024 + 60)
    np.testing.assert_allclose(np.delete(distances, 4).min(), pitch, rtol=1e-3)
    np.testing.assert_allclose(distances.max(), pitch * np.sqrt(2), rtol=1e-3)
