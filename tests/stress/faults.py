"""Disturb operations in every way while they write, and look at what is there after that.

Calls that change the disk are disturbed: the process is killed in place of one, or it fails with an errno, or writes
half. No file may become larger than some sizes. Then come kills at random moments, and losses of power, after
which what wasn't forced to the disk may be missing (``disk.py``). After each, all that is there must be old or new, and
whole; then the operation is run again, and must finish and clean up.

*Old*, *new*: all is as it was before, or as it shall be. *Between*: some of several files or datasets are new already.
*Broken*: something isn't whole, or is gone, or the errno got lost, or the next run didn't finish or left something.
"""

from __future__ import annotations

import errno
import os
import pickle
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from disk import CALLS, Disk, patched, record, recorded
from processes import KILLED, OTHER, Children
from reporting import Table
from support import exposure, simple_wcs, visit_info, write_visit

import compositeh5 as ch5
from compositeh5.composite.session import current
from compositeh5.fits import convert_files

State = Mapping[str, object]
"""What is there, by name: the bytes of files, the digests of datasets."""

VISIT = {"instrument": "DemoCam", "visit": 903334}
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EINTR")
LIMITS = (0, 1, 100, 1_000, 4_096, 10_000, 20_000, 30_000)
BAD = frozenset({"broken"})


# ---- Operations ---------------------------------------------------------------------------------------------


def files(folder: Path) -> State:
    """Return the files of a folder but temporary ones."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if is_final(path)}


def is_final(path: Path) -> bool:
    return path.is_file() and path.suffix != ".tmp"


@dataclass
class Operation:
    """Something that writes into a folder.

    Attributes
    ----------
    prepare : callable
        Fills the folder with what is there before; and a folder beside it, `source`, which stays.
    run : callable
        Does it, as one of several processes; also when it was begun before.
    connect : callable
        Does before what isn't disturbed.
    state : callable
        Returns what is there, and raises an exception if anything isn't whole.
    strangers : callable
        Returns names of files that nobody knows of. After a kill there may be some until the next run.
    processes : int
        How many do it at once; the first of them is disturbed.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path, int], object]
    connect: Callable[[Path], object] = lambda folder: None
    state: Callable[[Path], State] = files
    strangers: Callable[[Path], list[str]] = lambda folder: []
    processes: int = 1


def source(folder: Path) -> Path:
    return Path(f"{folder}-in")


def composite(value: int) -> ch5.Composite:
    return ch5.Composite(None, image=np.full((90, 90), value, "f4"), data_id={"visit": 1})


def _one(folder: Path) -> None:
    composite(1).write(folder / "old.h5")


def _tree(folder: Path) -> None:
    write_visit(source(folder), ccds=2)
    with ch5.open(_ccd(folder)) as c:
        c.flatten(source(folder) / "flat.h5")
    _one(folder)


def _ccd(folder: Path) -> Path:
    return source(folder) / "calexp" / "calexp_903334_0.h5"


def _replace_by_large(folder: Path, process: int) -> None:
    """Replace a file by one of some MB, to which threads contribute, and which begins to reach the disk meanwhile."""
    pixels = np.random.default_rng(1).normal(0, 23, (1300, 1400)).astype("f4")
    large = ch5.Composite(None, packed=pixels, raw=pixels)
    large.write(folder / "old.h5", replace=True, recipes={"raw": "raw"})


def _overlay(folder: Path, process: int) -> None:
    with ch5.open(_ccd(folder)) as base:
        base.overlay(wcs=simple_wcs((20, 20)), stage="jointcal").write(folder / "overlays" / "x.h5")


def _flatten(folder: Path, process: int) -> None:
    with ch5.open(_ccd(folder)) as base:
        base.flatten(folder / "x.h5")


def _create_once(folder: Path, process: int) -> None:
    """Write the visit, as all others do, and a detector that links to it."""
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT, stage="raw")
    visit.write(folder / "visit" / "visit.h5")
    ccd = ch5.Composite(None, image=np.full((40, 40), process, "f4"), info=visit.link("visit_info"), data_id=VISIT)
    ccd.write(folder / "ccd" / f"{process}.h5")


def _fits(folder: Path) -> None:
    source(folder).mkdir()
    for number in range(3):
        image = fits.ImageHDU(np.full((50, 60), number, "f4"), name="SCI")
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(source(folder) / f"{number}.fits")


def _convert(folder: Path, process: int) -> None:
    for done in convert_files([source(folder)], folder / "h5"):
        if done.status == "failed":
            # It goes on with the other files, and reports.
            numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EINTR)
            raise OSError(next((n for n in numbers if os.strerror(n) in done.message), 0), done.message)


_butlers: dict[Path, Any] = {}


def _connect(folder: Path) -> Any:
    """Return the Butler of a repository, which this process opens once."""
    from butler_support import RUN
    from lsst.daf.butler import Butler

    if folder not in _butlers:
        _butlers[folder] = Butler.from_config(str(folder / "repo"), run=RUN)
    return _butlers[folder]


def _repo(folder: Path) -> None:
    from butler_support import create_repo

    from compositeh5.butler import register_dataset_type

    create_repo(folder / "repo")
    for name, definition in (("calexp", "exposure"), ("visit_metadata", "visit")):
        register_dataset_type(_connect(folder), name, definition)
    first = _given(0)
    _connect(folder).put(first, "calexp", first.data_id)


def _given(detector: int) -> ch5.Composite:
    return exposure((60, 70)).replace(data_id={**VISIT, "detector": detector})


def _put_visit(folder: Path, process: int) -> None:
    from compositeh5.butler import put_visit

    butler = _connect(folder)
    if butler.find_dataset("visit_metadata", VISIT) is None:
        put_visit(butler, ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT), map(_given, (1, 2)))


def _refs(folder: Path) -> list[Any]:
    names = ("calexp", "visit_metadata")
    return [ref for name in names for ref in _connect(folder).query_datasets(name, limit=None, explain=False)]


def _datasets(folder: Path) -> State:
    """Return the digests of all datasets that the registry knows: each can be read, and all that it links to."""
    found: dict[str, object] = {}
    for ref in _refs(folder):
        whole = _connect(folder).get(ref)
        digests = {name: ch5.Composite(None, value=whole[name]).component_digest("value") for name in whole}
        found[f"{ref.datasetType.name} {ref.dataId.get('detector')}"] = digests
    return found


def _strangers(folder: Path) -> list[str]:
    """Return the files that the registry doesn't know of."""
    known = {Path(_connect(folder).getURI(ref).ospath) for ref in _refs(folder)}
    there = {path for path in folder.rglob("*") if path.is_file() and path.suffix in (".h5", ".tmp")}
    return sorted(map(str, there - known))


OPERATIONS: dict[str, Operation] = {
    "write": Operation(_one, lambda folder, process: composite(2).write(folder / "new" / "x.h5")),
    "replace": Operation(_one, lambda folder, process: composite(2).write(folder / "old.h5", replace=True)),
    "replace by a large one": Operation(_one, _replace_by_large),
    "overlay": Operation(_tree, _overlay),
    "flatten": Operation(_tree, _flatten),
    "split": Operation(_tree, lambda folder, process: ch5.trees.split([source(folder) / "flat.h5"], folder / "split")),
    "subset": Operation(_tree, lambda folder, process: ch5.trees.subset(source(folder) / "calexp", folder / "subset")),
    "visit create-once": Operation(_one, _create_once, processes=3),
    "conversion of FITS files": Operation(_fits, _convert),
    "Butler: put_visit": Operation(_repo, _put_visit, _connect, _datasets, _strangers),
}


# ---- Faults -------------------------------------------------------------------------------------------------

Fault = Callable[[], object]
"""Prepares the process that is disturbed."""


def at_call(number: int, action: Callable[[Callable[..., Any], tuple[Any, ...]], Any]) -> Fault:
    """Return the fault that the call of a number, of all that change the disk, does something else."""
    seen = [0]

    def disturb(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen[0] += 1
        return action(call, args) if seen[0] == number + 1 else call(*args, **kwargs)

    return lambda: patched(CALLS, disturb)


def kill(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(operation: Callable[[], object], number: int) -> bool:
    """Run an operation in a child process that is killed at the call of a number; return whether it was."""
    pid = os.fork()
    if pid == 0:
        try:
            at_call(number, kill)()
            operation()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def short(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Write half of what should be written; other calls are as always."""
    if call.__name__ in ("write", "pwrite") and len(args[1]) > 1:
        return call(args[0], args[1][: len(args[1]) // 2], *args[2:])
    return call(*args)


def failing(name: str) -> Callable[[Callable[..., Any], tuple[Any, ...]], None]:
    def fail(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    return fail


def limited(size: int) -> None:
    """Have no file of this process become larger than a size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Bench:
    """An operation, in a folder of its own; all that it does is done by child processes, as by new ones."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation, self.folder = operation, folder / "work"
        self._pristine, self._result = folder / "before", folder / "result"
        warm = folder / "warm"
        for each in (warm, self.folder):
            each.mkdir(parents=True)
        # This process loads what children need, once for all; it knows nothing of their folder.
        operation.prepare(warm)
        for process in range(operation.processes):
            operation.run(warm, process)
        operation.state(warm)
        self._in_child(lambda: operation.prepare(self.folder))
        shutil.copytree(self.folder, self._pristine, symlinks=True)
        self.before = self._in_child(self._state)
        self.reset()
        counted = self._run(lambda: patched(CALLS, self._count))
        assert not any(counted), counted
        self.calls = (folder / "calls").read_text().split()
        self.after = self._in_child(self._state)
        assert self.after != self.before
        assert not self._in_child(self._strange)

    def _count(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with open(self._pristine.with_name("calls"), "a") as file:
            file.write(f"{call.__name__} ")
        return call(*args, **kwargs)

    def _in_child(self, function: Callable[[], Any]) -> Any:
        """Return what a function returns, or the error that it raises, in a child process."""

        def work() -> None:
            try:
                result = function()
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
            self._result.write_bytes(pickle.dumps(result))

        child = Children([work])
        child.go()
        assert child.wait() == [0]
        return pickle.loads(self._result.read_bytes())

    def _state(self) -> State:
        current().clear_cache()
        return self.operation.state(self.folder)

    def _left(self) -> list[Path]:
        return list(self.folder.rglob("*.tmp"))

    def _strange(self) -> list[str]:
        return [*map(str, self._left()), *self.operation.strangers(self.folder)]

    def reset(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._pristine, self.folder, symlinks=True)

    def _start(self, *faults: Fault) -> Children:
        """Start it; a fault for all of its processes, or for the first one if others have none."""

        def work(process: int) -> Callable[[], None]:
            def run() -> None:
                if process < len(faults):
                    faults[process]()
                self.operation.run(self.folder, process)

            return run

        works = [work(process) for process in range(self.operation.processes)]
        children = Children(works, lambda: self.operation.connect(self.folder), expects_errors=bool(faults))
        children.go()
        return children

    def _run(self, *faults: Fault) -> list[int]:
        return self._start(*faults).wait()

    def disturbed(self, fault: Fault, expected: Iterable[int], *, may_leave: bool = False) -> tuple[str, str]:
        """Run it with a fault, and return the outcome and details."""
        self.reset()
        code, *others = self._run(fault)
        if code not in expected or any(others):
            return "broken", f"it ended with {code} {others}"
        return self.outcome(may_leave=may_leave, is_done=code == 0)

    def killed(self, rng: random.Random, seconds: float) -> tuple[str, str] | None:
        """Kill the first process at a random moment, and return the outcome; None if it was done by then."""
        self.reset()
        children = self._start()
        time.sleep(rng.random() * seconds)
        children.kill(0)
        code, *others = children.wait()
        if any(others):
            return "broken", f"others ended with {others}"
        return self.outcome(may_leave=True, is_done=False) if code == KILLED else None

    def duration(self) -> float:
        self.reset()
        children = self._start()
        start = time.perf_counter()
        children.wait()
        return time.perf_counter() - start

    def outcome(self, *, may_leave: bool, is_done: bool) -> tuple[str, str]:
        """Look at what is there, run it again, and look once more."""
        found = self._in_child(lambda: self._look(may_leave=may_leave, is_done=is_done))
        return ("broken", found) if isinstance(found, str) else ((*found, "")[:2])

    def _look(self, *, may_leave: bool, is_done: bool) -> tuple[str] | str:
        state = self._state()
        for name in {*state, *self.before}:
            # What was there before may only be replaced by what is new.
            if state.get(name) not in (self.before.get(name), self.after.get(name)) or name not in self.after:
                return f"{name} is neither old nor new"
        if not may_leave and (strange := self._strange()):
            return f"nobody knows of {strange}"
        if is_done and state != self.after:
            return "it returned, and isn't there"
        for path in self._left():
            # As if its writer had died long ago.
            os.utime(path, (0, 0))
        for process in range(self.operation.processes):
            self.operation.run(self.folder, process)
        if self._state() != self.after:
            return "the next run didn't finish"
        if left := self._strange():
            return f"the next run left {left}"
        return ("new" if state == self.after else "old" if state == self.before else "between",)

    def power_cuts(self, count: int, rng: random.Random) -> Iterable[tuple[str, str]]:
        """Yield what is there after losses of power at random moments of a run."""
        self.reset()
        log = self._result.with_name(f"events{rng.random()}")

        def run(process: int) -> None:
            end = record(self.folder, log)
            self.operation.run(self.folder, process)
            end()

        works = [lambda process=process: run(process) for process in range(self.operation.processes)]
        children = Children(works)
        children.go()
        assert not any(children.wait())
        there = [path for path in self.folder.rglob("*") if path.is_symlink() or path.is_file()]
        names = {
            f"/{path.relative_to(self.folder)} {0 if path.is_symlink() else path.stat().st_size}" for path in there
        }
        self.reset()
        events, disk = recorded(log), Disk(self.folder)
        disk.replay(events)
        assert disk.names() == names
        end = max(number for number, event in enumerate(events) if event.call == "exit")
        for _ in range(count):
            # Every fifth after all calls have returned.
            at = len(events) if rng.random() < 0.2 else rng.randrange(len(events) + 1)
            disk.cut(self.folder, at, rng)
            outcome, detail = self.outcome(may_leave=True, is_done=at > end)
            yield outcome, f"{detail} at {at}, after {events[at - 1].call if at else ''}"


FAULTS: dict[str, tuple[Callable[[Callable[..., Any], tuple[Any, ...]], Any], int]] = {
    "kill at a call": (kill, KILLED),
    "short write": (short, 0),
    **{name: (failing(name), getattr(errno, name)) for name in ERRORS},
}
"""What a call does instead, and how the process must end."""


def faults(
    table: Table,
    folder: Path,
    seed: int,
    operations: Sequence[str] = tuple(OPERATIONS),
    calls: int = 20,
    moments: int = 10,
) -> None:
    """Disturb operations, each at so many calls, and kill it, and lose power, at so many moments."""
    rng = random.Random(seed)
    for number, name in enumerate(operations):
        operation, bench = OPERATIONS[name], Bench(OPERATIONS[name], folder / f"{seed}-{number}")
        # The Butler copes with some errors, and wraps others.
        also = (0, OTHER) if operation.connect is _connect else ()
        for _ in range(calls):
            # Most calls are writes.
            kind = rng.choice(sorted(set(bench.calls)))
            at = rng.choice([at for at, call in enumerate(bench.calls) if call == kind])
            fault = rng.choice(list(FAULTS))
            action, code = FAULTS[fault]
            # A temporary file that can't be deleted stays.
            leaves = code == KILLED or kind == "unlink"
            outcome, detail = bench.disturbed(at_call(at, action), (code, *also), may_leave=leaves)
            table.note(name, fault, counts=outcome, detail=f"at call {at}, {kind}: {detail}")
        for size in rng.sample(LIMITS, min(len(LIMITS), moments)):
            expected = (0, errno.EFBIG, errno.ENOSPC, *also)
            outcome, detail = bench.disturbed(lambda size=size: limited(size), expected)
            table.note(name, "RLIMIT_FSIZE", counts=outcome, detail=f"{size} bytes: {detail}")
        seconds = bench.duration()
        for _ in range(moments):
            if (found := bench.killed(rng, seconds)) is not None:
                table.note(name, "kill at random", counts=found[0], detail=found[1])
        # What SQLite does isn't recorded.
        if operation.connect is not _connect:
            for outcome, detail in bench.power_cuts(moments, rng):
                table.note(name, "power cut", counts=outcome, detail=detail)
        shutil.rmtree(folder / f"{seed}-{number}")


def faults_table() -> Table:
    return Table(("operation", "fault"), BAD)
