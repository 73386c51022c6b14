"""Every public name has a docstring, its own or that of what it overrides."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import compositeh5

NEEDS_BUTLER = ("compositeh5.butler", "compositeh5.demo")
NEEDS_IMAGES = ("compositeh5.lsst_images", "compositeh5.butler.images")
MODULES = sorted(module.name for module in pkgutil.walk_packages(compositeh5.__path__, "compositeh5."))


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name: str) -> None:
    if name == "compositeh5.__main__":
        pytest.skip("it runs the command")
    if name.startswith(NEEDS_BUTLER):
        pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    if name.startswith(NEEDS_IMAGES):
        pytest.importorskip("lsst.images", reason="needs lsst-images (the extra `images`)", exc_type=ImportError)
    module = importlib.import_module(name)
    assert module.__doc__ or name == "compositeh5._version"
    undocumented = [path for path, value in public(module) if not inspect.getdoc(value)]
    assert not undocumented


def public(module: ModuleType) -> list[tuple[str, object]]:
    """Return the public functions, classes and members of classes that are defined in a module."""
    found: list[tuple[str, object]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            found.append((name, value))
            for member, item in vars(value).items():
                if not member.startswith("_") and (inspect.isfunction(item) or isinstance(item, property)):
                    found.append((f"{name}.{member}", getattr(value, member)))
        elif inspect.isfunction(value):
            found.append((name, value))
    return found
