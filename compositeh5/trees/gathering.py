"""Lists from like composites that differ in one key of their data IDs: all amplifiers of a detector, say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Literal, TypeVar

from ..composite.composite import Composite
from ..composite.link import Link
from ..composite.opening import open_composite
from ..errors import ConflictError, DefinitionError, NoSuchComponentError, require_type

Source = Composite | str | os.PathLike[str]

Member = TypeVar("Member")


def gather(
    sources: Iterable[Source],
    component: str,
    *,
    key: str,
    expected: Iterable[int | str] | None = None,
    missing: Literal["error", "skip"] = "error",
) -> list[Link]:
    """Return links to a component of each of several composites, as the items of a list-valued component.

    None of the components is read.

    Parameters
    ----------
    sources : iterable of Composite or path
        Stored composites, in any order. Their data IDs must be the same but for one key.
    component : str
        Name of the component.
    key : str
        The key in which they differ. The list is in the order of its values.
    expected : iterable of int or str, optional
        The values of the key of which there must be a composite.
    missing : {"error", "skip"}, optional
        What to do about values that are expected and not there, and about composites in which the component is
        absent: they are an error, or the list goes without them.

    Returns
    -------
    list of Link
        One for each composite.

    Raises
    ------
    NoSuchComponentError
        If members are missing; the message names all. Also if there is none at all.
    ConflictError
        If two composites have the same value of the key, or one is of other data.
    DefinitionError
        If a data ID doesn't have the key.
    """
    require_type(sources, Iterable, "paths, URLs or open composites")
    require_type(() if expected is None else expected, Iterable, "the values of the key that are expected")
    require_type(key, str, "a key of the data ID")
    found: dict[int | str, Link | None] = {}
    common: dict[str, int | str] | None = None
    with ExitStack() as opened:
        for source in sources:
            composite = source if isinstance(source, Composite) else opened.enter_context(open_composite(source))
            rest = {name: value for name, value in composite.data_id.items() if name != key}
            if key not in composite.data_id:
                raise DefinitionError(f"{composite.where}: its data ID {composite.data_id} has no {key!r}")
            value = composite.data_id[key]
            if common is not None and rest != common:
                raise ConflictError(f"{composite.where}: is of {rest}, but the others are of {common}")
            if value in found:
                raise ConflictError(f"{composite.where}: there is another one with {key}={value!r}")
            common = rest
            found[value] = None if component in composite.absent else composite.link(component)
            opened.pop_all().close()
    return in_order(found, component, key, expected, missing)


def in_order(
    found: Mapping[int | str, Member | None],
    component: str,
    key: str,
    expected: Iterable[int | str] | None,
    missing: Literal["error", "skip"],
) -> list[Member]:
    """Return the members of a list, given by the values of the key in which they differ; see `gather`."""
    wanted = set(found) if expected is None else set(expected)
    lacking = sorted((value for value in wanted if found.get(value) is None), key=value_order)
    if lacking and missing == "error":
        raise NoSuchComponentError(
            f"component {component!r} is missing for {key} = {', '.join(map(str, lacking))}; "
            f"it is there for {', '.join(map(str, sorted(set(found) - set(lacking), key=value_order))) or 'none'}; "
            f"missing='skip' goes without"
        )
    members = [one for value in sorted(found, key=value_order) if (one := found[value]) is not None and value in wanted]
    if not members:
        raise NoSuchComponentError(f"there is no composite with a component {component!r} to make a list of")
    return members


def value_order(value: int | str) -> tuple[bool, int | str]:
    """Return the key by which values of a data ID are sorted: numbers before text, each in its own order."""
    return isinstance(value, str), value
