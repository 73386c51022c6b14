"""Files of which the digest is known from elsewhere: checked before HDF5 sees them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Hashable

from ..errors import ConfigurationError, DigestMismatchError
from .source import BLOCK, FileSource


def check_digest(digest: str) -> None:
    """Raise `ConfigurationError` unless a text is ``"sha256:"`` and 64 hexadecimal digits."""
    if not isinstance(digest, str) or re.fullmatch(r"sha256:[0-9a-fA-F]{64}", digest) is None:
        raise ConfigurationError(f"the digest of a file is 'sha256:' and 64 hexadecimal digits, not {digest!r}")


def verified_copy(source: io.RawIOBase | io.BufferedIOBase, digest: str, name: str, key: Hashable) -> FileSource:
    """Return a private copy of a file, if its bytes have a digest.

    The file is read once. HDF5 reads the copy, a temporary file that has no name any more: whoever changes the
    original afterwards, or while it is read here, changes nothing of what is read.

    Parameters
    ----------
    source : binary file object
        The file, at its beginning.
    digest : str
        ``"sha256:"`` and the SHA-256 of all its bytes, as ``sha256sum`` prints it.
    name : str
        What messages call the file.
    key : hashable
        Identity of the copy.

    Raises
    ------
    DigestMismatchError
        If the bytes have another one.
    OSError
        If they can't be read, or there is no room for the copy.
    """
    from tempfile import NamedTemporaryFile

    hasher = hashlib.sha256()
    with NamedTemporaryFile(prefix="compositeh5-") as copy:
        while block := source.read(BLOCK):
            hasher.update(block)
            copy.write(block)
        found = f"sha256:{hasher.hexdigest()}"
        if found != digest.lower():
            raise DigestMismatchError(
                f"{name}: the digest of its bytes is {found}, but {digest} was expected; HDF5 hasn't seen it"
            )
        copy.flush()
        verified = FileSource(copy.name)
    verified.identity = key
    return verified
