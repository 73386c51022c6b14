"""Composites of links: with the best of several candidates, or joined of components of many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..composite.composite import Composite
from ..composite.definition import Definition
from ..composite.definitions import get_definition
from ..composite.link import DataId
from ..errors import NoCandidateError, NoSuchComponentError, checked_names, require_type


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
    """Return an overlay of a composite that has some components of the best of several candidates.

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
    """Return a composite joined of components that are stored already, by links alone: none of them is read.

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
