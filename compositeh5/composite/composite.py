"""`Composite`: an object made of named components, in memory or over an open file."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from threading import Lock
from typing import Any, Self

from ..errors import (
    AbsentComponentError,
    ClosedError,
    EncodeError,
    LostComponentError,
    NoSuchComponentError,
    checked_names,
    require_type,
    suggest,
)
from ..storage.digests import composite_digest, read_json
from ..storage.layout import composite_names
from ..storage.nodes import GroupNode
from ..storage.reader import StoredFile
from . import display, python_objects
from .cutout import cutout, cutouts, lazy, memmap
from .definition import VERSIONS, Definition
from .definitions import get_definition
from .encoding import composite_node, link
from .interface import ATTRIBUTES, Parts, check_attributes, checked_attributes, stored
from .link import DataId, Link, checked_data_id
from .overlay import overlay, read_version, replace, require_stage, versions
from .parts import (
    LinkedPart,
    Part,
    StoredPart,
    ValuePart,
    check_records,
    fetch_parts,
    parts_of,
    stored_part,
)
from .session import Session, current
from .writing import file_image, flatten, write

OpenGroup = Callable[[], tuple[StoredFile | None, GroupNode]]
"""Returns the group of a stored composite, and the file that the composite closes, if any."""


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

    definition = stored("Name of the definition; empty if it has none.", lambda group: group.attr("definition", str))
    definition_version = stored("Version of the definition.", lambda group: group.attr("definition_version", int))
    data_id = stored("Data ID.", lambda group: checked_data_id(read_json(group, "data_id", dict)))
    dataset_type = stored(
        "Name of the dataset type in a Butler; empty if unknown.", lambda group: group.attr("dataset_type", str, "")
    )
    run = stored("Name of the run in a Butler; empty if unknown.", lambda group: group.attr("run", str, ""))
    stage = stored(
        "The processing step that made the composite; empty if unknown.", lambda group: group.attr("stage", str, "")
    )
    id = stored(
        "Id (UUID) of the composite; empty for one that was neither given one nor written.",
        lambda group: str(uuid.UUID(group.attr("id", str))),
    )
    provenance = stored("How it came to be.", lambda group: read_json(group, "provenance", dict))
    recorded_digest = stored(
        "Digest that the file records; empty for a composite in memory.", lambda group: group.attr("digest", str)
    )
    signal = stored(
        "Name of the component that viewers show; empty if there is none.", lambda group: group.attr("signal", str, "")
    )
    absent = stored(
        "Names of the components that are known to be None.",
        lambda group: tuple(map(str, read_json(group, "absent", list))),
    )
    location: str | None
    """Where it is stored: an absolute path or a URL; None if it is not."""
    closed: bool
    """Whether the file of the composite was closed."""
    _parts: dict[str, Part]
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
        vars(self).update(checked_attributes(data_id, dataset_type, run, stage, id, provenance))
        self.definition, self.definition_version = (found.name, found.version) if found else ("", 1)
        self.signal, self.recorded_digest = (found.signal or "") if found else "", ""
        self._parts, self.absent = parts_of(values, found, stage)

    def _set_state(
        self, location: str | None, session: Session | None = None, open_group: OpenGroup | None = None
    ) -> None:
        """Set what isn't content."""
        self.location, self._session, self._open_group = location, session, open_group
        # The location changes when the composite is written elsewhere; that of its file doesn't.
        self._start = location
        self.fallbacks, self.closed = {}, False
        self._parts = {}
        self._in_memory = open_group is None
        self._digests: dict[str, str] = {}
        self._file: StoredFile | None = None
        self._files: list[StoredFile] = []
        self._lock = Lock()
        self._reopen: Callable[[str, str], Composite] | None = None
        self._reopened_by: tuple[str, str] | None = None

    @classmethod
    def of(cls, obj: Any, definition: str | Definition, /, **attributes: Any) -> Composite:
        """Return a composite of the components of an object of a user's own class; `assemble` is the way back.

        Parameters
        ----------
        obj : object
            The object. Its components may be values or `Link` objects.
        definition : str or Definition
            Definition, or the name of one, that tells which components there are, and how they are taken from the
            object; see `compositeh5.composite.python_objects.disassemble`.
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
        check_attributes("of", attributes)
        definition = _definition(definition)
        return cls(definition, python_objects.disassemble(obj, definition), **attributes)

    def assemble(self, cls: type[Any] | None = None, definition: str | Definition | None = None) -> Any:
        """Return the object of a user's own class that is made of the components which are present.

        Parameters
        ----------
        cls : type, optional
            The class, instead of the ``python_type`` of the definition.
        definition : str or Definition, optional
            Definition, or the name of one, that tells how the object is built; see
            `compositeh5.composite.python_objects.assemble`. By default that of the composite, which must be registered
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
        with fetch_parts(parts.values()):
            values = {name: part.read() for name, part in parts.items()}
        return python_objects.assemble(values, definition, cls)

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
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    # Not by value, as mappings are: that would read everything.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    @property
    def names_in_file(self) -> tuple[str, ...]:
        """Names of all composites of the file that this one is read from; none unless that is open."""
        return () if self._file is None else composite_names(self._file)

    def part(self, name: str) -> Part:
        """Return what the composite holds of a component: a value, or where it is stored.

        Raises
        ------
        ClosedError, NoSuchComponentError, AbsentComponentError
            As ``composite[name]`` does.
        """
        if self.closed:
            raise ClosedError(
                f"{self.location}: component {name!r} was asked for after the file was closed; "
                f"read it inside the `with` block, or use `load()` to keep all of them"
            )
        if not isinstance(name, Hashable):
            require_type(name, str, "the name of a component")
        if name in self._parts:
            return self._parts[name]
        if not self._in_memory and isinstance(name, str):
            with suppress(KeyError):
                part = stored_part(self._group, name, self._start, self._session, lambda: self._records)
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
        return Parts(self)

    @property
    def session(self) -> Session:
        """How its links are followed."""
        return self._session or current()

    @property
    def where(self) -> str:
        """What messages call the composite: its location, if it has one."""
        return self.location or f"composite {self.definition}".rstrip()

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

    lazy, memmap, cutout, cutouts = lazy, memmap, cutout, cutouts

    def load(self) -> Composite:
        """Return the composite with all values in memory, links kept beside the values of linked components."""
        parts = self.parts
        with fetch_parts(parts.values()):
            loaded = {
                name: part.loaded()
                if isinstance(part, LinkedPart)
                else ValuePart(part.read(), part.kind, part.stage, part.origin)
                for name, part in parts.items()
            }
        new = self.with_parts(loaded, id=self.id)
        digests = {name: part.digest for name, part in parts.items() if isinstance(part, StoredPart)}
        new.location, new._digests = self.location, digests | self._digests
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
        check_attributes("with_parts", attributes)
        new = Composite.__new__(Composite)
        new._set_state(None)
        own = {name: getattr(self, name) for name in ATTRIBUTES if name != "id"}
        vars(new).update(checked_attributes(**{**own, "id": None, **attributes}))
        new.definition, new.definition_version = self.definition, self.definition_version
        new.absent = self.absent if absent is None else checked_names(absent, "the name of a component")
        new.signal, new.recorded_digest = self.signal, ""
        new._parts = dict(parts)
        return new

    replace, overlay, require_stage = replace, overlay, require_stage
    versions, read_version = versions, read_version

    @property
    def digest(self) -> str:
        """Digest of the composite: of its attributes and the digests of all components, stored or linked."""
        return composite_digest(composite_node(self) if self._in_memory else self._group)

    link, write, file_image, flatten = link, write, file_image, flatten

    # ---- The file --------------------------------------------------------------------------------------------

    @cached_property
    def _group(self) -> GroupNode:
        """The group of a stored composite. Of one that was pickled the file is opened for it, once by all threads."""
        with self._lock:
            if "_group" not in vars(self):
                if self.closed or self._open_group is None:
                    raise ClosedError(f"{self.location}: was closed before it was used; nothing was read of it")
                self._file, vars(self)["_group"] = self._open_group()
            return vars(self)["_group"]  # type: ignore[no-any-return]

    @cached_property
    def _records(self) -> Mapping[str, Any]:
        """What is recorded of the links of a stored composite."""
        return read_json(self._group, "links", dict)

    @property
    def _names(self) -> Collection[str]:
        return self._parts if self._in_memory else self._stored_names

    @cached_property
    def _stored_names(self) -> tuple[str, ...]:
        check_records(self._group)
        return tuple(self._group)

    def close(self) -> None:
        """Close the file, and those of its links. Values and attributes that were read stay usable."""
        self.closed = self.closed or self._file is not None or self._open_group is not None
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

    # ---- What people see of it -------------------------------------------------------------------------------

    components, tree, shown_image = display.components, display.tree, display.shown_image
    __repr__, _repr_html_ = display.line, display.page


def _definition(definition: str | Definition) -> Definition:
    return definition if isinstance(definition, Definition) else get_definition(definition)
