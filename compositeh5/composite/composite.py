"""`Composite`: an object made of named components, in memory or over an open file."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace as changed
from functools import cached_property, partial
from html import escape
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from numpy.typing import NDArray

from ..errors import (
    AbsentComponentError,
    ClosedError,
    CompositeH5Error,
    DefinitionError,
    EncodeError,
    FormatError,
    LostComponentError,
    NoSuchComponentError,
    RefusedError,
    UnsupportedVersionError,
    WrongTypeError,
    WrongValueError,
    checked_names,
    require_type,
    suggest,
)
from ..storage.digests import composite_digest, read_json
from ..storage.nodes import ArrayNode, GroupNode
from ..storage.reader import StoredFile
from . import assembly
from .cutout import cutout, cutouts
from .definition import VERSIONS, Definition
from .definitions import get_definition, known_definition
from .describe import ComponentInfo, component_infos, tree
from .flatten import flatten
from .lazy import LazyArray
from .link import DataId, Link, checked_data_id
from .overlay import overlay, read_version, require_stage, versions
from .parts import LinkedPart, Part, StoredPart, ValuePart, check_records, fetch_parts, part_of, stored_part
from .session import Session, current
from .writing import KIND_VERSION, Contents, file_image, write

FETCHED_TOGETHER = 256 * 1024 * 1024
"""Components of a remote file that are more than this, as stored, are fetched one after the other."""

_ATTRIBUTES = ("data_id", "dataset_type", "run", "stage", "id", "provenance")
"""What a composite has beside its definition and its components."""

_Value = TypeVar("_Value")

OpenGroup = Callable[[], tuple[StoredFile | None, GroupNode]]
"""Returns the group of a stored composite, and the file that the composite closes, if any."""


class _Parts(Mapping[str, Part]):
    """The parts of a composite by name, each made when it is asked for."""

    def __init__(self, composite: Composite) -> None:
        self._composite = composite

    def __getitem__(self, name: str) -> Part:
        return self._composite.part(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._composite)

    def __len__(self) -> int:
        return len(self._composite)


class _stored(Generic[_Value]):
    """An attribute of a composite that is read from its group when it is first asked for; others have it set."""

    def __init__(self, doc: str, read: Callable[[GroupNode], _Value]) -> None:
        self.__doc__, self._read = doc, read

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__qualname__ = f"{owner.__qualname__}.{name}"

    @overload
    def __get__(self, composite: None, owner: type) -> Self: ...
    @overload
    def __get__(self, composite: Composite, owner: type) -> _Value: ...
    def __get__(self, composite: Composite | None, owner: type) -> Self | _Value:
        if composite is None:
            return self
        group = composite._group
        try:
            value = composite.__dict__[self._name] = self._read(group)
        except (ValueError, TypeError) as error:
            if isinstance(error, CompositeH5Error) and not isinstance(error, EncodeError):
                raise
            raise FormatError(f"{group.where}: {error}") from error
        return value

    if TYPE_CHECKING:
        # At run time a value that is set hides this.
        def __set__(self, composite: Composite, value: _Value) -> None: ...


class Composite(Mapping[str, Any]):
    """An object made of named components.

    A lazy mapping: ``composite["wcs"]`` reads that component and no other. Components that are known to be
    None are absent: not among the keys, but in `absent`. Values stay usable after the file is closed.

    Parameters
    ----------
    definition : str or Definition, optional
        Type of the composite: a definition or the name of one. Without it any components can be given, and their
        kinds follow from their types.
    components : mapping, optional
        Values, or `Link` objects to components of other composites, or None, by name.
    data_id : mapping, optional
        Data ID: numbers or text by dimension.
    dataset_type, run, stage : str, optional
        Dataset type and run in a Butler, and the name of the processing step that made the components.
    id : str or uuid.UUID, optional
        Id; derived from the content when the composite is written if it isn't given.
    provenance : mapping, optional
        How it came to be; anything that JSON can hold.
    **more
        Components, for names that can be written so.

    Raises
    ------
    DefinitionError
        If components are missing, or not of this definition.
    EncodeError
        If a value can't be of its component's kind.
    """

    definition = _stored("Name of the definition; empty if it has none.", lambda group: group.attr("definition", str))
    definition_version = _stored("Version of the definition.", lambda group: group.attr("definition_version", int))
    data_id = _stored("Data ID.", lambda group: checked_data_id(read_json(group, "data_id", dict)))
    dataset_type = _stored(
        "Name of the dataset type in a Butler; empty if unknown.", lambda group: group.attr("dataset_type", str, "")
    )
    run = _stored("Name of the run in a Butler; empty if unknown.", lambda group: group.attr("run", str, ""))
    stage = _stored(
        "The processing step that made the composite; empty if unknown.", lambda group: group.attr("stage", str, "")
    )
    id = _stored(
        "Id (UUID) of the composite; empty for one that was neither given one nor written.",
        lambda group: str(uuid.UUID(group.attr("id", str))),
    )
    provenance = _stored("How it came to be.", lambda group: read_json(group, "provenance", dict))
    recorded_digest = _stored(
        "Digest that the file records; empty for a composite in memory.", lambda group: group.attr("digest", str)
    )
    signal = _stored(
        "Name of the component that viewers show; empty if there is none.", lambda group: group.attr("signal", str, "")
    )
    absent = _stored(
        "Names of the components that are known to be None.",
        lambda group: tuple(map(str, read_json(group, "absent", list))),
    )
    location: str | None
    """Where it is stored: an absolute path or a URL; None if it is not."""
    fallbacks: Mapping[str, str]
    """Components that `require_stage` took from an earlier stage, and which."""

    def __init__(
        self,
        definition: str | Definition | None = None,
        components: Mapping[str, Any] | None = None,
        /,
        *,
        data_id: DataId | None = None,
        dataset_type: str = "",
        run: str = "",
        stage: str = "",
        id: str | uuid.UUID | None = None,
        provenance: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        require_type(definition, (str, Definition, type(None)), "a definition, the name of one, or None")
        require_type({} if components is None else components, Mapping, "a mapping of names to components")
        values = {**(components or {}), **more}
        found = None if definition is None else _definition(definition)
        if found is not None:
            found.check(values)
        self._set_state(None)
        self.definition, self.definition_version = (found.name, found.version) if found else ("", 1)
        self.signal = (found.signal or "") if found else ""
        self._set_attributes(data_id, dataset_type, run, stage, id, provenance)
        self.absent, self.recorded_digest = (), ""
        self._set_parts(values, found)

    def _set_attributes(
        self,
        data_id: DataId | None,
        dataset_type: str,
        run: str,
        stage: str,
        id: str | uuid.UUID | None,
        provenance: Mapping[str, Any] | None,
    ) -> None:
        for name, text in (("dataset_type", dataset_type), ("run", run), ("stage", stage)):
            require_type(text, str, f"{name}, as text,")
        require_type({} if provenance is None else provenance, Mapping, "provenance, a mapping,")
        self.data_id = checked_data_id({} if data_id is None else data_id)
        self.dataset_type, self.run, self.stage = dataset_type, run, stage
        self.id = "" if id is None else str(id)
        self.provenance = dict(provenance or {})

    def _set_state(
        self, location: str | None, session: Session | None = None, open_group: OpenGroup | None = None
    ) -> None:
        """Set what isn't content."""
        self.location, self._session, self._open_group = location, session, open_group
        # The location changes when the composite is written elsewhere; that of its file doesn't.
        self._start = location
        self.fallbacks = {}
        self._parts: dict[str, Part] = {}
        self._in_memory, self._closed = open_group is None, False
        self._digests: dict[str, str] = {}
        self._file: StoredFile | None = None
        self._files: list[StoredFile] = []
        self._lock = Lock()
        self._reopen: Callable[[str, str], Composite] | None = None
        self._reopened_by: tuple[str, str] | None = None

    def _set_parts(self, values: Mapping[str, Any], definition: Definition | None) -> None:
        for name, value in values.items():
            if not (isinstance(name, str) and name.isidentifier()):
                raise EncodeError(
                    f"a component's name should be letters, digits and '_', as Python's are, not {name!r}"
                )
            self.absent = tuple(other for other in self.absent if other != name)
            if value is None:
                self.absent = (*self.absent, name)
                self._parts.pop(name, None)
                continue
            component = definition.components.get(name) if definition else None
            try:
                self._parts[name] = part_of(value, component, self.stage)
            except (EncodeError, DefinitionError) as error:
                raise type(error)(f"component {name!r}: {error}") from error

    @classmethod
    def of(cls, obj: Any, definition: str | Definition, /, **attributes: Any) -> Composite:
        """Return a composite of the components of an object of a user's own class; `assemble` is the way back.

        Parameters
        ----------
        obj : object
            The object. Its components may be values or `Link` objects.
        definition : str or Definition
            Definition, or the name of one, that tells which components there are, and how they are taken from the
            object; see `compositeh5.composite.assembly.disassemble`.
        **attributes
            ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as in the constructor.

        Raises
        ------
        DefinitionError
            If the object can't be taken apart so.
        EncodeError
            If a value can't be of its component's kind.
        Exception
            What the user's code raises.

        Examples
        --------
        >>> composite = Composite.of(observation, "observation", data_id={"visit": 7})  # doctest: +SKIP
        >>> composite.write("observation.h5")  # doctest: +SKIP
        >>> again = composite.assemble()  # doctest: +SKIP
        """
        _check_attributes("of", attributes)
        definition = _definition(definition)
        return cls(definition, assembly.disassemble(obj, definition), **attributes)

    def assemble(self, cls: type[Any] | None = None, definition: str | Definition | None = None) -> Any:
        """Return the object of a user's own class that is made of the components which are present.

        Parameters
        ----------
        cls : type, optional
            The class, instead of the ``python_type`` of the definition.
        definition : str or Definition, optional
            Definition, or the name of one, that tells how the object is built; see
            `compositeh5.composite.assembly.assemble`. By default that of the composite, which must be registered
            (`register_definition`).

        Raises
        ------
        DefinitionError
            If the definition isn't known, or the object can't be built so.
        Exception
            What the user's code raises, or ``composite[name]`` for one of the components.
        """
        definition = _definition(definition or self.definition)
        parts = {name: part for name, part in self.parts.items() if name != VERSIONS}
        with fetch_parts(parts.values(), FETCHED_TOGETHER):
            values = {name: part.read() for name, part in parts.items()}
        return assembly.assemble(values, definition, cls)

    # ---- The components, each read when it is asked for ------------------------------------------------------

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
        return self.part(name).read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts if self._in_memory else self._names)

    def __len__(self) -> int:
        return len(self._parts if self._in_memory else self._names)

    def __contains__(self, name: object) -> bool:
        return name in (self._parts if self._in_memory else self._names)

    # Not by value, as mappings are: that would read everything.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def part(self, name: str) -> Part:
        """Return what the composite holds of a component: a value, or where it is stored.

        Raises
        ------
        ClosedError, NoSuchComponentError, AbsentComponentError
            As ``composite[name]`` does.
        """
        if self._closed:
            raise ClosedError(
                f"{self.location}: component {name!r} was asked for after the file was closed; "
                f"read it inside the `with` block, or use `load()` to keep all of them"
            )
        if not isinstance(name, Hashable):
            require_type(name, str, "the name of a component")
        if name in self._parts:
            return self._parts[name]
        if not self._in_memory and isinstance(name, str):
            try:
                part = stored_part(self._group, name, self._start, self._session, lambda: self._records)
            except KeyError:
                pass
            else:
                return self._parts.setdefault(name, part)
        if name in self.absent:
            raise AbsentComponentError(f"{self.where}: component {name!r} is absent (known to be None)")
        if name in self.lost:
            raise LostComponentError(
                f"{self.where}: component {name!r} was lost to damage, and is missing since the file was rescued: "
                f"{self.lost[name]}"
            )
        raise NoSuchComponentError(
            f"{self.where}: there is no component {name!r}{suggest(name, [*self, *self.absent])}"
        )

    @property
    def parts(self) -> Mapping[str, Part]:
        """What the composite holds of each component, by name."""
        return _Parts(self)

    @property
    def session(self) -> Session:
        """How its links are followed."""
        return self._session or current()

    @property
    def where(self) -> str:
        """What messages call the composite: its location, if it has one."""
        return self.location or f"composite {self.definition}".rstrip()

    @property
    def closed(self) -> bool:
        """Whether the file of the composite was closed."""
        return self._closed

    @property
    def lost(self) -> dict[str, str]:
        """Names of the components that `compositeh5.trees.rescue` found damaged, and why.

        That of a link that leads nowhere isn't among them: it is lost as long as its target isn't found.
        """
        record = self.provenance.get("rescued")
        lost = record.get("lost") if isinstance(record, dict) else None
        found = lost.items() if isinstance(lost, dict) else ()
        return {name: str(reason) for name, reason in found if name not in self}

    @property
    def links(self) -> dict[str, Link]:
        """The links of the components that live in other files, by name."""
        # Of a file nothing is looked at but the links.
        names = self._parts if self._in_memory else [name for name in self if name in self._records]
        found = {name: self._parts.get(name) or self.part(name) for name in names}
        return {name: part.link for name, part in found.items() if isinstance(part, LinkedPart)}

    def kind(self, name: str) -> str:
        """Return the name of a component's kind, without reading its value."""
        return self.part(name).kind

    def component_digest(self, name: str) -> str:
        """Return the digest of a component: two have the same only if their contents are equal."""
        return self.part(name).digest

    def component_stage(self, name: str) -> str:
        """Return the processing step that made a component; empty if unknown."""
        return self.part(name).stage

    def component_origin(self, name: str) -> Link | None:
        """Return a link to where the content of a component is from.

        For a linked component that is where it is stored; for one that was copied from another composite, where it
        was there; else the composite itself, or None if that isn't stored.
        """
        return self.part(name).origin or (None if self.location is None else self.link(name))

    def components(self) -> dict[str, ComponentInfo]:
        """Return what is known of each component without reading its values, absent ones included."""
        return component_infos(self.parts, self.absent, self.lost)

    def tree(self) -> str:
        """Return a table of the components as text: kind, shape, size, where each is."""
        return "\n".join([repr(self), tree(self.components().values())])

    # ---- Reading parts of components -------------------------------------------------------------------------

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
        return self.part(name).read(**parameters)

    def lazy(self, name: str) -> LazyArray:
        """Return an array component such that indexing reads only that part: ``c.lazy("image")[10:20, 30:40]``.

        Raises
        ------
        TypeError
            If the component isn't one array.
        """
        part = self.part(name)
        node, file = part.open_node()
        if file is not None:
            if len(self._files) >= (most := file.limits.open_files):
                file.close()
                raise RefusedError(
                    f"{self.where}: would keep more than {most} files of its links open: read whole components, or "
                    f"pass other limits (compositeh5.Limits(open_files=...))"
                )
            self._files.append(file)
        if not isinstance(node, ArrayNode):
            raise WrongTypeError(f"{self.where}: component {name!r} of kind {part.kind!r} isn't one array")
        return LazyArray(node)

    def memmap(self, name: str) -> NDArray[Any]:
        """Return an array component mapped into memory, read-only; see `LazyArray.memmap`."""
        lazy = self.lazy(name)
        try:
            return lazy.memmap()
        except WrongTypeError as error:
            raise WrongTypeError(f"{self.where}: component {name!r} of kind {self.kind(name)!r}: {error}") from error

    cutout, cutouts = cutout, cutouts

    def load(self) -> Composite:
        """Return the composite with all values in memory, links kept beside the values of linked components."""
        parts = self.parts
        with fetch_parts(parts.values(), FETCHED_TOGETHER):
            loaded = {
                name: part.loaded()
                if isinstance(part, LinkedPart)
                else ValuePart(part.read(), part.kind, part.stage, part.origin)
                for name, part in parts.items()
            }
        new = self.with_parts(loaded, id=self.id)
        stored = {name: part.digest for name, part in parts.items() if isinstance(part, StoredPart)}
        new.location, new._digests = self.location, stored | self._digests
        return new

    # ---- Composites that are like this one -------------------------------------------------------------------

    def with_parts(
        self, parts: Mapping[str, Part], absent: Iterable[str] | None = None, **attributes: Any
    ) -> Composite:
        """Return a composite in memory of exactly these parts that is otherwise like this one; it has no id.

        Parameters
        ----------
        parts : mapping of str to Part
            The components by name; those of this one are its `parts`.
        absent : iterable of str, optional
            Names of the components that are known to be None; by default those of this one.
        **attributes
            As for `replace`.
        """
        require_type(parts, Mapping, "a mapping of names to parts")
        _check_attributes("with_parts", attributes)
        new = Composite.__new__(Composite)
        new._set_state(None)
        own = {name: getattr(self, name) for name in _ATTRIBUTES if name != "id"}
        new._set_attributes(**{**own, "id": None, **attributes})
        new.definition, new.definition_version = self.definition, self.definition_version
        new.absent = self.absent if absent is None else checked_names(absent, "the name of a component")
        new.signal, new.recorded_digest = self.signal, ""
        new._parts = dict(parts)
        return new

    def replace(self, components: Mapping[str, Any] | None = None, /, **attributes: Any) -> Composite:
        """Return a composite in memory like this one, but for some of its components and attributes.

        All others are shared with this one, which must stay open while they are read.

        Parameters
        ----------
        components : mapping, optional
            Values, `Link` objects or None by name, in place of those that there are, or new.
        **attributes
            ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as in the constructor. An id
            names one content: without a new one the result has none.

        Raises
        ------
        DefinitionError
            If the definition doesn't have one of the components, or as one of another kind.
        EncodeError
            If a value can't be of its component's kind.
        WrongTypeError
            If there is no attribute of that name.
        """
        require_type({} if components is None else components, Mapping, "a mapping of names to components")
        _check_attributes("replace", attributes)
        new = self.with_parts(self.parts, **attributes)
        definition = known_definition(self.definition)
        for name in components or {}:
            if definition is not None and name not in definition.components and name != VERSIONS:
                raise DefinitionError(f"{self.where}: the definition {self.definition!r} has no component {name!r}")
        new._set_parts(components or {}, definition)
        return new

    overlay, require_stage, versions, read_version = overlay, require_stage, versions, read_version

    # ---- Links and writing -----------------------------------------------------------------------------------

    def link(self, name: str) -> Link:
        """Return a link to a component, for use as a component of another composite.

        A component that is itself linked gives the link to where it is stored.

        Raises
        ------
        ClosedError, NoSuchComponentError, AbsentComponentError
            As ``composite[name]`` does.
        ValueError
            If the composite isn't stored yet: nothing could be found at the link's end.
        """
        part = self.part(name)
        if isinstance(part, LinkedPart):
            return changed(part.link, uri=part.place)
        if self.location is None:
            raise WrongValueError(f"{self.where}: write it first, then link to its component {name!r}")
        return Link(
            id=self.id,
            component=name,
            kind=part.kind,
            digest=self._digests.get(name) or part.digest,
            uri=self.location,
            definition=self.definition,
            dataset_type=self.dataset_type,
            data_id=self.data_id,
            run=self.run,
            stage=part.stage,
        )

    @property
    def digest(self) -> str:
        """Digest of the composite: of its attributes and the digests of all components, stored or linked."""
        return composite_digest(self.contents().group() if self._in_memory else self._group)

    def contents(self) -> Contents:
        """Return what is written of the composite."""
        return Contents(
            dict(self.parts),
            self.absent,
            **{name: getattr(self, name) for name in ("definition", "definition_version", *_ATTRIBUTES, "signal")},
            where=self.where,
            is_stored=self.location is not None,
        )

    def become(self, contents: Contents, location: str | None) -> None:
        """Be what was written: with its id, with links in place of values, with rounded images.

        Parameters
        ----------
        contents : Contents
            What was written.
        location : str, optional
            Where it is now; None to leave that as it is.
        """
        if contents.parts != dict(self.parts):
            self._parts, self._in_memory = contents.parts, True
        self.id, self._digests = contents.id, contents.digests
        self.location = location or self.location

    write, file_image, flatten = write, file_image, flatten

    # ---- The file --------------------------------------------------------------------------------------------

    @cached_property
    def _group(self) -> GroupNode:
        """The group of a stored composite. Of one that was pickled the file is opened for it, once by all threads."""
        with self._lock:
            if "_group" not in vars(self):
                if self._closed or self._open_group is None:
                    raise ClosedError(f"{self.location}: was closed before it was used; nothing was read of it")
                self._file, vars(self)["_group"] = self._open_group()
            return vars(self)["_group"]  # type: ignore[no-any-return]

    @cached_property
    def _records(self) -> Mapping[str, Any]:
        """What is recorded of the links of a stored composite."""
        return read_json(self._group, "links", dict)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The names of the components of a stored composite."""
        check_records(self._group)
        return tuple(self._group)

    def close(self) -> None:
        """Close the file, and those of its links. Values and attributes that were read stay usable."""
        self._closed = self._closed or self._file is not None or self._open_group is not None
        while self._files:
            self._files.pop().close()
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

    @property
    def can_reopen(self) -> bool:
        """Whether the composite is as it was opened by a path or URL, so that it can be opened again."""
        return self._reopen is not None

    def opener(self) -> Callable[[], Composite]:
        """Return what opens the composite once more, when it is first used; also in another process.

        Raises
        ------
        EncodeError
            If it isn't as it was opened, or was opened from a file object.
        """
        if self._reopen is None:
            raise EncodeError(f"{self!r}: can't be opened again: it isn't as it was opened by a path or URL")
        return partial(self._reopen, *(self._reopened_by or (self.id, self.recorded_digest)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        # One that was opened, as where it is and what must be found there; others by value.
        return (self.opener(), ()) if self.can_reopen else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        if not self._in_memory:
            raise EncodeError(f"{self.where}: can't be pickled while it is in an open file: pickle composite.load()")
        return {name: value for name, value in vars(self).items() if name != "_lock"} | {"_file": None, "_files": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    # ---- For the eye -----------------------------------------------------------------------------------------

    def shown_image(self) -> str:
        """Return the name of the image that stands for the composite in a picture.

        Raises
        ------
        NoSuchComponentError
            If it has no image.
        """
        images = [name for name in self if self.kind(name) == "image"]
        if not images:
            raise NoSuchComponentError(f"{self!r} has no image to be shown{suggest('image', list(self))}")
        return next((name for name in (self.signal, "image") if name in images), images[0])

    def __repr__(self) -> str:
        if self._closed:
            return f"<Composite {self.location} closed>"
        links = self.links
        ids = " ".join(f"{key}={value}" for key, value in self.data_id.items())
        names = ", ".join(
            f"{name} -> {links[name].dataset_type or links[name].definition or 'link'}" if name in links else name
            for name in self
        )
        words = [self.definition, ids, f"({names})"]
        return f"<Composite {' '.join(word for word in words if word)}>"

    def _repr_html_(self) -> str:
        if self._closed:
            return f"<pre>{escape(repr(self))}</pre>"
        from .html import html, thumbnail

        about = {
            "data ID": " ".join(f"{key}={value}" for key, value in self.data_id.items()),
            "dataset type": self.dataset_type,
            "run": self.run,
            "stage": self.stage,
            "id": self.id,
            "file": self.location or "not stored",
        }
        picture = ""
        with suppress(CompositeH5Error, OSError):
            name = self.shown_image()
            picture = thumbnail(name, self.lazy(name))
        return html(f"Composite {self.definition}", about, self.components().values(), picture)


def stored_composite(
    group: GroupNode, location: str | None, session: Session | None = None, file: StoredFile | None = None
) -> Composite:
    """Return the composite that a group holds; its attributes and components are read when asked for.

    Parameters
    ----------
    group : GroupNode
        The group.
    location : str, optional
        Where its file is, as links see it.
    session : Session, optional
        How its links are followed.
    file : StoredFile, optional
        What the composite closes.

    Raises
    ------
    FormatError
        If the group isn't a composite.
    UnsupportedVersionError
        If it is one of a newer version.
    """
    if group.attr("kind", str) != "composite":
        raise FormatError(f"{group.where}: its kind is {group.attrs['kind']!r}, not 'composite'")
    if (version := group.attr("kind_version", int)) > KIND_VERSION:
        raise UnsupportedVersionError(
            f"{group.where}: version {version} of composites is newer than version {KIND_VERSION}, "
            f"which this release reads; install a newer release"
        )
    composite = lazy_composite(None, location, session)
    composite._group, composite._file, composite._in_memory = group, file, False
    return composite


def lazy_composite(open_group: OpenGroup | None, location: str | None, session: Session | None) -> Composite:
    """Return a composite whose file is opened when something is asked for; see `stored_composite`."""
    composite = Composite.__new__(Composite)
    composite._set_state(location, session, open_group)
    return composite


def _definition(definition: str | Definition) -> Definition:
    return definition if isinstance(definition, Definition) else get_definition(definition)


def _check_attributes(function: str, attributes: Mapping[str, Any]) -> None:
    for name in attributes.keys() - set(_ATTRIBUTES):
        raise WrongTypeError(
            f"{function}() has no argument {name!r}{suggest(name, _ATTRIBUTES)}; components are given by a mapping: "
            f"{{{name!r}: value}}"
        )
