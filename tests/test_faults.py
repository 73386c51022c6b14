"""Whatever goes wrong while files are written, each is there whole, old or new, and the next run finishes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fault_injection as faults
import numpy as np
import pytest
from support import simple_wcs, write_visit

import compositeh5 as ch5
from compositeh5.trees.verify import verify

Operation = Callable[[Path, Path], object]
"""Reads from a tree, and writes into a folder."""


def _composite(value: int) -> ch5.Composite:
    return ch5.Composite(None, image=np.full((90, 90), value, "f4"), data_id={"visit": 1})


def _overlay(tree: Path, out: Path) -> None:
    with ch5.open(_ccd(tree)) as base:
        base.overlay(wcs=simple_wcs((20, 20)), stage="jointcal").write(out / "x.h5")


def _flatten(tree: Path, out: Path) -> None:
    with ch5.open(_ccd(tree)) as base:
        base.flatten(out / "x.h5")


def _ccd(tree: Path) -> Path:
    return tree / "calexp" / "calexp_903334_0.h5"


OPERATIONS: dict[str, Operation] = {
    "write": lambda tree, out: _composite(2).write(out / "x.h5"),
    "replace": lambda tree, out: _composite(2).write(out / "old.h5", replace=True),
    "overlay": _overlay,
    "flatten": _flatten,
    "split": lambda tree, out: ch5.trees.split([tree / "flat.h5"], out / "split"),
    "subset": lambda tree, out: ch5.trees.subset(tree / "calexp", out / "subset"),
}
ACTIONS = {
    "kill": faults.kill,
    "short": faults.short,
    "ENOSPC": faults.fail(errno.ENOSPC),
    "EIO": faults.fail(errno.EIO),
    "EDQUOT": faults.fail(errno.EDQUOT),
    "EINTR": faults.fail(errno.EINTR),
}
FEW = ("kill", "short", "ENOSPC")
"""For operations that write more than one file, or read others: all of them write by the same function."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    write_visit(root, ccds=2)
    with ch5.open(_ccd(root)) as c:
        c.flatten(root / "flat.h5")
    return root


def fresh(out: Path) -> Path:
    """Return the folder for output, emptied but for an old file."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    _composite(1).write(out / "old.h5")
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def whole(out: Path, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Check that each file is the old or the new one, and readable."""
    for name, content in contents(out).items():
        if not name.endswith(".tmp"):
            assert content in (before.get(name), after.get(name)), name
            with ch5.open(out / name) as composite:
                verify(composite)


def _chosen(calls: int) -> list[int]:
    """Return all calls of a short operation; of a long one, most of which are like each other, some, and the last."""
    if calls <= 30:
        return list(range(calls))
    return sorted({*np.linspace(0, calls - 1, 4).astype(int).tolist(), *range(calls - 4, calls)})


@pytest.mark.parametrize("name", OPERATIONS)
def test_any_call_may_go_wrong(tree: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"

    def operation() -> object:
        return OPERATIONS[name](tree, out)

    before = contents(fresh(out))
    calls = faults.count(operation)
    after = contents(out)
    assert calls >= 4
    assert set(after) >= set(before)
    assert after != before
    for action in ACTIONS if name in ("write", "replace") else FEW:
        for at in _chosen(calls):
            fresh(out)
            outcome = faults.run_with(operation, at, ACTIONS[action])
            where = f"{action} at call {at}"
            whole(out, before, after)
            left = list(out.rglob(".*.tmp"))
            if action == "kill":
                assert outcome == faults.KILLED, where
            elif action == "short":
                assert outcome == 0, where
                assert contents(out) == after, where
            else:
                # To delete the temporary file is the last call of each file: its name is there already.
                assert outcome == getattr(errno, action), where
                assert len(left) <= 1, where
            operation()
            assert {k: v for k, v in contents(out).items() if not k.endswith(".tmp")} == after, where


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk(tree: Path, tmp_path: Path, name: str, size: int) -> None:
    out = tmp_path / "out"
    before = contents(fresh(out))
    assert faults.run_full(lambda: OPERATIONS[name](tree, out), size) in (errno.EFBIG, errno.ENOSPC)
    left = contents(out)
    assert {k: v for k, v in left.items() if k in before} == before
    # What was small enough is there, whole.
    for path in left:
        with ch5.open(out / path) as composite:
            verify(composite)
    OPERATIONS[name](tree, out)


def test_leftovers_of_the_dead_are_swept_and_nothing_else(tmp_path: Path) -> None:
    stale = tmp_path / ".x.h5.0123456789abcdef.tmp"
    young = tmp_path / ".x.h5.fedcba9876543210.tmp"
    others = [tmp_path / ".x.tmp", tmp_path / "x.h5.0123456789abcdef.tmp", tmp_path / ".y.0123456789ABCDEF.tmp"]
    target = tmp_path / "target"
    for path in (stale, young, target, *others):
        path.write_bytes(b"?")
    link = tmp_path / ".z.0123456789abcdef.tmp"
    link.symlink_to(target)
    for path in (stale, target, *others):
        os.utime(path, (0, 0))
    os.utime(link, (0, 0), follow_symlinks=False)
    _composite(1).write(tmp_path / "x.h5")
    assert not stale.exists()
    assert all(path.exists() for path in (young, target, link, *others))
