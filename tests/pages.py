"""The code blocks of README.md and of the pages in specs/ and benchmarks/."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import chdir
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import compositeh5
from compositeh5.cli import main
from compositeh5.composite.session import current

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "specs").glob("*.md")), ROOT / "benchmarks" / "README.md"]

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, what else stands behind the fence, and the code."""

    language: str
    tags: tuple[str, ...]
    code: str


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, or of a part of it."""
    found = []
    for info, code in _FENCE.findall(text):
        language, *tags = info.split() or [""]
        found.append(Block(language, tuple(tags), code))
    return found


def run(wanted: Iterable[Block], namespace: dict[str, Any], folder: Path, name: str) -> None:
    """Run blocks in their order, or write them to the file that one names by ``file=NAME`` behind its language.

    Those of Python share a namespace; ``folder`` must be the current one.
    """
    for block in wanted:
        file = next((tag.removeprefix("file=") for tag in block.tags if tag.startswith("file=")), None)
        if file is not None:
            (folder / file).write_text(block.code)
        elif block.language == "python":
            exec(compile(block.code, name, "exec"), namespace)
        elif block.language in ("sh", "bash"):
            run_shell(block.code, folder)


def run_shell(code: str, folder: Path) -> None:
    """Run the lines of a block as a user would, but for tools that are not on this machine.

    A line that is nothing but a call of ``compositeh5`` is run in this process, which takes a tenth of the time.
    """
    lines = [line for line in code.splitlines() if not line.startswith("h5") or shutil.which(line.split()[0])]
    for ours, group in groupby(lines, _is_plain_call):
        if not ours:
            _run_bash("\n".join(group), folder)
            continue
        for line in group:
            with chdir(folder):
                assert main(shlex.split(line, comments=True)[1:]) == 0, line
            current().clear_cache()


def _is_plain_call(line: str) -> bool:
    return line.startswith("compositeh5 ") and not set("|&;<>$*?()`\\").intersection(line.partition(" #")[0])


def _run_bash(code: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(compositeh5.__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-euc", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def needs_the_command() -> None:
    """Skip the test if there is no command ``compositeh5``."""
    if not (Path(sys.executable).parent / "compositeh5").exists():
        pytest.skip("the package isn't installed, so there is no command `compositeh5`")
