"""The verbs that make composites of something else: ``convert`` and ``demo``."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from .common import COULD_NOT, FINE, JOBS, argument, force, number_option, verb, working
from .output import Table, report
from .progress import progress


@verb(
    argument("inputs", metavar="IN", nargs="+", help="a file, or several files and folders"),
    argument("output", metavar="OUT", help="the file to write; the folder for what several files become"),
    argument("--to", choices=["h5", "fits"], default="h5", help="what the files of folders become (default: h5)"),
    force("what else is in the place of a new file,"),
    JOBS,
    json="a list of source, target, status, message",
    examples="""
        compositeh5 convert exposure.fits exposure.h5
        compositeh5 convert exposure.h5 again.fits
        compositeh5 convert night composites -j 8
        compositeh5 convert --to fits composites night-again""",
)
def convert(arguments: argparse.Namespace) -> int:
    """Convert FITS files to composites, and back.

    An exposure or a catalog of the LSST pipelines, an image with mask and uncertainty, or any other. What the
    components don't say is kept verbatim, so that nothing is lost. In folders, files that an earlier run has converted
    are passed over, and one that can't be converted doesn't stop the others; the exit code is 2 if there is one.
    """
    from ..fits import Conversion, convert, convert_files

    several = len(arguments.inputs) > 1 or os.path.isdir(arguments.inputs[0]) or os.path.isdir(arguments.output)
    if not several and not arguments.output.endswith(os.sep):
        with progress(arguments, "converting"):
            composite = convert(arguments.inputs[0], arguments.output, replace=arguments.force)
        done = [Conversion(arguments.inputs[0], arguments.output, "converted")]
        report(arguments, done, f"{arguments.output}: {composite!r}")
        return FINE
    with working(arguments) as how:
        done = convert_files(arguments.inputs, arguments.output, to=arguments.to, replace=arguments.force, **how)
    failed = [conversion for conversion in done if conversion.status == "failed"]
    counts = Counter(conversion.status for conversion in done)
    report(
        arguments,
        done,
        Table(("state", "file", "why"), [("failed", conversion.source, conversion.message) for conversion in failed]),
        ", ".join(f"{counts[status]} {status}" for status in ("converted", "unchanged", "failed")),
    )
    return COULD_NOT if failed else FINE


@verb(
    argument(
        "directory",
        metavar="FOLDER",
        nargs="?",
        default="compositeh5-demo",
        help="where to make it; an earlier demonstration there is replaced (default: ./compositeh5-demo)",
    ),
    argument("--fits", metavar="FILE", nargs="+", default=[], help="use these exposures instead"),
    number_option("--detectors", low=1, high=100, default=9, metavar="N", help="how many (default: 9)"),
    number_option("--size", low=64, high=4096, default=1024, metavar="PIXELS", help="rows and columns (default: 1024)"),
    number_option("--seed", low=0, high=2**32, default=1, metavar="N", help="of the random numbers (default: 1)"),
    json="directory, seconds, files, reads, sharing",
    examples="""
        compositeh5 demo
        compositeh5 demo my-demo --detectors 2 --size 256
        compositeh5 demo my-demo --fits exposure.fits""",
)
def demo(arguments: argparse.Namespace) -> None:
    """Make a small Butler repository, and show what can be done with it.

    It has one visit, simulated or from FITS files. Parts of it are read, and what was read and what sharing saved is
    shown. Needs the extra `butler`.
    """
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
