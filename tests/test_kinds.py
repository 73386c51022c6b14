"""The registry of kinds, and kinds from other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.storage.nodes import Array

PLUGIN = '''
"""A kind for polynomials."""

import numpy as np

from compositeh5.storage.nodes import Array

TYPES = ("numpy.polynomial.polynomial.Polynomial",)


def encode(value):
    return Array(value.coef)


def decode(node, *, terms=None):
    coefficients = node.read() if terms is None else node.read((slice(0, terms),))
    return np.polynomial.Polynomial(coefficients)
'''

USER = """
import sys
import numpy as np
import compositeh5 as ch5

path = sys.argv[1]
if sys.argv[2] == "write":
    ch5.Composite(None, line=np.polynomial.Polynomial([1, 2, 3]), note="kept").write(path)
with ch5.open(path) as c:
    print(c["note"], c.kind("line"))
    print(c["line"].coef, c.read("line", terms=2).coef)
"""


def run(tmp_path: Path, mode: str, plugin: bool) -> subprocess.CompletedProcess[str]:
    package = tmp_path / "site" / "polynomial_kind"
    info = tmp_path / "site" / "polynomial_kind-1.0.dist-info"
    for folder in (package, info):
        folder.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polynomial-kind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[compositeh5.kinds]\npolynomial = polynomial_kind\n")
    paths = [str(Path(ch5.__file__).parents[1]), *([str(tmp_path / "site")] if plugin else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    args = [sys.executable, "-c", USER, str(tmp_path / "a.h5"), mode]
    return subprocess.run(args, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_another_package_adds_a_kind(tmp_path: Path) -> None:
    written = run(tmp_path, "write", plugin=True)
    assert written.stdout.split("\n")[:2] == ["kept polynomial", "[1. 2. 3.] [1. 2.]"], written.stderr
    without = run(tmp_path, "read", plugin=False)
    assert without.stdout.strip() == "kept polynomial"
    assert "UnknownKindError" in without.stderr
    assert "no installed package knows the kind 'polynomial'" in without.stderr
    assert "/composite/line" in without.stderr


class Line:
    def __init__(self, slope):
        self.slope = slope


class LineKind:
    TYPES = (Line,)
    encode = staticmethod(lambda value: Array(np.float64(value.slope)))
    decode = staticmethod(lambda node: Line(float(node.read())))


def test_a_script_registers_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_registered", {})
    kinds.register("line", LineKind)
    kinds.register("line", LineKind)  # a notebook's cell is run again
    ch5.Composite(fit=Line(2.5)).write(tmp_path / "a.h5")
    with ch5.open(tmp_path / "a.h5") as c:
        assert c.kind("fit") == "line"
        assert c["fit"].slope == 2.5
        assert "line" in kinds.names()
        kinds._registered.clear()
        with pytest.raises(errors.UnknownKindError, match="no installed package knows the kind 'line'"):
            c["fit"]


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("image", LineKind, "'image', which is built in"),
        ("a b", LineKind, "should be letters"),
        ("line", Line, "has no function 'encode'"),
    ],
)
def test_what_cannot_be_registered(name: str, module: type, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        kinds.register(name, module)
    assert name in kinds.BUILTIN or name not in kinds.names()


@pytest.mark.parametrize("name", kinds.BUILTIN)
def test_every_builtin_kind_has_both_functions(name: str) -> None:
    kind = kinds.get(name)
    assert kind.version >= 1
    assert callable(kind.module.encode)
    assert callable(kind.module.decode)


def test_a_value_that_no_kind_stores_is_an_error() -> None:
    with pytest.raises(errors.EncodeError, match=r"component 'x': no kind stores a value of type builtins\.object"):
        ch5.Composite(None, x=object())


def test_a_node_of_the_wrong_sort_is_a_format_error() -> None:
    for name in kinds.BUILTIN:
        node = Array(np.zeros((2, 2), "c8"), {"kind": name, "kind_version": 1})
        if name != "array":
            with pytest.raises(errors.FormatError):
                kinds.decode(node)


def test_importing_the_package_is_light() -> None:
    """astropy and yaml are loaded when they are needed."""
    code = "import sys, compositeh5; print({'astropy', 'yaml', 'lsst'} & {m.split('.')[0] for m in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
