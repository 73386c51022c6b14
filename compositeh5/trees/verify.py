"""Checking that composites still hold what was written, and that their links find what they are meant to."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ..composite.definitions import known_definition
from ..composite.link import Link
from ..composite.opening import stored_composite
from ..composite.parts import LIST, StoredPart
from ..composite.session import Session, current
from ..errors import CompositeH5Error, DigestMismatchError, FormatError, WrongIdError
from ..storage.digests import check_digest
from ..storage.layout import BY_ID, composite_group, composite_group_by_id, composite_names
from ..storage.limits import Limits
from ..storage.nodes import GroupNode, Node
from ..storage.reader import StoredFile
from .references import State, StoredLink, link_state, part_links
from .running import Progress, map_in_order, no_progress
from .walk import Root, SearchedFiles, files_under, map_files

if TYPE_CHECKING:
    from ..composite.composite import Composite

Finding: TypeAlias = Literal["unread", "format", "digest", "incomplete", "id"] | State
"""What was found: "unread" is a file, folder or component that can't be read; "format" one that isn't as the format
prescribes; "digest" content that isn't what was written; "incomplete" a composite that lacks what its definition
requires; "id" one id for different composites; a `State` a link that doesn't find what it is meant to."""


@dataclass(frozen=True)
class Problem:
    """Something that isn't as it should be.

    Attributes
    ----------
    path : str
        The file.
    composite, component : str
        Name of the composite in the file, and of the component; empty if all are meant.
    finding : str
        See `Finding`.
    detail : str
        What was expected, and what was found.
    """

    path: str
    composite: str
    component: str
    finding: Finding
    detail: str


@dataclass(frozen=True)
class Verification:
    """What was checked, and what was found.

    Attributes
    ----------
    problems : tuple of Problem
        What isn't as it should be, in the order of the files.
    composites, components, links : int
        How many were checked: composites in files, components of which the content was read, and links.
    visited : SearchedFiles
        What was looked at.
    """

    problems: tuple[Problem, ...]
    composites: int
    components: int
    links: int
    visited: SearchedFiles


def verify(composite: Composite) -> None:
    """Read all stored components of an open composite and compare them with their digests.

    Components that live in other files are not read: their digests are compared when they are.

    Raises
    ------
    DigestMismatchError
        If the content of a component, or the set of components, isn't what was written.
    CorruptFileError
        If a part can't be read.
    """
    for _, error in _content(composite, quick=False):
        if error is not None:
            raise error


def verify_files(
    *paths: Root,
    quick: bool = False,
    limits: Limits | None = None,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Check that files, and all files below folders, hold what was written, and that their links are right.

    Each file must be whole, and as the format prescribes; the content of each stored component, and the set of
    components, must have the digests that were recorded; a composite of a known definition must have what that
    requires; each link must find the id and the digest that it records; and no two composites may differ and have the
    same id. Linked components in files that aren't among those checked are read as well, once each.

    Parameters
    ----------
    *paths : path
        Files and folders.
    quick : bool, optional
        Whether to read no content: only what the files say of it, and the links.
    limits : Limits, optional
        What files may ask for, as for `compositeh5.open`.
    executor : concurrent.futures.Executor, optional
        Where the files are read: threads, processes, or that of a `distributed.Client`. Without one, here.
    progress : callable, optional
        Told how many are done.

    Raises
    ------
    FileNotFoundError
        If one of the paths isn't there.
    """
    tree, session = files_under(*paths), current().with_policy(limits=limits)
    step = "reading attributes" if quick else "reading files"
    checks, visited = map_files(
        partial(_check, quick, session), tree, executor=executor, progress=progress, step=step, session=session
    )
    problems = [problem for check in checks for problem in check.problems]
    problems.extend(Problem(item.path, "", "", "unread", item.reason) for item in visited.unread)
    problems.extend(_incomplete(checks))
    problems.extend(_ambiguous(checks))
    components = sum(check.components for check in checks)
    if not quick:
        outside = _outside(checks, frozenset(tree.names))
        step = "reading what links lead to"
        for count, faults in map_in_order(
            partial(_check_targets, session), outside, executor=executor, progress=progress, step=step
        ):
            components += count
            problems.extend(faults)
    return Verification(
        tuple(sorted(problems, key=lambda problem: (problem.path, problem.composite))),
        sum(len(check.composites) for check in checks),
        components,
        sum(check.links for check in checks),
        visited,
    )


class _Seen(NamedTuple):
    """A composite of a file, as far as it must be compared with what other processes know."""

    name: str
    id: str
    digest: str
    definition: str
    version: int
    components: frozenset[str]


class _Check(NamedTuple):
    """What the check of a file found, and where those of its links lead that find what they are meant to."""

    path: str
    composites: tuple[_Seen, ...]
    problems: tuple[Problem, ...]
    components: int
    links: int
    targets: frozenset[tuple[str, Link]]


def _check(quick: bool, session: Session, path: str, file: StoredFile) -> _Check:
    seen: list[_Seen] = []
    problems: list[Problem] = []
    targets: set[tuple[str, Link]] = set()
    components = links = 0
    for name in composite_names(file):
        try:
            group = composite_group(file, name)
            composite = stored_composite(group, path, session)
            if composite_group_by_id(file, composite.id).path != group.path:
                raise FormatError(f"{group.where}: /{BY_ID}/{composite.id} leads to another composite")
            seen.append(
                _Seen(
                    name,
                    composite.id,
                    composite.recorded_digest,
                    composite.definition,
                    composite.definition_version,
                    frozenset(composite),
                )
            )
        except (OSError, CompositeH5Error) as error:
            problems.append(_problem(path, name, "", error))
            continue
        for component, fault in _content(composite, quick=quick):
            components += fault is None and not quick
            if fault is not None:
                problems.append(_problem(path, name, component, fault))
        for found in _links(composite, path):
            links += 1
            state, detail = link_state(found, path, session)
            if state == "ok":
                targets.add((found.place, found.link))
            else:
                problems.append(Problem(path, name, found.component, state, detail))
    unknown = set(file.root.group(BY_ID)) - {composite.id for composite in seen}
    if unknown and not problems:
        problems.append(
            Problem(path, "", "", "format", f"/{BY_ID} names composites that aren't there: {sorted(unknown)}")
        )
    return _Check(path, tuple(seen), tuple(problems), components, links, frozenset(targets))


def _links(composite: Composite, path: str) -> Iterator[StoredLink]:
    """Return the links of those components that aren't damaged."""
    for name in composite:
        with suppress(OSError, CompositeH5Error):
            yield from part_links(name, composite.part(name), path)


def _content(composite: Composite, prefix: str = "", *, quick: bool) -> Iterator[tuple[str, Exception | None]]:
    """Check what a composite stores, and yield each component with what is wrong with it, or None."""
    for name in composite:
        part = composite.part(name)
        if isinstance(part, StoredPart):
            try:
                yield from stored_content(prefix + name, part.node, composite.location, quick=quick)
            except (OSError, CompositeH5Error) as error:
                yield prefix + name, error
    try:
        if composite.recorded_digest:
            check_composite_digest(composite, composite.location)
    except (OSError, CompositeH5Error) as error:
        yield prefix.removesuffix("/"), error


def check_composite_digest(composite: Composite, where: str | None) -> None:
    """Raise `DigestMismatchError` unless a composite has the components and attributes that were written."""
    if composite.digest != composite.recorded_digest:
        raise DigestMismatchError(
            f"{where}: the composite has digest {composite.digest}, but {composite.recorded_digest} was recorded: "
            f"a component or an attribute was added, removed, renamed or changed"
        )


def stored_content(
    path: str, node: Node, location: str | None, *, quick: bool = False
) -> Iterator[tuple[str, Exception | None]]:
    """Check a stored component, and yield it and each composite within it with what is wrong with it, or None."""
    if isinstance(node, GroupNode) and node.attr("kind", str, "") == "composite":
        # The digest of a composite is made of those recorded of its components, so these are checked one by one.
        yield from _content(stored_composite(node, location), f"{path}/", quick=quick)
        return
    if quick:
        node.attr("digest", str)
    else:
        check_digest(node)
    yield path, None
    for item_path, item in _composites_in(path, node):
        yield from stored_content(item_path, item, location, quick=quick)


def _composites_in(path: str, node: Node) -> Iterator[tuple[str, GroupNode]]:
    """Yield the composites in a list, and in the lists in it, with the paths that lead to them."""
    if isinstance(node, GroupNode) and node.attr("kind", str, "") == LIST:
        for name, child in node.items():
            if isinstance(child, GroupNode) and child.attr("kind", str, "") == "composite":
                yield f"{path}/{name}", child
            else:
                yield from _composites_in(f"{path}/{name}", child)


def _check_targets(session: Session, work: tuple[str, tuple[Link, ...]]) -> tuple[int, list[Problem]]:
    """Read linked components in one file, and return how many were as they should be, and what isn't."""
    place, links = work
    count, problems = 0, []
    for link in links:
        try:
            file, node, _ = session.target_at(place, link)
        except (OSError, CompositeH5Error) as error:
            problems.append(_problem(place, "", link.component, error))
            continue
        try:
            for component, fault in stored_content(link.component, node, place):
                count += fault is None
                if fault is not None:
                    problems.append(_problem(place, "", component, fault))
        except (OSError, CompositeH5Error) as error:
            problems.append(_problem(place, "", link.component, error))
        finally:
            file.close()
    return count, problems


def _outside(checks: Iterable[_Check], inside: frozenset[str]) -> list[tuple[str, tuple[Link, ...]]]:
    """Return the files that links lead to and that aren't checked themselves, with the links, each once."""
    found: dict[str, dict[tuple[str, str], Link]] = defaultdict(dict)
    for check in checks:
        for place, link in check.targets:
            if os.path.realpath(place) not in inside:
                found[place][link.id, link.component] = link
    return [(place, tuple(link for _, link in sorted(found[place].items()))) for place in sorted(found)]


def _incomplete(checks: Iterable[_Check]) -> Iterator[Problem]:
    for check in checks:
        for seen in check.composites:
            definition = known_definition(seen.definition)
            if definition is not None and definition.version == seen.version:
                required = {name for name, component in definition.components.items() if component.required}
                for name in sorted(required - seen.components):
                    detail = f"the definition {seen.definition!r} requires the component {name!r}"
                    yield Problem(check.path, seen.name, name, "incomplete", detail)


def _ambiguous(checks: Iterable[_Check]) -> Iterator[Problem]:
    first: dict[str, tuple[str, str]] = {}
    for check in checks:
        for seen in check.composites:
            digest, path = first.setdefault(seen.id, (seen.digest, check.path))
            if digest != seen.digest:
                detail = f"the composite {seen.id} has digest {seen.digest} here, but {digest} in {path}"
                yield Problem(check.path, seen.name, "", "id", detail)


def _problem(path: str, composite: str, component: str, error: Exception) -> Problem:
    finding: Finding = "format"
    if isinstance(error, DigestMismatchError):
        finding = "digest"
    elif isinstance(error, OSError) and not isinstance(error, WrongIdError):
        finding = "unread"
    return Problem(path, composite, component, finding, str(error))
