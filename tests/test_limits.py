"""Limits of what a file may ask for, and digests of files that are known from elsewhere."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compositeh5 as ch5
from compositeh5.composite.session import current
from compositeh5.errors import ConfigurationError, DigestMismatchError, RefusedError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limits")
    visit = ch5.Composite("visit", visit_info={"visit": 7, "time": 30.0, "note": "clear"}, data_id={"visit": 7})
    visit.write(folder / "visit.h5")
    rng = np.random.default_rng(1)
    more = {}
    for number in range(3):
        other = ch5.Composite(None, values=np.arange(number + 4))
        other.write(folder / f"other_{number}.h5")
        more[f"values_{number}"] = other.link("values")
    ch5.Composite(
        None,
        image=ch5.Image(rng.normal(0, 23, (700, 600)).astype("f4"), (100, 200), "nJy"),
        mask=ch5.Mask(rng.integers(0, 4, (700, 600)).astype(np.int32), {"BAD": 0, "SAT": 1}),
        psf=ch5.Psf.constant(np.ones((5, 5)) / 25),
        record={"a": 1, "b": {"c": 2}},
        visit_info=visit.link("visit_info"),
        **more,
    ).write(folder / "calexp.h5")
    return folder


@pytest.fixture
def own(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree, tmp_path / "own"))


def test_a_digest_from_elsewhere_is_checked_before_hdf5_sees_the_file(tree: Path, tmp_path: Path) -> None:
    data = (tree / "calexp.h5").read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    printed = subprocess.run(["sha256sum", tree / "calexp.h5"], capture_output=True, text=True, check=True).stdout
    assert digest == f"sha256:{printed.split()[0]}"
    copy = tmp_path / "c.h5"
    copy.write_bytes(data)
    before = open_files(tmp_path), open_files(tree)
    with ch5.open(copy, digest=digest, location=tree / "calexp.h5") as composite:
        assert composite["image"].array.shape == (700, 600)
        assert composite["visit_info"]["visit"] == 7
    with ch5.open(copy):
        # Also while it is open without one, and HDF5 has seen it.
        os.truncate(copy, len(data) - 1)
        with pytest.raises(DigestMismatchError, match=rf"c\.h5: .* but {digest} was expected; HDF5 hasn't seen it"):
            ch5.open(copy, digest=digest)
    with ch5.open(io.BytesIO(data), digest=digest.upper().replace("SHA", "sha")) as composite:
        assert composite["psf"]
    for wrong in ("sha256:12", digest[7:], "md5:" + "0" * 32, 7):
        with pytest.raises(ConfigurationError, match="64 hexadecimal"):
            ch5.open(copy, digest=wrong)  # type: ignore[arg-type]
    assert (open_files(tmp_path), open_files(tree)) == before


def test_limits_are_those_that_were_passed(own: Path) -> None:
    def names(limits: ch5.Limits) -> set[str]:
        refused = set()
        with ch5.open(own / "calexp.h5", limits=limits) as composite:
            for name in composite:
                try:
                    composite[name]
                except RefusedError:
                    refused.add(name)
        return refused

    current().clear_cache()
    assert not names(ch5.Limits())
    assert names(ch5.Limits(read_bytes=200_000)) == {"image", "mask"}
    with pytest.raises(RefusedError, match="more than 3 attributes"):
        ch5.open(own / "calexp.h5", limits=ch5.Limits(attributes=3))
    with (
        pytest.raises(RefusedError, match=r"more than 4 links"),
        ch5.open(own / "calexp.h5", limits=ch5.Limits(children=4)) as composite,
    ):
        list(composite)
    assert "record" in names(ch5.Limits(depth=2))


def test_limits_hold_for_what_is_linked(own: Path) -> None:
    current().clear_cache()
    with ch5.open(own / "calexp.h5", limits=ch5.Limits(children=20)) as c:
        assert c["visit_info"]["visit"] == 7
    current().clear_cache()
    with ch5.open(own / "visit.h5") as whole:
        assert len(whole["visit_info"]) == 3


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"ratio": -1}, {"children": 1.5}, {"open_files": None}, {"depth": True}]
)
def test_limits_are_positive_integers(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ch5.Limits(**wrong)


def open_files(folder: Path) -> int:
    """How many files of a folder this process has open."""
    links = (Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link).startswith(str(folder.resolve())) for link in links)


def test_files_of_links_that_are_kept_open_are_limited(tree: Path) -> None:
    current().clear_cache()
    before = open_files(tree)
    with ch5.open(tree / "calexp.h5", limits=ch5.Limits(open_files=2)) as composite:
        first, second = composite.lazy("values_0"), composite.lazy("values_1")
        with pytest.raises(RefusedError, match=r"calexp\.h5: would keep more than 2 files"):
            composite.lazy("values_2")
        assert (first[3], second[4]) == (3, 4)
        # One after the other, they are read all the same.
        assert composite.load()["values_2"].tolist() == [0, 1, 2, 3, 4, 5]
    assert open_files(tree) == before
