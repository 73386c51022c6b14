"""Which files hold which datasets: the Butler's index, and our map of the same layout.

The Butler writes an index beside retrieved files and into zip files; `compositeh5.butler.relink` writes a map into the
root of a datastore.

They are read as plain JSON, and only for names of files. A file is only used if it has what a link must find.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..errors import FormatError

INDEX = "_butler_zip_index.json"
"""Name of the file that the Butler writes. Nothing outside of its folder, or zip file, is ever named by it."""

MAP = "_compositeh5_map.json"
"""Name of the file that `compositeh5.butler.relink` writes. Like links, it may lead to places above its folder."""

INDEX_BYTES = 64 * 1024 * 1024
"""Largest index that is read."""


def files_of(content: bytes, where: str, id_: str, component: str, *, below: bool = True) -> Iterator[str]:
    """Return the files that hold a dataset, or one component of a disassembled one.

    Parameters
    ----------
    content : bytes
        The index.
    where : str
        Where it is, for messages.
    id_ : str
        Id of the dataset.
    component : str
        The component.
    below : bool, optional
        Whether all files must be below the folder of the index.

    Returns
    -------
    iterator of str
        Paths relative to the index, or names of members.

    Raises
    ------
    FormatError
        If it isn't such an index, or names a file elsewhere.
    """
    for path, ids, stored in entries(content, where):
        if id_ in ids and stored in (None, component):
            if path.startswith("/") or "://" in path or "\\" in path or (below and ".." in path.split("/")):
                raise FormatError(f"{where}: the file {path!r} is not below it")
            yield path


def entries(content: bytes, where: str) -> Iterator[tuple[str, list[Any], str | None]]:
    """Return all files of an index, each with the ids of its datasets, and the component that it is, if it is one.

    Raises
    ------
    FormatError
        If it isn't such an index.
    """
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
