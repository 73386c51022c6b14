"""Have many processes write at once, kill some, and read all along; count what is not as it should be.

    python benchmarks/concurrency.py [--workers 189] [--visits 20] [--replacements 500] [--butler 60]

*Visits*: the workers of a visit start together. Each writes the exposure of one detector, and whoever is first writes
the file of the visit to which all link (`write_together`). A third of them is killed (SIGKILL) at random moments, and
started again. A reader opens all files there are again and again, follows the links and compares what it finds.

*Two accounts*: the workers don't agree on the metadata of their visit. Those of whoever is first stand; all others must
be told so, and write nothing. There is a reader too.

*Replacement*: a file is replaced by one of two contents in turn. Readers must see one of them, whole, and those who
have it open must go on seeing what they opened.

*Butler*: `put_visit` into one repository (SQLite) by six workers at a time, each into a run of its own; a third is
killed and started again, and a reader gets all there is.

Prints a Markdown table; exit code 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import compositeh5 as ch5
from compositeh5.composite.session import current
from compositeh5.trees.verify import verify

SHAPE = (40, 50)
DONE, FAILED, TOLD = 0, 1, 3
"""Exit codes of workers; the last is that of those who were told that another account stands."""

Work = Callable[[], int | None]
Counts = Counter[str]

BAD = frozenset({"bad reads", "failed workers", "bad files", "visit files too many", "not told", "overwritten"})
"""What must not be counted once."""


# ---- Processes ----------------------------------------------------------------------------------------------


def together(works: Sequence[Work], kills: dict[int, float] | None = None) -> list[int]:
    """Do some works in as many processes, which begin at the same moment.

    Parameters
    ----------
    works : sequence of callable
        What to do. A number that one returns is the exit code of its process.
    kills : dict, optional
        For the numbers of some works the seconds after which they are killed, if they aren't done.

    Returns
    -------
    list of int
        Exit codes; negative for those that were killed.
    """
    reading, writing = os.pipe()
    pids = []
    for work in works:
        pid = os.fork()
        if pid == 0:
            code = FAILED
            try:
                os.close(writing)
                # At the end of the file, when the parent closes the other end, and all its children have.
                os.read(reading, 1)
                code = work() or DONE
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(reading)
    os.close(writing)
    begin = time.monotonic()
    for number, after in sorted((kills or {}).items(), key=lambda item: item[1]):
        time.sleep(max(0.0, begin + after - time.monotonic()))
        # It is still there, if only as a zombie.
        os.kill(pids[number], signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@contextmanager
def polling(read: Callable[[], Counts], counts: Counts) -> Iterator[None]:
    """Have a process read again and again, and add what it has counted at the end."""
    results, told = os.pipe()
    stop, stopping = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(stopping)
            os.set_blocking(stop, False)
            own: Counts = Counter()
            while True:
                own += read()
                try:
                    os.read(stop, 1)
                    break
                except BlockingIOError:
                    continue
            os.write(told, json.dumps(own + read()).encode())
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os.write(told, json.dumps({"bad reads": 1}).encode())
        finally:
            os._exit(0)
    os.close(told)
    os.close(stop)
    try:
        yield
    finally:
        os.close(stopping)
        with open(results) as file:
            counts.update(json.loads(file.read()))
        os.waitpid(pid, 0)


def retried(works: Sequence[Work], counts: Counts, rng: random.Random, within: float) -> float:
    """Do works together, a third of which is killed; do those again that were, and return how long the first took."""
    victims = rng.sample(range(len(works)), len(works) // 3)
    begin = time.monotonic()
    codes = together(works, {number: rng.uniform(0, within) for number in victims})
    took = time.monotonic() - begin
    dead = [number for number, code in enumerate(codes) if code == -signal.SIGKILL]
    counts["workers"] += len(works)
    counts["killed"] += len(dead)
    again = together([works[number] for number in dead])
    for code in [codes[n] for n in range(len(works)) if n not in dead] + again:
        counts["failed workers"] += code not in (DONE, TOLD)
        counts["told of a conflict"] += code == TOLD
    return took


# ---- Files of a visit ---------------------------------------------------------------------------------------


def info(visit: int, account: int = 0) -> dict[str, object]:
    return {"visit": visit, "exposure_time": 30.0 + account, "filter": "i_39", "account": account}


def pixels(visit: int, detector: int) -> np.ndarray:
    return np.random.default_rng([visit, detector]).normal(0, 23, SHAPE).astype("f4")


def ccd_path(folder: Path, visit: int, detector: int) -> Path:
    return folder / "calexp" / f"calexp_{visit}_{detector}.h5"


def write_ccd(folder: Path, visit: int, detector: int, account: int = 0) -> int:
    """Write a detector of a visit, and the visit if nobody has done so yet."""
    composite = ch5.Composite(
        "exposure",
        image=ch5.Image(pixels(visit, detector)),
        visit_info=info(visit, account),
        data_id={"instrument": "Cam", "visit": visit, "detector": detector},
    )
    try:
        ch5.trees.write_together(
            {ccd_path(folder, visit, detector): composite}, str(folder / "visit" / "visit_{visit}.h5")
        )
    except (ch5.errors.DigestMismatchError, ch5.errors.ConflictError) as error:
        if f"visit_{visit}.h5" not in str(error):
            raise
        return TOLD
    return DONE


def read_files(folder: Path) -> Counts:
    """Read all files there are, and what they link to."""
    counts: Counts = Counter()
    current().clear_cache()
    for path in sorted(folder.glob("*/*.h5")):
        try:
            with ch5.open(path) as composite:
                visit = int(composite.data_id["visit"])
                found = composite["visit_info"].to_dict()
                right = found == info(visit, found["account"])
                if "image" in composite:
                    expected = pixels(visit, int(composite.data_id["detector"]))
                    right &= "visit_info" in composite.links and (composite["image"].array == expected).all()
                verify(composite)
        except Exception:
            traceback.print_exc()
            right = False
        counts["reads" if right else "bad reads"] += 1
    return counts


def check_files(folder: Path, visit: int, detectors: set[int]) -> Counts:
    """Return how many files of a visit are there, and how many aren't as they should be."""
    counts: Counts = Counter()
    found = {int(path.stem.split("_")[2]) for path in folder.glob(f"calexp/calexp_{visit}_*.h5")}
    visits = [path for path in (folder / "visit").iterdir() if f"visit_{visit}.h5" == path.name]
    counts["CCD files"] = len(found)
    counts["visit files"] = len(visits)
    counts["bad files"] = len(found ^ detectors)
    counts["visit files too many"] = abs(len(visits) - 1)
    return counts


def visits(folder: Path, workers: int, number: int, rng: random.Random) -> Counts:
    """Write visits, each by many workers of which a third is killed."""
    counts: Counts = Counter()
    with polling(lambda: read_files(folder), counts):
        within = 0.02 * workers
        for visit in range(number):
            works = [lambda visit=visit, d=d: write_ccd(folder, visit, d) for d in range(workers)]
            within = 0.7 * retried(works, counts, rng, within)
            counts += check_files(folder, visit, set(range(workers)))
    counts["temporary files left"] = len(list(folder.glob("*/.*.tmp")))
    return counts


def two_accounts(folder: Path, workers: int, number: int, rng: random.Random) -> Counts:
    """Write visits by workers who don't agree."""
    counts: Counts = Counter()
    with polling(lambda: read_files(folder), counts):
        for visit in range(number):
            accounts = [rng.randrange(2) for _ in range(workers)]
            codes = together(
                [lambda v=visit, d=d, a=account: write_ccd(folder, v, d, a) for d, account in enumerate(accounts)]
            )
            with ch5.open(folder / "visit" / f"visit_{visit}.h5") as composite:
                stands = composite["visit_info"]["account"]
            counts["workers"] += workers
            counts["told of a conflict"] += codes.count(TOLD)
            counts["failed workers"] += sum(code not in (DONE, TOLD) for code in codes)
            expected = [DONE if account == stands else TOLD for account in accounts]
            counts["not told"] += sum(code != right for code, right in zip(codes, expected, strict=True))
            counts += check_files(folder, visit, {d for d in range(workers) if accounts[d] == stands})
            # Nobody changes what stands, later either.
            before = (folder / "visit" / f"visit_{visit}.h5").read_bytes()
            counts["not told"] += write_ccd(folder, visit, workers, 1 - stands) != TOLD
            counts["overwritten"] += before != (folder / "visit" / f"visit_{visit}.h5").read_bytes()
    return counts


# ---- Replacement --------------------------------------------------------------------------------------------


def replacement(folder: Path, number: int, readers: int = 3) -> Counts:
    """Replace a file by one of two contents in turn, while others read."""
    path = folder / "x.h5"
    contents = [np.full((300, 400), value, "f4") for value in (1, 2)]

    def composite(value: int) -> ch5.Composite:
        return ch5.Composite(None, image=contents[value], value={"is": value})

    def read_one() -> Counts:
        try:
            with ch5.open(path) as c:
                value = c["value"]["is"]
                right = (c["image"] == contents[value]).all()
                inode = os.stat(path).st_ino
                for _ in range(100):
                    if os.stat(path).st_ino != inode:
                        break
                    time.sleep(0.001)
                # By now it has been replaced, mostly; this one is open still.
                right &= (c.lazy("image")[7:9] == contents[value][7:9]).all()
                verify(c)
        except Exception:
            traceback.print_exc()
            right = False
        return Counter({"reads" if right else "bad reads": 1})

    composite(0).write(path)
    counts: Counts = Counter()
    with polling(read_one, counts), polling(read_one, counts), polling(read_one, counts):
        for i in range(number):
            composite(i % 2).write(path, replace=True)
    counts["replacements"] = number
    counts["temporary files left"] = len(list(folder.glob(".*.tmp")))
    return counts


# ---- The Butler ---------------------------------------------------------------------------------------------


def butler(folder: Path, number: int, rng: random.Random, workers: int = 6, detectors: int = 3) -> Counts:
    """Put visits into a repository by several workers, of which a third is killed."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from butler_support import create_repo
    from lsst.daf.butler import Butler

    from compositeh5.butler import put_visit, register_dataset_type

    root, visit = folder / "repo", 903334
    create_repo(root)
    first = Butler.from_config(str(root), writeable=True)
    for name, definition in (("visit_metadata", "visit"), ("calexp", "exposure")):
        register_dataset_type(first, name, definition)
    for i in range(number):
        first.collections.register(f"load/{i}")

    def data_id(**more: int) -> dict[str, int | str]:
        return {"instrument": "DemoCam", "visit": visit, **more}

    def put(i: int) -> None:
        own = Butler.from_config(str(root), run=f"load/{i}")
        whole = ch5.Composite("visit", visit_info=info(visit, i), data_id=data_id())
        ccds = [
            ch5.Composite("exposure", image=ch5.Image(pixels(i, detector)), data_id=data_id(detector=detector))
            for detector in range(detectors)
        ]
        put_visit(own, whole, ccds)

    def read() -> Counts:
        counts: Counts = Counter()
        own = Butler.from_config(str(root))
        current().clear_cache()
        for ref in own.registry.queryDatasets("calexp", collections="load/*"):
            i = int(ref.run.split("/")[1])
            try:
                whole = own.get(ref)
                right = (whole["image"].array == pixels(i, int(ref.dataId["detector"]))).all()
                right &= own.get(ref.makeComponentRef("visit_info")).to_dict() == info(visit, i)
            except Exception:
                traceback.print_exc()
                right = False
            counts["reads" if right else "bad reads"] += 1
        return counts

    counts: Counts = Counter()
    del first
    with polling(read, counts):
        within = 1.0
        for start in range(0, number, workers):
            works = [lambda i=i: put(i) for i in range(start, min(start + workers, number))]
            within = 0.9 * retried(works, counts, rng, within)
    final = Butler.from_config(str(root))
    for i in range(number):
        refs = list(final.registry.queryDatasets("calexp", collections=f"load/{i}"))
        counts["CCD files"] += len(refs)
        counts["bad files"] += len(refs) != detectors
        visit_refs = list(final.registry.queryDatasets("visit_metadata", collections=f"load/{i}"))
        counts["visit files"] += len(visit_refs)
        counts["visit files too many"] += abs(len(visit_refs) - 1)
    return counts


# ---- All ----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=189, help="of a visit")
    parser.add_argument("--visits", type=int, default=20)
    parser.add_argument("--replacements", type=int, default=500)
    parser.add_argument("--butler", type=int, default=60, help="visits put into a Butler; 0 for none")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    runs: dict[str, Callable[[Path], Counts]] = {
        "visits": lambda folder: visits(folder, arguments.workers, arguments.visits, rng),
        "two accounts": lambda folder: two_accounts(folder, min(arguments.workers, 40), arguments.visits, rng),
        "replacement": lambda folder: replacement(folder, arguments.replacements),
    }
    if arguments.butler:
        runs["Butler"] = lambda folder: butler(folder, arguments.butler, rng)
    found = False
    print("| run | counts | not as it should be |\n|---|---|---|")
    for name, run in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            counts = run(Path(folder))
        good = ", ".join(f"{count} {what}" for what, count in counts.items() if what not in BAD)
        bad = ", ".join(f"{count} {what}" for what, count in counts.items() if what in BAD and count) or "0"
        print(f"| {name} | {good} | {bad} |", flush=True)
        found |= bad != "0"
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
