"""Bringing files of earlier versions of the format to the present one.

`STEPS` has for each version that isn't written any more the function that makes composites of the next one of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from ..container.layout import (
    FORMAT,
    check_file,
    composite_group,
    composite_names,
    file_format,
    file_root,
    version_number,
)
from ..container.nodes import ExternalLink, Group, GroupNode, Node
from ..container.publish import make_folders, publish
from ..container.reader import StoredFile
from ..container.source import identity
from ..container.writer import file_image
from ..errors import CompositeH5Error, ConflictError, NotACompositeFileError, UnsupportedVersionError, WrongValueError
from ..integrity import read_json
from ..links import Link, Paths, checked_path, checked_paths
from ..stored import from_group
from ..writing import relative_links
from .references import HOLDERS, StoredLink
from .rewriting import relinked_group
from .running import Progress, each, silent
from .scanning import files_of
from .verify import verify

Composites: TypeAlias = dict[str, GroupNode]
"""The groups of the composites of a file by their names, the default one first."""


@dataclass(frozen=True)
class Migration:
    """What was, or would be, done with a file.

    Attributes
    ----------
    path : str
        The file.
    version : str
        The version of the format in which it is; empty if it isn't of this format.
    target : str
        The file that was, or would be, written; empty for one that is left as it is.
    problem : str
        Why it couldn't be migrated; it is as it was.
    """

    path: str
    version: str
    target: str = ""
    problem: str = ""


def migrate(
    sources: Paths,
    *,
    output: str | os.PathLike[str] | None = None,
    in_place: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> tuple[Migration, ...]:
    """Write files of earlier versions of the format anew in the present one.

    Ids, digests and contents stay the same, which is checked before a file gets its name. Files of the present version
    are left alone. A call that is interrupted leaves each file old or new; the next one goes on.

    Parameters
    ----------
    sources : path, or iterable of path
        Files, and folders with all below them.
    output : path, optional
        The folder of the new files; they lie in it as the old ones do in the innermost folder that has all of these.
        Links between them lead to the new ones, others to where they led.
    in_place : bool, optional
        Whether the new files replace the old ones. Without this and ``output``, nothing is written.
    executor : concurrent.futures.Executor, optional
        Where it is done: threads, processes, or that of a `distributed.Client`. Without one, here.
    progress : callable, optional
        Told how many files are done.

    Returns
    -------
    tuple of Migration
        One for each file.

    Raises
    ------
    ValueError
        If both ``output`` and ``in_place`` are given.
    FileNotFoundError
        If one of the sources isn't there.
    """
    if output is not None and in_place:
        raise WrongValueError("new files can be in another folder or in place of the old ones, not both")
    found = {source: files_of(source) for source in map(os.path.abspath, checked_paths(sources))}
    targets = {path: path for paths in found.values() for path in paths}
    if output is not None and targets:
        folders = [s if os.path.isdir(s) else os.path.dirname(path) for s, paths in found.items() for path in paths]
        root, folder = os.path.commonpath(folders), os.path.abspath(checked_path(output))
        targets = {path: os.path.join(folder, os.path.relpath(path, root)) for path in targets}
    dry_run = output is None and not in_place
    work = partial(_migrate, None if dry_run else targets)
    return tuple(each(work, list(targets.items()), executor=executor, progress=progress, step="migrating"))


def migrate_file(path: str, target: str | None = None, targets: Mapping[str, str] | None = None) -> bool:
    """Write one file anew in the present version of the format; return whether it wasn't in that already.

    Parameters
    ----------
    path : path
        The file, absolute.
    target : path, optional
        The file to write, absolute; the same by default.
    targets : mapping, optional
        For other files that are migrated, where they will be.

    Raises
    ------
    NotACompositeFileError, UnsupportedVersionError, CorruptFileError, FormatError, DigestMismatchError
        If it isn't of this format, of a version that is newer or not known, or not as it should be.
    ConflictError
        If another file is at the target, or the file was replaced meanwhile.
    OSError
        If it can't be read or written.
    """
    # The file itself, not a symbolic link that leads to it.
    path = os.path.realpath(path) if target is None else path
    before = identity(os.stat(path))
    file = StoredFile.open(path)
    try:
        if version_number(file_format(file)) >= version_number(FORMAT):
            return False
        image = _migrated_image(file, path, target or path, targets or {})
    finally:
        file.close()
    _check_image(image, path)
    if target is None:
        if identity(os.stat(path)) != before:
            raise ConflictError(f"{path}: was replaced while it was read; it was left as it is now")
        publish(path, image, replace=True)
        return True
    make_folders(os.path.dirname(target))
    try:
        publish(target, image, replace=False)
    except FileExistsError as error:
        with open(target, "rb") as existing:
            if existing.read() != image:
                raise ConflictError(f"{target}: is there already, and isn't what {path} becomes") from error
    return True


def _migrate(targets: Mapping[str, str] | None, item: tuple[str, str]) -> Migration:
    path, target = item
    version = ""
    try:
        file = StoredFile.open(path)
        try:
            version = file_format(file)
        finally:
            file.close()
        if version_number(version) >= version_number(FORMAT):
            return Migration(path, version)
        if targets is not None:
            migrate_file(path, None if target == path else target, targets)
    except NotACompositeFileError:
        return Migration(path, "")
    except (OSError, CompositeH5Error) as error:
        return Migration(path, version, problem=str(error))
    return Migration(path, version, target)


def _migrated_image(file: StoredFile, path: str, target: str, targets: Mapping[str, str]) -> bytes:
    """Return the bytes of a file in the present version, as they must be at ``target``."""
    version, default = file_format(file), file.root.attr("default", str)
    composites: Composites = {
        name: composite_group(file, name) for name in sorted(composite_names(file), key=lambda name: name != default)
    }
    while version_number(version) < version_number(FORMAT):
        if version not in STEPS:
            raise UnsupportedVersionError(
                f"{file.name}: there never was a format {version}; those that can be migrated are {', '.join(STEPS)}"
            )
        version, step = STEPS[version]
        composites = step(composites)

    def moved(link: StoredLink) -> Link | None:
        return replace(link.link, uri=targets[link.place]) if link.place in targets else None

    groups = {name: relinked_group(group, path, moved)[0] for name, group in composites.items()}
    root = file_root({name: (group.attr("id", str), group) for name, group in groups.items()})
    return file_image(relative_links(root, target))


def _check_image(image: bytes, path: str) -> None:
    """Raise an error unless what is to be written can be read, and all contents have the digests that they had."""
    file = StoredFile(io.BytesIO(image), f"{path} (migrated)")
    try:
        check_file(file)
        for name in composite_names(file):
            verify(from_group(composite_group(file, name), path))
    finally:
        file.close()


def _with_links(group: GroupNode, change: Callable[[ExternalLink, Any], ExternalLink]) -> Group:
    """Return the group of a composite or list with other links; ``change`` gets each and its record."""
    records = read_json(group, "links", dict)
    children: dict[str, Node] = {}
    for name, child in group.items():
        if isinstance(child, ExternalLink):
            children[name] = change(child, records.get(name))
        elif isinstance(child, GroupNode) and child.attr("kind", str, "") in HOLDERS:
            children[name] = _with_links(child, change)
        else:
            children[name] = child
    return Group(children, dict(group.attrs), group.where)


# ---- The steps ---------------------------------------------------------------------------------------------


def _from_0_9(composites: Composites) -> Composites:
    """Return what format 1.0 has: links lead to ids.

    In 0.9 an external link went to the path of the component (``/composite/wcs``), and there was no group ``by-id``.
    No release wrote it: it is the layout from before the first one, and proves that files can be migrated.
    """

    def by_id(link: ExternalLink, record: Any) -> ExternalLink:
        return ExternalLink(link.file, Link.from_record(record, link.where).target)

    return {name: _with_links(group, by_id) for name, group in composites.items()}


STEPS: dict[str, tuple[str, Callable[[Composites], Composites]]] = {"0.9": ("1.0", _from_0_9)}
"""For each version that isn't written any more: the next one, and the function that makes composites of that."""
