"""The command ``compositeh5``: look into files, get components out, convert, and see a demonstration.

Each verb is a function of its arguments; the table `_VERBS` says how it is called. What is an error of the package or
of the operating system is one line on the standard error, and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from . import export
from ._version import __version__
from .errors import CompositeH5Error

if TYPE_CHECKING:
    from .composite import Composite
    from .demo import Progress
    from .links import Link
    from .report import ComponentInfo

FINE, COULD_NOT, INTERRUPTED = 0, 2, 130
"""The exit codes; 2 is also argparse's for wrong arguments, 130 the shell's for Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (``head``) has seen enough; the flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        # The Butler wraps what goes wrong inside of it.
        known: BaseException | None = error
        while known is not None and not isinstance(known, CompositeH5Error | OSError):
            known = known.__cause__
        if known is None:
            raise
        print(f"compositeh5: error: {known}", file=sys.stderr)
        return COULD_NOT
    return FINE


# ---- The verbs ---------------------------------------------------------------------------------------------


def _ls(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as composite:
        infos = composite.components().values()
        links = composite.links
    if arguments.json:
        _print_json([{"name": info.name} | _described(info) for info in infos])
    else:
        print(export.columns([_line(info, links.get(info.name)) for info in infos]))


def _info(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as composite:
        if arguments.json:
            _print_json(_document(composite))
        else:
            _print_document(_document(composite))


def _get(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as composite:
        kind, value = composite.kind(arguments.component), composite[arguments.component]
    if arguments.output is not None:
        export.write(value, kind, arguments.output, replace=arguments.force)
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    else:
        # All of it where a program reads, what fits where a person does.
        print(export.to_text(value, kind, short=sys.stdout.isatty()))


def _convert(arguments: argparse.Namespace) -> None:
    from .convert import convert

    composite = convert(arguments.input, arguments.output, replace=arguments.force)
    print(f"{arguments.output}: {composite!r}")


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import run

    with _progress() as progress:
        report = run(
            arguments.directory,
            fits=arguments.fits,
            detectors=arguments.detectors,
            size=arguments.size,
            seed=arguments.seed,
            progress=progress,
        )
    print(report.text())


# ---- Their arguments ---------------------------------------------------------------------------------------


def _file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file, or FILE::NAME if it holds several composites")
    parser.add_argument("--name", help="the name of the composite, if the file holds several")


def _listing_arguments(parser: argparse.ArgumentParser) -> None:
    _file_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _get_arguments(parser: argparse.ArgumentParser) -> None:
    _file_argument(parser)
    parser.add_argument("component", metavar="COMPONENT", help="the name of the component, as `ls` shows it")
    parser.add_argument("-o", "--output", metavar="OUT", help="the file to write; its extension says how")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="the FITS file")
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        metavar="DIR",
        nargs="?",
        default="compositeh5-demo",
        help="where to make it; an earlier demonstration there is replaced (default: ./compositeh5-demo)",
    )
    parser.add_argument("--fits", metavar="FILE", nargs="+", default=[], help="use these exposures instead")
    parser.add_argument("--detectors", type=_number(1, 100), default=9, metavar="N", help="how many (default: 9)")
    parser.add_argument(
        "--size", type=_number(64, 4096), default=1024, metavar="PIXELS", help="rows and columns (default: 1024)"
    )
    parser.add_argument("--seed", type=_number(0, 2**32), default=1, metavar="N", help="of the random numbers")


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"should be {low} to {high}, not {value}")
        return value

    return number


class _Verb(NamedTuple):
    run: Callable[[argparse.Namespace], None]
    arguments: Callable[[argparse.ArgumentParser], None]
    help: str
    description: str
    examples: str


_VERBS = {
    "ls": _Verb(
        _ls,
        _listing_arguments,
        "list the components of a file",
        "List the components of a file, one per line: name, kind, shape and type, units, and whether it is stored "
        "here or linked. `compositeh5 info` tells which composites there are in a file that holds several.",
        """
        compositeh5 ls calexp.h5
        compositeh5 ls calexp.h5 --json | jq -r '.[].name'""",
    ),
    "info": _Verb(
        _info,
        _listing_arguments,
        "show all that a file says about itself",
        "Show all that a file says about itself: data ID, provenance, and for each component its kind, shape, type, "
        "units, sizes, digest, and where a link leads. No pixel is read.",
        """
        compositeh5 info calexp.h5
        compositeh5 info calexp.h5 --json | jq .data_id""",
    ),
    "get": _Verb(
        _get,
        _get_arguments,
        "get one component out",
        "Show one component on the terminal, or write it to a file of its own: images, masks and PSF kernels as .npy "
        "or .fits, tables as .ecsv, .fits or .csv, records as .json or .yaml, a WCS as .hdr, text and bytes as they "
        "are.",
        """
        compositeh5 get calexp.h5 visit_info
        compositeh5 get calexp.h5 image -o image.fits
        compositeh5 get src.h5 table -o sources.ecsv""",
    ),
    "convert": _Verb(
        _convert,
        _convert_arguments,
        "convert a FITS file",
        "Convert a FITS file of an exposure, as the LSST pipelines write them, to a composite. What the components "
        "don't say is kept verbatim, so that nothing is lost.",
        """
        compositeh5 convert calexp.fits calexp.h5""",
    ),
    "demo": _Verb(
        _demo,
        _demo_arguments,
        "make a small Butler repository, and show what can be done with it",
        "Make a Butler repository with one visit, simulated or from FITS files, read parts of it, and show what was "
        "read and what sharing saved. Needs the extra `butler`.",
        """
        compositeh5 demo
        compositeh5 demo /tmp/demo --detectors 4 --size 2048
        compositeh5 demo /tmp/demo --fits calexp-*.fits""",
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "compositeh5",
        description="Composite scientific objects in HDF5: look into files, get components out, convert.",
        epilog="`compositeh5 VERB --help` explains a verb and gives examples.",
    )
    parser.add_argument("--version", action="version", version=f"compositeh5 {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, verb in _VERBS.items():
        examples = "\n".join("  " + line.strip() for line in verb.examples.strip().splitlines())
        sub = verbs.add_parser(
            name,
            help=verb.help,
            description=verb.description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.arguments(sub)
        sub.set_defaults(run=verb.run)
    return parser


# ---- Showing things ----------------------------------------------------------------------------------------


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[Composite]:
    from .opening import open_composite

    path, name = arguments.file, arguments.name
    if name is None and "::" in path and not os.path.exists(path):
        path, _, name = path.rpartition("::")
    with open_composite(path, name) as composite:
        yield composite


def _document(composite: Composite) -> dict[str, Any]:
    """Return all that is known of a stored composite without reading values, as JSON can hold it."""
    from .opening import file_info

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
        "components": {
            name: _described(info) for name, info in composite.components().items() if info.state != "absent"
        },
        "absent": list(composite.absent),
        "links": {name: link.record() for name, link in composite.links.items()},
        "provenance": composite.provenance,
    }


def _print_document(document: Mapping[str, Any]) -> None:
    about = dict(document)
    blocks = {f"component {name}": info for name, info in about.pop("components").items()}
    blocks |= {f"link {name}": link for name, link in about.pop("links").items()}
    blocks["provenance"] = about.pop("provenance")
    print(_block(about))
    for title, block in blocks.items():
        if block:
            print(f"\n{export.columns([(title,)])}\n{_block(block)}")


def _block(entries: Mapping[str, Any]) -> str:
    return export.to_text({name: value for name, value in entries.items() if value not in ("", [], {})}, "record")


def _described(info: ComponentInfo) -> dict[str, Any]:
    return {key: value for key, value in asdict(info).items() if key != "name" and value not in ("", ())}


def _line(info: ComponentInfo, link: Link | None) -> tuple[str, ...]:
    shape = " ".join(filter(None, (" x ".join(map(str, info.shape)), info.dtype)))
    where = info.state
    if link is not None:
        where += f" -> {link.dataset_type or link.definition or 'composite'}.{link.component}"
    return info.name, info.kind, shape, info.units, where


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@contextmanager
def _progress() -> Iterator[Progress]:
    """Return what shows how far the demonstration is: a bar on a terminal, else a line per step."""
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
    except ImportError:
        yield _print_step
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_step
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda step, done, total: bar.update(task, description=step, completed=done, total=total, refresh=True)


def _print_step(step: str, done: int, total: int) -> None:
    print(f"[{done}/{total}] {step}", file=sys.stderr)
