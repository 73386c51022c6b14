"""Arguments that make no sense: each public function, and each method of a composite, takes them or says what is wrong.

It says so by an error of the package: no ``AttributeError`` from somewhere inside.
"""

from __future__ import annotations

import inspect
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from support import exposure
from visits import write_simulated_visit

import compositeh5 as ch5
from compositeh5 import kinds
from compositeh5.errors import CompositeH5Error

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
ALLOWED = (CompositeH5Error, FileNotFoundError, FileExistsError, IsADirectoryError)

FILE, OUT, VISIT, MEMBERS = "e.h5", "out", "repo/visit/visit.h5", "repo/calexp"

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "choose": ("COMPOSITE", ["COMPOSITE"], ["wcs"]),
    "compose": ("exposure", {}),
    "cutouts": (FILE, [(5, 5)], 3),
    "diff": (FILE, FILE),
    "gather": ([FILE], "image"),
    "get_definition": ("exposure",),
    "index": (MEMBERS, OUT),
    "load_definition": ("x.yaml",),
    "open": (FILE,),
    "open_index": (MEMBERS,),
    "open_visit": (VISIT, MEMBERS),
    "promote": (FILE, "wcs", OUT),
    "prune": (MEMBERS,),
    "read_many": ([FILE], "image"),
    "refs": (FILE,),
    "refs_to": (FILE, MEMBERS),
    "register_definition": ("x.yaml",),
    "relink": (MEMBERS,),
    "remove": ([FILE], MEMBERS),
    "rescue": (FILE, OUT),
    "split": ([FILE], OUT),
    "subset": (FILE, OUT),
    "verify_files": (FILE,),
    "write_file": (OUT, {"x": "COMPOSITE"}),
    "write_together": ({"x.h5": "COMPOSITE"}, "shared.h5"),
}
"""Arguments of which one at a time is replaced."""

OTHERS = {"key": "detector", "best": lambda candidate: 1.0}
"""Those that must be named."""

FLAGS = frozenset(
    {
        "replace",
        "quick",
        "promoted",
        "delete",
        "dry_run",
        "anywhere",
        "force",
        "share",
        "return_exceptions",
    }
)
"""Anything that is true or false is one."""

METHODS: dict[str, tuple[Any, ...]] = {
    "component_digest": ("image",),
    "component_origin": ("image",),
    "component_stage": ("image",),
    "cutout": ((5, 5), 3),
    "file_image": (OUT,),
    "flatten": (OUT,),
    "kind": ("image",),
    "lazy": ("image",),
    "link": ("image",),
    "memmap": ("image",),
    "overlay": (),
    "read": ("image",),
    "read_version": ("image", "x"),
    "replace": (),
    "require_stage": ("x",),
    "opener": (),
    "cutouts": ([(150, 250)], 8),
    "with_parts": ({},),
    "part": ("image",),
    "versions": ("image",),
    "write": (OUT,),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arguments")
    exposure((20, 20)).write(folder / FILE)
    write_simulated_visit(folder / "repo")
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(pristine, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def foreign_errors(call: Callable[[Any], object], without: Iterable[str] = ()) -> dict[str, str]:
    """Return what is raised that isn't an error of the package, by the value that was passed."""
    found = {}
    for name, value in ODD.items():
        if name in without:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = call(value)
                if inspect.isgenerator(result):
                    list(result)
        except ALLOWED:
            pass
        except Exception as error:
            found[name] = repr(error)
    return found


def function_named(name: str) -> Callable[..., object]:
    return getattr(ch5 if name in ch5.__all__ else ch5.trees, name)


def test_every_function_is_tried() -> None:
    public = {
        name for module in (ch5, ch5.trees) for name in module.__all__ if inspect.isroutine(getattr(module, name))
    }
    assert public == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("function", "argument"),
    [(name, argument) for name in FUNCTIONS for argument in inspect.signature(function_named(name)).parameters],
)
def test_a_function(folder: Path, function: str, argument: str) -> None:
    with ch5.open(FILE) as composite:
        called = function_named(function)
        given = _filled(FUNCTIONS[function], composite)
        assert foreign_errors(*_calls(called, given, argument, inspect.signature(called).parameters)) == {}
    assert (folder / FILE).exists() or argument == "delete"


def _calls(
    called: Callable[..., object], given: tuple[Any, ...], argument: str, parameters: Mapping[str, inspect.Parameter]
) -> tuple[Callable[[Any], object], list[str]]:
    """Return what calls a function with a value for one of its arguments, and which values not to try."""
    named = {name: value for name, value in OTHERS.items() if name in parameters and name != argument}

    def call(value: Any) -> object:
        positional, more = dict(zip(parameters, given, strict=False)), dict(named)
        kind = parameters[argument].kind
        if argument in positional or kind is inspect.Parameter.VAR_POSITIONAL:
            positional[argument] = value
        else:
            more["odd" if kind is inspect.Parameter.VAR_KEYWORD else argument] = value
        return called(*positional.values(), **more)

    return call, ["array"] if argument in FLAGS else []


def _filled(value: Any, composite: ch5.Composite) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, composite) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, composite) for key, item in value.items()}
    return composite if isinstance(value, str) and value == "COMPOSITE" else value


@pytest.mark.parametrize("method", METHODS)
def test_a_method(folder: Path, method: str) -> None:
    with ch5.open(FILE) as composite:
        called = getattr(composite, method)
        for argument in (parameters := inspect.signature(called).parameters):
            assert (argument, foreign_errors(*_calls(called, METHODS[method], argument, parameters))) == (argument, {})
    os.stat(FILE)


MORE: dict[str, Callable[[Any], object]] = {
    "Composite, definition": lambda value: ch5.Composite(value),
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


@pytest.mark.parametrize("what", MORE)
def test_a_class(what: str) -> None:
    assert foreign_errors(MORE[what]) == {}


VIEW = ["open", "opener", "read", "table", "shared", "containing"]


@pytest.mark.parametrize("method", VIEW)
def test_a_view_of_a_visit(folder: Path, method: str) -> None:
    with ch5.trees.open_visit(VISIT, MEMBERS) as view:
        assert foreign_errors(lambda value: getattr(view, method)(value)) == {}
        if "detectors" in inspect.signature(getattr(view, method)).parameters and method != "containing":
            assert foreign_errors(lambda value: getattr(view, method)("image", detectors=value)) == {}


def test_parts_of_a_table_and_of_a_record() -> None:
    c = ch5.Composite(None, table=Table({"a": [1, 2]}), record={"a": 1})
    assert foreign_errors(lambda value: c.read("table", columns=value)) == {}
    assert foreign_errors(lambda value: c.read("record", fields=value)) == {}
