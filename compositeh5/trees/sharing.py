"""Storing once what several composites have in common: when they are written together, or by splitting them afterwards.

What is shared follows from the definitions: ``shared: [instrument, visit]`` makes a component one of the visit. Shared
files are written first and their users last, so what interrupts that leaves only files that the next run takes over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .. import kinds
from ..composite.composite import Composite
from ..composite.definition import Definition
from ..composite.definitions import definition_names, get_definition, known_definition
from ..composite.link import Link
from ..composite.opening import open_composite
from ..composite.parts import LinkedPart, ListPart
from ..composite.session import current
from ..errors import BrokenLinkError, ConflictError, DefinitionError, DigestMismatchError, require_type
from ..storage.digests import digest
from ..storage.locations import Paths, absolute_location, checked_path, checked_paths
from ..storage.nodes import GroupNode, Node, unescape_name
from ..storage.recipes import Recipes
from .running import Progress, check_running, no_progress

Deviating: TypeAlias = Literal["error", "keep"]

SharedDataId: TypeAlias = tuple[tuple[str, int | str], ...]
"""The part of a data ID that the users of a shared file have in common."""


@dataclass
class _SharedFile:
    """A file of shared components that is to be written, or is there."""

    path: str
    key: SharedDataId
    users: dict[str, list[str]] = field(default_factory=dict)
    """Paths of the composites that have each component."""


def write_together(
    composites: Mapping[str | os.PathLike[str], Composite],
    shared: str | os.PathLike[str],
    *,
    deviating: Deviating = "error",
    replace: bool = False,
    recipes: Recipes | None = None,
    progress: Progress = no_progress,
) -> list[str]:
    """Write several composites; what their definitions declare shared is stored once, and linked.

    Parameters
    ----------
    composites : mapping of path to Composite
        The composites, each with its data ID, and where to write them. Their ids and digests don't depend on what is
        shared.
    shared : str
        Where to write a shared file, with data ID keys in braces: ``"visit/visit_{visit}.h5"``. In a folder, each is
        named after the values of its data ID. A file that is there, and holds equal components, is used as it is.
    deviating : {"error", "keep"}, optional
        What to do with a composite whose component isn't equal to that of the others: refuse to write anything, or
        leave the component in its file.
    replace : bool, optional
        Whether other composites that are at the places are replaced. Shared files never are.
    recipes : mapping, optional
        How components are compressed, as for `Composite.write`.
    progress : callable, optional
        Told how many are written.

    Returns
    -------
    list of str
        The shared files, sorted.

    Raises
    ------
    DigestMismatchError
        If composites deviate. The message names each with the component and the fields that differ.
    ConflictError
        If a shared file exists with other content, or another composite is at one of the places.
    DefinitionError
        If a composite has a shared component, but not the data ID keys under which it is shared.
    """
    check_running(None, progress)
    require_type(composites, Mapping, "a mapping of paths to composites")
    for composite in composites.values():
        require_type(composite, Composite, "a composite")
    paths = {absolute_location(path): composite for path, composite in composites.items()}
    with ExitStack() as opened:
        files = _shared_files(paths, checked_path(shared))
        common = {file.path: _shared_composite(file, paths, opened) for file in files}
        equal: list[tuple[str, str, str]] = []
        problems: list[str] = []
        for file in files:
            whole = common[file.path]
            for name, users in file.users.items():
                for user in users:
                    if name in whole and whole.component_digest(name) == paths[user].component_digest(name):
                        equal.append((user, name, file.path))
                    else:
                        problems.append(_deviation(paths[user], whole, name, user))
        if problems and deviating == "error":
            raise DigestMismatchError(f"not all composites agree on what they share: {'; '.join(sorted(problems))}")
        for path, whole in common.items():
            if whole.location is None:
                whole.write(path, recipes={name: r for name, r in (recipes or {}).items() if name in whole})
        links: dict[str, dict[str, Link]] = {path: {} for path in paths}
        for user, name, path in equal:
            links[user][name] = common[path].link(name)
        progress("writing", 0, len(paths))
        for done, (path, composite) in enumerate(paths.items(), 1):
            # A link to an equal component doesn't change the digest of the composite, so it keeps its id.
            linked = composite.replace(links[path], id=composite.id or None)
            linked.write(path, replace=replace, recipes=recipes)
            if composite.location is None:
                composite.id, composite.location = linked.id, linked.location
            progress("writing", done, len(paths))
    return sorted(common)


def split(
    sources: Paths,
    destination: str | os.PathLike[str],
    *,
    shared: str = "shared",
    deviating: Deviating = "error",
    replace: bool = False,
    recipes: Recipes | None = None,
    progress: Progress = no_progress,
) -> list[str]:
    """Write self-contained files again as files that share components by links; the reverse of `Composite.flatten`.

    A component that was copied from another composite becomes a link to that again
    if it is found, unchanged, where it was; what the definitions declare shared is stored once, as by `write_together`.

    Parameters
    ----------
    sources : path, or iterable of path
        The files.
    destination : path
        The folder for the new files, which have the names of the old ones.
    shared : str, optional
        Where to write a shared file, relative to the destination, with data ID keys in braces. By default a file for
        each in the folder ``shared``, named after the values of its data ID.
    deviating, replace, recipes, progress
        As for `write_together`.

    Returns
    -------
    list of str
        The new files, in the order of the sources.

    Raises
    ------
    DigestMismatchError, ConflictError, DefinitionError
        As `write_together` does.
    """
    check_running(None, progress)
    folder = absolute_location(destination)
    with ExitStack() as opened:
        composites: dict[str | os.PathLike[str], Composite] = {}
        for source in checked_paths(sources):
            composite = opened.enter_context(open_composite(source))
            path = os.path.join(folder, os.path.basename(source))
            if path in composites:
                raise ConflictError(f"{path}: two of the sources have this name; split them into two folders")
            composites[path] = _linked_again(composite, path)
        write_together(
            composites,
            os.path.join(folder, checked_path(shared)),
            deviating=deviating,
            replace=replace,
            recipes=recipes,
            progress=progress,
        )
    return [os.fspath(path) for path in composites]


def differing_fields(own: Node, common: Node) -> list[str]:
    """Return the names of the fields in which two components differ; none if they have no fields."""
    if not (isinstance(own, GroupNode) and isinstance(common, GroupNode)):
        return []
    digests = [{name: digest(child) for name, child in group.items()} for group in (own, common)]
    names = {**digests[0], **digests[1]}
    return [unescape_name(name, own.where) for name in names if digests[0].get(name) != digests[1].get(name)]


def _shared_files(paths: Mapping[str, Composite], template: str) -> list[_SharedFile]:
    """Return the shared files that composites need."""
    files: dict[tuple[str, ...], dict[SharedDataId, _SharedFile]] = {}
    for path, composite in paths.items():
        definition = known_definition(composite.definition)
        for name, keys in (definition.shared if definition else {}).items():
            if name not in composite or isinstance(composite.part(name), LinkedPart | ListPart):
                continue
            if missing := [key for key in keys if key not in composite.data_id]:
                raise DefinitionError(
                    f"{path}: component {name!r} is shared under {', '.join(keys)}, but the data ID "
                    f"{composite.data_id} has no {', '.join(missing)}"
                )
            key = tuple((key, composite.data_id[key]) for key in keys)
            file = files.setdefault(keys, {}).setdefault(key, _SharedFile(_place(template, key), key))
            file.users.setdefault(name, []).append(path)
    found = [file for group in files.values() for file in group.values()]
    places: dict[str, SharedDataId] = {}
    for file in found:
        if places.setdefault(file.path, file.key) != file.key:
            raise DefinitionError(
                f"{template}: gives {file.path} for both {dict(places[file.path])} and {dict(file.key)}; "
                f"it needs more data ID keys in braces"
            )
        if file.path in paths:
            raise ConflictError(f"{file.path}: is both a shared file and that of a composite")
    return found


def _place(template: str, key: SharedDataId) -> str:
    values = {name: str(value).replace(os.sep, "_") for name, value in key}
    if "{" not in template and not template.endswith((".h5", ".hdf5")):
        return absolute_location(os.path.join(template, "_".join(values.values()) + ".h5"))
    try:
        return absolute_location(template.format_map(values))
    except (KeyError, ValueError, IndexError) as error:
        raise DefinitionError(
            f"{template}: can't be filled in ({type(error).__name__}: {error}); a shared file has the data ID "
            f"keys {', '.join(values)}"
        ) from error


def _shared_composite(file: _SharedFile, paths: Mapping[str, Composite], opened: ExitStack) -> Composite:
    """Return the composite of a shared file: of the existing file, or a new one of the most common components."""
    if os.path.exists(file.path):
        found = opened.enter_context(open_composite(file.path))
        if any(found.data_id.get(name) != value for name, value in file.key):
            raise ConflictError(f"{file.path}: is there already, with the data ID {found.data_id}")
        return found
    parts = {}
    for name, users in file.users.items():
        digests = [paths[user].component_digest(name) for user in users]
        most = max(dict.fromkeys(digests), key=digests.count)
        parts[name] = paths[users[digests.index(most)]].part(name)
    common = Composite(None, parts, data_id=dict(file.key))
    definition = _definition_of(common, {name for name, _ in file.key})
    if definition is not None:
        common.definition, common.definition_version = definition.name, definition.version
    return common


def _definition_of(common: Composite, keys: set[str]) -> Definition | None:
    """Return the definition of what is shared under some data ID keys, if there is one that fits."""
    for name in definition_names():
        definition = get_definition(name)
        fits = set(definition.dimensions) == keys and set(common) <= set(definition.components)
        if fits and set(definition.required) <= set(common):
            return definition
    return None


def _deviation(own: Composite, common: Composite, name: str, path: str) -> str:
    if name not in common:
        return f"{path}: {name} isn't in {common.where}"
    nodes = [kinds.encode(composite[name], composite.kind(name)) for composite in (own, common)]
    fields = ", ".join(differing_fields(*nodes)) or "its values"
    ids = " ".join(f"{key}={value}" for key, value in own.data_id.items() if key not in common.data_id)
    standing = f" from that of {common.location}" if common.location else ""
    return f"{path} ({ids}): {name} differs in {fields}{standing}"


def _linked_again(composite: Composite, path: str) -> Composite:
    """Return a composite with links to where its copied components are from, where these are still the same."""
    found: dict[str, Link] = {}
    for name in composite:
        link = composite.part(name).origin
        if name in composite.links or link is None or link.uri == path:
            continue
        # A cutout, or what was changed since, has another digest.
        if link.digest == composite.component_digest(name) and _is_there(link, composite.location):
            found[name] = link
    return composite.replace(found, id=composite.id)


def _is_there(link: Link, base: str | None) -> bool:
    try:
        current().find(link, base).file.close()
    except (BrokenLinkError, DigestMismatchError):
        return False
    return True
