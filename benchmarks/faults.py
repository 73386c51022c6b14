"""Disturb operations in every way while they write, and look at what is there after that.

    python benchmarks/faults.py [--kills 1000] [--cuts 300] [--only write,split] [--faults calls,cuts] [--json FILE]

Every system call that changes the disk, also of SQLite and other libraries, is disturbed in turn (strace must be
allowed to trace processes): it isn't made, and the process is killed, or the call fails with an errno. Then come kills
at random moments, and losses of power at random moments, after which what wasn't forced to the disk may be missing
(`tests/power_cut.py`). After each, all that is there must be old or new, and whole; then the operation is run again,
and must finish and clean up.

Prints a Markdown table. *old*, *new*: all is as it was before, or as it shall be. *between*: some of several files or
datasets are new already. *broken*: something isn't whole, or is gone, or the errno got lost, or the next run didn't
finish or left something behind.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from fault_operations import OPERATIONS, Operation, State, age, clean, disconnect, leftovers

from compositeh5.storage import publish

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import errno

import fault_injection
from power_cut import Disk
from system_calls import Call, attach, created, inject_options, read_trace, strace_works, trace_options, was_injected

CALLS = ("kill", "ENOSPC", "EIO", "EDQUOT", "EINTR")
OUTCOMES = ("old", "new", "between", "broken")
BROKEN = OUTCOMES.index("broken")
FAULTS = ("cuts", "kills", "short", "full", "calls")
RETRIES = 3
Table = dict[tuple[str, str], Counter[str]]


class Processes:
    """Children that wait until all of them are let go."""

    def __init__(self, functions: Sequence[Callable[[], int]]) -> None:
        read, self._go = os.pipe()
        self.pids = []
        for function in functions:
            pid = os.fork()
            if pid == 0:
                code = fault_injection.OTHER
                try:
                    os.close(self._go)
                    os.read(read, 1)
                    code = function()
                except BaseException as error:
                    number = _errno(error)
                    code = fault_injection.OTHER if number is None else number
                    if os.environ.get("SHOW"):
                        traceback.print_exc()
                finally:
                    os._exit(code)
            self.pids.append(pid)
        os.close(read)

    def go(self) -> None:
        os.write(self._go, b"x" * len(self.pids))
        os.close(self._go)

    def wait(self) -> list[int]:
        """Return how each ended: with 0, an `errno`, `OTHER`, or minus a signal."""
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]


def _errno(error: BaseException | None) -> int | None:
    """Return the errno of an error, or of what caused it: the Butler and SQLite wrap errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


class Bench:
    """An operation, in a folder of its own."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation, self.folder = operation, folder / "work"
        self._pristine, self._trace = folder / "before", folder / "trace"
        clean(self.folder)
        operation.prepare(self.folder)
        # What comes is to be done as by new processes.
        publish._swept.clear()
        publish._forced.clear()
        shutil.copytree(self.folder, self._pristine, symlinks=True)
        self.before = self._state()
        times = []
        for _ in range(3):
            self.reset()
            start = time.perf_counter()
            assert not any(self._started().wait())
            times.append(time.perf_counter() - start)
        # Children that look at all objects would copy all pages.
        gc.freeze()
        self.seconds = median(times)
        self.after = self._state()
        assert self.after != self.before
        assert not leftovers(self.folder) + operation.disagreements(self.folder)

    def reset(self) -> None:
        disconnect()
        shutil.rmtree(self.folder)
        shutil.copytree(self._pristine, self.folder, symlinks=True)

    def _state(self) -> State:
        return self.operation.state(self.folder)

    def _children(self) -> Processes:
        def run(process: int) -> Callable[[], int]:
            return lambda: int(bool(self.operation.run(self.folder, process)) and False)

        return Processes([run(process) for process in range(self.operation.processes)])

    def _started(self) -> Processes:
        children = self._children()
        children.go()
        return children

    def traced(self) -> Path:
        """Run it while strace looks, and return what that wrote."""
        self.reset()
        children = self._children()
        strace = attach(children.pids, self._trace, *trace_options())
        children.go()
        assert not any(children.wait())
        strace.wait()
        return self._trace

    def calls(self) -> list[Call]:
        """Return the calls of the first process that change the disk."""
        self.reset()
        children = self._children()
        strace = attach(children.pids[:1], self._trace, *trace_options())
        children.go()
        assert not any(children.wait())
        strace.wait()
        _, found = read_trace(self._trace, self.folder)
        return list(dict.fromkeys(call for _, call in found))

    def disturbed(self, call: Call, fault: str) -> str | None:
        """Run it with a call that isn't made, and return the outcome; None if it didn't come to that call."""
        self.reset()
        children = self._children()
        strace = attach(children.pids[:1], self._trace, *inject_options(call, fault))
        children.go()
        code, *others = children.wait()
        strace.wait()
        if not was_injected(self._trace):
            return None
        if fault == "kill":
            expected = code == -signal.SIGKILL
        else:
            # Some calls are made again, or may fail; SQLite has errors of its own.
            expected = code in (0, getattr(errno, fault)) or (self.knows_sqlite and code == fault_injection.OTHER)
        # If the commit of its registry fails, the Butler leaves the file; the next put takes its place.
        may_leave = fault == "kill" or code == fault_injection.OTHER
        where = (call, fault, code)
        return self.outcome(expected and not any(others), may_leave=may_leave, is_done=code == 0, where=where)

    @property
    def knows_sqlite(self) -> bool:
        return (self.folder / "repo").exists()

    def limited(self, function: Callable[[Callable[[], object]], int], expected: tuple[int, ...]) -> str:
        """Run it, as one process, by a function that returns how it ended."""
        self.reset()
        code = function(lambda: self.operation.run(self.folder, 0))
        fits = code in expected or (self.knows_sqlite and code == fault_injection.OTHER)
        return self.outcome(fits, may_leave=False, is_done=False, where=(function, code))

    def killed(self, rng: random.Random) -> str | None:
        """Kill the first process at a random moment, and return the outcome; None if it was done by then."""
        self.reset()
        children = self._started()
        time.sleep(rng.random() * self.seconds)
        os.kill(children.pids[0], signal.SIGKILL)
        code, *others = children.wait()
        if code != -signal.SIGKILL:
            return None
        return self.outcome(not any(others), may_leave=True, is_done=False, where=("random kill",))

    def outcome(self, is_expected: bool, *, may_leave: bool, is_done: bool, where: tuple[object, ...]) -> str:
        """Look at what is there, run it again, and look once more."""

        def look() -> int:
            problem = self._look(may_leave=may_leave, is_done=is_done)
            if not is_expected or isinstance(problem, str):
                print(f"broken: {where}: {problem if is_expected else 'not the errno'}", file=sys.stderr, flush=True)
                return BROKEN
            return problem

        child = Processes([look])
        child.go()
        (code,) = child.wait()
        if not 0 <= code < len(OUTCOMES):
            print(f"broken: {where}: looking at it ended with {code}", file=sys.stderr, flush=True)
            return "broken"
        return OUTCOMES[code]

    def _look(self, *, may_leave: bool, is_done: bool) -> int | str:
        try:
            state = self._state()
            for name in {*state, *self.before}:
                # What was there before may only be replaced by what is new.
                if state.get(name) not in (self.before.get(name), self.after.get(name)) or name not in self.after:
                    return f"{name} is neither old nor new"
            strange = self.operation.disagreements(self.folder)
            if not may_leave and strange:
                return f"nobody knows of {strange}"
            found = 1 if state == self.after else 0 if state == self.before else 2
            if is_done and found != 1:
                return "it returned, and isn't there"
            age(self.folder)
            for process in range(self.operation.processes):
                self.operation.run(self.folder, process)
            if self._state() != self.after:
                return "the next run didn't finish"
            left = [*map(str, leftovers(self.folder)), *self.operation.disagreements(self.folder)]
            return f"the next run left {left}" if left else found
        except BaseException as error:
            if os.environ.get("SHOW"):
                traceback.print_exc()
            return repr(error)

    def power_cuts(self, count: int, rng: random.Random, note: Callable[[str], object]) -> None:
        """Note the outcomes of losses of power at random moments of a run."""
        trace = self.traced().rename(self._trace.with_suffix(".whole"))
        after = self._state()
        self.reset()
        events, _ = read_trace(trace, self.folder)
        events = created(events, self.folder)
        disk = Disk(self.folder)
        disk.replay(events)
        ends = [number for number, event in enumerate(events) if event.call == "exit"]
        for _ in range(count):
            # Every fifth after all calls have returned.
            at = len(events) if rng.random() < 0.2 else rng.randrange(len(events) + 1)
            disk.cut(self.folder, at, rng)
            # SQLite doesn't force its folder when it deletes the journal of what it has committed (its `synchronous` is
            # FULL, not EXTRA): when the power comes back, it may undo the last commit.
            is_done = at > max(ends) and not self.knows_sqlite
            where = ("power cut", at, events[at - 1].call if at else "", events[at - 1].path if at else "")
            note(self.outcome(after == self.after, may_leave=True, is_done=is_done, where=where))


def full_disk(bench: Bench, note: Callable[[str], object]) -> None:
    """No file may become larger than some sizes."""
    for size in (0, 1, 100, 1_000, 4_096, 10_000, 20_000, 30_000):
        note(bench.limited(partial(fault_injection.run_full, size=size), (0, errno.EFBIG, errno.ENOSPC)))


def short_writes(bench: Bench, note: Callable[[str], object]) -> None:
    """Each write of ours in turn writes only half."""
    bench.reset()
    for at in range(fault_injection.count(lambda: bench.operation.run(bench.folder, 0))):
        note(bench.limited(partial(fault_injection.run_with, at=at, action=fault_injection.short), (0,)))


def torture(name: str, folder: Path, chosen: argparse.Namespace, save: Callable[[Table], object]) -> Table:
    """Return how often each outcome was met, by operation and fault; what there is meanwhile is saved."""
    bench = Bench(OPERATIONS[name], folder)
    rng = random.Random(name)
    table: Table = {}

    def note(fault: str, outcome: str | None) -> None:
        if outcome is not None:
            table.setdefault((name, fault), Counter())[outcome] += 1
            save(table)

    if "cuts" in chosen.faults and strace_works():
        bench.power_cuts(chosen.cuts, rng, lambda outcome: note("power cut", outcome))
    if "kills" in chosen.faults:
        while table.get((name, "kill at random"), Counter()).total() < chosen.kills:
            note("kill at random", bench.killed(rng))
    if "short" in chosen.faults:
        short_writes(bench, lambda outcome: note("short write", outcome))
    if "full" in chosen.faults:
        full_disk(bench, lambda outcome: note("RLIMIT_FSIZE", outcome))
    for fault in chosen.calls.split(",") if "calls" in chosen.faults and strace_works() else ():
        for call in bench.calls():
            for _ in range(RETRIES):
                outcome = bench.disturbed(call, fault)
                if outcome is not None:
                    break
            note({"kill": "kill before each call"}.get(fault, fault), outcome)
    return table


def markdown(table: Table) -> str:
    lines = ["| operation | fault | cases | " + " | ".join(OUTCOMES) + " |", "|---|---|---|" + "---|" * len(OUTCOMES)]
    for (name, fault), counts in table.items():
        numbers = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {name} | {fault} | {counts.total()} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="kills at random moments, for each operation")
    parser.add_argument("--cuts", type=int, default=300, help="losses of power, for each operation")
    parser.add_argument("--only", default="", help="names of operations, or the word 'others', separated by commas")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which, of %(default)s")
    parser.add_argument("--calls", default=",".join(CALLS), help="what happens at each call, of %(default)s")
    parser.add_argument("--folder", help="where to work; by default where temporary files go")
    parser.add_argument("--json", type=Path, help="a file for the counts")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else [*OPERATIONS, "others"]
    table: Table = {}

    def save(more: Table) -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps([[*key, counts] for key, counts in (table | more).items()]))

    for name in chosen:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            if name == "others":
                from fault_peers import kill_peers

                peers = kill_peers(Path(folder), arguments.kills)
                continue
            table |= torture(name, Path(folder).resolve(), arguments, save)
    if table:
        print(markdown(table))
    if "others" in chosen:
        print("\n" + peers)


if __name__ == "__main__":
    main()
