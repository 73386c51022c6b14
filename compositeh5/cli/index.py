"""The verbs that look at many composites at once: ``index`` and ``visit``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .. import export
from ..errors import OutsideError
from .common import FINE, FOUND, Verb, executor, force_argument, jobs_argument, option
from .output import Table, report
from .progress import progress

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable


def _index(arguments: argparse.Namespace) -> int:
    from ..operations.index import index, open_index

    with executor(arguments.jobs) as pool, progress(arguments) as shown:
        done = index(arguments.root, arguments.output, executor=pool, progress=shown)
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


def _visit(arguments: argparse.Namespace) -> None:
    from ..operations.visit_files import open_visit

    with (
        executor(arguments.jobs) as pool,
        progress(arguments) as shown,
        open_visit(
            arguments.source,
            arguments.members,
            data_id=dict(arguments.data_id),
            executor=pool,
            progress=shown,
        ) as view,
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


def _pair(text: str) -> tuple[str, int | str]:
    key, found, value = text.partition("=")
    if not (key and found):
        raise argparse.ArgumentTypeError(f"should be KEY=VALUE, not {text!r}")
    return key, int(value) if value.lstrip("-").isdecimal() else value


def _visit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="VISIT", help="the file of the visit; or a folder or pattern of detectors")
    parser.add_argument(
        "members",
        metavar="WHERE",
        nargs="?",
        help="a folder, pattern or file where the detectors of that visit are looked for (default: the index above it)",
    )
    option(
        parser,
        "-d",
        "--data-id",
        metavar="KEY=VALUE",
        type=_pair,
        action="append",
        default=[],
        help="only these, as visit=42; may be repeated",
    )
    what = parser.add_mutually_exclusive_group()
    option(what, "--table", metavar="COMPONENT", help="show this component of all detectors, as a table")
    option(
        what,
        "--at",
        metavar=("RA", "DEC"),
        nargs=2,
        help="show which detectors contain a position (ICRS; degrees, or as 10h00m24s +2d12m)",
    )
    jobs_argument(parser)


def _index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="FOLDER", help="the folder; all below it is looked into")
    parser.add_argument("-o", "--output", metavar="OUT", help="the index (default: FOLDER/compositeh5-index.h5)")
    parser.add_argument(
        "--export", metavar="FILE", help="also write the table as .parquet, .hdf5 (astropy's), .ecsv or .fits"
    )
    force_argument(parser, "the exported file")
    jobs_argument(parser)


VERBS = {
    "index": Verb(
        _index,
        _index_arguments,
        "write one table of the scalars of all composites in a folder",
        "Write one table of what all composites in a folder say of themselves, and of their scalars: data IDs, "
        "records such as the metadata of visits, calibrations, corners on the sky. Only files that have changed since "
        "last time are opened, and no pixel is read. `compositeh5.open_index` gives the table; queries need no other "
        "file.",
        """
        compositeh5 index calexp
        compositeh5 index repo -j 8 --export index.fits
        compositeh5 get calexp/compositeh5-index.h5 table -o index.ecsv""",
        "path, composites, read, unchanged, removed, problems",
        "some files can't be read",
    ),
    "visit": Verb(
        _visit,
        _visit_arguments,
        "show all detectors of a visit together",
        "List the detectors of a visit and their files, show one component of all of them as a table, or tell "
        "which contain a position on the sky.",
        """
        compositeh5 visit visit/visit_903334.h5 calexp
        compositeh5 visit calexp -d visit=903334 --table summary_stats
        compositeh5 visit visit/visit_903334.h5 calexp --at 150.1 2.2""",
        "a list of detector, file; with --table and --at unit and values of each column",
    ),
}
