"""The verb that shows pictures: ``preview``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import TYPE_CHECKING

from .common import COULD_NOT, Verb, file_argument, number, opened, progress

if TYPE_CHECKING:
    from ..composite import Composite
    from ..display import Picture

_SIDE = 1024


def _preview(arguments: argparse.Namespace) -> int | None:
    from ..container.publish import publish
    from ..display import png
    from ..errors import EncodeError

    output = arguments.output
    if output is None:
        return _print(arguments)
    if not output.endswith(".png"):
        raise EncodeError(f"{output}: pictures are written as .png")
    shown = _picture(arguments, arguments.size or _SIDE)
    publish(output, png(shown.pixels), replace=arguments.force)
    print(f"{output}: {_legend(shown)}")
    return None


def _print(arguments: argparse.Namespace) -> int | None:
    try:
        from rich.console import Console
    except ImportError:
        return _cannot("pictures on a terminal need rich: pip install 'compositeh5[cli]'")
    console = Console()
    if not console.is_terminal:
        return _cannot("a picture is shown on a terminal only")
    from ..display import on_terminal

    # Two rows of pixels in a line, and a line for the legend and the prompt each.
    side = arguments.size or max(1, min(console.width, 2 * (console.height - 2)))
    shown = _picture(arguments, side)
    console.print(on_terminal(shown), end="")
    print(_legend(shown))
    return None


def _cannot(why: str) -> int:
    print(f"compositeh5: error: {why}; `-o picture.png` writes a file", file=sys.stderr)
    return COULD_NOT


def _picture(arguments: argparse.Namespace, side: int) -> Picture:
    from ..display import picture

    planes = None if arguments.planes is None else [name for name in arguments.planes.split(",") if name]
    if os.path.isdir(arguments.file):
        return picture(_visit(arguments.file, side), side, planes=planes)
    with opened(arguments.file, arguments.name) as composite:
        return picture(composite, side, planes=planes)


def _visit(folder: str, side: int) -> Composite:
    """Return the images of all detectors in a folder, at about the size wanted."""
    from ..operations.visit_files import open_visit

    with progress() as shown, open_visit(folder, progress=shown) as view:
        with view.open(view.detectors[0]) as first:
            rows = max(first.lazy("image").shape[-2:]) * math.sqrt(len(view.detectors))
        return view.picture(step=max(1, round(rows / side)))


def _legend(shown: Picture) -> str:
    """Return what the grey levels and the colours mean."""
    ny, nx = shown.pixels.shape[:2]
    colours = "".join(f", {plane} {colour}" for plane, colour in shown.colours.items())
    return f"{ny} x {nx}, {shown.step} x {shown.step} in one, {shown.low:.4g} to {shown.high:.4g}{colours}"


def _arguments(parser: argparse.ArgumentParser) -> None:
    file_argument(parser)
    parser.add_argument("-o", "--output", metavar="OUT.png", help="write a PNG file instead of showing it here")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--size",
        type=number(1, 16384),
        metavar="PIXELS",
        help=f"rows and columns of the picture, at most (default: what the terminal has; {_SIDE} for files)",
    )
    parser.add_argument("--planes", metavar="A,B", help="the planes of the mask to show; '' for none (default: all)")


VERBS = {
    "preview": Verb(
        _preview,
        _arguments,
        "show a picture of an image",
        "Show the image of a file with the contrast of zscale and its mask in colours, on the terminal or as a PNG "
        "file. Of a folder with the detectors of one visit, show all of them where they are on the sky.",
        """
        compositeh5 preview calexp.h5
        compositeh5 preview calexp.h5 -o calexp.png --planes SAT,CR
        compositeh5 preview calexp/ -o focal_plane.png""",
    ),
}
