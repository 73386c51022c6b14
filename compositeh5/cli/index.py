"""The verbs that look at many composites at once: ``index`` and ``visit``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import OutsideError
from . import export
from .common import FINE, FOUND, JOBS, argument, force, option, verb, working
from .output import Table, report

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable


@verb(
    argument("root", metavar="FOLDER", help="the folder; all below it is looked into"),
    argument("-o", "--output", metavar="OUT", help="the index (default: FOLDER/compositeh5-index.h5)"),
    argument("--export", metavar="FILE", help="also write the table as .parquet, .hdf5 (astropy's), .ecsv or .fits"),
    force("the exported file"),
    JOBS,
    json="path, composites, read, unchanged, removed, problems",
    examples="""
        compositeh5 index calexp
        compositeh5 index repo -j 8 --export index.fits
        compositeh5 get calexp/compositeh5-index.h5 table -o index.ecsv""",
    found="some files can't be read",
)
def index(arguments: argparse.Namespace) -> int:
    """Write one table of the scalars of all composites in a folder.

    What they say of themselves, data IDs, records such as the metadata of visits, calibrations, corners on the sky.
    Only files that have changed since last time are opened, and no pixel is read. `compositeh5.trees.open_index` gives
    the table; queries need no other file.
    """
    from ..trees.index_table import index, open_index

    with working(arguments) as how:
        done = index(arguments.root, arguments.output, **how)
    if arguments.export is not None:
        export.write(open_index(done.path), "table", arguments.export, replace=arguments.force)
    files = f"{done.read} files read, {done.unchanged} unchanged, {done.removed} gone"
    report(
        arguments,
        done,
        Table(("state", "file", "why"), [("unread", *problem) for problem in done.problems.items()]),
        f"{done.path}: {done.composites} composites; {files}",
    )
    return FOUND if done.problems else FINE


def _pair(text: str) -> tuple[str, int | str]:
    key, found, value = text.partition("=")
    if not (key and found):
        raise argparse.ArgumentTypeError(f"should be KEY=VALUE, not {text!r}")
    return key, int(value) if value.lstrip("-").isdecimal() else value


@verb(
    argument("source", metavar="VISIT", help="the file of the visit; or a folder or pattern of detectors"),
    argument(
        "members",
        metavar="WHERE",
        nargs="?",
        help="a folder, pattern or file where the detectors of that visit are looked for (default: the index above it)",
    ),
    option(
        "-d",
        "--data-id",
        metavar="KEY=VALUE",
        type=_pair,
        action="append",
        default=[],
        help="only these, as visit=42; may be repeated",
    ),
    (
        option("--table", metavar="COMPONENT", help="show this component of all detectors, as a table"),
        option(
            "--at",
            metavar=("RA", "DEC"),
            nargs=2,
            help="show which detectors contain a position (ICRS; degrees, or as 10h00m24s +2d12m)",
        ),
    ),
    JOBS,
    json="a list of detector, file; with --table and --at unit and values of each column",
    examples="""
        compositeh5 visit visit/visit_903334.h5 calexp
        compositeh5 visit calexp -d visit=903334 --table summary_stats
        compositeh5 visit visit/visit_903334.h5 calexp --at 150.1 2.2""",
)
def visit(arguments: argparse.Namespace) -> None:
    """Show all detectors of a visit together.

    List them and their files, show one component of all of them as a table, or tell which contain a position on the
    sky.
    """
    from ..trees.visit_files import open_visit

    with (
        working(arguments) as how,
        open_visit(arguments.source, arguments.members, data_id=dict(arguments.data_id), **how) as view,
    ):
        if arguments.at is not None:
            _report_table(arguments, view.containing(_position(*arguments.at))["detector", "y", "x"])
        elif arguments.table is not None:
            _report_table(arguments, view.table(arguments.table, missing="keep"))
        else:
            document = [{"detector": detector, "file": path} for detector, path in view.locations.items()]
            rows = [(str(detector), path) for detector, path in view.locations.items()]
            report(arguments, document, Table(("detector", "file"), rows))


def _report_table(arguments: argparse.Namespace, table: QTable) -> None:
    report(arguments, export.to_plain(table, "table"), export.to_text(table, "table"))


def _position(ra: str, dec: str) -> SkyCoord:
    """Return a position that is given in degrees, or as ``10h00m24s +2d12m``."""
    from astropy.coordinates import SkyCoord

    try:
        return SkyCoord(ra, dec, unit="deg")
    except ValueError as error:
        raise OutsideError(f"{ra} {dec} isn't a position on the sky: {error}") from error
