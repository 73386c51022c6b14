"""Definitions: what a type of composite is made of, and how its Python objects are built and taken apart.

A definition is a YAML file. `load_definition` reads one, `get_definition` returns one that is shipped
(``definitions/*.yaml``) or was registered with `register_definition`:

.. code-block:: yaml

    name: exposure                # letters, digits, _
    version: 1                    # 1 or more; raise it when the meaning of a component changes
    description: A calibrated image of one detector.             # optional
    dimensions: [instrument, visit, detector]    # optional: the keys of the data ID of such composites
    signal: image                 # optional: the component that viewers show (of kind image or array)
    python_type: package.module.Class            # optional: the class of the Python objects
    assembler: package.module:function           # optional: function(components: dict) -> object
    disassembler: package.module:function        # optional: function(object) -> mapping
    components:                   # one or more
      image: {kind: image, required: true}
      visit_info: {kind: record, shared: [instrument, visit], getter: getVisitInfo, setter: setVisitInfo}
      amplifiers: {kind: image, list: true}
      flat: {kind: image, input_only: true, description: Given to the object, never taken from it.}

The keys of a component are

``kind``
    How it is encoded (of each member, if it is list-valued). The only key that must be there.
``description``
    What it is.
``required``
    Whether a composite without it is an error (default: false).
``shared``
    The data ID keys under which it has a file of its own, to which composites link. They must be among the
    ``dimensions``, if these are given.
``list``
    Whether its value is a list (default: false).
``input_only``
    Whether it is only given to the Python object and never taken from it (default: false).
``getter``, ``setter``
    Names of a method or attribute of the Python object, where they aren't those that `assemble` and
    `disassemble` infer.

Every other key, a key at the wrong level, a duplicate key, and keys that contradict each other are errors;
what is found is reported together, with file and line. Import paths are ``package.module.Name`` or
``package.module:Qualified.Name``. They come from definitions only, that is from configuration: nothing in a
data file is ever imported.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, partial, partialmethod, singledispatchmethod
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import kinds
from .errors import DefinitionError
from .links import Link

if TYPE_CHECKING:
    import yaml

__all__ = [
    "ComponentDefinition",
    "Definition",
    "assemble",
    "definition_names",
    "disassemble",
    "get_definition",
    "load_definition",
    "register_definition",
]

# Attributes and other entries of a composite group: a component of that name would be mistaken for them.
RESERVED_NAMES = frozenset({"id", "data_id", "dataset_type", "run", "stage", "definition", "components", "provenance"})

_SIGNAL_KINDS = ("array", "image")
_MISSING: Any = object()

# Descriptors of methods that can't be called themselves.
_METHODS = (classmethod, partialmethod, singledispatchmethod)


@dataclass(frozen=True)
class ComponentDefinition:
    """What a definition says about one component; see the module for the meaning of each field."""

    name: str
    kind: str
    description: str = ""
    required: bool = False
    shared: tuple[str, ...] = ()
    is_list: bool = False
    input_only: bool = False
    getter: str | None = None
    setter: str | None = None


@dataclass(frozen=True, repr=False)
class Definition:
    """A type of composite; see the module for the meaning of each field.

    Make it with `load_definition`, `get_definition` or `from_mapping`, which check it. Two definitions are
    equal if they say the same, wherever they come from.
    """

    name: str
    version: int
    components: Mapping[str, ComponentDefinition] = field(hash=False)
    """The components by name, in the order of the file."""
    description: str = ""
    dimensions: tuple[str, ...] = ()
    signal: str | None = None
    python_type: str | None = None
    assembler: str | None = None
    disassembler: str | None = None
    source: str = field(default="", compare=False)
    """Where it comes from, for messages."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], source: str = "<mapping>") -> Definition:
        """Return the definition that a mapping of the structure of the YAML files describes.

        Parameters
        ----------
        mapping : mapping
            What a YAML file would hold.
        source : str, optional
            Where it comes from, for messages.

        Raises
        ------
        DefinitionError
            If it is wrong; the message lists every problem.
        """
        return _Reader(source).read(mapping)

    def __repr__(self) -> str:
        return f"<Definition {self.name!r} version {self.version}: {', '.join(self.components)}>"

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the components without which a composite is incomplete."""
        return tuple(name for name, component in self.components.items() if component.required)

    @property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """The data ID keys of each component that has a file of its own."""
        return {name: component.shared for name, component in self.components.items() if component.shared}

    def check(self, components: Mapping[str, object]) -> None:
        """Check that components are those of a composite of this type.

        Only the values of required and of list-valued components are looked at.

        Parameters
        ----------
        components : mapping
            Component values, or links to components, by name; None is the same as a missing one.

        Raises
        ------
        DefinitionError
            If a required component is absent, one isn't in the definition, or a list-valued one isn't a list,
            tuple or link; the message lists every problem.
        """
        if problems := _problems(components, self):
            raise DefinitionError(f"{_describe(self)}: {'; '.join(problems)}")


# ---- Finding definitions -----------------------------------------------------------------------------------

_registered: dict[str, Definition] = {}


def load_definition(path: str | os.PathLike[str] | Traversable) -> Definition:
    """Read a definition from a YAML file.

    Parameters
    ----------
    path : str, path-like or resource
        The file.

    Raises
    ------
    DefinitionError
        If it isn't YAML, or not a definition; the message lists every problem, with its line.
    OSError
        If the file can't be read.
    """
    import yaml

    file = path if isinstance(path, Traversable) else Path(path)
    reader = _Reader(str(path))
    try:
        loader = yaml.SafeLoader(file.read_bytes())
        root = loader.get_single_node()
        content = None if root is None else reader.plain(root, (), loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DefinitionError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: not valid YAML: {error}") from error
    except RecursionError:
        raise DefinitionError(f"{path}: nested too deeply") from None
    return reader.read(content)


def get_definition(name: str) -> Definition:
    """Return a definition that is shipped with this package or was registered.

    Parameters
    ----------
    name : str
        Its name; upper and lower case differ.

    Raises
    ------
    DefinitionError
        If there is none of that name.
    """
    if name in _registered:
        return _registered[name]
    if name in _shipped_files():
        return _load_shipped(name)
    raise DefinitionError(f"there is no definition {name!r}{_suggest(name, definition_names())}")


def register_definition(definition: Definition | str | os.PathLike[str]) -> Definition:
    """Make a definition known to `get_definition` in this process.

    Parameters
    ----------
    definition : `Definition`, str or path-like
        The definition, or its YAML file.

    Returns
    -------
    definition : `Definition`
        The one that `get_definition` gives from now on.

    Raises
    ------
    DefinitionError
        If it is wrong, or another one that says something different already has its name.
    """
    if not isinstance(definition, Definition):
        definition = load_definition(definition)
    if definition.name in _shipped_files():
        known = _load_shipped(definition.name)
    else:
        known = _registered.setdefault(definition.name, definition)
    if known != definition:
        raise DefinitionError(
            f"{definition.source}: name: {definition.name!r} is that of another definition, from "
            f"{known.source}; give this one a name of its own"
        )
    return known


def definition_names() -> list[str]:
    """Return the names of all definitions that `get_definition` knows, sorted."""
    return sorted({*_shipped_files(), *_registered})


@cache
def _shipped_files() -> Mapping[str, Traversable]:
    folder = files(__package__) / "definitions"
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}


@cache
def _load_shipped(name: str) -> Definition:
    return load_definition(_shipped_files()[name])


# ---- Checking what a definition says -----------------------------------------------------------------------


class _Key(NamedTuple):
    """What the value of a key must be."""

    expected: str
    test: Callable[[Any], bool]
    required: bool = False


def _text(expected: str, pattern: str = r"(?s:.*)") -> _Key:
    return _Key(expected, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"

_ANY_TEXT = _text("text")
_NAME = _text("a name (a letter, then letters, digits and _)", r"[A-Za-z][A-Za-z0-9_]*")
_NAMES = _Key(
    "a list of one or more different names",
    lambda value: (
        isinstance(value, (list, tuple)) and all(map(_NAME.test, value)) and 0 < len(value) == len(set(value))
    ),
)
_BOOL = _Key("true or false", lambda value: isinstance(value, bool))
_MEMBER = _text("the name of a method or attribute", _IDENTIFIER)
_IMPORT_PATH = _text(
    "an import path, package.module.Name or package.module:Qualified.Name",
    rf"{_PATH}:{_PATH}|{_PATH}\.{_IDENTIFIER}",
)

_DEFINITION_KEYS = {
    "name": _NAME._replace(required=True),
    "version": _Key("a whole number, 1 or more", lambda value: type(value) is int and value >= 1, required=True),
    "description": _ANY_TEXT,
    "dimensions": _NAMES,
    "signal": _NAME,
    "python_type": _IMPORT_PATH,
    "assembler": _IMPORT_PATH,
    "disassembler": _IMPORT_PATH,
    "components": _Key(
        "a mapping of one or more components",
        lambda value: isinstance(value, Mapping) and len(value) > 0,
        required=True,
    ),
}

_COMPONENT_KEYS = {
    "kind": _NAME._replace(required=True),
    "description": _ANY_TEXT,
    "required": _BOOL,
    "shared": _NAMES,
    "list": _BOOL,
    "input_only": _BOOL,
    "getter": _MEMBER,
    "setter": _MEMBER,
}

# components.<name>.shared[i]: what is deeper is wrong wherever it stands, and an alias may make it endless.
_MAX_DEPTH = 4

_TEXT_TAG = "tag:yaml.org,2002:str"
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Reader:
    """Turns what a file or a mapping says into a `Definition`, and collects all that is wrong with it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[tuple[str, ...], int] = {}
        self.problems: list[str] = []

    def plain(self, node: yaml.Node, path: tuple[str, ...], loader: yaml.SafeLoader) -> Any:
        """Return a YAML node as dict, list or scalar; keep the line of each key, report duplicate ones."""
        import yaml

        if len(path) > _MAX_DEPTH:
            return None
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
            self.problem(path, f"the tag {node.tag!r} is not allowed", node.start_mark.line + 1)
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, (*path, str(i)), loader) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            result = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if key_node.tag != _TEXT_TAG:
                    text = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                    self.problem(path, f"{text!r} is not text for YAML, as keys must be; quote it", line)
                    continue
                key: str = key_node.value
                inner = (*path, key)
                if key in result:
                    self.problem(path, f"key {key!r} is there twice, first on line {self.lines[inner]}", line)
                else:
                    self.lines[inner] = line
                    result[key] = self.plain(value_node, inner, loader)
            return result
        try:
            return loader.construct_object(node)
        except ValueError as error:
            # What looks like a date or number to YAML, but isn't one.
            self.problem(path, f"{node.value!r}: {error}; quote it if it is text", node.start_mark.line + 1)
            return None

    def read(self, content: Any) -> Definition:
        """Return the definition, or raise a `DefinitionError` with all problems."""
        top = self.checked(content, (), _DEFINITION_KEYS)
        components = {name: self.component(name, entry) for name, entry in top.pop("components", {}).items()}
        self.raise_problems()
        top["dimensions"] = tuple(top.get("dimensions", ()))
        definition = Definition(components=components, source=self.source, **top)
        for component in components.values():
            self.check_component(component, definition)
        self.check_signal(definition)
        self.raise_problems()
        return definition

    def component(self, name: Any, entry: Any) -> ComponentDefinition:
        """Return the definition of one component; one that is wrong lacks what was wrong."""
        path = ("components", str(name))
        if not _NAME.test(name):
            self.problem(path, f"the name should be {_NAME.expected}, not {name!r}")
        elif name in RESERVED_NAMES:
            self.problem(path, f"the name {name!r} is reserved ({', '.join(sorted(RESERVED_NAMES))}); take another")
        keys = self.checked(entry, path, _COMPONENT_KEYS)
        return ComponentDefinition(
            name=name,
            kind=keys.pop("kind", ""),
            shared=tuple(keys.pop("shared", ())),
            is_list=keys.pop("list", False),
            **keys,
        )

    def checked(self, content: Any, path: tuple[str, ...], schema: Mapping[str, _Key]) -> dict[str, Any]:
        """Return the entries of a mapping that are as the schema wants them; report the others."""
        if not isinstance(content, Mapping):
            self.problem(path, f"should be a mapping of keys, not {reprlib.repr(content)}")
            return {}
        result = {}
        for key, value in content.items():
            inner = (*path, str(key))
            if key not in schema:
                self.problem(path, _unknown_key(key, schema), self.lines.get(inner))
            elif not schema[key].test(value):
                self.problem(inner, f"should be {schema[key].expected}, not {reprlib.repr(value)}")
            else:
                result[key] = value
        for key, wanted in schema.items():
            if wanted.required and key not in content:
                self.problem(path, f"the key {key!r} is missing: {wanted.expected}")
        return result

    def check_component(self, component: ComponentDefinition, definition: Definition) -> None:
        """Report keys of a component that are right one by one, but can't be meant."""
        kind, known, dimensions = component.kind, _known_kinds(), definition.dimensions
        strange = [name for name in component.shared if dimensions and name not in dimensions]
        wrong: list[tuple[object, str, str]] = [
            (
                kind not in known,
                "kind",
                f"no installed package knows the kind {kind!r}{_suggest(kind, known)}",
            ),
            (
                component.is_list and kind == "list",
                "list",
                "contradicts kind 'list', which says so already; name the kind of the members instead",
            ),
            (
                component.input_only and component.required,
                "required",
                "contradicts input_only: an object taken apart would never have the component",
            ),
            (
                component.input_only and component.getter,
                "getter",
                "contradicts input_only: the component is never taken from the object",
            ),
            (
                component.getter and definition.disassembler,
                "getter",
                "contradicts the disassembler, which alone takes the object apart",
            ),
            (
                component.setter and definition.assembler,
                "setter",
                "contradicts the assembler, which alone builds the object",
            ),
        ]
        wrong += [
            (True, "shared", f"{name!r} is not among the dimensions{_suggest(name, dimensions)}") for name in strange
        ]
        for is_wrong, key, text in wrong:
            if is_wrong:
                self.problem(("components", component.name, key), text)

    def check_signal(self, definition: Definition) -> None:
        """Report a signal that viewers can't show."""
        name = definition.signal
        if name is None:
            return
        component = definition.components.get(name)
        if component is None:
            self.problem(("signal",), f"there is no component {name!r}{_suggest(name, definition.components)}")
        elif component.kind not in _SIGNAL_KINDS or component.is_list:
            found = f"a list of {component.kind}" if component.is_list else component.kind
            self.problem(("signal",), f"should be one {' or '.join(_SIGNAL_KINDS)}, but {name!r} is {found}")

    def problem(self, path: tuple[str, ...], text: str, line: int | None = None) -> None:
        """Report what is wrong at a path; the line is that of its key, unless another is given."""
        line = line or self.lines.get(path)
        place = f"{self.source}:{line}" if line else self.source
        self.problems.append(": ".join(filter(None, (place, ".".join(path), text))))

    def raise_problems(self) -> None:
        if self.problems:
            raise DefinitionError("\n".join(self.problems))


def _unknown_key(key: Any, schema: Mapping[str, _Key]) -> str:
    if schema is _DEFINITION_KEYS and key in _COMPONENT_KEYS:
        return f"the key {key!r} is misplaced: it belongs to a component, under 'components'"
    if schema is _COMPONENT_KEYS and key in _DEFINITION_KEYS:
        return f"the key {key!r} is misplaced: it belongs to the definition, at the top level"
    return f"unknown key {key!r}{_suggest(key, schema)}"


def _known_kinds() -> set[str]:
    return {*kinds.BUILTIN, *kinds._plugins()}


def _did_you_mean(name: object, valid: Collection[str]) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _suggest(name: object, valid: Collection[str]) -> str:
    return _did_you_mean(name, valid) or f"; there are: {', '.join(sorted(valid))}"


def _problems(components: Mapping[str, object], definition: Definition) -> list[str]:
    problems = [
        f"there is no component {name!r}{_suggest(name, definition.components)}"
        for name in components
        if name not in definition.components
    ]
    for name, component in definition.components.items():
        if not (component.required or component.is_list):
            continue
        value = components.get(name)
        if value is None:
            if component.required:
                problems.append(f"the required component {name!r} is absent")
        elif component.is_list and not isinstance(value, (list, tuple, Link)):
            problems.append(
                f"the component {name!r} should be a list of {component.kind}, not a {type(value).__name__}"
            )
    return problems


def _describe(definition: Definition) -> str:
    return f"definition {definition.name!r} ({definition.source})"


# ---- Building objects and taking them apart ----------------------------------------------------------------


def assemble(components: Mapping[str, Any], definition: Definition, cls: type[Any] | None = None) -> Any:
    """Build a Python object from components.

    The first of these rules that applies:

    1. The ``assembler`` of the definition is called with a dict of the components that are present.
    2. Otherwise the class (``cls``, or else the ``python_type`` of the definition) is called. A component
       goes to its constructor if that has a parameter of its name, or ``**keywords``, unless the component
       has an explicit ``setter``. Then the others are given to the object, each by its ``setter`` (a
       method, or an attribute to set), or else by the first that exists of the method ``set_visit_info``,
       the method ``setVisitInfo`` and the attribute ``visit_info``.

    Absent components (missing or None) are never passed. Whether a call can work is decided before it is
    made, so that any exception of the user's code comes out unchanged. An object that makes up its
    attributes (``__getattr__``) needs an assembler.

    Parameters
    ----------
    components : mapping
        Component values by name.
    definition : `Definition`
        What the composite is made of.
    cls : type, optional
        Class of the object, instead of the ``python_type`` of the definition.

    Raises
    ------
    DefinitionError
        If the components don't fit the definition (`Definition.check`), there is neither an assembler nor a
        class, an import path leads nowhere, an argument of the constructor is missing, or nothing accepts a
        component.
    """
    values = {name: components.get(name) for name in components}
    definition.check(values)
    present = {name: values[name] for name in definition.components if values.get(name) is not None}
    if definition.assembler is not None:
        return _resolve(definition, "assembler")(present)
    if cls is None:
        if definition.python_type is None:
            raise DefinitionError(
                f"{_describe(definition)}: has neither an assembler nor a python_type to build an object"
            )
        cls = _resolve(definition, "python_type")
    args, keywords, rest = _arguments(cls, present, definition)
    obj = cls(*args, **keywords)
    setters = [(_setter(obj, definition.components[name], definition), value) for name, value in rest.items()]
    for setter, value in setters:
        setter(value)
    return obj


def disassemble(obj: Any, definition: Definition) -> dict[str, Any]:
    """Take a Python object apart.

    The first of these rules that applies:

    1. The ``disassembler`` of the definition is called with the object; it returns a mapping of components.
    2. Otherwise each component is taken by its ``getter`` (a method without arguments, or an attribute), or
       else by the first that exists of the method ``get_visit_info``, the method ``getVisitInfo`` and the
       attribute, property or method ``visit_info``. An object without any of them doesn't have the
       component.

    Methods are called; the value of an attribute or property is taken as it is, even if it can be called.
    Input-only components are left out, and what is None is absent. Exceptions of the user's code come out
    unchanged. An object that makes up its attributes (``__getattr__``) needs a disassembler.

    Parameters
    ----------
    obj : object
        What to take apart.
    definition : `Definition`
        What the composite is made of.

    Returns
    -------
    components : dict
        The components that are present, in the order of the definition.

    Raises
    ------
    DefinitionError
        If the components don't fit the definition (`Definition.check`), the object offers no way to take
        one that is required or has an explicit getter, or an import path leads nowhere.
    """
    if definition.disassembler is not None:
        found = _resolve(definition, "disassembler")(obj)
        if not isinstance(found, Mapping):
            raise DefinitionError(
                f"{_describe(definition)}: disassembler: {definition.disassembler!r} should return a mapping "
                f"of components, not a {type(found).__name__}"
            )
        values = {name: found.get(name) for name in found}
    else:
        values = {
            name: _get(obj, component, definition)
            for name, component in definition.components.items()
            if not component.input_only
        }
    if problems := _problems(values, definition):
        raise DefinitionError(f"{_describe(definition)}: {type(obj).__qualname__} object: {'; '.join(problems)}")
    return {
        name: values[name]
        for name, component in definition.components.items()
        if not component.input_only and values.get(name) is not None
    }


def _arguments(
    cls: type[Any], present: Mapping[str, Any], definition: Definition
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Return the arguments with which the class can be called, and the components that are not among them."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:
        raise DefinitionError(
            f"{_describe(definition)}: the parameters of {cls.__qualname__} can't be known; give an assembler"
        ) from None
    setters = {name: component.setter for name, component in definition.components.items()}
    rest = dict(present)
    args: list[Any] = []
    keywords: dict[str, Any] = {}
    problems = []
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            for other in [other for other in rest if setters[other] is None]:
                keywords[other] = rest.pop(other)
        elif name in rest and setters[name] is None:
            value = rest.pop(name)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(value)
            else:
                keywords[name] = value
        elif parameter.default is not parameter.empty:
            # Those before a positional one can't be left out.
            if parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(parameter.default)
        elif name not in setters:
            problems.append(f"{name!r}, which is not a component{_suggest(name, setters)}")
        elif setters[name] is not None:
            problems.append(f"{name!r}, but that component has a setter of its own, {setters[name]!r}")
        else:
            problems.append(f"{name!r}, but that component is absent; give the argument a default")
    if problems:
        raise DefinitionError(
            f"{_describe(definition)}: {cls.__qualname__} can't be called without the argument "
            f"{'; nor without '.join(problems)}"
        )
    return args, keywords, rest


def _setter(obj: Any, component: ComponentDefinition, definition: Definition) -> Callable[[Any], object]:
    """Return the function that gives a component to an object."""
    if component.setter is not None:
        names: tuple[str, ...] = (component.setter,)
        found = [_method(obj, component.setter, None), _attribute_setter(obj, component.setter)]
    else:
        names = (*_accessors("set", component.name), component.name)
        found = [_method(obj, name, None) for name in names[:-1]] + [_attribute_setter(obj, component.name)]
    for setter in found:
        if setter is not None:
            return setter
    tried = names if component.setter else ("the constructor", *names)
    raise DefinitionError(
        f"{_describe(definition)}: components.{component.name}: "
        f"nothing in {type(obj).__qualname__} accepts it; "
        f"tried: {', '.join(tried)}"
    )


def _get(obj: Any, component: ComponentDefinition, definition: Definition) -> Any:
    """Return one component of an object, or None if it hasn't got one."""
    own = component.getter or component.name
    names = (own,) if component.getter else (*_accessors("get", component.name), own)
    for name in names:
        method = _method(obj, name)
        if method is not None:
            return method()
    member = inspect.getattr_static(obj, own, _MISSING)
    if isinstance(member, MemberDescriptorType):
        try:
            return member.__get__(obj)
        except AttributeError:
            return None  # A slot runs no code of the user: it was never set.
    if _is_attribute(member):
        return getattr(obj, own)
    if component.getter or component.required:
        raise DefinitionError(
            f"{_describe(definition)}: components.{component.name}: "
            f"nothing in {type(obj).__qualname__} gives it; "
            f"tried: {', '.join(names)}{_did_you_mean(own, dir(type(obj)))}"
        )
    return None


def _accessors(verb: str, name: str) -> tuple[str, str]:
    """Return the names of a getter or setter in the styles ``get_visit_info`` and ``getVisitInfo``."""
    return f"{verb}_{name}", verb + "".join(part[:1].upper() + part[1:] for part in name.split("_"))


# Members are looked up statically, so that an AttributeError that comes out of a property is never mistaken
# for the lack of that property.


def _is_routine(member: Any) -> bool:
    # For `inspect`, descriptors that compute an attribute when it is first read are routines too; they can't be called.
    return isinstance(member, _METHODS) or (inspect.isroutine(member) and callable(member))


def _is_attribute(member: Any) -> bool:
    return member is not _MISSING and not _is_routine(member)


def _attribute_setter(obj: Any, name: str) -> Callable[[Any], object] | None:
    """Return what sets an attribute of an object, if it has one of that name that can be set."""
    member = inspect.getattr_static(obj, name, _MISSING)
    can_be_set = member.fset is not None if isinstance(member, property) else _is_attribute(member)
    return partial(setattr, obj, name) if can_be_set else None


def _method(obj: Any, name: str, *args: Any) -> Callable[..., Any] | None:
    """Return a method of an object, if it has one of that name that can be called with such arguments."""
    if not _is_routine(inspect.getattr_static(obj, name, _MISSING)):
        return None
    method = getattr(obj, name)
    try:
        inspect.signature(method).bind(*args)
    except TypeError:
        return None
    except ValueError:
        pass  # Methods of extension types needn't tell their parameters.
    return method  # type: ignore[no-any-return]


def _resolve(definition: Definition, key: str) -> Any:
    """Return the class or function that the import path under a key of a definition names."""
    path: str = getattr(definition, key)
    where = f"{_describe(definition)}: {key}: {path!r}"
    module_name, _, qualified_name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there, but lacks one that it imports, isn't a mistake in the definition.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise DefinitionError(f"{where}: there is no module {error.name!r}") from error
    for step in qualified_name.split("."):
        try:
            found = getattr(found, step)
        except AttributeError as error:
            raise DefinitionError(f"{where}: {error}{_did_you_mean(step, dir(found))}") from error
    if key == "python_type" and not isinstance(found, type):
        raise DefinitionError(f"{where}: should be a class, not a {type(found).__name__}")
    if not callable(found):
        raise DefinitionError(f"{where}: should be a function, not a {type(found).__name__}")
    return found
