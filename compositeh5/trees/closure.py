"""Which composites, and which of their components, must come along when some are copied: the closure over links.

A folder and a Butler are searched in the same way: a `Store` tells what composites hold, and where links lead.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from .. import kinds
from ..composite.composite import Composite
from ..composite.definitions import known_definition
from ..composite.parts import StoredPart
from ..errors import UnknownKindError
from .references import StoredLink, part_links

Key = TypeVar("Key", bound=Hashable)


@dataclass(eq=False)
class Entry(Generic[Key]):
    """A composite of a store, as far as its attributes tell, and which of its components are needed."""

    key: Key
    """What the store knows it by."""
    links: Mapping[str, tuple[StoredLink, ...]] = field(default_factory=dict)
    """The links of each component; what is no composite has no components."""
    pixels: Set[str] = frozenset()
    """The components that are planes of pixels."""
    is_selected: bool = False
    """Whether it was asked for; others are linked to."""
    needed: Set[str] = frozenset()
    targets: dict[str, Key] = field(default_factory=dict)
    """Where the links of needed components lead, by `StoredLink.component`; without lost ones."""

    @property
    def is_reduced(self) -> bool:
        """Whether only some of the components are needed."""
        return self.needed != self.links.keys()


AnyEntry = TypeVar("AnyEntry", bound=Entry)  # type: ignore[type-arg]
Given = TypeVar("Given", bound=Entry, covariant=True)  # type: ignore[type-arg]


class Store(Protocol[Key, Given]):
    """Where composites are stored."""

    def look_at(self, keys: Sequence[Key]) -> Iterable[Given]:
        """Return what composites hold, in the order of the keys."""

    def locate(self, links: Sequence[tuple[Key, StoredLink]]) -> Iterable[Key | str]:
        """Return where the target of each link is, or a message that says why it is lost."""


def links_and_pixel_names(composite: Composite) -> tuple[dict[str, tuple[StoredLink, ...]], set[str]]:
    """Return the links of each component of a stored composite, and which components are planes of pixels."""
    links: dict[str, tuple[StoredLink, ...]] = {}
    for name in composite:
        part = composite.part(name)
        links[name] = tuple(part_links(name, part, part.location if isinstance(part, StoredPart) else None))
    return links, {name for name in composite if _is_pixels(composite.kind(name))}


def _is_pixels(kind: str) -> bool:
    # A component of an unknown kind is never a reason to leave others behind.
    with suppress(UnknownKindError):
        return kinds.get(kind).is_pixels
    return False


def closure(
    store: Store[Key, AnyEntry], selected: Mapping[AnyEntry, Set[str]], *, whole: bool = False
) -> tuple[dict[Key, AnyEntry], list[str]]:
    """Return all that some components of composites need, and the messages about lost links.

    What is linked to is needed whole, unless it has pixels that nobody needs: then only the components to which links
    lead are.

    Parameters
    ----------
    store : Store
        Where the composites are.
    selected : mapping
        The names of the components that are wanted of each composite.
    whole : bool, optional
        Whether all that is linked to is needed whole.
    """
    entries: dict[Key, AnyEntry] = {entry.key: entry for entry in selected}
    lost: dict[str, None] = {}
    wanted = list(selected.items())
    for entry in selected:
        entry.is_selected = True
    while wanted:
        links: list[tuple[AnyEntry, StoredLink]] = []
        for entry, names in wanted:
            before, entry.needed = entry.needed, entry.needed | (names & entry.links.keys())
            if not entry.is_selected and (whole or entry.pixels <= entry.needed):
                entry.needed = frozenset(entry.links)
            new = entry.needed - before
            links += [(entry, found) for name, own in entry.links.items() if name in new for found in own]
        places = list(store.locate([(entry.key, found) for entry, found in links]))
        unknown = list(dict.fromkeys(key for key in places if not isinstance(key, str) and key not in entries))
        entries |= zip(unknown, store.look_at(unknown), strict=True)
        wanted = []
        for (user, found), key in zip(links, places, strict=True):
            if isinstance(key, str):
                lost[key] = None
            elif (target := entries[key]).links and found.link.component not in target.links:
                lost[f"{user.key}: {found.component} -> {found.link}"] = None
            else:
                user.targets[found.component] = key
                if found.link.component in target.links.keys() - target.needed:
                    wanted.append((target, {found.link.component}))
    return entries, list(lost)


def targets_first(entries: Mapping[Key, AnyEntry]) -> list[AnyEntry]:
    """Return entries in an order in which each comes after those to which it links."""
    ordered: list[AnyEntry] = []
    seen: set[Key] = set()
    for start in entries:
        stack = [(start, False)]
        while stack:
            key, is_left = stack.pop()
            if is_left:
                ordered.append(entries[key])
            elif key not in seen:  # composites of one file may link to each other
                seen.add(key)
                stack += [(key, True), *((target, False) for target in entries[key].targets.values())]
    return ordered


def with_only(whole: Composite, names: Collection[str]) -> Composite:
    """Return a composite of some components of another that is stored, and must stay open.

    Components that are copied record their origin. The result has the definition only if it has all required
    components.
    """
    parts = {name: whole.part(name) for name in whole if name in names}
    copies = {n: part.copied_from(whole.link(n)) if isinstance(part, StoredPart) else part for n, part in parts.items()}
    result = whole.with_parts(copies, [name for name in whole.absent if name in names])
    definition = known_definition(whole.definition)
    if definition is None or not set(definition.required).issubset(names):
        result.definition, result.definition_version = "", 1
    return result
