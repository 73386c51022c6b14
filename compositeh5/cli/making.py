"""The verbs that make composites: ``convert``, ``demo``, ``flatten``, ``split``, ``subset``, ``promote``."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from .arguments import (
    COMPONENT,
    COULD_NOT,
    FILE,
    FINE,
    JOBS,
    argument,
    between,
    choice,
    components,
    definitions,
    flag,
    force,
    opened,
    verb,
    working,
)  # fmt: skip
from .output import Table, progress, report


@verb(
    argument("inputs", "IN", "a file, or several files and folders", nargs="+"),
    argument("output", "OUT", "the file to write; the folder for what several files become"),
    choice("--to", ["h5", "fits"], "what the files of folders become (default: h5)"),
    force("what else is in the place of a new file,"),
    JOBS,
    json="a list of source, target, status, message",
    examples="""
        compositeh5 convert exposure.fits exposure.h5
        compositeh5 convert exposure.h5 again.fits
        compositeh5 convert night composites -j 8
        compositeh5 convert --to fits composites night-again""",
)
def convert(arguments: argparse.Namespace) -> int:
    """Convert FITS files to composites, and back.

    An exposure or a catalog of the LSST pipelines, an image with mask and uncertainty, or any other. What the
    components don't say is kept verbatim, so that nothing is lost. In folders, files that an earlier run has converted
    are passed over, and one that can't be converted doesn't stop the others; the exit code is 2 if there is one.
    """
    from ..fits import Conversion, convert, convert_files

    several = len(arguments.inputs) > 1 or os.path.isdir(arguments.inputs[0]) or os.path.isdir(arguments.output)
    if not several and not arguments.output.endswith(os.sep):
        with progress(arguments, "converting"):
            composite = convert(arguments.inputs[0], arguments.output, replace=arguments.force)
        done = [Conversion(arguments.inputs[0], arguments.output, "converted")]
        report(arguments, done, f"{arguments.output}: {composite!r}")
        return FINE
    with working(arguments) as how:
        done = convert_files(arguments.inputs, arguments.output, to=arguments.to, replace=arguments.force, **how)
    failed = [conversion for conversion in done if conversion.status == "failed"]
    counts = Counter(conversion.status for conversion in done)
    report(
        arguments,
        done,
        Table(("state", "file", "why"), [("failed", conversion.source, conversion.message) for conversion in failed]),
        ", ".join(f"{counts[status]} {status}" for status in ("converted", "unchanged", "failed")),
    )
    return COULD_NOT if failed else FINE


@verb(
    argument(
        "directory",
        "FOLDER",
        "where to make it; an earlier demonstration there is replaced (default: ./compositeh5-demo)",
        nargs="?",
        default="compositeh5-demo",
    ),
    argument("--fits", "FILE", "use these exposures instead", nargs="+", default=[]),
    argument("--detectors", "N", "how many (default: 9)", type=between(1, 100), default=9),
    argument("--size", "PIXELS", "rows and columns (default: 1024)", type=between(64, 4096), default=1024),
    argument("--seed", "N", "of the random numbers (default: 1)", type=between(0, 2**32), default=1),
    json="directory, seconds, files, reads, sharing",
    examples="""
        compositeh5 demo
        compositeh5 demo my-demo --detectors 2 --size 256
        compositeh5 demo my-demo --fits exposure.fits""",
)
def demo(arguments: argparse.Namespace) -> None:
    """Make a small Butler repository, and show what can be done with it.

    It has one visit, simulated or from FITS files. Parts of it are read, and what was read and what sharing saved is
    shown. Needs the extra `butler`.
    """
    from ..demo import run

    settings = {name: getattr(arguments, name) for name in ("fits", "detectors", "size", "seed")}
    with progress(arguments) as shown:
        done = run(arguments.directory, **settings, progress=shown)
    report(arguments, done.document(), done.text())


@verb(
    *FILE,
    argument("output", "OUT", "the file to write"),
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
    argument("files", "FILE", "self-contained files", nargs="+"),
    argument("output", "FOLDER", "the folder for the new files"),
    argument(
        "--shared",
        "PATH",
        "where in FOLDER to write a shared file, with data ID keys in braces (default: the folder `shared`)",
        default="shared",
    ),
    flag("--keep-deviating", "leave components that differ in their files"),
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
    argument("source", "SRC", "the folder to take from"),
    argument("destination", "DST", "the folder to fill"),
    argument("--definition", "NAME", "only composites of this definition (default: all)", completer=definitions),
    components("only these components of them (default: all)"),
    choice("--transfer", ["copy", "hardlink", "symlink"], "how files that don't change get there (default: copy)"),
    flag("--allow-lost", "go on where links are lost"),
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

    settings = {name: getattr(arguments, name) for name in ("definition", "components", "transfer", "allow_lost")}
    with working(arguments) as how:
        done = subset(arguments.source, arguments.destination, **settings, **how)
    text = f"{arguments.destination}: {len(done.composites)} files, and {len(done.linked)} to which they link"
    report(arguments, done, text, *(f"lost: {link}" for link in done.lost))


@verb(
    *FILE,
    COMPONENT,
    argument("output", "OUT", "the file to write"),
    argument("--users", "FOLDER", "where those that link to it may be (default: none)", nargs="+", default=[]),
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
    from ..trees.relinking import promote

    paths = (arguments.file, arguments.component, arguments.output, *arguments.users)
    with working(arguments) as how:
        done = promote(*paths, name=arguments.name, **how)
    lines = [f"{arguments.output}: {done.link}, to which {len(done.users)} files link now"]
    lines += (f"failed: {item.path}: {item.reason}" for item in done.failed)
    report(arguments, done, *lines)
    return COULD_NOT if done.failed else FINE
