"""The process that reads one file on its own, for another process that asks it; see `isolated`.

It gets the bytes of the file, a connection, and a piece of shared memory; then it gives up all else.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.char

from ..errors import LimitError
from .arrays import StoredArray
from .confine import give_up_rights
from .h5types import encode_text
from .limits import Limits
from .nodes import ExternalLink, GroupNode, Node
from .reader import StoredFile, StoredGroup
from .source import BlockSource, FileSource
from .wire import WINDOW, Channel, encoded_attr


def serve(setup: dict[str, Any]) -> None:
    """Read one file for whoever asks, until the connection is closed.

    Parameters
    ----------
    setup : dict
        Descriptors of the ``connection``, the ``window`` and the ``file`` (None: its bytes are asked for by the
        connection), and the file's ``size`` (None if it isn't known), ``name`` and ``limits``.
    """
    channel, limits = Channel(socket.socket(fileno=setup["connection"])), Limits(**setup["limits"])
    window = np.frombuffer(mmap.mmap(setup["window"], WINDOW), np.uint8)
    source: FileSource | BlockSource | None = None
    if setup["file"] is None:
        # Loaded by the first use, which is too late.
        import concurrent.futures.thread  # noqa: F401
    else:
        source = FileSource(f"/proc/self/fd/{setup['file']}")
    give_up_rights(limits)
    channel.send({})
    file: StoredFile | None = None
    while True:
        try:
            request, _ = channel.receive()
        except EOFError:
            os._exit(0)
        # Ends this process also where nobody is left to do so.
        signal.setitimer(signal.ITIMER_REAL, limits.seconds + 5)

        def answer(request: dict[str, Any] = request) -> Any:
            nonlocal file
            if file is None:
                opened = source or BlockSource(_reader(channel), setup["name"], setup["size"])
                file = StoredFile(opened, setup["name"], limits)
            return _ANSWERS[request["ask"]](file, request, window)

        channel.send(_attempt(answer))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reader(channel: Channel) -> Callable[[int, int], bytes]:
    """Return a function that gets bytes of the file from the other process."""
    lock = Lock()

    def read_at(offset: int, size: int) -> bytes:
        data = bytearray()
        with lock:
            while len(data) < size:
                channel.send({"need": [offset + len(data), min(size - len(data), WINDOW)]})
                part = channel.receive()[1]
                if not part:
                    break
                data += part
        return bytes(data)

    return read_at


def _attempt(do: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": do()}
    except Exception as error:
        return {"error": [type(error).__name__, str(error)[:4000]]}


def _node(file: StoredFile, path: str) -> Node:
    node: Node = file.root
    for name in path.split("/")[1:] if path != "/" else ():
        if not isinstance(node, GroupNode):
            raise KeyError(path)
        node = node[name]
    return node


def _described(file: StoredFile, request: dict[str, Any], window: Any) -> dict[str, Any]:
    node = _node(file, request["path"])
    if isinstance(node, ExternalLink):
        return {"link": [node.file, node.target]}
    attrs = _attempt(lambda: {name: _attempt(partial(_attr, node, name)) for name in node.attrs})
    if isinstance(node, StoredGroup):
        return {"attrs": attrs, "names": _attempt(lambda: list(node))}
    assert isinstance(node, StoredArray)
    is_text = node.dtype.kind == "U"
    return {
        "attrs": attrs,
        "shape": node.shape,
        # UTF-8 of full length, and one byte more.
        "dtype": f"|S{node.dtype.itemsize // 4 + 1}" if is_text else node.dtype.str,
        "text": is_text,
        "chunks": node.chunks,
        "stored": node.stored_bytes,
        "recipe": None if node.recipe is None else asdict(node.recipe),
    }


def _attr(node: Node, name: str) -> Any:
    return encoded_attr(node.attrs[name])


def _read(file: StoredFile, request: dict[str, Any], window: Any) -> None:
    node = _node(file, request["path"])
    assert isinstance(node, StoredArray)
    values = node.read(tuple(slice(*item) for item in request["selection"]))
    if node.dtype.kind == "U":
        values = encode_text(values, node.where).astype(f"S{node.dtype.itemsize // 4 + 1}")
    if values.nbytes > WINDOW:
        raise LimitError(f"{node.where}: {values.nbytes} bytes at once")
    window[: values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _soft_target(file: StoredFile, request: dict[str, Any], window: Any) -> str | None:
    group = _node(file, request["path"])
    assert isinstance(group, StoredGroup)
    return group.soft_target(request["name"])


_ANSWERS: dict[str, Callable[[StoredFile, dict[str, Any], Any], Any]] = {
    "node": _described,
    "read": _read,
    "soft target": _soft_target,
}
