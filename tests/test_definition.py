from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_definition as make

from compositeh5.composite.definition import RESERVED_NAMES, ComponentDefinition, Definition
from compositeh5.composite.definitions import definition_names, get_definition, load_definition, register_definition
from compositeh5.composite.link import Link
from compositeh5.errors import DefinitionError, WrongTypeError

GOOD = """\
name: ccd
version: 3
description: One CCD.
dimensions: [instrument, visit, detector]
signal: image
python_type: package.module.Ccd
components:
  image:
    kind: image
    required: true
    description: The pixels.
    getter: getImage
    setter: setImage
  visit_info: {kind: record, shared: [instrument, visit]}
  amplifiers: {kind: image, list: true}
  flat: {kind: image, input_only: true}
"""


def write(folder: Path, text: str, name: str = "ccd.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ---- Reading ------------------------------------------------------------------------------------------------


def test_every_key_is_read(tmp_path: Path) -> None:
    definition = load_definition(write(tmp_path, GOOD))
    assert definition == Definition(
        name="ccd",
        version=3,
        description="One CCD.",
        dimensions=("instrument", "visit", "detector"),
        signal="image",
        python_type="package.module.Ccd",
        components={
            "image": ComponentDefinition(
                "image", "image", "The pixels.", required=True, getter="getImage", setter="setImage"
            ),
            "visit_info": ComponentDefinition("visit_info", "record", shared=("instrument", "visit")),
            "amplifiers": ComponentDefinition("amplifiers", "image", is_list=True),
            "flat": ComponentDefinition("flat", "image", input_only=True),
        },
    )
    assert list(definition.components) == ["image", "visit_info", "amplifiers", "flat"]
    assert definition.source == str(tmp_path / "ccd.yaml")
    assert definition.required == ("image",)
    assert definition.shared == {"visit_info": ("instrument", "visit")}
    assert repr(definition) == "<Definition 'ccd' version 3: image, visit_info, amplifiers, flat>"


def test_same_content_is_equal_whatever_the_source(tmp_path: Path) -> None:
    from_file = load_definition(str(write(tmp_path, GOOD)))
    content = yaml.safe_load(GOOD)
    before = copy.deepcopy(content)
    from_mapping = load_definition(content)
    assert content == before
    assert from_file == from_mapping
    assert hash(from_file) == hash(from_mapping)
    assert pickle.loads(pickle.dumps(from_file)) == from_file
    assert from_file != load_definition(content | {"version": 4})
    with pytest.raises(FileNotFoundError):
        load_definition(tmp_path / "nowhere.yaml")


# What is replaced in GOOD, by what, the line, and what the message must tell: the key, and what to do about it.
WRONG = [
    ("description:", "desciption:", 3, ["'desciption'", "did you mean 'description'?"]),
    ("required: true", "requird: true", 10, ["components.image", "'requird'", "did you mean 'required'?"]),
    ("required: true", "zzz: true", 10, ["'zzz'", "input_only", "kind", "setter"]),
    ("description: One CCD.", "input_only: true", 3, ["'input_only'", "misplaced", "belongs to a component"]),
    ("description: One CCD.", "kind: image", 3, ["'kind'", "misplaced"]),
    ("required: true", "components: {}", 10, ["components.image", "'components'", "misplaced", "top level"]),
    ("required: true", "signal: true", 10, ["'signal'", "misplaced"]),
    ("description: One CCD.", "version: 3", 3, ["'version'", "twice", "line 2"]),
    ("  flat: {", "  image: {", 16, ["components", "'image'", "twice", "line 8"]),
    ("{kind: image, list: true}", "{kind: image, kind: image}", 15, ["components.amplifiers", "'kind'", "twice"]),
    ("  flat:", "  off:", 16, ["'off'", "quote it"]),
    ("  flat:", "  ? [flat]\n  :", 16, ["components", "list or mapping"]),
    ("    required: true", "    <<: {required: true}", 10, ["components.image", "'<<'"]),
    ("description: One CCD.", "description: !!python/name:os.system ''", 3, ["python/name"]),
    ("{kind: image, list: true}", "!x {kind: image}", 15, ["components.amplifiers", "!x"]),
    ("One CCD.", "2020-13-01", 3, ["description", "2020-13-01", "quote it"]),
    ("One CCD.", '"\\U00110000"', 3, ["not valid YAML", "character"]),
    ("One CCD.", '"\\Uffffffff"', 3, ["not valid YAML", "character"]),
    ("[instrument, visit, detector]", "[instrument, visit", 5, ["not valid YAML"]),
    ("components:", "---\ncomponents:", 7, ["not valid YAML", "another document"]),
    ("{kind: image, list: true}", "{list: true}", 15, ["components.amplifiers", "'kind'", "missing"]),
    ("{kind: image, list: true}", "", 15, ["components.amplifiers", "mapping", "None"]),
    ("{kind: image, list: true}", "image", 15, ["components.amplifiers", "mapping", "'image'"]),
    ("kind: record", "kind: recrod", 14, ["visit_info.kind", "'recrod'", "did you mean 'record'?"]),
    ("kind: record", "kind: os.path", 14, ["visit_info.kind", "'os.path'", "a letter"]),
    ("version: 3", "version: 0", 2, ["version", "1 or more", "0"]),
    ("version: 3", "version: true", 2, ["version", "1 or more", "True"]),
    ("version: 3", "version: '3'", 2, ["version", "'3'"]),
    ("version: 3", "version: 3.0", 2, ["version", "3.0"]),
    ("name: ccd", "name: my-ccd", 1, ["name", "'my-ccd'"]),
    ("description: One CCD.", "description:", 3, ["description", "text", "None"]),
    ("The pixels.", "12", 11, ["components.image.description", "text", "12"]),
    ("dimensions: [instrument, visit, detector]", "dimensions: visit", 4, ["dimensions", "list", "'visit'"]),
    ("dimensions: [instrument, visit, detector]", "dimensions: []", 4, ["dimensions", "one or more"]),
    ("[instrument, visit, detector]", "[visit, visit]", 4, ["dimensions", "different"]),
    ("[instrument, visit, detector]", "[[visit]]", 4, ["dimensions", "names"]),
    ("required: true", "required: 'true'", 10, ["components.image.required", "true or false"]),
    ("list: true", "list: 1", 15, ["amplifiers.list", "true or false"]),
    ("[instrument, visit]}", "[]}", 14, ["visit_info.shared", "one or more"]),
    ("[instrument, visit]}", "[instrument, vsit]}", 14, ["visit_info.shared", "'vsit'", "did you mean 'visit'?"]),
    ("package.module.Ccd", "Ccd", 6, ["python_type", "'Ccd'", "package.module.Name"]),
    ("package.module.Ccd", "os.system('x')", 6, ["python_type", "import path"]),
    ("package.module.Ccd", ".module.Ccd", 6, ["python_type", "import path"]),
    ("package.module.Ccd", "'a:b:c'", 6, ["python_type", "import path"]),
    ("getImage", "getImage()", 12, ["image.getter", "method or attribute"]),
    ("setImage", "info.setImage", 13, ["image.setter", "method or attribute"]),
    ("  flat:", "  my-flat:", 16, ["components.my-flat", "'my-flat'", "a letter"]),
    ("  flat:", "  __class__:", 16, ["'__class__'", "a letter"]),
    (GOOD[GOOD.index("components:") :], "components: {}\n", 7, ["components", "one or more"]),
    (GOOD[GOOD.index("components:") :], "components: [image]\n", 7, ["components", "mapping"]),
    ("signal: image", "signal: imag", 5, ["signal", "'imag'", "did you mean 'image'?"]),
    ("signal: image", "signal: visit_info", 5, ["signal", "array or image", "'visit_info' is record"]),
    ("signal: image", "signal: amplifiers", 5, ["signal", "'amplifiers' is a list of image"]),
    ("{kind: image, list: true}", "{kind: list, list: true}", 15, ["amplifiers.list", "kind 'list'"]),
    ("    getter: getImage", "    input_only: true", 10, ["image.required", "contradicts input_only"]),
    ("input_only: true}", "input_only: true, getter: getFlat}", 16, ["flat.getter", "contradicts input_only"]),
    ("python_type:", "disassembler:", 12, ["image.getter", "contradicts the disassembler"]),
    ("python_type:", "assembler:", 13, ["image.setter", "contradicts the assembler"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "words"), WRONG)
def test_errors_name_file_line_key_and_remedy(old: str, new: str, line: int, words: list[str], tmp_path: Path) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(DefinitionError) as caught:
        load_definition(path)
    message = next(part for part in str(caught.value).split("\n") if part.startswith(f"{path}:{line}: "))
    for word in words:
        assert word in message


@pytest.mark.parametrize("key", ["name", "version", "components"])
def test_required_top_keys(key: str) -> None:
    content = {name: value for name, value in yaml.safe_load(GOOD).items() if name != key}
    with pytest.raises(DefinitionError, match=f"^<mapping>: the key '{key}' is missing"):
        load_definition(content)


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_reserved_component_names(name: str) -> None:
    with pytest.raises(DefinitionError, match=rf"<mapping>: components\.{name}: .* reserved"):
        make({name: "record"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((text, "should be a mapping") for text in (b"", b"# nothing\n", b"- name\n", b"text", b"3")),
        (b"name: \xff\xfe\n", "not valid YAML"),
        (b"name: " + b"[" * 1500, "nested too deeply"),
        (
            GOOD.replace("{kind: image, input_only: true}", "&a {kind: *a}").encode(),
            r"components\.flat\.kind: should be a name",
        ),
    ],
)
def test_content_that_is_no_definition(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "ccd.yaml").write_bytes(content)
    with pytest.raises(DefinitionError, match=rf"ccd\.yaml.*{message}"):
        load_definition(tmp_path / "ccd.yaml")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("version: 3", "version: x").replace("required:", "requird:").replace("flat:", "id:")
    with pytest.raises(DefinitionError) as caught:
        load_definition(write(tmp_path, text))
    assert [part.split(": ")[0].rpartition(":")[2] for part in str(caught.value).split("\n")] == ["2", "10", "16"]


def test_a_file_may_use_aliases_and_quotes(tmp_path: Path) -> None:
    text = GOOD.replace("[instrument, visit]}", "&keys [instrument, visit]}") + (
        "  camera: {kind: table, shared: *keys}\n"
    )
    definition = load_definition(write(tmp_path, text + "  'off': {kind: text}\n"))
    assert definition.shared["camera"] == ("instrument", "visit")
    assert definition.components["off"].kind == "text"


def test_what_is_allowed() -> None:
    definition = make(
        {
            "image": {"kind": "image", "required": False, "input_only": True},
            "amplifiers": {"kind": "table", "list": True, "shared": ("night",), "required": True},
            "all_parts": {"kind": "list", "list": False},
        },
        python_type="a.B",
        assembler="a:b.c",
        disassembler="a.b:c",
        signal="image",
    )
    assert definition.shared == {"amplifiers": ("night",)}
    accessors = {"image": {"kind": "image", "getter": "image", "setter": "_image"}}
    assert make(accessors, python_type="a.B").components["image"].setter == "_image"
    assert make({"image": {"kind": "image", "setter": "put"}}, disassembler="a.b").components["image"].setter == "put"


TOP_KEYS = [
    "name", "version", "description", "dimensions", "signal", "python_type", "assembler", "disassembler", "components",
]  # fmt: skip
COMPONENT_KEYS = ["kind", "description", "required", "shared", "list", "input_only", "getter", "setter"]


@given(st.data())
def test_misspelt_keys_get_the_nearest(data: st.DataObject) -> None:
    in_component = data.draw(st.booleans())
    key = data.draw(st.sampled_from(COMPONENT_KEYS if in_component else TOP_KEYS))
    i = data.draw(st.integers(1, len(key) - 1))
    misspelt = key[:i] + data.draw(st.sampled_from([key[i + 1 :], key[i] + key[i:]]))
    content = yaml.safe_load(GOOD)
    (content["components"]["image"] if in_component else content)[misspelt] = "x"
    with pytest.raises(DefinitionError) as caught:
        load_definition(content)
    path = "components.image: " if in_component else ""
    assert str(caught.value) == f"<mapping>: {path}unknown key {misspelt!r}; did you mean {key!r}?"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
all_keys = st.sampled_from([*TOP_KEYS, *COMPONENT_KEYS, "image"]) | st.text(max_size=3) | st.integers()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(all_keys, inner, max_size=4), max_leaves=12
)


@settings(max_examples=50)
@given(anything)
def test_any_content_gives_a_definition_error(content: Any) -> None:
    with pytest.raises(DefinitionError):
        load_definition({"name": "x", "version": 1, "components": {"image": content}})
    if isinstance(content, dict):
        with pytest.raises(DefinitionError):
            load_definition(content)
    elif not isinstance(content, str):
        with pytest.raises(WrongTypeError):
            load_definition(content)


@given(st.text("ab1_-.: \n[]{},&*!?|>'\"#%@0x2023", max_size=40))
def test_any_text_gives_a_definition_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.getbasetemp(), text, "any.yaml")
    with pytest.raises(DefinitionError, match=r"any\.yaml"):
        load_definition(path)


# ---- Finding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "required", "shared", "signal", "dimensions"),
    [
        ("exposure", ["image"], ["visit_info"], "image", ["instrument", "visit", "detector"]),
        ("visit", ["visit_info"], [], None, ["instrument", "visit"]),
        ("source_catalog", ["table"], ["visit_info"], None, ["instrument", "visit", "detector"]),
        ("raw", ["amplifiers"], ["visit_info"], None, ["instrument", "exposure", "detector"]),
    ],
)
def test_shipped(name: str, required: list[str], shared: list[str], signal: str | None, dimensions: list[str]) -> None:
    definition = get_definition(name)
    assert definition is get_definition(name)
    assert definition.name == name
    assert list(definition.required) == required
    assert list(definition.shared) == shared
    assert definition.signal == signal
    assert list(definition.dimensions) == dimensions
    assert definition.description
    assert all(component.description for component in definition.components.values())


def test_unknown_definition_names_the_nearest() -> None:
    with pytest.raises(DefinitionError, match=r"no definition 'Exposure' .*; did you mean 'exposure'"):
        get_definition("Exposure")
    with pytest.raises(DefinitionError, match=r"no definition 'qqq' .*; there are: .*exposure.*source_catalog"):
        get_definition("qqq")


def test_register(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("ccd", "registered"))
    definition = register_definition(path)
    assert get_definition("registered") is definition
    assert "registered" in definition_names()
    assert {"exposure", "raw", "source_catalog", "visit"} <= set(definition_names())
    assert register_definition(load_definition(path)) is definition
    other = write(tmp_path, GOOD.replace("ccd", "registered").replace("One CCD", "Another"), "other.yaml")
    with pytest.raises(DefinitionError, match="name: 'registered' is that of another definition") as caught:
        register_definition(other)
    assert str(other) in str(caught.value)
    assert str(path) in str(caught.value)
    assert get_definition("registered") is definition


def test_shipped_names_are_taken() -> None:
    exposure = get_definition("exposure")
    assert register_definition(load_definition(exposure.source)) is exposure
    with pytest.raises(DefinitionError, match="'exposure' is that of another"):
        register_definition(make({"image": "image"}, name="exposure"))


def test_kinds_of_installed_packages_are_known(tmp_path: Path) -> None:
    # The import of the plug-in would fail: a definition only needs to know that there is one.
    metadata = tmp_path / "spectra-1.0.dist-info"
    metadata.mkdir()
    write(metadata, "Metadata-Version: 2.1\nName: spectra\nVersion: 1.0\n", "METADATA")
    write(metadata, "[compositeh5.kinds]\nspectrum = spectra.no_such_module\n", "entry_points.txt")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from compositeh5.composite.definitions import load_definition
from compositeh5.errors import DefinitionError
for kind in "spectrum", "spectrun":
    try:
        print(load_definition({"name": "a", "version": 1, "components": {"b": {"kind": kind}}}))
    except DefinitionError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    good, bad = done.stdout.splitlines()
    assert good == "<Definition 'a' version 1: b>"
    assert bad.endswith("knows the kind 'spectrun'; did you mean 'spectrum'?")


# ---- Checking -----------------------------------------------------------------------------------------------


CHECKED = make(
    {
        "image": {"kind": "image", "required": True},
        "psf": "psf",
        "amplifiers": {"kind": "image", "list": True},
        "steps": {"kind": "table", "list": True, "required": True},
    }
)
LINK = Link(id="0" * 32, component="steps", kind="list", digest="", uri="/visit.h5")


@pytest.mark.parametrize(
    "components",
    [
        {"image": 1, "steps": []},
        {"image": 0, "steps": (), "psf": None, "amplifiers": None},
        {"image": np.zeros(2), "steps": [1], "psf": 2, "amplifiers": [np.zeros(3)]},
        {"image": 1, "steps": LINK},
    ],
)
def test_check_accepts(components: dict[str, Any]) -> None:
    CHECKED.check(components)


@pytest.mark.parametrize(
    ("components", "problems"),
    [
        ({"image": 1}, ["the required component 'steps' is absent"]),
        ({"image": None, "steps": []}, ["the required component 'image' is absent"]),
        (
            {"image": 1, "steps": [], "pfs": 1},
            ["there is no component 'pfs'; did you mean 'psf'?"],
        ),
        ({"image": 1, "steps": [], 3: None}, ["there is no component 3; there are: amplifiers, image, psf, steps"]),
        (
            {"image": 1, "steps": "abc", "amplifiers": np.zeros(2)},
            [
                "the component 'amplifiers' should be a list of image, not a ndarray",
                "the component 'steps' should be a list of table, not a str",
            ],
        ),
        (
            {"imge": 1},
            [
                "there is no component 'imge'; did you mean 'image'?",
                "the required component 'image' is absent",
                "the required component 'steps' is absent",
            ],
        ),
    ],
)
def test_check_tells_all_problems(components: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        CHECKED.check(components)
    assert str(caught.value) == "definition 'test' (<mapping>): " + "; ".join(problems)
