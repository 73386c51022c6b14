"""Recipes: how components are compressed and cut into chunks."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from support import exposure, pixels, tool, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.storage.nodes import Array, Group
from compositeh5.storage.recipes import read_recipes
from compositeh5.storage.writer import file_image
from compositeh5.trees.verify import verify


def layouts(path: Path) -> dict[str, tuple[object, ...]]:
    """Return how datasets are stored, as h5py sees them: the level of gzip, shuffle, and the shape of chunks."""
    found = {}

    def look(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node.compression_opts, node.shuffle, node.chunks

    with h5py.File(path) as file:
        file["composite"].visititems(look)
    return found


def test_each_component_is_written_by_its_own_recipe(tmp_path: Path) -> None:
    composite = exposure((600, 700))
    path = tmp_path / "c.h5"
    recipes = {
        "image": ch5.Recipe(gzip=0),
        "mask": ch5.Recipe(gzip=9, shuffle=False, chunks=(100, 50)),
        "default": ch5.Recipe(gzip=4),
    }
    composite.write(path, recipes=recipes)
    found = layouts(path)
    assert found["image"] == (0, False, (256, 256))
    assert found["mask"] == (9, False, (100, 50))
    assert found["variance"] == (4, True, (256, 256))
    with ch5.open(path) as opened:
        verify(opened)
        assert {n: opened.component_digest(n) for n in opened} == {n: composite.component_digest(n) for n in composite}
        assert opened.lazy("mask")[95:105, 45:55].tolist() == composite["mask"].array[95:105, 45:55].tolist()
    # By the library's own filters as well.
    with h5py.File(path) as file:
        sizes = {
            name: file["composite"][name].id.get_storage_size() / (600 * 700 * 4) for name in found if name in composite
        }
        np.testing.assert_array_equal(file["composite/image"][...], composite["image"].array)
    assert sizes["image"] >= 1 > sizes["mask"] + sizes["variance"]


def test_a_recipe_makes_no_other_composite(tmp_path: Path) -> None:
    composite = exposure()
    composite.write(tmp_path / "c.h5")
    first = (tmp_path / "c.h5").read_bytes()
    exposure().write(tmp_path / "c.h5", recipes={"default": ch5.Recipe(gzip=9)})
    assert (tmp_path / "c.h5").read_bytes() == first, "an equal composite is there already"
    for recipe in (ch5.Recipe(gzip=0), "archive"):
        with ch5.open(tmp_path / "c.h5") as opened:
            opened.replace().write(tmp_path / "copy.h5", recipes={"default": recipe})
        assert ((tmp_path / "copy.h5").stat().st_size > len(first)) == (recipe != "archive")
        with ch5.open(tmp_path / "copy.h5") as copy:
            assert copy.digest == composite.digest
            verify(copy)
        (tmp_path / "copy.h5").unlink()


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
    assert {chunks for _, _, chunks in layouts(path).values()} >= {(1000,), (256 * 1024 // 4 // 7, 7)}
    with ch5.open(path) as opened:
        np.testing.assert_array_equal(opened.read("table", rows=slice(999, 1002))["id"], [999, 1000, 1001])


def test_a_recipe_reaches_nested_components(tmp_path: Path) -> None:
    inner = exposure((200, 200))
    path = tmp_path / "c.h5"
    composite = ch5.Composite(None, {"items": [inner], "image": inner["image"]})
    composite.write(path, recipes={"items": ch5.Recipe(gzip=7)})
    levels = {name: level for name, (level, _, chunks) in layouts(path).items() if chunks}
    assert levels.pop("image") == 1
    assert set(levels.values()) == {7}
    with ch5.open(path) as opened:
        verify(opened)


SHAPES = st.lists(st.integers(0, 90), min_size=1, max_size=3).map(tuple) | st.just((75, 97))
RECIPES = st.builds(
    ch5.Recipe,
    gzip=st.integers(0, 9),
    shuffle=st.booleans(),
    chunks=st.lists(st.integers(9, 200), max_size=3).map(tuple),
    contiguous=st.booleans(),
)


@given(SHAPES, st.sampled_from(["<f4", ">f8", "i2", "?", "c8", "u1"]), RECIPES, st.data())
@settings(max_examples=50)
def test_all_recipes_keep_all_values(
    shape: tuple[int, ...], dtype: str, recipe: ch5.Recipe, data: st.DataObject
) -> None:
    values = np.random.default_rng(1).normal(0, 50, shape).astype(dtype)
    text = np.array([f"näme {i % 31}" for i in range(3000)])
    composite = ch5.Composite(None, {"values": values, "table": Table({"text": text, "n": np.arange(3000)})})
    image = composite.file_image("/tmp/c.h5", recipes={"default": recipe})
    starts = [data.draw(st.integers(0, n)) for n in shape]
    index = tuple(
        slice(start, data.draw(st.integers(start, n)), data.draw(st.integers(1, 3)))
        for start, n in zip(starts, shape, strict=True)
    )
    with ch5.open(io.BytesIO(image)) as opened:
        assert opened["values"].dtype == values.dtype
        assert opened["values"].tobytes() == values.tobytes()
        assert opened.lazy("values")[index].tobytes() == values[index].tobytes()
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
    assert read_recipes("named", {"image": "archive"}) == {"image": ch5.Recipe(gzip=9)}
    recipes = read_recipes("small", {"default": {"gzip": 6}, "image": {"chunks": [64, 64], "shuffle": False}})
    assert recipes == {"default": ch5.Recipe(gzip=6), "image": ch5.Recipe(chunks=(64, 64), shuffle=False)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipes["image"].gzip = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": {"gzpi": 3}}, r"recipe 'small': component 'image': there is no setting 'gzpi'; did you mean 'gzip'"),
        ({"image": {"level": 16}}, r"'level'; there are: chunks, contiguous, gzip, quantize, shuffle"),
        ({"image": {"quantize": 16}}, r"quantize should be a part of the noise, from 0 to 1, not 16"),
        ({"image": {"contiguous": 1}}, r"contiguous should be true or false, not 1"),
        ({"image": "row"}, r"component 'image': there is no recipe 'row'; did you mean 'raw'"),
        ({"image": {"gzip": 10}}, r"component 'image': gzip should be a level from 0 .* not 10"),
        ({"image": {"gzip": True}}, r"gzip should be .* not True"),
        ({"image": {"shuffle": 1}}, r"shuffle should be true or false, not 1"),
        ({"image": {"chunks": 64}}, r"chunks should be a list .* not 64"),
        ({"image": {"chunks": [64, 0]}}, r"chunks should be a list .* not \(64, 0\)"),
        ({"image": {"chunks": [64, "64"]}}, r"chunks should be a list"),
        ({"image": {"chunks": [2**13, 2**13]}}, r"67108864 elements each; the limit is 16777216"),
        (
            {"image": 6},
            r"component 'image': should be the name of a recipe, or settings by name, such as gzip: 6, not 6",
        ),
        ({"my image": {}}, r"component 'my image': isn't a name"),
        ({3: {}}, r"component 3: isn't a name"),
        ([], r"recipe 'small': should have settings by component, not \[\]"),
    ],
)
def test_a_wrong_setting_names_recipe_component_and_key(settings: Any, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        read_recipes("small", settings)


# Raw: numbers in one piece


def test_raw_pixels_are_mapped_without_a_copy(tmp_path: Path) -> None:
    composite, path = exposure((600, 700)), tmp_path / "c.h5"
    composite.write(path, recipes={"image": "raw"})
    with ch5.open(path) as opened:
        mapped = opened.memmap("image")
        verify(opened)
        with pytest.raises(TypeError, match="recipe 'raw'"):
            opened.memmap("mask")
        with ch5.open(io.BytesIO(path.read_bytes())) as stream, pytest.raises(TypeError, match="can be mapped"):
            stream.memmap("image")
        with pytest.raises(TypeError, match="'wcs' of kind 'wcs': it isn't"):
            composite.memmap("wcs")
        assert opened.component_digest("image") == composite.component_digest("image")
    np.testing.assert_array_equal(mapped, composite["image"].array)
    assert mapped.flags.aligned
    assert not mapped.flags.owndata
    assert not mapped.flags.writeable
    # By the library, by its tools, and by nothing but the place that it tells.
    with h5py.File(path) as file:
        dataset = file["composite/image"]
        assert (dataset.chunks, dataset.compression) == (None, None)
        np.testing.assert_array_equal(dataset[...], mapped)
        plain = np.memmap(path, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)
    np.testing.assert_array_equal(plain, mapped)
    assert tool("h5dump", "-d", "/composite/image", "-y", path).returncode == 0


def test_raw_pixels_of_another_file_are_mapped(tmp_path: Path) -> None:
    base = exposure((200, 100))
    base.write(tmp_path / "base.h5", recipes={"default": "raw"})
    base.overlay(stage="again").write(tmp_path / "over.h5")
    with ch5.open(tmp_path / "over.h5") as opened:
        mapped = opened.memmap("image")
    np.testing.assert_array_equal(mapped, base["image"].array)


def test_damage_to_raw_pixels_is_noticed_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    ch5.Composite(None, image=ch5.Image(pixels((3000, 200)))).write(path, recipes={"default": "raw"})
    with h5py.File(path) as file:
        place = file["composite/image"].id.get_offset() + 200 * 4 * 2900 + 17
    image = bytearray(path.read_bytes())
    image[place] ^= 1
    path.write_bytes(image)
    with ch5.open(path) as opened:
        assert opened.lazy("image")[:100].shape == (100, 200), "another block"
        for use in (lambda: opened["image"], lambda: opened.lazy("image")[2901, 3]):
            with pytest.raises(errors.CorruptFileError, match=r"composite/image: rows \d+ to 3000 are damaged"):
                use()
        os.truncate(path, path.stat().st_size - 5000)
        with pytest.raises(errors.CorruptFileError, match="ends before"):
            opened["image"]


def test_raw_pixels_that_are_copied_get_checksums_of_their_own(tmp_path: Path) -> None:
    composite = exposure((600, 700))
    composite.write(tmp_path / "raw.h5", recipes={"default": "raw"})
    with ch5.open(tmp_path / "raw.h5") as opened:
        opened.replace(stage="x").write(tmp_path / "plain.h5", recipes={"default": "lossless"})
        opened.write(tmp_path / "raw2.h5", recipes={"image": "raw"})
    with h5py.File(tmp_path / "plain.h5") as file:
        assert "block_crc32" not in file["composite/image"].attrs
    for name in ("plain.h5", "raw2.h5"):
        with ch5.open(tmp_path / name) as opened:
            verify(opened)
            assert opened.component_digest("image") == composite.component_digest("image")


@pytest.mark.parametrize("value", [np.zeros(3, "u4"), np.float64(1), np.zeros((1, 1), "u4"), "x"])
def test_wrong_checksums_are_a_format_error(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "c.h5"
    exposure((300, 200)).write(path, recipes={"default": "raw"})
    with h5py.File(path, "r+") as file:
        del file["composite/image"].attrs["block_crc32"]
        file["composite/image"].attrs["block_crc32"] = np.bytes_(value) if isinstance(value, str) else value
    with ch5.open(path) as opened, pytest.raises(errors.FormatError, match="block_crc32"):
        opened["image"]


# Quantized: rounded


def sky(shape: tuple[int, ...], sigma: float, dtype: str = "f4") -> np.ndarray:
    y, x = np.indices(shape[-2:])
    return (np.random.default_rng(2).normal(0, sigma, shape) + 3 * sigma * (x + y) / 100).astype(dtype)


def test_quantized_images_are_rounded_and_say_so(tmp_path: Path) -> None:
    path, original = tmp_path / "c.h5", sky((500, 600), 23)
    original[3, 5:8] = np.nan, np.inf, -np.inf
    composite = ch5.Composite(
        None, image=ch5.Image(original.copy(), origin=(5, 7), unit="nJy"), counts=ch5.Image(np.arange(12).reshape(3, 4))
    )
    composite.write(path, recipes={"default": "quantized"})
    with h5py.File(path) as file:
        node = file["composite/image"]
        step, fraction = node.attrs["quantized_step"], node.attrs["quantized_fraction"]
        pixels = node[...]
        shown = pixels[np.isfinite(pixels)]
        assert node.attrs["IMAGE_MINMAXRANGE"].tolist() == [shown.min(), shown.max()]
        assert "quantized_step" not in file["composite/counts"].attrs
    assert fraction == 1 / 16
    # The noise is known (23), and powers of two are at most a factor of two apart.
    assert step == 1.0
    finite = np.isfinite(original)
    assert np.abs(pixels[finite] - original[finite]).max() <= step / 2
    assert (pixels[finite] % step == 0).all()
    np.testing.assert_array_equal(pixels[~finite].view("u4"), original[~finite].view("u4"))
    with ch5.open(path) as opened:
        verify(opened)
        assert (opened["image"].origin, opened["image"].unit) == ((5, 7), "nJy")
        # What is in memory is from now on what is in the file.
        np.testing.assert_array_equal(composite["image"].array, opened["image"].array)
        assert composite.digest == opened.digest == opened.recorded_digest
        assert composite.id == opened.id
        assert composite.link("image").digest == opened.component_digest("image")
    lossless = ch5.Composite(None, image=ch5.Image(original)).file_image(path)
    assert path.stat().st_size < 0.5 * len(lossless)


def test_a_quantized_copy_has_an_id_of_its_own(tmp_path: Path) -> None:
    composite = exposure((300, 200))
    composite.write(tmp_path / "c.h5")
    with ch5.open(tmp_path / "c.h5") as opened:
        id_ = opened.id
        opened.write(tmp_path / "q.h5", recipes={"image": "quantized"})
        with ch5.open(tmp_path / "q.h5") as copy:
            assert copy.id == opened.id != id_
            assert copy.component_digest("variance") == composite.component_digest("variance")
            verify(copy)
            # Once more it changes nothing.
            copy.replace().write(tmp_path / "twice.h5", recipes={"image": "quantized"})
    with ch5.open(tmp_path / "twice.h5") as twice, ch5.open(tmp_path / "q.h5") as once:
        assert twice.component_digest("image") == once.component_digest("image")
    # An id that was given for what is yet to be written stays.
    given = exposure((300, 200)).replace(id=id_)
    given.write(tmp_path / "given.h5", recipes={"image": "quantized"})
    assert given.id == id_


@pytest.mark.parametrize("name", ["mask", "wcs"])
def test_what_can_not_be_quantized_is_an_error_where_it_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.EncodeError, match=f"'{name}' of kind .* can't be quantized"):
        exposure().write(tmp_path / "c.h5", recipes={name: "quantized"})
    assert not list(tmp_path.iterdir())


def test_images_without_noise_stay_as_they_are() -> None:
    values = np.full((100, 100), 1 / 3, "f4")
    composite = ch5.Composite(None, image=ch5.Image(values))
    image = composite.file_image("/tmp/c.h5", recipes={"image": "quantized"})
    with ch5.open(io.BytesIO(image)) as opened:
        np.testing.assert_array_equal(opened["image"].array, values)


@given(
    st.sampled_from(["f2", "<f4", ">f4", ">f8"]),
    st.floats(-40, 40),
    st.floats(1e-3, 1),
    st.lists(st.floats(width=16), max_size=30),
    st.integers(5, 60),
)
@settings(max_examples=40)
def test_the_error_is_bounded(dtype: str, exponent: float, fraction: float, odd: list[float], width: int) -> None:
    sigma = min(2.0**exponent, 1e4 if dtype == "f2" else np.inf)
    original = np.random.default_rng(width).normal(0, sigma, (150, width)).astype(dtype)
    original.flat[: len(odd)] = odd
    composite = ch5.Composite(None, image=ch5.Image(original))
    image = composite.file_image("/tmp/c.h5", recipes={"image": ch5.Recipe(quantize=fraction)})
    with h5py.File(io.BytesIO(image)) as file:
        step = float(file["composite/image"].attrs["quantized_step"])
        stored = file["composite/image"][...]
    assert stored.dtype == original.dtype
    finite = np.isfinite(original)
    error = np.abs(stored[finite].astype("f8") - original[finite].astype("f8"))
    assert error.max(initial=0) <= step / 2
    assert stored[~finite].tobytes() == original[~finite].tobytes()
    assert step <= fraction * 2 * max(sigma, 65504 if odd else 0)


def test_what_composites_share_is_quantized_once(tmp_path: Path) -> None:
    path = tmp_path / "both.h5"
    values = sky((200, 300), 23)
    both = {name: ch5.Composite(None, image=ch5.Image(values), data_id={"detector": name}) for name in ("a", "b")}
    ch5.write_file(path, both, share=True, recipes={"image": "quantized"})
    for name, written in both.items():
        with ch5.open(path, name) as opened:
            assert opened.id == written.id
            assert opened.digest == written.digest
            assert (opened["image"].array % 1 == 0).all()


def test_what_is_copied_is_stored_as_it_was(tmp_path: Path) -> None:
    visit_path, [path] = write_visit(tmp_path, ccds=1)
    recipes = {"image": ch5.Recipe(gzip=6, chunks=(50, 100)), "variance": "raw", "mask": ch5.Recipe(shuffle=False)}
    with ch5.open(path) as c:
        c.write(tmp_path / "a.h5", recipes=recipes)
    with ch5.open(tmp_path / "a.h5") as c:
        c.flatten(tmp_path / "flat.h5")
        c.replace({"psf": None}).write(tmp_path / "copy.h5")
        c.replace(stage="x").write(tmp_path / "other.h5", recipes={"mask": "archive"})
    (tmp_path / "elsewhere").mkdir()
    visit_path.rename(tmp_path / "elsewhere/visit.h5")
    written = layouts(tmp_path / "a.h5")
    assert written["image"] == (6, True, (50, 100))
    assert written["variance"] == (None, False, None)
    assert [file.path for file in ch5.trees.relink(tmp_path).files] == [
        str(tmp_path / name) for name in ("a.h5", "calexp/calexp_903334_0.h5", "copy.h5", "other.h5")
    ]
    for name in ("a.h5", "flat.h5", "copy.h5"):
        copied = layouts(tmp_path / name)
        assert all(copied[component] == written[component] for component in recipes), name
        with ch5.open(tmp_path / name) as c:
            verify(c)
    other = layouts(tmp_path / "other.h5")
    assert (other["mask"][0], other["image"]) == (9, written["image"])
