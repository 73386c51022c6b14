"""Overlays, stages, versions, choosing, and composites joined of links."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS
from support import counted_reads, exposure, simple_wcs, tool, visit_info, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.cli import main
from compositeh5.composite.session import current
from compositeh5.trees.verify import verify


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    current().clear_cache()
    write_visit(tmp_path)
    return tmp_path


def ccd(tree: Path, detector: int = 0) -> Path:
    return tree / "calexp" / f"calexp_903334_{detector}.h5"


def better_wcs(ra: float = 150.2) -> WCS:
    wcs = simple_wcs((300, 400))
    wcs.wcs.crval = [ra, 2.3]
    return wcs


CALIB = ch5.PhotoCalib(2.5, 0.01)


def recalibrated(
    tree: Path, tract: int = 9813, base: Path | None = None, stage: str = "jointcal", **more: object
) -> Path:
    path = tree / f"calexp_{stage}" / f"calexp_{tract}.h5"
    with ch5.open(base or ccd(tree)) as c:
        changed = {"wcs": better_wcs(150 + tract / 1e5), "photo_calib": CALIB, **more}
        c.overlay(changed, stage=stage, data_id={"tract": tract}).write(path)
    return path


def test_an_overlay_has_the_changed_components_and_links(tree: Path) -> None:
    before = ccd(tree).read_bytes()
    with counted_reads() as count:
        path = recalibrated(tree)
        assert count() < 64 * 1024
    assert path.stat().st_size < 64 * 1024
    assert ccd(tree).read_bytes() == before
    with ch5.open(path) as c, ch5.open(ccd(tree)) as base:
        assert c.data_id == {**base.data_id, "tract": 9813}
        assert c["wcs"].wcs.crval.tolist() == [150 + 9813 / 1e5, 2.3]
        np.testing.assert_array_equal(c["image"].array, base["image"].array)
        stamp = c.cutout(ch5.Box(150, 160, 300, 310))
        assert (stamp["image"].shape, stamp["wcs"].wcs.crval[1]) == ((10, 10), 2.3)
        assert {name: info.state for name, info in c.components().items()} == {
            "image": "linked", "mask": "linked", "variance": "linked", "wcs": "stored", "psf": "linked",
            "visit_info": "linked", "photo_calib": "stored",
        }  # fmt: skip
        assert c.provenance["history"][0]["id"] == base.id
        assert c.provenance["history"][0]["changed"] == ["photo_calib", "wcs"]
        verify(c)
    assert tool("h5ls", "-rE", path).stdout.count("External Link") == 5


def test_overlays_of_overlays_do_not_chain(tree: Path) -> None:
    """Links lead to where a component is stored; what is between can go, and is still told."""
    first = recalibrated(tree)
    second = recalibrated(tree, base=first, stage="fgcm", wcs=None)
    with ch5.open(first) as between, ch5.open(ccd(tree)) as base:
        ids = [base.id, between.id]
    first.unlink()
    with ch5.open(second) as c:
        assert c["image"].shape == (300, 400)
        assert c.links["image"].id == ids[0]
        assert [step["id"] for step in c.provenance["history"]] == ids
        assert [step["stage"] for step in c.provenance["history"]] == ["single_frame", "jointcal"]
        assert c.absent == ("wcs",)


def test_an_overlay_of_an_overlay_has_the_middle_ones_components(tree: Path) -> None:
    first = recalibrated(tree)
    with ch5.open(first) as between:
        between.overlay(psf=ch5.Psf.constant(np.ones((3, 3)) / 9), stage="psfex").write(tree / "deep/er/c.h5")
        id_ = between.id
    with ch5.open(tree / "deep/er/c.h5") as c:
        assert c.links["wcs"].id == id_
        assert c["wcs"].wcs.crval.tolist() == [150 + 9813 / 1e5, 2.3]
        assert c["visit_info"]["visit"] == 903334
        assert [c.component_stage(name) for name in ("image", "wcs", "psf", "visit_info")] == [
            "single_frame", "jointcal", "psfex", "raw"
        ]  # fmt: skip


def test_each_component_tells_its_origin(tree: Path) -> None:
    path = recalibrated(tree)
    with ch5.open(path) as c, ch5.open(ccd(tree)) as base:
        assert c.component_origin("image") == base.link("image")
        assert c.component_origin("visit_info").uri == str(tree / "visit/visit_903334.h5")
        assert c.component_origin("wcs").id == c.id
        assert ch5.Composite(x=np.arange(3)).component_origin("x") is None


def test_an_overlay_needs_a_stored_base_of_the_same_data(tree: Path) -> None:
    with pytest.raises(ValueError, match="write it first"):
        exposure().overlay(wcs=better_wcs())
    with ch5.open(ccd(tree)) as c:
        with pytest.raises(errors.DefinitionError, match="more keys, but not visit=1"):
            c.overlay(wcs=better_wcs(), data_id={"visit": 1})
        with pytest.raises(errors.DefinitionError, match="no component 'wsc'"):
            c.overlay(wsc=better_wcs())


# ---- Stages --------------------------------------------------------------------------------------------------


def test_a_stage_is_reached_or_asking_for_it_fails(tree: Path) -> None:
    path = recalibrated(tree)
    with ch5.open(path, stage="jointcal") as c:
        assert c.fallbacks == {}
    with pytest.raises(errors.StageError, match=r"'fgcm': photo_calib is at jointcal; wcs is at jointcal; `fallback`"):
        ch5.open(path, stage="fgcm")
    with pytest.raises(errors.StageError, match="wcs is at single_frame"):
        ch5.open(ccd(tree), stage="jointcal")
    with ch5.open(path) as c:
        assert c.require_stage("jointcal") is c
        assert c.require_stage("single_frame", ["image", "psf"]) is c
        with pytest.raises(errors.StageError, match="'jointcal': psf is at single_frame;"):
            c.require_stage("jointcal", ["psf", "wcs"])
        with pytest.raises(errors.NoSuchComponentError, match="'psv'; did you mean 'psf'"):
            c.require_stage("jointcal", ["psv"])


def test_a_fallback_is_explicit_and_told(tree: Path) -> None:
    path = recalibrated(tree, photo_calib=None)
    with pytest.raises(errors.StageError, match="photo_calib is absent"):
        ch5.open(path, stage="jointcal", fallback="single_frame")
    with ch5.open(ccd(tree)) as base:
        base.overlay(photo_calib=CALIB, stage="fgcm").write(tree / "b.h5")
    with ch5.open(tree / "b.h5", stage="fgcm", fallback=("jointcal", "single_frame")) as c:
        assert c.fallbacks == {"wcs": "single_frame"}
        c.overlay(psf=None).write(tree / "c.h5")
    with ch5.open(tree / "c.h5") as c:
        assert c.provenance["history"][-1]["fallbacks"] == {"wcs": "single_frame"}


def test_without_calibrations_all_components_count(tmp_path: Path) -> None:
    free = ch5.Composite(a=np.arange(3), b="x", stage="one")
    free.write(tmp_path / "a.h5")
    free.overlay(a=np.arange(4), stage="two").write(tmp_path / "b.h5")
    with pytest.raises(errors.StageError, match="'two': b is at one;"):
        ch5.open(tmp_path / "b.h5", stage="two")


# ---- Versions ------------------------------------------------------------------------------------------------


def test_versions_are_kept_named_and_chosen(tree: Path) -> None:
    with ch5.open(ccd(tree)) as base:
        old = base["wcs"].wcs.crval.tolist()
        base.overlay(wcs=better_wcs(), stage="jointcal", keep=["wcs"]).write(tree / "over/c.h5")
    with ch5.open(tree / "over/c.h5") as c:
        assert c.versions("wcs") == ("jointcal", "single_frame")
        assert c.versions("image") == ("single_frame",)
        assert c["wcs"].wcs.crval.tolist() == [150.2, 2.3]
        assert c.read_version("wcs", "jointcal").wcs.crval.tolist() == [150.2, 2.3]
        assert c.read_version("wcs", "single_frame").wcs.crval.tolist() == old
        with pytest.raises(errors.NoSuchComponentError, match="no version 'fgcm'; there are: jointcal, single_frame"):
            c.read_version("wcs", "fgcm")
        third = c.overlay(wcs=better_wcs(150.3), stage="gaia", keep=["wcs"])
        third.write(tree / "elsewhere/deeper/c.h5")
    assert (tree / "over/c.h5").stat().st_size < 64 * 1024
    # Also from another folder, the links of versions lead there.
    with ch5.open(tree / "elsewhere/deeper/c.h5") as c:
        assert c.versions("wcs") == ("gaia", "single_frame", "jointcal")
        found = {stage: c.read_version("wcs", stage).wcs.crval[0] for stage in c.versions("wcs")}
        assert found == {"gaia": 150.3, "single_frame": old[0], "jointcal": 150.2}
    native = tool("h5ls", "-rE", tree / "elsewhere/deeper/c.h5").stdout
    assert "/composite/versions/wcs/single_frame" in native
    assert "unable to open" not in native


def test_versions_are_compared(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ch5.open(ccd(tree)) as base:
        base.overlay(wcs=better_wcs(), stage="jointcal", keep=["wcs"]).write(tree / "c.h5")
    file = str(tree / "c.h5")
    assert main(["diff", file, file, "--component", "wcs", "--stages", "single_frame", "jointcal"]) == 1
    assert "CRVAL1" in capsys.readouterr().out
    assert main(["diff", file, file, "--component", "wcs", "--stages", "jointcal", "jointcal"]) == 0
    assert main(["diff", file, file, "--component", "wcs", "--stages", "jointcal", "fgcm"]) == 2


def test_a_stage_can_be_that_of_a_version(tree: Path) -> None:
    with ch5.open(ccd(tree)) as base:
        base.overlay(wcs=better_wcs(), photo_calib=CALIB, stage="jointcal", keep=["wcs"]).write(tree / "c.h5")
    with ch5.open(tree / "c.h5") as c:
        chosen = c.require_stage("single_frame", ["wcs"])
        assert chosen["wcs"].wcs.crval.tolist() == [150.1, 2.2]
        assert chosen.versions("wcs") == ("single_frame", "jointcal")
        chosen.write(tree / "d.h5")
    with ch5.open(tree / "d.h5", stage="jointcal") as c:
        assert c["wcs"].wcs.crval.tolist() == [150.2, 2.3]
        assert c["photo_calib"].mean == 2.5


# ---- Choosing and joining ------------------------------------------------------------------------------------


def test_the_best_of_several_candidates_is_chosen(tree: Path) -> None:
    paths = [
        recalibrated(tree, tract, metadata={"scatter": scatter}) for tract, scatter in ((1, 9.0), (2, 5.0), (3, 7.0))
    ]
    with ch5.open(ccd(tree)) as base:
        candidates = [ch5.open(path) for path in paths]
        best = ch5.trees.choose(
            base, candidates, ["wcs", "photo_calib"], best=lambda c: -c["metadata"]["scatter"], stage="best"
        )
        best.write(tree / "best/c.h5")
        ids = [c.id for c in candidates]
        for candidate in candidates:
            candidate.close()
    with ch5.open(tree / "best/c.h5") as c:
        assert c["wcs"].wcs.crval.tolist() == [150 + 2 / 1e5, 2.3]
        assert c.component_origin("wcs").data_id["tract"] == 2
        [choice] = c.provenance["choices"]
        assert choice["provider"] == ids[1]
        assert choice["candidates"] == {ids[0]: -9.0, ids[1]: -5.0, ids[2]: -7.0}
        assert set(c.links) == {"image", "mask", "variance", "psf", "visit_info", "wcs", "photo_calib"}


def test_a_candidate_must_be_eligible(tree: Path) -> None:
    path = recalibrated(tree)
    with ch5.open(ccd(tree)) as base, ch5.open(path) as other:
        for score in (None, float("nan")):
            with pytest.raises(errors.NoCandidateError, match="none of 1 candidates"):
                ch5.trees.choose(base, [other], ["wcs"], best=lambda c, score=score: score)


def test_components_are_joined_by_precedence(tree: Path) -> None:
    path = recalibrated(tree)
    with ch5.open(path) as first, ch5.open(ccd(tree)) as second, counted_reads() as count:
        joined = ch5.trees.compose(
            "exposure", first, second, components={"detector": {"name": "R22"}}, data_id=first.data_id
        )
        joined.write(tree / "joined.h5")
        assert count() < 64 * 1024
        catalog = ch5.trees.compose(None, first, components={"note": "x"})
        assert set(catalog) == {*first, "note"}
    with ch5.open(tree / "joined.h5") as c:
        assert c.component_stage("wcs") == "jointcal"
        assert c["detector"]["name"] == "R22"
        np.testing.assert_array_equal(c["image"].array, exposure()["image"].array)
    with (
        ch5.open(tree / "visit/visit_903334.h5") as visit,
        pytest.raises(errors.DefinitionError, match="'image' is absent"),
    ):
        ch5.trees.compose("exposure", visit)


# ---- Lists of links ------------------------------------------------------------------------------------------


def amplifiers(root: Path, count: int = 4) -> list[Path]:
    paths = []
    for index in range(count):
        image = ch5.Image(np.full((8, 5), index, np.float32), origin=(0, 5 * index))
        path = root / "amps" / f"amp_{index}.h5"
        ch5.Composite(image=image, data_id={"exposure": 7, "detector": 1, "amplifier": index}).write(path)
        paths.append(path)
    return paths


def test_items_of_a_list_can_be_links(tmp_path: Path) -> None:
    links = []
    for path in amplifiers(tmp_path):
        with ch5.open(path) as c:
            links.append(c.link("image"))
    raw = ch5.Composite("raw", amplifiers=links)
    whole = ch5.Composite("raw", amplifiers=[ch5.Composite(x=link)["x"] for link in links])
    raw.write(tmp_path / "raw/raw.h5")
    assert raw.component_digest("amplifiers") == whole.component_digest("amplifiers")
    with ch5.open(tmp_path / "raw/raw.h5") as c:
        verify(c)
        assert [image.array[0, 0] for image in c["amplifiers"]] == [0, 1, 2, 3]
        assert [image.array[0, 0] for image in c.read("amplifiers", items=[3, 0])] == [3, 0]
        with pytest.raises(IndexError):
            c.read("amplifiers", items=[4])
        with pytest.raises(errors.UnsupportedParameterError, match="'box'"):
            c.read("amplifiers", box=None)
        c.replace(stage="x").write(tmp_path / "other/place/raw.h5")
        c.overlay(detector={"name": "A"}).write(tmp_path / "over/raw.h5")
        loaded = c.load()
    assert loaded["amplifiers"][2].array[0, 0] == 2
    for place in ("other/place/raw.h5", "over/raw.h5"):
        with ch5.open(tmp_path / place) as c:
            verify(c)
            assert [image.array[0, 0] for image in c["amplifiers"]] == [0, 1, 2, 3]
        native = tool("h5ls", "-rE", tmp_path / place).stdout
        assert "unable to open" not in native
    (tmp_path / "amps/amp_2.h5").unlink()
    current().clear_cache()
    with ch5.open(tmp_path / "raw/raw.h5") as c:
        with pytest.raises(errors.BrokenLinkError, match=r"composite.image .* is lost"):
            c["amplifiers"]
        assert c.read("amplifiers", items=[1])[0].array[0, 0] == 1


def test_items_of_a_list_must_be_of_the_kind_of_the_definition(tmp_path: Path) -> None:
    visit = ch5.Composite("visit", visit_info=visit_info())
    visit.write(tmp_path / "visit.h5")
    with pytest.raises(errors.DefinitionError, match="of kind 'image', but .* is of kind 'record'"):
        ch5.Composite("raw", amplifiers=[visit.link("visit_info")])


def test_a_list_is_gathered_from_a_partial_key(tmp_path: Path) -> None:
    paths = amplifiers(tmp_path, 12)
    with counted_reads() as count:
        links = ch5.trees.gather(reversed(paths), "image", key="amplifier", expected=range(12))
        ch5.Composite("raw", amplifiers=links, data_id={"exposure": 7, "detector": 1}).write(tmp_path / "raw.h5")
        assert count() < 12 * 32 * 1024
    with ch5.open(tmp_path / "raw.h5") as c:
        assert [image.array[0, 0] for image in c["amplifiers"]] == list(range(12))
    paths[10].unlink()
    left = [path for path in paths if path.exists()]
    with pytest.raises(
        errors.NoSuchComponentError, match="'image' is missing for amplifier = 10; it is there for 0, 1, 2"
    ):
        ch5.trees.gather(left, "image", key="amplifier", expected=range(12))
    assert len(ch5.trees.gather(left, "image", key="amplifier", expected=range(12), missing="skip")) == 11
    with pytest.raises(errors.ConflictError, match="another one with amplifier=3"):
        ch5.trees.gather([paths[3], paths[3]], "image", key="amplifier")
    with pytest.raises(errors.DefinitionError, match="no 'detektor'"):
        ch5.trees.gather(left, "image", key="detektor")
    ch5.Composite(image=None, data_id={"exposure": 8, "detector": 1, "amplifier": 2}).write(tmp_path / "other.h5")
    with pytest.raises(errors.ConflictError, match="'exposure': 8.*but the others are of"):
        ch5.trees.gather([paths[3], tmp_path / "other.h5"], "image", key="amplifier")
    with pytest.raises(errors.NoSuchComponentError, match="missing for amplifier = 2"):
        ch5.trees.gather([tmp_path / "other.h5"], "image", key="amplifier")
    with pytest.raises(errors.NoSuchComponentError, match="there is no composite"):
        ch5.trees.gather([], "image", key="amplifier")
