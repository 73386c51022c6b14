"""Recipes: how the arrays of a component are compressed and cut into chunks.

Readers need none, and no digest depends on them: the same component written by other recipes is equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any, TypeAlias

from .errors import ConfigurationError, suggest

OTHERS = "default"
"""Name under which a set of recipes holds that of the components that it doesn't name."""

MAX_CHUNK_ELEMENTS = 2**24
"""Elements of the largest chunk: a reader has to hold at least one."""


@dataclass(frozen=True)
class Recipe:
    """How the arrays of one component are written.

    Arrays of at most 16 kiB are neither cut nor compressed, whatever the recipe says.

    Parameters
    ----------
    gzip : int, optional
        Level of the compression, 1 to 9; with 0 values are stored as they are, under the same checksum.
    shuffle : bool, optional
        Whether the first bytes of all numbers are compressed together, then the second, and so on. It has no effect on
        text, on bytes and on what isn't compressed.
    chunks : tuple of int, optional
        Shape of the chunks along the last axes, such as ``(rows, columns)`` of an image or ``(rows,)`` of a
        table. Axes before these, or all, are cut so that a chunk has 256 kiB.

    Raises
    ------
    ConfigurationError
        If one of them isn't what is described here.
    """

    gzip: int = 1
    shuffle: bool = True
    chunks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if type(self.gzip) is not int or not 0 <= self.gzip <= 9:
            raise ConfigurationError(f"gzip should be a level from 0 (not compressed) to 9, not {self.gzip!r}")
        if not isinstance(self.shuffle, bool):
            raise ConfigurationError(f"shuffle should be true or false, not {self.shuffle!r}")
        if not isinstance(self.chunks, tuple) or any(type(n) is not int or n < 1 for n in self.chunks):
            raise ConfigurationError(f"chunks should be a list of lengths of at least 1, not {self.chunks!r}")
        if prod(self.chunks) > MAX_CHUNK_ELEMENTS:
            raise ConfigurationError(
                f"chunks {self.chunks} would have {prod(self.chunks)} elements each; the limit is {MAX_CHUNK_ELEMENTS}"
            )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe of settings by name, as YAML gives them.

        Raises
        ------
        ConfigurationError
            If a setting is unknown or wrong.
        """
        if not isinstance(settings, Mapping):
            raise ConfigurationError(f"should be settings by name, such as gzip: 6, not {settings!r}")
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                raise ConfigurationError(f"there is no setting {key!r}{suggest(key, known)}")
        given = dict(settings)
        if isinstance(given.get("chunks"), list):
            given["chunks"] = tuple(given["chunks"])
        return cls(**given)


Recipes: TypeAlias = Mapping[str, Recipe]
"""A recipe for each component, by its name, and that of all others under `OTHERS`."""


def read_recipes(name: str, settings: Mapping[str, Any]) -> Recipes:
    """Return the recipes of components that a configuration describes under one name.

    Parameters
    ----------
    name : str
        The name, for messages.
    settings : mapping
        Settings of the recipe of each component, by its name; those of others under ``default``.

    Raises
    ------
    ConfigurationError
        If a setting is unknown or wrong; the message names the recipe, the component and the setting.
    """
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"recipe {name!r}: should have settings by component, not {settings!r}")
    recipes: dict[str, Recipe] = {}
    for component, own in settings.items():
        where = f"recipe {name!r}: component {component!r}"
        if not (isinstance(component, str) and component.isidentifier()):
            raise ConfigurationError(f"{where}: isn't a name that a component can have")
        try:
            recipes[component] = Recipe.from_mapping(own)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
    return recipes
