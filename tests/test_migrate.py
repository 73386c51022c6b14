"""Versions of the format: which files are read, which are refused, and how old ones become new ones."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import exposure, pixels, visit_info, write_visit

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.container import publish as publishing
from compositeh5.errors import ConflictError, CorruptFileError, FormatError, UnsupportedVersionError
from compositeh5.operations.diff import diff
from compositeh5.operations.migrate import Migration, migrate, migrate_file
from compositeh5.operations.verify import verify


def set_version(path: Path, version: str, min_reader: int = 1) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["compositeh5_format"] = np.bytes_(version.encode())
        file.attrs["min_reader"] = np.int64(min_reader)


def make_old(path: Path) -> None:
    """Make a file what format 0.9 had: no ids, and links that lead to names."""

    def bare(group: h5py.Group) -> None:
        for name in list(group):
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                del group[name]
                group[name] = h5py.ExternalLink(link.filename, f"/composite/{link.path.rpartition('/')[2]}")
            elif isinstance(group[name], h5py.Group):
                bare(group[name])

    with h5py.File(path, "r+") as file:
        del file["by-id"]
        bare(file)
    set_version(path, "0.9")


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, list[Path], dict[Path, tuple[str, str]]]:
    """A visit and two exposures with links to it, in format 0.9; and the id and digest of each."""
    root = tmp_path / "old"
    visit, ccds = write_visit(root)
    paths = [visit, *ccds]
    with ch5.open(visit) as v, ch5.open(ccds[0]) as c:
        # Links also in lists, and in composites in composites.
        inner = ch5.Composite(None, info=v.link("visit_info"), x=np.arange(3))
        whole = ch5.Composite(None, items=[c.link("wcs"), "text"], inner=inner)
        whole.write(root / "whole.h5")
    paths.append(root / "whole.h5")
    known = {}
    for path in paths:
        with ch5.open(path) as composite:
            known[path] = composite.id, composite.digest
        make_old(path)
    return root, paths, known


Tree = tuple[Path, list[Path], dict[Path, tuple[str, str]]]


def check(root: Path, known: dict[Path, tuple[str, str]], where: Path) -> None:
    for old, (id_, digest) in known.items():
        new = where / old.relative_to(root)
        with ch5.open(new) as composite:
            assert (composite.id, composite.digest, composite.recorded_digest) == (id_, digest, digest)
            verify(composite)
        with h5py.File(new) as file:
            assert list(file["by-id"]) == [id_]
    with ch5.open(where / "calexp" / "calexp_903334_0.h5") as ccd:
        assert ccd["visit_info"]["visit"] == 903334
        # Other readers find it, too.
        assert h5py.File(ccd.location)["composite/visit_info/visit"][()] == 903334
    with ch5.open(where / "whole.h5") as whole:
        assert whole["items"][1] == "text"
        assert whole["items"][0].wcs.crval[0] == pytest.approx(150.1)
        assert whole["inner"]["info"]["visit"] == 903334


# ---- What is read, and what is refused ----------------------------------------------------------------------


def test_files_from_before_the_first_release_are_refused(tree: Tree) -> None:
    _, (visit, *_), _ = tree
    with pytest.raises(UnsupportedVersionError, match=r"format 0\.9 is older than 1\.0.*compositeh5 migrate"):
        ch5.open(visit)


def test_later_minor_versions_are_read(tmp_path: Path) -> None:
    ch5.Composite(None, x=np.arange(3)).write(tmp_path / "a.h5")
    set_version(tmp_path / "a.h5", "1.7")
    with ch5.open(tmp_path / "a.h5") as composite:
        assert composite["x"].tolist() == [0, 1, 2]
    content = (tmp_path / "a.h5").read_bytes()
    assert not migrate_file(str(tmp_path / "a.h5"))
    assert (tmp_path / "a.h5").read_bytes() == content


def test_files_for_newer_readers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.Composite(None, x=np.arange(3)).write(path)
    set_version(path, "2.0", min_reader=2)
    for read in (ch5.open, lambda path: migrate_file(str(path))):
        with pytest.raises(UnsupportedVersionError, match=r"format 2\.0 needs reader version 2.* install"):
            read(path)
    assert "2.0" in migrate([path], in_place=True)[0].problem


def test_unknown_old_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.Composite(None, x=np.arange(3)).write(path)
    set_version(path, "0.5")
    with pytest.raises(UnsupportedVersionError, match=r"never was a format 0\.5; .* are 0\.9"):
        migrate_file(str(path))
    set_version(path, "new")
    with pytest.raises(FormatError, match=r"major\.minor"):
        ch5.open(path)


def test_newer_versions_of_a_kind_are_refused_and_others_read(tmp_path: Path) -> None:
    ch5.Composite(None, x=np.arange(3), y="text").write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["composite/x"].attrs["kind_version"] = np.int64(2)
    with ch5.open(tmp_path / "a.h5") as composite:
        assert composite["y"] == "text"
        with pytest.raises(UnsupportedVersionError, match="version 2 of kind 'array'"):
            composite["x"]


# ---- Migration ----------------------------------------------------------------------------------------------


def test_in_place(tree: Tree) -> None:
    root, paths, known = tree
    assert {m.path: (m.version, m.target, m.problem) for m in migrate([root], in_place=True)} == {
        str(path): ("0.9", str(path), "") for path in paths
    }
    check(root, known, root)
    # All is done: the next call leaves them alone.
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    assert {(m.version, m.target) for m in migrate([root], in_place=True)} == {("1.0", "")}
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths} == before


def test_to_another_folder(tree: Tree, tmp_path: Path) -> None:
    root, paths, known = tree
    before = {path: path.read_bytes() for path in paths}
    for _ in range(2):  # again, as after an interruption
        assert [m.problem for m in migrate([root], output=tmp_path / "new")] == [""] * len(paths)
        check(root, known, tmp_path / "new")
    assert {path: path.read_bytes() for path in paths} == before
    # The links lead to the new files, not back to the old ones, and so do the records of where these are.
    with ch5.open(tmp_path / "new" / "calexp" / "calexp_903334_0.h5") as ccd:
        assert ccd.links["visit_info"].uri == str(tmp_path / "new" / "visit" / "visit_903334.h5")
    for path in paths:
        path.unlink()
    check(root, known, tmp_path / "new")


def test_links_to_files_that_stay_lead_there(tree: Tree, tmp_path: Path) -> None:
    _, (visit, ccd, *_), _ = tree
    migrate([visit], in_place=True)
    assert [m.target for m in migrate([ccd], output=tmp_path / "far" / "new")] == [str(tmp_path / "far/new" / ccd.name)]
    with h5py.File(tmp_path / "far" / "new" / ccd.name) as file:
        assert file["composite/visit_info/visit"][()] == 903334
        link = file["composite"].get("visit_info", getlink=True)
        assert link.filename == "../../old/visit/visit_903334.h5"


def test_what_is_migrated_equals_what_is_written_now(tree: Tree, tmp_path: Path) -> None:
    root, paths, _ = tree
    write_visit(tmp_path / "reference")
    migrate([root], in_place=True)
    for path in paths[:3]:
        reference = tmp_path / "reference" / path.relative_to(root)
        assert path.read_bytes() == reference.read_bytes() or diff(path, reference).identical
        assert not diff(path, reference).attributes


def test_several_composites_in_a_file_keep_names_and_order(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.write_file(path, {"z": exposure((20, 30)), "a": ch5.Composite(None, x="1"), "m": ch5.Composite(None, x="2")})
    with ch5.open(path, "a") as composite:
        id_ = composite.id
    make_old(path)
    assert migrate_file(str(path))
    with h5py.File(path) as file:
        assert file.attrs["default"] == b"z"
        assert file["by-id"].get(id_, getlink=True).path == "/a"
    with ch5.open(path, id=id_) as composite:
        assert composite["x"] == "1"


def test_without_a_place_nothing_is_written(tree: Tree) -> None:
    root, paths, _ = tree
    before = {path: path.read_bytes() for path in paths}
    assert {m.target for m in migrate([root])} == set(map(str, paths))
    assert {path: path.read_bytes() for path in paths} == before
    with pytest.raises(ValueError, match="not both"):
        migrate([root], in_place=True, output=root)


def test_other_threads(tree: Tree) -> None:
    root, paths, known = tree
    seen: list[tuple[str, int, int]] = []
    with ThreadPoolExecutor(3) as executor:
        migrate([root], in_place=True, executor=executor, progress=lambda *step: seen.append(step))
    check(root, known, root)
    assert seen[-1] == ("migrating", len(paths), len(paths))


def test_damaged_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.Composite(None, image=ch5.Image(pixels((100, 100)))).write(path)
    make_old(path)
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        start = file["composite/image"].id.get_chunk_info(0).byte_offset
    content[start + 100 : start + 110] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(CorruptFileError):
        migrate_file(str(path))
    (done,) = migrate([path], in_place=True)
    assert "damaged" in done.problem
    assert path.read_bytes() == content


def test_contents_that_do_not_have_their_digest_are_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.Composite(None, x=np.arange(3)).write(path)
    make_old(path)
    with h5py.File(path, "r+") as file:
        file["composite/x"][1] = 7
    with pytest.raises(ch5.CompositeH5Error, match="recorded"):
        migrate_file(str(path))


def test_a_failure_to_write_leaves_the_old_file(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, known = tree

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset or len(data) <= 100:
            raise OSError(28, "No space left on device")
        return os.write(fd, data[:100])

    with monkeypatch.context() as patched:
        patched.setattr(publishing.os, "pwrite", full)
        assert all("No space" in m.problem for m in migrate([root], in_place=True))
    assert not list(root.rglob("*.tmp"))
    migrate([root], in_place=True)
    check(root, known, root)


def test_another_file_at_the_target_is_not_replaced(tree: Tree, tmp_path: Path) -> None:
    _, (visit, *_), _ = tree
    target = tmp_path / "new.h5"
    target.write_text("mine")
    with pytest.raises(ConflictError, match="is there already"):
        migrate_file(str(visit), str(target))
    assert target.read_text() == "mine"


def test_symbolic_links_stay(tree: Tree, tmp_path: Path) -> None:
    _, (visit, *_), _ = tree
    (tmp_path / "name.h5").symlink_to(visit)
    migrate([tmp_path / "name.h5"], in_place=True)
    assert (tmp_path / "name.h5").is_symlink()
    with ch5.open(visit) as composite:
        assert composite["visit_info"] == ch5.Record(visit_info())


def test_the_command(tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, paths, known = tree
    with h5py.File(root / "foreign.h5", "w") as file:
        file["x"] = 1
    assert main(["migrate", str(root)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1].split() == ["to", "migrate", str(sorted(paths)[0]), "version", "0.9"]
    assert out[-1] == "4 to migrate, 1 left alone, 0 failed"
    assert main(["migrate", str(root), "--output", str(tmp_path / "new"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert Migration(**document[0]).target.startswith(str(tmp_path / "new"))
    check(root, known, tmp_path / "new")
    assert main(["migrate", str(root), "--in-place"]) == 0
    assert main(["migrate", str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 to migrate, 5 left alone, 0 failed"
    (root / "bad.h5").write_bytes(paths[0].read_bytes()[:-1])
    assert main(["migrate", str(root), "--in-place"]) == 2
    assert "bad.h5" in capsys.readouterr().out
