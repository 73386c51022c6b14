"""Measure beside all peers, in one run, and report: all tables and pictures of `README.md`.

    python benchmarks/run.py [PART ...] [--quick] [--only PEER ...] [--images-python PYTHON] [--json FILE] [--from FILE]
                             [--readme] [--plots]

Parts are "peers", "goals", "butler", "remote" and "growth", which are all measured if none is named, and "trees",
"recipes" and "profile". Each part, and each peer, has a process of its own. Without options it prints Markdown.
`--quick` takes small sizes, for a look. `--only` names peers. `--images-python` is a Python 3.12 or later with
lsst.images, requests, h5py and PyYAML, where `lsst.images` is measured by the same program. `--json` keeps the figures;
`--from` reports such figures instead of measuring. `--readme` puts the tables into README.md, `--plots` the pictures
into specs/img.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import markdown, update_readme

HERE = Path(__file__).parent
IMAGES = ("lsst.images FITS", "lsst.images FITS, lossy", "lsst.images NDF")
MODULES = {
    "peers": "peers",
    "goals": "goals",
    "butler": "butler",
    "remote": "remote",
    "growth": "growth",
    "trees": "trees",
    "recipes": "recipes",
    "profile": "profile_steps",
}
"""For each part the module here whose `measure` returns its figures."""

MAIN = list(MODULES)[:5]


def in_child(part: str, quick: bool, folder: str, python: str = sys.executable, name: str = "") -> Any:
    """Return the figures of a part, or of one peer; errors are shown as they come."""
    print(f"{name or part} ...", file=sys.stderr, flush=True)
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [python, __file__, part, "--child", folder, "--only", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure_peers(
    quick: bool, only: Sequence[str], images_python: str | None, skipped: dict[str, str]
) -> dict[str, Any]:
    """Return what each peer takes: all with the same files and data."""
    from peers import PEERS

    needs = {kind.name: kind.needs for kind in PEERS}
    versions: dict[str, str] = {}
    results: dict[str, Any] = {"exposure": {}, "visit": {}, "catalog": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in only or [*needs, *IMAGES]:
            python = images_python if name in IMAGES else sys.executable
            if python is None:
                skipped[name] = "it needs Python 3.12: --images-python"
                continue
            try:
                found = in_child("peers", quick, folder, python, name)
            except subprocess.CalledProcessError:
                skipped[name] = f"not installed ({needs.get(name) or 'lsst.images'}), or it failed"
                continue
            versions = found["versions"] | versions
            for group, tasks in found["results"].items():
                results[group][name] = tasks
    return {"versions": versions, "peers": results}


def measured(parts: Sequence[str], quick: bool, only: Sequence[str], images_python: str | None) -> dict[str, Any]:
    """Return the figures of some parts."""
    from timing import machine

    skipped: dict[str, str] = {}
    figures: dict[str, Any] = {"machine": machine(), "quick": quick, "skipped": skipped}
    for part in parts:
        if part == "peers":
            figures |= measure_peers(quick, only, images_python, skipped)
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                figures[part] = in_child(part, quick, folder)
            except subprocess.CalledProcessError:
                skipped[part] = "it failed: the extras butler, remote and test are needed"
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", default=MAIN, help=", ".join(MODULES))
    parser.add_argument("--quick", action="store_true", help="small sizes: what is printed means little")
    parser.add_argument("--only", action="append", metavar="PEER", default=[], help="measure this one; may be repeated")
    parser.add_argument("--images-python", metavar="PYTHON", help="that has lsst.images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are kept")
    parser.add_argument("--from", dest="given", type=Path, metavar="FILE", help="figures that were kept")
    parser.add_argument("--readme", type=Path, nargs="?", const=HERE / "README.md", help="put the tables there")
    parser.add_argument("--plots", type=Path, nargs="?", const=HERE.parent / "specs" / "img", help="draw pictures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(MODULES):
        parser.error(f"no part {', '.join(unknown)}")
    if options.child:
        warnings.simplefilter("ignore")
        (part,) = options.parts
        module, names = importlib.import_module(MODULES[part]), [name for name in options.only if name]
        print(json.dumps(module.measure(options.child, options.quick, *names)))
        return
    if options.given:
        figures = json.loads(options.given.read_text())
    else:
        figures = measured(options.parts, options.quick, options.only, options.images_python)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.readme:
        update_readme(figures, options.readme)
    else:
        print("\n".join(f"### {name}\n\n{part}\n" for name, part in markdown(figures).items()))
    if options.plots:
        from plots import draw

        draw(figures, options.plots)


if __name__ == "__main__":
    main()
