"""The verbs that make composites of others by links: ``flatten``, ``split``, ``subset``, ``promote``."""

from __future__ import annotations

import argparse

from . import completion
from .common import COMPONENT, COULD_NOT, FILE, FINE, JOBS, argument, components_option, force, option, verb, working
from .completion import opened
from .output import report
from .progress import progress


@verb(
    *FILE,
    argument("output", metavar="OUT", help="the file to write"),
    force(),
    json="file, copied",
    examples="""
        compositeh5 flatten calexp_jointcal.h5 send_me.h5""",
)
def flatten(arguments: argparse.Namespace) -> None:
    """Make a copy that needs no other file.

    What the links of the composite lead to is put in their place: one file to send. It has the same id and digests,
    and its components tell where they are from.
    """
    with opened(arguments.file, arguments.name) as composite, progress(arguments, "writing"):
        composite.flatten(arguments.output, replace=arguments.force)
        linked = sorted(composite.links)
    report(arguments, {"file": arguments.output, "copied": linked}, f"{arguments.output}: holds all that it needs")


@verb(
    argument("files", metavar="FILE", nargs="+", help="self-contained files"),
    argument("output", metavar="FOLDER", help="the folder for the new files"),
    option(
        "--shared",
        metavar="PATH",
        default="shared",
        help="where in FOLDER to write a shared file, with data ID keys in braces (default: the folder `shared`)",
    ),
    argument("--keep-deviating", action="store_true", help="leave components that differ in their files"),
    force("a file in FOLDER"),
    json="files",
    examples="""
        compositeh5 split received/*.h5 calexp --shared '../visit/visit_{visit}.h5'""",
)
def split(arguments: argparse.Namespace) -> None:
    """Make linked files of self-contained ones.

    The reverse of flatten: components that were copied from files which are still there become links to these again,
    and what the definitions declare shared is stored once.
    """
    from ..trees.sharing import split

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


@verb(
    argument("source", metavar="SRC", help="the folder to take from"),
    argument("destination", metavar="DST", help="the folder to fill"),
    option(
        "--definition",
        metavar="NAME",
        help="only composites of this definition (default: all)",
        completer=completion.definitions,
    ),
    components_option("only these components of them (default: all)"),
    argument(
        "--transfer",
        choices=["copy", "hardlink", "symlink"],
        default="copy",
        help="how files that don't change get there (default: copy)",
    ),
    argument("--allow-lost", action="store_true", help="go on where links are lost"),
    JOBS,
    json="composites, linked, lost, visited",
    examples="""
        compositeh5 subset repo catalogs --definition source_catalog
        compositeh5 subset repo small --components wcs,photo_calib -j 4
        compositeh5 subset repo here --definition visit --transfer hardlink""",
)
def subset(arguments: argparse.Namespace) -> None:
    """Copy a part of a tree, with what it links to.

    The composites of one definition, or some of their components, with all that they link to and nothing else. Paths
    stay as they are, sharing too; no pixel is read that doesn't come along. An interrupted subset is finished by the
    same command.
    """
    from ..trees.subsetting import subset

    with working(arguments) as how:
        done = subset(
            arguments.source,
            arguments.destination,
            definition=arguments.definition,
            components=arguments.components,
            transfer=arguments.transfer,
            allow_lost=arguments.allow_lost,
            **how,
        )
    text = f"{arguments.destination}: {len(done.composites)} files, and {len(done.linked)} to which they link"
    report(arguments, done, text, *(f"lost: {link}" for link in done.lost))


@verb(
    *FILE,
    COMPONENT,
    argument("output", metavar="OUT", help="the file to write"),
    argument(
        "--users", metavar="FOLDER", nargs="+", default=[], help="where those that link to it may be (default: none)"
    ),
    JOBS,
    json="link, users, failed, visited",
    examples="""
        compositeh5 promote calexp.h5 psf psf/psf_11.h5 --users repo""",
)
def promote(arguments: argparse.Namespace) -> int:
    """Give a component a file of its own.

    All files that link to it are made to link to that: the composite that it was stored with can then be deleted. The
    exit code is 2 if a file that links to it couldn't be written.
    """
    from ..trees.promoting import promote

    with working(arguments) as how:
        done = promote(
            arguments.file, arguments.component, arguments.output, *arguments.users, name=arguments.name, **how
        )
    lines = [f"{arguments.output}: {done.link}, to which {len(done.users)} files link now"]
    lines += (f"failed: {item.path}: {item.reason}" for item in done.failed)
    report(arguments, done, *lines)
    return COULD_NOT if done.failed else FINE
