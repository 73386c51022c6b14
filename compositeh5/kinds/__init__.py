"""The registry of kinds: how each sort of component is encoded.

A kind is a module with two functions, ``encode(value) -> Node`` and ``decode(node, **parameters) -> value``, and
optionally

``VERSION``
    Version of its encoding (an int, 1 without it). A reader refuses versions above its own.
``TYPES``
    The Python types that it encodes, or their names (``"module.QualifiedName"``); used where no kind is given.
``IMMUTABLE``
    True if values can't be changed, so that one can be shared by all who read it; copies are given out otherwise.
``coerce(value) -> value``
    Turns what users pass into the type that ``decode`` gives. Without it, values are taken as they are.

``encode`` and ``coerce`` raise `EncodeError` for a value that can't be stored, ``decode`` raises `FormatError` for a
node that ``encode`` doesn't write: nodes may come from strangers. The keyword-only arguments of ``decode`` are the
parameters of a partial read (``columns`` of a table, ``box`` of an image).

Another package adds a kind by an entry point of the group ``compositeh5.kinds`` whose name is the kind and whose value
is the module. Modules are imported when their kind is first used. A script adds one for its own process by `register`.
What a file says is only ever looked up here by name: nothing named in a file is imported. ``specs/extending.md`` has an
example.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import (
    ConfigurationError,
    EncodeError,
    UnknownKindError,
    UnsupportedParameterError,
    UnsupportedVersionError,
    require_type,
)
from ..storage.nodes import Node
from . import record as record  # records add themselves to the typed values

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# The types that have a built-in kind, named so that none of their modules must be imported to look them up.
_BUILTIN_TYPES = {
    "astropy.table.table.Table": "table",
    "astropy.units.quantity.Quantity": "array",
    "astropy.wcs.wcs.WCS": "wcs",
    "builtins.bytes": "bytes",
    "builtins.dict": "record",
    "builtins.list": "list",
    "builtins.str": "text",
    "builtins.tuple": "list",
    "compositeh5.kinds.image.Image": "image",
    "compositeh5.kinds.mask.Mask": "mask",
    "compositeh5.kinds.photo_calib.PhotoCalib": "photo_calib",
    "compositeh5.kinds.psf.Psf": "psf",
    "compositeh5.kinds.record.Record": "record",
    "numpy.generic": "array",
    "numpy.ndarray": "array",
}
BUILTIN = tuple(sorted(set(_BUILTIN_TYPES.values())))
"""Names of the kinds of this package; each is a module here."""


@dataclass(frozen=True)
class Kind:
    """One kind: its name and the module, or the like, that encodes and decodes it."""

    name: str
    module: Any

    @property
    def version(self) -> int:
        """Version of the encoding that this release writes."""
        return int(getattr(self.module, "VERSION", 1))

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the parameters of a partial read."""
        return _parameters(self.module)

    @property
    def is_pixels(self) -> bool:
        """Whether values are planes of pixels: those of which a box can be read."""
        return "box" in self.parameters

    def share(self, value: Any) -> Any:
        """Return ``value`` such that changing the result doesn't change what others get."""
        return value if getattr(self.module, "IMMUTABLE", False) else copy.deepcopy(value)

    def coerce(self, value: Any) -> Any:
        """Return ``value`` as the type that `decode` gives, or raise `EncodeError`."""
        function = getattr(self.module, "coerce", None)
        return value if function is None else function(value)

    def encode(self, value: Any) -> Node:
        """Return the node of a value, with its kind and version among the attributes, or raise `EncodeError`."""
        node: Node = self.module.encode(self.coerce(value))
        node.attrs = {"kind": self.name, "kind_version": self.version, **node.attrs}
        return node

    def decode(self, node: Node, **parameters: Any) -> Any:
        """Return the value of a node, or the part of it that the parameters select; raise `FormatError` if it has none.

        An `UnsupportedParameterError` says that the kind doesn't have one of the parameters.
        """
        if unknown := parameters.keys() - self.parameters:
            raise UnsupportedParameterError(
                f"{node.where}: kind {self.name!r} has no parameter {sorted(unknown)[0]!r}; "
                f"it has {sorted(self.parameters) or 'none'}"
            )
        return self.module.decode(node, **parameters)


_registered: dict[str, Any] = {}

FETCHED_WHOLE = 8 * 1024 * 1024
"""Components of remote files are transferred whole up to this size, even if only a part is asked for."""


def names() -> set[str]:
    """Return the names of all kinds that are known, without loading any."""
    return {*BUILTIN, *_registered, *_plugins()}


def register(name: str, module: Any) -> None:
    """Make a kind known in this process, in the place of one that was registered under this name before.

    This is for scripts and notebooks; what other processes shall read as well is better added by an entry point.

    Parameters
    ----------
    name : str
        Name of the kind: letters, digits and ``_``.
    module : module or object
        What has the functions ``encode`` and ``decode``, and what else a kind may have: a module, or a class with
        static methods.

    Raises
    ------
    ConfigurationError
        If the name is that of a built-in kind or can't be one, or a function is missing.
    """
    require_type(name, str, "the name of a kind")
    is_own = name in BUILTIN or getattr(_registered.get(name), "__package__", "") == "compositeh5"
    if is_own or not name.isidentifier():
        why = "is built in" if is_own else "should be letters, digits and '_'"
        raise ConfigurationError(f"a kind can't be registered as {name!r}, which {why}")
    if missing := _missing(module):
        raise ConfigurationError(f"the kind {name!r} ({module!r}) has no function {missing}")
    _registered[name] = module


def get(name: str, where: str = "") -> Kind:
    """Return a kind by its name.

    An `UnknownKindError`, which names ``where`` (file and path of the component), says that neither this package nor an
    installed plug-in has it, and that it wasn't registered.
    """
    if name in BUILTIN:
        return Kind(name, importlib.import_module(f"{__name__}.{name}"))
    if name in _registered:
        return Kind(name, _registered[name])
    entry = _plugins().get(name)
    if entry is None:
        raise UnknownKindError(
            f"{where + ': ' if where else ''}no installed package knows the kind {name!r} "
            f"(known: {', '.join(sorted(names()))}); install the package that wrote it"
        )
    return Kind(name, _load(entry))


def infer(value: Any) -> str:
    """Return the name of the kind that stores values of this type, or raise `EncodeError` if none does."""
    names = [_type_name(cls) for cls in type(value).__mro__]
    for name in names:
        if name in _BUILTIN_TYPES:
            return _BUILTIN_TYPES[name]
    for kind in (*_registered, *_plugins()):
        if not set(names).isdisjoint(map(_type_name, getattr(get(kind).module, "TYPES", ()))):
            return kind
    raise EncodeError(
        f"no kind stores a value of type {names[0]}; pass one of the supported types or install a kind for it"
    )


def _type_name(cls: type | str) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def encode(value: Any, kind: str | None = None) -> Node:
    """Return the node of a component: `kind` is inferred from the type of the value if it is not given."""
    return get(kind or infer(value)).encode(value)


def decode(node: Node, **parameters: Any) -> Any:
    """Return the value of a component's node, by the kind written on it; errors name the file and path."""
    kind = get(node.attr("kind", str), node.where)
    version = node.attr("kind_version", int)
    if version > kind.version:
        raise UnsupportedVersionError(
            f"{node.where}: version {version} of kind {kind.name!r} is newer than version {kind.version}, "
            f"which this release reads; install a newer release"
        )
    # A part of what is small isn't worth several requests.
    node.prefetch(FETCHED_WHOLE if parameters else None)
    return kind.decode(node, **parameters)


@cache
def _plugins() -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="compositeh5.kinds") if entry.name not in BUILTIN}


@cache
def _load(entry: EntryPoint) -> ModuleType:
    module = entry.load()
    if missing := _missing(module):
        raise UnknownKindError(f"the plug-in of kind {entry.name!r} ({entry.value}) has no function {missing}")
    return module  # type: ignore[no-any-return]


def _missing(module: Any) -> str:
    return next((repr(name) for name in ("encode", "decode") if not callable(getattr(module, name, None))), "")


@cache
def _parameters(module: Any) -> frozenset[str]:
    parameters = inspect.signature(module.decode).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
