"""The verb that compares composites: ``diff``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict

from ..export import plain
from .common import FINE, FOUND, Verb, json_argument, opened, print_json


def _diff(arguments: argparse.Namespace) -> int:
    from ..operations.diff import diff

    with ExitStack() as stack:
        # One of several composites in a file is opened here; all else is left to `diff`, which also takes FITS files.
        one, other = (stack.enter_context(opened(p)) if "::" in p else p for p in (arguments.a, arguments.b))
        comparison = diff(one, other, components=arguments.component or None)
    if arguments.json:
        print_json(plain({"identical": comparison.identical, **asdict(comparison)}))
    else:
        print(comparison.text(None if arguments.all else 20))
    same = comparison.identical and not (arguments.attributes and comparison.attributes)
    return FINE if same else FOUND


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a file, or FILE::NAME if it holds several composites; also a FITS file")
    parser.add_argument("b", metavar="B", help="likewise")
    parser.add_argument(
        "--component", metavar="NAME", action="append", help="compare this one; can be repeated (default: all)"
    )
    parser.add_argument(
        "--attributes", action="store_true", help="other attributes (data ID, run, stages, provenance) count as well"
    )
    parser.add_argument("--all", action="store_true", help="show all differences, not only 20 of each component")
    json_argument(parser)


VERBS = {
    "diff": Verb(
        _diff,
        _diff_arguments,
        "compare two files, component by component",
        "Compare two files. Components with the same digest are identical, wherever they are stored, and aren't read. "
        "Of others it is shown how they differ: units, shape, how many pixels and by how much, mask planes, columns, "
        "fields, header cards, and how far the WCS moves pixels. A FITS file is compared as what it converts to; two "
        "FITS files are compared HDU by HDU. The exit code is 0 if they are identical, 1 if they differ, 2 if they "
        "can't be compared.",
        """
        compositeh5 diff calexp.h5 calexp_jointcal.h5
        compositeh5 diff calexp.fits calexp.h5
        compositeh5 diff a.h5 b.h5 --component wcs --json | jq '.components[].differences'""",
    ),
}
