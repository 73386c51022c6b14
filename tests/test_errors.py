"""Whatever is called with a file that can't be read says why, leaves nothing open, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import exposure, write_visit

import compositeh5 as ch5
from compositeh5 import cli, errors
from compositeh5.composite.opening import file_info, open_dataset
from compositeh5.fits import convert

# ---- Files that can't be read -------------------------------------------------------------------------------


def _foreign(attrs: dict[str, Any], **datasets: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs.update(attrs)
            for name, values in datasets.items():
                file[f"group/{name}"] = values

    return make


def _busy(path: Path) -> None:
    """As it is while h5py has it open for writing."""
    exposure((20, 20)).write(path)
    with h5py.File(path, "r+") as file:
        file.flush()
        content = path.read_bytes()
    path.write_bytes(content)


def _newer(path: Path) -> None:
    exposure((20, 20)).write(path)
    with h5py.File(path, "r+") as file:
        file.attrs["min_reader"] = 99


def _truncated(path: Path) -> None:
    exposure((20, 20)).write(path)
    os.truncate(path, path.stat().st_size // 2)


BAD: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    "missing": (lambda path: None, FileNotFoundError),
    "folder missing": (lambda path: None, FileNotFoundError),
    "folder": (Path.mkdir, IsADirectoryError),
    "empty": (Path.touch, errors.NotACompositeFileError),
    "text": (lambda path: path.write_text("not HDF5\n" * 99), errors.NotACompositeFileError),
    "NeXus": (_foreign({"NX_class": "NXroot", "default": "group"}, x=np.arange(9)), errors.NotACompositeFileError),
    "PyTables": (
        _foreign({"CLASS": "GROUP", "TITLE": h5py.Empty("S1")}, table=np.zeros(3, "i4,f8")),
        errors.NotACompositeFileError,
    ),
    "AnnData": (
        _foreign({"encoding-type": "anndata"}, index=np.array(["a", "b"], h5py.string_dtype())),
        errors.NotACompositeFileError,
    ),
    "NDF": (_foreign({"CLASS": np.bytes_("NDF"), "HDS_ROOT_NAME": np.bytes_("SKY")}), errors.NotACompositeFileError),
    "busy": (_busy, errors.BusyError),
    "newer": (_newer, errors.UnsupportedVersionError),
    "truncated": (_truncated, errors.CorruptFileError),
    "FIFO": (os.mkfifo, errors.RefusedError),
}
FOREIGN = {"NeXus", "PyTables", "AnnData", "NDF", "empty", "text"}
TREES = {"folder", "FIFO"}
"""What operations on whole trees take, or pass by."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each bad file in a folder of its own, and a good tree."""
    root = tmp_path_factory.mktemp("errors")
    found = {}
    for name, (make, _) in BAD.items():
        (root / name).mkdir()
        found[name] = root / name / ("none/x.h5" if name == "folder missing" else "x.h5")
        make(found[name])
    write_visit(root / "good", ccds=1)
    return found


@pytest.fixture(autouse=True)
def _nothing_open_nothing_changed(places: dict[str, Path]) -> Iterator[None]:
    root = places["missing"].parents[1]

    def state() -> tuple[list[str], list[tuple[str, int, int]]]:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        is_open = sorted(os.readlink(link) for link in links if os.path.lexists(link))
        files = [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(root.rglob("*"))]
        return [name for name in is_open if name.startswith(str(root))], files

    before = state()
    yield
    assert state() == before


# ---- Functions ----------------------------------------------------------------------------------------------

Call = Callable[[Path, Path], Any]
"""Is given the bad file, and a place for output that isn't there."""


def _with(path: Path, use: Callable[[ch5.Composite], Any]) -> Any:
    with ch5.open(path) as composite:
        return use(composite)


ONE: dict[str, Call] = {
    "open": lambda bad, out: ch5.open(bad),
    "open by id": lambda bad, out: ch5.open(bad, id="7280c70e-0000-0000-0000-000000000000"),
    "open by name": lambda bad, out: ch5.open(str(bad), "other"),
    "open a stage": lambda bad, out: ch5.open(bad, stage="jointcal"),
    "open_dataset": lambda bad, out: open_dataset(bad, "7280c70e-0000-0000-0000-000000000000", {"visit": 1}),
    "file_info": lambda bad, out: file_info(bad),
    "flatten": lambda bad, out: _with(bad, lambda c: c.flatten(out)),
    "refs": lambda bad, out: ch5.trees.refs(bad),
    "split": lambda bad, out: ch5.trees.split([bad], out),
    "diff, the first": lambda bad, out: ch5.diff(bad, _good(bad)),
    "diff, the second": lambda bad, out: ch5.diff(_good(bad), bad),
    "gather": lambda bad, out: ch5.trees.gather([bad], "image", key="detector"),
    "read_many": lambda bad, out: list(ch5.trees.read_many([bad], "image")),
    "cutouts": lambda bad, out: list(ch5.trees.cutouts([bad], (1, 2), 3)),
    "promote": lambda bad, out: ch5.trees.promote(bad, "image", out / "x.h5"),
    "rescue": lambda bad, out: ch5.trees.rescue(bad, out / "x.h5"),
    "open_index": lambda bad, out: ch5.trees.open_index(bad),
    "open_visit": lambda bad, out: ch5.trees.open_visit(bad, bad.parents[1] / "good"),
    "convert": lambda bad, out: convert(bad, out),
}
"""Functions that need the file: they raise its error."""
# It looks for a file, and says that there is none.
OTHERWISE = {
    ("open_index", "folder"): FileNotFoundError,
    ("open_visit", "folder"): FileNotFoundError,
    ("open_visit", "FIFO"): FileNotFoundError,
}

TREE: dict[str, Call] = {
    "verify_files": lambda bad, out: ch5.trees.verify_files(bad).problems,
    "verify_files of a tree": lambda bad, out: ch5.trees.verify_files(bad.parent).problems,
    "refs_to": lambda bad, out: ch5.trees.refs_to(_good(bad), bad.parent),
    "relink": lambda bad, out: ch5.trees.relink(bad.parent, dry_run=True),
    "prune": lambda bad, out: ch5.trees.prune(bad.parent),
    "remove": lambda bad, out: ch5.trees.remove([_good(bad)], bad.parent),
    "subset": lambda bad, out: ch5.trees.subset(bad.parent, out / "x"),
    "index": lambda bad, out: ch5.trees.index(bad.parent, out / "x.h5"),
}
"""Functions that go through many files: what can't be read is in their report, or their error."""


def _good(bad: Path) -> Path:
    return next((bad.parents[2 if bad.parent.name == "none" else 1] / "good" / "calexp").glob("*.h5"))


@pytest.mark.parametrize(
    ("function", "file"), [(name, file) for name in ONE for file in BAD if (name, file) != ("rescue", "busy")]
)
def test_a_function_says_what_is_wrong_with_its_file(
    places: dict[str, Path], tmp_path: Path, function: str, file: str
) -> None:
    bad, error = places[file], OTHERWISE.get((function, file), BAD[file][1])
    # FITS files are tried, too, so that it is a `ConversionError` of what has neither beginning.
    with pytest.raises((errors.CompositeH5Error, OSError) if function == "convert" else error) as caught:
        ONE[function](bad, tmp_path / "out")
    assert type(caught.value) is error or function == "convert"
    assert "x.h5" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", BAD)
@pytest.mark.parametrize("function", TREE)
def test_a_function_of_trees_reports_what_it_can_not_read(
    places: dict[str, Path], tmp_path: Path, function: str, file: str
) -> None:
    try:
        report = TREE[function](places[file], tmp_path / "out")
    except (OSError, errors.CompositeH5Error) as error:
        report = f"{places[file]}: {error}" if str(places[file].parent) in str(error) else error
    if file not in FOREIGN | TREES and places[file].exists():
        assert "x.h5" in repr(report)


# ---- The command line ---------------------------------------------------------------------------------------

VERBS: dict[str, list[str]] = {
    "ls": ["ls", "BAD"],
    "info": ["info", "BAD"],
    "get": ["get", "BAD", "image", "-o", "OUT/x.fits"],
    "convert": ["convert", "BAD", "OUT/x.h5"],
    "flatten": ["flatten", "BAD", "OUT/x.h5"],
    "preview": ["preview", "BAD", "-o", "OUT/x.png"],
    "split": ["split", "BAD", "OUT/x"],
    "promote": ["promote", "BAD", "image", "OUT/x.h5"],
    "rescue": ["rescue", "BAD", "OUT/x.h5"],
    "diff": ["diff", "BAD", "GOOD"],
    "refs": ["refs", "BAD"],
    "visit": ["visit", "BAD", "TREE"],
}
TREE_VERBS: dict[str, list[str]] = {
    "verify": ["verify", "BAD"],
    "relink": ["relink", "--dry-run", "FOLDER"],
    "prune": ["prune", "FOLDER"],
    "subset": ["subset", "FOLDER", "OUT/x"],
    "index": ["index", "FOLDER", "-o", "OUT/x.h5"],
}
WITHOUT_FILES = {"demo"}
UNTRIED = {("convert", "folder"), ("rescue", "busy")}
"""It converts all that is in a folder, and saves what is in a file that is marked as open for writing."""


def _arguments(words: list[str], bad: Path, out: Path) -> list[str]:
    good = _good(bad)
    known = {"BAD": str(bad), "GOOD": str(good), "TREE": str(good.parents[1]), "FOLDER": str(bad.parent)}
    return [known.get(word, word.replace("OUT", str(out))) for word in words]


def test_every_verb_is_tried() -> None:
    assert VERBS.keys() | TREE_VERBS.keys() | WITHOUT_FILES == cli.VERBS.keys()


@pytest.mark.parametrize(
    ("verb", "file"), [(verb, file) for verb in VERBS for file in BAD if (verb, file) not in UNTRIED]
)
def test_a_verb_says_what_is_wrong_with_its_file(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, file: str
) -> None:
    assert cli.main(_arguments(VERBS[verb], places[file], tmp_path / "out")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("compositeh5: error: ")
    # A preview of a folder is that of a visit, of which there is none.
    assert "x.h5" in said.err or (verb, file) == ("preview", "folder")
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", BAD)
@pytest.mark.parametrize("verb", TREE_VERBS)
def test_a_verb_of_trees_reports_what_it_can_not_read(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, file: str
) -> None:
    code = cli.main(_arguments(TREE_VERBS[verb], places[file], tmp_path / "out"))
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if code:
        assert "x.h5" in said.out + said.err or str(places[file].parent) in said.err
    else:
        assert file in FOREIGN | TREES or not places[file].exists()


# ---- Classes ------------------------------------------------------------------------------------------------


def test_what_can_go_wrong_has_different_classes() -> None:
    """Not found, not ours, corrupt, refused, too new, conflict, in use, link lost: none is a sort of another."""
    apart = [
        FileNotFoundError,
        errors.NotACompositeFileError,
        errors.CorruptFileError,
        errors.RefusedError,
        errors.UnsupportedVersionError,
        errors.UnknownKindError,
        errors.ConflictError,
        errors.InUseError,
        errors.BusyError,
        errors.NoSpaceError,
        errors.FormatError,
        errors.NoSuchComponentError,
        errors.AbsentComponentError,
        errors.DigestMismatchError,
    ]
    lost = [errors.LinkRefusedError, errors.WrongIdError]
    for kinds in (apart, lost):
        assert [(a, b) for a in kinds for b in kinds if a is not b and issubclass(a, b)] == []
    assert all(issubclass(error, errors.BrokenLinkError) for error in lost)
    assert issubclass(errors.BrokenLinkError, FileNotFoundError)
    assert issubclass(errors.LimitError, errors.RefusedError)


# ---- What spoils one component only ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "hologram"}, errors.UnknownKindError, "no installed package knows the kind 'holo"),
        ({"kind": "table"}, errors.FormatError, ""),
        ({"kind_version": 99}, errors.UnsupportedVersionError, "version 99 of kind 'image' is newer"),
    ],
)
def test_a_component_of_a_wrong_kind(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """It alone can't be read."""
    path = tmp_path / "x.h5"
    exposure((20, 20)).write(path)
    with h5py.File(path, "r+") as file:
        for name, value in changes.items():
            file["composite/image"].attrs[name] = value if isinstance(value, int) else np.bytes_(value)
    with ch5.open(path) as composite:
        with pytest.raises(error, match=f"x.h5:/composite/image: .*{message}"):
            composite["image"]
        assert composite["mask"].shape == (20, 20)


def test_a_link_that_is_refused(tmp_path: Path) -> None:
    base = ch5.Composite(None, x=np.arange(3))
    base.write(tmp_path / "base.h5")
    away = replace(base.link("x"), uri="https://example.org/base.h5", id="7280c70e-0000-5000-8000-000000000000")
    ch5.Composite(None, x=away).write(tmp_path / "x.h5")
    with ch5.open(tmp_path / "x.h5") as composite, pytest.raises(errors.LinkRefusedError, match="example.org"):
        composite["x"]
