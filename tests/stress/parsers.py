"""What strangers may write where the package reads text, JSON or YAML: links, definitions, records, indices.

Each property says that a reader gives a value or one of the package's errors, whatever it is given.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sample_contents
import yaml
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from reporting import Table

import compositeh5 as ch5
from compositeh5 import CompositeH5Error, kinds
from compositeh5.composite.definitions import load_definition
from compositeh5.composite.opening import stored_composite
from compositeh5.composite.places import indexed_files
from compositeh5.composite.session import current
from compositeh5.storage.locations import absolute_location, joined_location, relative_location
from compositeh5.storage.nodes import Array, Group, GroupNode, Node

count: Counter[str] = Counter()
"""How many examples each property was tried with."""

PROPERTIES: dict[str, Callable[[], None]] = {}


def prop(test: Callable[..., None]) -> Callable[..., None]:
    PROPERTIES[test.__name__] = test
    return test


# ---- What is given ------------------------------------------------------------------------------------------

NAMES = ["id", "component", "kind", "digest", "uri", "data_id", "stage", "run", "", "..", "/", "a", "\0", "\ud800"]
STRANGE = ["", ".", "..", "/", "//", "../" * 40, "a/../b", "\0", "\ud800", "é", "%2e%2e", "#zip-path=", "~", "C:\\x"]
PLACES = ["file:///etc/passwd", "file://", "://", "x://[", "/dev/zero", "/proc/self/mem", "a#zip-path=b", "/dev/stdin"]

texts = st.one_of(st.text(max_size=20), st.sampled_from(STRANGE))
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([2**63, -(2**63) - 1, 10**400]))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
locations = st.one_of(
    st.sampled_from([*STRANGE, *PLACES]),
    st.lists(st.one_of(st.sampled_from(["..", ".", "", "b.h5", "a"]), st.text(max_size=4)), max_size=5).map("/".join),
)
records = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(json_values, locations, st.just("4e8a7a5e-0000-5000-8000-000000000000")) for name in NAMES[:8]
    },
)
attributes = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    texts,
    json_values.map(lambda value: json.dumps(value)),
    st.sampled_from(
        ["float64", "record", "list", "composite", "table", "wcs", "deg", "1e400 m", "x" * 5000, "[" * 5000]
    ),
    st.lists(st.floats(), max_size=4).map(np.array),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(lambda values: np.array(values, "i8")),
)
arrays = st.one_of(
    attributes.filter(lambda value: not isinstance(value, str)).map(np.asarray),
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6), max_size=3
    ).map(lambda values: np.array(values, "U6")),
    st.builds(np.zeros, st.lists(st.integers(0, 4), max_size=4), st.sampled_from(["f4", "i8", "u1", "?", "c16", "S3"])),
)


@cache
def samples() -> dict[str, Node]:
    """Return a node of each kind, with values of each type that a record may have."""
    values = sample_contents.kinds()
    found: dict[str, Node] = {}
    for name in values:
        if values.part(name).state != "linked":
            found[name] = kinds.encode(values[name], values.kind(name))
    return found


def nodes_of(node: Node) -> list[Node]:
    return [node, *(n for child in node.values() for n in nodes_of(child))] if isinstance(node, GroupNode) else [node]


@st.composite
def mutated(draw: st.DrawFn) -> Node:
    """Return a node of some kind in which a few things were changed."""
    root = copy.deepcopy(draw(st.sampled_from(sorted(samples().items())))[1])
    for _ in range(draw(st.integers(1, 3))):
        everything = nodes_of(root)
        node = draw(st.sampled_from(everything))
        match draw(st.integers(0, 4)):
            case 0 if node.attrs:
                node.attrs = {**node.attrs, draw(st.sampled_from(sorted(node.attrs))): draw(attributes)}
            case 1 if node.attrs:
                gone = draw(st.sampled_from(sorted(node.attrs)))
                node.attrs = {name: value for name, value in node.attrs.items() if name != gone}
            case 2 if isinstance(node, Group) and node.children:
                name = draw(st.sampled_from(sorted(node.children)))
                new = draw(st.one_of(arrays.map(Array), st.just(Group()), st.sampled_from(everything), st.none()))
                if new is None:
                    del node.children[name]
                elif node not in nodes_of(new):
                    node.children[name] = new
            case 3 if isinstance(node, Array):
                node.data = draw(arrays)
            case 4 if isinstance(node, Group):
                other = draw(st.sampled_from(sorted(samples().values(), key=id)))
                node.children[draw(st.sampled_from(["x", "0", "1", "value", "header", "kernels"]))] = copy.deepcopy(
                    other
                )
    return root


# ---- What must hold -----------------------------------------------------------------------------------------


def ours(name: str, do: Callable[[], Any]) -> Any:
    """Do something that may raise our errors, and no others; or say that there is no such file."""
    count[name] += 1
    try:
        return do()
    except (CompositeH5Error, FileNotFoundError):
        return None


@prop
@given(st.one_of(records, json_values))
def link_records(record: Any) -> None:
    link = ours("link_records", lambda: ch5.Link.from_record(record, "x"))
    if link is not None:
        hash(link), str(link), link.target, link.record()


@prop
@given(locations, locations)
def joined_locations(start: str, relative: str) -> None:
    base = ours("joined_locations", lambda: absolute_location(start))
    if base is not None:
        ours("joined_locations", lambda: joined_location(base, relative))
        ours("joined_locations", lambda: relative_location(absolute_location(relative), base))


@prop
@given(locations, locations, texts, texts)
def targets_of_links(uri: str, path: str, id_: str, component: str) -> None:
    # Not where anybody could be asked: what a local file says leads to local files only.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "b.h5").write_bytes(b"not HDF5")
        link = ch5.Link(id_, component, "array", "sha256:0", uri)
        is_open = len(os.listdir("/proc/self/fd"))
        ours("targets_of_links", lambda: current().find(link, os.path.join(folder, "a.h5"), path))
        assert len(os.listdir("/proc/self/fd")) == is_open


indices = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda path, value: json.dumps({"index_version": "V1", "artifact_map": {path: value}}).encode(),
        texts,
        st.fixed_dictionaries({"ids": json_values, "info": json_values}),
    ),
)


@prop
@given(indices, texts)
def artifact_indices(content: bytes, id_: str) -> None:
    for name in ours("artifact_indices", lambda: list(indexed_files(content, "x", id_, "image"))) or ():
        assert ".." not in name.split("/")


definitions = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("x"), scalars),
        "version": st.one_of(st.just(1), scalars),
        "components": st.dictionaries(
            st.one_of(st.sampled_from(["image", "wcs", "id"]), texts),
            st.one_of(
                json_values,
                st.fixed_dictionaries(
                    {"kind": st.one_of(st.sampled_from(kinds.BUILTIN), texts)},
                    optional={
                        name: st.one_of(st.booleans(), json_values, st.just(["visit"]))
                        for name in ("required", "shared", "list", "input_only", "getter", "setter", "calibration", "q")
                    },
                ),
            ),
            max_size=3,
        ),
    },
    optional=dict.fromkeys(("dimensions", "signal", "python_type", "assembler", "description", "q"), json_values),
)


@prop
@given(st.one_of(definitions, json_values), st.data())
def definition_files(content: Any, data: st.DataObject) -> None:
    try:
        text = yaml.safe_dump(content).encode()
    except (yaml.YAMLError, UnicodeEncodeError):
        assume(False)
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.one_of(st.just(b""), st.binary(max_size=6))) + text[at:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_bytes(text)
        ours("definition_files", lambda: load_definition(path))


@prop
@given(mutated())
def nodes_of_kinds(node: Node) -> None:
    ours("nodes_of_kinds", lambda: kinds.decode(node))


@prop
@given(
    st.dictionaries(
        st.sampled_from(["id", "digest", "data_id", "absent", "links", "provenance", "definition", "stage", "links_1"]),
        attributes,
        max_size=4,
    )
)
def groups_of_composites(changes: dict[str, Any]) -> None:
    attrs: dict[str, Any] = {"kind": "composite", "kind_version": 1, "definition": "", "definition_version": 1}
    attrs |= {"id": "7280c70e-0000-5000-8000-000000000000", "digest": "", "dataset_type": "", "run": "", "stage": ""}
    attrs |= {"data_id": "{}", "absent": "[]", "links": "{}", "provenance": "{}"}
    child = Array(np.arange(3), {"kind": "array", "kind_version": 1, "digest": "x"})
    composite = stored_composite(Group({"x": child}, attrs | changes), None)
    for name in ("id", "data_id", "absent", "links", "provenance", "definition", "stage", "dataset_type", "digest"):
        ours("groups_of_composites", lambda name=name: getattr(composite, name))
    ours("groups_of_composites", lambda: (sorted(composite), composite["x"]))
    ours("groups_of_composites", lambda: repr(composite))


def parsers(table: Table, folder: Path, number: int, examples: int = 1000) -> None:
    """Try each property with new examples."""
    warnings.simplefilter("ignore")
    how = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    for name, test in PROPERTIES.items():
        count.clear()
        try:
            seed(number)(how(test))()
        except Exception:
            table.note(name, counts="failed", detail=traceback.format_exc(limit=-5))
        table.note(name, counts={"cases": count.total()})


def parsers_table() -> Table:
    return Table(("parser",), frozenset({"failed"}))
