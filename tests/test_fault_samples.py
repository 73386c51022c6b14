"""A few of the faults of `benchmarks/faults.py` for some of its operations, and the model of losses of power."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fault_operations import OPERATIONS, clean, leftovers
from faults import Bench
from power_cut import Disk, Event
from system_calls import strace_works

needs_strace = pytest.mark.skipif(not strace_works(), reason="strace isn't installed, or may not trace processes")
SAMPLED = ["write", "visit create-once", "Butler: put", "conversion of FITS files"]


@pytest.fixture(scope="module", params=SAMPLED)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(OPERATIONS[request.param], tmp_path_factory.mktemp("faults").resolve())


@needs_strace
@pytest.mark.parametrize("fault", ["kill", "EIO"])
def test_a_call_isnt_made(bench: Bench, fault: str) -> None:
    calls = bench.calls()
    chosen = [calls[i] for i in np.linspace(0, len(calls) - 1, 2).astype(int)]
    outcomes = {bench.disturbed(call, fault) for call in chosen}
    assert outcomes & {"old", "new", "between"}
    assert "broken" not in outcomes


def test_kills_at_random_moments(bench: Bench) -> None:
    rng = random.Random(4)
    assert "broken" not in [bench.killed(rng) for _ in range(2)]


@needs_strace
def test_losses_of_power(bench: Bench) -> None:
    outcomes: list[str] = []
    bench.power_cuts(4, random.Random(2), outcomes.append)
    assert len(outcomes) == 4
    assert "broken" not in outcomes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can't be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    import compositeh5 as ch5

    old = ch5.Composite(None, image=np.ones((9, 9), "f4"))
    large = ch5.Composite(None, image=np.random.default_rng(1).normal(size=(90, 200)))
    old.write(small_disk / "x.h5")
    before = (small_disk / "x.h5").read_bytes()
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            large.write(small_disk / "x.h5", replace=True)
    assert [path.name for path in small_disk.iterdir()] == ["x.h5"]
    assert (small_disk / "x.h5").read_bytes() == before


def test_the_model_loses_what_was_not_forced(tmp_path: Path) -> None:
    root, left = tmp_path / "root", tmp_path / "left"
    clean(root)
    path = str(root / "x")
    events = [
        Event("create", path),
        Event("write", path, data=b"new" * 3000),
        Event("sync", path),
        Event("rename", path, other=f"{root}/y"),
        Event("write", f"{root}/y", data=b"?"),
        Event("sync", str(root)),
    ]
    disk = Disk(root)
    disk.replay(events)
    rng = random.Random(1)

    def found(at: int) -> set[tuple[tuple[str, bytes], ...]]:
        states = set()
        for _ in range(60):
            disk.cut(left, at, rng)
            states.add(tuple((file.name, file.read_bytes()) for file in sorted(left.iterdir())))
        return states

    whole = b"new" * 3000
    # Without its name no file; with it, before it is forced, any size and any pages.
    assert (()) in found(2)
    assert len(found(2)) > 2
    assert found(3) == {(), (("x", whole),)}
    assert found(4) == {(), (("x", whole),), (("y", whole),)}
    assert found(6) == {(("y", whole),), (("y", b"?" + whole[1:]),)}
    assert not leftovers(root)
