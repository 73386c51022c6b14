"""The verbs that show what files hold, get it out, and compare it: ``ls``, ``info``, ``get``, ``preview``, ``diff``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..composite.display import CELLS, cells
from ..errors import EncodeError
from . import export
from .arguments import COMPONENT, FILE, FINE, FOUND, argument, between, components, flag, force, names, opened, verb
from .output import Outline, Table, progress, report, terminal

if TYPE_CHECKING:
    from ..comparison import Difference
    from ..composite.composite import Composite
    from ..preview import Picture

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


@verb(
    *FILE,
    COMPONENT,
    argument("-o --output", "OUT", "the file to write; its extension says how"),
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
    with opened(arguments.file, arguments.name) as composite:
        kind = composite.kind(arguments.component)
        with progress(arguments, "reading") if kind in _LARGE else nullcontext():
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


_SIDE = 1024
"""Rows and columns of pictures that aren't shown on a terminal, at most."""


@verb(
    *FILE,
    argument("-o --output", "OUT", "write a .png file instead of showing it here"),
    force(),
    argument(
        "--size",
        "PIXELS",
        f"rows and columns of the picture, at most (default: what the terminal has; {_SIDE} for files)",
        type=between(1, 16384),
    ),
    names("--planes", "the planes of the mask to show; '' for none (default: all)"),
    json="file, shape, step, low, high, planes",
    examples="""
        compositeh5 preview calexp.h5
        compositeh5 preview calexp.h5 -o calexp.png --planes SAT,CR""",
)
def preview(arguments: argparse.Namespace) -> None:
    """Show a picture of an image.

    With the contrast of zscale and its mask in colours, on the terminal or as a PNG file.
    """
    if arguments.output is None and not arguments.json:
        shown = _shown_picture(arguments)
    elif arguments.output is None or arguments.output.endswith(".png"):
        shown = _picture(arguments, arguments.size or _SIDE)
    else:
        raise EncodeError(f"{arguments.output}: pictures are written as .png")
    target = ""
    if arguments.output is not None:
        from ..composite.display import png
        from ..storage.publish import publish

        publish(arguments.output, png(shown.pixels), replace=arguments.force)
        target = f"{arguments.output}: "
    ny, nx = shape = shown.pixels.shape[:2]
    colours = "".join(f", {plane} {colour}" for plane, colour in shown.colours.items())
    document = {"shape": shape, "step": shown.step, "low": shown.low, "high": shown.high, "planes": shown.colours}
    legend = f"{ny} x {nx}, {shown.step} x {shown.step} in one, {shown.low:.4g} to {shown.high:.4g}{colours}"
    report(arguments, {"file": arguments.output, **document}, f"{target}{legend}")


def _picture(arguments: argparse.Namespace, side: int) -> Picture:
    from ..preview import picture

    with progress(arguments, "reading"), opened(arguments.file, arguments.name) as composite:
        return picture(composite, side, planes=arguments.planes)


def _shown_picture(arguments: argparse.Namespace) -> Picture:
    """Return a picture of the size of the terminal, after it was shown there."""
    console = terminal()
    if console is None:
        raise EncodeError(
            "a picture is shown on a terminal only, with rich (pip install 'compositeh5[cli]'); "
            "`-o picture.png` writes a file"
        )
    from ..preview import on_terminal

    # Two rows of pixels in a line, and a line for the legend and the prompt each.
    shown = _picture(arguments, arguments.size or max(1, min(console.width, 2 * (console.height - 2))))
    console.print(on_terminal(shown), end="")
    return shown


_WIDTH = 48
"""Values that are longer are cut in tables."""


@verb(
    argument("a", "A", "a file, or FILE::NAME if it holds several composites; also a FITS file"),
    argument("b", "B", "likewise"),
    components("compare only these (default: all)"),
    argument("--stages", "STAGE", "compare these versions of the components; A and B can be one file", nargs=2),
    flag("--attributes", "other attributes (data ID, run, stages, provenance) count as well"),
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
        export.plain({"identical": found.identical, **asdict(found)}),
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
