"""Who links to whom in folders of files, and what becomes of links when files are deleted or moved."""

from __future__ import annotations

import os
import random
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from faults import killed
from linked_trees import ccd, ccd_path, visit_path, write_shared, write_tree
from support import counted_reads, exposure

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.cli import main
from compositeh5.composite.session import current
from compositeh5.trees.pruning import prune, remove
from compositeh5.trees.references import refs, refs_to
from compositeh5.trees.relinking import relink
from compositeh5.trees.verify import verify_files
from compositeh5.trees.walk import files_under


@pytest.fixture(autouse=True)
def _no_values_from_other_tests() -> None:
    current().clear_cache()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


def nested(link: ch5.Link) -> ch5.Composite:
    """Return a composite with links at every place where there can be one."""
    inner = ch5.Composite(None, {"info": link, "note": "inside"})
    return ch5.Composite(None, {"one": inner, "many": [ch5.Composite(None, {"info": link}), link], "info": link})


NESTED = ["one/info", "many/0/info", "many/1", "info"]


# ---- What a file links to ------------------------------------------------------------------------------------


def test_what_a_file_links_to(tree: Path) -> None:
    (found,) = refs(ccd_path(tree))
    with ch5.open(visit_path(tree)) as visit:
        assert found.link == visit.link("visit_info")
    assert (found.path, found.composite, found.component) == (str(ccd_path(tree)), "composite", "visit_info")
    assert (found.link.definition, found.link.data_id) == ("visit", {"visit": 1})
    assert found.place == str(visit_path(tree))
    assert found.state == "ok"
    assert refs(visit_path(tree)) == ()


def other_composite(tree: Path) -> None:
    os.replace(visit_path(tree, 2), visit_path(tree, 1))


def other_content(tree: Path) -> None:
    with ch5.open(visit_path(tree)) as visit:
        changed = visit.load().replace({"visit_info": {"visit": 1, "exposure_time": 31.0}}, id=visit.id)
    changed.write(visit_path(tree), replace=True)


@pytest.mark.parametrize(
    ("state", "change"),
    [("lost", lambda tree: visit_path(tree).unlink()), ("stale id", other_composite), ("stale digest", other_content)],
)
def test_what_became_of_a_target(tree: Path, state: str, change: Callable[[Path], None]) -> None:
    link = refs(ccd_path(tree))[0].link
    # The same while the old file is open.
    with ch5.open(visit_path(tree)):
        change(tree)
        (found,) = refs(ccd_path(tree))
    assert found.state == state
    assert {"lost": str(visit_path(tree)), "stale id": link.id, "stale digest": link.digest}[state] in found.detail
    assert refs(ccd_path(tree))[0].state == state


def test_a_target_found_elsewhere_has_moved(tree: Path) -> None:
    alone = tree / "elsewhere" / "deeper" / "a.h5"
    alone.parent.mkdir(parents=True)
    shutil.copy(ccd_path(tree), alone)
    (found,) = refs(alone)
    assert found.state == "moved"
    assert found.detail.endswith(str(visit_path(tree)))


def test_a_file_from_a_stranger_makes_nobody_look_in_the_network(tree: Path) -> None:
    far = ch5.Link("0" * 8 + "-0000-0000-0000-" + "0" * 12, "x", "text", "sha256:" + "0" * 64, "https://192.0.2.1/a.h5")
    ch5.Composite(None, {"x": far}).write(tree / "a.h5")
    (found,) = refs(tree / "a.h5")
    assert found.state == "lost"
    assert "isn't followed" in found.detail


def test_links_in_lists_and_nested_composites_are_links(tree: Path) -> None:
    with ch5.open(visit_path(tree)) as visit:
        link = visit.link("visit_info")
    nested(link).write(tree / "nested.h5")
    found = refs(tree / "nested.h5")
    assert [reference.component for reference in found] == NESTED
    assert {reference.state for reference in found} == {"ok"}


def test_links_of_all_composites_of_a_file(tree: Path) -> None:
    with ch5.open(visit_path(tree, 1)) as first, ch5.open(visit_path(tree, 2)) as second:
        both = {"a": ccd(first.link("visit_info"), 1), "b": ccd(second.link("visit_info"), 2)}
    ch5.write_file(tree / "both.h5", both)
    found = refs(tree / "both.h5")
    assert [(reference.composite, reference.link.data_id["visit"]) for reference in found] == [("a", 1), ("b", 2)]


# ---- Who links to a file -------------------------------------------------------------------------------------


def test_who_links_to_a_file(tree: Path) -> None:
    report = refs_to(visit_path(tree), tree)
    assert [reference.path for reference in report.references] == [str(ccd_path(tree, 1, i)) for i in range(3)]
    assert {reference.component for reference in report.references} == {"visit_info"}
    assert (report.visited.files, report.visited.unread, report.visited.foreign) == (8, (), ())
    assert refs_to(report.references[0].link.id, tree) == report


def test_who_links_to_a_file_that_is_gone_or_damaged(tree: Path) -> None:
    visit_path(tree, 1).unlink()
    assert [reference.state for reference in refs_to(visit_path(tree), tree).references] == ["lost"] * 3
    visit_path(tree, 2).write_bytes(b"nonsense")
    report = refs_to(visit_path(tree, 2), tree)
    assert len(report.references) == 3
    assert [item.path for item in report.visited.unread] == [str(visit_path(tree, 2))]


def test_a_link_that_finds_another_copy_is_none_to_the_file(tree: Path) -> None:
    copy = tree / "copy.h5"
    shutil.copy(visit_path(tree), copy)
    assert refs_to(copy, tree).references == ()
    visit_path(tree).unlink()
    assert len(refs_to(copy, tree).references) == 3


def test_links_within_a_file(tree: Path) -> None:
    shared = ch5.Composite("visit", visit_info={"visit": 5})
    ch5.write_file(tree / "first.h5", {"visit": shared})
    ch5.write_file(tree / "both.h5", {"visit": shared, "ccd": ccd(shared.link("visit_info"), 5)})
    (tree / "first.h5").unlink()
    path = (tree / "both.h5").rename(tree / "renamed.h5")
    assert [(found.composite, found.state) for found in refs(path)] == [("ccd", "moved")]
    current().clear_cache()
    with ch5.open(path, "ccd") as c:
        assert c["visit_info"]["visit"] == 5
    assert [file.path for file in relink(tree).files] == [str(path)]
    # Now it leads to the file itself, whatever its name.
    path = path.rename(tree / "again.h5")
    assert [(found.place, found.state) for found in refs(path)] == [(str(path), "ok")]
    assert relink(tree).files == ()


# ---- Which files are looked at -------------------------------------------------------------------------------


def test_what_is_not_ours_or_damaged_is_reported(tree: Path) -> None:
    before = files_under(tree)
    whole = ccd_path(tree).read_bytes()
    # Of a writer that was killed: ignored.
    (tree / "calexp" / f".calexp_1_0.h5.{'0a' * 8}.tmp").write_bytes(whole[:100])
    assert files_under(tree) == before
    with h5py.File(tree / "other.h5", "w") as file:
        file["x"] = 1
    (tree / "README.txt").write_text("text")
    (tree / "empty.h5").touch()
    os.mkfifo(tree / "pipe.h5")
    with zipfile.ZipFile(tree / "a.zip", "w") as archive:
        archive.write(ccd_path(tree), "a.h5")
    with zipfile.ZipFile(tree / "b.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    ccd_path(tree).write_bytes(whole[: len(whole) // 2])
    visited = refs_to(visit_path(tree), tree).visited
    assert visited.foreign == tuple(str(tree / name) for name in ("README.txt", "b.zip", "other.h5"))
    # Those in zip files aren't taken for none.
    assert [item.path for item in visited.unread] == [str(tree / "a.zip"), str(ccd_path(tree)), str(tree / "empty.h5")]
    assert all(item.reason for item in visited.unread)


def test_many_files_are_not_held_open(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, visits=3, ccds=6)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, limits[1]))
    try:
        assert verify_files(tree).problems == ()
        assert len(refs_to(visit_path(tree), tree).references) == 6
        assert prune(tree).files == ()
        assert relink(tree).files == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_file_with_several_names_is_read_once(tree: Path) -> None:
    os.link(ccd_path(tree), tree / "z.h5")
    (tree / "inside.h5").symlink_to(ccd_path(tree))
    (tree / "folder").symlink_to(tree / "calexp")
    (tree / "calexp" / "up").symlink_to(tree)
    report = refs_to(visit_path(tree), tree, tree / "calexp", ccd_path(tree))
    assert len(report.references) == 3
    assert report.visited.files == 8
    assert report.visited.unread == ()


def test_a_symbolic_link_is_not_followed_out_of_the_root(tree: Path, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", visits=1)
    (tree / "out").symlink_to(outside)
    (tree / "out.h5").symlink_to(ccd_path(outside))
    (tree / "nowhere.h5").symlink_to(tmp_path / "nowhere")
    visited = refs_to(visit_path(tree), tree).visited
    assert visited.files == 8
    assert [Path(item.path).name for item in visited.unread] == ["nowhere.h5", "out", "out.h5"]
    # Together with what they lead to they are no loose ends.
    assert refs_to(visit_path(tree), tree, outside).visited.files == 12


def test_a_root_may_be_a_symbolic_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    assert files_under(tmp_path / "alias") == files_under(tree)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_listed_is_reported(tree: Path) -> None:
    (tree / "calexp").chmod(0)
    try:
        unread = refs_to(visit_path(tree), tree).visited.unread
    finally:
        (tree / "calexp").chmod(0o700)
    assert [item.path for item in unread] == [str(tree / "calexp")]


def test_a_root_that_is_not_there(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        refs_to(visit_path(tree), tree / "nowhere")


def test_no_pixel_is_read(tmp_path: Path) -> None:
    visit = write_shared(tmp_path)
    exposure((1500, 1500), visit_info=visit.link("visit_info")).write(tmp_path / "big.h5")
    assert (tmp_path / "big.h5").stat().st_size > 5_000_000
    for scan in (
        lambda: refs(tmp_path / "big.h5"),
        lambda: refs_to(visit_path(tmp_path), tmp_path),
        lambda: prune(tmp_path),
        lambda: relink(tmp_path, dry_run=True),
        lambda: verify_files(tmp_path, quick=True),
    ):
        scan()
        with counted_reads() as count:
            scan()
        assert count() < 128 * 1024


# ---- Deleting ------------------------------------------------------------------------------------------------


def orphan(tree: Path, visit: int = 1) -> Path:
    """Delete the users of a visit, and return its path."""
    for detector in range(3):
        ccd_path(tree, visit, detector).unlink()
    return visit_path(tree, visit)


def test_unreferenced_shared_files_are_listed_and_then_deleted(tree: Path) -> None:
    waste = orphan(tree)
    size = waste.stat().st_size
    with ch5.open(waste) as composite:
        id_, link = composite.id, composite.link("visit_info")
    # A link from anywhere in a composite keeps its target.
    ch5.Composite(None, {"many": [ch5.Composite(None, {"info": link})]}).write(tree / "nested.h5")
    assert prune(tree, older_than=0).files == ()
    (tree / "nested.h5").unlink()
    (listed,) = prune(tree, older_than=0).files
    assert (listed.path, listed.size, listed.ids, listed.deleted) == (str(waste), size, (id_,), False)
    assert waste.exists()
    (deleted,) = prune(tree, older_than=0, delete=True).files
    assert deleted.deleted
    assert not waste.exists()
    assert verify_files(tree).problems == ()
    assert verify_files(tree).visited.files == 4


def test_only_shared_files_are_pruned(tree: Path) -> None:
    assert prune(tree, definitions=["source_catalog"], older_than=0).files == ()
    assert len(prune(tree, definitions=["exposure"], older_than=0).files) == 6
    waste = orphan(tree)
    with ch5.open(waste) as shared:
        ch5.write_file(tree / "mixed.h5", {"a": shared.load(), "b": ccd(None)})
    assert [file.path for file in prune(tree, older_than=0).files] == [str(waste)]


def test_what_only_waste_refers_to_is_waste(tmp_path: Path) -> None:
    camera = ch5.Composite("visit", visit_info={"camera": "c"})
    camera.write(tmp_path / "a_camera.h5")
    write_shared(tmp_path, 1, header=camera.link("visit_info"))
    other = write_shared(tmp_path, 2)
    ccd(other.link("visit_info"), 2).write(ccd_path(tmp_path, 2))
    report = prune(tmp_path, older_than=0)
    # Users first: whoever is interrupted leaves no link without its target.
    assert [file.path for file in report.files] == [str(visit_path(tmp_path)), str(tmp_path / "a_camera.h5")]
    with ch5.open(visit_path(tmp_path)) as visit:
        ccd(visit.link("header"), 1).write(ccd_path(tmp_path, 1))
    assert [file.path for file in prune(tmp_path, older_than=0).files] == [str(visit_path(tmp_path))]


def test_promoted_components_are_pruned_if_asked_for(tree: Path) -> None:
    with ch5.open(visit_path(tree)) as visit:
        ch5.Composite(None, {"visit_info": visit.link("visit_info")}).flatten(tree / "promoted.h5")
        ch5.Composite(None, {"visit_info": visit["visit_info"]}).write(tree / "own.h5")
    assert prune(tree, older_than=0).files == ()
    assert [file.path for file in prune(tree, promoted=True, older_than=0).files] == [str(tree / "promoted.h5")]
    with ch5.open(tree / "promoted.h5") as promoted:
        ccd(promoted.link("visit_info"), 3).write(tree / "user.h5")
    assert prune(tree, promoted=True, older_than=0).files == ()


def test_young_files_are_kept(tree: Path) -> None:
    waste = orphan(tree)
    report = prune(tree, delete=True)
    assert report.files == ()
    assert report.young == (str(waste),)
    assert waste.exists()


def test_nothing_is_deleted_where_not_all_could_be_read(tree: Path) -> None:
    waste = orphan(tree)
    os.link(waste, tree / "z.h5")
    ccd_path(tree, 2, 0).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    assert len(prune(tree, older_than=0).files) == 1
    with pytest.raises(errors.InUseError, match="calexp_2_0") as caught:
        prune(tree, older_than=0, delete=True)
    assert isinstance(caught.value, OSError)
    assert waste.exists()
    prune(tree, older_than=0, delete=True, force=True)
    # Of a file, all names.
    assert not waste.exists()
    assert not (tree / "z.h5").exists()


def test_a_file_in_use_is_only_deleted_by_force_and_its_users_are_named(tree: Path) -> None:
    path = visit_path(tree)
    (listed,) = remove([path], tree).files
    assert [user.path for user in listed.users] == [str(ccd_path(tree, 1, i)) for i in range(3)]
    assert {user.state for user in listed.users} == {"about to break"}
    with pytest.raises(errors.InUseError, match=r"3 links .*calexp_1_0\.h5: visit_info"):
        remove([path], tree, delete=True)
    assert path.exists()
    (deleted,) = remove([path], tree, delete=True, force=True).files
    assert not path.exists()
    assert [(user.component, user.state) for user in deleted.users] == [("visit_info", "lost")] * 3
    current().clear_cache()
    with ch5.open(ccd_path(tree)) as c:
        assert c["image"].shape == (6, 8)
        with pytest.raises(errors.BrokenLinkError, match=r"visit\.visit_info"):
            c["visit_info"]


def test_users_that_go_as_well_are_none(tree: Path) -> None:
    files = [visit_path(tree), *(ccd_path(tree, 1, i) for i in range(3))]
    assert all(file.deleted for file in remove(files, tree, delete=True).files)
    assert verify_files(tree).problems == ()


def test_a_damaged_file_can_be_removed_if_no_link_leads_there(tree: Path) -> None:
    damaged = tree / "damaged.h5"
    damaged.write_bytes(b"nonsense")
    with pytest.raises(errors.InUseError, match=r"damaged\.h5"):
        remove([damaged], tree, delete=True)
    assert remove([damaged], tree, delete=True, force=True).files[0].deleted


# ---- Moving --------------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, str]:
    """Return the digest of each composite under a folder by its id."""
    found = {}
    for path in files_under(root).files:
        with ch5.open(path) as composite:
            found[composite.id] = composite.digest
    return found


def test_links_are_right_again_after_files_moved(tree: Path) -> None:
    before = contents(tree)
    untouched = {path: path.stat().st_ino for path in (ccd_path(tree, 2, i) for i in range(3))}
    (tree / "new" / "deep").mkdir(parents=True)
    moved = visit_path(tree).rename(tree / "new" / "deep" / "v.h5")
    planned = relink(tree, dry_run=True)
    assert [refs(ccd_path(tree, 1, i))[0].state for i in range(3)] == ["lost"] * 3
    report = relink(tree)
    assert report == planned
    assert [file.path for file in report.files] == [str(ccd_path(tree, 1, i)) for i in range(3)]
    assert {file.places for file in report.files} == {(str(moved),)}
    assert (report.left, report.failed) == ((), ())
    assert contents(tree) == before
    assert all(path.stat().st_ino == inode for path, inode in untouched.items())
    assert verify_files(tree).problems == ()
    (found,) = refs(ccd_path(tree))
    assert found.link.uri == found.place == str(moved)
    with h5py.File(ccd_path(tree)) as file:
        assert file["composite"].get("visit_info", getlink=True).filename == "../new/deep/v.h5"
        assert file["composite/visit_info/exposure_time"][()] == 30
    assert relink(tree).files == ()


@pytest.mark.parametrize("seed", range(3))
def test_links_are_right_again_after_any_files_moved(tree: Path, seed: int) -> None:
    with ch5.open(visit_path(tree)) as visit, ch5.open(ccd_path(tree, 2)) as other:
        nested(visit.link("visit_info")).write(tree / "nested.h5")
        both = {"a": other.overlay(stage="b"), "b": nested(visit.link("visit_info")).replace({"note": "c"})}
        ch5.write_file(tree / "both.h5", both)
    before = contents(tree)
    rng = random.Random(seed)
    for i, path in enumerate(files_under(tree).files):
        if rng.random() < 0.7:
            place = tree / rng.choice(["", "a", "a/b", "calexp"]) / f"{i}.h5"
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, place)
    report = relink(tree)
    assert (report.left, report.failed) == ((), ())
    assert contents(tree) == before
    assert verify_files(tree).problems == ()
    assert relink(tree).files == ()


def test_other_content_is_never_linked_to(tree: Path) -> None:
    with ch5.open(visit_path(tree)) as visit:
        changed = visit.load().replace({"visit_info": {"visit": 7}}, id=visit.id)
    visit_path(tree).unlink()
    changed.write(tree / "changed.h5")
    report = relink(tree)
    assert report.files == ()
    assert [(link.path, link.state) for link in report.left] == [(str(ccd_path(tree, 1, i)), "lost") for i in range(3)]


def test_the_nearest_copy_is_linked_to(tree: Path) -> None:
    (tree / "a" / "b").mkdir(parents=True)
    shutil.copy(visit_path(tree), tree / "a" / "b" / "far.h5")
    visit_path(tree).rename(tree / "calexp" / "near.h5")
    relink(tree)
    assert refs(ccd_path(tree))[0].place == str(tree / "calexp" / "near.h5")


def test_each_name_of_a_file_gets_links_of_its_own(tree: Path) -> None:
    (tree / "deep" / "deeper").mkdir(parents=True)
    other = tree / "deep" / "deeper" / "a.h5"
    os.link(ccd_path(tree), other)
    assert [file.path for file in relink(tree).files] == [str(other)]
    assert refs(ccd_path(tree))[0].state == refs(other)[0].state == "ok"


def test_a_file_that_cannot_be_copied_is_reported_and_left_as_it_is(tree: Path) -> None:
    with ch5.open(visit_path(tree)) as visit:
        exposure((300, 400), visit_info=visit.link("visit_info")).write(tree / "big.h5")
    damaged = bytearray((tree / "big.h5").read_bytes())
    damaged[-1000] ^= 255
    (tree / "big.h5").write_bytes(damaged)
    visit_path(tree).rename(tree / "v.h5")
    report = relink(tree)
    assert len(report.files) == 3
    assert [item.path for item in report.failed] == [str(tree / "big.h5")]
    assert (tree / "big.h5").read_bytes() == damaged


# ---- Kills ---------------------------------------------------------------------------------------------------


def test_a_killed_relink_leaves_whole_files_and_is_finished_by_the_next(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, visits=1, ccds=5)
    before = contents(tree)
    (tree / "visit").rename(tree / "moved")
    for call in (1, 4, 9):
        assert killed(lambda: relink(tree), call)
        assert contents(tree) == before
        assert {problem.finding for problem in verify_files(tree).problems} == {"lost"}
    relink(tree)
    assert contents(tree) == before
    assert verify_files(tree).problems == ()


def test_a_killed_prune_is_finished_by_the_next(tmp_path: Path) -> None:
    shared = write_shared(tmp_path, 0)
    for visit in range(1, 9):
        shared = write_shared(tmp_path, visit, header=shared.link("visit_info"))
    used = write_shared(tmp_path, 99)
    ccd(used.link("visit_info"), 99).write(ccd_path(tmp_path, 99))
    for call in (0, 2, 3):
        assert killed(lambda: prune(tmp_path, older_than=0, delete=True), call)
        assert verify_files(tmp_path).problems == ()
    prune(tmp_path, older_than=0, delete=True)
    assert [Path(path).name for path in files_under(tmp_path).files] == ["calexp_99_0.h5", "visit_99.h5"]


# ---- The command line ----------------------------------------------------------------------------------------


def test_refs_that_may_be_incomplete_have_a_code_of_their_own(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan(tree)
    assert main(["refs", "--to", str(visit_path(tree)), str(tree)]) == 0
    (tree / "bad.h5").touch()
    assert main(["refs", "--to", str(visit_path(tree)), str(tree)]) == 2
    assert "bad.h5" in capsys.readouterr().out


def test_prune_on_the_command_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waste, used = orphan(tree), str(visit_path(tree, 2))
    for args, code, told in (
        ([], 0, "young"),
        (["--older-than", "0"], 1, str(waste)),
        (["--older-than", "0", "--delete"], 0, str(waste)),
        (["--file", used], 1, "about to break"),
        (["--file", used, "--delete"], 2, "3 links"),
        (["--file", used, "--delete", "--force"], 0, "lost"),
    ):
        assert main(["prune", str(tree), *args]) == code
        assert told in "".join(capsys.readouterr())
    assert not waste.exists()
    assert not visit_path(tree, 2).exists()


def test_relink_on_the_command_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visit_path(tree).rename(tree / "v.h5")
    assert main(["relink", str(tree), "--dry-run"]) == 1
    assert "to relink" in capsys.readouterr().out
    assert main(["relink", str(tree)]) == 0


def test_names_that_are_no_text_can_be_reported(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsencode(tree) + b"/\xff.h5"
    with open(name, "wb") as file:
        file.write(b"x")
    assert main(["verify", str(tree)]) == 1
    assert main(["verify", "--json", str(tree)]) == 1
    assert "udcff" in capsys.readouterr().out
