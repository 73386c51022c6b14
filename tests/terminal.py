"""Running commands as a person does: in a pseudo-terminal, where they see a width, colours and Ctrl-C."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import compositeh5

COMMAND = (sys.executable, "-m", "compositeh5")
ENVIRONMENT = {
    **{
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    },
    "PYTHONPATH": str(Path(compositeh5.__file__).parents[1]),
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shown(NamedTuple):
    """What a person has seen, and the exit code."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        """Without colours and movements of the cursor."""
        return _ESCAPES.sub("", self.raw.replace("\r\n", "\n"))


class Terminal:
    """A command in a terminal of its own."""

    def __init__(
        self, command: Sequence[object], *, columns: int = 100, rows: int = 32, stdout: int | None = None,
        env: Mapping[str, str] | None = None, cwd: Path | None = None,
    ) -> None:  # fmt: skip
        self._end, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdin=other, stdout=other if stdout is None else stdout, stderr=other,
            env={**ENVIRONMENT, **(env or {})}, cwd=cwd, start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(other)
        self.seen = ""
        # What is read may end within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until a text is seen."""
        limit = time.monotonic() + seconds
        while text not in self.seen:
            if not select.select([self._end], [], [], max(0, limit - time.monotonic()))[0] or not self._read():
                raise AssertionError(f"{text!r} isn't in {self.seen!r}")

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def finish(self) -> Shown:
        """Read what comes until the command ends."""
        while self._read():
            pass
        os.close(self._end)
        return Shown(self.process.wait(60), self.seen)

    def _read(self) -> bool:
        try:
            part = os.read(self._end, 65536)
        except OSError:  # what Linux says when the other end is closed
            return False
        self.seen += self._decoder.decode(part)
        return bool(part)


def _take_terminal() -> None:
    # Ctrl-C reaches the processes of whom it is the terminal. Where the tests themselves run in the background,
    # interrupts are ignored, and that is inherited.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def compositeh5_shows(*args: object, **options: object) -> Shown:
    """Run the command in a terminal."""
    return Terminal([*COMMAND, *args], **options).finish()  # type: ignore[arg-type]
