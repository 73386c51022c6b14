"""The index that the Butler writes beside retrieved files and into zip files: which file holds which dataset.

It is read as plain JSON, and only for names of files: nothing outside of the folder, or the zip file, of the index is
ever named by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .errors import FormatError

INDEX = "_butler_zip_index.json"
"""Name of the file."""

INDEX_BYTES = 64 * 1024 * 1024
"""Largest index that is read."""


def files_of(content: bytes, where: str, id_: str, component: str) -> Iterator[str]:
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

    Returns
    -------
    iterator of str
        Paths relative to the index, or names of members.

    Raises
    ------
    FormatError
        If it isn't such an index, or names a file elsewhere.
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
        ids, stored = _checked(artifact, where, path)
        if id_ in ids and stored in (None, component):
            if path.startswith("/") or "://" in path or "\\" in path or ".." in path.split("/"):
                raise FormatError(f"{where}: the file {path!r} is not below it")
            yield path


def _checked(artifact: Any, where: str, path: str) -> tuple[list[Any], str | None]:
    """Return the dataset ids of a file, and the component that it is."""
    ids = artifact.get("ids") if isinstance(artifact, dict) else None
    info = artifact.get("info") if isinstance(artifact, dict) else None
    if not isinstance(ids, list) or not isinstance(info, dict):
        raise FormatError(f"{where}: its entry for {path!r} has no ids or no info")
    return ids, info.get("component")
