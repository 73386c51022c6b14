"""Time the Butler with our formatter, beside a formatter that stores nothing, in the same run and repository.

    python benchmarks/butler.py [--size 512] [--runs 20]

Prints a Markdown table: CPU time of a call in ms (median), ours, the other's, and their ratio. What the other takes is
the Butler's own share.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from astropy import units as u
from lsst.daf.butler import Butler, Config, DatasetRef, FormatterV2
from lsst.resources import ResourcePath

import compositeh5 as ch5
from compositeh5 import targets
from compositeh5.butler import link, put_visit, register_dataset_type

SEED = "resource://compositeh5/butler/configs/seed.yaml"
RUN = "bench"
VISIT = {"instrument": "Cam", "visit": 1}


class NothingFormatter(FormatterV2):
    """Stores one byte, and gives the same thing back: what is left is the Butler's own work."""

    default_extension = ".nothing"
    can_read_from_uri = True

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        with open(uri.ospath, "wb") as file:
            file.write(b"x")

    def read_from_uri(self, uri: ResourcePath, component: str | None = None, expected_size: int = -1) -> Any:
        return EMPTY if component is None else None


EMPTY = ch5.Composite("exposure", image=np.zeros((1, 1), "f4"))


def make_butler(root: str, detectors: int) -> Butler:
    config = Config(SEED)
    formatters = dict(config["datastore", "formatters"])
    config["datastore", "formatters"] = {**formatters, "nothing": f"{__name__}.NothingFormatter"}
    Butler.makeRepo(root, config=config)
    butler = Butler.from_config(root, run=RUN)
    registry = butler.registry
    registry.insertDimensionData("instrument", {"name": "Cam"})
    registry.insertDimensionData("physical_filter", {"instrument": "Cam", "name": "i", "band": "i"})
    registry.insertDimensionData("day_obs", {"instrument": "Cam", "id": 20250101})
    numbers = range(detectors)
    rows = ({"instrument": "Cam", "id": n, "full_name": str(n)} for n in numbers)
    registry.insertDimensionData("detector", *rows)
    visit = {"instrument": "Cam", "id": 1, "name": "1", "physical_filter": "i", "day_obs": 20250101}
    registry.insertDimensionData("visit", visit)
    for name in ("calexp", "nothing"):
        register_dataset_type(butler, name, "exposure")
    return butler


def make_exposure(size: int) -> ch5.Composite:
    pixels = np.random.default_rng(1).normal(0, 23, (size, size)).astype("f4")
    mask = ch5.Mask(np.zeros((size, size), "i4"), {"BAD": 0})
    info = {"exposure_time": 30 * u.s, "airmass": 1.1}
    return ch5.Composite("exposure", image=pixels, mask=mask, variance=pixels**2, visit_info=info)


def measure(call: Callable[[int], object], runs: int) -> float:
    times = []
    for run in range(runs + 1):
        start = time.process_time()
        call(run)
        if run:
            times.append((time.process_time() - start) * 1000)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        butler = make_butler(root, args.runs + 2)
        exposure = make_exposure(args.size)
        last = args.runs + 1
        visit = ch5.Composite("visit", visit_info=exposure["visit_info"], data_id=VISIT)
        _, (ref,) = put_visit(butler, visit, [exposure.replace(data_id={**VISIT, "detector": last})])
        nothing = butler.put(EMPTY, "nothing", {**VISIT, "detector": last})
        bare = exposure.replace({"visit_info": link(butler, ref, "visit_info")})

        def put(name: str, value: ch5.Composite) -> Callable[[int], DatasetRef]:
            return lambda run: butler.put(value, name, {**VISIT, "detector": run})

        def get(ref: DatasetRef, component: str | None = None, **parameters: Any) -> Callable[[int], object]:
            wanted = ref if component is None else ref.makeComponentRef(component)
            return lambda run: butler.get(wanted, parameters=parameters)

        def linked(run: int) -> object:
            targets.cache.clear()
            return butler.get(ref.makeComponentRef("visit_info"))

        box = ch5.Box(0, 64, 0, 64)
        rows: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
            "put": (put("calexp", bare), put("nothing", EMPTY)),
            "get(ref)": (get(ref), get(nothing)),
            "get one component (mask)": (get(ref, "mask"), get(nothing, "mask")),
            "get 64 x 64 pixels of the image": (get(ref, "image", bbox=box), get(nothing, "image", bbox=box)),
            "get linked component, cached": (get(ref, "visit_info"), get(nothing, "visit_info")),
            "get linked component, not cached": (linked, get(nothing, "visit_info")),
        }
        print(f"{args.size} x {args.size} pixels, SQLite, {args.runs} runs\n")
        print("| call | compositeh5, ms | nothing stored, ms | ratio |\n|---|---|---|---|")
        for name, (ours, other) in rows.items():
            times = measure(ours, args.runs), measure(other, args.runs)
            print(f"| {name} | {times[0]:.1f} | {times[1]:.1f} | {times[0] / times[1]:.1f} |")


if __name__ == "__main__":
    main()
