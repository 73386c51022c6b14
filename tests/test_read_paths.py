"""An array is the same however it is read: past HDF5, by HDF5, in blocks of a remote file, by h5py."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from compositeh5.composite.session import current
from compositeh5.errors import CorruptFileError
from compositeh5.storage import chunks, source
from compositeh5.storage.nodes import Array, Group
from compositeh5.storage.reader import StoredFile
from compositeh5.storage.recipes import Recipe
from compositeh5.storage.source import BlockSource
from compositeh5.storage.writer import file_image

DTYPES = st.sampled_from(["u1", "<i2", ">i4", "<i8", ">u8", "<f2", "<f4", ">f4", "<f8", ">c8", "c16", "?"])
LAYOUTS = st.sampled_from(["packed", "packed without shuffle", "kept as it is", "fletcher32", "contiguous", "compact"])


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[np.generic]:
    """Draw arrays of which some compress, some don't, and some do in a part of their bytes."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=12))
    dtype, rng = np.dtype(draw(DTYPES)), np.random.default_rng(draw(st.integers(0, 9)))
    match draw(st.sampled_from(["bytes", "noise", "steps"])):
        case "bytes" if dtype.kind not in "bfc":
            return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
        case "noise" if dtype.kind != "b":
            return rng.integers(0, 100, shape).astype(dtype)
    return (np.arange(np.prod(shape)).reshape(shape) // 50 % 2).astype(dtype)


def write(values: NDArray[np.generic], chunk: tuple[int, ...], layout: str) -> bytes:
    """Return a file as some writer may make it: with `chunks.Packer`, or by HDF5 itself."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        match layout:
            case "fletcher32":
                file.create_dataset("x", data=values, chunks=chunk, shuffle=True, fletcher32=True)
            case "contiguous":
                file.create_dataset("x", data=values)
            case "compact" if values.nbytes < 60_000:
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.COMPACT)
                tid = h5py.h5t.py_create(values.dtype, logical=True)
                h5py.h5d.create(file.id, b"x", tid, h5py.h5s.create_simple(values.shape), plist)
                file["x"][...] = values
            case _:
                shuffle, level = layout != "packed without shuffle", 0 if layout == "kept as it is" else 1
                options = {"chunks": chunk, "compression": 1, "shuffle": shuffle}
                dataset = file.create_dataset("x", values.shape, values.dtype, **options)
                for index in chunks.chunks_of(values.shape, chunk):
                    packed = chunks.Packer(chunk, shuffle, level).pack(values[index])
                    dataset.id.write_direct_chunk(tuple(s.start for s in index), packed)
    return buffer.getvalue()


@given(st.data(), arrays(), LAYOUTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_ways_to_read_give_the_same(
    tmp_path: Path, data: st.DataObject, values: NDArray[np.generic], layout: str
) -> None:
    chunk = tuple(data.draw(st.integers(1, n), label="chunk") for n in values.shape)
    limits = st.one_of(st.none(), st.integers(-13, 13))
    axes = data.draw(st.integers(0, values.ndim), label="axes")
    selection = tuple(
        data.draw(st.builds(slice, limits, limits, st.one_of(st.none(), st.integers(1, 4))), label="selection")
        for _ in range(axes)
    )
    content = write(values, chunk, layout)
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    expected = np.ascontiguousarray(values[selection])
    with pytest.MonkeyPatch.context() as patch:
        # Such that a file of a few kB has many blocks.
        patch.setattr(source, "BLOCK", 512)
        patch.setattr(source, "GAP", 1024)
        files = {
            "past HDF5": current().open(str(path)),
            "by HDF5": StoredFile(io.BytesIO(content), "stream"),
            "remote": StoredFile(BlockSource(lambda at, size: content[at : at + size], "remote"), "remote"),
        }
        for name, file in files.items():
            found = file.root.array("x").read(selection)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
            assert found.tobytes() == expected.tobytes(), name
            file.close()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][...], values)
    path.unlink()


def test_pixels_keep_what_does_not_compress() -> None:
    """Their low bytes are noise: to deflate them gains nothing, to inflate them takes most of the time of a read."""
    noise = np.random.default_rng(1).normal(529, 23, (256, 256)).astype("<f4")
    packed = chunks.Packer(noise.shape, shuffle=True, level=1).pack(noise)
    low_bytes = noise.view("u1").reshape(-1, 4)[:, 0].tobytes()
    assert low_bytes[: 2**15] in packed
    assert len(packed) < 0.9 * noise.nbytes
    flat = np.zeros((256, 256), "<i4")
    assert len(chunks.Packer(flat.shape, shuffle=True, level=1).pack(flat)) < 0.005 * flat.nbytes
    # The last chunks of an image have a part of noise, and are filled up.
    assert len(chunks.Packer(noise.shape, shuffle=True, level=1).pack(noise[:64])) < 0.9 * noise[:64].nbytes
    ramp = np.arange(65536, dtype="<i4")
    assert len(chunks.Packer(ramp.shape, shuffle=True, level=1).pack(ramp)) < 0.05 * ramp.nbytes


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_large_arrays_are_the_same_by_one_thread_and_by_two(
    threads: str, contiguous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    values = np.random.default_rng(2).normal(0, 9, (1500, 1700)).astype("<f4")
    root = Group({"x": Array(values)})
    root.recipes = {"x": Recipe(contiguous=contiguous)}
    image = file_image(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert image == file_image(root)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    (tmp_path / "x.h5").write_bytes(image)
    file = current().open(str(tmp_path / "x.h5"))
    array = file.root.array("x")
    np.testing.assert_array_equal(array.read(), values)
    np.testing.assert_array_equal(array.read((slice(3, 1400, 2), slice(11, 1699))), values[3:1400:2, 11:1699])
    file.close()


def test_the_same_bytes_are_packed_the_same_by_each_process() -> None:
    """ISA-L alone gives streams that depend on the address of its compressor."""
    pytest.importorskip("isal", reason="needs isal (the extra `fast`)")
    code = """
import hashlib, random
import numpy as np
from compositeh5.storage.chunks import Packer
rng, found = random.Random(5), hashlib.md5()
for _ in range(5_000):
    start = rng.randbytes(10)
    again = start[1:9] + rng.randbytes(60) + start[2:8]
    data = np.frombuffer(start + rng.randbytes(400) + again + bytes(33_000), np.uint8)
    found.update(Packer(data.shape, False, 1).pack(data))
print(found.hexdigest())
"""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(subprocess.check_output, [sys.executable, "-c", code]) for _ in range(2)]
        assert len({run.result() for run in runs}) == 1


def test_damage_that_a_thread_finds_is_an_error_of_the_read(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(0, 9, (1500, 1700)).astype("<f4")
    content = bytearray(file_image(Group({"x": Array(values)})))
    content[len(content) // 2] ^= 4
    (tmp_path / "x.h5").write_bytes(content)
    file = current().open(str(tmp_path / "x.h5"))
    with pytest.raises(CorruptFileError, match="/x: the chunk at .* is damaged"):
        file.root.array("x").read()
    file.close()


def test_rows_of_a_contiguous_array_are_read_alone() -> None:
    values = np.arange(600_000, dtype="<i4").reshape(600, 1000)
    content, asked = write(values, (), "contiguous"), list[int]()

    def read_at(offset: int, size: int) -> bytes:
        asked.append(size)
        return content[offset : offset + size]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BLOCK", 4096)
        patch.setattr(source, "GAP", 4096)
        file = StoredFile(BlockSource(read_at, "remote"), "remote")
        node, opened = file.root.array("x"), len(asked)
        np.testing.assert_array_equal(node.read((slice(300, 310), slice(5, 9))), values[300:310, 5:9])
        assert len(asked) == opened + 1
        assert asked[-1] <= 12 * 4096
        file.close()
