"""Files with one fault each, of the sorts that ``specs/reliability.md`` lists, and what a reader must say to them.

Each case changes one thing in a small tree that is right: ``calexp.h5``, whose component ``visit_info`` is a link to
``visit.h5``. What it must not lead to is in the folder ``outside``: files that hold `SECRET`, and FIFOs, at which
whoever opens them waits for ever.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

import compositeh5 as ch5
from compositeh5.composite.places import BUTLER_INDEX_NAME

SECRET = "only for its owner"
ACCIDENT, OTHERS, ATTACK = 1, 2, 3
"""The tiers: own accidents; files of other users of a shared system; files made to break the reader."""


@dataclass(frozen=True)
class Tree:
    """Where a case is made."""

    root: Path

    @property
    def calexp(self) -> Path:
        return self.root / "calexp.h5"

    @property
    def visit(self) -> Path:
        return self.root / "visit.h5"

    @property
    def outside(self) -> Path:
        return self.root.parent / "outside"


@dataclass(frozen=True)
class Case:
    """A fault: what it is, which errors may answer it, and what makes it."""

    name: str
    tier: int
    line: str
    errors: tuple[str, ...]
    make: Callable[[Tree], str | Path | None]


CASES: dict[str, Case] = {}


def case(
    tier: int, line: str, *errors: str, name: str = ""
) -> Callable[[Callable[[Tree], Any]], Callable[[Tree], Any]]:
    """Register a function that makes a fault and returns what is to be opened, if not ``calexp.h5``."""

    def register(make: Callable[[Tree], Any]) -> Callable[[Tree], Any]:
        known = name or make.__name__.strip("_").replace("_", " ")
        CASES[known] = Case(known, tier, line, errors, make)
        return make

    return register


def edits(tier: int, line: str, *errors: str, name: str = "") -> Callable[[Callable[[h5py.File], Any]], Any]:
    """Register a function that makes a fault in ``calexp.h5`` by h5py."""

    def register(edit: Callable[[h5py.File], Any]) -> Callable[[h5py.File], Any]:
        def make(tree: Tree) -> None:
            with h5py.File(tree.calexp, "r+", libver=("v110", "v110")) as file:
                edit(file)

        case(tier, line, *errors, name=name or edit.__name__.strip("_").replace("_", " "))(make)
        return edit

    return register


Edit = Callable[[h5py.File], Any]


def edit_cases(tier: int, line: str, cases: dict[str, tuple[Any, ...]]) -> None:
    """Register faults that are made in ``calexp.h5`` by one call each, and the errors that may answer them."""
    for name, (edit, *errors) in cases.items():
        edits(tier, line, *errors, name=name)(edit)


def _put(path: str, node: Any) -> Edit:
    return lambda file: file.__setitem__(path, node)


def _set(path: str, attribute: str, value: Any) -> Edit:
    return lambda file: file[path].attrs.__setitem__(attribute, value)


def _say(path: str, attribute: str, value: str | bytes) -> Edit:
    return lambda file: _text(file[path], attribute, value)


def _drop(path: str, attribute: str = "") -> Edit:
    return lambda file: file[path].attrs.__delitem__(attribute) if attribute else file.__delitem__(path)


def _new_image(create: Callable[[h5py.Group], h5py.Dataset]) -> Edit:
    return lambda file: _instead(file, create)


def _base() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        visit = ch5.Composite("visit", visit_info={"visit": 7, "exposure_time": 30.0}, data_id={"visit": 7})
        visit.write(f"{folder}/visit.h5")
        rng = np.random.default_rng(1)
        link = visit.link("visit_info")
        ch5.Composite(
            "exposure",
            image=ch5.Image(rng.normal(0, 23, (100, 120)).astype("f4")),
            mask=ch5.Mask(np.zeros((100, 120), np.int32), {"BAD": 0}),
            psf=ch5.Psf.constant(np.ones((5, 5)) / 25),
            visit_info=link,
            data_id={"visit": 7, "detector": 1},
            stage="single_frame",
        ).write(f"{folder}/calexp.h5")
        secret = ch5.Composite("visit", visit_info={"visit": 8, "secret": SECRET}, data_id={"visit": 8})
        secret.write(f"{folder}/secret.h5")
        return {name: Path(folder, name).read_bytes() for name in os.listdir(folder)}


_files: dict[str, bytes] = {}


def make(folder: Path, name: str) -> str:
    """Make the files of a case in a folder, and return the location to open."""
    if not _files:
        _files.update(_base())
    tree = Tree(folder / "tree")
    tree.root.mkdir(parents=True)
    tree.outside.mkdir()
    for file in ("calexp.h5", "visit.h5"):
        (tree.root / file).write_bytes(_files[file])
    (tree.outside / "secret.h5").write_bytes(_files["secret.h5"])
    (tree.outside / "secret.bin").write_text(SECRET * 1000)
    os.mkfifo(tree.outside / "fifo")
    return str(CASES[name].make(tree) or tree.calexp)


# ---- Own accidents ------------------------------------------------------------------------------------------

_FILE = "files that aren't whole, or aren't files"


@case(ACCIDENT, _FILE, "NotACompositeFileError")
def _empty_file(tree: Tree) -> None:
    tree.calexp.write_bytes(b"")


@case(ACCIDENT, _FILE, "NotACompositeFileError")
def _text_file(tree: Tree) -> None:
    tree.calexp.write_text("not HDF5\n" * 100)


@case(ACCIDENT, _FILE, "NotACompositeFileError")
def _user_block(tree: Tree) -> None:
    with h5py.File(tree.calexp, "w", userblock_size=512) as file:
        file.attrs["compositeh5_format"] = "1.0"


@case(ACCIDENT, _FILE, "NotACompositeFileError")
def _other_hdf5(tree: Tree) -> None:
    with h5py.File(tree.calexp, "w") as file:
        file["x"] = 1


@case(ACCIDENT, _FILE, "CorruptFileError")
def _only_the_signature(tree: Tree) -> None:
    tree.calexp.write_bytes(tree.calexp.read_bytes()[:8])


@case(ACCIDENT, _FILE, "CorruptFileError")
def _half_a_file(tree: Tree) -> None:
    data = tree.calexp.read_bytes()
    tree.calexp.write_bytes(data[: len(data) // 2])


@case(ACCIDENT, _FILE, "IsADirectoryError")
def _a_folder(tree: Tree) -> None:
    tree.calexp.unlink()
    tree.calexp.mkdir()


edit_cases(
    ACCIDENT,
    _FILE,
    {
        "never completed": (_set("/", "complete", np.int64(0)), "CorruptFileError"),
        "without complete": (_drop("/", "complete"), "CorruptFileError"),
    },
)


_VERSIONS = "versions that can't be read"


edit_cases(
    ACCIDENT,
    _VERSIONS,
    {
        "newer reader needed": (_set("/", "min_reader", np.int64(99)), "UnsupportedVersionError"),
        "newer kind": (_set("composite/image", "kind_version", np.int64(99)), "UnsupportedVersionError"),
        "odd version": (_say("/", "compositeh5_format", "../../1.0"), "FormatError"),
        "reader as text": (_say("/", "min_reader", "1"), "FormatError"),
    },
)


_WRONG = "attributes that are missing, or of wrong types"


def _text(node: Any, name: str, value: str | bytes) -> None:
    data = value.encode() if isinstance(value, str) else value
    tid = h5t.C_S1.copy()
    tid.set_size(len(data) + 1)
    tid.set_cset(h5t.CSET_UTF8)
    tid.set_strpad(h5t.STR_NULLTERM)
    if name in node.attrs:
        del node.attrs[name]
    attr = h5py.h5a.create(node.id, name.encode(), tid, h5s.create(h5s.SCALAR))
    attr.write(np.array(data, f"S{len(data) + 1}"), tid)


_ATTRIBUTES: dict[str, tuple[str, str, Any, str]] = {
    "id of bytes that is no UUID": ("composite", "id", "../../etc", "FormatError"),
    "id as a number": ("composite", "id", 7, "FormatError"),
    "no id": ("composite", "id", None, "FormatError"),
    "no kind": ("composite/image", "kind", None, "FormatError"),
    "kind as a number": ("composite/image", "kind", 3, "FormatError"),
    "unknown kind": ("composite/image", "kind", "os.system", "UnknownKindError"),
    "kind of another node": ("composite/image", "kind", "psf", "FormatError"),
    "composite that is an image": ("composite", "kind", "image", "FormatError"),
    "no definition": ("composite", "definition", None, "FormatError"),
    "definition version as text": ("composite", "definition_version", "1", "FormatError"),
    "stage as an array": ("composite", "stage", np.arange(3), "FormatError"),
    "default that is a path": ("/", "default", "composite/image", "FormatError"),
    "default that is the folder above": ("/", "default", "..", "FormatError"),
    "default that is by-id": ("/", "default", "by-id", "FormatError"),
    "no default": ("/", "default", None, "FormatError"),
    "origin as text": ("composite/image", "origin", "0,0", "FormatError"),
    "origin of other length": ("composite/image", "origin", np.arange(5), "FormatError"),
    "unit that is no unit": ("composite/image", "units", "10**100000000 m", "FormatError"),
    "very long unit": ("composite/image", "units", "m " * 9000, "FormatError"),
    "mask planes that are no planes": ("composite/mask", "planes", '{"BAD": 3}', "FormatError"),
    "mask plane outside of the integer": ("composite/mask", "planes", '{"BAD": {"bit": 1000000000}}', "FormatError"),
    "mask plane of negative bit": ("composite/mask", "planes", '{"BAD": {"bit": -1}}', "FormatError"),
}


for _name, (_path, _attribute, _value, _error) in _ATTRIBUTES.items():
    _make = _drop if _value is None else _say if isinstance(_value, str) else _set
    _more = () if _value is None else (_value,)
    edits(OTHERS, _WRONG, _error, name=_name)(_make(_path, _attribute, *_more))


# ---- Digests ------------------------------------------------------------------------------------------------

_DIGESTS = "content that isn't what its digest says"


edit_cases(
    OTHERS,
    _DIGESTS,
    {
        "other digest": (_say("composite/psf", "digest", "sha256:" + "0" * 64), "DigestMismatchError"),
        "digest that is none": (_say("composite/psf", "digest", "crc32:$(id)"), "FormatError", "DigestMismatchError"),
        "no digest": (_drop("composite/psf", "digest"), "FormatError"),
        "changed values": (lambda file: file["composite/psf/kernels"].__setitem__(..., 1), "DigestMismatchError"),
        "component taken out": (_drop("composite/mask"), "DigestMismatchError"),
        "component renamed": (lambda file: file.move("composite/mask", "composite/mask_2"), "DigestMismatchError"),
        "other data id": (_say("composite", "data_id", '{"visit":8,"detector":1}'), "DigestMismatchError"),
    },
)


# ---- JSON ---------------------------------------------------------------------------------------------------

_JSON = "JSON that isn't what it should be, or takes for ever"

_TEXTS: dict[str, tuple[str, str, str]] = {
    "JSON that ends early": ("data_id", '{"visit": ', "FormatError"),
    "JSON of another type": ("data_id", "[1, 2]", "FormatError"),
    "deeply nested JSON": ("data_id", "[" * 40_000, "FormatError"),
    "deeply nested JSON object": ("provenance", '{"a":' * 8_000 + "1" + "}" * 8_000, "FormatError"),
    "JSON with a huge number": ("data_id", '{"visit": ' + "9" * 40_000 + "}", "FormatError"),
    "JSON with an infinite number": ("provenance", '{"x": 1e999}', "FormatError"),
    "JSON with NaN": ("provenance", '{"x": NaN}', "FormatError"),
    "JSON with half a character": ("provenance", '{"x": "\\ud800"}', "FormatError"),
    "data ID with an object": ("data_id", '{"visit": {"a": 1}}', "FormatError"),
    "links as a list": ("links", "[]", "FormatError"),
    "absent that is no list": ("absent", '{"a": 1}', "FormatError"),
}


for _name, (_attribute, _json, _error) in _TEXTS.items():
    edits(ATTACK, _JSON, _error, name=_name)(_say("composite", _attribute, _json))


# ---- Links --------------------------------------------------------------------------------------------------

_ESCAPES = "links that lead out of the tree, or to what isn't a file"
_LIES = "records of links that lie"
_LOST = ("BrokenLinkError", "WrongIdError")


def _relink(tree: Tree, file: str | Path, target: str | None = None, **record: Any) -> None:
    """Have the link of ``visit_info`` lead elsewhere; its record may change as well."""
    with h5py.File(tree.calexp, "r+", libver=("v110", "v110")) as h5:
        group = h5["composite"]
        records = json.loads(group.attrs["links"])
        records["visit_info"] |= record
        _text(group, "links", json.dumps(records))
        to = group.get("visit_info", getlink=True).path if target is None else target
        del group["visit_info"]
        group["visit_info"] = h5py.ExternalLink(os.fspath(file), to)


for _name, _where in {
    "to an absolute path": lambda tree: tree.outside / "secret.h5",
    "to a folder above": lambda tree: "../outside/secret.h5",
    "far above the root": lambda tree: "../" * 60 + str(tree.outside)[1:] + "/secret.h5",
    "to a FIFO": lambda tree: "../outside/fifo",
    "to a device": lambda tree: "/dev/zero",
    "to a terminal": lambda tree: "/dev/tty",
    "to a process": lambda tree: "/proc/self/mem",
    "to a descriptor": lambda tree: "/proc/self/fd/0",
    "to a folder": lambda tree: "../outside",
    "to a file of text": lambda tree: "../outside/secret.bin",
    "to no name": lambda tree: ".",
    "to a very long name": lambda tree: "a/" * 5_000 + "b.h5",
    "to a web server": lambda tree: "http://127.0.0.1:9/secret.h5",
    "to an object store": lambda tree: "s3://bucket/secret.h5",
    "to a file URL": lambda tree: f"file://{tree.outside}/secret.h5",
    "to a resource of a package": lambda tree: "resource://lsst.daf.butler/configs/datastore.yaml",
    "to a shared name of Windows": lambda tree: "\\\\server\\share\\secret.h5",
}.items():
    case(OTHERS, _ESCAPES, *_LOST, name=f"link {_name}")(lambda tree, _where=_where: _relink(tree, _where(tree)))  # type: ignore[misc]


@case(OTHERS, _ESCAPES, *_LOST)
def _link_by_a_symbolic_link(tree: Tree) -> None:
    tree.visit.unlink()
    tree.visit.symlink_to(tree.outside / "secret.h5")


@case(OTHERS, _ESCAPES, *_LOST)
def _link_by_a_symbolic_link_to_a_fifo(tree: Tree) -> None:
    tree.visit.unlink()
    tree.visit.symlink_to(tree.outside / "fifo")


@case(OTHERS, _ESCAPES, *_LOST)
def _link_by_symbolic_links_in_a_circle(tree: Tree) -> None:
    tree.visit.unlink()
    tree.visit.symlink_to(tree.root / "b.h5")
    (tree.root / "b.h5").symlink_to(tree.visit)


@case(OTHERS, _ESCAPES, *_LOST)
def _file_only_in_the_working_directory(tree: Tree) -> None:
    os.rename(tree.visit, Path("visit.h5"))


@case(OTHERS, _ESCAPES, *_LOST)
def _file_only_under_the_prefix(tree: Tree) -> None:
    os.rename(tree.visit, Path(os.environ["HDF5_EXT_PREFIX"]) / "visit.h5")


@case(OTHERS, _ESCAPES, "FormatError")
def _link_to_another_path_in_the_file(tree: Tree) -> None:
    _relink(tree, "visit.h5", "/composite/visit_info")


@case(OTHERS, _ESCAPES, *_LOST)
def _link_into_its_own_file(tree: Tree) -> None:
    _relink(tree, "calexp.h5")


@case(OTHERS, _ESCAPES, *_LOST)
def _link_to_itself(tree: Tree) -> None:
    with ch5.open(tree.calexp) as c:
        id_ = c.id
    _relink(tree, "calexp.h5", f"/by-id/{id_}/visit_info", id=id_)


@case(OTHERS, _ESCAPES, *_LOST)
def _chain_of_links(tree: Tree) -> None:
    with ch5.open(tree.calexp) as c:
        id_ = c.id
    shutil.copy(tree.calexp, tree.root / "middle.h5")
    _relink(tree, "middle.h5", f"/by-id/{id_}/visit_info", id=id_)


edit_cases(
    OTHERS,
    _ESCAPES,
    {
        "link without a record": (
            _put("composite/x", h5py.ExternalLink("../outside/secret.h5", "/composite/visit_info")),
            "FormatError",
        ),
    },
)


@edits(OTHERS, _ESCAPES, "FormatError")
def _link_in_a_component(file: h5py.File) -> None:
    del file["composite/psf/kernels"]
    file["composite/psf/kernels"] = h5py.ExternalLink("../outside/fifo", "/x")


@edits(OTHERS, _ESCAPES, "FormatError")
def _composite_that_is_a_link(file: h5py.File) -> None:
    del file["composite"]
    file["composite"] = h5py.ExternalLink("../outside/secret.h5", "/composite")


@edits(OTHERS, _ESCAPES, "FormatError")
def _ids_that_are_a_link(file: h5py.File) -> None:
    del file["by-id"]
    file["by-id"] = h5py.ExternalLink("../outside/fifo", "/by-id")


def _record_case(name: str, error: tuple[str, ...], **record: Any) -> None:
    case(OTHERS, _LIES, *error, name=f"record with {name}")(lambda tree: _relink(tree, "visit.h5", **record))


_record_case("another digest", ("DigestMismatchError",), digest="sha256:" + "1" * 64)
_record_case("another id", ("FormatError",), id="6f0e4a51-0000-0000-0000-000000000000")
_record_case("an id that is a path", ("FormatError",), id="../../outside")
_record_case("another component", ("FormatError",), component="image")
_record_case("an unknown kind", ("UnknownKindError",), kind="pickle")
_record_case("another kind", ("FormatError", "DigestMismatchError"), kind="image")
_record_case("a number as location", ("FormatError",), uri=7)
_record_case("a list as data ID", ("FormatError",), data_id=[1])


@case(OTHERS, _LIES, *_LOST)
def _recorded_location_elsewhere(tree: Tree) -> None:
    tree.visit.unlink()
    _relink(tree, "visit.h5", uri="http://127.0.0.1:9/visit.h5")


@case(OTHERS, _LIES, *_LOST)
def _recorded_location_at_a_fifo(tree: Tree) -> None:
    tree.visit.unlink()
    _relink(tree, "visit.h5", uri=str(tree.outside / "fifo"))


@edits(OTHERS, _LIES, "FormatError")
def _record_of_what_is_stored(file: h5py.File) -> None:
    records = json.loads(file["composite"].attrs["links"])
    _text(file["composite"], "links", json.dumps(records | {"psf": records["visit_info"]}))


edit_cases(
    OTHERS,
    _LIES,
    {
        "record without a link": (_drop("composite/visit_info"), "FormatError"),
        "origin that is no record": (_say("composite/psf", "origin_link", '{"id": ["x"]}'), "FormatError"),
        "origin that is no json": (
            _say("composite/psf", "origin_link", "!!python/object/apply:os.system"),
            "FormatError",
        ),
    },
)


@edits(OTHERS, _LIES, "NoSuchComponentError")
def _id_that_leads_elsewhere(file: h5py.File) -> None:
    (id_,) = file["by-id"]
    del file[f"by-id/{id_}"]
    file[f"by-id/{id_}"] = h5py.SoftLink("/composite/psf")


@edits(OTHERS, _LIES, "RefusedError")
def _id_that_is_an_external_link(file: h5py.File) -> None:
    (id_,) = file["by-id"]
    del file[f"by-id/{id_}"]
    file[f"by-id/{id_}"] = h5py.ExternalLink("../outside/fifo", "/composite")


def _list_case(name: str, error: str, edit: Callable[[h5py.Group], None]) -> None:
    def make(tree: Tree) -> None:
        with ch5.open(tree.visit) as visit:
            link = visit.link("visit_info")
        ch5.Composite(None, {"items": [link, {"a": 1}, link]}).write(tree.calexp, replace=True)
        with h5py.File(tree.calexp, "r+", libver=("v110", "v110")) as file:
            edit(file["composite/items"])

    case(OTHERS, _LIES, error, name=f"list {name}")(make)


def _records(group: h5py.Group, change: Callable[[dict[str, Any]], None]) -> None:
    records = json.loads(group.attrs["links"])
    change(records)
    _text(group, "links", json.dumps(records))


_list_case("with a record of what is stored", "FormatError", lambda g: _records(g, lambda r: r.update({"1": r["0"]})))
_list_case("with a record too many", "FormatError", lambda g: _records(g, lambda r: r.update({"99": r["0"]})))
_list_case("with a record missing", "FormatError", lambda g: _records(g, lambda r: r.pop("2") and None))
_list_case("with records that are a text", "FormatError", lambda g: _text(g, "links", '"x"'))
_list_case("of huge length", "FormatError", lambda g: g.attrs.modify("length", np.int64(2**62)))
_list_case("of negative length", "FormatError", lambda g: g.attrs.modify("length", np.int64(-1)))
_list_case("whose item is a soft link", "RefusedError", lambda g: (g.pop("1"), g.__setitem__("1", h5py.SoftLink("/"))))


# ---- What HDF5 would follow or load -------------------------------------------------------------------------

_FOLLOWED = "what HDF5 would follow out of the file"


edit_cases(
    ATTACK,
    _FOLLOWED,
    {
        "external storage": (
            _new_image(
                lambda group: group.create_dataset("image", (9,), "u1", external=[("../outside/secret.bin", 0, 9)])
            ),
            "RefusedError",
        ),
        "external storage in a fifo": (
            _new_image(lambda group: group.create_dataset("image", (9,), "u1", external=[("../outside/fifo", 0, 9)])),
            "RefusedError",
        ),
    },
)


def _virtual(name: str, source: Callable[[h5py.File], str]) -> None:
    def edit(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((9, 9), "f4")
        layout[:] = h5py.VirtualSource(source(file), "composite/image", (9, 9))
        _instead(file, lambda group: group.create_virtual_dataset("image", layout))

    edits(ATTACK, _FOLLOWED, "RefusedError", name=f"virtual dataset {name}")(edit)


_virtual("of another file", lambda file: "../outside/secret.h5")
_virtual("of itself", lambda file: ".")
_virtual("without its source", lambda file: "missing.h5")
_virtual("of a FIFO", lambda file: "../outside/fifo")


def _instead(file: h5py.File, create: Callable[[h5py.Group], h5py.Dataset]) -> h5py.Dataset:
    """Put another dataset in place of the image, with the same attributes."""
    old = file["composite/image"]
    attrs = {name: old.attrs[name] for name in old.attrs}
    del file["composite/image"]
    new = create(file["composite"])
    for name, value in attrs.items():
        if isinstance(value, str | np.bytes_):
            _text(new, name, value.encode() if isinstance(value, str) else bytes(value))
        else:
            new.attrs[name] = value
    return new


def _low_level(
    file: h5py.File, tid: Any, shape: tuple[int, ...], set_up: Callable[[Any], object] = lambda dcpl: None
) -> h5py.Dataset:
    dcpl = h5p.create(h5p.DATASET_CREATE)
    set_up(dcpl)
    space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
    return _instead(file, lambda group: h5py.Dataset(h5d.create(group.id, b"image", tid, space, dcpl=dcpl)))


_LINKS = "links and names within a file"


def _deep(file: h5py.File, levels: int) -> None:
    group = file.create_group("composite/x")
    _text(group, "kind", "record")
    _text(group, "type", "record")
    _text(group, "digest", "sha256:" + "0" * 64)
    group.attrs["kind_version"] = 1
    for _ in range(levels):
        group = group.create_group("x")
        _text(group, "type", "record")


@edits(ATTACK, _LINKS, "RefusedError")
def _many_children(file: h5py.File) -> None:
    group = file["composite/psf"].id
    for i in range(66_000):
        group.links.create_soft(b"%d" % i, b"/x")


@edits(ATTACK, _LINKS, "RefusedError")
def _many_attributes(file: h5py.File) -> None:
    for i in range(300):
        file["composite/psf"].attrs[f"a{i}"] = i


_NAMES = {
    "that turns around": "a\u202eb",
    "without width": "image\u200b",
    "with a line": "a\nb",
    "with escape codes": "a\x1b[2Jb",
    "that isn't UTF-8": b"a\xff",
}


def _name_case(name: str, text: str | bytes) -> None:
    def edit(file: h5py.File) -> None:
        link = text.encode() if isinstance(text, str) else text
        # Held: its links don't keep it open.
        group = file["composite/psf"]
        group.id.links.create_soft(link, b"/x")

    edits(ATTACK, _LINKS, "RefusedError", name=f"name {name}")(edit)


for _name, _odd in _NAMES.items():
    _name_case(_name, _odd)


edit_cases(
    ATTACK,
    _LINKS,
    {
        "soft link": (_put("composite/x", h5py.SoftLink("/composite/image")), "RefusedError"),
        "soft link to itself": (_put("composite/x", h5py.SoftLink("/composite/x")), "RefusedError"),
        "second hard link": (lambda file: file.__setitem__("composite/x", file["composite/image"]), "RefusedError"),
        "cycle of hard links": (
            lambda file: file.__setitem__("composite/x", file["composite"]),
            "RefusedError",
            "FormatError",
        ),
        "cycle through the root": (lambda file: file.__setitem__("composite/psf/x", file["/"]), "RefusedError"),
        "named type": (_put("composite/x", np.dtype("f8")), "RefusedError"),
        "deep groups": (lambda file: _deep(file, 40), "RefusedError", "FormatError"),
        "very deep groups": (lambda file: _deep(file, 3000), "RefusedError", "FormatError"),
        "huge attribute": (_set("composite/psf", "a", np.zeros(1_000_000)), "RefusedError"),
        "column named twice": (lambda file: _table(file, lambda columns: [columns[0], columns[0]]), "FormatError"),
        "column that is a path": (lambda file: _table(file, lambda columns: [columns[0], b"../image"]), "FormatError"),
    },
)


def _table(file: h5py.File, change: Callable[[list[bytes]], list[bytes]]) -> None:
    image = io.BytesIO(ch5.Composite(None, t=_columns()).file_image("t.h5"))
    with h5py.File(image) as other:
        other.copy("composite/t", file["composite"])
    names = file["composite/t/@columns"]
    values = change(list(names[...]))
    attrs, tid = dict(names.attrs), names.id.get_type().copy()
    tid.set_size(20)
    del file["composite/t/@columns"]
    new = h5d.create(file["composite/t"].id, b"@columns", tid, h5s.create_simple((len(values),)))
    new.write(h5s.ALL, h5s.ALL, np.array(values, "S20"), tid)
    for name, value in attrs.items():
        _text(h5py.Dataset(new), name, value)


def _columns() -> Any:
    from astropy.table import Table

    return Table({"a": [1, 2], "b": [3.0, 4.0]})


# ---- Types --------------------------------------------------------------------------------------------------

_TYPES = "types that have no place here"


def _odd_float() -> Any:
    tid = h5t.IEEE_F32LE.copy()
    tid.set_fields(30, 22, 8, 0, 22)
    return tid


def _odd_integer() -> Any:
    tid = h5t.STD_I32LE.copy()
    tid.set_precision(17)
    return tid


def _odd_enum() -> Any:
    tid = h5t.enum_create(h5t.STD_I8LE)
    tid.enum_insert(b"FALSE", 1)
    tid.enum_insert(b"TRUEISH", 0)
    return tid


_TYPE_IDS: dict[str, Callable[[], Any]] = {
    "variable-length text": lambda: h5t.py_create(h5py.string_dtype(), logical=True),
    "variable-length numbers": lambda: h5t.py_create(h5py.vlen_dtype("i4"), logical=True),
    "opaque values": lambda: h5t.py_create(np.dtype("V8")),
    "compound values": lambda: h5t.py_create(np.dtype("i4,f4")),
    "object references": lambda: h5t.STD_REF_OBJ,
    "region references": lambda: h5t.STD_REF_DSETREG,
    "bit fields": lambda: h5t.STD_B8LE,
    "HDF5 times": lambda: h5t.UNIX_D32LE,
    "arrays as elements": lambda: h5t.array_create(h5t.STD_I32LE, (3,)),
    "an enum that is no bool": _odd_enum,
    "floats of long double": lambda: h5t.NATIVE_LDOUBLE,
    "floats with odd fields": _odd_float,
    "integers with odd precision": _odd_integer,
}


def _type_cases(name: str, tid: Callable[[], Any]) -> None:
    def dataset(file: h5py.File) -> None:
        _low_level(file, tid(), (3,))

    def attribute(file: h5py.File) -> None:
        h5py.h5a.create(file["composite/psf"].id, b"a", tid(), h5s.create_simple((3,)))

    edits(ATTACK, _TYPES, "RefusedError", name=f"dataset of {name}")(dataset)
    edits(ATTACK, _TYPES, "RefusedError", name=f"attribute of {name}")(attribute)


for _name, _type in _TYPE_IDS.items():
    _type_cases(_name, _type)


edit_cases(
    ATTACK,
    _TYPES,
    {
        "empty dataspace": (
            _new_image(lambda group: group.create_dataset("image", data=h5py.Empty("f4"))),
            "RefusedError",
        ),
        "attribute of empty dataspace": (_set("composite/psf", "a", h5py.Empty("f4")), "RefusedError"),
        "text that is not utf8": (_say("composite", "run", b"a\xff\xfe"), "FormatError"),
    },
)


# ---- Filters, sizes, chunks ---------------------------------------------------------------------------------

_FILTERS = "filters that HDF5 would have to load"


def _filter_case(name: str, *numbers: int) -> None:
    def set_up(dcpl: Any) -> None:
        dcpl.set_chunk((10,))
        for number in numbers:
            dcpl.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1,))

    def edit(file: h5py.File) -> None:
        _low_level(file, h5t.IEEE_F32LE, (20,), set_up)

    edits(ATTACK, _FILTERS, "RefusedError", name=f"filter {name}")(edit)


_filter_case("of h5py", h5py.h5z.FILTER_LZF)
_filter_case("with registered number", 32015)
_filter_case("without registered number", 399)
_filter_case("for n-bit integers", h5py.h5z.FILTER_NBIT)
_filter_case("used twice", h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_DEFLATE)

_SIZES = "sizes that aren't backed by bytes, and streams that grow"


def _text_of(size: int) -> Any:
    tid = h5t.C_S1.copy()
    tid.set_size(size)
    return tid


_SHAPES: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "a huge chunked image": (h5t.IEEE_F32LE, (2**20, 2**20), (1000, 1000)),
    "a huge contiguous image": (h5t.IEEE_F32LE, (2**20, 2**20), ()),
    "axes whose product overflows": (h5t.STD_I8LE, (2**31, 2**31, 2), (1000, 1000, 1)),
    "a chunk of nearly 4 GiB": (h5t.STD_I8LE, (2**32,), (2**32 - 1,)),
    "a text of 2 GB": (_text_of(2_000_000_000), (), ()),
    "texts of 1 GB": (_text_of(1_000_000_000), (10,), ()),
    "nothing stored": (h5t.IEEE_F32LE, (10, 10), ()),
    "no chunk stored": (h5t.IEEE_F32LE, (10, 10), (5, 5)),
}


def _shape_case(name: str, tid: Any, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    def edit(file: h5py.File) -> None:
        _low_level(file, tid, shape, lambda dcpl: dcpl.set_chunk(chunks) if chunks else None)

    edits(ATTACK, _SIZES, "RefusedError", "CorruptFileError", name=f"dataset with {name}")(edit)


for _name, _shape in _SHAPES.items():
    _shape_case(_name, *_shape)


def _chunk_case(name: str, pack: Callable[[bytes], bytes], filter_mask: int = 0) -> None:
    def edit(file: h5py.File) -> None:
        def create(group: h5py.Group) -> h5py.Dataset:
            return group.create_dataset("image", (100, 100), "f4", chunks=(50, 100), compression="gzip")

        image = _instead(file, create)
        for corner in ((0, 0), (50, 0)):
            image.id.write_direct_chunk(corner, pack(bytes(20_000)), filter_mask)

    edits(ATTACK, _SIZES, "CorruptFileError", "RefusedError", name=f"chunk {name}")(edit)


_chunk_case("that inflates to less", lambda raw: zlib.compress(raw[:-4]))
_chunk_case("that inflates to more", lambda raw: zlib.compress(raw + b"more"))
_chunk_case("that inflates to a gigabyte", lambda raw: _bomb())
_chunk_case("with a wrong checksum", lambda raw: zlib.compress(raw)[:-1] + b"\xff")
_chunk_case("cut short", lambda raw: zlib.compress(raw)[:-9])
_chunk_case("of something else", lambda raw: b"\x00" * 99)
_chunk_case("that is empty", lambda raw: b"\x78")
_chunk_case("stored unfiltered", lambda raw: raw, 1)


def _bomb() -> bytes:
    """Return a gigabyte of zeros, all but the first part of which is the same bytes again and again."""
    compressor = zlib.compressobj(9)
    first, again = (compressor.compress(bytes(10_000_000)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * 99


# ---- Zip files ----------------------------------------------------------------------------------------------

_ZIP = "zip files and their index"


def _zip(tree: Tree, index: bytes | None = None, compression: int = zipfile.ZIP_STORED) -> str:
    path = tree.root / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tree.calexp, "calexp.h5", compression)
        if index is not None:
            archive.writestr(BUTLER_INDEX_NAME, index, zipfile.ZIP_DEFLATED)
    tree.calexp.unlink()
    return f"{path}#zip-path=calexp.h5"


@case(ATTACK, _ZIP, "RefusedError")
def _compressed_member(tree: Tree) -> str:
    return _zip(tree, compression=zipfile.ZIP_DEFLATED)


@case(ATTACK, _ZIP, "FileNotFoundError")
def _member_that_is_a_path(tree: Tree) -> str:
    return _zip(tree).replace("calexp.h5", "../outside/secret.h5")


@case(ATTACK, _ZIP, "CorruptFileError")
def _zip_that_is_none(tree: Tree) -> str:
    return f"{tree.calexp}#zip-path=calexp.h5"


@case(ATTACK, _ZIP, "CorruptFileError", "NotACompositeFileError")
def _member_that_is_outside_of_the_zip(tree: Tree) -> str:
    location = _zip(tree)
    path = tree.root / "a.zip"
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")
    data[entry + 42 : entry + 46] = struct.pack("<I", len(data) + 5000)
    path.write_bytes(data)
    return location


@case(ATTACK, _ZIP, "CorruptFileError", "NotACompositeFileError")
def _member_with_wrong_place(tree: Tree) -> str:
    location = _zip(tree)
    path = tree.root / "a.zip"
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")
    data[entry + 42 : entry + 46] = struct.pack("<I", 50)
    path.write_bytes(data)
    return location


@case(ATTACK, _ZIP, "CorruptFileError")
def _member_larger_than_the_zip(tree: Tree) -> str:
    location = _zip(tree)
    path = tree.root / "a.zip"
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data[: len(data) // 2] + data[entry:])
    return location


def _index_case(name: str, index: Callable[[str], bytes]) -> None:
    def make(tree: Tree) -> str:
        with ch5.open(tree.visit) as visit:
            id_ = visit.id
        tree.visit.unlink()
        return _zip(tree, index(id_))

    case(ATTACK, _ZIP, "BrokenLinkError", name=f"index {name}")(make)


def _naming(path: str) -> Callable[[str], bytes]:
    def index(id_: str) -> bytes:
        artifact = {"ids": [id_], "info": {"component": None}}
        return json.dumps({"index_version": "V1", "artifact_map": {path: artifact}}).encode()

    return index


_index_case("with a path to above", _naming("../outside/secret.h5"))
_index_case("with an absolute path", _naming("/etc/passwd"))
_index_case("with a URL", _naming("http://127.0.0.1:9/secret.h5"))
_index_case("that isn't JSON", lambda id_: b"!!python/none")
_index_case("that is deeply nested", lambda id_: b"[" * 1_000_000)
_index_case("of another version", lambda id_: b'{"index_version": "V9"}')
_index_case("whose map is a list", lambda id_: b'{"index_version": "V1", "artifact_map": []}')
_index_case("whose entries are numbers", lambda id_: b'{"index_version": "V1", "artifact_map": {"a": 1}}')
_index_case("that inflates to 100 MB", lambda id_: bytes(100_000_000))


@case(OTHERS, _ZIP, *_LOST)
def _index_beside_that_names_a_file_above(tree: Tree) -> None:
    with ch5.open(tree.visit) as visit:
        id_ = visit.id
    tree.visit.unlink()
    (tree.root / BUTLER_INDEX_NAME).write_bytes(_naming("../outside/secret.h5")(id_))


@case(OTHERS, _ZIP, *_LOST)
def _index_beside_that_is_a_fifo(tree: Tree) -> None:
    tree.visit.unlink()
    os.mkfifo(tree.root / BUTLER_INDEX_NAME)
