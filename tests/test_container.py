"""The container: what is written is plain HDF5, deterministic, and read with care."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5g
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.storage import chunks
from compositeh5.storage.digests import digest
from compositeh5.storage.nodes import Array, ExternalLink, Group, GroupNode
from compositeh5.storage.reader import StoredFile
from compositeh5.storage.recipes import Recipe
from compositeh5.storage.writer import file_image


@pytest.fixture(autouse=True)
def _close_what_is_left_open() -> Iterator[None]:
    yield
    StoredFile.close_all()


def write(path: Path, root: Group) -> Path:
    path.write_bytes(file_image(root))
    return path


def stored(root: Group) -> StoredFile:
    return StoredFile(io.BytesIO(file_image(root)), "stream")


DTYPES = st.sampled_from(
    ["i1", "i2", "<i4", ">i4", "i8", "u1", ">u2", "u4", "u8", "f2", "<f4", ">f4", "f8", "c8", "c16", "?"]
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
)
TEXTS = hnp.arrays(
    "U5",
    hnp.array_shapes(min_dims=0, max_dims=2, max_side=4),
    elements=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(ARRAYS | TEXTS)
@settings(max_examples=60)
def test_arrays_come_back(values: np.ndarray) -> None:
    node = stored(Group({"x": Array(values)})).root.array("x")
    found = node.read()
    if values.dtype.kind == "U":
        assert found.shape == values.shape
        assert found.tolist() == values.tolist()
    else:
        assert same_bits(found, values)
    assert digest(node) == digest(Array(values))


@pytest.mark.parametrize("level", [1, 9])
def test_what_compresses_is_compressed_after_what_does_not(tmp_path: Path, level: int) -> None:
    """A chunk is like the one before it but where the image changes; each byte of a pixel by itself."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2**32, (1024, 1024), np.uint32)
    values[300:600] = 7
    values[600:800] &= 0xFF00FF00
    path = write(tmp_path / "x.h5", Group({"x": Array(values)}, recipes={"x": Recipe(gzip=level)}))
    assert same_bits(current().open(str(path)).root.array("x").read(), values)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][...], values)
        stored = {
            (y, x): file["x"].id.get_chunk_info_by_coord((y, x)).size
            for y in range(0, 1024, 256)
            for x in range(0, 1024, 256)
        }
    noise = 4 * 256 * 256
    assert all(stored[0, x] > noise for x in range(0, 1024, 256))
    assert all(stored[256, x] < 0.3 * noise for x in range(0, 1024, 256))
    assert all(stored[512, x] < 0.4 * noise for x in range(0, 1024, 256))


def test_what_is_left_of_a_closed_file_is_never_taken_for_another(tmp_path: Path) -> None:
    """The numbers by which HDF5 knows objects aren't given to new ones, also after many files."""
    path = write(tmp_path / "x.h5", Group({"g": Group({"x": Array(np.arange(9))})}))
    first = current().open(str(path))
    left = [first.root, first.root["g"], first.root.group("g").array("x")]
    first.close()
    for _ in range(60):
        with closing(current().open(str(path))) as file:
            assert file.root.group("g").array("x").read().sum() == 36
            for node in left:
                with pytest.raises(errors.ClosedError, match="the file is closed"):
                    node["x"] if isinstance(node, GroupNode) else node.read()
    ids = [value for node in left for value in vars(node).values() if isinstance(value, h5g.GroupID | h5d.DatasetID)]
    assert len(ids) == len(left)
    assert not any(each.valid for each in ids)


def test_large_arrays_of_every_sort_are_read_by_us_and_by_h5py(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values = {
        "image": rng.normal(size=(700, 900)).astype("<f4"),
        "big_endian": rng.normal(size=(300, 300)).astype(">f8"),
        "cube": rng.integers(0, 999, (9, 100, 120)),
        "thin": rng.normal(size=(50_000, 2)),
        "flags": rng.integers(0, 2, 70_000).astype(bool),
        "complex": rng.normal(size=9_000) + 1j,
        "names": np.array(["αβγ", "x" * 40, ""] * 5_000),
        "bytes": np.array([b"ab", b"", b"a\0b"] * 9_000),
    }
    path = write(tmp_path / "x.h5", Group({name: Array(value) for name, value in values.items()}))
    root = current().open(str(path)).root
    with h5py.File(path) as file:
        for name, value in values.items():
            assert same_bits(root.array(name).read(), value), name
            plain = np.char.decode(file[name][...], "utf-8") if value.dtype.kind == "U" else file[name][...]
            np.testing.assert_array_equal(plain, value)
            assert file[name].compression == "gzip"


def test_a_long_text_is_stored_and_comes_back(tmp_path: Path) -> None:
    text = np.array("line of text é\n" * 20_000)
    path = write(tmp_path / "x.h5", Group({"x": Array(text)}))
    node = current().open(str(path)).root.array("x")
    assert node.read() == text
    assert path.stat().st_size < len(str(text)) / 10
    assert digest(node) == digest(Array(text))


def test_incompressible_chunks_keep_their_checksum(tmp_path: Path) -> None:
    """HDF5's own pipeline would store such chunks bare, and nothing would notice a flipped bit."""
    noise = np.random.default_rng(1).integers(0, 256, 100_000).astype(np.uint8)
    path = write(tmp_path / "x.h5", Group({"x": Array(noise)}))
    with h5py.File(path) as file:
        info = file["x"].id.get_chunk_info(0)
        assert info.filter_mask == 0
        np.testing.assert_array_equal(file["x"][...], noise)
    raw = bytearray(path.read_bytes())
    raw[info.byte_offset + info.size // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(errors.CorruptFileError, match="/x: the chunk at"):
        current().open(str(path)).root.array("x").read()


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=4), st.sampled_from([1, 2, 4, 8, 16]))
@settings(max_examples=40)
def test_chunks_are_of_reasonable_size(shape: list[int], itemsize: int) -> None:
    chunk = chunks.chunk_shape(tuple(shape), itemsize)
    assert all(1 <= c <= n for c, n in zip(chunk, shape, strict=True))
    assert np.prod(chunk) * itemsize <= chunks.CHUNK_BYTES


def test_metadata_come_before_pixels(tmp_path: Path) -> None:
    """One block at the front of the file answers everything but the values of large arrays."""
    big = {f"image{i}": Array(np.random.default_rng(i).normal(size=(500, 500))) for i in range(2)}
    small = {f"s{i}": Array(np.arange(10.0), {"units": "m"}) for i in range(20)}
    image = file_image(Group({**big, **small}))
    with h5py.File(io.BytesIO(image)) as file:
        first = min(file[name].id.get_chunk_info(0).byte_offset for name in big)
    assert first < 60_000

    class Front(io.BytesIO):
        def readinto(self, buffer):
            assert self.tell() <= first + 65_536
            return super().readinto(buffer)

    root = StoredFile(Front(image), "stream").root
    for name in small:
        assert root.array(name).read()[3] == 3
        assert root[name].attrs == {"units": "m"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array("a\0b"), "U\\+0000"),
        (np.array("\ud800"), "UTF-8"),
        (np.array([object()]), "no portable HDF5 type"),
        (np.zeros(2, np.longdouble), "no portable HDF5 type"),
        (np.zeros(2, "i4,f4"), "no portable HDF5 type"),
        (np.array(["2020-01-01"], "M8[D]"), "no portable HDF5 type"),
    ],
)
def test_values_without_a_type_are_errors_that_name_them(value: np.ndarray, message: str) -> None:
    with pytest.raises(errors.EncodeError, match=f"here: .*{message}"):
        file_image(Group({"x": Array(value, where="here")}))


def test_too_large_an_attribute_is_an_error() -> None:
    with pytest.raises(errors.EncodeError, match="too large"):
        file_image(Group({}, {"x": "y" * 70_000}))


def test_what_a_reader_would_refuse_is_not_written() -> None:
    node = Group()
    for _ in range(33):
        node = Group({"x": node})
    with pytest.raises(errors.EncodeError, match="nested deeper than"):
        file_image(node)


def test_external_links_are_seen_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "b.h5", Group({"x": Array(np.arange(3))}))
    path = write(tmp_path / "a.h5", Group({"x": ExternalLink("b.h5", "/x")}))
    node = current().open(str(path)).root["x"]
    assert isinstance(node, ExternalLink)
    assert (node.file, node.target) == ("b.h5", "/x")
    with h5py.File(path) as file:
        assert file["x"][2] == 2


@pytest.mark.parametrize("name", ["../x", "a/x", "..", ".", "", "a\0"])
def test_names_are_never_taken_for_paths(name: str) -> None:
    root = stored(Group({"a": Group({"x": Array(np.arange(3))})})).root
    assert name not in root
    with pytest.raises(KeyError):
        root[name]


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.h5")
    with pytest.raises(errors.RefusedError, match="regular file"):
        current().open(str(tmp_path / "x.h5"))


def test_a_file_is_opened_once_and_closed_by_its_last_user(tmp_path: Path) -> None:
    path = str(write(tmp_path / "once.h5", Group({"x": Array(np.arange(3))})))

    def descriptors() -> int:
        return list(map(os.path.realpath, Path("/proc/self/fd").iterdir())).count(path)

    first, second = current().open(path), current().open(path)
    assert first is second
    assert descriptors() == 1
    first.close()
    assert second.root.array("x").read()[2] == 2
    second.close()
    assert descriptors() == 0
    with pytest.raises(errors.ClosedError):
        second.root.array("x")


def test_what_is_left_open_does_not_crash_the_end_of_the_process(tmp_path: Path) -> None:
    """Files from all sources, and an error of opening that is never freed."""
    path = write(tmp_path / "x.h5", Group({"x": Array(np.arange(9999.0))}))
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:-100])
    code = (
        "import ctypes, io, sys; from compositeh5.storage.reader import StoredFile\n"
        "from compositeh5.composite.session import current; path, cut = sys.argv[1:]\n"
        "class Stream(io.BytesIO):\n    def readinto(self, b): return super().readinto(b)\n"
        "sources = open(path, 'rb'), Stream(open(path, 'rb').read())\n"
        "files = [current().open(path), *(StoredFile(source, 'stream') for source in sources)]\n"
        "nodes = [file.root['x'] for file in files]\n"
        "try: current().open(cut)\n"
        "except OSError as error: ctypes.pythonapi.Py_IncRef(ctypes.py_object(error))\n"
        "else: sys.exit(1)"
    )
    args = [sys.executable, "-c", code, str(path), str(tmp_path / "cut.h5")]
    assert subprocess.run(args, check=False, timeout=60).returncode == 0


def test_cutouts_of_the_same_place_are_unpacked_once() -> None:
    """From the second one on: there may be only one."""
    values = np.arange(600 * 700, dtype="f4").reshape(600, 700)
    image = file_image(Group({"a": Array(values)}))

    class Counted(io.BytesIO):
        bytes_read = 0

        def readinto(self, buffer: memoryview) -> int:
            self.bytes_read += len(buffer)
            return super().readinto(buffer)

    source = Counted(image)
    file = StoredFile(source, "stream")
    array = file.root.array("a")
    first = array.read((slice(200, 300), slice(250, 260)))
    array.read((slice(200, 300), slice(255, 265)))
    before = source.bytes_read
    again = array.read((slice(210, 290), slice(240, 270)))
    assert source.bytes_read == before
    first[:], again[0, 0] = 0, -1
    np.testing.assert_array_equal(array.read((slice(200, 300), slice(250, 260))), values[200:300, 250:260])
    np.testing.assert_array_equal(array.read(), values)
    file.close()
