"""The page of public names has all of them, and says of each what its docstring says."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "specs" / "api.md"
SECTIONS = dict(re.findall(r"^## `([\w.]+)`\n([\s\S]*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("module", SECTIONS)
def test_public_names(module: str) -> None:
    extras = {"compositeh5.butler": "lsst.daf.butler", "compositeh5.lsst_images": "lsst.images"}
    if module in extras:
        pytest.importorskip(extras[module], reason=f"{module} needs it", exc_type=ImportError)
    loaded = importlib.import_module(module)
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", SECTIONS[module], re.MULTILINE))
    names = getattr(loaded, "__all__", [name for name in vars(loaded) if is_own(loaded, name)])
    assert listed.keys() == set(names)
    for name, line in listed.items():
        value = getattr(loaded, name)
        if not isinstance(value, str) and not inspect.ismodule(value):
            assert line == (inspect.getdoc(value) or "").splitlines()[0], name


def is_own(module: object, name: str) -> bool:
    value = getattr(module, name)
    return not name.startswith("_") and getattr(value, "__module__", None) == getattr(module, "__name__", "")


def test_what_everybody_needs_is_on_one_screen() -> None:
    import compositeh5

    assert len(compositeh5.__all__) <= 25
    assert set(compositeh5.__all__) <= set(dir(compositeh5))
