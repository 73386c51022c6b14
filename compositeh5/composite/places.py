"""Where the file to which a link leads may be.

Among the places are those of two sorts of indices, which tell which files hold which datasets: the Butler writes one
beside retrieved files and into zip files; `compositeh5.butler.relink` writes a map of the same layout into the root of
a datastore. They are read as plain JSON, and only for names of files. A file is only used if it has what is meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import quote

from ..errors import FormatError, RefusedError
from ..storage.locations import joined_location, split_location
from ..storage.remote import Location, member_location, public_location, read_all, read_member, split_member
from .link import Link

Resolver: TypeAlias = Callable[[Link], Location]
"""Tells where the target of a link is now, by its id, or raises an `OSError`."""

Permitted: TypeAlias = Callable[[str, str | None], str]
"""Returns a place that a file names, if it may be followed from that file."""

BUTLER_INDEX_NAME = "_butler_zip_index.json"
"""Name of the file that the Butler writes. Nothing outside of its folder, or zip file, is ever named by it."""

TARGET_MAP_NAME = "_compositeh5_map.json"
"""Name of the file that `compositeh5.butler.relink` writes. Like links, it may lead to places above its folder."""

INDEX_BYTES = 64 * 1024 * 1024
"""Largest index that is read."""

INDEX_LEVELS = 16
"""So many folders above a file may have the index, or map, that lists it."""


def places(
    link: Link, start: str | None, path: str | None, anywhere: bool, resolver: Resolver | None
) -> dict[str, Iterator[Location]]:
    """Return the places where the target of a link may be, by the rule that gives them, in the order to try them.

    ``start`` is the original location of the file that has the link, ``path`` that of the target as seen from there.
    Unless it may be ``anywhere``, it must be on the same host. The resolver is asked last.
    """
    permitted = partial(_permitted, anywhere=anywhere)
    return {
        "same zip file": _same_zip(link, start),
        "relative path": _relative_path(start, path, permitted),
        "artifact index": _artifact_index(link, start),
        "recorded location": _recorded_location(link, start, path, permitted),
        "resolver": _resolver(link, resolver),
    }


def _permitted(place: str, start: str | None, *, anywhere: bool) -> str:
    """Return a place that the file at ``start`` names, if it may be followed.

    What a file says is a hint from a stranger: it must not make the reader talk to hosts of its choice.
    """
    split_location(place)
    if anywhere or _host(place) == _host(start or ""):
        return place
    raise RefusedError(
        f"{public_location(place)}: isn't on the host of {start or 'the file that has the link'}, so it isn't followed "
        f"(compositeh5.open(..., anywhere=True) does)"
    )


def _host(location: str) -> tuple[str, str]:
    if "://" not in location:
        return "", ""
    parts = split_location(location)
    return parts.scheme, parts.netloc


def _same_zip(link: Link, start: str | None) -> Iterator[Location]:
    outer, member = split_member(start or "")
    if member is not None:
        index = read_member(outer, BUTLER_INDEX_NAME, INDEX_BYTES)
        for name in indexed_files(index, member_location(outer, BUTLER_INDEX_NAME), link.id, link.component):
            yield member_location(outer, name)


def _relative_path(start: str | None, path: str | None, permitted: Permitted) -> Iterator[Location]:
    # Inside a zip file, the path is still that between the places from which the members came.
    if start is not None and path is not None and split_member(start)[1] is None:
        yield permitted(joined_location(start, path), start)


def _artifact_index(link: Link, start: str | None) -> Iterator[Location]:
    if start is None:
        return
    base, _ = split_member(start)
    places = (
        joined_location(base, "../" * level + name)
        for level in range(INDEX_LEVELS)
        for name in (BUTLER_INDEX_NAME, TARGET_MAP_NAME)
        # In an object store each look costs a request: the Butler's index is only looked for beside the file.
        if name == TARGET_MAP_NAME or level == 0 or "://" not in base
    )
    for index in dict.fromkeys(places):
        try:
            content = read_all(index, INDEX_BYTES)
        except FileNotFoundError:
            continue
        for found in indexed_files(content, index, link.id, link.component, below=not index.endswith(TARGET_MAP_NAME)):
            place = joined_location(index, quote(found) if "://" in index else found)
            split_location(place)
            yield place


def _recorded_location(link: Link, start: str | None, path: str | None, permitted: Permitted) -> Iterator[Location]:
    if link.uri:
        in_memory = start is None and path is None
        yield link.uri if in_memory else permitted(link.uri, start)


def _resolver(link: Link, resolver: Resolver | None) -> Iterator[Location]:
    if resolver is not None:
        yield resolver(link)


def indexed_files(content: bytes, where: str, id_: str, component: str, *, below: bool = True) -> Iterator[str]:
    """Yield the files that hold a dataset, or one component of it: paths relative to the index, or names of members.

    All of them must be below the folder of the index, unless it is said otherwise.

    Raises
    ------
    FormatError
        If it isn't such an index, or names a file elsewhere.
    """
    for path, ids, stored in index_entries(content, where):
        if id_ in ids and stored in (None, component):
            if path.startswith("/") or "://" in path or "\\" in path or (below and ".." in path.split("/")):
                raise FormatError(f"{where}: the file {path!r} is not below it")
            yield path


def index_entries(content: bytes, where: str) -> Iterator[tuple[str, list[Any], str | None]]:
    """Yield all files of an index, each with the ids of its datasets, and the component that it is, if it is one."""
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: isn't valid JSON: {error}") from error
    version = index.get("index_version") if isinstance(index, dict) else None
    if version != "V1":
        raise FormatError(f"{where}: an index of version 'V1' was expected, not {version!r}")
    artifacts = index.get("artifact_map")
    if not isinstance(artifacts, dict):
        raise FormatError(f"{where}: has no artifact_map")
    for path, artifact in artifacts.items():
        ids = artifact.get("ids") if isinstance(artifact, dict) else None
        info = artifact.get("info") if isinstance(artifact, dict) else None
        if not isinstance(ids, list) or not isinstance(info, dict):
            raise FormatError(f"{where}: its entry for {path!r} has no ids or no info")
        yield path, ids, info.get("component")
