"""What importing the package loads: a command line, or a worker, starts with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import compositeh5 as ch5

CODE = """
import json, sys, h5py, numpy
before = set(sys.modules)
import compositeh5
print(json.dumps(sorted(set(sys.modules) - before)))
"""

LATER = {
    "asdf", "astropy", "asyncio", "boto3", "concurrent", "dask", "difflib", "email", "fsspec", "http", "lsst",
    "multiprocessing", "numpy.ma", "rich", "secrets", "tempfile", "typing_extensions", "yaml", "zipfile",
    "importlib.metadata", "importlib.resources",
}  # fmt: skip
"""What is only loaded by those who need it."""


def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_only_what_reading_needs() -> None:
    modules = loaded()
    assert "compositeh5.composite.opening" in modules
    names = {".".join(name.split(".")[:n]) for name in modules for n in (1, 2)}
    # An installation for development brings a finder that uses some of them.
    assert not names & LATER - set(preloaded())
    assert not {name for name in modules if name.startswith(("compositeh5.trees", "compositeh5.butler"))}
    own = {name for name in modules if name.startswith("compositeh5")}
    others = {name for name in modules if "." not in name and not name.startswith("_")} - own
    assert len(own) < 60
    assert len(others) < 30


def preloaded() -> set[str]:
    """Return what an interpreter has before it runs anything."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, json; print(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_a_calibration_is_read_without_units(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    ch5.Composite(definition=None, photo_calib=ch5.PhotoCalib(31.5, 0.1, instrumental_unit="electron")).write(path)
    code = (
        "import sys, compositeh5\n"
        "calib = compositeh5.open(sys.argv[1])['photo_calib']\n"
        "print(calib.mean, 'astropy.units' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["31.5", "False"]
