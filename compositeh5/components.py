"""`Components`: the components of a composite, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Self

from numpy.typing import NDArray

from . import kinds, targets
from .container.arrays import StoredArray
from .container.nodes import ArrayNode
from .container.reader import StoredFile
from .definition import Definition
from .errors import (
    AbsentComponentError,
    ClosedError,
    DefinitionError,
    EncodeError,
    LostComponentError,
    NoSuchComponentError,
    RefusedError,
    WrongTypeError,
    require_type,
    suggest,
)
from .lazy import LazyArray
from .links import Link
from .parts import LIST, LinkedPart, ListPart, MemoryPart, Part


class Components(Mapping[str, Any]):
    """The components of a composite: a mapping that reads what is asked for and no more, and the file they are in.

    `Composite` adds what identifies it, and all that can be made of it.
    """

    definition: str
    provenance: dict[str, Any]
    location: str | None
    """Where it is stored: an absolute path or a URL; None if it is not."""
    _parts: dict[str, Part]
    _absent: list[str]

    def _set_state(self, location: str | None) -> None:
        """Set what isn't content."""
        self.location = location
        self._file: StoredFile | None = None
        self._targets: list[targets.Target] = []
        self._closed = False

    def _set_part(self, name: str, value: Any, definition: Definition | None, stage: str) -> None:
        if not (isinstance(name, str) and name.isidentifier()):
            raise EncodeError(f"a component's name should be letters, digits and '_', as Python's are, not {name!r}")
        if value is None:
            self._parts.pop(name, None)
            self._absent = [*dict.fromkeys([*self._absent, name])]
            return
        try:
            self._parts[name] = _part(value, definition, name, stage)
        except EncodeError as error:
            raise type(error)(f"component {name!r}: {error}") from error
        self._absent = [other for other in self._absent if other != name]

    def __getitem__(self, name: str) -> Any:
        """Return the value of a component.

        Raises
        ------
        NoSuchComponentError, AbsentComponentError
            If there is none of that name, or it is known to be None (both are `KeyError`).
        BrokenLinkError, WrongIdError, DigestMismatchError
            If it is linked, and lost.
        UnknownKindError, UnsupportedVersionError, FormatError, CorruptFileError
            If it can't be read.
        ClosedError
            If the file is closed.
        """
        return self._part(name).read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    # Not by value, as mappings are: that would read everything.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def _part(self, name: str) -> Part:
        if self._closed:
            raise ClosedError(
                f"{self.location}: component {name!r} was asked for after the file was closed; "
                f"read it inside the `with` block, or use `load()` to keep all of them"
            )
        if not isinstance(name, Hashable):
            require_type(name, str, "the name of a component")
        if name in self._parts:
            return self._parts[name]
        if name in self._absent:
            raise AbsentComponentError(f"{self._where}: component {name!r} is absent (known to be None)")
        if name in self.lost:
            raise LostComponentError(
                f"{self._where}: component {name!r} was lost to damage, and is missing since the file was rescued: "
                f"{self.lost[name]}"
            )
        raise NoSuchComponentError(
            f"{self._where}: there is no component {name!r}{suggest(name, [*self._parts, *self._absent])}"
        )

    @property
    def _where(self) -> str:
        return self.location or f"composite {self.definition}".rstrip()

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the components that are known to be None."""
        return tuple(self._absent)

    @property
    def lost(self) -> dict[str, str]:
        """Names of the components that were lost to damage before the file was `rescued <compositeh5.rescue>`, and why.

        That of a link that leads nowhere isn't among them: it is lost as long as its target isn't found.
        """
        record = self.provenance.get("rescued")
        lost = record.get("lost") if isinstance(record, dict) else None
        found = lost.items() if isinstance(lost, dict) else ()
        return {name: str(reason) for name, reason in found if name not in self._parts}

    @property
    def links(self) -> dict[str, Link]:
        """The links of the components that live in other files, by name."""
        return {name: part.link for name, part in self._parts.items() if isinstance(part, LinkedPart)}

    def kind(self, name: str) -> str:
        """Return the name of a component's kind, without reading its value."""
        return self._part(name).kind

    def component_digest(self, name: str) -> str:
        """Return the digest of a component: two have the same only if their contents are equal."""
        return self._part(name).digest

    def component_stage(self, name: str) -> str:
        """Return the processing step that made a component; empty if unknown."""
        return self._part(name).stage

    def read(self, name: str, **parameters: Any) -> Any:
        """Return a part of a component.

        Parameters
        ----------
        name : str
            Name of the component.
        **parameters
            What to read; each kind has its own: ``box`` (a `Box` in parent coordinates) for images and masks,
            ``columns`` and ``rows`` for tables.

        Raises
        ------
        UnsupportedParameterError
            If its kind has no such parameter.
        CompositeH5Error
            As ``composite[name]`` does.
        """
        return self._part(name).read(**parameters)

    def lazy(self, name: str) -> LazyArray:
        """Return an array component such that indexing reads only that part: ``c.lazy("image")[10:20, 30:40]``.

        Raises
        ------
        TypeError
            If the component isn't one array.
        """
        node, target = self._part(name).open_node()
        if target is not None:
            if len(self._targets) >= (most := target.access.limits.open_files):
                target.close()
                raise RefusedError(
                    f"{self._where}: would keep more than {most} files of its links open: read whole components, or "
                    f"pass other limits (compositeh5.Limits(open_files=...))"
                )
            self._targets.append(target)
        if not isinstance(node, ArrayNode):
            raise WrongTypeError(f"{self._where}: component {name!r} of kind {self.kind(name)!r} isn't one array")
        return LazyArray(node)

    def memmap(self, name: str) -> NDArray[Any]:
        """Return an array component mapped into memory: nothing is read or copied before it is looked at.

        The array is read-only and stays usable after the file is closed. Its checksums are not looked at: ``c[name]``
        and `verify <compositeh5.verify_files>` do that.

        Parameters
        ----------
        name : str
            Name of a component that was written by the recipe ``"raw"``.

        Raises
        ------
        TypeError
            If the component isn't one array of numbers that is stored in one piece in a file on a disk.
        """
        node, target = self._part(name).open_node()
        try:
            if not isinstance(node, StoredArray):
                raise WrongTypeError(
                    f"{self._where}: component {name!r} of kind {self.kind(name)!r} isn't a stored array"
                )
            return node.memmap()
        finally:
            if target is not None:
                target.close()

    def close(self) -> None:
        """Close the file, and those of its links. Values and attributes that were read stay usable."""
        self._closed = self._closed or self._file is not None
        for target in self._targets:
            target.close()
        self._targets.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.close()


def _part(value: Any, definition: Definition | None, name: str, stage: str) -> Part:
    component = definition.components.get(name) if definition else None
    kind = None if component is None else LIST if component.is_list else component.kind
    if isinstance(value, Link):
        if kind is not None and value.kind != kind:
            raise DefinitionError(f"component {name!r} is of kind {kind!r}, but the link leads to a {value.kind!r}")
        return LinkedPart(value)
    if kind in (None, LIST) and isinstance(value, list | tuple) and any(isinstance(item, Link) for item in value):
        wanted = None if component is None else component.kind
        return ListPart([_item(item, wanted, name, stage) for item in value], stage)
    if component is not None and component.is_list:
        value = [kinds.get(component.kind).coerce(item) for item in value]
    return MemoryPart(value, kind or kinds.infer(value), stage)


def _item(value: Any, kind: str | None, name: str, stage: str) -> Part:
    if not isinstance(value, Link):
        return MemoryPart(value, kind or kinds.infer(value), stage)
    if kind is not None and value.kind != kind:
        raise DefinitionError(f"the items of {name!r} are of kind {kind!r}, but {value} is of kind {value.kind!r}")
    return LinkedPart(value)
