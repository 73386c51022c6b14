"""How much memory writing and reading take, measured in processes of their own."""

from __future__ import annotations

import errno
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

import compositeh5 as ch5
from compositeh5.composite.session import current

SIDE = 2400

EXPOSURE = f"""
import resource, sys
import numpy as np
import compositeh5 as ch5
from compositeh5.kinds import wcs  # noqa: F401

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def pixels():
    # Piece by piece, so that making them isn't the peak.
    values = np.empty(({SIDE}, {SIDE}), "f4")
    rng = np.random.default_rng(1)
    for row in values:
        row[:] = rng.normal(0, 23, row.size)
    return values

composite = ch5.Composite(
    "exposure",
    image=pixels(),
    mask=ch5.Mask(np.zeros(({SIDE}, {SIDE}), "i4") + np.int32(1), {{"BAD": 0}}),
    variance=pixels(),
)
"""


def run(code: str, *args: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("recipe", ["lossless", "raw", "quantized"])
def test_writing_an_exposure_takes_little_more_memory_than_it_has(tmp_path: Path, recipe: str) -> None:
    code = EXPOSURE + (
        "before = peak()\n"
        "composite.write(sys.argv[1], recipes={'image': sys.argv[2], 'variance': sys.argv[2]})\n"
        "print(peak() - before)"
    )
    (more,) = run(code, tmp_path / "c.h5", recipe)
    # The exposure has 69 MB, which any copy would exceed.
    assert more < 64 * 2**20
    assert (tmp_path / "c.h5").stat().st_size > 10e6


def test_putting_an_exposure_takes_little_more_memory_than_it_has(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    from butler_support import RUN, create_repo

    create_repo(tmp_path / "repo")
    code = EXPOSURE + (
        "from lsst.daf.butler import Butler\n"
        "from compositeh5.butler import register_dataset_type\n"
        f"butler = Butler.from_config(sys.argv[1], run={RUN!r})\n"
        "register_dataset_type(butler, 'calexp', 'exposure')\n"
        "small = ch5.Composite('exposure', image=np.ones((90, 90), 'f4'))\n"
        "butler.put(small, 'calexp', instrument='DemoCam', visit=903334, detector=1)\n"
        "before = peak()\n"
        "ref = butler.put(composite, 'calexp', instrument='DemoCam', visit=903334, detector=2)\n"
        "print(peak() - before, butler.getURI(ref).size())"
    )
    more, size = run(code, tmp_path / "repo")
    # A copy of the exposure, or of its file, would exceed this.
    assert size > 39e6
    assert more < 24 * 2**20


def test_an_image_larger_than_the_memory_is_written_and_read_in_pieces(tmp_path: Path) -> None:
    shape, path = (20_000, 2_000), tmp_path / "c.h5"
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", "f4", shape)[::1000] = 7
    image = np.load(tmp_path / "a.npy", mmap_mode="r")
    ch5.Composite(None, image=ch5.Image(np.zeros((300, 300), "f4"))).write(path)
    tracemalloc.start()
    try:
        for recipe in ("lossless", "raw"):
            ch5.Composite(None, image=ch5.Image(image)).write(path, replace=True, recipes={"image": recipe})
            with ch5.open(path) as opened:
                lazy = opened.lazy("image")
                assert sum(lazy[i : i + 1000].sum() for i in range(0, len(lazy), 1000)) == 7 * 2_000 * 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 160 MB, of which no copy was made.
    assert peak < 0.25 * image.nbytes


def test_a_file_written_to_the_disk_is_the_image_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    composite = ch5.Composite(
        None, image=ch5.Image(np.random.default_rng(1).normal(size=(700, 900))), text="x" * 100_000
    )
    image = composite.file_image(path)
    composite.write(path)
    assert path.read_bytes() == image


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, sys
import numpy as np
import compositeh5 as ch5
import signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
composite = ch5.Composite(None, image=ch5.Image(np.random.default_rng(1).normal(size=(700, 900))))
for limit in (0, 3, 5_000, 100_000, 4_000_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        composite.write(sys.argv[1])
    except ch5.errors.NoSpaceError as error:
        assert str(error).endswith("nothing was written"), error
        print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert not composite.location
composite.write(sys.argv[1])
"""
    assert run(code, tmp_path / "c.h5") == [errno.EFBIG] * 5
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["composite/image"].shape == (700, 900)


def test_what_is_kept_of_linked_components_is_bounded(tmp_path: Path) -> None:
    """In a process that reads the linked images of many visits, the memory for what it has read doesn't grow."""
    current().clear_cache()
    tracemalloc.start()
    try:
        for number in range(20):
            base = ch5.Composite(None, image=np.zeros((1024, 1024), "f4"), data_id={"visit": number})
            base.write(tmp_path / "base.h5", replace=True)
            ch5.Composite(None, image=base.link("image")).write(tmp_path / "overlay.h5", replace=True)
            with ch5.open(tmp_path / "overlay.h5") as composite:
                composite["image"]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        current().clear_cache()
    # Some are kept, but not all 80 MiB.
    assert 16 * 1024**2 <= held <= 72 * 1024**2
