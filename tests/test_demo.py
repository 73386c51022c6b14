"""The demonstration: what it says must be so, and what it tells people to type must work."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from support import data_file, tool
from terminal import compositeh5_shows

import compositeh5 as ch5
from compositeh5.demo import run
from compositeh5.demo.simulate import Camera, make_wcs, simulate_exposure, simulate_visit

HERE = Path(ch5.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE)}
COMMAND = [sys.executable, "-m", "compositeh5", "demo"]
SMALL = ["--detectors", "3", "--size", "256"]


def demo(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a small demonstration, and what it printed on both outputs."""
    pytest.importorskip("lsst.daf.butler")
    directory = tmp_path_factory.mktemp("a demo") / "repo"
    process = demo(directory, *SMALL)
    assert process.returncode == 0, process.stderr
    return directory, process.stdout, process.stderr


def section(text: str, title: str) -> str:
    """Return one section of what was printed."""
    return re.split(r"\n\n(?=[^\n]+\n-+\n)|\Z", text.partition(f"\n{title}\n")[2].partition("\n")[2])[0].rstrip("\n")


def size_of(text: str) -> float:
    """Return the number of bytes that was printed for people."""
    number, unit = text.split()
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]


def files(directory: Path, kind: str = "*") -> list[Path]:
    return sorted(directory.glob(f"demo/{kind}/**/*.h5"))


def test_files_are_as_many_and_as_large_as_it_says(small: tuple[Path, str, str]) -> None:
    directory, out, _ = small
    found = files(directory)
    assert f"Made the Butler repository {directory} in " in out
    count, size = re.search(r"(\d+) files, ([\d.]+ [kM]?B) \(1 visit, 3 exposures, 3 catalogs\)", out).groups()
    assert int(count) == len(found) == 7
    assert size_of(size) == pytest.approx(sum(path.stat().st_size for path in found), rel=0.05)


def test_nothing_is_said_on_the_way_where_there_is_no_terminal(small: tuple[Path, str, str]) -> None:
    assert small[2] == ""


def test_the_butler_finds_everything(small: tuple[Path, str, str]) -> None:
    from lsst.daf.butler import Butler

    butler = Butler.from_config(str(small[0]), collections="demo", instrument="DemoCam")
    found = {name: butler.query_datasets(name) for name in ("visit_metadata", "calexp", "src")}
    assert {name: len(refs) for name, refs in found.items()} == {"visit_metadata": 1, "calexp": 3, "src": 3}
    (visit,) = butler.query_dimension_records("visit")
    info = butler.get("calexp.visit_info", visit=visit.id, detector=1)
    assert visit.timespan.begin == info["date_begin"]
    assert visit.exposure_time == info["exposure_time"].to_value("s")
    assert info["boresight_altitude"].to_value("deg") == pytest.approx(90 - visit.zenith_angle)
    assert info["boresight_airmass"] == pytest.approx(1 / np.cos(np.radians(visit.zenith_angle)))
    regions = {record.detector: record.region for record in butler.query_dimension_records("visit_detector_region")}
    centre = butler.get("calexp.wcs", visit=visit.id, detector=1).pixel_to_world(127.5, 127.5)
    inside = [number for number, region in regions.items() if region.contains(centre.ra.radian, centre.dec.radian)]
    assert inside == [1]
    assert visit.region.contains(centre.ra.radian, centre.dec.radian)


def test_the_visit_is_stored_once_and_linked(small: tuple[Path, str, str]) -> None:
    directory, _, _ = small
    (visit,) = files(directory, "visit_metadata")
    for path in (*files(directory, "calexp"), *files(directory, "src")):
        with ch5.open(path) as composite, ch5.open(visit) as shared:
            link = composite.links["visit_info"]
            assert link.id == shared.id
            assert composite["visit_info"] == shared["visit_info"]
    (path, *_) = files(directory, "src")
    with ch5.open(path) as catalog:
        assert catalog.links["photo_calib"].dataset_type == "calexp"
        assert catalog["photo_calib"].mean > 0


def test_reads_are_small_where_they_should_be(small: tuple[Path, str, str]) -> None:
    directory, out, _ = small
    path = files(directory, "calexp")[0]
    text = section(out, "What was read, and the size of the files it is in")
    if not os.path.exists("/proc/self/io"):
        assert "can't be counted" in text
        return
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines()[1:]]
    reads = {what: (size_of(read), size_of(stored), share) for what, read, stored, share in rows}
    read, stored, _ = reads["WCS of one detector"]
    assert stored == pytest.approx(path.stat().st_size, rel=0.05)
    assert 500 < read < 20_000
    # Decoded once: then only what says where the link leads is read from each file.
    assert reads["visit_info of all detectors, decoded once"][0] < 3 * reads["its visit_info, through the link"][0]
    assert len(reads) == 6
    assert all(float(share.removesuffix(" %")) == pytest.approx(100 * a / b, rel=0.1) for a, b, share in reads.values())


def test_sharing_saves_what_it_says(small: tuple[Path, str, str]) -> None:
    directory, out, _ = small
    rows = [re.split(r"\s{2,}", line) for line in section(out, "What sharing saves").splitlines()[1:4]]
    savings = {name: (int(users), *map(size_of, sizes)) for name, users, *sizes in rows}
    users, copied, shared, saved = savings["visit_info"]
    assert users == 6
    assert saved == pytest.approx(copied - shared, abs=200)
    # What a copy takes, found in another way: by writing one instead of the link.
    path = files(directory, "calexp")[0]
    with ch5.open(path) as exposure:
        bare = exposure.replace({"image": ch5.Image(np.zeros((2, 2))), "mask": None, "variance": None})
        linked = len(bare.file_image(path))
        whole = len(bare.replace({"visit_info": exposure["visit_info"]}).file_image(path))
    assert saved == pytest.approx(users * (whole - linked) - copied / users, rel=0.1)


def test_the_tree_and_the_summary_are_of_these_files(small: tuple[Path, str, str]) -> None:
    directory, out, _ = small
    path = files(directory, "calexp")[0]
    with ch5.open(path) as exposure:
        assert section(out, "One file") == f"{path}\n{exposure.tree()}"
    rows = [line.split() for line in section(out, "The visit").splitlines()[3:]]
    for path, (detector, ra, dec, zero_point) in zip(files(directory, "calexp"), rows, strict=True):
        with ch5.open(path) as exposure:
            assert exposure.data_id["detector"] == int(detector)
            centre = exposure["wcs"].pixel_to_world(127.5, 127.5)
            assert SkyCoord(float(ra), float(dec), unit="deg").separation(centre) < 0.05 * u.arcsec
            assert exposure["summary_stats"]["zero_point"].value == pytest.approx(float(zero_point), abs=1e-3)


def test_hdf5_tools_follow_the_links(small: tuple[Path, str, str]) -> None:
    listing = tool("h5ls", "-r", "-E", files(small[0], "calexp")[0])
    assert re.search(r"^/composite/visit_info/exposure_time +Dataset", listing.stdout, re.MULTILINE)


def test_what_it_says_to_type_works(small: tuple[Path, str, str], tmp_path: Path) -> None:
    commands = section(small[1], "What to type next")
    if shutil.which("h5ls") is None:
        commands = "\n".join(line for line in commands.splitlines() if not line.startswith("h5ls"))
    # The commands of this environment, installed or not.
    script = tmp_path / "compositeh5"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m compositeh5 "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.run(
        ["sh", "-e", "-c", commands],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**ENVIRONMENT, "PATH": path},
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    assert "\n    visit_info\n      kind          record\n" in process.stdout
    assert re.search(r"^exposure_time +30\.0 s$", process.stdout, re.MULTILINE)
    assert len(re.findall(r"^calexp +demo ", process.stdout, re.MULTILINE)) == 3
    assert "CTYPE : 'RA---TAN-SIP' 'DEC--TAN-SIP'" in process.stdout
    assert "(image, mask, variance, wcs)" in process.stdout


def test_another_run_replaces_only_what_the_first_made(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler")
    run(tmp_path / "demo", detectors=1, size=64)
    (first,) = files(tmp_path / "demo", "calexp")
    with ch5.open(first) as exposure:
        before = {name: exposure.component_digest(name) for name in exposure}
    note = tmp_path / "demo" / "my notes.txt"
    note.write_text("mine")
    run(tmp_path / "demo", detectors=1, size=64)
    assert note.read_text() == "mine"
    (second,) = files(tmp_path / "demo", "calexp")
    with ch5.open(second) as exposure:
        assert {name: exposure.component_digest(name) for name in exposure} == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler")
    (tmp_path / "butler.yaml").write_text("precious: true")
    process = demo(tmp_path, *SMALL)
    assert process.returncode == 2
    assert process.stdout == ""
    assert "compositeh5: error: " in process.stderr
    assert "not empty" in process.stderr
    assert "Traceback" not in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["butler.yaml"]
    assert (tmp_path / "butler.yaml").read_text() == "precious: true"


def test_without_the_butler_it_says_what_to_install(tmp_path: Path) -> None:
    # None in sys.modules is how Python says that a module can't be imported.
    code = "import sys\nsys.modules['lsst'] = None\nfrom compositeh5.cli import main\nsys.exit(main(sys.argv[1:]))"
    process = subprocess.run(
        [sys.executable, "-c", code, "demo", str(tmp_path / "demo")],
        capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.returncode == 2
    assert "pip install 'compositeh5[butler]'" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("arguments", [["--detectors", "0"], ["--size", "huge"]])
def test_wrong_numbers_are_refused(arguments: list[str], tmp_path: Path) -> None:
    process = demo(tmp_path / "demo", *arguments)
    assert process.returncode == 2
    assert arguments[0] in process.stderr
    assert not (tmp_path / "demo").exists()


def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("lsst.daf.butler")
    with open(tmp_path / "out.txt", "w") as out:
        shown = compositeh5_shows("demo", tmp_path / "demo", "--detectors", "2", "--size", "64", stdout=out.fileno())
    assert shown.code == 0
    assert "━" in shown.text
    assert "simulating detector S01" in shown.text
    assert re.search(r"6/6 \S+(/s| s each) +\d:\d\d:\d\d", shown.text)
    # What it found is on the standard output, without any of that.
    assert "\x1b" not in (tmp_path / "out.txt").read_text()
    assert "What to type next" in (tmp_path / "out.txt").read_text()


def test_with_a_fits_file(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler")
    source = data_file("exposure-version-2.fits")
    process = demo(tmp_path / "demo", "--fits", source)
    assert process.returncode == 0, process.stderr
    assert "1 visit, 1 exposures, 0 catalogs" in process.stdout
    (path,) = files(tmp_path / "demo", "calexp")
    with ch5.open(path) as exposure:
        assert exposure.links.keys() == {"visit_info"}
        assert exposure["filter"].to_dict() == {"band": "N656", "physical": "ha"}
    process = demo(tmp_path / "twice", "--fits", source, source)
    assert process.returncode == 2
    assert "leave one out" in process.stderr


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
