"""The tree of arrays and groups that stands between Python values and HDF5.

A kind encodes a value into nodes and decodes nodes into a value; it never sees HDF5. `Array` and `Group` hold a
tree in memory; the reader offers the same interface over a file (`StoredArray`, `StoredGroup`), so that a kind
decodes both with the same code.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .recipes import Recipe

AttrValue: TypeAlias = str | bool | int | float | NDArray[Any]
Selection: TypeAlias = tuple[slice, ...]

_T = TypeVar("_T")
_REQUIRED: Any = object()

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that don't show, or change how others show: readers refuse names with them."""

_ESCAPED = re.compile("(?:%[0-9A-F]{2})+")


class Node(ABC):
    """An array or a group, with attributes.

    Attributes are text, bool, int (64 bits), float (64 bits) or small numeric arrays.
    """

    attrs: Mapping[str, AttrValue]
    """The attributes by name."""

    where: str
    """File and HDF5 path, for messages."""

    def attr(self, name: str, of_type: type[_T], default: _T | None = _REQUIRED) -> _T:
        """Return one attribute, checked.

        Parameters
        ----------
        name : str
            Name of the attribute.
        of_type : type
            ``str``, ``bool``, ``int``, ``float`` (an int is accepted) or ``np.ndarray``.
        default : optional
            What to return where the attribute is missing; without it, it must be there.

        Raises
        ------
        FormatError
            If it is missing, or of another type.
        """
        if name not in self.attrs:
            if default is _REQUIRED:
                raise FormatError(f"{self.where}: attribute {name!r} is missing")
            return default  # type: ignore[return-value]
        value: Any = self.attrs[name]
        if of_type is float and type(value) is int:
            value = float(value)
        if not isinstance(value, of_type) or (of_type is int and isinstance(value, bool)):
            raise FormatError(f"{self.where}: attribute {name!r} should be of type {of_type.__name__}, not {value!r}")
        return value

    def prefetch(self, limit: int | None = None) -> None:  # noqa: B027
        """Prefetch the content of a group in a remote file, unless it is more than ``limit`` bytes."""


class ArrayNode(Node):
    """An n-dimensional array of numbers, bools, text (``U``) or byte strings (``S``)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements; for text the width may exceed what the values need."""

    @abstractmethod
    def read(self, selection: Selection = ()) -> NDArray[Any]:
        """Return the values, or those of a tuple of slices (one per leading axis, step 1 or more)."""

    @property
    def recipe(self) -> Recipe | None:
        """How it is stored, for a copy to be stored in the same way; None if it isn't, or in a way of others."""
        return None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of the chunks in which it is stored; None if there are none."""
        return None

    @property
    def unit(self) -> tuple[int, ...] | None:
        """Shape of what is read and checked at least, whatever part of it is wanted; None if any part is read alone."""
        return self.chunks

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class GroupNode(Node, Mapping[str, Node]):
    """Named arrays and groups."""

    recipes: Mapping[str, Recipe] = MappingProxyType({})
    """How the arrays in a child are written, by the child's name; others as those in this group. No content."""

    def array(self, name: str, ndim: int | None = None, dtype_kinds: str | None = None) -> ArrayNode:
        """Return a child that must be an array.

        Parameters
        ----------
        name : str
            Name of the child.
        ndim : int, optional
            The number of axes that it must have.
        dtype_kinds : str, optional
            The letters (`numpy.dtype.kind`) of which its type must be one.

        Raises
        ------
        FormatError
            If it is missing or different.
        """
        node = self.get(name)
        if not isinstance(node, ArrayNode):
            raise FormatError(f"{self.where}/{name}: there should be a dataset, but there is {_describe(node)}")
        if ndim is not None and node.ndim != ndim:
            raise FormatError(f"{node.where}: should have {ndim} axes, not {node.ndim}")
        if dtype_kinds is not None and node.dtype.kind not in dtype_kinds:
            raise FormatError(f"{node.where}: values of type {node.dtype} are not expected here")
        return node

    def group(self, name: str) -> GroupNode:
        """Return a child that must be a group."""
        node = self.get(name)
        if not isinstance(node, GroupNode):
            raise FormatError(f"{self.where}/{name}: there should be a group, but there is {_describe(node)}")
        return node


def _describe(node: Node | None) -> str:
    return "nothing" if node is None else "a dataset" if isinstance(node, ArrayNode) else "a group"


@dataclass(eq=False)
class Array(ArrayNode):
    """An array in memory."""

    data: NDArray[Any]
    attrs: dict[str, AttrValue] = field(default_factory=dict)
    where: str = "value"

    def __post_init__(self) -> None:
        self.data = np.asarray(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def read(self, selection: Selection = ()) -> NDArray[Any]:
        return self.data[selection] if selection else self.data


@dataclass(eq=False)
class Group(GroupNode):
    """A group in memory; its children may also be nodes of a file, or links."""

    children: dict[str, Node] = field(default_factory=dict)
    attrs: dict[str, AttrValue] = field(default_factory=dict)
    where: str = "value"
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Node:
        return self.children[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.children)

    def __len__(self) -> int:
        return len(self.children)


@dataclass(eq=False)
class ExternalLink(Node):
    """A child that lives elsewhere: `file` is a relative POSIX path, empty for the same file, `target` an HDF5 path."""

    file: str
    target: str
    attrs: dict[str, AttrValue] = field(default_factory=dict)
    where: str = "link"


@dataclass(eq=False)
class SoftLink(Node):
    """A second name for the object at an absolute HDF5 path of the same file."""

    target: str
    attrs: dict[str, AttrValue] = field(default_factory=dict)
    where: str = "link"


def with_attrs(node: Node, attrs: Mapping[str, AttrValue]) -> Node:
    """Return an array or a group with more attributes; it is not read."""
    if isinstance(node, GroupNode):
        return Group(dict(node.items()), {**node.attrs, **attrs}, node.where)
    if isinstance(node, ArrayNode):
        return Described(node, attrs)
    raise TypeError(f"{node.where}: a {type(node).__name__} has no attributes")


class Described(ArrayNode):
    """An array with attributes of its own beside those of another node."""

    def __init__(self, node: ArrayNode, attrs: Mapping[str, AttrValue]) -> None:
        self._node, self.where = node, node.where
        self.attrs = {**node.attrs, **attrs}

    @property
    def shape(self) -> tuple[int, ...]:
        return self._node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._node.dtype

    @property
    def recipe(self) -> Recipe | None:
        return self._node.recipe

    def read(self, selection: Selection = ()) -> NDArray[Any]:
        return self._node.read(selection)


def escape_name(name: str) -> str:
    """Return the link name that stands for a text.

    Parameters
    ----------
    name : str
        Any text, also an empty one.

    Returns
    -------
    str
        The same text, but ``%``, ``/``, a leading ``@``, control, format (bidirectional, zero-width, ...) and
        separator characters are written as ``%XX`` for each byte of their UTF-8 form; ``""`` becomes ``%``, and
        ``.`` and ``..`` become ``%2E`` and ``%2E%2E``.
    """
    if name == "":
        return "%"
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return "".join(
        _percent(c) if c in "%/" or (c == "@" and i == 0) or unicodedata.category(c) in HIDDEN else c
        for i, c in enumerate(name)
    )


def unescape_name(name: str, where: str = "name") -> str:
    """Return the text for which a link name stands.

    Parameters
    ----------
    name : str
        What `escape_name` returned.
    where : str, optional
        File and path of the group, for the message.

    Raises
    ------
    FormatError
        If ``name`` holds a ``%`` that `escape_name` doesn't write.
    """
    if name == "%":
        return ""
    try:
        if "%" in _ESCAPED.sub("", name):
            raise ValueError("a % stands without two digits")
        return _ESCAPED.sub(
            lambda match: bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass"), name
        )
    except ValueError as error:
        raise FormatError(f"{where}: {name!r} is not an escaped name: {error}") from error


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
