"""One story among files, from the first exposures to the deletion of what nobody needs; test_butler_story.py has it in
the Butler."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from astropy.table import QTable
from astropy.wcs import WCS
from support import data_file

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.demo.simulate import Camera, simulate_exposure, simulate_visit
from compositeh5.fits.conversion import read_exposure
from compositeh5.trees import prune, remove, subset, verify_files
from compositeh5.trees.verify import Problem

CAMERA = Camera(7, 64)
TRACTS = {9812: range(1, 4), 9813: range(3, 6)}
"""The detectors that each tract covers: 3 is in both, 0 and 6 are in none."""

Name = tuple[str, int]
"""Instrument and detector."""


@dataclass
class Story:
    """Who takes part, and where."""

    observatory: Path
    """A tree of visits, exposures (calexp), overlays (jointcal) and catalogues (src)."""
    catalogs: Path
    """A tree of only the catalogues."""
    colleague: Path
    """What someone has who sees nothing of the other trees."""
    exposures: dict[Name, ch5.Composite]
    tables: dict[Name, QTable]
    sent: Name
    """The one that the colleague gets. It is in the second tract, and has no catalogue."""
    overlays: dict[tuple[int, Name], Path] = field(default_factory=dict)

    def calexp(self, name: Name) -> Path:
        return self.observatory / "calexp" / "{}_{}.h5".format(*name)

    def visit(self, name: Name) -> Path:
        return self.observatory / "visit" / f"visit_{self.exposures[name].data_id['visit']}.h5"

    def members(self, tract: int) -> list[Name]:
        covered = [("DemoCam", detector) for detector in TRACTS[tract]]
        return [*covered, self.sent] if tract == 9813 and self.sent not in covered else covered


@pytest.fixture(params=["simulated", "real"])
def story(request: pytest.FixtureRequest, tmp_path: Path) -> Story:
    """Exposures of a simulated visit of seven detectors; and maybe a real one, which is then the one that is sent."""
    current().clear_cache()
    visit = simulate_visit(CAMERA)
    exposures: dict[Name, ch5.Composite] = {}
    tables: dict[Name, QTable] = {}
    for detector in range(CAMERA.detectors):
        exposure, tables["DemoCam", detector] = simulate_exposure(CAMERA, detector, seed=1)
        exposures["DemoCam", detector] = exposure.replace({"visit_info": visit["visit_info"]})
    sent = ("DemoCam", 5)
    if request.param == "real":
        sent = ("HSC", 56)
        data_id = {"instrument": "HSC", "visit": 908120, "detector": 56}
        exposures[sent] = read_exposure(data_file("HSC-0908120-056-small.fits"), data_id=data_id)
    story = Story(tmp_path / "observatory", tmp_path / "catalogs", tmp_path / "colleague", exposures, tables, sent)
    # With the camera, which no detector has.
    visit.write(story.visit(("DemoCam", 0)))
    return story


def test_the_story(story: Story) -> None:
    exposures_are_stored_with_what_they_share(story)
    both_tracts_are_calibrated_anew(story)
    catalogs_use_the_new_calibrations(story)
    catalogs_get_a_tree_of_their_own(story)
    one_exposure_is_sent(story)
    it_is_split_where_it_has_arrived(story)
    originals_that_nobody_refers_to_are_deleted(story)
    one_that_is_in_use_is_deleted_by_force(story)


def exposures_are_stored_with_what_they_share(story: Story) -> None:
    paths = {story.calexp(name): exposure for name, exposure in story.exposures.items()}
    shared = ch5.trees.write_together(paths, str(story.observatory / "visit/visit_{visit}.h5"))
    assert {Path(path) for path in shared} == {story.visit(name) for name in story.exposures}
    assert contents(story.observatory).keys() == {*paths, *map(Path, shared)}
    for name, exposure in story.exposures.items():
        with ch5.open(story.calexp(name)) as stored:
            assert {key: link.uri for key, link in stored.links.items()} == {"visit_info": str(story.visit(name))}
            assert stored.digest == exposure.digest
            np.testing.assert_array_equal(stored["image"].array, exposure["image"].array)
    assert problems(story.observatory) == ()


def both_tracts_are_calibrated_anew(story: Story) -> None:
    before = contents(story.observatory)
    for tract in TRACTS:
        for name in story.members(tract):
            path = story.overlays[tract, name] = story.observatory / f"jointcal/{tract}" / story.calexp(name).name
            with ch5.open(story.calexp(name)) as base:
                with pytest.raises(errors.StageError, match="wcs is at"):
                    base.require_stage("jointcal")
                better = {"wcs": shifted(base["wcs"], tract), "photo_calib": calibration(tract)}
                base.overlay(better, stage="jointcal", data_id={"skymap": "demo", "tract": tract}).write(path)
            assert path.stat().st_size < 64 * 1024
    assert contents(story.observatory).keys() == before.keys() | set(story.overlays.values())
    assert before.items() <= contents(story.observatory).items()
    for (tract, name), path in story.overlays.items():
        with ch5.open(path) as overlay, ch5.open(story.calexp(name)) as base:
            overlay.require_stage("jointcal")
            assert overlay.data_id == {**base.data_id, "skymap": "demo", "tract": tract}
            assert set(overlay) - set(overlay.links) == {"wcs", "photo_calib"}
            old, new = digests(base), digests(overlay)
            assert {key for key in new if new[key] != old.get(key)} == {"wcs", "photo_calib"}
            assert overlay["photo_calib"].mean == tract / 100
            np.testing.assert_array_equal(overlay["image"].array, story.exposures[name]["image"].array)


def catalogs_use_the_new_calibrations(story: Story) -> None:
    for (tract, name), path in story.overlays.items():
        if name != story.sent:
            with ch5.open(path) as overlay:
                links = {key: overlay.link(key) for key in ("wcs", "photo_calib", "visit_info")}
            catalog = ch5.Composite("source_catalog", {"table": story.tables[name], **links}, data_id=overlay.data_id)
            catalog.write(story.observatory / f"src/{tract}" / path.name)
    assert problems(story.observatory) == ()


def catalogs_get_a_tree_of_their_own(story: Story) -> None:
    before = contents(story.observatory)
    done = subset(story.observatory, story.catalogs, definition="source_catalog")
    assert contents(story.observatory) == before
    made = {path.relative_to(story.catalogs) for path in contents(story.catalogs)}
    catalogs = {path.relative_to(story.observatory) for path in (story.observatory / "src").rglob("*.h5")}
    calibrations = {Path("jointcal") / path.parent.name / f"{path.stem}.photo_calib+wcs.h5" for path in catalogs}
    visit = story.visit(("DemoCam", 0)).relative_to(story.observatory)
    assert made == catalogs | calibrations | {visit}
    assert (len(done.composites), len(done.linked), done.lost) == (len(catalogs), len(catalogs) + 1, ())
    with out_of_reach(story.observatory):
        assert problems(story.catalogs) == ()
        for path in catalogs:
            tract, name = int(path.parent.name), ("DemoCam", int(path.stem.partition("_")[2]))
            with ch5.open(story.catalogs / path) as catalog:
                assert np.all(catalog["table"]["id"] == story.tables[name]["id"])
                assert catalog["photo_calib"].mean == tract / 100
                assert catalog["visit_info"] == story.exposures[name]["visit_info"]


def one_exposure_is_sent(story: Story) -> None:
    before = contents(story.observatory)
    original = story.overlays[9813, story.sent]
    letter = story.observatory.parent / "letter.h5"
    with ch5.open(original) as overlay, ch5.open(story.calexp(story.sent)) as base:
        overlay.flatten(letter)
        known = overlay.id, overlay.digest, digests(overlay), overlay.provenance
        base_id, visit_id = base.id, base.links["visit_info"].id
    story.colleague.mkdir()
    shutil.move(letter, story.colleague / "received.h5")
    assert contents(story.observatory) == before
    with out_of_reach(story.observatory, story.catalogs):
        assert problems(story.colleague) == ()
        with ch5.open(story.colleague / "received.h5") as flat:
            assert (flat.id, flat.digest, digests(flat), flat.provenance) == known
            assert flat.links == {}
            origins = {key: flat.component_origin(key) for key in ("image", "visit_info", "wcs")}
            assert {key: origin.id for key, origin in origins.items() if origin} == {
                "image": base_id, "visit_info": visit_id, "wcs": flat.id,
            }  # fmt: skip
            np.testing.assert_array_equal(flat["image"].array, story.exposures[story.sent]["image"].array)


def it_is_split_where_it_has_arrived(story: Story) -> None:
    received = story.colleague / "received.h5"
    exposure, visit = story.colleague / "calexp/received.h5", story.colleague / "visit" / story.visit(story.sent).name
    with out_of_reach(story.observatory, story.catalogs):
        assert ch5.trees.split([received], story.colleague / "calexp", shared="../visit/visit_{visit}.h5") == [
            str(exposure)
        ]
        with ch5.open(received) as flat, ch5.open(exposure) as again:
            assert (again.id, again.digest, digests(again)) == (flat.id, flat.digest, digests(flat))
            assert {key: link.uri for key, link in again.links.items()} == {"visit_info": str(visit)}
            origin = flat.component_origin("visit_info")
        with ch5.open(visit) as shared:
            assert shared.definition == "visit"
            assert shared.component_origin("visit_info") == origin
        received.unlink()
        assert contents(story.colleague).keys() == {exposure, visit}
        assert problems(story.colleague) == ()


def originals_that_nobody_refers_to_are_deleted(story: Story) -> None:
    before = {root: contents(root) for root in (story.observatory, story.catalogs, story.colleague)}
    overlay, base = story.overlays[9813, story.sent], story.calexp(story.sent)
    # Detectors of no tract, and the one of which the colleague has a copy; its visit only if no other is of it.
    waste = {str(overlay), str(base), *(str(story.calexp(("DemoCam", detector))) for detector in (0, 6))}
    if story.visit(story.sent) != story.visit(("DemoCam", 0)):
        waste.add(str(story.visit(story.sent)))
    kinds = ("exposure", "visit")
    young = prune(story.observatory, story.catalogs, definitions=kinds, delete=True)
    assert (young.files, set(young.young)) == ((), waste)
    listed = prune(story.observatory, story.catalogs, definitions=kinds, older_than=0)
    assert {file.path: file.deleted for file in listed.files} == dict.fromkeys(waste, False)
    assert contents(story.observatory) == before[story.observatory]
    done = prune(story.observatory, story.catalogs, definitions=kinds, older_than=0, delete=True)
    assert {file.path: file.deleted for file in done.files} == dict.fromkeys(waste, True)
    deleted = [file.path for file in done.files]
    assert deleted.index(str(overlay)) < deleted.index(str(base)), "users go first"
    for root, files in before.items():
        assert contents(root) == {path: digest for path, digest in files.items() if str(path) not in waste}
        assert problems(root) == ()


def one_that_is_in_use_is_deleted_by_force(story: Story) -> None:
    before = {root: contents(root) for root in (story.observatory, story.catalogs, story.colleague)}
    name = ("DemoCam", 3)
    original = story.calexp(name)
    # The pixels and all else that the overlays of both tracts only refer to.
    missed = {
        (str(story.overlays[tract, name]), component)
        for tract in TRACTS
        for component in set(story.exposures[name]) - {"wcs", "photo_calib", "visit_info"}
    }
    with pytest.raises(errors.InUseError, match=f"{len(missed)} links lead there"):
        remove([original], story.observatory, delete=True)
    assert contents(story.observatory) == before[story.observatory]
    (gone,) = remove([original], story.observatory, delete=True, force=True).files
    assert gone.deleted
    assert {(user.path, user.component, user.state) for user in gone.users} == {(*link, "lost") for link in missed}
    found = [(problem.path, problem.component, problem.finding) for problem in problems(story.observatory)]
    assert sorted(found) == sorted((*link, "lost") for link in missed)
    for root, files in before.items():
        assert contents(root) == {path: digest for path, digest in files.items() if path != original}
    assert problems(story.catalogs, story.colleague) == ()
    with ch5.open(story.overlays[9812, name]) as overlay:
        with pytest.raises(errors.BrokenLinkError, match=r"image .* is lost"):
            overlay["image"]
        assert overlay["photo_calib"].mean == 98.12
        assert overlay["visit_info"] == story.exposures[name]["visit_info"]


def shifted(wcs: WCS, tract: int) -> WCS:
    new = deepcopy(wcs)
    new.wcs.crval = wcs.wcs.crval + tract * 1e-8
    new.wcs.set()
    return new


def calibration(tract: int) -> ch5.PhotoCalib:
    return ch5.PhotoCalib(tract / 100, 0.01)


def digests(composite: ch5.Composite) -> dict[str, str]:
    return {name: composite.component_digest(name) for name in composite}


def contents(root: Path) -> dict[Path, str]:
    """Return digests of the bytes of all files of a tree."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def problems(*roots: Path) -> tuple[Problem, ...]:
    """Return what is wrong in trees, of which all files must be composites."""
    found = verify_files(*roots)
    assert found.visited.files == sum(len(contents(root)) for root in roots)
    return found.problems


@contextmanager
def out_of_reach(*roots: Path) -> Iterator[None]:
    """Have trees elsewhere for a while, so that nothing finds them."""
    current().clear_cache()
    for root in roots:
        root.rename(root.with_name(f"{root.name}, out of reach"))
    yield
    current().clear_cache()
    for root in roots:
        root.with_name(f"{root.name}, out of reach").rename(root)
