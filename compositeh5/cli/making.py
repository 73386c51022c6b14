"""The verbs that make composites of something else: ``convert`` and ``demo``."""

from __future__ import annotations

import argparse

from .common import Verb, number, progress


def _convert(arguments: argparse.Namespace) -> None:
    from ..convert import convert

    composite = convert(arguments.input, arguments.output, replace=arguments.force)
    print(f"{arguments.output}: {composite!r}")


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
    parser.add_argument("input", metavar="IN", help="the FITS file")
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


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
        "convert a FITS file",
        "Convert a FITS file of an exposure, as the LSST pipelines write them, to a composite. What the components "
        "don't say is kept verbatim, so that nothing is lost.",
        """
        compositeh5 convert calexp.fits calexp.h5""",
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
