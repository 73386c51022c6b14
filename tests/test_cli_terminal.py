"""The command as a person has it before them: colours, width, progress, Ctrl-C, pipes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from example_folder import write_example_folder
from terminal import COMMAND, ENVIRONMENT, Shown, Terminal, compositeh5_shows

import compositeh5 as ch5
from compositeh5.cli import VERBS, main
from compositeh5.composite.session import current

WITHOUT_RICH = (
    sys.executable,
    "-c",
    "import sys\nsys.modules['rich'] = None\nfrom compositeh5.cli import main\nsys.exit(main())",
)
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")
Plain = Callable[..., str]

needs_rich = pytest.mark.skipif(find_spec("rich") is None, reason="needs rich (the extra `cli`)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the examples, in which a file has lost its visit."""
    root = write_example_folder(tmp_path_factory.mktemp("folder"))
    (root / "alone").mkdir()
    shutil.copyfile(root / "received" / "calexp_903334_0.h5", root / "alone" / "whole.h5")
    visit = ch5.Composite("visit", visit_info={"visit": 1}, data_id={"visit": 1})
    visit.write(root / "gone.h5")
    image = np.zeros((2, 2), np.float32)
    lost = ch5.Composite("exposure", image=image, photo_calib=None, visit_info=visit.link("visit_info"))
    lost.write(root / "alone" / "lost.h5")
    (root / "gone.h5").unlink()
    current().clear_cache()
    return root


@pytest.fixture
def plain(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plain:
    """Run a verb in the folder, where there is no terminal, and return what it prints."""
    monkeypatch.chdir(folder)

    def plain(*args: str) -> str:
        capsys.readouterr()
        main([*args])
        said = capsys.readouterr()
        assert said.err == ""
        assert "\x1b" not in said.out
        return said.out

    return plain


def in_turn(*lines: Sequence[str]) -> list[str]:
    """Return a command that runs several verbs in one process, each after a line ``@`` on the standard error."""
    code = "import sys\nfrom compositeh5.cli import main\n"
    for line in lines:
        code += f"print('@', file=sys.stderr)\nmain({list(line)!r})\n"
    return [sys.executable, "-c", code]


# ---- Tables and trees ---------------------------------------------------------------------------------------


@needs_rich
def test_states_have_colours_on_a_terminal_and_the_words_are_the_same_in_a_pipe(folder: Path, plain: Plain) -> None:
    lines = (["ls", "alone/lost.h5"], ["info", "calexp_jointcal.h5"], ["verify", "alone"])
    shown = Terminal(in_turn(*lines), columns=3000, cwd=folder).finish()
    for line, text in zip(lines, shown.text.split("@")[1:], strict=True):
        # The progress, which is wiped out, comes before.
        words = plain(*line).split()
        assert re.sub("[│├└─]", " ", text).split()[-len(words) :] == words
    for expected in ("1;31mlost -> visit.visit_info", "2mabsent", "32mstored", "1mcomponent"):
        assert f"\x1b[{expected}" in shown.raw
    assert "\x1b[1;31mlost" in shown.raw.rpartition("@")[2]
    assert "├── " in shown.text


@needs_rich
def test_nothing_is_wider_than_the_terminal_and_nothing_is_left_out(folder: Path, plain: Plain) -> None:
    arguments = (["ls", "calexp_jointcal.h5"], ["refs", "calexp.h5"], ["info", "calexp.h5"])
    shown = Terminal(in_turn(*arguments), columns=40, cwd=folder).finish()
    for args, text in zip(arguments, shown.text.split("@")[1:], strict=True):
        lines = [line.rpartition("\r")[2] for line in text.split("\n")]
        assert max(map(len, lines)) <= 40
        # Words may be cut, but all their letters are there.
        expected = plain(*args)
        for letter in set(expected) - set(" \n"):
            assert "".join(lines).count(letter) >= expected.count(letter), letter


@needs_rich
def test_no_color_and_dumb_terminals_are_respected(folder: Path, plain: Plain) -> None:
    coloured, bare, dumb = (
        compositeh5_shows("verify", "alone", cwd=folder, env=env).raw
        for env in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"})
    )
    assert COLOUR.search(coloured)
    assert not COLOUR.search(bare)
    assert dumb.replace("\r\n", "\n") == plain("verify", "alone")


def test_without_rich_a_terminal_has_plain_text(folder: Path, plain: Plain) -> None:
    shown = Terminal([*WITHOUT_RICH, "ls", "calexp.h5"], cwd=folder).finish()
    assert shown.raw.replace("\r\n", "\n") == plain("ls", "calexp.h5")


def test_json_is_json_on_a_terminal_too(folder: Path, plain: Plain) -> None:
    shown = compositeh5_shows("ls", "calexp.h5", "--json", cwd=folder)
    assert shown.raw.replace("\r\n", "\n") == plain("ls", "calexp.h5", "--json")


def test_what_files_say_never_acts_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b[31mred.h5"
    ch5.Composite(None, note="\x1b[2Jcleared\n\tand more", blob=b"\x1b").write(tmp_path / name)
    lines = (["info", name], ["get", name, "note"], ["get", name, "blob"], ["ls", name + "x"])
    shown = Terminal(in_turn(*lines), cwd=tmp_path, env={"NO_COLOR": "1"}).finish()
    assert "\x1b[31m" not in shown.raw
    assert "\x1b[2J" not in shown.raw
    parts = shown.text.split("@")[1:]
    assert len(parts) == len(lines)
    assert all(r"\x1b[" in part for part in parts)
    # In a pipe, a component is what it is.
    monkeypatch.chdir(tmp_path)
    assert main(["get", name, "note"]) == 0
    assert capsys.readouterr().out == "\x1b[2Jcleared\n\tand more\n"


# ---- Progress -----------------------------------------------------------------------------------------------


def verified(command: tuple[str, ...], folder: Path, out: Path, *more: str, **env: str) -> Shown:
    """Verify a tree with the standard output in a file."""
    with open(out, "w") as file:
        return Terminal([*command, "verify", "repo", *more], stdout=file.fileno(), cwd=folder, env=env).finish()


@needs_rich
def test_progress_is_a_bar_on_the_standard_error(folder: Path, tmp_path: Path) -> None:
    shown = verified(COMMAND, folder, tmp_path / "out")
    assert shown.code == 0
    assert "reading files" in shown.text
    assert "━" in shown.text
    assert re.search(r"\b0/5\b", shown.text)
    # It is wiped out, and what was found is elsewhere.
    assert shown.raw.endswith("\x1b[1A\x1b[2K")
    assert (tmp_path / "out").read_text().startswith("0 problems in 5 files")


LONG = {
    "get": "get calexp.h5 image",
    "preview": "preview calexp.h5 -o a.png",
    "convert": "convert night converted",
    "flatten": "flatten calexp.h5 flat.h5",
    "split": "split received/calexp_903334_0.h5 apart",
    "subset": "subset repo part",
    "promote": "promote calexp.h5 psf psf.h5 --users repo",
    "index": "index calexp",
    "visit": "visit calexp",
    "diff": "diff calexp.h5 calexp_jointcal.h5",
    "refs": "refs calexp.h5",
    "prune": "prune repo",
    "relink": "relink repo",
    "verify": "verify repo",
    "rescue": "rescue calexp.h5 rescued.h5",
}
"""The verbs that can take more than two seconds."""


@needs_rich
def test_whatever_can_take_long_shows_that_it_works(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "w")
    command = in_turn(*(line.split() for line in LONG.values()))
    with open(tmp_path / "out", "w") as file:
        shown = Terminal(command, stdout=file.fileno(), cwd=tmp_path / "w").finish()
    seen = dict(zip(LONG, shown.text.split("@")[1:], strict=True))
    assert not [verb for verb, text in seen.items() if "━" not in text or "error" in text]
    assert LONG.keys() == VERBS.keys() - {"ls", "info", "demo"}


def test_progress_without_rich_is_a_line(folder: Path, tmp_path: Path) -> None:
    shown = verified(WITHOUT_RICH, folder, tmp_path / "out")
    assert "\rreading files 0/5" in shown.raw
    assert "\x1b" not in shown.raw
    assert re.search(r"\r +\r$", shown.raw)
    assert (tmp_path / "out").read_text().startswith("0 problems in 5 files")


@pytest.mark.parametrize(("more", "env"), [(["-q"], {}), ([], {"TERM": "dumb"})])
def test_progress_can_be_silenced(more: list[str], env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    shown = verified(COMMAND, folder, tmp_path / "out", *more, **env)
    assert (shown.code, shown.raw) == (0, "")
    assert ((tmp_path / "out").read_text() == "") == bool(more)


# ---- Interrupts, pipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [COMMAND, WITHOUT_RICH], ids=["bar", "line"])
def test_ctrl_c_ends_all_processes_without_a_word(command: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    if command is COMMAND:
        pytest.importorskip("rich", reason="needs rich (the extra `cli`)")
    terminal = Terminal([*command, "verify", "repo", "-j", "2"], cwd=folder)
    # Then processes are being started, which takes them longer than it takes to press the keys.
    terminal.wait_for("0/5")
    terminal.type("\x03")
    shown = terminal.finish()
    assert shown.code == 130
    assert "Traceback" not in shown.text
    assert "KeyboardInterrupt" not in shown.text
    assert "problems" not in shown.text


def test_a_process_that_is_killed_is_an_error_in_one_line(folder: Path) -> None:
    terminal = Terminal([*COMMAND, "verify", "repo", "-j", "2"], cwd=folder)
    terminal.wait_for("0/5")
    pid = terminal.process.pid
    while len(workers := _workers(pid)) < 2:
        assert terminal.process.poll() is None
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    shown = terminal.finish()
    assert shown.code == 2
    assert "compositeh5: error: a process that works on the files has ended early" in shown.text
    assert "Traceback" not in shown.text


def _workers(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


@pytest.mark.parametrize("more", ["", "--json"])
def test_head_ends_it_quietly(more: str, folder: Path) -> None:
    line = f"set -o pipefail; {' '.join(COMMAND)} info calexp_jointcal.h5 {more} | head -1"
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, cwd=folder, env=ENVIRONMENT)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("\n") == 1


def test_any_encoding_of_the_terminal_will_do(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xc3\xa9.h5")
    ch5.Composite(None, note="é → ☃").write(tmp_path / name)
    command = in_turn(["info", name], ["verify", name, "--json"], ["get", name, "note"])
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stderr == "@\n" * 3
    assert done.stdout.endswith("}\n\\xe9 \\u2192 \\u2603\n")
