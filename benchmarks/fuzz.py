"""Read mutants of the sample files, each in a child process, and count what comes of it; or fuzz the parsers.

    python benchmarks/fuzz.py [--mutants 10000] [--signed 0.2] [--samples NAME ...] [--jobs 1] [--keep DIR]
    python benchmarks/fuzz.py --parsers --minutes 60

The first prints a Markdown table. A part of the mutants has right checksums in all metadata (``tests/mutants.py``).
*Refused*: errors of the package. *Harmless*: all values are right. *Told by verify*: values are others, which was not
noticed when they were read, but is by `verify`. *Silent*: not by that either. *Foreign*: an error that isn't of the
package. *Leak*: a file was left open. *Hang*: no answer within a minute. *Crash*: the process died.

The second has hypothesis give the resolver of links, and the readers of definitions, records and indices, what they
don't expect (``tests/parser_fuzz.py``), until the time is over; it prints how many cases there were, and what it found.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import compositeh5 as ch5
from compositeh5.composite.opening import file_info
from compositeh5.composite.parts import StoredPart
from compositeh5.storage.digests import digest
from compositeh5.trees.verify import verify_files

TESTS = Path(__file__).parents[1] / "tests"
sys.path.append(str(TESTS))
from mutants import Mutator  # noqa: E402

SAMPLES = TESTS / "samples" / "1.0"
OUTCOMES = ("refused", "harmless", "told by verify", "silent", "foreign", "leak", "hang", "crash")
BAD = frozenset(OUTCOMES[3:])
SECONDS = 60
MEMORY = 1024**3
"""Beyond what the child has when it starts."""

BATCH = 250
"""Mutants of one child, where HDF5 notices what is wrong: it may keep some of the memory of each."""

Content = dict[str, str | Exception]


@dataclass
class Tally:
    """How often each outcome was met, and what is to be looked at."""

    counts: Counter[str] = field(default_factory=Counter)
    found: list[tuple[int, str, str]] = field(default_factory=list)
    """Number of the mutant, outcome, and the end of the traceback."""


def content(path: Path) -> Content:
    """Return digests of all that a file holds, with the errors of what can't be read."""
    result: Content = {}

    def attempt(name: str, read: Callable[[], str]) -> None:
        try:
            result[name] = read()
        except Exception as error:
            result[name] = error

    def component(composite: ch5.Composite, name: str) -> str:
        part = composite.part(name)
        composite[name]
        return digest(part.node) if isinstance(part, StoredPart) else part.kind

    def read_all() -> str:
        for name in file_info(path).composites:
            with ch5.open(path, name) as composite:
                attempt(name, lambda: f"{composite.id} {composite.digest} {sorted(composite)}")
                for each in composite:
                    attempt(f"{name}/{each}", lambda each=each: component(composite, each))
        return "read"

    attempt("", read_all)
    return result


def examine(path: Path, expected: Content) -> tuple[str, str]:
    """Return what comes of reading a file, and details."""
    is_open = len(os.listdir("/proc/self/fd"))
    found = content(path)
    errors = [value for value in found.values() if isinstance(value, Exception)]
    foreign = [error for error in errors if not isinstance(error, ch5.CompositeH5Error)]
    wrong = [name for name, value in found.items() if isinstance(value, str) and value != expected.get(name)]
    if foreign:
        return "foreign", "".join(traceback.format_exception(foreign[0])[-6:])
    del foreign
    for error in errors:
        # Frames would keep files open.
        error.__traceback__ = error.__context__ = error.__cause__ = None
    if (left := len(os.listdir("/proc/self/fd")) - is_open) > 0:
        return "leak", f"{left} files"
    if wrong or (not errors and found.keys() != expected.keys()):
        return (
            "told by verify" if verify_tells(path) else "silent"
        ), f"{wrong} {sorted(found.keys() ^ expected.keys())}"
    return ("refused", type(errors[0]).__name__) if errors else ("harmless", "")


def verify_tells(path: Path) -> bool:
    return any(problem.path == str(path) for problem in verify_files(path).problems)


def child(path: Path, mutator: Mutator, expected: Content, numbers: range, signed: bool, pipe: int) -> None:
    """Examine mutants, and write a line of JSON for each to a pipe."""
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    for number in numbers:
        path.unlink()
        path.write_bytes(mutator.mutant(number, signed))
        signal.alarm(SECONDS)
        outcome, detail = examine(path, expected)
        signal.alarm(0)
        os.write(pipe, json.dumps([number, outcome, detail[-1500:]]).encode() + b"\n")


def in_children(
    path: Path, mutator: Mutator, expected: Content, numbers: range, signed: bool
) -> Iterator[tuple[int, str, str]]:
    """Yield what comes of each mutant."""
    while numbers:
        # What HDF5 makes of metadata that are wrong, and signed, may also be the end of what it reads later.
        some = numbers[: 1 if signed else BATCH]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reading)
                child(path, mutator, expected, some, signed, writing)
                code = 0
            except BaseException:
                os.write(writing, json.dumps([-1, "", traceback.format_exc()]).encode() + b"\n")
            finally:
                os._exit(code)
        os.close(writing)
        done = 0
        with open(reading) as lines:
            for line in lines:
                number, outcome, detail = json.loads(line)
                if number < 0:
                    raise RuntimeError(f"{path}: {detail}")
                done += 1
                yield number, outcome, detail
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code and done < len(some):
            yield some[done], "hang" if code == -signal.SIGALRM else "crash", f"exit {code}"
            done += 1
        numbers = numbers[done:]


def fuzz(sample: Path, count: int, signed: bool) -> Tally:
    """Return what comes of the mutants of a file."""
    warnings.simplefilter("ignore")
    mutator, tally = Mutator(sample.read_bytes()), Tally()
    with tempfile.TemporaryDirectory() as folder:
        # With what the links of samples lead to.
        for other in sample.parent.glob("*.h5"):
            shutil.copy(other, folder)
        path = Path(folder) / sample.name
        expected = content(path)
        assert not [value for value in expected.values() if isinstance(value, Exception)]
        for number, outcome, detail in in_children(path, mutator, expected, range(count), signed):
            tally.counts[outcome] += 1
            if outcome in BAD:
                tally.found.append((number, outcome, detail))
    return tally


def keep(folder: Path, sample: Path, signed: bool, tally: Tally) -> None:
    """Write the mutants that are to be looked at, with what is known of each."""
    folder.mkdir(parents=True, exist_ok=True)
    mutator = Mutator(sample.read_bytes())
    for number, outcome, detail in tally.found:
        path = folder / f"{sample.stem}_{'signed' if signed else 'plain'}_{number}.h5"
        path.write_bytes(mutator.mutant(number, signed))
        path.with_suffix(".txt").write_text(f"{outcome}\n{detail}\n")


def fuzz_parsers(minutes: float) -> None:
    """Try the properties of ``parser_fuzz`` with ever new examples, and print how many, and what failed."""
    import parser_fuzz
    from hypothesis import HealthCheck, Phase, seed, settings

    warnings.simplefilter("ignore")
    own = settings(
        max_examples=1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    tests = {name: own(test) for name, test in parser_fuzz.PROPERTIES.items()}
    cases: Counter[str] = Counter()
    failures: dict[str, str] = {}
    end, round_ = time.process_time() + 60 * minutes, int(time.time())
    while time.process_time() < end:
        round_ += 1
        for name, test in tests.items():
            parser_fuzz.count.clear()
            try:
                seed(round_)(test)()
            except Exception:
                text = traceback.format_exc(limit=-5)
                failures.setdefault(f"{name}: {text.splitlines()[-1][:200]}", text)
            cases[name] += parser_fuzz.count.total()
    print("| parser | cases |\n|---|---|")
    for name, number in cases.items():
        print(f"| {name} | {number} |")
    print(f"\n{len(failures)} different failures")
    for text in failures.values():
        print(f"\n{text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000, help="of each file")
    parser.add_argument("--signed", type=float, default=0.2, help="part of them that has right checksums")
    parser.add_argument("--samples", nargs="*", default=[path.stem for path in sorted(SAMPLES.glob("*.h5"))])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the mutants that are to be looked at")
    parser.add_argument("--parsers", action="store_true")
    parser.add_argument("--minutes", type=float, default=60, help="of CPU time, with --parsers")
    arguments = parser.parse_args()
    if arguments.parsers:
        fuzz_parsers(arguments.minutes)
        return
    signed_count = int(arguments.mutants * arguments.signed)
    counts = {False: arguments.mutants - signed_count, True: signed_count}
    cases = [(SAMPLES / f"{name}.h5", signed) for name in arguments.samples for signed in (False, True)]
    print("| sample | checksums | mutants | " + " | ".join(OUTCOMES) + " |\n|---|---|---|" + "---|" * len(OUTCOMES))
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        each = [pool.submit(fuzz, sample, counts[signed], signed) for sample, signed in cases]
        for (sample, signed), running in zip(cases, each, strict=True):
            tally = running.result()
            cells = " | ".join(str(tally.counts[outcome]) for outcome in OUTCOMES)
            right = "right" if signed else "as before"
            print(f"| {sample.stem} | {right} | {tally.counts.total()} | {cells} |", flush=True)
            if arguments.keep:
                keep(arguments.keep, sample, signed, tally)


if __name__ == "__main__":
    main()
