"""Measure everything beside all peers, in one run, and write the tables: all that `README.md` shows.

    python benchmarks/run.py [--quick] [--images-python PYTHON] [--json FILE] [--readme] [--plots]

Without options it prints Markdown. `--quick` takes small sizes, for a look. `--images-python` is a Python 3.12 or later
with lsst.images, requests, h5py and PyYAML, where `lsst.images` is measured by the same program. `--json` keeps the
figures, from which `report.py` makes the tables and `plots.py` the pictures: `--readme` puts the tables into README.md,
`--plots` the pictures into specs/img.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import catalogs
import containers
from report import markdown, update_readme
from timing import machine

HERE = Path(__file__).parent
IMAGES = ("lsst.images FITS", "lsst.images FITS, lossy", "lsst.images NDF")

SMALL = ["--size=400", "--ccds=8", "--visit-size=32", "--rows=2000", "--runs=1", "--seconds=0.3"]
QUICK: dict[str, list[str]] = {
    "peers": SMALL,
    "goals": SMALL,
    "butler": ["--size", "128", "--runs", "2", "--s3-size", "300"],
    "remote": ["--size", "1000", "--runs", "1"],
    "growth": ["--most", "0.1", "--runs", "1", "--seconds", "0.3"],
}


def program(name: str, options: list[str], python: str = sys.executable) -> str:
    """Run one of the programs here, and return what it prints; its errors are shown as they come."""
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [python, str(HERE / f"{name}.py"), *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def measure_peers(options: list[str], images_python: str | None, skipped: dict[str, str]) -> dict[str, Any]:
    """Return what each peer takes: each in a process of its own, all with the same files and data."""
    kinds = [*containers.PEERS, *catalogs.CATALOGS]
    needs = {kind.name: kind.needs for kind in kinds}
    versions: dict[str, str] = {}
    results: dict[str, Any] = {"exposure": {}, "visit": {}, "catalog": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in [*needs, *IMAGES]:
            python = images_python if name in IMAGES else sys.executable
            if python is None:
                skipped[name] = "it needs Python 3.12: --images-python"
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                found = json.loads(program("peers", [name, "--folder", folder, *options], python))
            except subprocess.CalledProcessError:
                skipped[name] = f"not installed ({needs.get(name) or 'lsst.images'}), or it failed"
                continue
            used = found["versions"]
            versions |= {key: value for key, value in used.items() if key not in versions}
            for group, tasks in found["results"].items():
                results[group][name] = tasks
    return {"versions": versions, "peers": results}


def measure_other(name: str, options: list[str], skipped: dict[str, str]) -> Any:
    print(f"{name} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        try:
            program(name, [*options, "--json", str(path)])
        except subprocess.CalledProcessError:
            skipped[name] = "it failed: the extras butler, remote and test are needed"
            return None
        return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: what is printed means little")
    parser.add_argument("--images-python", metavar="PYTHON", help="that has lsst.images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are kept")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--plots", action="store_true", help="draw specs/img/*.png")
    arguments = parser.parse_args()
    options = QUICK if arguments.quick else {name: [] for name in QUICK}
    skipped: dict[str, str] = {}
    figures: dict[str, Any] = {"machine": machine(), "quick": arguments.quick}
    figures |= measure_peers(options["peers"], arguments.images_python, skipped)
    for name in ("goals", "butler", "remote", "growth"):
        figures[name] = measure_other(name, options[name], skipped)
    figures["skipped"] = skipped
    text = json.dumps(figures, indent=1) + "\n"
    if arguments.json:
        arguments.json.write_text(text)
    if arguments.readme:
        update_readme(figures, HERE / "README.md")
    else:
        print("\n".join(f"### {name}\n\n{part}" for name, part in markdown(figures).items()))
    if arguments.plots:
        from plots import draw

        draw(figures, HERE.parent / "specs" / "img")


if __name__ == "__main__":
    main()
