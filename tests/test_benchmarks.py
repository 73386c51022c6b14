"""The benchmarks run, find what they wrote, and make their report: in sizes that mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1] / "benchmarks"
TINY = ["--size=300", "--ccds=3", "--visit-size=16", "--rows=2500", "--runs=1", "--seconds=0"]


def run(program: str, *options: object) -> str:
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(HERE / program), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of two peers, and of growth."""
    folder = tmp_path_factory.mktemp("benchmarks")
    peers: dict[str, Any] = {"exposure": {}, "visit": {}, "catalog": {}}
    versions = {}
    for name in ("compositeh5", "h5py gzip"):
        found = json.loads(run("peers.py", name, "--folder", folder, *TINY))
        versions = found["versions"]
        for group, tasks in found["results"].items():
            peers[group][name] = tasks
    run("goals.py", *TINY, "--json", folder / "goals.json")
    run("growth.py", "--most=0.02", "--runs=1", "--seconds=0", "--json", folder / "growth.json")
    goals, growth = (json.loads((folder / f"{name}.json").read_text()) for name in ("goals", "growth"))
    all_of_it = {
        "machine": "here",
        "quick": True,
        "versions": versions,
        "peers": peers,
        "goals": goals,
        "growth": growth,
        "skipped": {},
    }
    (folder / "figures.json").write_text(json.dumps(all_of_it))
    return folder / "figures.json"


def test_tasks_are_measured_by_both_clocks(figures: Path) -> None:
    found = json.loads(figures.read_text())
    assert {group: len(tasks["compositeh5"]) for group, tasks in found["peers"].items()} == {
        "exposure": 9,
        "visit": 5,
        "catalog": 6,
    }
    for tasks in found["peers"]["exposure"].values():
        assert tasks["write"].keys() == tasks["WCS"].keys() == {"wall", "cpu"}
        assert tasks["rms error, counts"] == 0
    assert found["growth"].keys() == {"components", "files", "pixels", "cutouts"}


def test_the_report_has_tables_goals_and_who_wins(figures: Path) -> None:
    text = run("report.py", figures)
    assert "| h5py gzip | " in text
    assert "| shared record of 3 detectors, to opening their files | <= 1.2 | " in text
    assert "| write lossless, to h5py gzip | <= 0.2 | " in text
    assert "| exposure | " in text.partition("### others")[2]


def test_the_readme_has_a_place_for_each_part(figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    from report import update_readme

    copy = tmp_path / "README.md"
    copy.write_text((HERE / "README.md").read_text())
    found = json.loads(figures.read_text())
    update_readme(found, copy)
    once = copy.read_text()
    assert "| h5py gzip | " in once
    update_readme(found, copy)
    assert copy.read_text() == once


def test_pictures_are_small(figures: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("plots.py", figures, "--folder", tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"exposure.png", "visit.png", "catalog.png", "growth.png"}
    assert max(sizes.values()) < 100_000
