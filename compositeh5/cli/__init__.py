"""The command ``compositeh5``.

Each verb is a function of its arguments, with a decorator that says which these are. An error of the package or of the
operating system is one line on the standard error, and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import sys
import textwrap
from contextlib import ExitStack, redirect_stdout

from .._version import __version__
from ..errors import CompositeH5Error
from . import making, reading, trees
from .arguments import COULD_NOT, ENABLE_COMPLETION, FINE, INTERRUPTED, Verb, complete
from .output import harmless

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        *(reading.ls, reading.info, reading.get, reading.preview, making.convert, making.demo),
        *(making.flatten, making.split, making.subset, making.promote, trees.index, trees.visit, reading.diff),
        *(trees.refs, trees.prune, trees.relink, trees.verify, trees.rescue),
    )
}
"""All verbs, in the order in which the help lists them."""


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    parser = _parser()
    complete(parser)
    arguments = parser.parse_args(argv)
    # Names of files may have what the terminal's encoding hasn't.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with ExitStack() as stack:
            if arguments.quiet:
                stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            code = arguments.run(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            # The reader (``head``) has seen enough; the flush at exit must not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FINE
        known = _expected(error)
        if known is None:
            raise
        print(harmless(f"compositeh5: error: {_text(known)}"), file=sys.stderr)
        return COULD_NOT
    return code or FINE


def _nobody_reads() -> bool:
    """Return whether the standard output is a pipe without a reader: other pipes can break too."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _text(error: BaseException) -> str:
    """Return what an error says; of one of the operating system the file comes first, as in ours."""
    if isinstance(error, CompositeH5Error):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and not error.filename2 else str(error)
    return f"a process that works on the files has ended early, perhaps for lack of memory: {error}"


def _expected(error: BaseException | None) -> BaseException | None:
    """Return the error that is to be told, which may be the cause of another; None for what should not happen."""
    from concurrent.futures import BrokenExecutor

    # The Butler wraps what goes wrong inside of it. A process of ours can be killed, as where memory is short.
    while error is not None and not isinstance(error, CompositeH5Error | OSError | BrokenExecutor):
        error = error.__cause__
    return error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "compositeh5",
        description="Composite scientific objects in HDF5: look into files, get components out, convert, link.",
        epilog="`compositeh5 VERB --help` explains a verb and gives examples. Tab completes verbs, files and components"
        f" after `{ENABLE_COMPLETION}` (bash and zsh; needs the extra `cli`).",
    )
    parser.add_argument("--version", action="version", version=f"compositeh5 {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, verb in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=verb.help,
            description=_filled(verb.description),
            epilog=_epilog(verb),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for add in verb.arguments:
            add(sub)
        how = sub.add_mutually_exclusive_group()
        how.add_argument("--json", action="store_true", help="print one document of JSON instead of text")
        how.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors; the exit code tells")
        sub.set_defaults(run=verb.run)
    return parser


def _epilog(verb: Verb) -> str:
    codes = ["0  fine", *([f"1  {verb.found}"] if verb.found else []), "2  it could not be done"]
    examples = (line.strip() for line in verb.examples.strip().splitlines())
    parts = {"exit code": codes, "JSON": _filled(verb.json, 2).splitlines(), "examples": examples}
    return "\n\n".join("\n".join([f"{title}:", *(f"  {line}" for line in lines)]) for title, lines in parts.items())


def _filled(text: str, indent: int = 0) -> str:
    # As wide as argparse makes all else.
    return textwrap.fill(text, shutil.get_terminal_size().columns - 2 - indent, break_on_hyphens=False)
