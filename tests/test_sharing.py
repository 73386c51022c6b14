"""Components stored once: composites written together, flattened, and split again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from faults import killed
from support import exposure, simple_wcs, tool, visit_info, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.trees.verify import verify

KEYS = {"instrument": "DemoCam", "visit": 903334}


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    current().clear_cache()


def ccds(count: int = 3, **deviating: object) -> dict[int, ch5.Composite]:
    made = {}
    for detector in range(count):
        info = visit_info() | (deviating if detector == 1 else {})
        made[detector] = exposure((40, 50), visit_info=info).replace(data_id={**KEYS, "detector": detector})
    return made


def named(root: Path, composites: dict[int, ch5.Composite]) -> dict[str | Path, ch5.Composite]:
    return {root / f"calexp/ccd_{detector}.h5": composite for detector, composite in composites.items()}


def test_what_is_shared_is_stored_once(tmp_path: Path) -> None:
    composites = named(tmp_path, ccds())
    [shared] = ch5.trees.write_together(composites, tmp_path / "visit/visit_{visit}.h5")
    assert shared == str(tmp_path / "visit/visit_903334.h5")
    alone = {path: composite.digest for path, composite in named(tmp_path, ccds()).items()}
    for path in composites:
        with ch5.open(path) as c:
            verify(c)
            assert list(c.links) == ["visit_info"]
            assert c.links["visit_info"].uri == shared
            assert c["visit_info"]["visit"] == 903334
            # Linked or stored, the composite is the same.
            assert c.digest == alone[path]
    with ch5.open(shared) as visit:
        assert (visit.definition, visit.data_id, list(visit)) == ("visit", KEYS, ["visit_info"])
    assert "visit_info/visit" in tool("h5ls", "-rE", tmp_path / "calexp/ccd_0.h5").stdout
    # Once more: all is there already.
    assert ch5.trees.write_together(named(tmp_path, ccds()), str(tmp_path / "visit/visit_{visit}.h5")) == [shared]


def test_a_deviating_member_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    composites = named(tmp_path, ccds(airmass=1.25, filter="r_03"))
    with pytest.raises(errors.DigestMismatchError, match=r"ccd_1.h5 \(detector=1\): .* differs in filter, airmass"):
        ch5.trees.write_together(composites, tmp_path / "visit.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_deviating_member_can_be_kept_apart(tmp_path: Path) -> None:
    composites = named(tmp_path, ccds(airmass=1.25))
    ch5.trees.write_together(composites, tmp_path / "visit_{visit}.h5", deviating="keep")
    for path, expected in zip(composites, [("linked", 1.0625), ("stored", 1.25), ("linked", 1.0625)], strict=True):
        with ch5.open(path) as c:
            assert (c.components()["visit_info"].state, c["visit_info"]["airmass"]) == expected


def test_a_shared_file_that_is_there_is_used_or_a_conflict(tmp_path: Path) -> None:
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id=KEYS, metadata={"more": 1})
    visit.write(tmp_path / "visit_903334.h5")
    ch5.trees.write_together(named(tmp_path, ccds(2)), tmp_path / "visit_{visit}.h5")
    with ch5.open(tmp_path / "calexp/ccd_1.h5") as c:
        assert c.links["visit_info"].id == visit.id
    other = {d: c.replace({"visit_info": visit_info(903334) | {"airmass": 2.0}}) for d, c in ccds(2).items()}
    with pytest.raises(
        errors.DigestMismatchError, match="ccd_0.h5 .* differs in airmass from that of .*visit.*; .*ccd_1.h5"
    ):
        ch5.trees.write_together(named(tmp_path / "b", other), tmp_path / "visit_{visit}.h5")
    ch5.Composite(data_id={**KEYS, "visit": 1}, x=np.arange(3)).write(tmp_path / "taken.h5")
    with pytest.raises(errors.ConflictError, match="is there already, with the data ID .*'visit': 1"):
        ch5.trees.write_together(named(tmp_path / "b", ccds(2)), tmp_path / "taken.h5")
    assert not (tmp_path / "b").exists()


def test_places_of_shared_files_are_checked(tmp_path: Path) -> None:
    two = named(tmp_path, ccds(1)) | {
        tmp_path / "x.h5": exposure((9, 9), visit_info=visit_info(2)).replace(
            data_id={**KEYS, "visit": 2, "detector": 0}
        )
    }
    with pytest.raises(errors.DefinitionError, match="for both .*903334.* and .*2.*; it needs more data ID keys"):
        ch5.trees.write_together(two, tmp_path / "{instrument}.h5")
    assert len(ch5.trees.write_together(two, tmp_path / "shared")) == 2
    with pytest.raises(errors.DefinitionError, match="KeyError: 'vist'.*data ID keys instrument, visit"):
        ch5.trees.write_together(two, tmp_path / "{vist}.h5")
    lacking = {tmp_path / "y.h5": exposure((9, 9), visit_info=visit_info()).replace(data_id={"detector": 0})}
    with pytest.raises(errors.DefinitionError, match="'visit_info' is shared under instrument, visit, but"):
        ch5.trees.write_together(lacking, tmp_path / "shared")


# ---- Flatten and split ---------------------------------------------------------------------------------------


@pytest.fixture
def overlaid(tmp_path: Path) -> Path:
    """A visit, an exposure, and an overlay of that with two versions of its WCS."""
    write_visit(tmp_path, ccds=1)
    wcs = simple_wcs((300, 400))
    wcs.wcs.crval = [150.2, 2.3]
    with ch5.open(tmp_path / "calexp/calexp_903334_0.h5") as base:
        over = base.overlay(wcs=wcs, stage="jointcal", data_id={"tract": 9813}, keep=["wcs"])
        over.write(tmp_path / "over/overlay.h5")
    return tmp_path / "over/overlay.h5"


def test_a_flattened_file_is_the_same_composite_without_links(overlaid: Path, tmp_path: Path) -> None:
    with ch5.open(overlaid) as c:
        c.flatten(tmp_path / "out/flat.h5")
        known = (c.id, c.digest, {name: c.component_digest(name) for name in c})
        origins = {name: c.component_origin(name) for name in c}
        history = c.provenance
    moved = tmp_path / "elsewhere.h5"
    (tmp_path / "out/flat.h5").rename(moved)
    for folder in ("calexp", "visit", "over"):
        shutil.rmtree(tmp_path / folder)
    current().clear_cache()
    with ch5.open(moved) as flat:
        verify(flat)
        assert flat.links == {}
        assert known == (flat.id, flat.digest, {name: flat.component_digest(name) for name in flat})
        assert flat.provenance == history
        assert {name: flat.component_origin(name) for name in flat if name not in ("wcs", "versions")} == {
            name: origin for name, origin in origins.items() if name not in ("wcs", "versions")
        }
        assert flat["visit_info"]["visit"] == 903334
        assert flat.versions("wcs") == ("jointcal", "single_frame")
        assert flat.read_version("wcs", "single_frame").wcs.crval.tolist() == [150.1, 2.2]
        np.testing.assert_array_equal(flat["image"].array, exposure()["image"].array)
        assert flat.components()["image"].origin == f"{origins['image']} in {origins['image'].uri}"
    listing = tool("h5ls", "-r", moved).stdout
    assert "External Link" not in listing
    dump = tool("h5dump", "-a", "/composite/image/origin_link", moved).stdout
    assert origins["image"].id in dump


def test_flatten_refuses_a_lost_component(overlaid: Path, tmp_path: Path) -> None:
    (tmp_path / "visit/visit_903334.h5").unlink()
    with ch5.open(overlaid) as c, pytest.raises(errors.BrokenLinkError, match="visit.visit_info .* is lost"):
        c.flatten(tmp_path / "flat.h5")
    assert not (tmp_path / "flat.h5").exists()


def test_split_links_again_to_what_is_there(overlaid: Path, tmp_path: Path) -> None:
    with ch5.open(overlaid) as c:
        c.flatten(tmp_path / "flat/overlay.h5")
        known = c.id, c.digest
        names = set(c.links)
    assert ch5.trees.split([tmp_path / "flat/overlay.h5"], tmp_path / "again") == [str(tmp_path / "again/overlay.h5")]
    with ch5.open(tmp_path / "again/overlay.h5") as c:
        verify(c)
        assert (c.id, c.digest) == known
        assert set(c.links) == names
        np.testing.assert_array_equal(c["image"].array, exposure()["image"].array)
    assert (tmp_path / "again/overlay.h5").stat().st_size < 100_000
    assert not (tmp_path / "again/shared").exists()


def test_split_elsewhere_shares_what_the_definition_declares(tmp_path: Path) -> None:
    _, paths = write_visit(tmp_path / "here", ccds=2)
    for index, path in enumerate(paths):
        with ch5.open(path) as c:
            c.flatten(tmp_path / f"sent/ccd_{index}.h5")
    shutil.rmtree(tmp_path / "here")
    sent = sorted((tmp_path / "sent").iterdir())
    ch5.trees.split(sent, tmp_path / "there", shared="visit/{visit}.h5")
    with ch5.open(tmp_path / "there/ccd_1.h5") as c, ch5.open(sent[1]) as flat:
        verify(c)
        assert (c.id, c.digest) == (flat.id, flat.digest)
        assert list(c.links) == ["visit_info"]
        assert c.component_stage("visit_info") == "raw"
        assert c["visit_info"]["visit"] == 903334
    with ch5.open(tmp_path / "there/visit/903334.h5") as visit, ch5.open(sent[0]) as flat:
        verify(visit)
        assert visit.component_origin("visit_info") == flat.component_origin("visit_info")
    with pytest.raises(errors.ConflictError, match="two of the sources have this name"):
        ch5.trees.split([sent[0], sent[0]], tmp_path / "twice")


def test_a_list_of_links_is_flattened(tmp_path: Path) -> None:
    links = []
    for index in range(3):
        amp = ch5.Composite(image=ch5.Image(np.full((90, 90), index, np.float32)), data_id={"amplifier": index})
        amp.write(tmp_path / f"amps/{index}.h5")
        links.append(amp.link("image"))
    raw = ch5.Composite("raw", amplifiers=links)
    raw.write(tmp_path / "raw.h5")
    with ch5.open(tmp_path / "raw.h5") as c:
        c.flatten(tmp_path / "flat/raw.h5")
        digest = c.digest
    shutil.rmtree(tmp_path / "amps")
    with ch5.open(tmp_path / "flat/raw.h5") as c:
        verify(c)
        assert c.digest == digest
        assert [image.array[0, 0] for image in c["amplifiers"]] == [0, 1, 2]


def test_a_cutout_is_not_linked_to_what_it_was_cut_from(tmp_path: Path) -> None:
    _, [path] = write_visit(tmp_path, ccds=1)
    with ch5.open(path) as c:
        c.flatten(tmp_path / "flat.h5")
    with ch5.open(tmp_path / "flat.h5") as c:
        c.cutout(ch5.Box(110, 120, 210, 220)).write(tmp_path / "stamp/flat.h5")
    ch5.trees.split([tmp_path / "stamp/flat.h5"], tmp_path / "split")
    with ch5.open(tmp_path / "split/flat.h5") as c:
        assert c.links == {}


def test_what_was_killed_is_finished_by_the_next_run(tmp_path: Path) -> None:
    def run() -> None:
        ch5.trees.write_together(named(tmp_path / "new", ccds()), tmp_path / "new/visit_{visit}.h5")

    for call in range(2, 20, 4):
        assert killed(run, call)
        for path in (tmp_path / "new").rglob("[!.]*.h5"):
            with ch5.open(path) as c:
                verify(c)
                assert "visit_info" in c.load()
        shutil.rmtree(tmp_path / "new")
    killed(run, 12)
    run()
    for path in named(tmp_path / "new", ccds()):
        with ch5.open(path) as c:
            assert c["visit_info"]["visit"] == 903334


@pytest.mark.parametrize("stored", [True, False])
def test_links_within_what_is_nested_are_flattened_from_memory_too(tmp_path: Path, stored: bool) -> None:
    """Also where values were loaded, or never stored: a flat file needs no other."""
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id=KEYS)
    visit.write(tmp_path / "visit.h5")
    member = ch5.Composite(visit_info=visit.link("visit_info"), x=np.arange(3))
    outer = ch5.Composite(members=[member, 5 * np.arange(2)], one=member)
    if stored:
        outer.write(tmp_path / "outer.h5")
        with ch5.open(tmp_path / "outer.h5") as c:
            outer = c.load()
        ch5.Composite(linked=outer.link("members"), one=outer.link("one")).write(tmp_path / "links.h5")
        with ch5.open(tmp_path / "links.h5") as c:
            outer = c.load()
    digest = outer.digest
    outer.flatten(tmp_path / "flat/flat.h5")
    assert "Link" not in tool("h5ls", "-r", tmp_path / "flat/flat.h5").stdout.replace("Soft Link", "")
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    current().clear_cache()
    with ch5.open(tmp_path / "flat/flat.h5") as c:
        verify(c)
        assert c.digest == digest
        assert c["one"]["visit_info"]["visit"] == 903334
        assert next(iter(c.load().values()))[0]["visit_info"]["visit"] == 903334
