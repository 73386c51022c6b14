"""The verbs that make composites of something else: ``convert`` and ``demo``."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from dataclasses import asdict

from .common import (
    COULD_NOT,
    FINE,
    Verb,
    executor,
    jobs_argument,
    json_argument,
    number,
    print_json,
    progress,
)


def _convert(arguments: argparse.Namespace) -> int:
    from ..convert import convert, convert_files

    several = len(arguments.inputs) > 1 or os.path.isdir(arguments.inputs[0]) or os.path.isdir(arguments.output)
    if not several and not arguments.output.endswith(os.sep):
        composite = convert(arguments.inputs[0], arguments.output, replace=arguments.force)
        if arguments.json:
            print_json(
                [{"source": arguments.inputs[0], "target": arguments.output, "status": "converted", "message": ""}]
            )
        else:
            print(f"{arguments.output}: {composite!r}")
        return FINE
    with progress() as shown, executor(arguments.jobs) as pool:
        done = convert_files(
            arguments.inputs, arguments.output, to=arguments.to, replace=arguments.force, executor=pool, progress=shown
        )
    failed = [conversion for conversion in done if conversion.status == "failed"]
    if arguments.json:
        print_json([asdict(conversion) for conversion in done])
    else:
        for conversion in failed:
            print(f"{conversion.source}: failed: {conversion.message}")
        counts = Counter(conversion.status for conversion in done)
        print(", ".join(f"{counts[status]} {status}" for status in ("converted", "unchanged", "failed")))
    return COULD_NOT if failed else FINE


def _demo(arguments: argparse.Namespace) -> None:
    from ..demo import run

    with progress() as shown:
        report = run(
            arguments.directory,
            fits=arguments.fits,
            detectors=arguments.detectors,
            size=arguments.size,
            seed=arguments.seed,
            progress=shown,
        )
    print(report.text())


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", metavar="IN", nargs="+", help="a file, or several files and directories")
    parser.add_argument("output", metavar="OUT", help="the file to write; the directory for what several files become")
    parser.add_argument(
        "--to", choices=["h5", "fits"], default="h5", help="what the files of directories become (default: h5)"
    )
    parser.add_argument("--force", action="store_true", help="replace other files that stand in the way")
    jobs_argument(parser)
    json_argument(parser)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        default="compositeh5-demo",
        help="where to make it; an earlier demonstration there is replaced (default: ./compositeh5-demo)",
    )
    parser.add_argument("--fits", metavar="FILE", nargs="+", default=[], help="use these exposures instead")
    parser.add_argument("--detectors", type=number(1, 100), default=9, metavar="N", help="how many (default: 9)")
    parser.add_argument(
        "--size", type=number(64, 4096), default=1024, metavar="PIXELS", help="rows and columns (default: 1024)"
    )
    parser.add_argument("--seed", type=number(0, 2**32), default=1, metavar="N", help="of the random numbers")


VERBS = {
    "convert": Verb(
        _convert,
        _convert_arguments,
        "convert FITS files to composites, and back",
        "Convert a FITS file to a composite, or a composite that was one back: an exposure or a catalog of the LSST "
        "pipelines, an image with mask and uncertainty, or any other. What the components don't say is kept verbatim, "
        "so that nothing is lost. In directories, files that an earlier run has converted are passed over, and one "
        "that can't be converted doesn't stop the others; the exit code is 2 if there is one.",
        """
        compositeh5 convert calexp.fits calexp.h5
        compositeh5 convert calexp.h5 calexp.fits
        compositeh5 convert repo/calexp composites -j 8
        compositeh5 convert --to fits composites repo/again""",
    ),
    "demo": Verb(
        _demo,
        _demo_arguments,
        "make a small Butler repository, and show what can be done with it",
        "Make a Butler repository with one visit, simulated or from FITS files, read parts of it, and show what was "
        "read and what sharing saved. Needs the extra `butler`.",
        """
        compositeh5 demo
        compositeh5 demo /tmp/demo --detectors 4 --size 2048
        compositeh5 demo /tmp/demo --fits calexp-*.fits""",
    ),
}
