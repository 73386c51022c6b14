"""Writing a new file with those components of a damaged one that verify."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from .._version import __version__
from ..composite.composite import Composite
from ..composite.encoding import composite_node
from ..composite.opening import stored_composite
from ..composite.parts import Part, StoredPart
from ..composite.session import Session, current
from ..composite.writing import relative_links
from ..errors import CompositeH5Error, ConflictError, CorruptFileError, WrongValueError
from ..storage.layout import check_file, composite_group, composite_names, file_root, is_copy
from ..storage.limits import Limits
from ..storage.locations import absolute_location
from ..storage.nodes import GroupNode
from ..storage.publish import make_folders, publish
from ..storage.reader import StoredFile
from ..storage.writer import write_image
from .verify import check_composite_digest, stored_content

_DAMAGE = (OSError, CompositeH5Error, MemoryError)
"""What reading a damaged file raises."""

_ATTRIBUTES = (
    "definition", "definition_version", "data_id", "dataset_type", "run", "stage", "id", "provenance", "absent",
    "signal",
)  # fmt: skip


@dataclass(frozen=True)
class Rescue:
    """What was saved of a file.

    Attributes
    ----------
    source, target : str
        The damaged file, and the new one.
    saved : tuple of str
        The components that are as they were, links included: ``<composite>/<component>``.
    lost : dict of str to str
        The others, and why; ``<composite>`` alone where something of the composite itself is meant.
    """

    source: str
    target: str
    saved: tuple[str, ...]
    lost: dict[str, str]


def rescue(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    limits: Limits | None = None,
) -> Rescue:
    """Write a new file with all components of a damaged one that verify.

    These are the stored components whose content has the digest that was recorded, and the links. Composites keep
    their ids, so that links of others to what was saved find it in the new file. Each that lost something says so: in
    `Composite.lost`, and in its provenance under ``"rescued"``. One that lost nothing is as it was.

    Parameters
    ----------
    source : path
        The file; HDF5 must be able to open it. It isn't changed.
    target : path
        The file to write; missing folders are made.
    replace : bool, optional
        Whether another file at the target is replaced.
    limits : Limits, optional
        What the damaged file may ask for, as for `compositeh5.open`.

    Returns
    -------
    Rescue
        What was saved, and what wasn't.

    Raises
    ------
    CorruptFileError
        If the source can't be opened, for it was cut off or its beginning is damaged, or nothing of it verifies. No
        file is written.
    NotACompositeFileError, UnsupportedVersionError
        If it isn't a file of this format, or of a newer one.
    ConflictError
        If there is a file at the target (a `FileExistsError`), or it is the source. It is untouched.
    OSError
        If the source can't be read, or the new file not be written; nothing is left behind.
    """
    location, place = absolute_location(source), absolute_location(target)
    session = current().with_policy(limits=limits)
    if "://" in location or "://" in place:
        raise WrongValueError(
            f"{location if '://' in location else place}: only files on disk can be rescued; fetch it"
        )
    if os.path.realpath(location) == os.path.realpath(place):
        raise ConflictError(f"{place}: is the damaged file itself, of which others may still get more")
    with closing(_opened(location, session)) as file:
        groups: dict[str, tuple[str, GroupNode]] = {}
        saved: list[str] = []
        lost: dict[str, str] = {}
        default = file.root.attr("default", str, "")
        for name in sorted(composite_names(file), key=lambda name: name != default):
            composite, missing = _rescued(file, name, location)
            lost |= {f"{name}/{component}".removesuffix("/"): reason for component, reason in missing.items()}
            if composite is not None:
                saved += (f"{name}/{component}" for component in composite)
                group = composite_node(composite)
                groups[name] = group.attr("id", str), group
        if not groups:
            reasons = "; ".join(dict.fromkeys(lost.values()))
            raise CorruptFileError(f"{location}: nothing of it can be rescued: {reasons}")
        root = relative_links(file_root(groups), place, location)
        make_folders(os.path.dirname(place))
        try:
            publish(place, partial(write_image, root), replace=replace)
        except FileExistsError as error:
            raise ConflictError(f"{place}: is there already; choose another path, or pass replace=True") from error
    return Rescue(location, place, tuple(saved), lost)


def _opened(location: str, session: Session) -> StoredFile:
    try:
        file = session.open(location)
        try:
            if not is_copy(file):
                check_file(file)
        except BaseException:
            file.close()
            raise
    except CorruptFileError as error:
        raise CorruptFileError(f"{location}: nothing of it can be rescued, for it can't be opened: {error}") from error
    return file


def _rescued(file: StoredFile, name: str, location: str) -> tuple[Composite | None, dict[str, str]]:
    """Return a composite of what verifies, None if nothing does; and why each other component doesn't.

    The name of a component is empty where something of the composite itself is meant.
    """
    lost: dict[str, str] = {}
    parts: dict[str, Part] = {}
    try:
        group = composite_group(file, name)
        stored = stored_composite(group, location)
        for component in group:
            try:
                parts[component] = _verified(component, stored)
            except _DAMAGE as error:
                lost[component] = _reason(error)
        if not lost:
            check_composite_digest(stored, group.where)
    except _DAMAGE as error:
        lost[""] = _reason(error)
    if lost and not parts:
        return None, lost
    result = Composite().with_parts(parts)
    for attribute in _ATTRIBUTES:
        try:
            setattr(result, attribute, getattr(stored, attribute))
        except _DAMAGE as error:
            lost[""] = "; ".join(dict.fromkeys([*filter(None, [lost.get("")]), _reason(error)]))
    if lost:
        result.provenance["rescued"] = _record(result, lost, location)
    return result, lost


def _verified(component: str, composite: Composite) -> Part:
    """Return a component if it is a link, or all its content is what was written."""
    part = composite.part(component)
    if isinstance(part, StoredPart):
        for _, error in stored_content(component, part.node, composite.location):
            if error is not None:
                raise error
    return part


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _record(composite: Composite, lost: dict[str, str], location: str) -> dict[str, Any]:
    """Return what provenance says of a rescue, with what it says of an earlier one; see ``specs/format.md``."""
    # Folders are nobody's business.
    reasons = {name: reason.replace(location, os.path.basename(location)) for name, reason in lost.items()}
    own = reasons.pop("", None)
    record: dict[str, Any] = {
        "source": os.path.basename(location),
        "software": f"compositeh5 {__version__}",
        "lost": {**composite.lost, **reasons},
        "composite": [own] if own else [],
    }
    return {key: value for key, value in record.items() if value}
