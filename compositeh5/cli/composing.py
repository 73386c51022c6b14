"""The verbs that make composites of others by links: ``flatten``, ``split``, ``subset``, ``promote``."""

from __future__ import annotations

import argparse

from . import completion
from .common import (
    COULD_NOT,
    FINE,
    Verb,
    component_argument,
    components_option,
    executor,
    file_argument,
    force_argument,
    jobs_argument,
    opened,
    option,
)
from .output import report
from .progress import progress


def _flatten(arguments: argparse.Namespace) -> None:
    with opened(arguments.file, arguments.name) as composite, progress(arguments) as shown:
        shown("writing", 0, 1)
        composite.flatten(arguments.output, replace=arguments.force)
        linked = sorted(composite.links)
    report(arguments, {"file": arguments.output, "copied": linked}, f"{arguments.output}: holds all that it needs")


def _split(arguments: argparse.Namespace) -> None:
    from ..operations.sharing import split

    with progress(arguments) as shown:
        paths = split(
            arguments.files,
            arguments.output,
            shared=arguments.shared,
            deviating="keep" if arguments.keep_deviating else "error",
            replace=arguments.force,
            progress=shown,
        )
    report(arguments, {"files": paths}, "\n".join(paths))


def _subset(arguments: argparse.Namespace) -> None:
    from ..operations.subset import subset

    with progress(arguments) as shown, executor(arguments.jobs) as workers:
        done = subset(
            arguments.source,
            arguments.destination,
            definition=arguments.definition,
            components=arguments.components,
            transfer=arguments.transfer,
            allow_lost=arguments.allow_lost,
            executor=workers,
            progress=shown,
        )
    text = f"{arguments.destination}: {len(done.composites)} files, and {len(done.linked)} to which they link"
    report(arguments, done, text, *(f"lost: {link}" for link in done.lost))


def _promote(arguments: argparse.Namespace) -> int:
    from ..operations.promote import promote

    with progress(arguments) as shown, executor(arguments.jobs) as workers:
        done = promote(
            arguments.file,
            arguments.component,
            arguments.output,
            *arguments.users,
            name=arguments.name,
            executor=workers,
            progress=shown,
        )
    lines = [f"{arguments.output}: {done.link}, to which {len(done.users)} files link now"]
    lines += (f"failed: {item.path}: {item.reason}" for item in done.failed)
    report(arguments, done, *lines)
    return COULD_NOT if done.failed else FINE


def _flatten_arguments(parser: argparse.ArgumentParser) -> None:
    file_argument(parser)
    parser.add_argument("output", metavar="OUT", help="the file to write")
    force_argument(parser)


def _split_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="self-contained files")
    parser.add_argument("output", metavar="FOLDER", help="the folder for the new files")
    option(
        parser,
        "--shared",
        metavar="PATH",
        default="shared",
        help="where in FOLDER to write a shared file, with data ID keys in braces (default: the folder `shared`)",
    )
    parser.add_argument("--keep-deviating", action="store_true", help="leave components that differ in their files")
    force_argument(parser, "a file in FOLDER")


def _subset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="the folder to take from")
    parser.add_argument("destination", metavar="DST", help="the folder to fill")
    option(
        parser, "--definition", metavar="NAME", help="only composites of this definition (default: all)",
        completer=completion.definitions,
    )  # fmt: skip
    components_option(parser, "only these components of them (default: all)")
    parser.add_argument(
        "--transfer",
        choices=["copy", "hardlink", "symlink"],
        default="copy",
        help="how files that don't change get there (default: copy)",
    )
    parser.add_argument("--allow-lost", action="store_true", help="go on where links are lost")
    jobs_argument(parser)


def _promote_arguments(parser: argparse.ArgumentParser) -> None:
    file_argument(parser)
    component_argument(parser)
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--users", metavar="FOLDER", nargs="+", default=[], help="where those that link to it may be (default: none)"
    )
    jobs_argument(parser)


VERBS = {
    "flatten": Verb(
        _flatten,
        _flatten_arguments,
        "make a copy that needs no other file",
        "Write a copy of a composite with what its links lead to in their place: one file to send. It has the same id "
        "and digests, and its components tell where they are from.",
        """
        compositeh5 flatten calexp_jointcal.h5 send_me.h5""",
        "file, copied",
    ),
    "split": Verb(
        _split,
        _split_arguments,
        "make linked files of self-contained ones",
        "The reverse of flatten: components that were copied from files which are still there become links to these "
        "again, and what the definitions declare shared is stored once.",
        """
        compositeh5 split received/*.h5 calexp --shared '../visit/visit_{visit}.h5'""",
        "files",
    ),
    "subset": Verb(
        _subset,
        _subset_arguments,
        "copy a part of a tree, with what it links to",
        "Copy the composites of one definition, or some of their components, with all that they link to and nothing "
        "else. Paths stay as they are, sharing too; no pixel is read that doesn't come along. An interrupted subset is "
        "finished by the same command.",
        """
        compositeh5 subset repo catalogs --definition source_catalog
        compositeh5 subset repo small --components wcs,photo_calib -j 4
        compositeh5 subset repo here --definition visit --transfer hardlink""",
        "composites, linked, lost, visited",
    ),
    "promote": Verb(
        _promote,
        _promote_arguments,
        "give a component a file of its own",
        "Write a component to a file of its own, and make all files that link to it link to that: the composite that "
        "it was stored with can then be deleted. The exit code is 2 if a file that links to it couldn't be written.",
        """
        compositeh5 promote calexp.h5 psf psf/psf_11.h5 --users repo""",
        "link, users, failed, visited",
    ),
}
