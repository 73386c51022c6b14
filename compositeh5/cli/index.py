"""The verbs that look at many composites at once: ``index`` and ``visit``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from .. import export
from .common import FINE, FOUND, Verb, executor, jobs_argument, json_argument, print_json, progress


def _index(arguments: argparse.Namespace) -> int:
    from ..operations.index import index, open_index

    with executor(arguments.jobs) as pool, progress() as shown:
        report = index(arguments.root, arguments.output, executor=pool, progress=shown)
    if arguments.export is not None:
        export.write(open_index(report.path), "table", arguments.export, replace=arguments.force)
    if arguments.json:
        print_json(asdict(report))
    else:
        files = f"{report.read} files read, {report.unchanged} unchanged, {report.removed} gone"
        print(f"{report.path}: {report.composites} composites; {files}")
        if report.problems:
            print(export.columns(list(report.problems.items())))
    return FOUND if report.problems else FINE


def _index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", help="the folder; all below it is looked into")
    parser.add_argument("-o", "--output", metavar="FILE", help="the index (default: ROOT/compositeh5-index.h5)")
    parser.add_argument(
        "--export", metavar="FILE", help="also write the table as .parquet, .hdf5 (astropy's), .ecsv or .fits"
    )
    parser.add_argument("--force", action="store_true", help="replace the exported file if it exists")
    jobs_argument(parser)
    json_argument(parser)


VERBS = {
    "index": Verb(
        _index,
        _index_arguments,
        "write one table of the scalars of all composites in a folder",
        "Write one table of what all composites in a folder say of themselves, and of their scalars: data IDs, "
        "records such as the metadata of visits, calibrations, corners on the sky. Only files that have changed since "
        "last time are opened, and no pixel is read. `compositeh5.open_index` gives the table; queries need no other "
        "file. The exit code is 1 if something can't be read.",
        """
        compositeh5 index calexp
        compositeh5 index /data/repo -j 8 --export index.parquet
        compositeh5 get calexp/compositeh5-index.h5 table -o index.ecsv""",
    ),
}
