"""The verb that shows pictures: ``preview``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import EncodeError
from .common import FILE, argument, force, names_option, number_option, verb
from .completion import opened
from .output import report, terminal
from .progress import progress

if TYPE_CHECKING:
    from ..preview import Picture

_SIDE = 1024


@verb(
    *FILE,
    argument("-o", "--output", metavar="OUT", help="write a .png file instead of showing it here"),
    force(),
    number_option(
        "--size",
        low=1,
        high=16384,
        metavar="PIXELS",
        help=f"rows and columns of the picture, at most (default: what the terminal has; {_SIDE} for files)",
    ),
    names_option("--planes", help="the planes of the mask to show; '' for none (default: all)"),
    json="file, shape, step, low, high, planes",
    examples="""
        compositeh5 preview calexp.h5
        compositeh5 preview calexp.h5 -o calexp.png --planes SAT,CR""",
)
def preview(arguments: argparse.Namespace) -> None:
    """Show a picture of an image.

    With the contrast of zscale and its mask in colours, on the terminal or as a PNG file.
    """
    if arguments.output is not None:
        shown = _written(arguments)
    elif arguments.json:
        shown = _picture(arguments, arguments.size or _SIDE)
    else:
        shown = _printed(arguments)
    document = {"shape": shown.pixels.shape[:2], "step": shown.step, "low": shown.low, "high": shown.high}
    target = "" if arguments.output is None else f"{arguments.output}: "
    report(arguments, {"file": arguments.output, **document, "planes": shown.colours}, f"{target}{_legend(shown)}")


def _written(arguments: argparse.Namespace) -> Picture:
    from ..composite.pictures import png
    from ..storage.publish import publish

    if not arguments.output.endswith(".png"):
        raise EncodeError(f"{arguments.output}: pictures are written as .png")
    shown = _picture(arguments, arguments.size or _SIDE)
    publish(arguments.output, png(shown.pixels), replace=arguments.force)
    return shown


def _printed(arguments: argparse.Namespace) -> Picture:
    console = terminal()
    if console is None:
        raise EncodeError(
            "a picture is shown on a terminal only, with rich (pip install 'compositeh5[cli]'); "
            "`-o picture.png` writes a file"
        )
    from ..preview import on_terminal

    # Two rows of pixels in a line, and a line for the legend and the prompt each.
    side = arguments.size or max(1, min(console.width, 2 * (console.height - 2)))
    shown = _picture(arguments, side)
    console.print(on_terminal(shown), end="")
    return shown


def _picture(arguments: argparse.Namespace, side: int) -> Picture:
    from ..preview import picture

    with progress(arguments, "reading"), opened(arguments.file, arguments.name) as composite:
        return picture(composite, side, planes=arguments.planes)


def _legend(shown: Picture) -> str:
    """Return what the grey levels and the colours mean."""
    ny, nx = shown.pixels.shape[:2]
    colours = "".join(f", {plane} {colour}" for plane, colour in shown.colours.items())
    return f"{ny} x {nx}, {shown.step} x {shown.step} in one, {shown.low:.4g} to {shown.high:.4g}{colours}"
