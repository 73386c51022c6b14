"""The format as specs/format.md has it, checked by a second implementation of the digests over plain h5py."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from astropy.time import Time
from support import exposure, tool, visit_info, write_visit

import compositeh5 as ch5
from compositeh5.storage.digests import composite_digest, digest
from compositeh5.storage.layout import NOT_CONTENT
from compositeh5.storage.nodes import Array, Group

SPEC = (Path(__file__).parents[1] / "specs" / "format.md").read_text()


def canonical(values: np.ndarray, is_text: bool) -> tuple[str, bytes]:
    """Type name and bytes of values as h5py gives them; strings come as numpy type S, zeros at the end dropped."""
    if values.dtype.kind == "S":
        longest = max([1, *(len(item) for item in values.reshape(-1).tolist())])
        return ("text" if is_text else "bytes"), values.astype(f"S{longest}").tobytes()
    return values.dtype.name, values.astype(values.dtype.newbyteorder("<")).tobytes()


def holds_text(tid: Any) -> bool:
    return tid.get_class() == h5py.h5t.STRING and tid.get_strpad() == h5py.h5t.STR_NULLTERM


def attributes_hash(obj: Any) -> bytes:
    parts = b""
    for name in sorted(obj.attrs, key=str.encode):
        if name in NOT_CONTENT:
            continue
        attr = obj.attrs.get_id(name)
        values = np.empty(attr.shape, attr.dtype)
        attr.read(values)
        type_name, data = canonical(values, holds_text(attr.get_type()))
        parts += f"{name}\0{type_name}\0{','.join(map(str, attr.shape))}\0".encode() + data
    return hashlib.sha256(parts).digest()


def object_hash(obj: Any) -> bytes:
    if isinstance(obj, h5py.Group):
        if text(obj, "kind") == "composite":
            return bytes.fromhex(composite_hash(obj)[7:])
        parts = b"group\0" + attributes_hash(obj)
        for name in sorted(obj, key=str.encode):
            parts += name.encode() + b"\0" + object_hash(obj[name])
        return hashlib.sha256(parts).digest()
    shape = () if obj.attrs.get("scalar") else obj.shape
    type_name, data = canonical(np.asarray(obj[()]).reshape(shape), holds_text(obj.id.get_type()))
    start = b"array\0" + attributes_hash(obj) + f"{type_name}\0{','.join(map(str, shape))}\0".encode()
    return hashlib.sha256(start + data).digest()


def text(obj: Any, name: str) -> str:
    """Text attributes are of fixed length, which h5py gives as bytes."""
    return obj.attrs[name].decode() if name in obj.attrs else ""


def long_text(group: Any, name: str) -> str:
    joined, i = text(group, name), 1
    while f"{name}_{i}" in group.attrs:
        joined, i = joined + text(group, f"{name}_{i}"), i + 1
    return joined


def composite_hash(group: Any) -> str:
    links = json.loads(long_text(group, "links"))
    components = {}
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            components[name] = {key: links[name].get(key, "") for key in ("digest", "kind", "stage")}
        else:
            components[name] = {key: text(group[name], key) for key in ("digest", "kind", "stage")}
            assert components[name]["digest"] == f"sha256:{object_hash(group[name]).hex()}", name
    own: dict[str, Any] = {name: text(group, name) for name in ("definition", "dataset_type", "run", "stage")}
    own["definition_version"] = int(group.attrs["definition_version"])
    for name in ("data_id", "absent", "provenance"):
        own[name] = json.loads(long_text(group, name))
    whole = json.dumps({**own, "components": components}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def rich(**more: Any) -> ch5.Composite:
    table = QTable(
        {
            "ra/dec": [1.0, 2.0] * u.deg,
            "": ["é", "long name"],
            "time": Time([60000.0, 60001.5], format="mjd"),
            "flags": np.array([[True, False], [False, True]]),
        }
    )
    table.meta["seeing"] = 0.7 * u.arcsec
    return ch5.Composite(
        None,
        {
            "image": ch5.Image(np.random.default_rng(1).normal(size=(300, 500)).astype(">f4"), (3, 4), "nJy"),
            "table": table,
            "visit_info": visit_info(),
            "complex": np.arange(5) + 2j,
            "text": "line é\n" * 20_000,
            "raw": b"\0\1\2",
            "bytes": np.array([b"a", b"", b"abc"], "S9"),
            "stamps": [exposure((9, 8)), ch5.PhotoCalib(57.5, 0.1)],
            "psf": ch5.Psf.constant(np.ones((3, 3)) / 9),
            "calib": None,
            **more,
        },
        data_id={"visit": 1, "band": "é"},
        stage="one",
        run="runs/1",
        provenance={"inputs": ["a", {"b": 1}]},
    )


@pytest.fixture(scope="module")
def rich_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a component of many kinds, one of them linked."""
    folder = tmp_path_factory.mktemp("rich")
    visit, _ = write_visit(folder)
    mask = ch5.Mask(np.zeros((3, 4), "i4"), {"BAD": 0})
    with ch5.open(visit) as v:
        rich(linked=v.link("visit_info"), mask=mask, wcs=exposure()["wcs"]).write(folder / "a.h5")
    return folder / "a.h5"


def test_a_second_implementation_finds_the_same_digests(rich_file: Path) -> None:
    with h5py.File(rich_file) as file:
        group = file["composite"]
        assert composite_hash(group) == text(group, "digest")
        derived = uuid.uuid5(uuid.UUID("0b2a2d0e-6f0b-5d6c-9f46-6f1c2c6a3d5e"), text(group, "digest"))
        assert text(group, "id") == str(derived)
        assert file["by-id"].get(str(derived), getlink=True).path == "/composite"


EXAMPLES = {
    "int64 dataset of shape (3,), values 0, 1, 2, no attributes": Array(np.arange(3)),
    "the same as big-endian int64": Array(np.arange(3, dtype=">i8")),
    "0-d text dataset `é`, attribute `units` = text `m`": Array(np.array("é"), {"units": "m"}),
    "bytes dataset (2,), values `a`, `bcd`": Array(np.array([b"a", b"bcd"], "S8")),
    "bool dataset (2, 1), values TRUE, FALSE; attributes `origin` = int64 (2,) 3, 4, `stage` = text `x`": Array(
        np.array([[True], [False]]), {"origin": np.array([3, 4]), "stage": "x"}
    ),
    "empty group, attributes `kind` = text `list`, `length` = int64 0": Group({}, {"kind": "list", "length": 0}),
    "group with the first and the third as `a`, `b`; attribute `f` = float64 0.5": Group(
        {"b": Array(np.array("é"), {"units": "m"}), "a": Array(np.arange(3))}, {"f": 0.5}
    ),
}
COMPOSITE = (
    "composite of definition `d` version 1, data ID `visit` = 7, no others; component `x` of kind `array` = the first"
)


def examples() -> dict[str, str]:
    found = {name: digest(node) for name, node in EXAMPLES.items()}
    first = Array(np.zeros(0), {"kind": "array", "digest": next(iter(found.values()))})
    attrs = {"definition": "d", "definition_version": 1, "data_id": '{"visit":7}', "absent": "[]", "provenance": "{}"}
    return {**found, COMPOSITE: composite_digest(Group({"x": first}, attrs))}


def test_the_worked_examples_of_the_specification() -> None:
    written = dict(re.findall(r"^\| (.*?) \| `(sha256:[0-9a-f]{64})` \|$", SPEC, re.MULTILINE))
    assert written == examples()


def test_the_specification_lists_what_digests_leave_out() -> None:
    assert all(f"`{name}`" in SPEC for name in NOT_CONTENT)


def test_every_attribute_of_a_file_is_in_the_specification(rich_file: Path) -> None:
    names: set[str] = set()
    with h5py.File(rich_file) as file:
        names.update(file.attrs)
        file.visititems(lambda path, obj: names.update(obj.attrs))
    missing = [name for name in names if f"`{name}`" not in SPEC]
    assert not missing


def test_only_the_types_of_the_specification_occur(rich_file: Path) -> None:
    def check(tid: Any) -> None:
        if tid.get_class() == h5py.h5t.STRING:
            assert not tid.is_variable_str()
        else:
            assert tid.get_class() in {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.COMPOUND}

    def visit(path: str, obj: Any) -> None:
        for name in obj.attrs:
            check(obj.attrs.get_id(name).get_type())
        if isinstance(obj, h5py.Dataset):
            check(obj.id.get_type())
            layout = obj.id.get_create_plist().get_layout()
            assert layout in (h5py.h5d.COMPACT, h5py.h5d.CHUNKED)
            for i in range(obj.id.get_num_chunks() if layout == h5py.h5d.CHUNKED else 0):
                assert obj.id.get_chunk_info(i).filter_mask == 0

    with h5py.File(rich_file) as file:
        file.visititems(visit)
        assert text(file["composite/image"], "CLASS") == "IMAGE"
        tid = file["composite/image"].attrs.get_id("CLASS").get_type()
        assert (tid.get_strpad(), tid.get_cset()) == (h5py.h5t.STR_NULLTERM, h5py.h5t.CSET_ASCII)


def test_the_range_of_an_image_is_finite(tmp_path: Path) -> None:
    values = np.array([[np.nan, 3.0], [-np.inf, -2.0]], "f4")
    nothing = np.full((2, 2), np.nan, "f4")
    ch5.Composite(None, some=ch5.Image(values), none=ch5.Image(nothing), empty=ch5.Image(np.zeros((0, 3)))).write(
        tmp_path / "a.h5"
    )
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["composite/some"].attrs["IMAGE_MINMAXRANGE"].tolist() == [-2, 3]
        assert file["composite/none"].attrs["IMAGE_MINMAXRANGE"].tolist() == [0, 0]
        assert "IMAGE_MINMAXRANGE" not in file["composite/empty"].attrs


def test_the_default_plot_is_the_image(tmp_path: Path) -> None:
    exposure((3, 4)).write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        group = file[file.attrs["default"]]
        assert text(group, "NX_class") == "NXdata"
        assert text(group[text(group, "signal")], "CLASS") == "IMAGE"


def test_flipped_bits_in_metadata_are_noticed(tmp_path: Path) -> None:
    """Every byte is under a checksum: a damaged file gives an error of ours, or the same values."""
    from compositeh5.trees.verify import verify

    path = tmp_path / "a.h5"
    ch5.Composite("visit", visit_info=visit_info()).write(path)
    good = path.read_bytes()
    with ch5.open(path) as c:
        expected = c["visit_info"]
    rng = np.random.default_rng(3)
    for position in rng.integers(0, len(good), 100):
        damaged = bytearray(good)
        damaged[position] ^= 1 << rng.integers(0, 8)
        (tmp_path / "b.h5").write_bytes(damaged)
        try:
            with ch5.open(tmp_path / "b.h5") as c:
                verify(c)
                assert c["visit_info"] == expected
        except ch5.CompositeH5Error:
            pass


def test_h5ls_reads_all(rich_file: Path) -> None:
    for option in (["-r", "-v"], ["-d"]):
        listing = tool("h5ls", *option, rich_file)
        assert listing.returncode == 0
        assert listing.stderr == ""


if __name__ == "__main__":  # python tests/test_format.py prints the table of examples
    for name, value in examples().items():
        print(f"| {name} | `{value}` |")
