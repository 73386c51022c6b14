"""The verb that compares files: ``diff``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict

from ..export import plain
from .common import FINE, FOUND, Verb, components_option, opened, option
from .output import Table, report
from .progress import progress


def _diff(arguments: argparse.Namespace) -> int:
    from ..operations.diff import ATTRIBUTE_COLUMNS, COLUMNS, diff

    with ExitStack() as stack:
        stack.enter_context(progress(arguments))("comparing", 0, 1)
        # One of several composites in a file is opened here; all else is left to `diff`, which also takes FITS files.
        one, other = (
            stack.enter_context(opened(path)) if "::" in path or arguments.stages else path
            for path in (arguments.a, arguments.b)
        )
        if arguments.stages:
            one, other = (
                composite.require_stage(stage, arguments.components)
                for composite, stage in zip((one, other), arguments.stages, strict=True)
            )
        comparison = diff(one, other, components=arguments.components)
    document = plain({"identical": comparison.identical, **asdict(comparison)})
    rows = comparison.rows(None if arguments.all else 20)
    report(
        arguments,
        document,
        f"A  {comparison.a}\nB  {comparison.b}\n",
        Table(COLUMNS, rows),
        f"\n{comparison.summary()}" if rows else comparison.summary(),
        *([""] if comparison.attributes else []),
        Table(ATTRIBUTE_COLUMNS, comparison.attribute_rows()),
    )
    same = comparison.identical and not (arguments.attributes and comparison.attributes)
    return FINE if same else FOUND


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a file, or FILE::NAME if it holds several composites; also a FITS file")
    parser.add_argument("b", metavar="B", help="likewise")
    components_option(parser, "compare only these (default: all)")
    option(
        parser,
        "--stages",
        nargs=2,
        metavar="STAGE",
        help="compare these versions of the components; A and B can be one file",
    )
    parser.add_argument(
        "--attributes", action="store_true", help="other attributes (data ID, run, stages, provenance) count as well"
    )
    parser.add_argument("--all", action="store_true", help="show all differences, not only 20 of each component")


VERBS = {
    "diff": Verb(
        _diff,
        _diff_arguments,
        "compare two files, component by component",
        "Compare two files. Components with the same digest are identical, wherever they are stored, and aren't read. "
        "Of others it is shown how they differ: units, shape, how many pixels and by how much, mask planes, columns, "
        "fields, header cards, and how far the WCS moves pixels. A FITS file is compared as what it converts to; two "
        "FITS files are compared HDU by HDU. ",
        """
        compositeh5 diff calexp.h5 calexp_jointcal.h5
        compositeh5 diff exposure.fits exposure.h5
        compositeh5 diff calexp_jointcal.h5 calexp_jointcal.h5 -c wcs --stages single_frame jointcal
        compositeh5 diff calexp.h5 calexp_jointcal.h5 -c wcs,mask --json | jq '.components[].differences'""",
        "identical, a, b, components, attributes",
        "they differ",
    ),
}
