"""Child processes that begin at the same moment, may be killed, and may die of what they read."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

KILLED = -signal.SIGKILL
OTHER = 255
"""The exit code of a work that raised something else than an `OSError` with a number."""

Work = Callable[[], int | None]
Verdict = tuple[str, str]
"""An outcome, and details."""

MEMORY = 1024**3
"""What a child that reads damaged files may allocate beyond what it has when it starts."""

BATCH = 250
"""Cases of one child: what one does to its memory isn't the fault of many others."""


def error_number(error: BaseException | None) -> int | None:
    """Return the errno of an error, or of what caused it: the Butler wraps errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


class Children:
    """Processes that prepare, and then wait until all of them are let go.

    They print the tracebacks of errors that aren't the system's, if these aren't expected.
    """

    def __init__(
        self, works: Sequence[Work], prepare: Callable[[], object] = lambda: None, *, expects_errors: bool = False
    ) -> None:
        wait, self._go = os.pipe()
        self._ready, ready = os.pipe()
        self._pids = []
        # Children whose collector looked at all objects would copy all pages.
        gc.freeze()
        for work in works:
            pid = os.fork()
            if pid == 0:
                code = OTHER
                try:
                    os.close(self._go)
                    prepare()
                    os.write(ready, b"x")
                    os.close(ready)
                    # At the end of the file, when the parent and all other children have closed the other end.
                    os.read(wait, 1)
                    code = work() or 0
                except BaseException as error:
                    code = error_number(error) or OTHER
                    if code == OTHER and not expects_errors:
                        traceback.print_exc()
                        sys.stderr.flush()
                finally:
                    os._exit(code)
            self._pids.append(pid)
        gc.unfreeze()
        os.close(wait)
        os.close(ready)

    def go(self) -> None:
        for _ in self._pids:
            os.read(self._ready, 1)
        os.close(self._ready)
        os.close(self._go)

    def kill(self, number: int) -> None:
        # It is still there, if only as a zombie.
        os.kill(self._pids[number], signal.SIGKILL)

    def wait(self) -> list[int]:
        """Return how each ended: with its result, an errno, `OTHER`, or minus a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self._pids]


def together(works: Sequence[Work], kills: Mapping[int, float] | None = None) -> list[int]:
    """Do works in as many processes at once, and return how they ended.

    Parameters
    ----------
    works : sequence of callable
        What to do. A number that one returns is the exit code of its process.
    kills : dict, optional
        For the numbers of some works the seconds after which they are killed, if they aren't done.
    """
    children = Children(works)
    children.go()
    begin = time.monotonic()
    for number, after in sorted((kills or {}).items(), key=lambda item: item[1]):
        time.sleep(max(0.0, begin + after - time.monotonic()))
        children.kill(number)
    return children.wait()


@contextmanager
def polling(read: Callable[[], Counter[str]], counts: Counter[str]) -> Iterator[None]:
    """Have a process read again and again, and add what it has counted at the end."""
    results, told = os.pipe()
    stop, stopping = os.pipe()

    def poll() -> None:
        os.close(stopping)
        os.set_blocking(stop, False)
        own: Counter[str] = Counter()
        is_over = False
        while not is_over:
            with suppress(BlockingIOError):
                is_over = os.read(stop, 1) == b""
            own += read()
        os.write(told, json.dumps(own).encode())

    child = Children([poll])
    child.go()
    os.close(told)
    os.close(stop)
    try:
        yield
    finally:
        os.close(stopping)
        with open(results) as file:
            counts.update(json.loads(file.read() or '{"bad reads": 1}'))
        child.wait()


def judged(
    count: int, judge: Callable[[int], Verdict], seconds: int = 20, batch: int = BATCH
) -> Iterator[tuple[int, str, str]]:
    """Judge cases in child processes that may die, and yield number, outcome and details of each."""
    done = 0
    while done < count:
        reading, writing = os.pipe()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _judge(range(done, min(done + batch, count)), judge, seconds, writing)
        gc.unfreeze()
        os.close(writing)
        end = min(done + batch, count)
        with open(reading) as lines:
            for line in lines:
                number, outcome, detail = json.loads(line)
                if outcome == "error":
                    raise RuntimeError(detail)
                done += 1
                yield number, outcome, detail
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code and done < end:
            yield done, "hang" if code == -signal.SIGALRM else "crash", f"exit {code}"
            done += 1


def _judge(numbers: range, judge: Callable[[int], Verdict], seconds: int, writing: int) -> None:
    """Write a line for each case; the one at which this process ends has none."""
    try:
        faulthandler.disable()
        # What libraries print about damage isn't asked for.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in numbers:
            signal.alarm(seconds)
            outcome, detail = judge(number)
            signal.alarm(0)
            os.write(writing, json.dumps([number, outcome, detail[-1500:]]).encode() + b"\n")
        os._exit(0)
    except BaseException:
        os.write(writing, json.dumps([-1, "error", traceback.format_exc()]).encode() + b"\n")
    finally:
        os._exit(1)
