"""Objects of users' own classes as composites, and composites as such objects."""

from __future__ import annotations

import functools
import sys
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import make_definition as make
from support import visit_info

import compositeh5 as ch5
from compositeh5.composite import definitions
from compositeh5.composite.definition import Definition
from compositeh5.composite.definitions import register_definition
from compositeh5.composite.python_objects import assemble, definitions_of, disassemble
from compositeh5.composite.session import current
from compositeh5.errors import BrokenLinkError, DefinitionError, EncodeError


def here(name: str) -> str:
    """The import path of something in this module."""
    return f"{__name__}:{name}"


@pytest.fixture
def _no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "_registered", {})


PARTS = make({"image": "image", "visit_info": "record", "psf": "psf", "amplifiers": {"kind": "image", "list": True}})
EXPLICIT = make(
    {
        "image": {"kind": "image", "getter": "getImage", "setter": "setImage"},
        "visit_info": {"kind": "record", "getter": "visitInfo", "setter": "_visit_info"},
        "psf": {"kind": "psf", "getter": "get_psf", "setter": "set_psf"},
        "amplifiers": {"kind": "image", "list": True, "setter": "setAmplifiers"},
    }
)


@dataclass
class Data:
    image: Any = None
    visit_info: Any = None
    psf: Any = field(default=None, kw_only=True)
    amplifiers: Any = field(default=None, init=False)


@dataclass(slots=True)
class Slots:
    image: Any = None
    visit_info: Any = None
    psf: Any = None
    amplifiers: Any = field(default=None, init=False)


class Keywords:
    def __init__(self, **components: Any) -> None:
        self.__dict__.update(components)


class Lsst:
    """Get and set methods, and names of attributes that say nothing."""

    def __init__(self) -> None:
        self._a = self._visit_info = self._c = self._d = None

    def getImage(self) -> Any:
        return self._a

    def setImage(self, value: Any) -> None:
        self._a = value

    @property
    def visitInfo(self) -> Any:
        return self._visit_info

    def get_psf(self, default: Any = None) -> Any:
        return default if self._c is None else self._c

    def set_psf(self, value: Any, *, copy: bool = False) -> None:
        self._c = value

    def amplifiers(self) -> Any:
        return self._d

    setAmplifiers = functools.partialmethod(object.__setattr__, "_d")


class Properties:
    psf = None

    def __init__(self, image: Any = None) -> None:
        self._image = image
        self._info = None

    @property
    def image(self) -> Any:
        return self._image

    @property
    def visit_info(self) -> Any:
        return self._info

    @visit_info.setter
    def visit_info(self, value: Any) -> None:
        self._info = value

    @functools.cached_property
    def amplifiers(self) -> Any:
        return None


values = st.integers(-1, 1) | st.sampled_from(["", "x"]) | st.just(()) | st.just(False)


@pytest.mark.parametrize("cls", [Data, Slots, Keywords, Lsst, Properties])
@given(
    components=st.fixed_dictionaries(
        {},
        optional={
            "image": st.none() | values,
            "visit_info": st.none() | values,
            "psf": st.none() | values,
            "amplifiers": st.none() | st.lists(values),
        },
    )
)
def test_round_trip(cls: type, components: dict[str, Any]) -> None:
    definition = EXPLICIT if cls is Lsst else PARTS
    before = dict(components)
    obj = assemble(components, definition, cls)
    assert type(obj) is cls
    assert components == before
    found = disassemble(obj, definition)
    present = {name: components[name] for name in definition.components if components.get(name) is not None}
    assert found == present
    assert list(found) == list(present)
    assert all(found[name] is value for name, value in present.items())


@dataclass
class Spectrum:
    flux: Any
    note: str | None = None
    info: Any = None


SPECTRUM = {"flux": {"kind": "array", "required": True}, "note": "text", "info": "record"}


def spectrum_definition(name: str = "spectrum", **top: Any) -> Definition:
    return make(SPECTRUM, name=name, **{"python_type": here("Spectrum"), **top})


@pytest.mark.usefixtures("_no_others")
def test_through_a_file(tmp_path: Path) -> None:
    register_definition(spectrum_definition())
    seen = Spectrum(np.arange(3.0), info={"seeing": 0.5})
    attributes: dict[str, Any] = {
        "data_id": {"visit": 7}, "dataset_type": "spec", "run": "r", "stage": "isr",
        "id": "7f0c7d33-4f7b-4c46-9a2e-5d9b0b7a9a01", "provenance": {"why": "test"},
    }  # fmt: skip
    composite = ch5.Composite.of(seen, "spectrum", **attributes)
    assert {name: getattr(composite, name) for name in attributes} == attributes
    assert composite.component_stage("flux") == "isr"
    assert composite.absent == ()
    composite.write(tmp_path / "spectrum.h5")
    with ch5.open(tmp_path / "spectrum.h5") as stored:
        assert stored.definition == "spectrum"
        again = stored.assemble()
    assert type(again) is Spectrum
    np.testing.assert_array_equal(again.flux, seen.flux)
    assert again.note is None
    assert again.info["seeing"] == 0.5


@pytest.mark.usefixtures("_no_others")
def test_the_class_and_the_definition_may_be_passed(tmp_path: Path) -> None:
    other = spectrum_definition("other")
    composite = ch5.Composite.of(Spectrum([1, 2]), other)
    with pytest.raises(DefinitionError, match=r"no definition 'other' .*register_definition"):
        composite.assemble()
    assert composite.assemble(definition=other).flux.tolist() == [1, 2]
    assert type(composite.assemble(Keywords, other)) is Keywords
    register_definition(other)
    assert type(composite.assemble(Keywords)) is Keywords
    assert ch5.Composite(None, flux=np.ones(1)).assemble(definition="other").flux.tolist() == [1]
    with pytest.raises(DefinitionError, match="no definition ''"):
        ch5.Composite(None, flux=np.ones(1)).assemble()


def test_a_value_of_another_kind_is_an_error_of_the_composite() -> None:
    with pytest.raises(EncodeError, match="component 'info'"):
        ch5.Composite.of(Spectrum([1], info=3), spectrum_definition())


def test_links_among_the_components(tmp_path: Path) -> None:
    definition = spectrum_definition()
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id={"visit": 1})
    visit.write(tmp_path / "visit.h5")
    ch5.Composite.of(Spectrum([1], info=visit.link("visit_info")), definition).write(tmp_path / "s.h5")
    with ch5.open(tmp_path / "s.h5") as stored:
        assert list(stored.links) == ["info"]
        assert stored.assemble(definition=definition).info == visit["visit_info"]
    (tmp_path / "visit.h5").unlink()
    current().clear_cache()
    with ch5.open(tmp_path / "s.h5") as stored, pytest.raises(BrokenLinkError):
        stored.assemble(definition=definition)


def test_other_versions_of_components_are_not_given_to_the_object(tmp_path: Path) -> None:
    definition = spectrum_definition()
    ch5.Composite.of(Spectrum([1]), definition, stage="isr").write(tmp_path / "one.h5")
    with ch5.open(tmp_path / "one.h5") as one:
        one.overlay(flux=np.array([2]), keep="flux", stage="calib").write(tmp_path / "two.h5")
    with ch5.open(tmp_path / "two.h5") as two:
        assert two.versions("flux") == ("calib", "isr")
        assert two.assemble(definition=definition).flux.tolist() == [2]


class Outer:
    @dataclass
    class Inner:
        image: Any

    @staticmethod
    def build(components: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "built", components

    @staticmethod
    def take(obj: Any) -> dict[str, Any]:
        return obj[1]


def test_the_python_type_of_the_definition() -> None:
    definition = make({"image": "image"}, python_type=here("Data"))
    assert assemble({"image": 3}, definition) == Data(3)
    assert type(assemble({"image": 3}, definition, Properties)) is Properties
    assert assemble({"image": 3}, make({"image": "image"}, python_type=here("Outer.Inner"))) == Outer.Inner(3)


@pytest.mark.usefixtures("_no_others")
def test_the_definitions_of_a_class() -> None:
    first = register_definition(spectrum_definition("first"))
    second = register_definition(spectrum_definition("second", python_type=f"{__name__}.Spectrum"))
    nested = register_definition(make({"image": "image"}, name="nested", python_type=here("Outer.Inner")))
    # Another class of the same name, and one that is not there.
    register_definition(make({"image": "image"}, name="another", python_type="specutils_that_is_not_there.Slots"))
    assert definitions_of(Spectrum) == [first, second]
    assert definitions_of(Outer.Inner) == [nested]
    assert definitions_of(Data) == []
    assert definitions_of(np.ndarray) == []


def test_explicit_assembler_and_disassembler_come_first() -> None:
    definition = make(
        {"image": "image", "psf": "psf", "flat": {"kind": "image", "input_only": True}},
        python_type=here("Data"),
        assembler=here("Outer.build"),
        disassembler=here("Outer.take"),
    )
    assert assemble({"psf": None, "flat": 1, "image": 2}, definition, Data) == ("built", {"image": 2, "flat": 1})
    assert disassemble(("", {"psf": None, "flat": 1, "image": 2}), definition) == {"image": 2}
    with pytest.raises(DefinitionError, match="tuple object: there is no component 'imag'; did you mean 'image'"):
        disassemble(("", {"imag": 2}), definition)
    with pytest.raises(DefinitionError, match=r"disassembler: '.*Outer\.take' should return a mapping .* not a list"):
        disassemble(("", ["image"]), definition)


def test_values_that_can_be_called_are_not_called() -> None:
    class Psf:
        def __call__(self, *args: Any) -> None:
            raise AssertionError("called")

    class Lazy:
        @functools.cached_property
        def psf(self) -> Psf:
            return psf

    class OnFirstUse:
        def __get__(self, obj: Any, cls: type | None = None) -> Psf:
            return psf

    class Lazier:
        psf = OnFirstUse()

    psf = Psf()
    explicit = make({"psf": {"kind": "psf", "getter": "psf", "setter": "psf"}})
    for definition in (PARTS, explicit):
        obj = assemble({"psf": psf}, definition, Properties)
        assert disassemble(obj, definition)["psf"] is psf
        assert disassemble(Lazy(), definition)["psf"] is psf
        assert disassemble(Lazier(), definition)["psf"] is psf


def test_input_only_is_given_but_not_taken() -> None:
    definition = make({"image": "image", "psf": {"kind": "psf", "input_only": True}})
    data = assemble({"image": 1, "psf": 2}, definition, Data)
    assert data.psf == 2
    assert disassemble(data, definition) == {"image": 1}


def test_named_tuples() -> None:
    pair = namedtuple("pair", ["image", "psf"])
    assert assemble({"image": 1, "psf": 2}, PARTS, pair) == (1, 2)
    assert disassemble(pair(1, None), PARTS) == {"image": 1}


def test_extension_types_without_signatures() -> None:
    sphgeom = pytest.importorskip("lsst.sphgeom")
    definition = make({name: {"kind": "record", "getter": f"get{name.title()}"} for name in ("lon", "width")})
    box = sphgeom.Box.full()
    assert disassemble(box, definition) == {"lon": box.getLon(), "width": box.getWidth()}
    with pytest.raises(DefinitionError, match="parameters of Box can't be known; give an assembler"):
        assemble({"lon": box.getLon()}, definition, sphgeom.Box)


# ---- What can't be built or taken apart ---------------------------------------------------------------------


class Strict:
    """Needs two arguments, and counts how often it was called."""

    built = 0

    def __init__(self, image: Any, scale: float, psf: Any = None) -> None:
        Strict.built += 1


class PositionalOnly:
    def __init__(self, image: Any, /) -> None:
        Strict.built += 1


def without_arguments() -> None:
    raise AssertionError("called")


class Methods:
    image = 5

    def get_image(self, band: str) -> Any:
        raise AssertionError("called")

    def set_image(self, band: str, value: Any) -> None:
        raise AssertionError("called")

    def psf(self, x: float, y: float) -> Any:
        raise AssertionError("called")


class Proxy:
    def __getattr__(self, name: str) -> Any:
        return 1


class ReadOnly:
    def __init__(self, image: Any = None) -> None:
        pass

    @property
    def psf(self) -> None:
        return None


def accessed(**keys: Any) -> Definition:
    """A definition of an image with some keys."""
    return make({"image": {"kind": "image", **keys}})


@pytest.mark.parametrize(
    ("components", "definition", "cls", "message"),
    [
        (
            {"image": 3, "psf": 2},
            make({"image": "image", "psf": {"kind": "psf", "setter": "set_psf"}}),
            Strict,
            r"definition 'test' \(<mapping>\): Strict\(image\) can't be called: missing a required argument: 'scale'",
        ),
        ({"image": 3}, PARTS, PositionalOnly, r"PositionalOnly\(\) can't be called: .*'image'"),
        (
            {"image": 1},
            make({"image": "image"}, assembler="json.decoder"),
            None,
            r"assembler can't be called: .*is not a callable object",
        ),
        (
            {"image": 6},
            accessed(getter="get_image", setter="set_image"),
            Methods,
            r"components\.image: .*Methods\.set_image\(value\) can't be called: missing",
        ),
        ({"psf": 6}, PARTS, Methods, "nothing in Methods accepts it"),
        (
            {"image": 1, "visit_info": 1},
            PARTS,
            ReadOnly,
            r"components\.visit_info: nothing in ReadOnly accepts it",
        ),
        ({"image": 1, "psf": 1}, PARTS, ReadOnly, r"components\.psf: nothing in ReadOnly accepts it"),
        ({"image": 1}, accessed(setter="psg"), ReadOnly, r"accepts it.* 'psg'.*; did you mean 'psf'\?"),
        # Components are checked before the assembler is called, or looked for.
        ({}, make(SPECTRUM, assembler=here("raising")), None, "'flux' is absent"),
        ({"image": 1, "imag": None}, make({"image": "image"}, assembler=here("raising")), None, "no component 'imag'"),
        ({"image": 1}, PARTS, None, "<mapping>.*neither an assembler nor a python_type"),
    ],
)
def test_what_cannot_be_assembled(
    components: dict[str, Any], definition: Definition, cls: type | None, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        assemble(components, definition, cls)
    assert Strict.built == 0


@pytest.mark.parametrize(
    ("obj", "definition", "message"),
    [
        (1, make({"image": "image"}, disassembler=here("without_arguments")), "disassembler can't be called: too many"),
        (
            Methods(),
            accessed(getter="get_image"),
            r"components\.image: .*Methods\.get_image\(\) can't be called: missing",
        ),
        (Methods(), PARTS, r"components\.psf: .*Methods\.psf\(\) can't be called: missing"),
        (Keywords(), accessed(required=True), "nothing in Keywords gives it; give it an attribute 'image'"),
        (Data(), accessed(required=True), "Data object: the required component 'image' is absent"),
        (Lsst(), accessed(getter="get_pfs"), r"did you mean 'get_psf'\?"),
        (Keywords(amplifiers=3), PARTS, "'amplifiers' should be a list of image, not a int"),
        # Attributes that are made up aren't overlooked.
        (Proxy(), PARTS, "nothing in Proxy gives it; .* a disassembler"),
    ],
)
def test_what_cannot_be_taken_apart(obj: Any, definition: Definition, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        disassemble(obj, definition)


# ---- Exceptions of the user's code --------------------------------------------------------------------------


class Oops(Exception):
    pass


ERRORS = [TypeError("missing argument"), AttributeError("image"), ValueError("no"), KeyError("image"), Oops()]


def raising(what: Any) -> None:
    raise raised


raised: Exception = Oops()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_exceptions_come_out_unchanged(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Constructor:
        def __init__(self, image: Any) -> None:
            raise error

    class Method:
        def setImage(self, value: Any) -> None:
            raise error

        def getImage(self) -> Any:
            raise error

    class Property:
        @property
        def image(self) -> Any:
            raise error

        @image.setter
        def image(self, value: Any) -> None:
            raise error

    class Cached:
        @functools.cached_property
        def image(self) -> Any:
            raise error

    monkeypatch.setattr(sys.modules[__name__], "raised", error)
    plain = make({"image": "array"})
    methods = make({"image": {"kind": "array", "getter": "getImage", "setter": "setImage"}})
    functions = make({"image": "array"}, assembler=here("raising"), disassembler=here("raising"))
    for cls, definition in ((Constructor, plain), (Method, methods), (Property, plain), (None, functions)):
        with pytest.raises(type(error)) as caught:
            ch5.Composite(definition, image=np.arange(3)).assemble(cls, definition)
        assert caught.value is error
        assert caught.value.__cause__ is None
    for obj, definition in ((Method(), methods), (Property(), plain), (Cached(), plain), (None, functions)):
        with pytest.raises(type(error)) as caught:
            ch5.Composite.of(obj, definition)
        assert caught.value is error
        assert caught.value.__cause__ is None


# ---- Import paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_package.module.Name", ["no module 'no_such_package'"]),
        ("json.no_such_module:Name", ["no module 'json.no_such_module'"]),
        ("json.decoder:JSONDecoder.no", ["no attribute 'no'"]),
        ("json.JSONDecodr", ["'JSONDecodr'", "did you mean 'JSONDecoder'?"]),
    ],
)
def test_import_paths_that_lead_nowhere(path: str, words: list[str]) -> None:
    for key in ("python_type", "assembler"):
        with pytest.raises(DefinitionError) as caught:
            assemble({"image": 1}, make({"image": "image"}, **{key: path}))
        for word in ["<mapping>", key, repr(path), *words]:
            assert word in str(caught.value)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError) == ("no module" in words[0])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError", RuntimeError),
        ("import no_such_module", ModuleNotFoundError),
        ("from json import no_such_name", ImportError),
        ("1 +", SyntaxError),
    ],
)
def test_errors_inside_an_imported_module(
    code: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_with_errors.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    definition = make({"image": "image"}, python_type="module_with_errors.Name")
    with pytest.raises(error) as caught:
        assemble({"image": 1}, definition)
    assert type(caught.value) is error


def test_nothing_is_imported_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needed_late.py").write_text("def build(components):\n    return components\n")
    monkeypatch.syspath_prepend(tmp_path)
    definition = make({"image": "image"}, assembler="needed_late.build")
    definition.check({"image": 1})
    assert "needed_late" not in sys.modules
    assert assemble({"image": 1}, definition) == {"image": 1}
