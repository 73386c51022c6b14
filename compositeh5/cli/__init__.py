"""The command ``compositeh5``.

Each verb is a function of its arguments; the tables ``VERBS`` of the modules here say how they are called. What is an
error of the package or of the operating system is one line on the standard error, and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys

from .._version import __version__
from ..errors import CompositeH5Error
from . import comparing, composing, index, making, preview, reading, references
from .common import COULD_NOT, FINE, INTERRUPTED

_VERBS = {
    **reading.VERBS,
    **preview.VERBS,
    **making.VERBS,
    **composing.VERBS,
    **index.VERBS,
    **comparing.VERBS,
    **references.VERBS,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command, and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    try:
        code = arguments.run(arguments)
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
    return code or FINE


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
