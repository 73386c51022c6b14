"""The definitions that are known (shipped ones, and those that were registered), and how they are read from YAML."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import kinds
from ..errors import DefinitionError, WrongTypeError, require_type, suggest
from .definition import RESERVED_NAMES, ComponentDefinition, Definition

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import yaml

_registered: dict[str, Definition] = {}


def load_definition(source: str | os.PathLike[str] | Traversable | Mapping[str, Any]) -> Definition:
    """Read a definition from a YAML file, or from a mapping that says what such a file would.

    Parameters
    ----------
    source : str, path-like, resource or mapping
        The file, or the mapping.

    Raises
    ------
    DefinitionError
        If it isn't YAML, or not a definition; the message lists every problem, with its line.
    OSError
        If the file can't be read.
    """
    if isinstance(source, Mapping):
        return _Reader("<mapping>").read(source)
    if isinstance(source, str | os.PathLike):
        source = Path(source)
    if not hasattr(source, "read_bytes"):
        raise WrongTypeError(f"the path of a definition, or a mapping, was expected, not {source!r}")
    reader = _Reader(str(source))
    return reader.read(reader.parse(source.read_bytes()))


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
    require_type(name, str, "the name of a definition")
    if (found := known_definition(name)) is not None:
        return found
    raise DefinitionError(
        f"there is no definition {name!r} that is shipped or was registered (compositeh5.register_definition), as the "
        f"module of its class should do{suggest(name, definition_names())}"
    )


def known_definition(name: str) -> Definition | None:
    """Return a definition as `get_definition` does, or None if there is none of that name: files outlive them."""
    return _registered.get(name) or (_load_shipped(name) if name in _shipped_files() else None)


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
    from importlib.resources import files

    folder = files(__package__) / "definitions"
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}


@cache
def _load_shipped(name: str) -> Definition:
    return load_definition(_shipped_files()[name])


# ---- Reading: strict about keys and values, precise about where they are wrong ------------------------------


class _Key(NamedTuple):
    """What the value of a key must be."""

    expected: str
    test: Callable[[Any], bool]
    required: bool = False


def _text(expected: str, pattern: str = r"(?s:.*)") -> _Key:
    return _Key(expected, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_NAME.test, value)) and 0 < len(value) == len(set(value))


_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"

_ANY_TEXT = _text("text")
_NAME = _text("a name (a letter, then letters, digits and _)", r"[A-Za-z][A-Za-z0-9_]*")
_NAMES = _Key("a list of one or more different names", _is_names)
_BOOL = _Key("true or false", lambda value: isinstance(value, bool))
_MEMBER = _text("the name of a method or attribute", _IDENTIFIER)
_IMPORT_PATH = _text(
    "an import path, package.module.Name or package.module:Qualified.Name", rf"{_PATH}:{_PATH}|{_PATH}\.{_IDENTIFIER}"
)
_VERSION = _Key("a whole number, 1 or more", lambda value: type(value) is int and value >= 1)
_COMPONENTS = _Key("a mapping of one or more components", lambda value: isinstance(value, Mapping) and len(value) > 0)

_DEFINITION_KEYS = {
    "name": _NAME._replace(required=True),
    "version": _VERSION._replace(required=True),
    "description": _ANY_TEXT,
    "dimensions": _NAMES,
    "signal": _NAME,
    "python_type": _IMPORT_PATH,
    "assembler": _IMPORT_PATH,
    "disassembler": _IMPORT_PATH,
    "components": _COMPONENTS._replace(required=True),
}

_COMPONENT_KEYS = {
    "kind": _NAME._replace(required=True),
    "description": _ANY_TEXT,
    "required": _BOOL,
    "calibration": _BOOL,
    "shared": _NAMES,
    "list": _BOOL,
    "input_only": _BOOL,
    "getter": _MEMBER,
    "setter": _MEMBER,
}

# components.<name>.shared[i]: what is deeper is wrong wherever it stands, and an alias may make it endless.
_MAX_DEPTH = 4

_SIGNAL_KINDS = ("array", "image")

_TEXT_TAG = "tag:yaml.org,2002:str"
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Reader:
    """Turns what a file or a mapping says into a `Definition`, and collects all that is wrong with it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[tuple[str, ...], int] = {}
        self.problems: list[str] = []

    def parse(self, content: bytes) -> Any:
        """Return what YAML text says as dicts, lists and scalars."""
        import yaml

        try:
            loader = yaml.SafeLoader(content)
            try:
                root = loader.get_single_node()
            except (ValueError, OverflowError) as error:
                # PyYAML makes a character of any number.
                raise self.not_yaml(f"a character that doesn't exist: {error}", loader.line) from error
            return None if root is None else self.plain(root, (), loader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else None
            raise self.not_yaml(error.problem, line) from error
        except yaml.YAMLError as error:
            raise self.not_yaml(error) from error
        except RecursionError:
            raise DefinitionError(f"{self.source}: nested too deeply") from None

    def not_yaml(self, why: object, line: int | None = None) -> DefinitionError:
        """Return the error of a file that isn't YAML; lines count from 0 here."""
        return DefinitionError(f"{self.source}{'' if line is None else f':{line + 1}'}: not valid YAML: {why}")

    def plain(self, node: yaml.Node, path: tuple[str, ...], loader: yaml.SafeLoader) -> Any:
        """Return a YAML node as dict, list or scalar; keep the line of each key, report duplicate ones."""
        import yaml

        line = node.start_mark.line + 1
        if len(path) > _MAX_DEPTH:
            return None
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
            self.problem(path, f"the tag {node.tag!r} is not allowed", line)
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, (*path, str(i)), loader) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self.plain_mapping(node, path, loader)
        try:
            return loader.construct_object(node)
        except ValueError as error:
            # What looks like a date or number to YAML, but isn't one.
            self.problem(path, f"{node.value!r}: {error}; quote it if it is text", line)
            return None

    def plain_mapping(self, node: yaml.MappingNode, path: tuple[str, ...], loader: yaml.SafeLoader) -> dict[str, Any]:
        """Return a YAML mapping as dict."""
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, key = key_node.start_mark.line + 1, key_node.value
            if key_node.tag != _TEXT_TAG:
                text = repr(key) if isinstance(key, str) else "a list or mapping"
                self.problem(path, f"{text} is not text for YAML, as keys must be; quote it", line)
            elif key in result:
                self.problem(path, f"key {key!r} is there twice, first on line {self.lines[*path, key]}", line)
            else:
                self.lines[*path, key] = line
                result[key] = self.plain(value_node, (*path, key), loader)
        return result

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
        keys = {"kind": "", **self.checked(entry, path, _COMPONENT_KEYS)}
        shared, is_list = tuple(keys.pop("shared", ())), keys.pop("list", False)
        return ComponentDefinition(name=name, shared=shared, is_list=is_list, **keys)

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
        kind, known, dimensions = component.kind, kinds.names(), definition.dimensions
        strange = [name for name in component.shared if dimensions and name not in dimensions]
        wrong: list[tuple[str, object, str]] = [
            ("kind", kind not in known, f"no installed package knows the kind {kind!r}{suggest(kind, known)}"),
            ("list", component.is_list and kind == "list", "contradicts kind 'list'; name the kind of the members"),
            (
                "required",
                component.input_only and component.required,
                "contradicts input_only: it is never taken",
            ),
            ("getter", component.input_only and component.getter, "contradicts input_only: it is never taken"),
            (
                "getter",
                component.getter and definition.disassembler,
                "contradicts the disassembler, which alone does that",
            ),
            ("setter", component.setter and definition.assembler, "contradicts the assembler, which alone does that"),
            *(("shared", True, f"{name!r} is not among the dimensions{suggest(name, dimensions)}") for name in strange),
        ]
        for key, is_wrong, text in wrong:
            if is_wrong:
                self.problem(("components", component.name, key), text)

    def check_signal(self, definition: Definition) -> None:
        """Report a signal that viewers can't show."""
        name = definition.signal
        if name is None:
            return
        component = definition.components.get(name)
        if component is None:
            self.problem(("signal",), f"there is no component {name!r}{suggest(name, definition.components)}")
        elif component.kind not in _SIGNAL_KINDS or component.is_list:
            found = f"a list of {component.kind}" if component.is_list else component.kind
            self.problem(("signal",), f"should be one {' or '.join(_SIGNAL_KINDS)}, but {name!r} is {found}")

    def problem(self, path: tuple[str, ...], text: str, line: int | None = None) -> None:
        """Report what is wrong at a path; the line is that of its key, unless another is given."""
        line = line or self.lines.get(path)
        place = f"{self.source}:{line}" if line else self.source
        self.problems.append(": ".join(filter(None, (place, ".".join(path), text))))

    def raise_problems(self) -> None:
        """Raise one `DefinitionError` with all problems found so far, if there are any."""
        if self.problems:
            raise DefinitionError("\n".join(self.problems))


def _unknown_key(key: Any, schema: Mapping[str, _Key]) -> str:
    if schema is _DEFINITION_KEYS and key in _COMPONENT_KEYS:
        return f"the key {key!r} is misplaced: it belongs to a component, under 'components'"
    if schema is _COMPONENT_KEYS and key in _DEFINITION_KEYS:
        return f"the key {key!r} is misplaced: it belongs to the definition, at the top level"
    return f"unknown key {key!r}{suggest(key, schema)}"
