"""Making links right again where files aren't any more at the places, relative to each other, at which they were put.

Files are never changed in place, and the Butler has no way to replace one. So the new file is first kept, whole, in a
folder at the root of the repository. Then the old one is given up, and the new one put in its place and made known.
Where that is interrupted, the next `relink` finds the kept file and goes on.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable

from lsst.daf.butler import Butler, DatasetRef, FileDataset
from lsst.resources import ResourcePath

from ..container.publish import publish
from ..errors import ConfigurationError, DigestMismatchError
from ..links import Link
from ..opening import file_info
from .checking import composite_refs
from .datasets import location_of
from .formatter import CompositeFormatter
from .stored import located, open_ref, relinked

KEPT = ".compositeh5-relink"
"""Folder of the new files: ``<dataset id>/<path of the file in the repository>``."""


def relink(butler: Butler, refs: Iterable[DatasetRef] | None = None) -> list[DatasetRef]:
    """Make the links of datasets lead to where the Butler has their targets now.

    Ids, URIs and contents stay the same. Only files that the repository holds itself are written anew: not those that
    it ingested from elsewhere, nor those of several composites, nor disassembled composites. Links of nested composites
    stay as they are. `check` tells what remains.

    Parameters
    ----------
    butler : Butler
        The repository.
    refs : iterable of DatasetRef, optional
        The datasets; by default all composites of the repository. What an earlier call didn't finish, for it was
        interrupted, is always finished first.

    Returns
    -------
    list of DatasetRef
        The datasets that were changed.

    Raises
    ------
    ConfigurationError
        If the repository has more than one datastore with files.
    DigestMismatchError
        If the content of a file isn't what was put; it stays as it is.
    OSError, FormatError
        If a file can't be read.
    """
    root = _root(butler)
    changed = [_replace(butler, root, kept) for kept in _kept(root)]
    if refs is None:
        refs = [ref for ref, is_stored in butler.stored_many(composite_refs(butler)).items() if is_stored]
    for ref in refs:
        image = _relinked_image(butler, root, ref)
        if image is not None:
            path = butler.getURI(ref).relative_to(root)
            kept = root.join(f"{KEPT}/{ref.id}/{path}")
            _write(kept, image)
            changed.append(_replace(butler, root, kept))
    return [ref for ref in changed if ref is not None]


def _root(butler: Butler) -> ResourcePath:
    roots = [root for root in butler.get_datastore_roots().values() if root is not None]
    if len(roots) != 1:
        raise ConfigurationError(f"{butler}: has {len(roots)} datastores with files; only those of one can be relinked")
    return roots[0]


def _kept(root: ResourcePath) -> list[ResourcePath]:
    """Return the new files that an interrupted call left behind."""
    folder = root.join(KEPT, forceDirectory=True)
    if not folder.exists():
        return []
    # Not the temporary ones of a writer that was killed.
    return list(ResourcePath.findFileResources([folder], file_filter=r"\.(h5|hdf5)$"))


def _relinked_image(butler: Butler, root: ResourcePath, ref: DatasetRef) -> bytes | None:
    """Return the new file of a dataset; None if there is nothing to do, or nothing that can be done."""
    uri = butler.getURIs(ref).primaryURI
    if uri is None or uri.relative_to(root) is None:
        return None

    def place_of(link: Link) -> str | None:
        now = located(butler, link)
        return None if now is None else now.uri

    with open_ref(butler, ref) as stored:
        new = relinked(stored, place_of)
        if new is None or len(file_info(location_of(uri)).composites) > 1:
            return None
        image = new.file_image(location_of(uri))
        if new.digest != stored.recorded_digest:
            raise DigestMismatchError(f"{ref}: its digest is {new.digest}, but {stored.recorded_digest} was recorded")
    return image


def _replace(butler: Butler, root: ResourcePath, kept: ResourcePath) -> DatasetRef | None:
    """Replace the file of a dataset by the one kept for it; None if the dataset was removed meanwhile."""
    id_, path = str(kept.relative_to(root.join(KEPT, forceDirectory=True))).split("/", 1)
    ref = butler.get_dataset(uuid.UUID(id_))
    if ref is not None:
        uri = root.join(path)
        image = kept.read()
        butler.pruneDatasets([ref], disassociate=False, unstore=True, purge=False)
        _write(uri, image)
        # Where it is: the repository's templates may have another place for it than the one at which it was put.
        butler.ingest(FileDataset(path=uri, refs=[ref], formatter=CompositeFormatter), transfer=None)
    kept.remove()
    if kept.isLocal:
        with contextlib.suppress(OSError):
            os.removedirs(kept.dirname().ospath)
    return ref


def _write(uri: ResourcePath, image: bytes) -> None:
    if uri.isLocal:
        os.makedirs(uri.dirname().ospath, exist_ok=True)
        publish(uri.ospath, image, replace=True)
    else:
        uri.write(image)
