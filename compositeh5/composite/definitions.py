"""The definitions that are known: those that are shipped, and those that were registered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DefinitionError, WrongTypeError, require_type, suggest
from .definition import Definition

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

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
    from .definition_reader import Reader, read_file

    if isinstance(source, Mapping):
        return Reader("<mapping>").read(source)
    if isinstance(source, str | os.PathLike):
        source = Path(source)
    if not hasattr(source, "read_bytes"):
        raise WrongTypeError(f"the path of a definition, or a mapping, was expected, not {source!r}")
    return read_file(source)


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
    if name in _registered:
        return _registered[name]
    if name in _shipped_files():
        return _load_shipped(name)
    raise DefinitionError(
        f"there is no definition {name!r} that is shipped or was registered (compositeh5.register_definition), as the "
        f"module of its class should do{suggest(name, definition_names())}"
    )


def known_definition(name: str) -> Definition | None:
    """Return a definition as `get_definition` does, or None if there is none of that name: files outlive them."""
    return get_definition(name) if name in definition_names() else None


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
