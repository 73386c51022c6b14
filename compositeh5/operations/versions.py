"""Versions of a component: the default one is the component itself, others are kept beside it, named by their stages.

They are in the component ``versions``: a composite that has for each component a composite of a component for each
stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..definition import VERSIONS
from ..errors import NoSuchComponentError, WrongValueError, require_type, suggest
from ..parts import Part
from ..stored import nested_composite

if TYPE_CHECKING:
    from ..composite import Composite

__all__ = ["VERSIONS", "use_version", "version", "version_names", "with_version"]


def version_names(composite: Composite, name: str) -> tuple[str, ...]:
    """Return the stages of the versions of a component; first that of the default one, which may be unknown (empty)."""
    own = composite.component_stage(name)
    return (own, *(stage for stage in _others(composite, name) if stage != own))


def version(composite: Composite, name: str, stage: str) -> Part:
    """Return the version of a component that a stage has made.

    Raises
    ------
    NoSuchComponentError
        If there is none.
    """
    require_type(stage, str, "the name of a stage")
    if composite.component_stage(name) == stage:
        return composite._part(name)
    others = _others(composite, name)
    if stage not in others:
        known = version_names(composite, name)
        raise NoSuchComponentError(
            f"{composite._where}: component {name!r} has no version {stage!r}{suggest(stage, known)}"
        )
    return others[stage]


def with_version(composite: Composite, name: str, value: Any, stage: str) -> Composite:
    """Return the composite with one more version of a component, or with another in its place.

    Parameters
    ----------
    composite : Composite
        The composite; the default version of the component stays as it is.
    name : str
        The component.
    value : object
        The value, or a `Link`.
    stage : str
        The name of the version.

    Raises
    ------
    ValueError
        If the stage is empty, or that of the default version.
    """
    if not stage or stage == composite.component_stage(name):
        raise WrongValueError(
            f"{composite._where}: a further version of {name!r} needs a stage of its own, not {stage!r}, "
            f"since it is found by that"
        )
    return _with_others(composite, name, {**_others(composite, name), stage: value})


def use_version(composite: Composite, name: str, stage: str) -> Composite:
    """Return the composite with another version of a component as the default; what was that is kept as a version.

    Raises
    ------
    NoSuchComponentError
        If there is no such version.
    """
    chosen, own = version(composite, name, stage), composite.component_stage(name)
    if own == stage:
        return composite
    others = {other: part for other, part in _others(composite, name).items() if other != stage}
    if own:
        others[own] = composite._part(name)
    result = _with_others(composite, name, others)
    result._parts[name] = chosen
    return result


def _others(composite: Composite, name: str) -> dict[str, Part]:
    kept = _nested(composite, VERSIONS)
    versions = _nested(kept, name) if kept is not None else None
    return {} if versions is None else {stage: versions._part(stage) for stage in versions}


def _nested(composite: Composite, name: str) -> Composite | None:
    return nested_composite(composite._part(name)) if name in composite else None


def _with_others(composite: Composite, name: str, others: dict[str, Any]) -> Composite:
    from ..composite import Composite

    versions = Composite()
    for stage, value in others.items():
        if isinstance(value, Part):
            versions._parts[stage] = value
        else:
            versions._set_part(stage, value, None, stage)
    kept = _nested(composite, VERSIONS) or Composite()
    return composite.replace({VERSIONS: kept.replace({name: versions if others else None})})
