"""What a subset of a tree needs, as far as that is known, and where it will be."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias

from ..composite.link import Link
from ..storage.locations import relative_location
from .references import StoredLink

Transfer: TypeAlias = Literal["copy", "hardlink", "symlink"]
"""How files that are needed whole, and as they are, get to their new place."""

Needs: TypeAlias = dict[str, frozenset[str] | None]
"""For the names of the composites of a file that are needed, their components; None for all."""

OUTSIDE = "linked"
"""Folder for what was linked to from outside of the source."""


class Wanted(NamedTuple):
    """A file, what is needed of it, and the links of that."""

    path: str
    names: tuple[str, ...]
    needs: Needs
    links: tuple[tuple[str, StoredLink], ...]
    """With the names of the composites that have them."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it is needed."""
        return set(self.needs) == set(self.names) and all(parts is None for parts in self.needs.values())


class Want(NamedTuple):
    """A link, and the file that has it."""

    link: Link
    place: str
    base: str


class Found(NamedTuple):
    """Where the target of a link is."""

    path: str
    composite: str


@dataclass
class Plan:
    """What is needed, as far as that is known."""

    root: str
    target: str
    files: dict[str, Wanted]
    lost: list[str] = field(default_factory=list)
    places: dict[tuple[Link, str], Found | None] = field(default_factory=dict)
    """Where the targets of links are, by the place that the path in the file leads to; None for lost ones."""
    added: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """Components that links need, by file and composite."""
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    """Ids that composites will have, by file and name."""

    def unresolved(self) -> list[Want]:
        """Return the links of which the targets are not known yet, each once."""
        wants: dict[tuple[Link, str], Want] = {}
        for file in self.files.values():
            for _, found in file.links:
                key = (found.link, found.place)
                if key not in self.places:
                    wants.setdefault(key, Want(found.link, found.place, file.path))
        return list(wants.values())

    def resolve(self, wants: list[Want], results: list[Found | str]) -> None:
        """Note where targets are."""
        for want, result in zip(wants, results, strict=True):
            if isinstance(result, str):
                self.lost.append(result)
                self.places[want.link, want.place] = None
            else:
                self.places[want.link, want.place] = result
                self.added[result.path][result.composite].add(want.link.component)

    def to_look_at(self, selected: Mapping[str, frozenset[str]]) -> list[tuple[str, Needs, frozenset[str]]]:
        """Return the files of which more is needed than was known, that, and their composites that weren't selected."""
        more: list[tuple[str, Needs, frozenset[str]]] = []
        for path, composites in self.added.items():
            known = self.files[path].needs if path in self.files else {}
            needs = dict(known)
            for name, parts in composites.items():
                before = known.get(name, frozenset())
                needs[name] = None if before is None else before | parts
            if needs != known:
                more.append((path, needs, frozenset(needs) - selected.get(path, frozenset())))
        return more

    def looked_at(self, files: Iterable[Wanted]) -> None:
        """Note what is needed of files."""
        self.files |= {file.path: file for file in files}

    def name_all(self, found: Iterable[Mapping[str, str]]) -> None:
        """Note the ids that composites will have."""
        for path, ids in zip(self.files, found, strict=True):
            self.ids |= {(path, name): id_ for name, id_ in ids.items()}

    def destination(self, file: Wanted) -> str:
        """Return where a file will be."""
        path = os.path.relpath(file.path, self.root)
        parts = sorted({part for parts in file.needs.values() for part in parts or ()})
        if path.startswith(os.pardir):
            # Two of the same name may come from different folders.
            path = os.path.join(OUTSIDE, self.ids[file.path, next(iter(file.needs))], os.path.basename(path))
        if parts:
            stem, extension = os.path.splitext(path)
            path = f"{stem}.{'+'.join(parts)}{extension}"
        return os.path.join(self.target, path)

    def job(self, file: Wanted, transfer: Transfer) -> Job:
        """Return how a file is to be written."""
        destination = self.destination(file)
        links: dict[tuple[str, str], Link] = {}
        same = file.is_whole
        for name, found in file.links:
            place = self.places[found.link, found.place]
            if place is not None:
                there = self.destination(self.files[place.path])
                link = replace(found.link, id=self.ids[place.path, place.composite], uri=there)
                links[name, found.component] = link
                before = relative_location(found.place, file.path), found.link.id
                same &= (relative_location(there, destination), link.id) == before
        ids = {name: self.ids[file.path, name] for name in file.needs}
        return Job(file.path, destination, file.needs, ids, links, transfer if same else None)


class Job(NamedTuple):
    """A file that is to be written."""

    source: str
    destination: str
    needs: Needs
    ids: dict[str, str]
    links: dict[tuple[str, str], Link]
    transfer: Transfer | None
    """None if it isn't to be the same file."""
