"""Whatever is called with a file that can't be read says why, leaves nothing open, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import exposure, write_visit

import compositeh5 as ch5
from compositeh5 import cli, errors
from compositeh5.convert import convert
from compositeh5.opening import file_info, open_dataset

# ---- Files that can't be read -------------------------------------------------------------------------------


def _nexus(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["data/counts"] = np.arange(9)


def _netcdf4(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.0"
        file["x"] = np.arange(4.0)
        file["x"].make_scale("x")
        file["t"] = np.zeros(4)
        file["t"].dims[0].attach_scale(file["x"])


def _pytables(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"CLASS": "GROUP", "PYTABLES_FORMAT_VERSION": "2.1", "TITLE": h5py.Empty("S1")})
        file["table"] = np.zeros(3, "i4,f8")


def _anndata(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file.create_dataset("X", data=np.eye(3), compression="lzf")
        file["obs/_index"] = np.array(["a", "b", "c"], h5py.string_dtype())


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
    "NeXus": (_nexus, errors.NotACompositeFileError),
    "netCDF4": (_netcdf4, errors.NotACompositeFileError),
    "PyTables": (_pytables, errors.NotACompositeFileError),
    "AnnData": (_anndata, errors.NotACompositeFileError),
    "newer": (_newer, errors.UnsupportedVersionError),
    "truncated": (_truncated, errors.CorruptFileError),
    "FIFO": (os.mkfifo, errors.RefusedError),
}
FOREIGN = {"NeXus", "netCDF4", "PyTables", "AnnData", "empty", "text"}
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
    "refs": lambda bad, out: ch5.refs(bad),
    "split": lambda bad, out: ch5.split([bad], out),
    "diff, the first": lambda bad, out: ch5.diff(bad, _good(bad)),
    "diff, the second": lambda bad, out: ch5.diff(_good(bad), bad),
    "gather": lambda bad, out: ch5.gather([bad], "image", key="detector"),
    "read_many": lambda bad, out: list(ch5.read_many([bad], "image")),
    "cutouts": lambda bad, out: list(ch5.cutouts([bad], (1, 2), 3)),
    "promote": lambda bad, out: ch5.promote(bad, "image", out / "x.h5"),
    "rescue": lambda bad, out: ch5.rescue(bad, out / "x.h5"),
    "open_visit": lambda bad, out: ch5.open_visit(bad, bad.parents[1] / "good"),
}
"""Functions that need the file: they raise its error."""
# It looks for a file, and says that there is none.
OTHERWISE = {("open_visit", "folder"): FileNotFoundError, ("open_visit", "FIFO"): FileNotFoundError}

TREE: dict[str, Call] = {
    "verify_files": lambda bad, out: ch5.verify_files(bad).problems,
    "verify_files of a tree": lambda bad, out: ch5.verify_files(bad.parent).problems,
    "refs_to": lambda bad, out: ch5.refs_to(_good(bad), bad.parent),
    "migrate": lambda bad, out: ch5.migrate([bad]),
    "relink": lambda bad, out: ch5.relink(bad.parent, dry_run=True),
    "prune": lambda bad, out: ch5.prune(bad.parent),
    "remove": lambda bad, out: ch5.remove([_good(bad)], bad.parent),
    "subset": lambda bad, out: ch5.subset(bad.parent, out / "x"),
    "index": lambda bad, out: ch5.index(bad.parent, out / "x.h5"),
}
"""Functions that go through many files: what can't be read is in their report, or their error."""


def _good(bad: Path) -> Path:
    return next((bad.parents[2 if bad.parent.name == "none" else 1] / "good" / "calexp").glob("*.h5"))


@pytest.mark.parametrize("file", BAD)
@pytest.mark.parametrize("function", ONE)
def test_a_function_says_what_is_wrong_with_its_file(
    places: dict[str, Path], tmp_path: Path, function: str, file: str
) -> None:
    bad, error = places[file], OTHERWISE.get((function, file), BAD[file][1])
    with pytest.raises(error) as caught:
        ONE[function](bad, tmp_path / "out")
    assert type(caught.value) is error
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


@pytest.mark.parametrize("file", BAD)
def test_convert(places: dict[str, Path], tmp_path: Path, file: str) -> None:
    with pytest.raises((errors.CompositeH5Error, OSError), match="x.h5"):
        convert(places[file], tmp_path / "out.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, 3, b"x.h5", 1.5, [], object()])
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(TypeError, match="path"):
        ch5.open(value)


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
    "migrate": ["migrate", "BAD"],
    "relink": ["relink", "--dry-run", "FOLDER"],
    "prune": ["prune", "FOLDER"],
    "subset": ["subset", "FOLDER", "OUT/x"],
    "index": ["index", "FOLDER", "-o", "OUT/x.h5"],
}
WITHOUT_FILES = {"demo"}
UNTRIED = {("convert", "folder")}
"""It converts all that is in a folder."""


def _arguments(words: list[str], bad: Path, out: Path) -> list[str]:
    good = _good(bad)
    known = {"BAD": str(bad), "GOOD": str(good), "TREE": str(good.parents[1]), "FOLDER": str(bad.parent)}
    return [known.get(word, word.replace("OUT", str(out))) for word in words]


def test_every_verb_is_tried() -> None:
    assert VERBS.keys() | TREE_VERBS.keys() | WITHOUT_FILES == cli._VERBS.keys()


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
    kinds = [
        FileNotFoundError,
        errors.NotACompositeFileError,
        errors.CorruptFileError,
        errors.RefusedError,
        errors.UnsupportedVersionError,
        errors.ConflictError,
        errors.InUseError,
        errors.FormatError,
        errors.NoSuchComponentError,
        errors.AbsentComponentError,
        errors.DigestMismatchError,
    ]
    for one in kinds:
        assert not [other for other in kinds if other is not one and issubclass(one, other)]
    assert issubclass(errors.BrokenLinkError, FileNotFoundError)
