"""How two components of a kind differ, in the words of the kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import export, kinds
from ..container.names import unescape_name
from ..container.nodes import ArrayNode, GroupNode, Node
from ..container.reader import StoredGroup
from ..errors import BrokenLinkError, CompositeH5Error, DigestMismatchError
from ..geometry import Box
from ..integrity import digest
from ..kinds._values import decode_value, value_shape
from ..kinds.mask import Mask, MaskPlane
from ..lazy import LazyArray
from ..parts import LinkedPart, ListPart, Part, StoredPart, list_part
from .differences import (
    Difference,
    blocks,
    compare_attributes,
    compare_shapes,
    compare_trees,
    compare_types,
    described,
    part_of,
    sizes_of,
    unequal,
)

_GRID = 11
_CARD = 80

Compare = Callable[[str, Any, Any], Iterator[Difference]]


def diff_values(kind: str, a: Any, b: Any) -> tuple[Difference, ...]:
    """Return how two values of a kind differ; nothing if they are identical.

    Parameters
    ----------
    kind : str
        Name of the kind.
    a, b : object
        The values.

    Raises
    ------
    UnknownKindError
        If there is no such kind.
    EncodeError
        If one of the values isn't of it.
    """
    return diff_nodes(kinds.encode(a, kind), kinds.encode(b, kind))


def diff_nodes(a: Node, b: Node) -> tuple[Difference, ...]:
    """Return how the nodes of two components differ; nothing if they are identical.

    Nodes of a kind that isn't known are compared dataset by dataset.

    Raises
    ------
    CompositeH5Error
        If one can't be read.
    """
    return tuple(_components("", a, b))


def compare_parts(name: str, a: Part, b: Part) -> Iterator[Difference]:
    """Compare two components, of which one may be linked or have links within it."""
    if isinstance(a, LinkedPart) and isinstance(b, LinkedPart) and a.link.digest == b.link.digest:
        return
    if a.kind == b.kind and (isinstance(a, ListPart) or isinstance(b, ListPart)):
        yield from _items(name, *(_list(part).items for part in (a, b)))
        return
    with ExitStack() as stack:
        nodes = []
        for part, side in ((a, "A"), (b, "B")):
            try:
                node, target = part.open_node()
            except (BrokenLinkError, DigestMismatchError) as error:
                yield Difference(name or "content", note=f"lost in {side}: {error}")
                return
            if target is not None:
                stack.callback(target.close)
            nodes.append(node)
        yield from _components(name, *nodes)


def _components(name: str, a: Node, b: Node) -> Iterator[Difference]:
    kind, other = (str(node.attrs.get("kind", "")) for node in (a, b))
    if kind != other:
        yield unequal(part_of(name, "kind"), kind, other)
        return
    node_type, compare = _KINDS.get(kind, (Node, compare_trees))
    fits = isinstance(a, node_type) and isinstance(b, node_type)
    yield from (compare if fits else compare_trees)(name, a, b)


# ---- Kinds -------------------------------------------------------------------------------------------------


def _masks(name: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    yield from compare_attributes(name, a, b, ("planes",))
    yield from compare_types(name, a, b)
    planes, others = _planes(a), _planes(b)
    for plane in dict.fromkeys([*planes, *others]):
        one, other = planes.get(plane), others.get(plane)
        if one != other:
            yield unequal(part_of(name, f"plane {plane}"), one, other, _plane_text)
    yield from compare_shapes(name, a, b)
    if a.shape == b.shape:
        yield from _plane_pixels(name, a, b, planes, others)


def _plane_pixels(
    name: str, a: ArrayNode, b: ArrayNode, planes: Mapping[str, MaskPlane], others: Mapping[str, MaskPlane]
) -> Iterator[Difference]:
    names = dict.fromkeys([*planes, *others])
    bits = {plane: tuple(p[plane].bit if plane in p else None for p in (planes, others)) for plane in names}
    named = [np.uint64(sum(1 << plane.bit for plane in p.values())) for p in (planes, others)]
    same_bits = all(one == other for one, other in bits.values())
    only: dict[str, list[int]] = {}
    for _, *values in blocks(a, b):
        # Sign-extended, so that the same integer has the same bits in every type.
        x, y = (v.astype(np.int64).view(np.uint64) for v in values)
        if same_bits:
            chosen = x != y
            x, y = x[chosen], y[chosen]
        flags = {plane: (_bit(x, one), _bit(y, other)) for plane, (one, other) in bits.items()}
        for plane, (in_a, in_b) in flags.items():
            counts = only.setdefault(f"plane {plane} pixels", [0, 0])
            counts[0] += int((in_a & ~in_b).sum())
            counts[1] += int((in_b & ~in_a).sum())
        counts = only.setdefault("bits without a plane", [0, 0])
        counts[0] += int((x & ~named[0] != y & ~named[1]).sum())
    total = int(np.prod(a.shape, dtype=np.int64))
    for what, (left, right) in only.items():
        if left or right:
            note = "" if what.startswith("bits") else f"{left} set only in A, {right} only in B"
            yield Difference(part_of(name, what), count=left + right, total=total, note=note)


def _planes(node: ArrayNode) -> Mapping[str, MaskPlane]:
    y0, x0 = LazyArray(node).origin
    mask: Mask = kinds.decode(node, box=Box(y0, y0, x0, x0))
    return mask.planes


def _plane_text(plane: MaskPlane) -> str:
    return f"bit {plane.bit} {plane.description}".rstrip()


def _bit(values: NDArray[np.uint64], bit: int | None) -> NDArray[np.bool_]:
    return np.zeros(values.shape, bool) if bit is None else np.asarray((values >> np.uint64(bit)) & np.uint64(1) != 0)


def _wcs(name: str, a: Node, b: Node) -> Iterator[Difference]:
    headers = [node.array("header") if isinstance(node, GroupNode) else node for node in (a, b)]
    cards = [str(header.read()).split("\n") for header in headers if isinstance(header, ArrayNode)]
    # What counts comes first.
    yield from _shift(part_of(name, "sky"), kinds.decode(a), kinds.decode(b))
    yield from _cards(name, *cards)
    yield from compare_attributes(name, a, b)
    tables = [dict(node) if isinstance(node, GroupNode) else {} for node in (a, b)]
    for table in sorted({*tables[0], *tables[1]} - {"header"}):
        one, other = (side.get(table) for side in tables)
        if one is None or other is None:
            yield unequal(part_of(name, table), one, other, described)
        else:
            yield from compare_trees(part_of(name, table), one, other)


def _shift(what: str, a: Any, b: Any) -> Iterator[Difference]:
    """Compare where two WCS put the pixels of a grid over the image, or where its size isn't known, around CRPIX."""
    if not (a.naxis == b.naxis == 2 and a.has_celestial and b.has_celestial):
        return
    shape = a.pixel_shape or b.pixel_shape
    limits = [(0, n - 1) for n in shape] if shape else [(at - 500, at + 500) for at in a.wcs.crpix.tolist()]
    x, y = np.meshgrid(*(np.round(np.linspace(low, high, _GRID)) for low, high in limits))
    try:
        shifts = a.pixel_to_world(x, y).separation(b.pixel_to_world(x, y)).arcsec
    except Exception:  # astropy and wcslib raise whatever comes up; the cards tell the difference
        return
    if np.isfinite(shifts).any() and np.nanmax(shifts) > 0:
        row, column = np.unravel_index(int(np.nanargmax(shifts)), shifts.shape)
        at = int(y[row, column]), int(x[row, column])
        note = f"on a grid of {_GRID} x {_GRID} pixels"
        yield Difference(what, largest=float(shifts[row, column]), at=at, note=note)


def _cards(name: str, a: list[str], b: list[str]) -> Iterator[Difference]:
    """Compare the cards of two FITS headers, whatever their order; say if only that differs."""
    removed, added = Counter(a) - Counter(b), Counter(b) - Counter(a)
    by_keyword: dict[str, list[str]] = {}
    for card in added.elements():
        by_keyword.setdefault(_keyword(card), []).append(card)
    for card in removed.elements():
        keyword = _keyword(card)
        others = by_keyword.get(keyword)
        yield unequal(part_of(name, keyword), card, others.pop(0) if others else None, _content)
    for keyword, cards in by_keyword.items():
        for card in cards:
            yield unequal(part_of(name, keyword), None, card, _content)
    if not removed and not added and a != b:
        first = next(i for i, cards in enumerate(zip(a, b, strict=True)) if cards[0] != cards[1])
        yield Difference(
            part_of(name, "order of cards"), _keyword(a[first]), _keyword(b[first]), note=f"card {first + 1}"
        )


def _keyword(card: str) -> str:
    is_long = card.startswith("HIERARCH ")
    return (card.partition("=")[0] if is_long else card[:8]).strip() or "(no keyword)"


def _content(card: str) -> str:
    is_long = card.startswith("HIERARCH ")
    return (card.partition("=")[2] if is_long else card[8:].removeprefix("=")).strip()


def _texts(name: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    yield from compare_attributes(name, a, b)
    yield from _lines(name, str(a.read()), str(b.read()))


def _lines(name: str, a: str, b: str) -> Iterator[Difference]:
    one, other = a.split("\n"), b.split("\n")
    if all(len(line) == _CARD for line in (*one, *other)):
        yield from _cards(name, one, other)
        return
    for tag, i, i_end, j, j_end in SequenceMatcher(None, one, other).get_opcodes():
        if tag != "equal":
            for k in range(max(i_end - i, j_end - j)):
                left = one[i + k] if i + k < i_end else None
                right = other[j + k] if j + k < j_end else None
                number = (j if left is None else i) + k + 1
                yield unequal(part_of(name, f"line {number}"), left, right)


def _tables(name: str, a: GroupNode, b: GroupNode) -> Iterator[Difference]:
    yield from compare_attributes(name, a, b)
    links, others = (node.array("@columns", 1, "U").read().tolist() for node in (a, b))
    for link in dict.fromkeys([*links, *others]):
        column = part_of(name, f"column {unescape_name(link, a.where)}")
        if link not in links or link not in others:
            yield unequal(column, a.get(link), b.get(link), described)
        elif a.attrs.get("rows") == b.attrs.get("rows"):
            yield from _typed(column, a[link], b[link])
        else:
            # Which rows belong together isn't known.
            yield from compare_trees(column, a[link], b[link], values=False)
    order, other_order = ([link for link in side if link in links and link in others] for side in (links, others))
    if order != other_order:
        yield Difference(part_of(name, "order of columns"), ", ".join(order), ", ".join(other_order))
    for part, label in (("@meta", "meta"), ("@column_meta", "column meta")):
        if part in a or part in b:
            yield from _typed(part_of(name, label), a.get(part), b.get(part))


def _typed(name: str, a: Node | None, b: Node | None) -> Iterator[Difference]:
    """Compare typed values: fields and items one by one, arrays by their elements, others as text."""
    if a is None or b is None:
        yield unequal(name, a, b, _shown)
        return
    types = [str(node.attrs.get("type", "")) for node in (a, b)]
    nested = types[0] == types[1] and types[0] in ("record", "list", "tuple")
    if nested and isinstance(a, GroupNode) and isinstance(b, GroupNode):
        yield from compare_attributes(name, a, b)
        for link in dict.fromkeys([*a, *b]):
            child = unescape_name(link, a.where)
            path = child if not name else f"{name}.{child}" if types[0] == "record" else f"{name}[{child}]"
            yield from _typed(path, a.get(link), b.get(link))
    elif types == ["str", "str"] and any("\n" in decode_value(node) for node in (a, b)):
        yield from _lines(name, decode_value(a), decode_value(b))
    elif types[0] == types[1] and _has_axes(a) and _has_axes(b):
        yield from compare_trees(name, a, b)
    elif digest(a) != digest(b):
        texts = _shown(a), _shown(b)
        if types[0] != types[1] and "none" not in types:
            yield Difference(name or "value", f"{texts[0]} ({types[0]})", f"{texts[1]} ({types[1]})")
        elif texts[0] == texts[1]:
            # What text doesn't show: the last bits, or settings.
            yield from compare_trees(name, a, b)
        else:
            yield Difference(name or "value", *texts, largest=_scalar_difference(a, b))


def _has_axes(node: Node) -> bool:
    try:
        return value_shape(node) != ()
    except CompositeH5Error:
        return False


def _shown(node: Node) -> str:
    """Return a typed value as one line of text."""
    if node.attr("type", str, "") == "none":
        return "None"
    if _has_axes(node):
        return described(node)
    try:
        text = export.to_text(decode_value(node), "record")
    except CompositeH5Error as error:
        return f"unreadable ({error})"
    return "; ".join(" ".join(line.split()) for line in text.splitlines())


def _scalar_difference(a: Node, b: Node) -> float | None:
    numbers = [node for node in (a, b) if isinstance(node, ArrayNode) and node.dtype.kind in "iufc"]
    if len(numbers) < 2 or a.attrs.get("units") != b.attrs.get("units"):
        return None
    one, other = (np.atleast_1d(node.read()) for node in numbers)
    sizes = sizes_of(one, other) if one.shape == other.shape else None
    return None if sizes is None or np.isnan(sizes).any() else float(sizes.max())


def _lists(name: str, a: GroupNode, b: GroupNode) -> Iterator[Difference]:
    yield from compare_attributes(name, a, b)
    one, other = (list_part(node, node.file.name if isinstance(node, StoredGroup) else None) for node in (a, b))
    yield from _items(name, one.items, other.items)


def _list(part: Part) -> ListPart:
    if isinstance(part, ListPart):
        return part
    location = part.location if isinstance(part, StoredPart) else None
    return list_part(part.open_node()[0], location)


def _items(name: str, a: Sequence[Part], b: Sequence[Part]) -> Iterator[Difference]:
    for index, (one, other) in enumerate(zip_longest(a, b)):
        if one is None or other is None:
            yield unequal(f"{name}[{index}]", one, other, lambda part: str(part.kind))
        else:
            yield from compare_parts(f"{name}[{index}]", one, other)


def _composites(name: str, a: GroupNode, b: GroupNode) -> Iterator[Difference]:
    from .diff import diff_groups

    for part, difference in diff_groups(a, b):
        yield replace(difference, what=part_of(part_of(name, part), difference.what))


_KINDS: dict[str, tuple[type[Node], Compare]] = {
    "array": (Node, _typed),
    "composite": (GroupNode, _composites),
    "list": (GroupNode, _lists),
    "mask": (ArrayNode, _masks),
    "record": (GroupNode, _typed),
    "table": (GroupNode, _tables),
    "text": (ArrayNode, _texts),
    "wcs": (Node, _wcs),
}
"""What nodes of a kind are, and how they are compared; those of others are compared as any tree."""
