"""Have many processes write at once, kill some, and read all along; count what is not as it should be.

*Visits*: the workers of a visit start together. Each writes the exposure of one detector, and whoever is first writes
the file of the visit to which all link (`write_together`). Of every other visit a third of the workers is killed at
random moments, and started again; of the others they don't agree on the visit's metadata: those of whoever is first
stand, all others must be told so, and write nothing. A reader opens all files there are again and again.

*Replacement*: a file is replaced by one of two contents in turn. Readers must see one of them, whole, and those who
have it open must go on seeing what they opened.

*Butler*: `put_visit` into one repository (SQLite) by several workers at a time, each into a run of its own; a third is
killed and started again, and a reader gets all there is.
"""

from __future__ import annotations

import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from processes import KILLED, Work, polling, together
from reporting import Table

import compositeh5 as ch5
from compositeh5.composite.session import current

SHAPE = (40, 50)
TOLD = 200
"""Exit code of workers who were told that another account of the visit stands."""

Counts = Counter[str]

BAD = frozenset({"bad reads", "failed workers", "bad files", "not told", "overwritten"})


def retried(works: Sequence[Work], counts: Counts, rng: random.Random, within: float) -> float:
    """Do works together, a third of which is killed; do those again that were, and return how long the first took."""
    victims = rng.sample(range(len(works)), len(works) // 3)
    begin = time.monotonic()
    codes = together(works, {number: rng.uniform(0, within) for number in victims})
    took = time.monotonic() - begin
    dead = [number for number, code in enumerate(codes) if code == KILLED]
    counts["workers"] += len(works)
    counts["killed"] += len(dead)
    again = together([works[number] for number in dead])
    counts["failed workers"] += sum(code != 0 for code in [*codes, *again]) - len(dead)
    return took


# ---- Files of a visit ---------------------------------------------------------------------------------------


def info(visit: int, account: int = 0) -> dict[str, object]:
    return {"visit": visit, "exposure_time": 30.0 + account, "filter": "i_39", "account": account}


def pixels(visit: int, detector: int) -> np.ndarray:
    return np.random.default_rng([visit, detector]).normal(0, 23, SHAPE).astype("f4")


def visit_path(folder: Path, visit: int) -> Path:
    return folder / "visit" / f"visit_{visit}.h5"


def write_ccd(folder: Path, visit: int, detector: int, account: int = 0) -> int:
    """Write a detector of a visit, and the visit if nobody has done so yet."""
    composite = ch5.Composite(
        "exposure",
        image=ch5.Image(pixels(visit, detector)),
        visit_info=info(visit, account),
        data_id={"instrument": "Cam", "visit": visit, "detector": detector},
    )
    path = folder / "calexp" / f"calexp_{visit}_{detector}.h5"
    try:
        ch5.trees.write_together({path: composite}, str(folder / "visit" / "visit_{visit}.h5"))
    except (ch5.errors.DigestMismatchError, ch5.errors.ConflictError) as error:
        if f"visit_{visit}.h5" not in str(error):
            raise
        return TOLD
    return 0


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
            right &= not ch5.trees.verify_files(path).problems
        except Exception:
            traceback.print_exc()
            right = False
        counts["reads" if right else "bad reads"] += 1
    return counts


def visits(folder: Path, workers: int, number: int, rng: random.Random) -> Counts:
    """Write visits, each by many workers, of which a third is killed, or who don't agree."""
    counts: Counts = Counter()
    within = 0.02 * workers
    with polling(lambda: read_files(folder), counts):
        for visit in range(number):
            accounts = [rng.randrange(2) * (visit % 2) for _ in range(workers)]
            works = [lambda v=visit, d=d, a=a: write_ccd(folder, v, d, a) for d, a in enumerate(accounts)]
            if visit % 2:
                codes = together(works)
                counts["workers"] += workers
            else:
                within = 0.7 * retried(works, counts, rng, within)
                codes = [0] * workers
            with ch5.open(visit_path(folder, visit)) as composite:
                stands = composite["visit_info"]["account"]
            counts["told of a conflict"] += codes.count(TOLD)
            counts["failed workers"] += sum(code not in (0, TOLD) for code in codes)
            expected = [0 if account == stands else TOLD for account in accounts]
            counts["not told"] += sum(code != right for code, right in zip(codes, expected, strict=True))
            found = {int(path.stem.split("_")[2]) for path in folder.glob(f"calexp/calexp_{visit}_*.h5")}
            counts["CCD files"] += len(found)
            counts["bad files"] += len(found ^ {d for d in range(workers) if accounts[d] == stands})
            # Nobody changes what stands, later either.
            before = visit_path(folder, visit).read_bytes()
            counts["not told"] += write_ccd(folder, visit, workers, 1 - stands) != TOLD
            counts["overwritten"] += before != visit_path(folder, visit).read_bytes()
    counts["visit files"] = len(list(folder.glob("visit/*.h5")))
    counts["bad files"] += counts["visit files"] != number
    return counts


# ---- Replacement --------------------------------------------------------------------------------------------


def replacement(folder: Path, number: int) -> Counts:
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
    counts["bad files"] = len(list(folder.glob(".*.tmp")))
    return counts


# ---- The Butler ---------------------------------------------------------------------------------------------


def butler(folder: Path, number: int, rng: random.Random, workers: int = 6, detectors: int = 3) -> Counts:
    """Put visits into a repository by several workers, of which a third is killed."""
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
    del first

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
    with polling(read, counts):
        within = 1.0
        for start in range(0, number, workers):
            works = [lambda i=i: put(i) for i in range(start, min(start + workers, number))]
            within = 0.9 * retried(works, counts, rng, within)
    final = Butler.from_config(str(root)).registry
    for i in range(number):
        for name, what, wanted in (("calexp", "CCD files", detectors), ("visit_metadata", "visit files", 1)):
            found = len(list(final.queryDatasets(name, collections=f"load/{i}")))
            counts[what] += found
            counts["bad files"] += found != wanted
    return counts


def concurrency(table: Table, folder: Path, seed: int) -> None:
    """All of them, with many workers."""
    rng = random.Random(seed)
    for name in ("visits", "replacement", "butler"):
        (folder / f"{name}{seed}").mkdir(parents=True)
    table.note("visits", counts=visits(folder / f"visits{seed}", 189, 2, rng))
    table.note("replacement", counts=replacement(folder / f"replacement{seed}", 200))
    table.note("Butler", counts=butler(folder / f"butler{seed}", 12, rng))


def concurrency_table() -> Table:
    return Table(("run",), BAD)
