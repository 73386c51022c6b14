"""What a process that reads a file on its own and the one that asks it say to each other: JSON, and raw bytes.

Nothing is unpickled: whoever has taken over that process can send wrong values, but only values.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nodes import AttrValue

WINDOW = 32 * 1024 * 1024
"""Size of the memory that both share: no more comes at once."""

LARGEST = 64 * 1024 * 1024
"""Longest message."""

_DTYPE = re.compile(r"\|b1|[|<>][iu]1|[<>](?:[iu][248]|f[248]|c8|c16)|\|S[1-9][0-9]{0,8}")


class Channel:
    """One end of the connection. A message is a JSON object and bytes, each after its length in 4 bytes."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._deadline: float | None = None

    def within(self, seconds: float) -> None:
        """Let what follows take so long, all in all; `TimeoutError` says that it did not."""
        self._deadline = time.monotonic() + seconds

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message."""
        text = json.dumps(message).encode()
        self._wait()
        self.end.sendall(len(text).to_bytes(4, "little") + len(payload).to_bytes(4, "little") + text + payload)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next message.

        Raises
        ------
        EOFError
            If the other end is gone.
        ValueError
            If it isn't a message.
        """
        sizes = self._take(8)
        length, size = int.from_bytes(sizes[:4], "little"), int.from_bytes(sizes[4:], "little")
        if max(length, size) > LARGEST:
            raise ValueError("the message is too long")
        text, payload = self._take(length), self._take(size)
        try:
            message = json.loads(text)
        except RecursionError as error:
            raise ValueError("the message is nested too deeply") from error
        if not isinstance(message, dict):
            raise ValueError("the message isn't a JSON object")
        return message, bytes(payload)

    def _take(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            self._wait()
            part = self.end.recv(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return data

    def _wait(self) -> None:
        if self._deadline is not None:
            # Zero would mean: don't wait.
            self.end.settimeout(max(self._deadline - time.monotonic(), 1e-3))


def checked_dtype(text: Any) -> np.dtype[Any]:
    """Return a type of numbers, bools or byte strings by its numpy name; anything else is a `ValueError`."""
    if not isinstance(text, str) or _DTYPE.fullmatch(text) is None:
        raise ValueError(f"{text!r} isn't a type of values")
    return np.dtype(text)


def checked_shape(value: Any) -> tuple[int, ...]:
    """Return a shape; anything else is a `ValueError`."""
    if not isinstance(value, list) or len(value) > 32 or not all(type(n) is int and 0 <= n < 1 << 48 for n in value):
        raise ValueError(f"{value!r} isn't a shape")
    return tuple(value)


def encoded_attr(value: AttrValue) -> Any:
    """Return an attribute as JSON can hold it."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind == "U":
        return {"shape": value.shape, "text": value.ravel().tolist()}
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {"shape": value.shape, "dtype": value.dtype.str, "data": data}


def decoded_attr(value: Any) -> AttrValue:
    """Return an attribute that `encoded_attr` made; anything else is a `ValueError`."""
    if isinstance(value, str):
        value.encode()
        return value
    if isinstance(value, bool | float) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 64):
        return value
    if isinstance(value, dict) and value.keys() == {"shape", "text"}:
        texts = value["text"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("an attribute should be text")
        "".join(texts).encode()
        return _reshaped(np.array(texts, np.str_), value["shape"])
    if isinstance(value, dict) and value.keys() == {"shape", "dtype", "data"}:
        dtype = checked_dtype(value["dtype"])
        raw = np.frombuffer(base64.b64decode(value["data"], validate=True), np.uint8).copy()
        return _reshaped((raw != 0) if dtype.kind == "b" else raw.view(dtype), value["shape"])
    raise ValueError("an attribute should be text, a number or an array")


def _reshaped(values: NDArray[Any], shape: Any) -> NDArray[Any]:
    wanted = checked_shape(shape)
    if values.size != prod(wanted):
        raise ValueError("an attribute has another shape than values")
    return values.reshape(wanted)
