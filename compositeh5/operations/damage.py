"""Which components of a file that may be damaged are still what was written, and which parts of the others are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..access import access_of
from ..composite import Composite
from ..container.files import FileArray, FileGroup, OpenFile
from ..container.layout import composite_names, file_format, is_copy
from ..container.nodes import ExternalLink, GroupNode, Node, Selection
from ..errors import CompositeH5Error, CorruptFileError, DigestMismatchError
from ..integrity import check_digest, read_json
from ..parts import LIST, Part, StoredPart, linked_part
from ..stored import from_group

DAMAGE = (OSError, CompositeH5Error, MemoryError)
"""What reading a damaged file raises."""

MAX_PIECES = 2**16
"""Of an array in more pieces than these, nobody tells which are damaged."""

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Extent:
    """A part of a component that is damaged.

    Attributes
    ----------
    path : str
        HDF5 path of the array, or of the object of which nothing can be read.
    box : tuple of (int, int)
        Along each axis of the array the first index, and the one after the last; empty if all of it is meant.
    reason : str
        What was found.
    """

    path: str
    box: Box = ()
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.path}[{', '.join(f'{first}:{last}' for first, last in self.box)}]" if self.box else self.path


@dataclass(frozen=True)
class Fault:
    """A component that isn't, or can't be shown to be, what was written.

    Attributes
    ----------
    component : str
        Its name, with the names that lead to it within a nested composite; empty for the composite itself.
    reason : str
        What was expected, and what was found.
    extents : tuple of Extent
        Which parts of it are damaged.
    """

    component: str
    reason: str
    extents: tuple[Extent, ...] = ()


@dataclass
class Survey:
    """What a composite of a file still has.

    Attributes
    ----------
    group : FileGroup
        Its group.
    parts : dict of str to Part
        The components that are as they were written: stored ones whose content has its digest, and links.
    nested : dict of str to Survey
        Those components that are composites, of which not everything is as it was.
    faults : list of Fault
        What is wrong with the others.
    """

    group: FileGroup
    parts: dict[str, Part] = field(default_factory=dict)
    nested: dict[str, Survey] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def good(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the components that are as they were written, with those that lead to them."""
        yield from (f"{prefix}{name}" for name in self.parts)
        for name, inner in self.nested.items():
            yield from inner.good(f"{prefix}{name}/")

    def all_faults(self, prefix: str = "") -> Iterator[Fault]:
        """Yield what is wrong, also in nested composites."""
        for fault in self.faults:
            yield Fault(f"{prefix}{fault.component}".removesuffix("/"), fault.reason, fault.extents)
        for name, inner in self.nested.items():
            yield from inner.all_faults(f"{prefix}{name}/")


def survey_file(file: OpenFile, location: str) -> tuple[dict[str, Survey], dict[str, Fault]]:
    """Read all that a file stores.

    Parameters
    ----------
    file : OpenFile
        The file.
    location : str
        Where it is; links are relative to it.

    Returns
    -------
    surveys : dict
        What there is of each composite, by its name; the default one first.
    faults : dict
        Why nothing can be read of others.

    Raises
    ------
    OSError, CompositeH5Error
        If it isn't a file of this format, or the root group, from which all others are reached, is damaged.
    """
    try:
        if not is_copy(file):
            file_format(file)
    except CorruptFileError:
        # Without the mark of completion; checksums and digests tell what there is.
        if "complete" not in file.root.attrs:
            raise
    default = file.root.attr("default", str, "")
    surveys: dict[str, Survey] = {}
    faults: dict[str, Fault] = {}
    for name in sorted(composite_names(file), key=lambda name: name != default):
        try:
            group = file.root.group(name)
            assert isinstance(group, FileGroup)
            surveys[name] = survey(group, location)
        except DAMAGE as error:
            faults[name] = Fault("", reason_of(error), (Extent(f"/{name}", reason=reason_of(error)),))
    return surveys, faults


def survey(group: FileGroup, location: str) -> Survey:
    """Read all that a composite stores.

    Raises
    ------
    OSError, CompositeH5Error
        If the group isn't a composite, or can't be read.
    """
    access = access_of(group)
    composite = from_group(group, location, access)
    found = Survey(group)
    try:
        records = read_json(group, "links", dict)
    except DAMAGE as error:
        records = {}
        found.faults.append(Fault("", reason_of(error), (Extent(f"{group.path}@links"),)))
    for name in group:
        try:
            node = group[name]
            if isinstance(node, ExternalLink):
                found.parts[name] = linked_part(node, records.get(name), location, access)
            elif node.attr("kind", str, "") == "composite" and isinstance(node, FileGroup):
                found.nested[name] = inner = survey(node, location)
                if not inner.faults and not inner.nested:
                    found.parts[name] = StoredPart(found.nested.pop(name).group, location, access)
            else:
                check_content(node, location)
                found.parts[name] = StoredPart(node, location, access)
        except DAMAGE as error:
            found.faults.append(Fault(name, reason_of(error), tuple(damaged_extents(group, name))))
    if not found.faults and not found.nested:
        try:
            check_composite_digest(composite, group.where)
        except DAMAGE as error:
            found.faults.append(Fault("", reason_of(error), (Extent(group.path),)))
    return found


def check_composite_digest(composite: Composite, where: str | None) -> None:
    """Raise `DigestMismatchError` unless a composite has the components and attributes that were written."""
    if composite.digest != composite.recorded_digest:
        raise DigestMismatchError(
            f"{where}: the composite has digest {composite.digest}, but {composite.recorded_digest} was recorded: "
            f"a component or an attribute was added, removed, renamed or changed"
        )


def check_content(node: Node, location: str) -> None:
    """Raise an error unless a stored component, which isn't a composite, has the content that was written.

    Raises
    ------
    DigestMismatchError
        If it has another.
    OSError, CompositeH5Error
        If it can't be read.
    """
    check_digest(node)
    for path, item in composites_in("", node):
        # The digest of a list stands on what these record.
        for fault in survey(item, location).all_faults():
            raise CorruptFileError(f"{node.where}{path}: {fault.reason}")


def composites_in(path: str, node: Node) -> Iterator[tuple[str, FileGroup]]:
    """Yield the composites in a list, and in the lists in it, with the paths that lead to them."""
    if isinstance(node, GroupNode) and node.attr("kind", str, "") == LIST:
        for name, child in node.items():
            if child.attr("kind", str, "") == "composite" and isinstance(child, FileGroup):
                yield f"{path}/{name}", child
            else:
                yield from composites_in(f"{path}/{name}", child)


def damaged_extents(group: FileGroup, name: str) -> Iterator[Extent]:
    """Yield which parts of a child of a group are damaged, all of it if its checksums don't tell."""
    path = f"{group.path.rstrip('/')}/{name}"
    found = list(_unreadable(group, name, path))
    yield from found or [Extent(path, reason="all checksums are right, but not the digest: it was changed afterwards")]


def _unreadable(group: FileGroup, name: str, path: str) -> Iterator[Extent]:
    try:
        node = group[name]
        # Attributes are read on demand.
        dict(node.attrs)
        names = list(node) if isinstance(node, FileGroup) else []
        pieces = node.pieces() if isinstance(node, FileArray) else None
    except DAMAGE as error:
        yield Extent(path, reason=reason_of(error))
        return
    if isinstance(node, FileGroup):
        for child in names:
            yield from _unreadable(node, child, f"{path}/{child}")
    elif isinstance(node, FileArray):
        yield from _unreadable_pieces(node, path, pieces)


def _unreadable_pieces(node: FileArray, path: str, pieces: Iterator[Selection] | None) -> Iterator[Extent]:
    boxes: dict[Box, str] = {}
    for count, piece in enumerate(((),) if pieces is None else pieces):
        if count == MAX_PIECES:
            yield Extent(path, reason=f"it has more than {MAX_PIECES} pieces")
            return
        try:
            node.read(piece)
        except DAMAGE as error:
            boxes[tuple((part.start, part.stop) for part in piece)] = reason_of(error)
    for box, reasons in joined(boxes).items():
        yield Extent(path, box, reasons[0] if len(reasons) == 1 else f"{len(reasons)} pieces, such as: {reasons[0]}")


def joined(boxes: Mapping[Box, str]) -> dict[Box, list[str]]:
    """Return boxes put together where they touch along a whole side, with what was said of each of them."""
    found = {box: [reason] for box, reason in boxes.items()}
    for axis in reversed(range(len(next(iter(boxes), ())))):

        def others(box: Box, axis: int = axis) -> tuple[Box, tuple[int, int]]:
            return (*box[:axis], *box[axis + 1 :]), box[axis]

        previous: Box | None = None
        for box in sorted(found, key=others):
            if previous and others(previous)[0] == others(box)[0] and previous[axis][1] == box[axis][0]:
                whole = (*box[:axis], (previous[axis][0], box[axis][1]), *box[axis + 1 :])
                found[whole] = found.pop(previous) + found.pop(box)
                previous = whole
            else:
                previous = box
    return dict(sorted(found.items()))


def reason_of(error: BaseException) -> str:
    """Return what an error says; of one that says nothing, what it is."""
    return str(error) or type(error).__name__
