"""Files of strangers are refused: with an error that says why, soon, in little memory, and without a look elsewhere.

The cases and the threat model that they stand for are in `hostile_files` and ``specs/reliability.md``.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import hostile_files
import pytest

from compositeh5 import errors
from compositeh5.composite.session import current

SPECS = Path(__file__).parents[1] / "specs"
SECONDS = 20
"""Whoever takes longer hangs, also on a busy machine."""

MEMORY = 200 * 1024 * 1024
"""Beyond what the process has with everything loaded."""


def ident(name: str) -> str:
    """Return the name of the test of a case, by which ``-k`` finds all of a line."""
    return f"{key(hostile_files.CASES[name].line)}-{name}"


def key(line: str) -> str:
    return re.sub(r"\W+", "_", line.replace("'", ""))


def examine(location: str) -> dict[str, Any]:
    """Read all of a file, and return the errors by what raised them."""
    import compositeh5 as ch5
    from compositeh5.trees.verify import verify

    current().clear_cache()
    found: dict[str, str] = {}
    values: list[str] = []

    def attempt(what: str, do: Any) -> None:
        try:
            values.append(repr(do()))
        except Exception as error:
            known = isinstance(error, ch5.CompositeH5Error | OSError)
            found[what] = type(error).__name__ + ("" if known else "!\n" + traceback.format_exc(limit=-4))
            found[f"{what}: message"] = str(error)[:400]

    try:
        with ch5.open(location) as composite:
            for name in composite:
                attempt(f"read {name}", lambda name=name: composite[name])
                attempt(f"origin of {name}", lambda name=name: composite.component_origin(name))
            attempt("verify", lambda: verify(composite))
            attempt("repr", lambda: repr(composite))
            attempt("by id", lambda: ch5.open(location, id=composite.id).close())
    except Exception:
        attempt("open", lambda: ch5.open(location))
    # Beside the folder, of which nothing may change.
    attempt("rescue", lambda: ch5.trees.rescue(location, "rescued.h5", replace=True))
    return {"errors": found, "secret": any(hostile_files.SECRET in value for value in values)}


def child(folder: Path) -> None:
    """Examine cases, with little memory, and print what came of each."""
    import faulthandler

    import astropy.table
    import astropy.wcs  # noqa: F401

    import compositeh5.storage.remote  # noqa: F401

    (folder / "ok").mkdir()
    os.chdir(folder / "working")
    assert not examine_good(folder / "ok"), "the tree without a fault is refused"
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for name in list(hostile_files.CASES):
        place = folder / name
        location = hostile_files.make(place, name)
        before = listing(place)
        open_files = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        result = examine(location)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        result["left open"] = len(os.listdir("/proc/self/fd")) - open_files
        result["changed"] = before != listing(place)
        print(json.dumps([name, result]), flush=True)


def examine_good(folder: Path) -> dict[str, Any]:
    hostile_files.CASES["none"] = hostile_files.Case("none", 0, "", (), lambda tree: None)
    try:
        return examine(hostile_files.make(folder, "none"))["errors"]
    finally:
        del hostile_files.CASES["none"]


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what another process found in each of the cases."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("working", "prefix", "plugins"):
        (folder / name).mkdir()
    environment = {
        **os.environ,
        "HDF5_EXT_PREFIX": str(folder / "prefix"),
        "HDF5_PLUGIN_PATH": str(folder / "plugins"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
    }
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        lines.append(["the end", {"errors": {}, "stderr": done.stderr[-3000:]}])
    return dict(lines)


@pytest.mark.parametrize("name", hostile_files.CASES, ids=ident)
def test_it_is_refused(results: dict[str, dict[str, Any]], name: str) -> None:
    case = hostile_files.CASES[name]
    assert name in results, f"hung or crashed here, or before: {results.get('the end')}"
    result = results[name]
    found = {what: error for what, error in result["errors"].items() if not what.endswith("message")}
    assert not [error for error in found.values() if "!" in error], "an error that isn't ours"
    # What is more specific than expected is right as well.
    kinds = {base.__name__ for name in found.values() for base in getattr(errors, name, OSError).__mro__}
    assert (kinds | set(found.values())) & set(case.errors), f"expected {case.errors}, found {result['errors']}"
    assert not result["secret"]
    assert result["left open"] == 0
    assert not result["changed"]


def test_there_are_enough_and_the_specification_lists_each_line() -> None:
    text = (SPECS / "reliability.md").read_text()
    lines = Counter((case.tier, case.line) for case in hostile_files.CASES.values())
    for (tier, line), count in lines.items():
        start = re.search(rf"\| {tier} \| {re.escape(line)} \| {count} \| `(\w+)` \|", text)
        assert start is not None, f"{tier} {line} {count}"
        assert key(line).startswith(start[1])
    assert f"| | all | {sum(lines.values())} | |" in text


if __name__ == "__main__":
    child(Path(sys.argv[1]))
