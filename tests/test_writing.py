"""Several composites in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.opening import file_info, open_dataset
from compositeh5.trees.verify import verify

VISIT = {"instrument": "DemoCam", "visit": 903334}


def composites() -> dict[str, ch5.Composite]:
    """Return a visit and two of its detectors."""
    return {
        "visit": ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT),
        **{f"ccd_{d}": exposure((30, 40), (d, 0)).replace(data_id={**VISIT, "detector": d}) for d in (3, 4)},
    }


def test_each_is_found_by_its_name(tmp_path: Path) -> None:
    given = composites()
    ch5.write_file(tmp_path / "folder" / "visit.h5", given)
    path = tmp_path / "folder" / "visit.h5"
    assert file_info(path).composites == tuple(given)
    for name, composite in given.items():
        with ch5.open(path, name) as stored:
            verify(stored)
            assert stored.digest == composite.digest
            assert stored.id == composite.id
    with ch5.open(path) as stored, ch5.open(path, id=given["ccd_4"].id) as other:
        assert (stored.definition, other.data_id["detector"]) == ("visit", 4)
    with pytest.raises(errors.NoSuchComponentError, match="it has visit, ccd_3, ccd_4"):
        ch5.open(path, "ccd_9")
    with pytest.raises(errors.WrongIdError):
        ch5.open(path, id="3f1c64c2-5b6e-4e9c-9a4b-111111111111")


def test_links_lead_to_one_of_them(tmp_path: Path) -> None:
    given = composites()
    ch5.write_file(tmp_path / "visit.h5", given)
    ch5.Composite("exposure", image=given["ccd_4"].link("image")).write(tmp_path / "view.h5")
    with ch5.open(tmp_path / "view.h5") as view:
        assert view["image"].box == given["ccd_4"]["image"].box
    listing = tool("h5ls", "-E", tmp_path / "view.h5/composite")
    assert "image                    External Link" in listing.stdout


def test_a_dataset_is_found_by_id_or_by_data_id(tmp_path: Path) -> None:
    given = composites()
    path = tmp_path / "visit.h5"
    ch5.write_file(path, given)
    other = "00000000-0000-4000-8000-000000000000"
    with open_dataset(path, given["ccd_4"].id, {}) as stored:
        assert stored.data_id["detector"] == 4
    for name, composite in given.items():
        with open_dataset(path, other, composite.data_id) as stored:
            assert stored.id == composite.id, name
    with pytest.raises(errors.NoSuchComponentError, match="no composites have the data ID .*'detector': 5.*it holds"):
        open_dataset(path, other, {**VISIT, "detector": 5})
    with pytest.raises(errors.NoSuchComponentError, match="3 composites have the data ID"):
        open_dataset(path, other, {"instrument": "DemoCam"})


def test_the_only_one_needs_no_data_id(tmp_path: Path) -> None:
    ch5.write_file(tmp_path / "one.h5", {"only": exposure((3, 4))})
    with open_dataset(tmp_path / "one.h5", "00000000-0000-4000-8000-000000000000", {"tract": 1}) as stored:
        assert stored["image"].shape == (3, 4)


def test_what_stands_there_is_kept_unless_it_is_equal(tmp_path: Path) -> None:
    path = tmp_path / "visit.h5"
    ch5.write_file(path, composites())
    before = path.read_bytes()
    again = composites()
    ch5.write_file(path, again)
    assert again["visit"].location == str(path)
    changed = composites() | {"ccd_4": exposure((5, 5)).replace(data_id={**VISIT, "detector": 4})}
    with pytest.raises(errors.ConflictError, match="was not written"):
        ch5.write_file(path, changed)
    assert path.read_bytes() == before
    ch5.write_file(path, changed, replace=True)
    with ch5.open(path, "ccd_4") as stored:
        assert stored["image"].shape == (5, 5)


@pytest.mark.parametrize("name", ["by-id", "a/b", "", 3])
def test_names_that_a_group_can_not_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.EncodeError, match="the name of a composite"):
        ch5.write_file(tmp_path / "a.h5", {name: exposure((3, 4))})
    assert not list(tmp_path.iterdir())


def test_composites_that_could_not_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(errors.EncodeError, match="'a' and 'b' have the same id"):
        ch5.write_file(tmp_path / "a.h5", {"a": exposure((3, 4)), "b": exposure((3, 4))})
    with pytest.raises(errors.EncodeError, match="at least one"):
        ch5.write_file(tmp_path / "a.h5", {})
    assert not list(tmp_path.iterdir())


def test_composites_of_a_file_share_what_is_equal(tmp_path: Path) -> None:
    info = visit_info()
    given = {
        "visit": ch5.Composite("visit", visit_info=info, data_id=VISIT, stage="raw"),
        **{
            f"ccd_{d}": exposure((300, 400), visit_info=info).replace(data_id={**VISIT, "detector": d})
            for d in (3, 4, 5)
        },
    }
    digests = {name: composite.digest for name, composite in given.items()}
    ch5.write_file(tmp_path / "apart.h5", given)
    ch5.write_file(tmp_path / "shared.h5", given, share=True)
    # Noise is the same in all three, so that all of the second and third is shared.
    assert (tmp_path / "shared.h5").stat().st_size < (tmp_path / "apart.h5").stat().st_size / 2.5
    renamed = (tmp_path / "shared.h5").rename(tmp_path / "received.h5")
    (tmp_path / "apart.h5").unlink()
    for name, digest in digests.items():
        with ch5.open(renamed, name) as c:
            verify(c)
            assert c.digest == digest
            assert c["visit_info"]["visit"] == 903334
            assert [info.state for info in c.components().values() if info.state == "lost"] == []
            # A stage is that of each use, not of what is stored.
            assert c.component_stage("visit_info") == ("raw" if name == "visit" else "single_frame")
            c.flatten(tmp_path / f"{name}.h5")
    with ch5.open(tmp_path / "ccd_5.h5") as c:
        verify(c)
        assert c.links == {}
        assert c.digest == digests["ccd_5"]
    native = tool("h5ls", "-r", renamed).stdout
    assert "Soft Link {/by-id/" in native
    dumped = tool("h5dump", "-d", "/ccd_4/visit_info/airmass", renamed)
    assert dumped.returncode == 0
    assert "1.0625" in dumped.stdout


def test_a_link_within_a_file_is_one_for_others(tmp_path: Path) -> None:
    info = visit_info()
    visit = ch5.Composite("visit", visit_info=info, data_id=VISIT)
    ccd = exposure((30, 40), visit_info=info).replace(data_id={**VISIT, "detector": 3})
    ch5.write_file(tmp_path / "a/both.h5", {"visit": visit, "ccd": ccd}, share=True)
    with ch5.open(tmp_path / "a/both.h5", "ccd") as c:
        c.overlay(psf=None).write(tmp_path / "b/overlay.h5")
    with ch5.open(tmp_path / "b/overlay.h5") as c:
        verify(c)
        assert c["visit_info"]["visit"] == 903334
        assert c.links["visit_info"].id == visit.id
    assert "unable to open" not in tool("h5ls", "-rE", tmp_path / "b/overlay.h5").stdout


@pytest.mark.parametrize("target", ["/", "/ccd", "/by-id/x/y", "../by-id", "/by-id/{id}/image/x", "/by-id/{id}"])
def test_other_soft_links_are_refused(tmp_path: Path, target: str) -> None:
    import h5py

    composite = exposure((30, 40))
    composite.write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["composite/psf"]
        file["composite/psf"] = h5py.SoftLink(target.format(id=composite.id))
    with ch5.open(tmp_path / "a.h5") as c, pytest.raises(errors.RefusedError, match="soft link"):
        c["psf"]
