"""Files that aren't simply on a disk: behind URLs, and inside zip files.

A *location* is a path, a URL, or ``<path or URL of a zip file>#zip-path=<member>``, as the Butler writes those; where a
file must be opened with credentials, also an ``lsst.resources.ResourcePath``.

A file behind a URL costs one GET for its first block (1 MiB), which has all metadata and the small components, and
where that is not enough, one more for what a read needs of the rest: a component, a part of one, or all at once.
Parts that are farther apart than 8 MiB (`storage.source.GAP`) are fetched by a request each, all at the same time: so
of a cutout of several large planes, which are stored one after the other. There is no HEAD, with two exceptions: zip
files in an object store, whose size must be known, and schemes that ``lsst.resources`` opens so (WebDAV).
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, LifoQueue
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from ..errors import CompositeH5Error, CorruptFileError, LimitError, RefusedError, TransferError
from .source import BlockSource, FileSource, ReadAt

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

ZIP_PATH = "#zip-path="
"""What stands between the location of a zip file and the name of a member."""

HTTP_TIMEOUT = (60, 600)
"""Seconds to wait for a connection, and for an answer."""

_LOCAL_HEADER = 30
"""Size of what precedes the name of a member in a zip file."""


class Uri(Protocol):
    """What ``lsst.resources.ResourcePath`` is."""

    def geturl(self) -> str:
        """Return the URL."""


Location = str | Uri
"""Where a file is; see above."""


def is_url(location: str) -> bool:
    """Return whether a location isn't simply a path."""
    return "://" in location or ZIP_PATH in location


def split_member(location: str) -> tuple[str, str | None]:
    """Return the location of a zip file and the name of a member; None for a location that isn't in a zip file."""
    outer, found, member = location.partition(ZIP_PATH)
    return (outer, unquote(member)) if found else (location, None)


def member_location(outer: str, member: str) -> str:
    """Return the location of a member of a zip file."""
    return f"{outer}{ZIP_PATH}{quote(member)}"


def public_location(location: Location) -> str:
    """Return a location for messages and files: without what may be secret, the query of a presigned URL."""
    text = location if isinstance(location, str) else location.geturl()
    return urlsplit(text)._replace(query="").geturl() if "://" in text else text


def open_source(location: Location, size: int | None = None) -> FileSource | BlockSource:
    """Open a file at a location; a path must be absolute. What is remote raises `TransferError`."""
    if isinstance(location, str):
        outer, member = split_member(location)
        if member is not None:
            return _open_member(outer, member)
        if not is_url(location):
            return FileSource(location)
        if location.startswith("file:"):
            return FileSource(unquote(urlsplit(location).path))
    return _open_remote(location, size)


def read_member(outer: str, name: str, limit: int) -> bytes:
    """Return the content of a member of a zip file, which must not exceed a limit in bytes."""
    from zipfile import ZipFile

    with open_source(outer) as source, _zip_errors(outer), ZipFile(source) as archive:
        info = _member(archive, outer, name)
        if info.file_size > limit:
            raise LimitError(f"{member_location(outer, name)}: larger than {limit} bytes")
        # No more than that is inflated, whatever the stream holds.
        with archive.open(info) as stream:
            return stream.read(info.file_size)


def read_all(location: str, limit: int) -> bytes:
    """Return the content of a file at a location, which must not exceed a limit in bytes."""
    with ExitStack() as stack:
        # Of a local file at an offset, too: no more memory than there are bytes.
        read_at = _reader(location, stack)[0] if is_url(location) else stack.enter_context(FileSource(location)).read_at
        content = read_at(0, limit + 1)
    if len(content) > limit:
        raise LimitError(f"{public_location(location)}: larger than {limit} bytes")
    return content


def _open_remote(location: Location, size: int | None) -> BlockSource:
    stack = ExitStack()
    try:
        read_at, measure = _reader(location, stack)
        return BlockSource(read_at, public_location(location), size, measure=measure, close=stack.close)
    except BaseException:
        stack.close()
        raise


Reader = tuple[ReadAt, Callable[[], int | None]]
"""Functions that read a part of a remote file, and that ask for its size."""


def _reader(location: Location, stack: ExitStack) -> Reader:
    """Return the functions that read a file, until the stack is closed."""
    name = public_location(location)
    with _transfer_errors(name):
        try:
            from lsst.resources import ResourcePath

            uri = ResourcePath(location)
        except (ImportError, NotImplementedError) as error:
            # Not installed, or not a scheme that it knows.
            return _fsspec_reader(str(location), name, error)
        return _http_reader(uri, name) if uri.scheme in ("http", "https") else _stream_reader(uri, name, stack)


def _stream_reader(uri: Any, name: str, stack: ExitStack) -> Reader:
    """Read through the streams of a ``ResourcePath``: one for each of the requests that are made at once."""
    idle: LifoQueue[Any] = LifoQueue()

    @contextmanager
    def stream() -> Iterator[Any]:
        with _transfer_errors(name):
            try:
                taken = idle.get_nowait()
            except Empty:
                taken = stack.enter_context(uri.open("rb"))
            yield taken
            idle.put(taken)

    def read_at(offset: int, count: int) -> bytes:
        with stream() as taken:
            taken.seek(offset)
            return bytes(taken.read(count))

    def measure() -> int:
        with stream() as taken:
            return int(taken.seek(0, io.SEEK_END))

    return read_at, measure


def _http_reader(uri: Any, name: str) -> Reader:
    """Read by the session of a ``ResourcePath``, which has the credentials, but by GET alone.

    Its streams begin with OPTIONS and HEAD.
    """
    from http import HTTPStatus

    total: int | None = None
    whole: bytes | None = None

    def read_at(offset: int, count: int) -> bytes:
        nonlocal total, whole
        if whole is not None:
            return whole[offset : offset + count]
        headers = {"Range": f"bytes={offset}-{offset + count - 1}", "Accept-Encoding": "identity"}
        try:
            answer = uri.data_session.get(uri.geturl(), headers=headers, timeout=HTTP_TIMEOUT, stream=False)
        except OSError as error:
            # Its text has the URL, and so the signature.
            raise TransferError(f"{name}: {type(error).__name__} while asking for {headers['Range']}") from None
        match answer.status_code:
            case HTTPStatus.PARTIAL_CONTENT:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
                total = int(size) if size.isdecimal() else None
                return bytes(answer.content)
            case HTTPStatus.OK:
                # A server that knows no ranges, or an empty file.
                whole = bytes(answer.content)
                total = len(whole)
                return whole[offset : offset + count]
            case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""
            case HTTPStatus.NOT_FOUND | HTTPStatus.GONE | HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN as status:
                raise FileNotFoundError(f"HTTP status {status}")
            case status:
                raise TransferError(f"{name}: HTTP status {status} {answer.reason}")

    def read(offset: int, count: int) -> bytes:
        with _transfer_errors(name):
            return read_at(offset, count)

    return read, lambda: total


def _fsspec_reader(location: str, name: str, missing: Exception) -> Reader:
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise TransferError(
            f"{name}: can't be opened ({missing}; {error}); pip install 'compositeh5[remote]' for URLs"
        ) from error

    def read_at(offset: int, count: int) -> bytes:
        with _transfer_errors(name):
            return bytes(files.cat_file(path, offset, offset + count))

    return read_at, lambda: int(files.size(path))


def _open_member(outer: str, name: str) -> BlockSource:
    from zipfile import ZIP_STORED, BadZipFile, ZipFile

    stack = ExitStack()
    try:
        source = stack.enter_context(open_source(outer))
        where = member_location(outer, name)
        with _zip_errors(outer), ZipFile(source) as archive:
            info = _member(archive, outer, name)
            if info.compress_type != ZIP_STORED or info.flag_bits & 1:
                raise RefusedError(f"{where}: compressed or encrypted; HDF5 files are only read where they are stored")
            source.seek(info.header_offset)
            header = source.read(_LOCAL_HEADER)
            if not header.startswith(b"PK\3\4"):
                raise BadZipFile(f"the member {name!r} isn't where its directory says")
            name_size, extra_size = header[26:28], header[28:30]
            start = (
                info.header_offset + _LOCAL_HEADER + sum(int.from_bytes(n, "little") for n in (name_size, extra_size))
            )

        def read_at(offset: int, count: int) -> bytes:
            return source.read_at(start + offset, min(count, info.file_size - offset))

        return BlockSource(read_at, where, info.file_size, close=stack.close)
    except BaseException:
        stack.close()
        raise


def _member(archive: ZipFile, outer: str, name: str) -> ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError:
        raise FileNotFoundError(f"{outer}: has no member {name!r}") from None


@contextmanager
def _zip_errors(outer: str) -> Iterator[None]:
    from zipfile import BadZipFile
    from zlib import error as InflateError

    try:
        yield
    except (BadZipFile, NotImplementedError, RuntimeError, EOFError, InflateError, OSError) as error:
        # What a directory says can lead to before the beginning of the file; other errors are the system's.
        of_the_system = isinstance(error, OSError) and error.errno != errno.EINVAL
        if isinstance(error, CompositeH5Error) or of_the_system:
            raise
        raise CorruptFileError(f"{outer}: can't be read as a zip file: {error}") from error


@contextmanager
def _transfer_errors(name: str) -> Iterator[None]:
    """Turn what the libraries of object stores raise into our own error; a missing file stays one."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: there is no such file, or it may not be read") from error
    except (OSError, ImportError, NotImplementedError):
        raise
    except Exception as error:
        raise TransferError(f"{name}: {type(error).__name__}: {error}") from error
