"""Names of links in a file that stand for any text.

HDF5 takes ``/`` and ``.`` in a link's name for paths, and the reader refuses names with characters that hide what
they are. Such names are percent-encoded. Names that begin with ``@`` belong to the format itself.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import FormatError

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_ESCAPED = re.compile("(?:%[0-9A-F]{2})+")


def escape_name(name: str) -> str:
    """Return the link name that stands for a text.

    Parameters
    ----------
    name : str
        Any text, also an empty one.

    Returns
    -------
    str
        The same text, but ``%``, ``/``, a leading ``@``, control, format (bidirectional, zero-width, ...) and
        separator characters are written as ``%XX`` for each byte of their UTF-8 form; ``""`` becomes ``%``, and
        ``.`` and ``..`` become ``%2E`` and ``%2E%2E``.
    """
    if name == "":
        return "%"
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return "".join(
        _percent(c) if c in "%/" or (c == "@" and i == 0) or unicodedata.category(c) in _HIDDEN else c
        for i, c in enumerate(name)
    )


def unescape_name(name: str, where: str = "name") -> str:
    """Return the text for which a link name stands.

    Parameters
    ----------
    name : str
        What `escape_name` returned.
    where : str, optional
        File and path of the group, for the message.

    Raises
    ------
    FormatError
        If ``name`` holds a ``%`` that `escape_name` doesn't write.
    """
    if name == "%":
        return ""
    try:
        if "%" in _ESCAPED.sub("", name):
            raise ValueError("a % stands without two digits")
        return _ESCAPED.sub(
            lambda match: bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass"), name
        )
    except ValueError as error:
        raise FormatError(f"{where}: {name!r} is not an escaped name: {error}") from error


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
