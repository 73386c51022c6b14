"""Verification finds every kind of damage, says where it is, and finds nothing where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from linked_trees import ccd, ccd_path, visit_path, write_shared, write_tree
from support import exposure, group_of

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.cli import main
from compositeh5.composite.session import current
from compositeh5.storage.layout import file_root
from compositeh5.storage.writer import file_image
from compositeh5.trees.verify import Problem, verify, verify_files


@pytest.fixture(autouse=True)
def _no_values_from_other_tests() -> None:
    current().clear_cache()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def only(problems: tuple[Problem, ...]) -> tuple[str, str, str]:
    """Return the finding of the only problem, the name of its file, and the component."""
    (problem,) = problems
    assert problem.detail
    return problem.finding, Path(problem.path).name, problem.component


def change(path: Path, dataset: str, value: object) -> None:
    """Change a value in place, as no program should."""
    with h5py.File(path, "r+") as file:
        file[dataset][...] = value


def set_attribute(path: Path, group: str, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file[group].attrs[name] = value


@pytest.mark.parametrize(
    ("name", "value"), [("definition_version", b"x"), ("links", b"{"), ("data_id", b"["), ("absent", b"3")]
)
def test_a_bad_attribute_of_a_composite_is_one_problem(tree: Path, name: str, value: bytes) -> None:
    set_attribute(visit_path(tree), "composite", name, np.bytes_(value))
    problems = [problem for problem in verify_files(visit_path(tree)).problems if problem.finding == "format"]
    assert [name in problem.detail for problem in problems] == [True]


def test_a_whole_tree_has_no_problems(tree: Path) -> None:
    report = verify_files(tree)
    assert report.problems == ()
    # Two visits of one component, six exposures with an image and a link.
    assert (report.visited.files, report.composites, report.components, report.links) == (8, 8, 8, 6)
    quick = verify_files(tree, quick=True)
    assert quick.problems == ()
    assert (quick.composites, quick.components, quick.links) == (8, 0, 6)


def copy_deeper(tree: Path) -> None:
    (tree / "deep" / "er").mkdir(parents=True)
    shutil.copy(ccd_path(tree), tree / "deep" / "er" / "copy.h5")


DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, str, str], bool]] = {
    "value": (lambda tree: change(ccd_path(tree), "composite/image", 5), ("digest", "calexp_1_0.h5", "image"), False),
    # One problem, not one for each user.
    "shared value": (
        lambda tree: change(visit_path(tree), "composite/visit_info/exposure_time", 5),
        ("digest", "visit_1.h5", "visit_info"),
        False,
    ),
    "attribute": (
        lambda tree: set_attribute(ccd_path(tree), "composite", "run", np.bytes_("other")),
        ("digest", "calexp_1_0.h5", ""),
        True,
    ),
    "never completed": (
        lambda tree: set_attribute(ccd_path(tree), "/", "complete", 0),
        ("unread", "calexp_1_0.h5", ""),
        True,
    ),
    "link that only we can follow": (copy_deeper, ("moved", "copy.h5", "visit_info"), True),
}
"""What is done, what is found, and whether it is found without reading values."""


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_problem_where_it_is(tree: Path, name: str) -> None:
    damage, expected, is_quick = DAMAGES[name]
    damage(tree)
    assert only(verify_files(tree).problems) == expected
    quick = verify_files(tree, quick=True).problems
    assert ([only(quick)] if quick else []) == [expected] * is_quick


def test_a_changed_target_outside_of_what_is_verified_is_found(tree: Path) -> None:
    change(visit_path(tree), "composite/visit_info/exposure_time", 5)
    report = verify_files(tree / "calexp")
    assert only(report.problems) == ("digest", "visit_1.h5", "visit_info")
    # Six images, and the other visit.
    assert report.components == 7
    assert verify_files(ccd_path(tree, 2)).problems == ()
    assert len(verify_files(ccd_path(tree, 1)).problems) == 1


def test_links_that_find_nothing_or_something_else_are_found(tree: Path) -> None:
    with ch5.open(visit_path(tree, 2)) as visit:
        other = visit.load().replace({"visit_info": {"visit": 2, "exposure_time": 31.0}}, id=visit.id)
    visit_path(tree, 1).unlink()
    other.write(visit_path(tree, 2), replace=True)
    findings = [(problem.finding, Path(problem.path).name) for problem in verify_files(tree).problems]
    assert findings == [
        *(("lost", f"calexp_1_{i}.h5") for i in range(3)),
        *(("stale digest", f"calexp_2_{i}.h5") for i in range(3)),
    ]
    visit_path(tree, 2).rename(visit_path(tree, 1))
    assert {problem.finding for problem in verify_files(tree, quick=True).problems} == {"stale id", "lost"}


def test_files_that_cannot_be_read_are_found_and_foreign_ones_are_no_problem(tree: Path) -> None:
    whole = ccd_path(tree).read_bytes()
    ccd_path(tree).write_bytes(whole[:-100])
    (tree / "empty.hdf5").touch()
    with h5py.File(tree / "other.h5", "w") as file:
        file["x"] = 1
    report = verify_files(tree)
    assert [(problem.finding, Path(problem.path).name) for problem in report.problems] == [
        ("unread", "calexp_1_0.h5"),
        ("unread", "empty.hdf5"),
    ]
    assert report.visited.foreign == (str(tree / "other.h5"),)


def test_a_damaged_chunk_is_found_and_the_other_components_are_checked(tmp_path: Path) -> None:
    exposure((300, 400)).write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        _, chunk = file["composite/image"].id.read_direct_chunk((0, 0))
        file["composite/image"].id.write_direct_chunk((0, 0), chunk[:-1] + bytes([chunk[-1] ^ 1]))
        file["composite/psf/kernels"][...] = 1
    report = verify_files(tmp_path)
    assert {(problem.finding, problem.component) for problem in report.problems} == {
        ("unread", "image"),
        ("digest", "psf"),
    }
    assert report.components == 3


@pytest.mark.parametrize("component", ["one/array", "many/0/array"])
def test_changed_content_of_a_nested_composite_is_found(tmp_path: Path, component: str) -> None:
    path = tmp_path / "a.h5"
    inner = ch5.Composite(None, {"array": np.arange(3)})
    ch5.Composite(None, {"one": inner, "many": [inner.replace({"array": np.arange(4)})]}).write(path)
    assert verify_files(path).problems == ()
    change(path, f"composite/{component}", 9)
    assert only(verify_files(path).problems) == ("digest", "a.h5", component)
    with ch5.open(path) as c, pytest.raises(errors.DigestMismatchError, match="array"):
        verify(c)


def test_a_composite_that_lacks_what_its_definition_requires_is_found(tmp_path: Path) -> None:
    exposure((6, 8), origin=(0, 0)).cutout(ch5.Box(0, 3, 0, 3), components=["mask"]).write(tmp_path / "a.h5")
    assert only(verify_files(tmp_path, quick=True).problems) == ("incomplete", "a.h5", "image")


def test_one_id_for_different_composites_is_found(tree: Path) -> None:
    id_ = "6b8b6d14-43c3-4a5c-a5b3-3d9a32a1a0a5"
    for name in ("a", "b"):
        ch5.Composite(None, {"note": name}, id=id_).write(tree / f"{name}.h5")
    shutil.copy(tree / "a.h5", tree / "c.h5")
    finding, name, _ = only(verify_files(tree, quick=True).problems)
    assert (finding, name) == ("id", "b.h5")


def test_an_id_that_leads_to_another_composite_is_found(tmp_path: Path) -> None:
    first, second = (group_of(ch5.Composite(None, {"note": name})) for name in "ab")
    ids = [group.attr("id", str) for group in (first, second)]
    swapped = file_root({"a": (ids[1], first), "b": (ids[0], second)})
    (tmp_path / "a.h5").write_bytes(file_image(swapped))
    assert {problem.finding for problem in verify_files(tmp_path).problems} == {"format"}
    unknown = file_root({"a": (ids[0], first)})
    unknown.children["by-id"].children[ids[1]] = unknown.children["by-id"].children[ids[0]]
    (tmp_path / "a.h5").write_bytes(file_image(unknown))
    assert only(verify_files(tmp_path, quick=True).problems) == ("format", "a.h5", "")


def test_an_overlay_is_verified_with_what_it_shows(tree: Path) -> None:
    base = ccd_path(tree)
    with ch5.open(base) as c:
        c.overlay(wcs=None, stage="jointcal").write(tree.parent / "overlay.h5")
    assert verify_files(tree.parent / "overlay.h5").problems == ()
    change(base, "composite/image", 5)
    assert only(verify_files(tree.parent / "overlay.h5").problems) == ("digest", "calexp_1_0.h5", "image")
    assert verify_files(tree.parent / "overlay.h5", quick=True).problems == ()


def test_a_target_in_another_root_is_read_once(tmp_path: Path) -> None:
    shared = write_shared(tmp_path / "shared")
    for detector in range(3):
        ccd(shared.link("visit_info"), 1, detector).write(ccd_path(tmp_path / "users", 1, detector))
    assert verify_files(tmp_path / "users").components == 4
    assert verify_files(tmp_path / "users", tmp_path / "shared").components == 4


def test_verify_on_the_command_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(ccd_path(tree), "composite/image", 5)
    assert main(["verify", "--quick", str(tree)]) == 0
    assert capsys.readouterr().out == "0 problems in 8 files: 8 composites, 0 components read, 6 links\n"
    assert main(["verify", "--json", str(ccd_path(tree)), str(visit_path(tree))]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(found["finding"], found["component"]) for found in report["problems"]] == [("digest", "image")]
    assert report["visited"] == {"files": 2, "unread": [], "foreign": []}
