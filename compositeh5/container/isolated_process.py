"""The process that reads a file on its own, as seen by the one that asks it.

It sees the bytes of the file and nothing else: it opens no file and no connection, has none of our environment, and
limits on memory and time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..errors import CompositeH5Error, IsolationError
from .limits import Limits
from .source import BlockSource, FileSource
from .wire import WINDOW, Channel, checked_shape

_CODE = """
import json, sys, types
setup = json.loads(sys.argv[1])
sys.path[:] = setup["path"]
package = types.ModuleType("compositeh5")
package.__path__ = [setup["package"]]
sys.modules["compositeh5"] = package
from compositeh5.container.isolated_child import serve
serve(setup)
"""
"""What the process runs: the reader, without the rest of the package, which would take longer to load."""

START_SECONDS = 60
"""Time for a process to start."""

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""All that the process has of an environment."""

_ERRORS: dict[str, type[Exception]] = {
    "KeyError": KeyError,
    "IndexError": IndexError,
    **{name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)},
}
"""The errors that the process may report."""


class IsolatedProcess:
    """The process that reads one file, started when it is first asked."""

    _all: ClassVar[WeakSet[IsolatedProcess]] = WeakSet()

    def __init__(self, source: Any, name: str, limits: Limits) -> None:
        self._source, self._name, self._limits = source, name, limits
        self._popen: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._window = -1
        self._failure = ""
        self._lock = Lock()
        self._all.add(self)

    @property
    def pid(self) -> int | None:
        """Its number; None while it isn't needed."""
        return None if self._popen is None else self._popen.pid

    def ask(self, request: dict[str, Any], into: NDArray[Any] | None = None) -> Any:
        """Return the answer to a request.

        Parameters
        ----------
        request : dict
            What is asked for.
        into : numpy.ndarray, optional
            Contiguous array to be filled with what the process has put into the window.

        Raises
        ------
        IsolationError
            If there is none in time, or one that makes no sense.
        CompositeH5Error, KeyError, IndexError
            As the process reports.
        """
        with self._lock:
            if self._failure:
                raise IsolationError(self._failure)
            try:
                channel = self._channel or self._start()
                channel.within(self._limits.seconds)
                channel.send(request)
                answer = self._answer(channel)
                if "value" in answer and into is not None:
                    self._copy_window(into)
            except TimeoutError:
                raise self._failed(f"did not answer within {self._limits.seconds} s") from None
            except (EOFError, ConnectionError) as error:
                if isinstance(error, CompositeH5Error):
                    self.stop()
                    raise
                raise self._failed(self._end()) from None
            except ValueError as error:
                if isinstance(error, CompositeH5Error):
                    self.stop()
                    raise
                raise self._failed(f"gave an answer that makes no sense: {error}") from None
            except BaseException:
                # The answer may still be on its way: the next request needs another process.
                self.stop()
                raise
        return self.value_of(answer)

    def value_of(self, told: Any) -> Any:
        """Return what the process tells, or raise the error that it tells instead."""
        if "value" in told:
            return told["value"]
        raise self._reported(told.get("error"))

    def _answer(self, channel: Channel) -> dict[str, Any]:
        while True:
            answer, _ = channel.receive()
            if "need" not in answer:
                return answer
            offset, size = checked_shape(answer["need"])
            channel.send({}, self._bytes(offset, min(size, WINDOW)))

    def _bytes(self, offset: int, size: int) -> bytes:
        if isinstance(self._source, FileSource | BlockSource):
            return self._source.read_at(offset, size)
        self._source.seek(offset)
        return bytes(self._source.read(size))

    def _copy_window(self, into: NDArray[Any]) -> None:
        # Not mapped: the process could cut the memory short, and change it after a look.
        if os.preadv(self._window, [into.reshape(-1).view(np.uint8).data], 0) != into.nbytes:
            raise ValueError("the values are missing")

    def _start(self) -> Channel:
        if not sys.platform.startswith("linux"):
            raise IsolationError(f"{self._name}: reading a file in a process of its own needs Linux")
        file = self._source.fileno() if isinstance(self._source, FileSource) else None
        self._window = os.memfd_create("compositeh5")
        os.ftruncate(self._window, WINDOW)
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        with theirs:
            setup = {
                "path": [path for path in sys.path if os.path.isabs(path)],
                "package": str(Path(__file__).parents[1]),
                "connection": theirs.fileno(),
                "window": self._window,
                "file": file,
                "size": None if file is not None else self._size(),
                "name": self._name,
                "limits": asdict(self._limits),
            }
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _CODE, json.dumps(setup)],
                pass_fds=[theirs.fileno(), self._window, *([] if file is None else [file])],
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        # It hasn't seen the file yet.
        self._channel.within(START_SECONDS)
        try:
            self._channel.receive()
        except (EOFError, OSError) as error:
            what = "it was not ready in time" if isinstance(error, TimeoutError) else f"it {self._end()}"
            raise IsolationError(
                f"{self._name}: no process could be started to read it: {what}; check that {sys.executable} runs, and "
                f"imports numpy and h5py without environment variables"
            ) from None
        return self._channel

    def _size(self) -> int:
        return int(self._source.seek(0, os.SEEK_END))

    def _end(self) -> str:
        assert self._popen is not None
        try:
            code = self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed the connection"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself (exit code {code})"

    def _failed(self, what: str) -> IsolationError:
        self.stop()
        self._failure = (
            f"{self._name}: the process that read it {what}. The file may be damaged, or made to break HDF5; it isn't "
            f"read any further"
        )
        return IsolationError(self._failure)

    def _reported(self, error: Any) -> Exception:
        """Return an error that the process tells of."""
        try:
            kind, message = map(str, error)
        except (TypeError, ValueError):
            return IsolationError(f"{self._name}: the process that reads it reports an error of no known form")
        if kind == "MemoryError":
            return IsolationError(
                f"{self._name}: reading it needs more than the {self._limits.memory} bytes that its process may have; "
                f"pass limits=compositeh5.Limits(memory=...) if you trust it"
            )
        # It may be made to deceive whoever reads it on a terminal.
        shown = "".join(c if c.isprintable() else " " for c in message[:4000])
        if kind not in _ERRORS:
            return IsolationError(f"{self._name}: the process that reads it failed: {kind}: {shown}")
        return _ERRORS[kind](shown)

    def stop(self) -> None:
        """End the process; the next request starts another one."""
        if self._popen is not None:
            # It leads a group, in which are those that it may have split off.
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self._channel is not None:
            self._channel.end.close()
        if self._window >= 0:
            os.close(self._window)
        self._popen, self._channel, self._window = None, None, -1

    @classmethod
    def after_fork(cls) -> None:
        """Leave the processes to the parent; this one starts its own."""
        for process in cls._all:
            process._lock = Lock()
            if process._popen is not None:
                # It isn't our child, and must not be waited for.
                process._popen.returncode = 0
            process._let_go()


os.register_at_fork(after_in_child=IsolatedProcess.after_fork)
