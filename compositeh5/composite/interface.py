"""A protocol of `Composite`, for modules that it imports and that can't import it; and checks of its attributes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, Self, TypeVar

from ..errors import CompositeH5Error, EncodeError, FormatError, WrongTypeError, require_type, suggest
from ..storage.nodes import GroupNode
from ..storage.reader import StoredFile
from ..storage.recipes import Recipes
from .link import DataId, Link, checked_data_id
from .parts import Part

_Value = TypeVar("_Value")

ATTRIBUTES = ("data_id", "dataset_type", "run", "stage", "id", "provenance")
"""What a composite has beside its definition and its components."""


class CompositeLike(Protocol):
    """A `Composite`, as modules see it that `Composite` itself is made of."""

    id: str
    definition: str
    definition_version: int
    data_id: dict[str, int | str]
    dataset_type: str
    run: str
    stage: str
    provenance: dict[str, Any]
    signal: str
    absent: tuple[str, ...]
    location: str | None
    closed: bool
    fallbacks: Mapping[str, str]
    _parts: dict[str, Part]
    _digests: dict[str, str]
    _in_memory: bool
    _files: list[StoredFile]

    @property
    def parts(self) -> Mapping[str, Part]:
        """What it holds of each component, by name."""

    @property
    def links(self) -> dict[str, Link]:
        """The links of the components that live in other files."""

    @property
    def lost(self) -> dict[str, str]:
        """Names of the components that were found damaged, and why."""

    @property
    def where(self) -> str:
        """What messages call it."""

    @property
    def _group(self) -> GroupNode: ...

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...

    def part(self, name: str) -> Part:
        """Return what it holds of a component."""

    def link(self, name: str) -> Link:
        """Return a link to a component."""

    def write(self, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None) -> None:
        """Write it to a file."""

    def with_parts(self, parts: Mapping[str, Part], absent: Iterable[str] | None = None, **attributes: Any) -> Self:
        """Return one like it of exactly these parts."""

    def replace(self, components: Mapping[str, Any] | None = None, /, **attributes: Any) -> Self:
        """Return one like it but for some components and attributes."""


class Parts(Mapping[str, Part]):
    """The parts of a composite by name, each made when it is asked for."""

    def __init__(self, composite: CompositeLike) -> None:
        self._composite = composite

    def __getitem__(self, name: str) -> Part:
        return self._composite.part(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._composite)

    def __len__(self) -> int:
        return len(self._composite)


def check_attributes(function: str, attributes: Mapping[str, Any]) -> None:
    """Raise `WrongTypeError` for arguments of a function that are no attributes of a composite."""
    for name in attributes.keys() - set(ATTRIBUTES):
        raise WrongTypeError(
            f"{function}() has no argument {name!r}{suggest(name, ATTRIBUTES)}; components are given by a mapping: "
            f"{{{name!r}: value}}"
        )


def stored(doc: str, read: Callable[[GroupNode], _Value]) -> cached_property[_Value]:
    """Return a cached property that reads an attribute from the group of a stored composite; others have it set."""

    def get(composite: CompositeLike) -> _Value:
        group = composite._group
        try:
            return read(group)
        except (ValueError, TypeError) as error:
            if isinstance(error, CompositeH5Error) and not isinstance(error, EncodeError):
                raise
            raise FormatError(f"{group.where}: {error}") from error

    get.__doc__ = doc
    return cached_property(get)


def checked_attributes(
    data_id: DataId | None,
    dataset_type: str,
    run: str,
    stage: str,
    id: str | uuid.UUID | None,
    provenance: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the attributes of a composite by name, as it keeps them."""
    texts = {"dataset_type": dataset_type, "run": run, "stage": stage}
    for name, text in texts.items():
        require_type(text, str, f"{name}, as text,")
    require_type({} if provenance is None else provenance, Mapping, "provenance, a mapping,")
    data_id = checked_data_id({} if data_id is None else data_id)
    return {**texts, "data_id": data_id, "id": "" if id is None else str(id), "provenance": dict(provenance or {})}
