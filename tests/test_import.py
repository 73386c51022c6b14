"""What importing the package loads: a command line, or a worker, starts with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import compositeh5 as ch5

CODE = """
import json, sys
first = set(sys.modules)
import h5py, numpy
before = set(sys.modules)
import compositeh5
print(json.dumps([sorted(first), sorted(set(sys.modules) - before)]))
"""

LATER = {
    "asdf", "astropy", "asyncio", "boto3", "concurrent", "dask", "difflib", "email", "fsspec", "http", "lsst",
    "multiprocessing", "numpy.ma", "rich", "secrets", "tempfile", "typing_extensions", "yaml", "zipfile",
    "importlib.metadata", "importlib.resources",
}  # fmt: skip
"""What is only loaded by those who need it."""


def run(*args: object) -> str:
    return subprocess.run([sys.executable, "-c", *map(str, args)], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_only_what_reading_needs() -> None:
    first, loaded = json.loads(run(CODE))
    assert "compositeh5.composite.opening" in loaded
    # An installation for development brings a finder that uses some of them.
    assert not {".".join(name.split(".")[:n]) for name in loaded for n in (1, 2)} & LATER - set(first)
    assert not [name for name in loaded if name.startswith(("compositeh5.trees", "compositeh5.butler"))]
    own = {name for name in loaded if name.startswith("compositeh5")}
    others = {name for name in loaded if "." not in name and not name.startswith("_")} - own
    assert len(own) < 60
    assert len(others) < 30


def test_a_calibration_is_read_without_units(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.Composite(definition=None, photo_calib=ch5.PhotoCalib(31.5, 0.1, instrumental_unit="electron")).write(path)
    code = (
        "import sys, compositeh5\n"
        "calib = compositeh5.open(sys.argv[1])['photo_calib']\n"
        "print(calib.mean, 'astropy.units' in sys.modules)"
    )
    assert run(code, path).split() == ["31.5", "False"]
