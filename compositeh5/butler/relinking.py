"""Making links right again where files aren't any more at the places, relative to each other, at which they were put.

Files are never changed in place: a new one takes the place of the old by one rename, and what the datastore records of
its size changes with it. Both happen within a transaction of the database, which lets nobody else do the same, and
the new file is first kept, whole, in a folder at the root of the datastore. So a call that is killed between the two
leaves a file that the next call puts in its place again.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lsst.daf.butler import Butler, DatasetRef
from lsst.resources import ResourcePath

from ..container.publish import make_folders, publish
from ..errors import CompositeH5Error
from ..links import Link
from ..operations.references import StoredLink
from .checking import composite_refs
from .datasets import location_of
from .datastores import Artifact, OvertakenError, file_datastores, replacing, stored_files
from .stored import contents, is_composite, located, relinked, target_ref

KEPT = ".compositeh5-relink"
"""Folder of the new files: ``<dataset id>.h5``, or ``<dataset id>_<component>.h5`` of a disassembled composite."""


@dataclass(frozen=True)
class Relinking:
    """What `relink` has done.

    Attributes
    ----------
    changed : tuple of DatasetRef
        The datasets of which files were written anew.
    left : tuple of str
        The files that stay as they are although links in them should lead elsewhere, or nobody knows: those that can't
        be read, and those that the repository doesn't hold itself; each with the reason.
    """

    changed: tuple[DatasetRef, ...] = ()
    left: tuple[str, ...] = ()


def relink(butler: Butler, refs: Iterable[DatasetRef] | None = None) -> Relinking:
    """Make the links of datasets lead to where the Butler has their targets now.

    Ids, URIs and contents stay the same. It does so in each datastore of a chain, for each file of a disassembled
    composite, for all composites of a file, and at any depth of nested ones. Only files that the repository holds
    itself are written anew: not those that it ingested from elsewhere, nor members of zip files.

    It may be interrupted, and several calls may run at once. A get in the moment of a replacement may fail, for the
    file isn't of the size that the Butler expects.

    Parameters
    ----------
    butler : Butler
        The repository.
    refs : iterable of DatasetRef, optional
        The datasets; by default all composites of the repository. What an earlier call didn't finish, for it was
        interrupted, is always finished first.

    Returns
    -------
    Relinking
        What was changed, and what was not.

    Raises
    ------
    ConfigurationError
        If the Butler has no datastores itself.
    OSError
        If a file can't be written.
    """
    chosen = composite_refs(butler) if refs is None else [ref for ref in refs if is_composite(ref)]
    changed: dict[uuid.UUID, DatasetRef] = {}
    left: list[str] = []
    for datastore in file_datastores(butler):
        for name in _kept(datastore):
            changed |= _replace(butler, datastore, name, None)
        seen = set[str]()
        for id_, artifacts in stored_files(datastore, chosen).items():
            for artifact in artifacts:
                if artifact.path in seen:
                    continue
                seen.add(artifact.path)
                try:
                    image = _new_image(butler, artifact)
                except (OSError, CompositeH5Error) as error:
                    left.append(str(error))
                    continue
                if image is not None and artifact.is_own:
                    changed |= _replace(butler, datastore, _Kept(id_, artifact.component), image)
                elif image is not None:
                    left.append(f"{location_of(artifact.uri)}: the repository doesn't hold this file itself")
    return Relinking(tuple(changed.values()), tuple(left))


def _new_image(butler: Butler, artifact: Artifact) -> bytes | None:
    """Return what a file should be; None if it is right."""

    def link_of(found: StoredLink) -> Link | None:
        ref = target_ref(butler, found.link)
        if ref is None:
            return None
        # In a chain, where the same datastore has it.
        for target in stored_files(artifact.datastore, [ref]).get(ref.id, ()):
            if target.component in (None, found.link.component):
                return replace(found.link, uri=location_of(target.uri))
        return located(butler, found.link)

    return relinked(artifact.uri, link_of)


class _Kept(NamedTuple):
    """Which file of which dataset a new one is for."""

    id: uuid.UUID
    component: str | None

    def uri(self, datastore: Any) -> ResourcePath:
        name = f"{self.id}_{self.component}" if self.component else str(self.id)
        return datastore.root.join(f"{KEPT}/{name}.h5")


def _kept(datastore: Any) -> Iterator[_Kept]:
    """Yield for which files an interrupted call left new ones behind."""
    folder = datastore.root.join(KEPT, forceDirectory=True)
    if folder.exists():
        # Not the temporary files of a writer that was killed.
        for uri in list(ResourcePath.findFileResources([folder], file_filter=r"\.h5$")):
            id_, _, component = uri.updatedExtension("").basename().partition("_")
            yield _Kept(uuid.UUID(id_), component or None)


def _replace(butler: Butler, datastore: Any, which: _Kept, image: bytes | None) -> dict[uuid.UUID, DatasetRef]:
    """Replace a file by a new one, or without that by the one that was kept for it.

    Nothing happens if it was removed, or has got other content, since the new one was made.

    Returns
    -------
    dict
        The datasets of the file by id, if it was replaced.
    """
    kept = which.uri(datastore)
    files = stored_files(datastore, butler.get_many_datasets([which.id])).get(which.id, ())
    replaced: list[DatasetRef] = []
    for artifact in (file for file in files if file.component == which.component):
        try:
            with replacing(butler, artifact) as refs:
                if image is not None:
                    _write(kept, image)
                elif kept.exists():
                    image = kept.read()
                if image is not None and _hold_the_same(artifact.uri, kept):
                    _write(artifact.uri, image)
                    replaced = refs
        except OvertakenError:
            return {}
    with contextlib.suppress(FileNotFoundError):
        kept.remove()
    if kept.isLocal:
        with contextlib.suppress(OSError):
            os.rmdir(kept.dirname().ospath)
    return {ref.id: ref for ref in replaced}


def _hold_the_same(old: ResourcePath, new: ResourcePath) -> bool:
    try:
        return contents(old) == contents(new)
    except (FileNotFoundError, CompositeH5Error):
        return False


def _write(uri: ResourcePath, image: bytes) -> None:
    if not uri.isLocal:
        uri.write(image)
        return
    while True:
        make_folders(uri.dirname().ospath)
        # Another call may just have removed the folder, for it was empty.
        with contextlib.suppress(FileNotFoundError):
            publish(uri.ospath, image, replace=True)
            return
