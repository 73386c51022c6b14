"""Files that are written somewhere before they get to a repository."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lsst.daf.butler import Butler, FileDataset

from .datastores import file_datastores, force_files
from .relinking import relink

STAGING = ".compositeh5-convert-"
"""What the names of the folders for unfinished files begin with."""


def ingest_staged(butler: Butler, files: Sequence[FileDataset]) -> None:
    """Move files into a repository, all or none; it knows of them when they are on the disk.

    Raises
    ------
    Exception
        What the Butler raises if one of them can't be stored. Then none is.
    """
    refs = [ref for file in files for ref in file.refs]
    is_chain = len(file_datastores(butler)) > 1
    with butler.transaction():
        butler.ingest(*files, transfer="copy" if is_chain else "move")
        force_files(butler, refs)
    if is_chain:
        # The files were written for their places in the first.
        relink(butler, refs)


@contextmanager
def staging_folder(butler: Butler) -> Iterator[str]:
    """Give a folder for unfinished files, and remove those that killed runs have left.

    A run holds the lock of its folder as long as it lives.
    """
    datastores = file_datastores(butler)
    # Moving a file into a folder of the same file system is one rename.
    is_near = len(datastores) == 1 and datastores[0].root.isLocal
    parent = Path(datastores[0].root.ospath if is_near else tempfile.gettempdir())
    for left in parent.glob(f"{STAGING}*"):
        with _locked(left) as is_dead:
            if is_dead:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = tempfile.mkdtemp(prefix=STAGING, dir=parent)
        with _locked(folder) as is_ours:
            # Between the two steps, another run may have taken it for a dead one's.
            if is_ours and os.path.isdir(folder):
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                return


@contextmanager
def _locked(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Lock a folder, and tell whether that was possible: it is there, and nobody else's."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, PermissionError):
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)
