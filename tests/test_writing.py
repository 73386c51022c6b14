"""Several composites in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.opening import file_info, open_dataset
from compositeh5.operations.verify import verify

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
    with ch5.open(path) as stored:
        assert stored.definition == "visit"


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
