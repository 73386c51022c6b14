"""The benchmarks run, find what they wrote, and make their report: in sizes that mean little."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(*options: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setenv("PYTHONPATH", f"{BENCHMARKS.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
        runner = importlib.import_module("run")
        in_child = runner.in_child

        def here(part: str, quick: bool, folder: str, python: str = "", name: str = "") -> Any:
            # Modules are loaded once, instead of by each part; one of them has a process of its own.
            if name == "h5py gzip":
                return in_child(part, quick, folder, python, name)
            return importlib.import_module(runner.MODULES[part]).measure(Path(folder), quick, *filter(None, [name]))

        patch.setattr(runner, "in_child", here)
        runner.main([*map(str, options)])


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of two peers, and of all else."""
    path = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    parts = ["peers", "goals", "growth", "trees", "recipes", "profile"]
    try:
        import lsst.daf.butler  # noqa: F401
        import moto  # noqa: F401

        parts += ["butler", "remote"]
    except ImportError:
        pass
    run(*parts, "--quick", "--only", "compositeh5", "--only", "h5py gzip", "--json", path)
    return path


def test_all_parts_are_measured_by_both_clocks(figures: Path) -> None:
    found = json.loads(figures.read_text())
    assert not found["skipped"]
    tasks = {"exposure": 9, "visit": 5, "catalog": 6}
    assert {group: len(peers["compositeh5"]) for group, peers in found["peers"].items()} == tasks
    for peer in found["peers"]["exposure"].values():
        assert peer["write"].keys() == peer["WCS"].keys() == {"wall", "cpu"}
        assert peer["rms error, counts"] == 0
    assert found["growth"].keys() == {"components", "files", "pixels", "cutouts"}
    # The names of the steps are those of functions that are called.
    assert all(found["profile"]["write lossless"].values())


def test_the_report_has_tables_goals_and_who_wins(figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--from", figures)
    text = capsys.readouterr().out
    assert "| h5py gzip | " in text
    assert "| shared record of 8 detectors, to opening their files | <= 1.2 | " in text
    assert "| write lossless, to h5py gzip | <= 0.2 | " in text
    assert "| exposure | " in text.partition("### others")[2]
    assert "| overlay: new WCS and calibration | " in text


def test_the_readme_has_a_place_for_each_part(figures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text((BENCHMARKS / "README.md").read_text())
    run("--from", figures, "--readme", copy)
    once = copy.read_text()
    assert "| h5py gzip | " in once
    run("--from", figures, "--readme", copy)
    assert copy.read_text() == once


def test_pictures_are_small(figures: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("--from", figures, "--plots", tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"exposure.png", "visit.png", "catalog.png", "growth.png"}
    assert max(sizes.values()) < 100_000
