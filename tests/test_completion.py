"""What shells offer after Tab: asked of real ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from example_folder import write_example_folder
from terminal import ENVIRONMENT, Terminal

from compositeh5.cli.arguments import ENABLE_COMPLETION

pytest.importorskip("argcomplete", reason="the extra `cli` isn't installed")

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    not (BIN / "compositeh5").exists(), reason="the package isn't installed, so there is no command `compositeh5`"
)
WITH_COMMANDS = {**ENVIRONMENT, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example_folder(tmp_path_factory.mktemp("folder"))


def shell(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} isn't installed")
    return path


OFFERED = {
    "compositeh5 pr": ["preview", "promote", "prune"],
    "compositeh5 verify --q": ["--quick", "--quiet"],
    "compositeh5 get calexp": ["calexp/", "calexp.h5", "calexp_jointcal.h5"],
    "compositeh5 get calexp.h5 ": ["image", "mask", "photo_calib", "psf", "summary_stats", "visit_info", "wcs"],
    "compositeh5 get none.h5 ": [],
    "compositeh5 diff calexp.h5 calexp_jointcal.h5 --components wcs,im": ["wcs,image"],
    "compositeh5 subset repo out --definition so": ["source_catalog"],
    "compositeh5 ls calexp.h5 --name ": ["composite"],
    "compositeh5 convert --to f": ["fits"],
    "compositeh5 demo --seed ": [],
}


def test_bash_is_offered(folder: Path) -> None:
    """Ask by the function that the line of the README defines, in one shell."""
    script = """
        eval "$HOW"
        for line in "$@"; do
            COMPREPLY=() COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9
            _python_argcomplete compositeh5 2>/dev/null
            printf '%s\\n' "${COMPREPLY[@]}" @
        done
    """
    done = subprocess.run(
        [shell("bash"), "-c", script, "bash", *OFFERED],
        capture_output=True, text=True, check=True, cwd=folder, env={**WITH_COMMANDS, "HOW": ENABLE_COMPLETION},
    )  # fmt: skip
    answers = [answer.split() for answer in done.stdout.split("@\n")[:-1]]
    found = {line: sorted(words) for line, words in zip(OFFERED, answers, strict=True)}
    assert found == {line: sorted(words) for line, words in OFFERED.items()}


def test_tab_completes_in_an_interactive_bash(folder: Path) -> None:
    terminal = Terminal([shell("bash"), "--norc", "-i"], cwd=folder, env={**WITH_COMMANDS, "PS1": "$ "})
    terminal.wait_for("$ ")
    terminal.type(f"{ENABLE_COMPLETION}; echo re''ady\n")
    terminal.wait_for("ready")
    terminal.type("compositeh5 get calexp.h5 summ\t")
    terminal.wait_for("summary_stats ")
    terminal.type("--js\t\n")
    terminal.wait_for('"psf_sigma": 1.5')
    terminal.type("exit\n")
    assert terminal.finish().code == 0


def test_tab_completes_in_an_interactive_zsh(folder: Path) -> None:
    terminal = Terminal([shell("zsh"), "-f", "-i"], cwd=folder, env={**WITH_COMMANDS, "PS1": "$ "})
    terminal.wait_for("$ ")
    terminal.type(f"autoload -U compinit; compinit -u -D; {ENABLE_COMPLETION}; echo re''ady\n")
    terminal.wait_for("ready\r")
    terminal.type("compositeh5 get calexp.h5 summ\t")
    # Zsh redraws only what is new.
    terminal.wait_for("ary_stats")
    terminal.type("\n")
    terminal.wait_for("psf_sigma")
    terminal.type("exit\n")
    terminal.finish()


def test_fish_is_offered_components(folder: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    found = re.search(r"for fish: (.*)$", readme, re.MULTILINE)
    assert found is not None
    script = f"{found[1]}; complete -C 'compositeh5 get calexp.h5 summ'"
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", script],
        capture_output=True, text=True, check=True, cwd=folder, env=WITH_COMMANDS,
    )  # fmt: skip
    assert done.stdout.split()[0] == "summary_stats"
