"""Recipes: how the arrays of a component are laid out, compressed and, where that is asked for, rounded.

Readers need none. No digest depends on layout and compression: the same component written by other recipes is equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from types import MappingProxyType
from typing import Any, TypeAlias

from ..errors import ConfigurationError, suggest

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
    contiguous : bool, optional
        Whether numbers are stored in one piece, as they are in memory, so that `Composite.memmap` gives them without
        a copy. The other settings then have no effect but on text.
    quantize : float, optional
        Round the pixels of images of floats to multiples of a power of two that is at most this part of the noise of
        the image (see `storage.quantized`). The error is at most half of that, and the step is recorded
        with the pixels. What isn't such an image stays as it is. 0: nothing is rounded.

    Raises
    ------
    ConfigurationError
        If one of them isn't what is described here.
    """

    gzip: int = 1
    shuffle: bool = True
    chunks: tuple[int, ...] = ()
    contiguous: bool = False
    quantize: float = 0.0

    def __post_init__(self) -> None:
        if type(self.gzip) is not int or not 0 <= self.gzip <= 9:
            raise ConfigurationError(f"gzip should be a level from 0 (not compressed) to 9, not {self.gzip!r}")
        for name in ("shuffle", "contiguous"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} should be true or false, not {getattr(self, name)!r}")
        if not isinstance(self.chunks, tuple) or any(type(n) is not int or n < 1 for n in self.chunks):
            raise ConfigurationError(f"chunks should be a list of lengths of at least 1, not {self.chunks!r}")
        if prod(self.chunks) > MAX_CHUNK_ELEMENTS:
            raise ConfigurationError(
                f"chunks {self.chunks} would have {prod(self.chunks)} elements each; the limit is {MAX_CHUNK_ELEMENTS}"
            )
        if type(self.quantize) not in (int, float) or not 0 <= self.quantize <= 1:
            raise ConfigurationError(f"quantize should be a part of the noise, from 0 to 1, not {self.quantize!r}")

    @classmethod
    def of(cls, recipe: Recipe | str | Mapping[str, Any]) -> Recipe:
        """Return the recipe of a name, or of settings by name, as YAML gives them.

        Raises
        ------
        ConfigurationError
            If there is no such recipe, or a setting is unknown or wrong.
        """
        if isinstance(recipe, Recipe):
            return recipe
        if isinstance(recipe, str):
            if recipe not in NAMED:
                raise ConfigurationError(f"there is no recipe {recipe!r}{suggest(recipe, NAMED)}")
            return NAMED[recipe]
        if not isinstance(recipe, Mapping):
            raise ConfigurationError(
                f"should be the name of a recipe, or settings by name, such as gzip: 6, not {recipe!r}"
            )
        known = [field.name for field in fields(cls)]
        for key in recipe:
            if key not in known:
                raise ConfigurationError(f"there is no setting {key!r}{suggest(key, known)}")
        given = dict(recipe)
        if isinstance(given.get("chunks"), list):
            given["chunks"] = tuple(given["chunks"])
        return cls(**given)


NAMED: Mapping[str, Recipe] = MappingProxyType(
    {
        "lossless": Recipe(),
        "archive": Recipe(gzip=9),
        "raw": Recipe(contiguous=True),
        "quantized": Recipe(quantize=1 / 16),
    }
)
"""Recipes that can be given by name: the default; the smallest files without loss; pixels that can be mapped into
memory; the smallest files, at the cost of a rounding error whose rms is some 1/55 of the noise or less."""

Recipes: TypeAlias = Mapping[str, Recipe | str]
"""A recipe, or the name of one, for each component by its name, and that of all others under `OTHERS`."""


def read_recipes(name: str, settings: Mapping[str, Any]) -> dict[str, Recipe]:
    """Return the recipes by component that a configuration describes under one name, which is for messages."""
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"recipe {name!r}: should have settings by component, not {settings!r}")
    recipes: dict[str, Recipe] = {}
    for component, own in settings.items():
        where = f"recipe {name!r}: component {component!r}"
        if not (isinstance(component, str) and component.isidentifier()):
            raise ConfigurationError(f"{where}: isn't a name that a component can have")
        try:
            recipes[component] = Recipe.of(own)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
    return recipes
