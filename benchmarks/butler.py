"""The Butler with our formatter, beside a formatter that stores nothing, in the same run and repository.

Measured are the times of calls, and the requests that they cost where the files are in an object store (moto's S3
server on this machine). What the formatter that stores nothing takes is the Butler's own share.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from lsst.daf.butler import Butler, Config, DatasetRef, FormatterV2
from lsst.resources import ResourcePath
from timing import Timing, timed_in_turn

import compositeh5 as ch5
from compositeh5.butler import link, put_overlay, put_visit, register_dataset_type
from compositeh5.composite.session import current

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from object_store import BUCKET, object_store
from support import simple_wcs

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


def make_butler(root: str, detectors: int, datastore_root: str | None = None) -> Butler:
    config = Config(SEED)
    formatters = dict(config["datastore", "formatters"])
    names = ("nothing", "nothing_overlay")
    config["datastore", "formatters"] = {**formatters, **dict.fromkeys(names, f"{__name__}.NothingFormatter")}
    config["registry", "db"] = f"sqlite:///{root}/gen3.sqlite3"
    if datastore_root is not None:
        config["datastore", "root"] = datastore_root
    Butler.makeRepo(root, config=config, forceConfigRoot=datastore_root is None)
    butler = Butler.from_config(root, run=RUN)
    registry = butler.registry
    registry.insertDimensionData("instrument", {"name": "Cam"})
    registry.insertDimensionData("physical_filter", {"instrument": "Cam", "name": "i", "band": "i"})
    registry.insertDimensionData("day_obs", {"instrument": "Cam", "id": 20250101})
    rows = ({"instrument": "Cam", "id": n, "full_name": str(n)} for n in range(detectors))
    registry.insertDimensionData("detector", *rows)
    visit = {"instrument": "Cam", "id": 1, "name": "1", "physical_filter": "i", "day_obs": 20250101}
    registry.insertDimensionData("visit", visit)
    for name in ("calexp", "overlay", *names):
        register_dataset_type(butler, name, "exposure")
    return butler


def make_exposure(size: int) -> ch5.Composite:
    rng = np.random.default_rng(1)
    image, variance = (rng.normal(529, 23, (size, size)).astype("f4") for _ in range(2))
    mask = ch5.Mask(np.zeros((size, size), "i4"), {"BAD": 0})
    info = {"exposure_time": 30 * u.s, "airmass": 1.1}
    wcs = simple_wcs((size, size))
    return ch5.Composite("exposure", image=image, mask=mask, variance=variance, wcs=wcs, visit_info=info)


class Calls:
    """The calls to measure, by name: ours, and the same with the formatter that stores nothing.

    Each takes the number of the run, from 0, which is that of the detector that is put.
    """

    def __init__(self, butler: Butler, size: int, last: int) -> None:
        self.butler = butler
        exposure = make_exposure(size)
        visit = ch5.Composite("visit", visit_info=exposure["visit_info"], data_id=VISIT)
        _, (ref,) = put_visit(butler, visit, [exposure.replace(data_id={**VISIT, "detector": last})])
        nothing = butler.put(EMPTY, "nothing", {**VISIT, "detector": last})
        bare = exposure.replace({"visit_info": link(butler, ref, "visit_info")})
        box = ch5.Box(size // 2, size // 2 + 64, size // 2, size // 2 + 64)

        def overlay(run: int) -> DatasetRef:
            base = butler.get_dataset(self.puts[run].id)
            return put_overlay(self.butler, base, {"wcs": exposure["wcs"]}, "overlay", stage="jointcal")

        def put(name: str, value: ch5.Composite) -> Callable[[int], DatasetRef]:
            return lambda run: self.butler.put(value, name, {**VISIT, "detector": run})

        def put_ours(run: int) -> None:
            self.puts[run] = put("calexp", bare)(run)

        def get(ref: DatasetRef, component: str | None = None, **parameters: Any) -> Callable[[int], object]:
            wanted = ref if component is None else ref.makeComponentRef(component)
            return lambda run: self.butler.get(wanted, parameters=parameters)

        def linked(run: int) -> object:
            current().clear_cache()
            return self.butler.get(ref.makeComponentRef("visit_info"))

        self.puts: dict[int, DatasetRef] = {}
        self.pairs: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
            "put": (put_ours, put("nothing", EMPTY)),
            "put an overlay: a WCS on the pixels of another": (overlay, put("nothing_overlay", EMPTY)),
            "get one component (WCS)": (get(ref, "wcs"), get(nothing, "wcs")),
            "get one component (image)": (get(ref, "image"), get(nothing, "image")),
            "get linked component, not cached": (linked, get(nothing, "visit_info")),
            "get linked component, cached": (get(ref, "visit_info"), get(nothing, "visit_info")),
            "get 64 x 64 pixels of the image": (get(ref, "image", bbox=box), get(nothing, "image", bbox=box)),
            "get 64 x 64 pixels of everything": (get(ref, bbox=box), get(nothing, bbox=box)),
            "get(ref)": (get(ref), get(nothing)),
        }


def measure_times(size: int, runs: int) -> dict[str, list[Timing]]:
    """Return what each call takes, with our formatter and with that which stores nothing."""

    def numbered(call: Callable[[int], object]) -> Callable[[], object]:
        numbers = count()
        return lambda: call(next(numbers))

    with tempfile.TemporaryDirectory() as root:
        calls = Calls(make_butler(root, runs + 2), size, runs + 1)
        return {name: timed_in_turn([*map(numbered, pair)], runs) for name, pair in calls.pairs.items()}


def measure_requests(size: int) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """Count the requests of each call, of a Butler that has nothing in its cache."""
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch, object_store(patch) as store:
        calls = Calls(make_butler(root, 2, f"s3://{BUCKET}/repo"), size, 1)

        def requests(call: Callable[[int], object]) -> dict[str, int]:
            calls.butler = Butler.from_config(root, run=RUN)
            before = len(store.requests)
            call(0)
            return dict(Counter(method for method, _, _ in store.requests[before:]))

        return {name: (requests(ours), requests(other)) for name, (ours, other) in calls.pairs.items()}


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Return times and requests of each call."""
    size, runs, s3_size = (128, 2, 300) if quick else (512, 20, 2500)
    times, requests = measure_times(size, runs), measure_requests(s3_size)
    return {"size": size, "s3_size": s3_size, "times": times, "requests": requests}
