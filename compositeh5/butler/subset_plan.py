"""What is needed of a repository to have some of its datasets elsewhere; only attributes are read to find out."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from lsst.daf.butler import Butler, DatasetRef

from .. import kinds
from ..container.layout import composite_names
from ..errors import NoSuchComponentError, UnknownKindError
from ..links import Link
from ..operations.references import StoredLink, part_links
from ..parts import StoredPart
from .stored import describe, is_composite, open_joined, stored_targets

Id: TypeAlias = uuid.UUID
"""Dataset id."""


class Dataset(NamedTuple):
    """A dataset of the source, as far as its attributes tell; what is no composite has no components."""

    ref: DatasetRef
    links: Mapping[str, tuple[StoredLink, ...]] = {}
    """The links of each component."""
    pixels: frozenset[str] = frozenset()
    """The components that are planes of pixels."""
    is_alone: bool = True
    """Whether there is no other composite in its file."""


@dataclass
class Plan:
    """What is needed of the source, as far as that is known; datasets go by their ids."""

    source: Butler
    datasets: dict[Id, Dataset] = field(default_factory=dict)
    needs: dict[Id, frozenset[str]] = field(default_factory=dict)
    """The components that are needed."""
    selected: dict[Id, None] = field(default_factory=dict)
    targets: dict[tuple[str, str], Id] = field(default_factory=dict)
    """The datasets to which links lead, by the id and component that these name; without lost ones."""
    lost: list[str] = field(default_factory=list)

    def select(self, refs: Iterable[DatasetRef], components: frozenset[str] | None) -> None:
        """Note that datasets, or some components of them, are needed, and what they link to."""
        todo: list[tuple[Id, StoredLink]] = []
        for ref in refs:
            dataset = self.look_at(ref.makeCompositeRef() if ref.isComponent() else ref)
            names = frozenset(dataset.links)
            if components is None or names & components:
                self.selected[ref.id] = None
                todo += self.need(ref.id, names if components is None else names & components)
        if components is not None and not self.selected:
            raise NoSuchComponentError(f"no dataset has one of the components {', '.join(sorted(components))}")
        while todo:
            todo = self.follow(todo)

    def look_at(self, ref: DatasetRef) -> Dataset:
        """Return what is known of a dataset, which is opened the first time."""
        if ref.id not in self.datasets:
            self.datasets[ref.id] = _looked_at(self.source, ref)
        return self.datasets[ref.id]

    def need(self, id_: Id, names: frozenset[str]) -> Iterator[tuple[Id, StoredLink]]:
        """Note that components are needed, and yield those links of the dataset that weren't needed before."""
        dataset, before = self.datasets[id_], self.needs.get(id_, frozenset())
        now = before | names
        if id_ not in self.selected and dataset.pixels <= now:
            now = frozenset(dataset.links)
        self.needs[id_] = now
        for name in sorted(now - before):
            for found in dataset.links[name]:
                yield id_, found

    def follow(self, links: list[tuple[Id, StoredLink]]) -> list[tuple[Id, StoredLink]]:
        """Note that the targets of links are needed, and return what these link to."""
        targets = stored_targets(self.source, (found.link for _, found in links))
        added: dict[Id, set[str]] = defaultdict(set)
        for user, found in links:
            link, ref = found.link, targets.get(found.link.id)
            try:
                dataset = None if ref is None else self.look_at(ref)
            except FileNotFoundError:
                dataset = None
            if dataset is None or (is_composite(dataset.ref) and link.component not in dataset.links):
                self.lost.append(f"{describe(self.datasets[user].ref)}: {found.component} -> {link}")
            else:
                self.targets[link.id, link.component] = dataset.ref.id
                added[dataset.ref.id].update({link.component} & dataset.links.keys())
        return [more for id_, names in added.items() for more in self.need(id_, frozenset(names))]

    def links(self, id_: Id) -> Iterator[StoredLink]:
        """Yield the needed links of a dataset."""
        for name in sorted(self.needs[id_]):
            yield from self.datasets[id_].links[name]

    def target(self, link: Link) -> Id | None:
        """Return the dataset to which a link leads; None if it is lost."""
        return self.targets.get((link.id, link.component))

    def is_reduced(self, id_: Id) -> bool:
        """Return whether not all of a dataset is needed."""
        return self.needs[id_] != self.datasets[id_].links.keys()

    def order(self) -> list[Id]:
        """Return all that is needed, each after what it links to."""
        order: dict[Id, None] = {}
        seen: set[Id] = set()

        def add(id_: Id) -> None:
            # Composites of one file may link to each other.
            if id_ not in seen:
                seen.add(id_)
                for found in self.links(id_):
                    if (target := self.target(found.link)) is not None:
                        add(target)
                order[id_] = None

        for id_ in self.needs:
            add(id_)
        return list(order)

    def changed(self, order: list[Id]) -> dict[Id, None]:
        """Return what can't keep its file, in the same order."""
        changed: dict[Id, None] = {}
        for id_ in order:
            others = (self.target(found.link) for found in self.links(id_))
            if self.is_reduced(id_) or not self.datasets[id_].is_alone or any(other in changed for other in others):
                changed[id_] = None
        return changed


def _looked_at(butler: Butler, ref: DatasetRef) -> Dataset:
    """Return what the attributes of a dataset tell."""
    # Without their records, the Butler fails on some dimensions (KeyError 'visit_detector_region').
    ref = ref.expanded(butler.registry.expandDataId(ref.dataId))
    if not is_composite(ref):
        return Dataset(ref)
    links: dict[str, tuple[StoredLink, ...]] = {}
    with open_joined(butler, ref) as composite:
        for name in composite:
            part = composite._part(name)
            location = part.location if isinstance(part, StoredPart) else None
            links[name] = tuple(part_links(name, part, location))
        pixels = frozenset(name for name in composite if _is_pixels(composite.kind(name)))
        # What is put together from several files is alone in them.
        is_alone = composite._file is None or len(composite_names(composite._file)) == 1
    return Dataset(ref, links, pixels, is_alone)


def _is_pixels(kind: str) -> bool:
    # What isn't known isn't left behind.
    with suppress(UnknownKindError):
        return kinds.get(kind).is_pixels
    return False
