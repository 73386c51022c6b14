"""The verbs that show what a file holds, and get it out: ``ls``, ``info``, ``get``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import export
from .common import Verb, file_argument, json_argument, opened, print_json

if TYPE_CHECKING:
    from ..composite import Composite
    from ..links import Link
    from ..report import ComponentInfo


def _ls(arguments: argparse.Namespace) -> None:
    with opened(arguments.file, arguments.name) as composite:
        infos = composite.components().values()
        links = composite.links
    if arguments.json:
        print_json([{"name": info.name} | _described(info) for info in infos])
    else:
        print(export.columns([_line(info, links.get(info.name)) for info in infos]))


def _info(arguments: argparse.Namespace) -> None:
    with opened(arguments.file, arguments.name) as composite:
        if arguments.json:
            print_json(_document(composite))
        else:
            _print_document(_document(composite))


def _get(arguments: argparse.Namespace) -> None:
    with opened(arguments.file, arguments.name) as composite:
        kind, value = composite.kind(arguments.component), composite[arguments.component]
    if arguments.output is not None:
        export.write(value, kind, arguments.output, replace=arguments.force)
    elif isinstance(value, bytes):
        sys.stdout.buffer.write(value)
    else:
        # All of it where a program reads, what fits where a person does.
        print(export.to_text(value, kind, short=sys.stdout.isatty()))


def _listing_arguments(parser: argparse.ArgumentParser) -> None:
    file_argument(parser)
    json_argument(parser)


def _get_arguments(parser: argparse.ArgumentParser) -> None:
    file_argument(parser)
    parser.add_argument("component", metavar="COMPONENT", help="the name of the component, as `ls` shows it")
    parser.add_argument("-o", "--output", metavar="OUT", help="the file to write; its extension says how")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


VERBS = {
    "ls": Verb(
        _ls,
        _listing_arguments,
        "list the components of a file",
        "List the components of a file, one per line: name, kind, shape and type, units, and whether it is stored "
        "here or linked. `compositeh5 info` tells which composites there are in a file that holds several.",
        """
        compositeh5 ls calexp.h5
        compositeh5 ls calexp.h5 --json | jq -r '.[].name'""",
    ),
    "info": Verb(
        _info,
        _listing_arguments,
        "show all that a file says about itself",
        "Show all that a file says about itself: data ID, provenance, and for each component its kind, shape, type, "
        "units, sizes, digest, and where a link leads. No pixel is read.",
        """
        compositeh5 info calexp.h5
        compositeh5 info calexp.h5 --json | jq .data_id""",
    ),
    "get": Verb(
        _get,
        _get_arguments,
        "get one component out",
        "Show one component on the terminal, or write it to a file of its own: images, masks and PSF kernels as .npy "
        "or .fits, tables as .ecsv, .fits, .csv, .hdf5 or .parquet, records as .json or .yaml, a WCS as .hdr, text and "
        "bytes as they are.",
        """
        compositeh5 get calexp.h5 visit_info
        compositeh5 get calexp.h5 image -o image.fits
        compositeh5 get src.h5 table -o sources.ecsv""",
    ),
}


def _document(composite: Composite) -> dict[str, Any]:
    """Return all that is known of a stored composite without reading values, as JSON can hold it."""
    from ..opening import file_info

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
