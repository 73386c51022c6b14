"""Runs an operation in a child process in which one call to the operating system goes wrong."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from typing import Any

CALLS = ("write", "pwrite", "ftruncate", "fsync", "replace", "rename", "link", "symlink", "unlink")
"""The functions of `os` that change what is on the disk."""

KILLED = -signal.SIGKILL
OTHER = 255
"""The outcome of what raised something else than an `OSError` with a number."""


def _in_child(do: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = OTHER
        try:
            code = do()
        except OSError as error:
            code = error.errno or OTHER
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _patch(at: int, action: Callable[[Callable[..., Any], tuple[Any, ...]], Any] | None) -> list[int]:
    """Have the call number ``at`` replaced by the action; the first of the returned list counts the calls."""
    seen = [0]

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if action is not None and seen[0] == at + 1:
                return action(call, args)
            return call(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    return seen


def count(operation: Callable[[], object]) -> int:
    """Return how many such calls an operation makes."""

    def run() -> int:
        seen = _patch(0, None)
        operation()
        return seen[0]

    return _in_child(run)


def run_with(
    operation: Callable[[], object], at: int, action: Callable[[Callable[..., Any], tuple[Any, ...]], Any]
) -> int:
    """Run an operation whose call number ``at`` goes wrong; return 0, the `errno` it raised, or `KILLED`."""

    def run() -> int:
        _patch(at, action)
        operation()
        return 0

    return _in_child(run)


def run_full(operation: Callable[[], object], size: int) -> int:
    """Run an operation where no file can become larger than a size."""

    def run() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        operation()
        return 0

    return _in_child(run)


def kill(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Die instead of the call, as by SIGKILL or a loss of power."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> Callable[[Callable[..., Any], tuple[Any, ...]], None]:
    """Return the action of a call that fails with an `errno`."""

    def action(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        raise OSError(number, os.strerror(number))

    return action


def short(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Write half of what should be written; other calls are as always."""
    if call.__name__ in ("write", "pwrite") and len(args[1]) > 1:
        return call(args[0], args[1][: len(args[1]) // 2], *args[2:])
    return call(*args)
