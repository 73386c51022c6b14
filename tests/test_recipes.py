"""Recipes: how components are compressed and cut into chunks."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from support import exposure, pixels, tool

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.container.nodes import Array, Group
from compositeh5.container.writer import file_image
from compositeh5.operations.verify import verify
from compositeh5.recipes import read_recipes


def stored(path: Path, name: str) -> dict[str, Any]:
    """Return how a dataset is stored, as h5py sees it."""
    with h5py.File(path) as file:
        dataset = file[f"composite/{name}"]
        size = dataset.id.get_storage_size()
        return {
            "gzip": dataset.compression_opts,
            "shuffle": dataset.shuffle,
            "chunks": dataset.chunks,
            "compressed": size < dataset.nbytes,
        }


def test_each_component_is_written_by_its_own_recipe(tmp_path: Path) -> None:
    composite = exposure((600, 700))
    path = tmp_path / "c.h5"
    recipes = {
        "image": ch5.Recipe(gzip=0),
        "mask": ch5.Recipe(gzip=9, shuffle=False, chunks=(100, 50)),
        "default": ch5.Recipe(gzip=4),
    }
    composite.write(path, recipes=recipes)
    assert stored(path, "image") == {"gzip": 0, "shuffle": False, "chunks": (256, 256), "compressed": False}
    assert stored(path, "mask") == {"gzip": 9, "shuffle": False, "chunks": (100, 50), "compressed": True}
    assert stored(path, "variance") == {"gzip": 4, "shuffle": True, "chunks": (256, 256), "compressed": True}
    with ch5.open(path) as opened:
        verify(opened)
        assert {n: opened.component_digest(n) for n in opened} == {n: composite.component_digest(n) for n in composite}
        assert opened.lazy("mask")[95:105, 45:55].tolist() == composite["mask"].array[95:105, 45:55].tolist()
    # By the library's own filters as well.
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["composite/image"][...], composite["image"].array)


def test_a_recipe_makes_no_other_composite(tmp_path: Path) -> None:
    composite = exposure()
    composite.write(tmp_path / "c.h5")
    first = (tmp_path / "c.h5").read_bytes()
    exposure().write(tmp_path / "c.h5", recipes={"default": ch5.Recipe(gzip=9)})
    assert (tmp_path / "c.h5").read_bytes() == first, "an equal composite is there already"
    with ch5.open(tmp_path / "c.h5") as opened:
        opened.replace().write(tmp_path / "copy.h5", recipes={"default": ch5.Recipe(gzip=0)})
    assert (tmp_path / "copy.h5").stat().st_size > len(first)
    with ch5.open(tmp_path / "copy.h5") as copy:
        assert copy.digest == composite.digest


def test_what_is_not_compressed_has_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    exposure().write(path, recipes={"default": ch5.Recipe(gzip=0)})
    image = bytearray(path.read_bytes())
    first_pixels = pixels((300, 400))[0, :100].tobytes()
    image[image.index(first_pixels) + 17] ^= 4
    path.write_bytes(image)
    with ch5.open(path) as opened, pytest.raises(errors.CorruptFileError, match="composite/image"):
        opened["image"]
    done = tool("h5dump", "-d", "/composite/image", path)
    assert done.returncode != 0, "HDF5 itself sees it too"


def test_chunks_of_a_table_follow_the_rows(tmp_path: Path) -> None:
    table = Table({"id": np.arange(50_000), "spectrum": pixels((50_000, 7))})
    path = tmp_path / "c.h5"
    ch5.Composite(None, {"table": table}).write(path, recipes={"table": ch5.Recipe(chunks=(1000,))})
    shapes: dict[str, Any] = {}
    with h5py.File(path) as file:
        file["composite/table"].visititems(
            lambda name, node: shapes.update({name: node.chunks}) if isinstance(node, h5py.Dataset) else None
        )
    assert (1000,) in shapes.values()
    assert (256 * 1024 // 4 // 7, 7) in shapes.values()
    with ch5.open(path) as opened:
        np.testing.assert_array_equal(opened.read("table", rows=slice(999, 1002))["id"], [999, 1000, 1001])


def test_a_recipe_reaches_nested_components(tmp_path: Path) -> None:
    inner = exposure((200, 200))
    path = tmp_path / "c.h5"
    composite = ch5.Composite(None, {"items": [inner], "image": inner["image"]})
    composite.write(path, recipes={"items": ch5.Recipe(gzip=7)})
    levels = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: levels.update({name: node.compression_opts}) if hasattr(node, "chunks") else None
        )
    nested = {level for name, level in levels.items() if name.startswith("composite/items") and level is not None}
    assert nested == {7}
    assert levels["composite/image"] == 1
    with ch5.open(path) as opened:
        verify(opened)


@given(
    st.integers(0, 9),
    st.booleans(),
    st.lists(st.integers(9, 200), max_size=3).map(tuple),
    st.sampled_from(["f8", "i2"]),
)
@settings(max_examples=25, deadline=None)
def test_all_recipes_keep_all_values(gzip: int, shuffle: bool, chunks: tuple[int, ...], dtype: str) -> None:
    values = (pixels((75, 97)) * 100).astype(dtype)
    text = np.array([f"näme {i % 31}" for i in range(3000)])
    composite = ch5.Composite(None, {"values": values, "table": Table({"text": text, "n": np.arange(3000)})})
    image = composite.file_image("/tmp/c.h5", recipes={"default": ch5.Recipe(gzip, shuffle, chunks)})
    with ch5.open(io.BytesIO(image), location="/tmp/c.h5") as opened:
        assert opened["values"].tobytes() == values.tobytes()
        assert opened["table"]["text"].tolist() == text.tolist()
        assert opened.digest == composite.digest


def test_a_chunk_that_hdf5_cannot_have_is_an_error() -> None:
    wide = np.broadcast_to(np.array(b"x" * 300), (1000, 20_000))
    root = Group({"a": Array(wide)}, recipes={"a": ch5.Recipe(chunks=(800, 20_000))})
    with pytest.raises(errors.EncodeError, match=r"chunks of shape \(800, 20000\)"):
        file_image(root)


def test_a_recipe_for_no_component_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.NoSuchComponentError, match="recipe for 'imgae'.*did you mean 'image'"):
        exposure().write(tmp_path / "c.h5", recipes={"imgae": ch5.Recipe()})
    assert not list(tmp_path.iterdir())
    # The definition has it, though this composite doesn't.
    exposure().write(tmp_path / "c.h5", recipes={"transmission_curve": ch5.Recipe()})


def test_recipes_are_read_from_settings() -> None:
    recipes = read_recipes("small", {"default": {"gzip": 6}, "image": {"chunks": [64, 64], "shuffle": False}})
    assert recipes == {"default": ch5.Recipe(gzip=6), "image": ch5.Recipe(chunks=(64, 64), shuffle=False)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes["image"].gzip = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": {"gzpi": 3}}, r"recipe 'small': component 'image': there is no setting 'gzpi'; did you mean 'gzip'"),
        ({"image": {"quantize": 16}}, r"'quantize'; there are: chunks, gzip, shuffle"),
        ({"image": {"gzip": 10}}, r"component 'image': gzip should be a level from 0 .* not 10"),
        ({"image": {"gzip": True}}, r"gzip should be .* not True"),
        ({"image": {"shuffle": 1}}, r"shuffle should be true or false, not 1"),
        ({"image": {"chunks": 64}}, r"chunks should be a list .* not 64"),
        ({"image": {"chunks": [64, 0]}}, r"chunks should be a list .* not \(64, 0\)"),
        ({"image": {"chunks": [64, "64"]}}, r"chunks should be a list"),
        ({"image": {"chunks": [2**13, 2**13]}}, r"67108864 elements each; the limit is 16777216"),
        ({"image": 6}, r"component 'image': should be settings by name, such as gzip: 6, not 6"),
        ({"my image": {}}, r"component 'my image': isn't a name"),
        ({3: {}}, r"component 3: isn't a name"),
        ([], r"recipe 'small': should have settings by component, not \[\]"),
    ],
)
def test_a_wrong_setting_names_recipe_component_and_key(settings: Any, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        read_recipes("small", settings)
