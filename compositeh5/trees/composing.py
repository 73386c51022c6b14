"""Composites and lists that are made of links alone: the best of several candidates, or parts of many."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

from ..composite.composite import Composite
from ..composite.definition import Definition
from ..composite.definitions import get_definition
from ..composite.link import DataId, Link
from ..composite.opening import open_composite
from ..errors import ConflictError, DefinitionError, NoCandidateError, NoSuchComponentError, checked_names, require_type


def choose(
    base: Composite,
    candidates: Iterable[Composite],
    components: Iterable[str],
    *,
    best: Callable[[Composite], float | None],
    stage: str = "",
    data_id: DataId | None = None,
    **attributes: Any,
) -> Composite:
    """Return a composite with some of its components replaced by those of the best of several candidates.

    For example the WCS of the tract in which a detector was fitted best. None of the components is read, but by the
    rule.

    Parameters
    ----------
    base : Composite
        The composite to show. It must be stored.
    candidates : iterable of Composite
        Stored composites that have the components.
    components : iterable of str
        The components to take from the best candidate.
    best : callable
        The rule: gives a number for a candidate, or None or NaN for one that is out of question. The candidate with the
        largest is taken; of equals the first.
    stage, data_id, **attributes
        As for `Composite.overlay`.

    Returns
    -------
    Composite
        The overlay; its provenance has under ``choices`` the number of each candidate, by id, and which was taken.

    Raises
    ------
    NoCandidateError
        If there is no candidate, or all are out of question.
    NoSuchComponentError, AbsentComponentError
        If the best one lacks a component.
    """
    require_type(base, Composite, "a composite")
    require_type(candidates, Iterable, "composites to choose from")
    require_type(best, Callable, "a rule that gives a number for a composite")  # type: ignore[arg-type]
    components = checked_names(components, "the name of a component")
    candidates = list(candidates)
    for candidate in candidates:
        require_type(candidate, Composite, "a composite")
    scored = [(candidate, best(candidate)) for candidate in candidates]
    eligible = [(score, candidate) for candidate, score in scored if score is not None and not math.isnan(score)]
    if not eligible:
        raise NoCandidateError(f"{base.where}: none of {len(scored)} candidates is eligible")
    score, winner = max(eligible, key=lambda pair: pair[0])
    links = {name: winner.link(name) for name in components}
    result = base.overlay(links, stage=stage, data_id=data_id, **attributes)
    choice = {
        "components": sorted(links),
        "provider": winner.id,
        "score": float(score),
        "candidates": {candidate.id: None if value is None else _json(value) for candidate, value in scored},
    }
    return result.replace(provenance={**result.provenance, "choices": [choice]}, id=result.id or None)


def _json(score: float) -> float | str:
    # JSON has no infinities and no NaN.
    return float(score) if math.isfinite(score) else str(float(score))


def compose(
    definition: str | Definition | None,
    *sources: Composite,
    components: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Composite:
    """Return a composite of links to components that are stored already; none of them is read.

    Parameters
    ----------
    definition : str, Definition or None
        What it shall be. Of the sources only the components that the definition has are taken; all without one.
    *sources : Composite
        Stored composites in order of precedence: each component is from the first that has it.
    components : mapping, optional
        Values, or `Link` objects, by name, that come before those of the sources.
    **attributes
        ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as for `Composite`.

    Raises
    ------
    DefinitionError
        If a required component is in none of the sources, or of another kind.
    ValueError
        If a source isn't stored.
    """
    if isinstance(definition, str):
        definition = get_definition(definition)
    require_type({} if components is None else components, Mapping, "a mapping of names to components")
    found = dict(components or {})
    for source in sources:
        require_type(source, Composite, "a composite")
        for name in source:
            if name not in found and (definition is None or name in definition.components):
                found[name] = source.link(name)
    if not found:
        raise NoSuchComponentError(f"none of {len(sources)} sources has a component of {definition}")
    return Composite(definition, found, **attributes)


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
    """Return a list of links to the same component of several composites, such as the amplifiers of a detector.

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
    return list_members(found, component, key, expected, missing)


def list_members(
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
