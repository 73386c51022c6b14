"""A map that tells readers where linked datasets are, where links don't lead there any more.

The files of a repository never change, so a link stays as it was put, also where files got other places relative to
each other than they had: by an import to other templates, or an ingest. In the root of each datastore, the map says
where the Butler has the targets of such links. Readers look for it above the file that has the link.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from lsst.daf.butler import Butler, DatasetRef
from lsst.resources import ResourcePath

from ..composite.places import INDEX_BYTES, TARGET_MAP_NAME, index_entries
from ..errors import CompositeH5Error, ConfigurationError, LimitError
from ..storage.locations import joined_location, relative_location
from ..storage.publish import publish
from .dataset_files import composite_refs, describe, links_if_stored, location_of, relocated_link

Places: TypeAlias = dict[tuple[str, str | None], str]
"""Where linked components are: locations by the id of the composite and the component; None is for all components."""


@dataclass(frozen=True)
class Relinking:
    """What `relink` has found.

    Attributes
    ----------
    mapped : tuple of DatasetRef
        The datasets with links that need the map.
    left : tuple of str
        The datasets whose links aren't known, because a file can't be read; each with the reason.
    """

    mapped: tuple[DatasetRef, ...] = ()
    left: tuple[str, ...] = ()


def relink(butler: Butler, refs: Iterable[DatasetRef] | None = None) -> Relinking:
    """Write a map of where the targets of links are, for all links that don't lead there.

    With it, plain gets find these targets again, in any process. No file of the repository changes: tools that know
    only HDF5 follow the links as they are, and don't find the targets. Repeated calls bring the map up to date; of
    several at once, the map of the last one stays.

    Parameters
    ----------
    butler : Butler
        The repository.
    refs : iterable of DatasetRef, optional
        The datasets that have the links; by default all composites of the repository. If some are given, the map keeps
        what it says for others, as long as the files are there.

    Returns
    -------
    Relinking
        Which datasets need the map, and which couldn't be read.

    Raises
    ------
    ConfigurationError
        If the Butler has no datastore with a root: it asks a server, or is in memory.
    FormatError
        If the map that is there can't be read.
    LimitError
        If the map would be larger than readers accept.
    OSError
        If the map can't be written.
    """
    maps = _maps(butler)
    if not maps:
        raise ConfigurationError(f"{butler}: has no datastore for a map; open the repository itself, not by a server")
    places = {} if refs is None else _existing(read_map(butler))
    mapped: dict[DatasetRef, None] = {}
    left: list[str] = []
    for ref in composite_refs(butler) if refs is None else refs:
        try:
            links = links_if_stored(butler, ref)
        except (OSError, CompositeH5Error) as error:
            left.append(f"{describe(ref)}: {error}")
            continue
        for found in links:
            now = relocated_link(butler, found.link)
            if now is not None and now.uri != found.place:
                places[now.id, now.component] = now.uri
                mapped[ref] = None
    for uri in maps:
        _write(uri, places)
    return Relinking(tuple(mapped), tuple(left))


def read_map(butler: Butler) -> Places:
    """Return what the maps of a repository say; nothing if there are none.

    Raises
    ------
    FormatError
        If one of them isn't as it should be.
    """
    places: Places = {}
    for uri in _maps(butler):
        with suppress(FileNotFoundError):
            where = location_of(uri)
            for path, ids, component in index_entries(uri.read(), where):
                place = joined_location(where, quote(path) if "://" in where else path)
                places |= {(id_, component): place for id_ in ids}
    return places


def _maps(butler: Butler) -> list[ResourcePath]:
    """Return where the maps are, or would be."""
    try:
        roots = butler.get_datastore_roots()
    except AttributeError:
        # A RemoteButler (of 30.2026.4300) has no datastore to ask.
        return []
    return list(dict.fromkeys(root.join(TARGET_MAP_NAME) for root in roots.values() if root is not None))


def _existing(places: Places) -> Places:
    there = ResourcePath.mexists(map(ResourcePath, places.values()))
    return {key: place for key, place in places.items() if there[ResourcePath(place)]}


def _write(uri: ResourcePath, places: Mapping[tuple[str, str | None], str]) -> None:
    """Write a map, whole or not at all, in the layout of the Butler's index; take it away if it has nothing to say."""
    where = location_of(uri)
    ids: dict[str, set[str]] = defaultdict(set)
    components: dict[str, set[str | None]] = defaultdict(set)
    for (id_, component), place in places.items():
        path = relative_location(place, where)
        path = unquote(path) if "://" in where else path
        ids[path].add(id_)
        components[path].add(component)
    artifacts: dict[str, Any] = {}
    for path in sorted(ids):
        # Of one component, the file may be that alone.
        own = components[path].copy()
        artifacts[path] = {"ids": sorted(ids[path]), "info": {"component": own.pop() if len(own) == 1 else None}}
    content = json.dumps({"index_version": "V1", "artifact_map": artifacts}).encode()
    if len(content) > INDEX_BYTES:
        raise LimitError(
            f"{where}: a map of {len(places)} targets would have {len(content)} bytes, but readers accept "
            f"{INDEX_BYTES}; relink fewer datasets"
        )
    if not places:
        with suppress(FileNotFoundError):
            uri.remove()
    elif uri.isLocal:
        publish(uri.ospath, content, replace=True)
    else:
        uri.write(content)
