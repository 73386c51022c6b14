"""Every public name has a docstring, its own or that of what it overrides, and what numpydoc's sections say is true."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import pydoc
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_overloads

import pytest

import compositeh5

NEEDS_BUTLER = ("compositeh5.butler", "compositeh5.demo")
NEEDS_IMAGES = ("compositeh5.lsst_images", "compositeh5.butler.images")
MODULES = sorted(module.name for module in pkgutil.walk_packages(compositeh5.__path__, "compositeh5."))

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^(\S[^\n]*?)(?: : [^\n]*)?$", re.MULTILINE)

FOR_USERS = (
    "compositeh5",
    "compositeh5.astropy",
    "compositeh5.butler",
    "compositeh5.dask",
    "compositeh5.fits",
    "compositeh5.photutils",
    "compositeh5.trees",
)
"""Modules of which every function that takes something must tell what."""


def load(name: str) -> ModuleType:
    if name == "compositeh5.__main__":
        pytest.skip("it runs the command")
    if name.startswith(NEEDS_BUTLER):
        pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    if name.startswith(NEEDS_IMAGES):
        pytest.importorskip("lsst.images", reason="needs lsst-images (the extra `images`)", exc_type=ImportError)
    return importlib.import_module(name)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name: str) -> None:
    module = load(name)
    assert module.__doc__ or name == "compositeh5._version"
    undocumented = [path for path, value in public(module) if not inspect.getdoc(value)]
    assert not undocumented


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_say_what_is_true(name: str) -> None:
    module = load(name)
    known = {error.__name__ for error in descendants(BaseException)}
    assert [f"{path}: {problem}" for path, value in public(module) for problem in untrue(value, known)] == []


@pytest.mark.parametrize("name", FOR_USERS)
def test_docstrings_for_users_are_complete(name: str) -> None:
    module = load(name) if "." in name else compositeh5
    assert [f"{path}: {problem}" for path, value in exported(module) for problem in incomplete(value)] == []


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """Return the public functions, classes and members of classes that are defined in a module."""
    found: list[tuple[str, Any]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            found.append((name, value))
            for member, item in vars(value).items():
                if not member.startswith("_") and (
                    inspect.isfunction(item) or isinstance(item, property | classmethod | staticmethod)
                ):
                    found.append((f"{name}.{member}", getattr(value, member)))
        elif inspect.isfunction(value):
            found.append((name, value))
    return found


def exported(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that a module offers, with the public members of the classes."""
    for name in getattr(module, "__all__", [name for name, _ in public(module)]):
        value = getattr(module, name, None)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and value.__module__.startswith("compositeh5."):
            yield name, value
            for member, item in inspect.getmembers(value):
                if not member.startswith("_") and inspect.isroutine(item) and member in own_names(value):
                    yield f"{name}.{member}", item


def own_names(cls: type) -> set[str]:
    """Return the names that a class, or one of this package from which it is derived, defines."""
    return {name for base in cls.__mro__ if base.__module__.startswith("compositeh5.") for name in vars(base)}


def untrue(value: Any, errors: set[str]) -> Iterator[str]:
    """Yield what the sections of a docstring get wrong; one that is inherited is checked where it stands."""
    doc = (inspect.getdoc(value) if value.__doc__ else None) or ""
    found = sections(doc)
    if unknown := found.keys() - {"Parameters", "Attributes", "Returns", "Yields", "Raises", "Examples", "Notes"}:
        yield f"sections {sorted(unknown)} are not numpydoc's"
    documented, signature = described(found), parameters(value)
    if documented and (extra := [name for name in documented if name not in signature]):
        yield f"describes parameters {extra}, which it doesn't have"
    if documented and (missing := [name for name in signature if name not in documented]):
        yield f"doesn't describe the parameters {missing}"
    for entry in found.get("Raises", []):
        if wrong := [name for name in entry.split(", ") if name not in errors and not pydoc.locate(name)]:
            yield f"raises {wrong}, which are no errors"


def incomplete(value: Any) -> Iterator[str]:
    """Yield what a docstring for users leaves out."""
    doc = inspect.getdoc(value) or ""
    if len(parameters(value)) > 1 and not described(sections(doc)) and not inspect.isclass(value):
        yield f"has parameters {parameters(value)}, and no section about them"
    for line in re.findall(r"^(?:\w+ : )?numpy\.ndarray.*(?:\n .*)*", doc, re.MULTILINE):
        if not re.search("shape|axis|axes", line):
            yield f"{line!r} doesn't tell the shape"


def described(found: dict[str, list[str]]) -> list[str]:
    """Return the names of the parameters that a docstring describes."""
    return [name.lstrip("*") for entry in found.get("Parameters", []) for name in entry.split(", ")]


def descendants(cls: type) -> set[type]:
    """Return the classes that are loaded and derived from one, and itself."""
    return {cls}.union(*(descendants(each) for each in cls.__subclasses__()))


def sections(doc: str) -> dict[str, list[str]]:
    """Return the names of the sections of a docstring, with what stands at the beginning of their lines."""
    parts = _SECTION.split(doc)[1:]
    return {name: _ENTRY.findall(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def parameters(value: Any) -> list[str]:
    """Return the names of the parameters of a function, or of the constructor of a class."""
    if not callable(value) or (inspect.isclass(value) and issubclass(value, BaseException)):
        return []
    given = [name for each in get_overloads(value) or [value] for name in inspect.signature(each).parameters]
    return [name for name in dict.fromkeys(given) if name != "self" and not name.startswith("_")]
