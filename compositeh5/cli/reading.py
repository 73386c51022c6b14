"""The verbs that show what a file holds, and get it out: ``ls``, ``info``, ``get``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..composite.describe import CELLS, cells
from ..errors import EncodeError
from . import export
from .common import COMPONENT, FILE, argument, force, verb
from .completion import opened
from .output import Outline, Table, report
from .progress import progress

if TYPE_CHECKING:
    from ..composite.composite import Composite


_LARGE = ("array", "image", "mask", "table")
"""The kinds of components that may be so large that reading them takes a while."""


@verb(
    *FILE,
    json="a list of name, kind, state, shape, dtype, units, stage, digest, nbytes, stored_bytes, target, origin, note",
    examples="""
        compositeh5 ls calexp.h5
        compositeh5 ls calexp.h5 --json | jq -r '.[].name'""",
)
def ls(arguments: argparse.Namespace) -> None:
    """List the components of a file.

    One per line: name, kind, shape (rows x columns), type, units, size in memory and in the file, the stage of
    processing that made it, and where it is: stored (here), linked (in another file), lost (linked, and not found), or
    absent (known to be None). `info` tells which composites a file has, if several.
    """
    with opened(arguments.file, arguments.name) as composite:
        infos = list(composite.components().values())
    report(arguments, infos, Table(CELLS, [cells(info) for info in infos]))


@verb(
    *FILE,
    json="file, format, creator, composites, definition, definition_version, id, digest, data_id, dataset_type, run, "
    "stage, components, absent, links, provenance",
    examples="""
        compositeh5 info calexp.h5
        compositeh5 info calexp.h5 --json | jq .data_id""",
)
def info(arguments: argparse.Namespace) -> None:
    """Show all that a file says about itself.

    Data ID, provenance, and for each component its kind, shape, type, units, sizes, digest, and where a link leads. No
    pixel is read.
    """
    with opened(arguments.file, arguments.name) as composite:
        document = _document(composite)
    report(arguments, document, Outline(document["file"], _shown(document)))


@verb(
    *FILE,
    COMPONENT,
    argument("-o", "--output", metavar="OUT", help="the file to write; its extension says how"),
    force(),
    json="the value; with -o file",
    examples="""
        compositeh5 get calexp.h5 visit_info
        compositeh5 get calexp.h5 image -o image.fits
        compositeh5 get src.h5 table -o sources.ecsv""",
)
def get(arguments: argparse.Namespace) -> None:
    """Get one component out.

    It is shown on the terminal, or written to a file of its own: images, masks and PSF kernels as .npy or .fits, tables
    as .ecsv, .fits, .csv, .hdf5 or .parquet, records as .json or .yaml, a WCS as .hdr, text and bytes as they are. With
    --json, records and calibrations in full, tables by column, the range of pixels.
    """
    with opened(arguments.file, arguments.name) as composite, ExitStack() as stack:
        kind = composite.kind(arguments.component)
        if kind in _LARGE:
            stack.enter_context(progress(arguments, "reading"))
        value = composite[arguments.component]
    if arguments.output is not None:
        export.write(value, kind, arguments.output, replace=arguments.force)
        report(arguments, {"file": arguments.output}, f"{arguments.output}: {arguments.component}")
    elif arguments.json:
        report(arguments, export.to_plain(value, kind))
    elif isinstance(value, bytes):
        if sys.stdout.isatty():
            raise EncodeError(
                f"{arguments.file}: {arguments.component!r} is bytes, which a terminal can't show: use -o"
            )
        sys.stdout.buffer.write(value)
    else:
        # All of it where a program reads, what fits where a person does.
        report(arguments, None, export.to_text(value, kind, short=sys.stdout.isatty()))


def _document(composite: Composite) -> dict[str, Any]:
    """Return all that is known of a stored composite without reading values, as JSON can hold it."""
    from ..composite.opening import file_info

    location = str(composite.location)
    return {
        "file": location,
        **asdict(file_info(location)),
        "definition": composite.definition,
        "definition_version": composite.definition_version,
        "id": composite.id,
        "digest": composite.recorded_digest,
        "data_id": composite.data_id,
        "dataset_type": composite.dataset_type,
        "run": composite.run,
        "stage": composite.stage,
        "components": {name: asdict(info) for name, info in composite.components().items() if info.state != "absent"},
        "absent": list(composite.absent),
        "links": {name: link.record() for name, link in composite.links.items()},
        "provenance": composite.provenance,
    }


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what there is to tell people: without what is empty, and what is in the title."""
    filled = {}
    for name, value in document.items():
        content = _shown(value) if isinstance(value, Mapping) else value
        if name not in ("file", "name") and content not in ("", [], {}, None):
            filled[name] = content
    return filled
