"""Reading many parts of one array, such as a thousand cutouts of an image: nothing is unpacked twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunks import chunks_in, overlap
from .nodes import ArrayNode, Selection

KEPT_BYTES = 256 * 1024 * 1024
"""Of chunks that later parts need as well, so much is kept."""

_Corner = tuple[int, ...]


def read_selections(node: ArrayNode, selections: Sequence[Selection]) -> Iterator[NDArray[Any]]:
    """Yield the values of many selections of an array, in their order.

    Each chunk is read once, when the first of them needs it, and kept until the last has had it; unless more than
    `KEPT_BYTES` would have to be kept. So memory is bounded by the size of the array, too.

    Parameters
    ----------
    node : ArrayNode
        The array.
    selections : sequence of tuple of slice
        A slice with step 1, and both limits inside of the array, for each axis.
    """
    unit = node.unit
    if unit is None or len(selections) == 1:
        yield from map(node.read, selections)
        return
    # A chunk that only one of them needs isn't worth keeping.
    users = Counter(corner for selection in selections for corner in chunks_in(selection, unit))
    kept: dict[_Corner, NDArray[Any]] = {}
    room = KEPT_BYTES // (int(np.prod(unit)) * node.dtype.itemsize)
    for selection in selections:
        corners = list(chunks_in(selection, unit))
        if all(users[corner] == 1 and corner not in kept for corner in corners):
            yield node.read(selection)
            continue
        out = np.empty(tuple(s.stop - s.start for s in selection), node.dtype)
        for corner in corners:
            chunk = kept.get(corner)
            if chunk is None:
                chunk = node.read(tuple(slice(a, a + n) for a, n in zip(corner, unit, strict=True)))
            part, target = overlap(corner, chunk.shape, selection)
            out[target] = chunk[part]
            users[corner] -= 1
            if users[corner]:
                kept[corner] = chunk
                if len(kept) > room:
                    del kept[next(iter(kept))]
            else:
                kept.pop(corner, None)
        yield out
