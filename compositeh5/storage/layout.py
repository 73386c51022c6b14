"""Where things are in a file of format 1, and which of its attributes are not content.

``specs/format.md`` is the normative text.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

import numpy as np

from .._version import __version__
from ..errors import (
    CorruptFileError,
    FormatError,
    NoSuchComponentError,
    NotACompositeFileError,
    RefusedError,
    UnsupportedVersionError,
    WrongIdError,
)
from .chunks import BLOCK_CRC, BLOCK_ROWS
from .nodes import ArrayNode, AttrValue, Group, GroupNode, Node, SoftLink
from .quantized import FRACTION, STEP
from .reader import StoredFile, StoredGroup

FORMAT = "1.0"

MIN_READER = 1
READER = 1
"""The version of this reader: files whose ``min_reader`` is higher are refused."""

DEFAULT = "composite"
"""Name of the group of the composite of a file that holds one."""

BY_ID = "by-id"

ID_NAMESPACE = uuid.UUID("0b2a2d0e-6f0b-5d6c-9f46-6f1c2c6a3d5e")
"""Namespace of the ids that are derived from a composite's digest (UUID version 5)."""

ORIGIN = "origin_link"
"""Attribute of a component whose content is from another composite: the record of a link to it there."""

NOT_CONTENT = frozenset(
    {
        "digest", "stage", "links", ORIGIN, "scalar", "isot",
        "CLASS", "IMAGE_VERSION", "IMAGE_SUBCLASS", "IMAGE_MINMAXRANGE", "DISPLAY_ORIGIN", "INTERLACE_MODE",
        "NX_class", "signal", "title", "interpretation", "long_name",
        BLOCK_ROWS, BLOCK_CRC, STEP, FRACTION,
    }
)  # fmt: skip
"""Attributes that a digest leaves out: what is derived, said for other software, or true of one use only."""


_LONG_TEXT_BYTES = 48_000


def long_text(name: str, text: str) -> dict[str, AttrValue]:
    """Return the attributes that hold a text which may exceed what one can: ``name``, ``name_1``, ``name_2``, ..."""
    data = text.encode()
    parts: list[str] = []
    while data or not parts:
        end = min(len(data), _LONG_TEXT_BYTES)
        # Not in the middle of a character.
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(data[:end].decode())
        data = data[end:]
    return {f"{name}_{i}" if i else name: part for i, part in enumerate(parts)}


def text_name(name: str) -> str:
    """Return the name of the text of which an attribute may be a piece: that of ``x``, ``x_1`` and ``x_2`` is ``x``."""
    return name.rstrip("0123456789").removesuffix("_")


def is_content(name: str) -> bool:
    """Return whether an attribute of this name is content: what digests cover."""
    return NOT_CONTENT.isdisjoint((name, text_name(name)))


def joined_text(node: Node, name: str) -> str:
    """Return the text that `long_text` cut up; an empty one if there is none."""
    parts = [node.attr(name, str, "")]
    while f"{name}_{len(parts)}" in node.attrs:
        parts.append(node.attr(f"{name}_{len(parts)}", str))
    return "".join(parts)


def file_root(composites: Mapping[str, tuple[str, GroupNode]]) -> Group:
    """Return the root group of a file of composites, given as (id, node) by name; the first is the default one."""
    by_id = Group({id_: SoftLink(f"/{name}") for name, (id_, _) in composites.items()})
    default = next(iter(composites))
    attrs: dict[str, AttrValue] = {
        "compositeh5_format": FORMAT,
        "min_reader": MIN_READER,
        "creator": f"compositeh5 {__version__}",
        "default": default,
        # For NeXus readers, which look for the default plot from here.
        "NX_class": "NXroot",
    }
    children: dict[str, Node] = {name: node for name, (_, node) in composites.items()}
    # The mark of completion is the last thing that is written.
    return Group({**children, BY_ID: by_id}, {**attrs, "complete": 1})


def check_file(file: StoredFile) -> None:
    """Raise an error unless a file is of this format, complete, and of a version that this release reads."""
    attrs = file.root.attrs
    if not is_ours(file):
        raise NotACompositeFileError(
            f"{file.name}: an HDF5 file, but not of compositeh5 (its root has no attribute 'compositeh5_format')"
        )
    version, needed = file.root.attr("compositeh5_format", str), file.root.attr("min_reader", int)
    if needed > READER:
        raise UnsupportedVersionError(
            f"{file.name}: format {version} needs reader version {needed}, this release "
            f"(compositeh5 {__version__}) is version {READER}; it was written by {attrs.get('creator', 'unknown')}, "
            f"install that release or a newer one"
        )
    if file.root.attr("complete", int, 0) != 1:
        raise CorruptFileError(f"{file.name}: its writing was never completed (attribute 'complete' is not 1)")
    if not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version):
        raise FormatError(f"{file.name}: 'compositeh5_format' should be major.minor, not {version!r}")
    if int(version.partition(".")[0]) == 0:
        raise UnsupportedVersionError(
            f"{file.name}: format {version} is older than 1.0, the first that was released; write the file anew"
        )


def is_ours(file: StoredFile) -> bool:
    """Return whether a file is of this format, of whatever version, complete or not."""
    return "compositeh5_format" in file.root.attrs


def is_copy(file: StoredFile) -> bool:
    """Return whether a file of others has composites that were copied into it, as ``h5copy`` does.

    What the root of one of ours says is missing then: which reader it needs, that it is complete, and ids.
    """
    told = ("compositeh5_format", "min_reader", "complete")
    return not any(name in file.root.attrs for name in told) and bool(composite_names(file))


def composite_names(file: StoredFile) -> tuple[str, ...]:
    """Return the names of the composites at the top of a file."""
    if is_ours(file):
        return tuple(name for name in file.root if name != BY_ID)
    return tuple(name for name in file.root if _is_composite(file, name))


def _is_composite(file: StoredFile, name: str) -> bool:
    try:
        node = file.root[name]
        return isinstance(node, StoredGroup) and node.attr("kind", str, "") == "composite" and "id" in node.attrs
    except (RefusedError, FormatError):
        # Files of others hold what has no place in ours.
        return False


def composite_ids(file: StoredFile) -> tuple[str, ...]:
    """Return the ids of the composites at the top of a file."""
    if is_ours(file):
        return tuple(file.root.group(BY_ID))
    return tuple(file.root.group(name).attr("id", str) for name in composite_names(file))


def composite_group(file: StoredFile, name: str | None = None) -> StoredGroup:
    """Return the group of a composite by its name; of the file's default one without a name."""
    group = file.root.get(_default(file) if name is None else name)
    if isinstance(group, StoredGroup) and group.path != f"/{BY_ID}":
        return group
    if name is None:
        raise FormatError(f"{file.name}: its default composite {file.root.attrs['default']!r} isn't there")
    raise NoSuchComponentError(f"{file.name}: has no composite {name!r}; it has {', '.join(composite_names(file))}")


def _default(file: StoredFile) -> str:
    if is_ours(file):
        return file.root.attr("default", str)
    names = composite_names(file)
    if len(names) != 1:
        raise NoSuchComponentError(f"{file.name}: say which composite is meant; there are: {', '.join(names)}")
    return names[0]


def composite_group_by_id(file: StoredFile, id_: str) -> StoredGroup:
    """Return the group of the composite with this id; `WrongIdError` if the file holds none."""
    if is_ours(file):
        by_id = file.root.group(BY_ID)
        target = by_id.soft_target(id_) if isinstance(by_id, StoredGroup) else None
    else:
        target = dict(zip(composite_ids(file), composite_names(file), strict=True)).get(id_)
    if target is None:
        held = ", ".join(composite_ids(file)) or "none"
        raise WrongIdError(f"{file.name}: holds no composite with id {id_}; it holds {held}")
    group = composite_group(file, target.removeprefix("/"))
    if group.attr("id", str) != id_:
        raise WrongIdError(f"{group.where}: its id is {group.attrs['id']}, but {id_} was expected")
    return group


RANGE = "IMAGE_MINMAXRANGE"
"""Attribute with the least and the greatest finite value."""


def image_attrs(node: ArrayNode) -> dict[str, AttrValue]:
    """Return the attributes by which other software shows a 2-d array as an image; none if it can't be shown as one.

    HDF5 Image and Palette Specification 1.2 (for HDFView and the HL library) and NeXus (for silx, h5web and NeXpy).
    """
    if node.ndim != 2 or 0 in node.shape:
        return {}
    values = node.read()
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        # Viewers take the range as it is, and show all black where it is not finite.
        finite = np.isfinite(values)
        low = values.min(where=finite, initial=np.inf) if finite.any() else values.dtype.type(0)
        high = values.max(where=finite, initial=-np.inf) if finite.any() else values.dtype.type(0)
    return {
        "CLASS": "IMAGE",
        "IMAGE_VERSION": "1.2",
        "IMAGE_SUBCLASS": "IMAGE_GRAYSCALE",
        RANGE: np.array([low, high], values.dtype),
        "DISPLAY_ORIGIN": "LL",
        "interpretation": "image",
    }
