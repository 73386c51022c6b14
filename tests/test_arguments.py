"""Arguments that make no sense: each public function, and each method of a composite, takes them or says what is wrong.

It says so by an error of the package: no ``AttributeError`` from somewhere inside.
"""

from __future__ import annotations

import inspect
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from linked_trees import ccd_path, visit_path, write_tree
from support import exposure

import compositeh5 as ch5
from compositeh5 import kinds
from compositeh5.composite.opening import file_info, open_dataset
from compositeh5.errors import CompositeH5Error, WrongTypeError
from compositeh5.fits import convert, convert_files

ODD: dict[str, Any] = {
    "None": None,
    "int": 1,
    "negative": -1,
    "float": 1.5,
    "NaN": np.nan,
    "infinity": np.inf,
    "large int": 10**30,
    "text": "x",
    "no text": "",
    "a name": "image",
    "bytes": b"b",
    "object": object(),
    "list": [1],
    "empty list": [],
    "tuple": (1, 2),
    "texts": ("a", "b"),
    "dict": {"a": 1},
    "empty dict": {},
    "slice": slice(0, 2),
    "array": np.arange(3),
    "Box": ch5.Box(0, 1, 0, 1),
    "Image": ch5.Image(np.zeros((2, 2))),
    "path": Path("x"),
}
NUMBERS = ("int", "negative", "float", "object")
ALLOWED = (CompositeH5Error, FileNotFoundError, FileExistsError, IsADirectoryError)

FILE, OUT, MEMBERS = "e.h5", "out", "repo/calexp"
VISIT = str(visit_path(Path("repo")))
ID = "7280c70e-0000-0000-0000-000000000000"

CALLS: dict[str, tuple[tuple[Any, ...], str]] = {
    "choose": (("COMPOSITE", ["COMPOSITE"], ["wcs"]), ""),
    "compose": (("exposure", {}), "definition"),
    "convert": ((FILE, OUT), "source target"),
    "convert_files": (([FILE], OUT), "sources folder"),
    "cutouts": (([FILE], (5, 5), 3), ""),
    "diff": ((FILE, FILE), "a b"),
    "file_info": ((FILE,), "path"),
    "gather": (([FILE], "image"), "sources component"),
    "get_definition": (("exposure",), "name"),
    "index": ((MEMBERS, OUT), "root output"),
    "load_definition": (("x.yaml",), "source"),
    "open": ((FILE,), "source name id location limits stage"),
    "open_dataset": ((FILE, ID, {"visit": 1}), "source id location"),
    "open_index": ((MEMBERS,), "path"),
    "open_visit": ((VISIT, MEMBERS), "source members"),
    "promote": ((FILE, "wcs", OUT), "source component path"),
    "prune": ((MEMBERS,), "roots"),
    "read_many": (([FILE], "image"), "sources component"),
    "refs": ((FILE,), "path"),
    "refs_to": ((FILE, MEMBERS), "target roots"),
    "register_definition": (("x.yaml",), "definition"),
    "relink": ((MEMBERS,), "roots"),
    "remove": (([FILE], MEMBERS), "files roots"),
    "rescue": ((FILE, OUT), "source target limits"),
    "split": (([FILE], OUT), "sources destination"),
    "subset": ((FILE, OUT), "source destination"),
    "verify_files": ((FILE,), "paths limits"),
    "write_file": ((OUT, {"x": "COMPOSITE"}), "path composites recipes"),
    "write_together": (({"x.h5": "COMPOSITE"}, "shared.h5"), "composites shared"),
    "Composite.component_digest": (("image",), "name"),
    "Composite.component_origin": (("image",), "name"),
    "Composite.component_stage": (("image",), "name"),
    "Composite.cutout": (((5, 5), 3), "where"),
    "Composite.cutouts": (([(150, 250)], 8), "wheres"),
    "Composite.file_image": ((OUT,), "location recipes"),
    "Composite.flatten": ((OUT,), "path recipes"),
    "Composite.kind": (("image",), "name"),
    "Composite.lazy": (("image",), "name"),
    "Composite.link": (("image",), "name"),
    "Composite.memmap": (("image",), "name"),
    "Composite.opener": ((), ""),
    "Composite.overlay": ((), "components data_id"),
    "Composite.part": (("image",), "name"),
    "Composite.read": (("image",), "name"),
    "Composite.read_version": (("image", "x"), "name stage"),
    "Composite.replace": ((), "components"),
    "Composite.require_stage": (("x",), "stage"),
    "Composite.versions": (("image",), "name"),
    "Composite.with_parts": (({},), "parts"),
    "Composite.write": ((OUT,), "path recipes"),
}
"""Arguments of which one at a time is replaced, and those that are never a number: this must be refused."""

OTHERS = {"key": "detector", "best": lambda candidate: 1.0}
"""Those that must be named."""

ONE_PATH = ("convert.source", "diff.a", "file_info.path", "open.source", "prune.roots", "refs.path", "relink.roots",
            "remove.roots", "subset.source", "verify_files.paths")  # fmt: skip
"""Arguments that are one path each, never a list of them."""

FLAGS = frozenset(
    {"replace", "quick", "promoted", "delete", "dry_run", "anywhere", "force", "share", "return_exceptions"}
)
"""Anything that is true or false is one."""

MORE = {"convert": convert, "convert_files": convert_files, "file_info": file_info, "open_dataset": open_dataset}
"""Functions that aren't those of the package itself, or of its trees."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arguments")
    exposure((20, 20)).write(folder / FILE)
    write_tree(folder / "repo", visits=1, ccds=2)
    assert ccd_path(folder / "repo").parent == folder / MEMBERS
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(pristine, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def raised(call: Callable[[Any], object], values: dict[str, Any] = ODD) -> dict[str, BaseException | None]:
    """Return what is raised, by the value that was passed; fails if that isn't an error of the package."""
    found: dict[str, BaseException | None] = {}
    for name, value in values.items():
        found[name] = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = call(value)
                if inspect.isgenerator(result):
                    list(result)
        except Exception as error:
            found[name] = error
    foreign = {name: repr(error) for name, error in found.items() if error and not isinstance(error, ALLOWED)}
    assert foreign == {}
    return found


def refused(found: dict[str, BaseException | None]) -> set[str]:
    return {name for name, error in found.items() if isinstance(error, CompositeH5Error)}


def function(name: str) -> Callable[..., object]:
    if name.startswith("Composite."):
        return getattr(ch5.open(FILE), name.removeprefix("Composite."))  # type: ignore[no-any-return]
    return MORE.get(name) or getattr(ch5 if name in ch5.__all__ else ch5.trees, name)


def parameters(name: str) -> list[str]:
    kind, _, method = name.rpartition(".")
    if kind:
        found = list(inspect.signature(getattr(ch5.Composite, method)).parameters)
        return found[1:]
    return list(inspect.signature(function(name)).parameters)


def test_every_function_is_tried() -> None:
    public = {
        name for module in (ch5, ch5.trees) for name in module.__all__ if inspect.isroutine(getattr(module, name))
    }
    assert public | MORE.keys() == {name for name in CALLS if "." not in name}


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name in CALLS for argument in parameters(name)])
def test_a_function(folder: Path, name: str, argument: str) -> None:
    with ch5.open(FILE) as composite, (folder / "mine").open("wb") as mine:
        called, (given, strict) = function(name), CALLS[name]
        signature = inspect.signature(called).parameters
        positional = dict(zip(signature, _filled(given, composite), strict=False))
        named = {key: value for key, value in OTHERS.items() if key in signature and key != argument}
        kind = signature[argument].kind

        def call(value: Any) -> object:
            if argument in positional or kind is inspect.Parameter.VAR_POSITIONAL:
                return called(*{**positional, argument: value}.values(), **named)
            key = "odd" if kind is inspect.Parameter.VAR_KEYWORD else argument
            return called(*positional.values(), **named, **{key: value})

        values = {key: value for key, value in ODD.items() if key != "array" or argument not in FLAGS}
        found = raised(call, {**values, "an open file": mine.fileno()})
        if argument in strict.split():
            assert refused(found) >= {*NUMBERS, "an open file"}
        if f"{name}.{argument}" in ONE_PATH:
            assert refused(found) >= {"list", "tuple", "texts"}
        # Functions of ``os`` would take its number for a path, and close what somebody else has open.
        os.fstat(mine.fileno())
    assert (folder / FILE).exists() or argument == "delete"


def _filled(value: Any, composite: ch5.Composite) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, composite) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, composite) for key, item in value.items()}
    return composite if isinstance(value, str) and value == "COMPOSITE" else value


CLASSES: dict[str, Callable[[Any], object]] = {
    "Composite, definition": lambda value: ch5.Composite(value),
    "Composite, components": lambda value: ch5.Composite(None, value),
    "Composite, data_id": lambda value: ch5.Composite(None, x=1, data_id=value),
    "Composite, id": lambda value: ch5.Composite(None, x=1, id=value).file_image("x.h5"),
    "Composite, provenance": lambda value: ch5.Composite(None, x=1, provenance=value).file_image("x.h5"),
    "Composite, run": lambda value: ch5.Composite(None, x=1, run=value),
    "Composite, stage": lambda value: ch5.Composite(None, x=1, stage=value),
    "Composite, a component": lambda value: ch5.Composite(None, x=value).file_image("x.h5"),
    "Box": lambda value: ch5.Box(value, 1, value, 1),
    "Image": lambda value: ch5.Image(value),
    "Image, origin": lambda value: ch5.Image(np.zeros((2, 2)), origin=value),
    "Image, unit": lambda value: ch5.Image(np.zeros((2, 2)), unit=value),
    "Mask": lambda value: ch5.Mask(value),
    "Mask, planes": lambda value: ch5.Mask(np.zeros((2, 2), int), value),
    "PhotoCalib": lambda value: ch5.PhotoCalib(value),
    "PhotoCalib, error": lambda value: ch5.PhotoCalib(1.0, value),
    "Psf": lambda value: ch5.Psf(value, value),
    "Recipe, gzip": lambda value: ch5.Recipe(gzip=value),
    "Recipe, chunks": lambda value: ch5.Recipe(chunks=value),
    "Recipe, quantize": lambda value: ch5.Recipe(quantize=value),
    "Record": lambda value: ch5.Record(value),
    "Limits": lambda value: ch5.Limits(depth=value),
    "kinds.register": lambda value: kinds.register(value, value),
}


@pytest.mark.parametrize("what", CLASSES)
def test_a_class(what: str) -> None:
    assert "object" in refused(raised(CLASSES[what]))


@pytest.mark.parametrize("method", ["open", "opener", "read", "table", "shared", "containing"])
def test_a_view_of_a_visit(folder: Path, method: str) -> None:
    with ch5.trees.open_visit(VISIT, MEMBERS) as view:
        called = getattr(view, method)
        raised(called)
        if "detectors" in inspect.signature(called).parameters and method != "containing":
            raised(lambda value: called("image", detectors=value))


def test_parts_of_a_table_and_of_a_record() -> None:
    c = ch5.Composite(None, table=Table({"a": [1, 2]}), record={"a": 1})
    raised(lambda value: c.read("table", columns=value))
    raised(lambda value: c.read("record", fields=value))


def test_an_attribute_that_composites_do_not_have() -> None:
    with pytest.raises(WrongTypeError, match="replace.. has no argument 'wcs'.*mapping"):
        exposure((20, 20)).replace(wcs=None)
