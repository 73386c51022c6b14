"""Digests: what a component or a composite holds, independent of how and where it is stored.

``specs/format.md`` gives the rules and worked examples.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DigestMismatchError, EncodeError, FormatError
from .h5types import encode_text
from .layout import is_content, joined_text
from .nodes import ArrayNode, AttrValue, ExternalLink, GroupNode, Node

_T = TypeVar("_T")

_BLOCK_BYTES = 16 * 1024 * 1024


def digest(node: Node) -> str:
    """Return the digest of a component, ``"sha256:"`` and 64 hexadecimal digits.

    It covers types, shapes, values, names and the attributes that are content; not byte order, chunks,
    compression or the file. A nested composite has the digest of a composite.
    """
    return f"sha256:{_node_hash(node).hex()}"


def check_digest(node: Node) -> None:
    """Raise `DigestMismatchError` unless a stored component has the content for which its digest was recorded."""
    found, recorded = digest(node), node.attr("digest", str)
    if found != recorded:
        raise DigestMismatchError(f"{node.where}: its content has digest {found}, but {recorded} was recorded")


def composite_digest(group: GroupNode) -> str:
    """Return the digest of a composite, from its attributes and the digests recorded of its components."""
    records = read_json(group, "links", dict)
    components: dict[str, dict[str, str]] = {}
    for name, node in group.items():
        if isinstance(node, ExternalLink):
            record = records.get(name)
            if not isinstance(record, dict):
                raise FormatError(f"{node.where}: is a link, but has no record of what it must find")
            components[name] = {"kind": record["kind"], "digest": record["digest"], "stage": record.get("stage", "")}
        elif name in records:
            raise FormatError(f"{node.where}: is recorded as a link, but is stored here")
        else:
            texts = {"kind": node.attr("kind", str), "digest": node.attr("digest", str)}
            components[name] = {**texts, "stage": node.attr("stage", str, "")}
    text = canonical_json(
        {
            "definition": group.attr("definition", str),
            "definition_version": group.attr("definition_version", int),
            "data_id": read_json(group, "data_id", dict),
            **{name: group.attr(name, str, "") for name in ("dataset_type", "run", "stage")},
            "absent": sorted(map(str, read_json(group, "absent", list))),
            "provenance": read_json(group, "provenance", dict),
            "components": components,
        }
    )
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no white space and no escapes for other than ASCII characters."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        # Lone surrogates can't be stored.
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        raise EncodeError(f"{value!r} can't be written as JSON: {error}") from error


def read_json(node: Node, name: str, of_type: type[_T]) -> _T:
    """Return the value of a JSON attribute of a node, checked; an empty one where it is missing."""
    text = joined_text(node, name)
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite) if text else of_type()
        if "\\u" in text:
            # Escapes are the only way to lone surrogates.
            canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{node.where}: attribute {name!r} isn't valid JSON: {error}") from error
    if not isinstance(value, of_type):
        raise FormatError(f"{node.where}: attribute {name!r} should hold a JSON {of_type.__name__}")
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _node_hash(node: Node) -> bytes:
    if isinstance(node, GroupNode):
        if node.attr("kind", str, "") == "composite" and "digest" in node.attrs:
            return _raw_digest(node.attr("digest", str), node.where)
        hasher = hashlib.sha256(b"group\0" + _attrs_hash(node.attrs))
        for name in sorted(node, key=str.encode):
            child = node[name]
            own = _linked_hash(node, name) if isinstance(child, ExternalLink) else _node_hash(child)
            hasher.update(name.encode() + b"\0" + own)
        return hasher.digest()
    if isinstance(node, ArrayNode):
        type_name, blocks = _content(node)
        shape = ",".join(map(str, node.shape))
        hasher = hashlib.sha256(b"array\0" + _attrs_hash(node.attrs) + f"{type_name}\0{shape}\0".encode())
        for block in blocks:
            hasher.update(block)
        return hasher.digest()
    raise EncodeError(f"{node.where}: a {type(node).__name__} has no content to make a digest of")


def _linked_hash(group: GroupNode, name: str) -> bytes:
    """Return the digest of an item of a list that lives elsewhere, as its link records it."""
    record = read_json(group, "links", dict).get(name)
    found = record.get("digest") if isinstance(record, dict) else None
    return _raw_digest(str(found), f"{group.where}/{name}")


def _raw_digest(text: str, where: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        raise FormatError(f"{where}: {text!r} isn't a digest") from None


def _attrs_hash(attrs: Mapping[str, AttrValue]) -> bytes:
    hasher = hashlib.sha256()
    for name in sorted(attrs, key=str.encode):
        if is_content(name):
            values = np.asarray(attrs[name])
            type_name, data = canonical(values, name)
            shape = ",".join(map(str, values.shape))
            hasher.update(f"{name}\0{type_name}\0{shape}\0".encode() + data)
    return hasher.digest()


def _content(node: ArrayNode) -> tuple[str, Iterator[bytes | memoryview]]:
    """Return the name of the type, and the bytes in blocks of whole rows."""
    if node.dtype.kind in "US" or node.ndim == 0 or node.nbytes <= _BLOCK_BYTES:
        type_name, data = canonical(node.read(), node.where)
        return type_name, iter((data,))
    rows = max(1, _BLOCK_BYTES * node.shape[0] // node.nbytes)
    starts = range(0, node.shape[0], rows)
    type_name = canonical(np.empty(0, node.dtype), node.where)[0]
    return type_name, (canonical(node.read((slice(i, i + rows),)), node.where)[1] for i in starts)


def canonical(values: NDArray[Any], where: str) -> tuple[str, bytes | memoryview]:
    """Return the name of the type and the little-endian bytes in C order.

    Text is UTF-8; strings are padded with zeros to the length in bytes of the longest, at least 1.
    """
    if values.dtype.kind == "U":
        type_name, values = "text", encode_text(values, where)
    elif values.dtype.kind == "S":
        longest = int(np.char.str_len(values).max(initial=1))
        type_name, values = "bytes", values.astype(f"S{max(longest, 1)}")
    else:
        type_name, values = values.dtype.name, values.astype(values.dtype.newbyteorder("<"), copy=False)
    return type_name, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
