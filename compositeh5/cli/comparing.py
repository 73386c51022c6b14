"""The verb that compares files: ``diff``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from .common import FINE, FOUND, argument, components_option, option, verb
from .completion import opened
from .export import plain
from .output import Table, report
from .progress import progress

if TYPE_CHECKING:
    from ..comparison import Difference

_WIDTH = 48
"""Values that are longer are cut in tables."""


@verb(
    argument("a", metavar="A", help="a file, or FILE::NAME if it holds several composites; also a FITS file"),
    argument("b", metavar="B", help="likewise"),
    components_option("compare only these (default: all)"),
    option(
        "--stages",
        nargs=2,
        metavar="STAGE",
        help="compare these versions of the components; A and B can be one file",
    ),
    argument(
        "--attributes", action="store_true", help="other attributes (data ID, run, stages, provenance) count as well"
    ),
    json="identical, a, b, components, differences, attributes, fits_report",
    examples="""
        compositeh5 diff calexp.h5 calexp_jointcal.h5
        compositeh5 diff exposure.fits exposure.h5
        compositeh5 diff calexp_jointcal.h5 calexp_jointcal.h5 -c wcs --stages single_frame jointcal
        compositeh5 diff calexp.h5 calexp_jointcal.h5 -c wcs,mask --json | jq '.differences[].path'""",
    found="they differ",
)
def diff(arguments: argparse.Namespace) -> int:
    """Compare two files, component by component.

    Components with the same digest are identical, wherever they are stored, and aren't read. Others are compared array
    by array: shape and type, attributes such as units, how many values differ, by how much at most, and where first. A
    FITS file is compared as what it converts to; of two FITS files the report of astropy's FITSDiff is shown.
    """
    from ..comparison import diff

    with ExitStack() as stack:
        stack.enter_context(progress(arguments, "comparing"))
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
        found = diff(one, other, components=arguments.components)
    differing = {difference.path.partition("/")[0] for difference in found.differences}
    summary = f"{len(differing)} of {len(found.components)} components differ" if found.components else "no difference"
    report(
        arguments,
        plain({"identical": found.identical, **asdict(found)}),
        f"A  {found.a}\nB  {found.b}\n",
        Table(("component", "what", "A", "B", "difference"), [*map(_row, found.differences)]),
        found.fits_report or summary,
        Table(("attribute", "A", "B"), [_row(difference)[1:4] for difference in found.attributes]),
    )
    return FINE if found.identical and not (arguments.attributes and found.attributes) else FOUND


def _row(difference: Difference) -> tuple[str, str, str, str, str]:
    sizes = [f"{difference.count} of {difference.total}"] if difference.total > 1 else []
    sizes += [] if difference.largest is None else [f"largest {difference.largest:.6g}"]
    sizes += [f"first at [{', '.join(map(str, difference.at))}]"] if difference.at else []
    return difference.path, difference.what, _cell(difference.a), _cell(difference.b), ", ".join(sizes)


def _cell(text: str | None) -> str:
    return "(none)" if text is None else text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
