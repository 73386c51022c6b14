"""Writing a new file with all of a damaged one that is still provably good.

A component is good if its content has the digest that was recorded when it was written. Of some kinds a part can be
good, if that is asked for: what is in chunks whose checksums are right, as long as what is missing can't be taken for
data.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import kinds
from .._version import __version__
from ..access import Access, access_of
from ..composite import Composite
from ..container.files import FileArray
from ..container.layout import ORIGIN, file_root
from ..container.limits import LIMITS, Limits
from ..container.names import unescape_name
from ..container.nodes import Array, ArrayNode, ExternalLink, Group, GroupNode, Node
from ..container.publish import make_folders, publish
from ..container.salvage import salvaged
from ..container.viewers import RANGE, image_attrs
from ..container.writer import write_image
from ..errors import ConflictError, CorruptFileError, WrongValueError
from ..integrity import digest
from ..links import absolute_location
from ..parts import MemoryPart, Part, StoredPart
from ..stored import from_group
from ..writing import group_of, relative_links
from .damage import DAMAGE, Extent, Fault, Survey, reason_of, survey_file

LOST_PLANE = "LOST"
"""Plane of a mask that is set in pixels of which the mask itself was lost, and which have no other."""

MAX_EXTENTS = 1000
"""A component with more damaged parts than these isn't kept in part: nobody could keep account of them."""

_ATTRIBUTES = (
    "definition", "definition_version", "data_id", "dataset_type", "run", "stage", "id", "provenance", "_absent",
    "_signal",
)  # fmt: skip


@dataclass(frozen=True)
class Lost:
    """Something that isn't, or only in part, in the new file.

    Attributes
    ----------
    composite, component : str
        Name of the composite in the file, and of the component; empty if the composite itself is meant: all of it,
        some of its attributes, or what it was made of.
    reason : str
        What was found.
    extents : tuple of Extent
        Which parts are damaged.
    kept : str
        What was kept of it nevertheless; empty if nothing was.
    """

    composite: str
    component: str
    reason: str
    extents: tuple[Extent, ...] = ()
    kept: str = ""


@dataclass(frozen=True)
class Rescue:
    """What was saved of a file.

    Attributes
    ----------
    source, target : str
        The damaged file, and the new one.
    damage : str
        What is wrong with the file as a whole; empty if HDF5 can open it.
    saved : tuple of str
        The components that are as they were, links included: ``<composite>/<component>``.
    lost : tuple of Lost
        What isn't.
    """

    source: str
    target: str
    damage: str
    saved: tuple[str, ...]
    lost: tuple[Lost, ...]


def rescue(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    partial: bool = False,
    replace: bool = False,
    isolated: bool = False,
    limits: Limits = LIMITS,
) -> Rescue:
    """Write a new file with everything of a damaged one that is still provably good.

    These are the stored components whose content has the digest that was recorded, and the links. Files that were cut
    off, or whose first bytes are damaged, can be read too: small components are at the front. Composites keep their
    ids, so that links of others to what was saved find it in the new file. Each that lost something says so: in
    `Composite.lost`, and in its provenance under ``"rescued"``. One that lost nothing is as it was.

    Parameters
    ----------
    source : path
        The file. It isn't changed.
    target : path
        The file to write; missing folders are made.
    partial : bool, optional
        Whether parts of damaged components are kept, as far as they are in chunks whose checksums are right. Of an
        image the pixels, and NaN for those that are lost (integers of up to 32 bits become floats that hold them
        exactly; images of 64-bit integers aren't kept); of a mask the pixels, with the plane ``LOST`` set in those
        that are lost; of a table the columns that are whole. Their digests are new ones.
    replace : bool, optional
        Whether another file at the target is replaced.
    isolated, limits : optional
        How the damaged file is read, as for `compositeh5.open`: one that may be made to break HDF5, in a process of
        its own.

    Returns
    -------
    Rescue
        What was saved, and what wasn't.

    Raises
    ------
    CorruptFileError
        If nothing can be saved. No file is written.
    NotACompositeFileError, UnsupportedVersionError
        If it isn't a file of this format, or of a newer one.
    ConflictError
        If there is a file at the target (a `FileExistsError`), or it is the source. It is untouched.
    OSError
        If the source can't be opened, or the new file not be written; nothing is left behind.
    """
    location, place = absolute_location(source), absolute_location(target)
    if "://" in location or "://" in place:
        raise WrongValueError(
            f"{location if '://' in location else place}: only files on disk can be rescued; fetch it"
        )
    if os.path.realpath(location) == os.path.realpath(place):
        raise ConflictError(f"{place}: is the damaged file itself, of which others may still get more")
    with _surveyed(location, Access(isolated=isolated, limits=limits)) as (surveys, unread, damage):
        lost = [Lost(name, "", fault.reason, fault.extents) for name, fault in unread.items()]
        groups: dict[str, tuple[str, GroupNode]] = {}
        for name, survey in surveys.items():
            composite, missing = _rescued(survey, location, partial)
            lost.extend(dataclasses.replace(item, composite=name) for item in missing)
            if composite is not None:
                group = _moved(group_of(composite), location, place)
                groups[name] = group.attr("id", str), group
        if not groups:
            reasons = "; ".join(dict.fromkeys([damage, *(item.reason for item in lost)])).removeprefix("; ")
            raise CorruptFileError(f"{location}: nothing of it can be rescued: {reasons}")
        root = relative_links(file_root(groups), place)
        make_folders(os.path.dirname(place))
        try:
            publish(place, functools.partial(write_image, root), replace=replace)
        except FileExistsError as error:
            raise ConflictError(f"{place}: is there already; choose another path, or pass replace=True") from error
        saved = [f"{name}/{component}" for name, survey in surveys.items() for component in survey.good()]
    return Rescue(location, place, damage, tuple(saved), tuple(lost))


def _rescued(survey: Survey, location: str, partial: bool) -> tuple[Composite | None, list[Lost]]:
    """Return a composite of what is good, None if nothing is; and what is lost."""
    lost: list[Lost] = []
    parts = dict(survey.parts)
    for name, inner in survey.nested.items():
        composite, missing = _rescued(inner, location, partial)
        lost.extend(
            dataclasses.replace(item, component=f"{name}/{item.component}".removesuffix("/")) for item in missing
        )
        if composite is not None:
            parts[name] = MemoryPart(composite, "composite", composite.stage)
        elif not any(item.component == name for item in lost):
            lost.append(Lost("", name, f"{inner.group.where}: nothing of it is good"))
    for fault in survey.faults:
        found = _kept(survey.group, fault) if partial and fault.component else None
        if found is not None:
            parts[fault.component] = found[0]
        lost.append(Lost("", fault.component, fault.reason, fault.extents, "" if found is None else found[1]))
    if not parts and lost:
        return None, lost
    stored, result = from_group(survey.group, location, access_of(survey.group)), Composite()
    for name in _ATTRIBUTES:
        try:
            setattr(result, name, getattr(stored, name))
        except DAMAGE as error:
            lost.append(Lost("", "", reason_of(error), (Extent(f"{survey.group.path}@{name.removeprefix('_')}"),)))
    result._parts = {name: parts[name] for name in survey.group if name in parts}
    if lost:
        result.provenance["rescued"] = _record(result, lost, location)
    return result, lost


def _record(composite: Composite, lost: list[Lost], location: str) -> dict[str, Any]:
    """Return what provenance says of a rescue, with what it says of an earlier one; see ``specs/format.md``."""

    def reason(item: Lost) -> str:
        # Folders are nobody's business.
        return item.reason.replace(location, os.path.basename(location))

    own = [item for item in lost if "/" not in item.component]
    changes = [reason(item) for item in own if not item.component]
    record: dict[str, Any] = {
        "source": os.path.basename(location),
        "software": f"compositeh5 {__version__}",
        "lost": {
            **composite.lost,
            **{item.component: reason(item) for item in own if item.component and not item.kept},
        },
        "partial": {
            item.component: {
                "kept": item.kept,
                "reason": reason(item),
                "extents": [{"path": extent.path, "box": extent.box} for extent in item.extents],
            }
            for item in own
            if item.kept
        },
        "composite": changes,
    }
    earlier = composite.provenance.get("rescued")
    if isinstance(earlier, dict) and isinstance(earlier.get("partial"), dict):
        record["partial"] = {**earlier["partial"], **record["partial"]}
    return {key: value for key, value in record.items() if value}


@contextmanager
def _surveyed(location: str, access: Access) -> Iterator[tuple[dict[str, Survey], dict[str, Fault], str]]:
    """Open a file, and return what it still has, what it hasn't, and what is wrong with all of it."""
    with ExitStack() as stack:
        try:
            file, damage = stack.enter_context(salvaged(location, access.kind, access.limits))
            surveys, unread = survey_file(file, location)
        except CorruptFileError as error:
            raise CorruptFileError(f"{location}: nothing of it can be rescued: {error}") from error
        yield surveys, unread, damage


# ---- Components of which a part is good ---------------------------------------------------------------------


def _kept(group: GroupNode, fault: Fault) -> tuple[Part, str] | None:
    """Return a component with what is good of it, and what that is; None if that can't be told, or is nothing."""
    if len(fault.extents) > MAX_EXTENTS:
        return None
    try:
        node = group[fault.component]
        kind = node.attr("kind", str)
        result: tuple[Array | Group, str] | None = None
        if kind in ("image", "mask") and isinstance(node, FileArray):
            result = _kept_pixels(node, kind, fault.extents)
        elif kind == "table" and isinstance(node, GroupNode):
            result = _kept_columns(node, fault.extents)
        if result is None:
            return None
        # What is kept must be right by itself.
        kinds.decode(result[0])
    except (*DAMAGE, ValueError):
        return None
    attrs = {name: value for name, value in result[0].attrs.items() if name not in ("digest", ORIGIN, RANGE)}
    shown = image_attrs(result[0]) if isinstance(result[0], ArrayNode) else {}
    result[0].attrs = {**attrs, **shown, "digest": ""}
    result[0].attrs["digest"] = digest(result[0])
    return StoredPart(result[0]), result[1]


def _kept_pixels(node: FileArray, kind: str, extents: tuple[Extent, ...]) -> tuple[Array, str] | None:
    pieces = node.pieces()
    boxes = [tuple(slice(*limits) for limits in extent.box) for extent in extents]
    if pieces is None or not all(boxes) or (kind == "image" and node.dtype.kind in "iu" and node.dtype.itemsize > 4):
        # Without checksums, or with right ones and a wrong digest, nothing tells good pixels from bad ones.
        return None
    is_lost = np.zeros(node.shape, bool)
    for box in boxes:
        is_lost[box] = True
    if is_lost.all():
        return None
    values = np.zeros(node.shape, node.dtype)
    for piece in pieces:
        if not is_lost[piece].any():
            values[piece] = node.read(piece)
    kept = f"{1 - is_lost.mean():.1%} of the pixels"
    if kind == "mask":
        mask = kinds.decode(Array(values, dict(node.attrs)))
        if LOST_PLANE not in mask.planes:
            mask.add(LOST_PLANE, "the mask of this pixel was lost to damage")
        mask.array[is_lost] = mask.bits(LOST_PLANE)
        encoded = kinds.encode(mask, kind)
        return Array(mask.array, {**node.attrs, **encoded.attrs}), f"{kept}; the others have the plane {LOST_PLANE}"
    # Floats that hold all integers of up to 32 bits exactly.
    values = values.astype(np.promote_types(node.dtype, np.float32), copy=False)
    values[is_lost] = np.nan
    return Array(values, dict(node.attrs)), f"{kept}; the others are NaN"


def _kept_columns(node: GroupNode, extents: tuple[Extent, ...]) -> tuple[Group, str] | None:
    prefix = f"{getattr(node, 'path', '')}/"
    damaged = {extent.path.removeprefix(prefix).partition("/")[0] for extent in extents}
    listed = node.array("@columns", 1, "U")
    columns = [link for link in listed.read().tolist() if link not in damaged]
    if not columns or not all(extent.path.startswith(prefix) for extent in extents):
        return None
    children: dict[str, Node] = {"@columns": Array(np.array(columns, np.str_), dict(listed.attrs), listed.where)}
    # Those of the format, such as metadata of the table, are needed; what can't be read of them is an error.
    children |= {name: node[name] for name in node if name in columns or (name[0] == "@" and name not in children)}
    left = ", ".join(sorted(unescape_name(name) for name in damaged))
    return Group(children, dict(node.attrs), node.where), f"{len(columns)} columns; without {left}"


# ---- The new file -------------------------------------------------------------------------------------------


def _moved(group: Group, source: str, target: str) -> Group:
    """Return the tree with links from one composite of the file to another leading to the new file."""

    def moved(node: Node) -> Node:
        if isinstance(node, ExternalLink) and node.file == source:
            return dataclasses.replace(node, file=target)
        return _moved(node, source, target) if isinstance(node, Group) else node

    return dataclasses.replace(group, children={name: moved(child) for name, child in group.children.items()})
