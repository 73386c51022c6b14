"""The operations that `benchmarks/faults.py` disturbs."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from lsst.daf.butler import Butler, DatasetRef

import compositeh5 as ch5
from compositeh5.butler import put_visit, register_dataset_type
from compositeh5.butler.converting import convert_dataset_type
from compositeh5.composite.session import current
from compositeh5.fits import convert_files

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from butler_support import RUN, create_repo
from support import exposure, simple_wcs, visit_info, write_visit
from test_butler_convert import new_repo

State = Mapping[str, object]
"""What is there, by name: the bytes of files, the digests of datasets."""

VISIT = {"instrument": "DemoCam", "visit": 903334}
SHAPE = (60, 70)


@dataclass
class Operation:
    """Something that writes into a folder.

    Attributes
    ----------
    prepare : callable
        Fills the folder with what is there before; and a folder beside it, ``Path(f"{folder}-in")``, which stays.
    run : callable
        Does it, as one of several processes; also when it was begun before.
    state : callable
        Returns what is there, and raises an exception if anything isn't whole.
    disagreements : callable
        Returns names of files that nobody knows of. After a kill there may be some until the next run.
    processes : int
        How many do it at once; the first of them is disturbed.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path, int], object]
    state: Callable[[Path], State] = field(default_factory=lambda: files)
    disagreements: Callable[[Path], list[str]] = lambda folder: []
    processes: int = 1


def composite(value: int, **more: Any) -> ch5.Composite:
    return ch5.Composite(None, image=np.full((90, 90), value, "f4"), data_id={"visit": 1}, **more)


def _large(folder: Path, process: int) -> None:
    """Replace a file by one of some MB, to which threads contribute, and which begins to reach the disk meanwhile."""
    pixels = np.random.default_rng(1).normal(0, 23, (1300, 1400)).astype("f4")
    large = ch5.Composite(None, packed=pixels, raw=pixels)
    large.write(folder / "old.h5", replace=True, recipes={"raw": "raw"})


def source(folder: Path) -> Path:
    return Path(f"{folder}-in")


def is_temporary(name: str) -> bool:
    return name.endswith(".tmp")


def files(folder: Path) -> State:
    """Return the files of a folder but temporary ones; composites among them can be read and have their digests."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_temporary(str(path)):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if is_temporary(path.name)]


def _one(folder: Path) -> None:
    composite(1).write(folder / "old.h5")


def _tree(folder: Path) -> None:
    write_visit(source(folder), ccds=2)
    with ch5.open(_ccd(folder)) as c:
        c.flatten(source(folder) / "flat.h5")
    _one(folder)


def _ccd(folder: Path) -> Path:
    return source(folder) / "calexp" / "calexp_903334_0.h5"


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
    data_id = {**VISIT, "detector": process}
    ccd = ch5.Composite(None, image=np.full((40, 40), process, "f4"), info=visit.link("visit_info"), data_id=data_id)
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
            raise OSError(_number(done.message), done.message)


def _number(message: str) -> int:
    """Return the errno of which a report tells the text."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EINTR)
    return next((number for number in numbers if os.strerror(number) in message), 0)


_butlers: dict[Path, Butler] = {}


def _butler(folder: Path) -> Butler:
    """Return the Butler of a repository, opened once, as that takes long."""
    if folder not in _butlers:
        _butlers[folder] = Butler.from_config(str(folder / "repo"), run=RUN)
    return _butlers[folder]


def disconnect() -> None:
    """Close connections to databases: they don't survive a fork, nor that the file is replaced."""
    for butler in _butlers.values():
        butler._registry._db._engine.dispose()


def _repo(folder: Path) -> None:
    create_repo(folder / "repo")
    butler = _butler(folder)
    for name, definition in (("calexp", "exposure"), ("visit_metadata", "visit")):
        register_dataset_type(butler, name, definition)
    first = _given(0)
    butler.put(first, "calexp", first.data_id)


def _given(detector: int) -> ch5.Composite:
    return exposure(SHAPE).replace(data_id={**VISIT, "detector": detector})


def _put(folder: Path, process: int) -> None:
    butler, given = _butler(folder), _given(1)
    if butler.find_dataset("calexp", given.data_id) is None:
        butler.put(given, "calexp", given.data_id)


def _put_visit(folder: Path, process: int) -> None:
    butler = _butler(folder)
    if butler.find_dataset("visit_metadata", VISIT) is None:
        put_visit(butler, ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT), map(_given, (1, 2)))


def _fits_repo(folder: Path) -> None:
    source(folder).mkdir()
    new_repo(folder / "repo", source(folder)).close()
    butler = _butler(folder)
    for name, definition in (("calexp", "exposure"), ("visit_metadata", "visit")):
        register_dataset_type(butler, name, definition)


def _convert_datasets(folder: Path, process: int) -> None:
    where = "instrument = 'DemoCam' AND detector < 2"
    done = convert_dataset_type(str(folder / "repo"), "calexp_fits", "calexp", run=RUN, collections="fits", where=where)
    if done.failures:
        raise OSError(_number(done.failures[0]), done.failures[0])


def _refs(folder: Path) -> list[DatasetRef]:
    butler = _butler(folder)
    names = ("calexp", "visit_metadata")
    return [ref for name in names for ref in butler.query_datasets(name, RUN, limit=None, explain=False)]


def datasets(folder: Path) -> State:
    """Return the digests of all datasets that the registry knows: each can be read, and all that it links to."""
    butler = _butler(folder)
    current().clear_cache()
    found: dict[str, object] = {}
    for ref in _refs(folder):
        data_id = {key: ref.dataId[key] for key in ("visit", "detector") if key in ref.dataId.dimensions}
        whole = butler.get(ref)
        digests = {name: ch5.Composite(None, value=whole[name]).component_digest("value") for name in whole}
        found[f"{ref.datasetType.name} {data_id}"] = digests
    return found


def strangers(folder: Path) -> list[str]:
    """Return the files that the registry doesn't know of."""
    root, butler = folder / "repo", _butler(folder)
    known = {Path(butler.getURI(ref).ospath) for ref in _refs(folder)}
    there = {path for path in root.rglob("*") if path.is_file() and path.suffix in (".h5", ".tmp")}
    return sorted(str(path.relative_to(root)) for path in there - known)


OPERATIONS: dict[str, Operation] = {
    "write": Operation(_one, lambda folder, process: composite(2).write(folder / "new" / "x.h5")),
    "replace": Operation(_one, lambda folder, process: composite(2).write(folder / "old.h5", replace=True)),
    "replace by a large one": Operation(_one, _large),
    "overlay": Operation(_tree, _overlay),
    "split": Operation(_tree, lambda folder, process: ch5.trees.split([source(folder) / "flat.h5"], folder / "split")),
    "flatten": Operation(_tree, _flatten),
    "subset": Operation(_tree, lambda folder, process: ch5.trees.subset(source(folder) / "calexp", folder / "subset")),
    "visit create-once": Operation(_one, _create_once, processes=3),
    "Butler: put": Operation(_repo, _put, datasets, strangers),
    "Butler: put_visit": Operation(_repo, _put_visit, datasets, strangers),
    "conversion of FITS files": Operation(_fits, _convert),
    "Butler: conversion": Operation(_fits_repo, _convert_datasets, datasets, strangers),
}


def clean(folder: Path) -> None:
    for each in (folder, source(folder)):
        shutil.rmtree(each, ignore_errors=True)
    folder.mkdir(parents=True)


def age(folder: Path) -> None:
    """Make what is left look as if its writers had died long ago."""
    for path in leftovers(folder):
        os.utime(path, (0, 0))
