"""The verbs that make composites of something else: ``convert`` and ``demo``."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from .common import COULD_NOT, FINE, Verb, executor, force_argument, jobs_argument, number, option
from .output import Table, report
from .progress import progress


def _convert(arguments: argparse.Namespace) -> int:
    from ..convert import Conversion, convert, convert_files

    several = len(arguments.inputs) > 1 or os.path.isdir(arguments.inputs[0]) or os.path.isdir(arguments.output)
    if not several and not arguments.output.endswith(os.sep):
        with progress(arguments) as shown:
            shown("converting", 0, 1)
            composite = convert(arguments.inputs[0], arguments.output, replace=arguments.force)
        done = [Conversion(arguments.inputs[0], arguments.output, "converted")]
        report(arguments, done, f"{arguments.output}: {composite!r}")
        return FINE
    with progress(arguments) as shown, executor(arguments.jobs) as pool:
        done = convert_files(
            arguments.inputs, arguments.output, to=arguments.to, replace=arguments.force, executor=pool, progress=shown
        )
    failed = [conversion for conversion in done if conversion.status == "failed"]
    counts = Counter(conversion.status for conversion in done)
    report(
        arguments,
        done,
        Table(("state", "file", "why"), [("failed", conversion.source, conversion.message) for conversion in failed]),
        ", ".join(f"{counts[status]} {status}" for status in ("converted", "unchanged", "failed")),
    )
    return COULD_NOT if failed else FINE


def _demo(arguments: argparse.Namespace) -> None:
    from ..demo import run

    with progress(arguments) as shown:
        done = run(
            arguments.directory,
            fits=arguments.fits,
            detectors=arguments.detectors,
            size=arguments.size,
            seed=arguments.seed,
            progress=shown,
        )
    report(arguments, done.document(), done.text())


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", metavar="IN", nargs="+", help="a file, or several files and folders")
    parser.add_argument("output", metavar="OUT", help="the file to write; the folder for what several files become")
    parser.add_argument(
        "--to", choices=["h5", "fits"], default="h5", help="what the files of folders become (default: h5)"
    )
    force_argument(parser, "what else is in the place of a new file,")
    jobs_argument(parser)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        metavar="FOLDER",
        nargs="?",
        default="compositeh5-demo",
        help="where to make it; an earlier demonstration there is replaced (default: ./compositeh5-demo)",
    )
    parser.add_argument("--fits", metavar="FILE", nargs="+", default=[], help="use these exposures instead")
    option(parser, "--detectors", type=number(1, 100), default=9, metavar="N", help="how many (default: 9)")
    option(
        parser, "--size", type=number(64, 4096), default=1024, metavar="PIXELS", help="rows and columns (default: 1024)"
    )
    option(parser, "--seed", type=number(0, 2**32), default=1, metavar="N", help="of the random numbers (default: 1)")


VERBS = {
    "convert": Verb(
        _convert,
        _convert_arguments,
        "convert FITS files to composites, and back",
        "Convert a FITS file to a composite, or a composite that was one back: an exposure or a catalog of the LSST "
        "pipelines, an image with mask and uncertainty, or any other. What the components don't say is kept verbatim, "
        "so that nothing is lost. In folders, files that an earlier run has converted are passed over, and one "
        "that can't be converted doesn't stop the others; the exit code is 2 if there is one.",
        """
        compositeh5 convert exposure.fits exposure.h5
        compositeh5 convert exposure.h5 again.fits
        compositeh5 convert night composites -j 8
        compositeh5 convert --to fits composites night-again""",
        "a list of source, target, status, message",
    ),
    "demo": Verb(
        _demo,
        _demo_arguments,
        "make a small Butler repository, and show what can be done with it",
        "Make a Butler repository with one visit, simulated or from FITS files, read parts of it, and show what was "
        "read and what sharing saved. Needs the extra `butler`.",
        """
        compositeh5 demo
        compositeh5 demo my-demo --detectors 2 --size 256
        compositeh5 demo my-demo --fits exposure.fits""",
        "directory, seconds, files, reads, sharing",
    ),
}
