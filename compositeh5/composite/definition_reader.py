"""Reading definitions from YAML: strict about keys and values, precise about where they are wrong."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .. import kinds
from ..errors import DefinitionError, suggest
from .definition import RESERVED_NAMES, ComponentDefinition, Definition


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


class Reader:
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
        kind, known, dimensions = component.kind, kinds.names(), definition.dimensions
        strange = [name for name in component.shared if dimensions and name not in dimensions]
        wrong: list[tuple[object, str, str]] = [
            (
                kind not in known,
                "kind",
                f"no installed package knows the kind {kind!r}{suggest(kind, known)}",
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
            (True, "shared", f"{name!r} is not among the dimensions{suggest(name, dimensions)}") for name in strange
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


def read_file(file: Path | Traversable) -> Definition:
    """Return the definition in a YAML file; see `definition.load_definition`."""
    reader = Reader(str(file))
    try:
        loader = yaml.SafeLoader(file.read_bytes())
        try:
            root = loader.get_single_node()
        except (ValueError, OverflowError) as error:
            # PyYAML makes a character of any number.
            line = loader.line + 1
            raise DefinitionError(f"{file}:{line}: not valid YAML: a character that doesn't exist: {error}") from error
        content = None if root is None else reader.plain(root, (), loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DefinitionError(f"{file}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise DefinitionError(f"{file}: not valid YAML: {error}") from error
    except RecursionError:
        raise DefinitionError(f"{file}: nested too deeply") from None
    return reader.read(content)


def _unknown_key(key: Any, schema: Mapping[str, _Key]) -> str:
    if schema is _DEFINITION_KEYS and key in _COMPONENT_KEYS:
        return f"the key {key!r} is misplaced: it belongs to a component, under 'components'"
    if schema is _COMPONENT_KEYS and key in _DEFINITION_KEYS:
        return f"the key {key!r} is misplaced: it belongs to the definition, at the top level"
    return f"unknown key {key!r}{suggest(key, schema)}"
