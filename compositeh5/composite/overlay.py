"""Composites that show others: with some components changed, or the versions of a processing step.

The default version of a component is the component itself. Others are kept in the component `VERSIONS`: a composite
that has for each component a composite of a component for each stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ..errors import (
    DefinitionError,
    FormatError,
    NoSuchComponentError,
    StageError,
    WrongValueError,
    checked_names,
    require_type,
    suggest,
)
from ..storage.nodes import GroupNode
from .definition import VERSIONS
from .definitions import known_definition
from .link import DataId, checked_data_id
from .parts import Composed, LinkedPart, ListPart, Part, StoredPart, ValuePart, stored_parts
from .writing import Contents

_C = TypeVar("_C", bound=Composed)
_Parts = Mapping[str, Part]


def overlay(
    composite: _C,
    components: Mapping[str, Any] | None = None,
    /,
    *,
    keep: Iterable[str] = (),
    data_id: DataId | None = None,
    stage: str = "",
    **more: Any,
) -> _C:
    """Return a composite that is this one with some components changed; all others are links.

    Written, it takes the changed components and some kB. This one isn't changed, and nothing of it is read. Links
    lead to where components are stored, also if this one has links itself; the steps on the way are in
    ``provenance["history"]``.

    Parameters
    ----------
    composite : Composite
        The composite.
    components : mapping, optional
        Values, `Link` objects or None by name, in place of those that there are, or new.
    keep : iterable of str, optional
        The components of which the version that is replaced is kept as well: `versions` names it by its stage.
    data_id : mapping, optional
        Further keys of the data ID, such as the tract for which a calibration was made.
    stage : str, optional
        The processing step that made the changed components.
    **more
        Components, for names that can be written so; and the attributes ``dataset_type``, ``run`` and ``id``.

    Raises
    ------
    ValueError
        If the composite isn't stored yet.
    DefinitionError
        If the definition doesn't have one of the components, or as one of another kind, or if the data ID
        contradicts that of this composite.
    EncodeError
        If a value can't be of its component's kind.
    """
    require_type({} if components is None else components, Mapping, "a mapping of names to components")
    attributes = {key: more.pop(key) for key in ("dataset_type", "run", "id") if key in more}
    values = {**(components or {}), **more}
    data_id = checked_data_id({} if data_id is None else data_id)
    for key, value in data_id.items():
        if composite.data_id.get(key, value) != value:
            raise DefinitionError(
                f"{composite!r}: an overlay shows the same data, so its data ID can have more keys, "
                f"but not {key}={value!r}"
            )
    step = {
        **{name: getattr(composite, name) for name in ("id", "definition", "dataset_type", "run", "stage", "data_id")},
        "changed": sorted(values),
        "fallbacks": dict(composite.fallbacks),
    }
    history = [*composite.provenance.get("history", []), {key: value for key, value in step.items() if value}]
    links = {
        # Links know more than one way to where they lead, and versions are links already.
        name: part if name == VERSIONS or isinstance(part, LinkedPart | ListPart) else LinkedPart(composite.link(name))
        for name, part in composite.parts.items()
    }
    shown = composite.with_parts(
        links,
        **{"dataset_type": "", "run": "", **attributes},
        stage=stage,
        data_id={**composite.data_id, **data_id},
        provenance={"history": history},
    )
    keep_id = {"id": attributes["id"]} if "id" in attributes else {}
    result = shown.replace(values, **keep_id)
    for name in checked_names(keep, "the name of a component"):
        if name in shown.parts and name in values:
            versions = _with_version(result.parts, name, shown.parts[name], composite.where)
            result = result.replace({VERSIONS: versions}, **keep_id)
    return result


def require_stage(
    composite: _C, stage: str, components: Iterable[str] | None = None, *, fallback: str | Iterable[str] = ()
) -> _C:
    """Return the composite with components that have reached a processing stage, or fail.

    Parameters
    ----------
    composite : Composite
        The composite.
    stage : str
        The stage. A component of which that version is kept beside the default one is replaced by it.
    components : iterable of str, optional
        The components that must have reached it. By default those that the definition marks as calibrations; if
        it marks none, all.
    fallback : str or iterable of str, optional
        Earlier stages to be accepted instead, in order of preference. `fallbacks` then tells for which components
        they were.

    Returns
    -------
    Composite
        This one; or, if a version was exchanged, another, for which this one must stay open.

    Raises
    ------
    StageError
        If a component has not reached any of the stages. The message names all of them.
    """
    require_type(stage, str, "the name of a stage")
    if components is None:
        definition = known_definition(composite.definition)
        known = {*composite.parts, *composite.absent} - {VERSIONS}
        marked = definition.calibrations if definition else ()
        components = sorted(known.intersection(marked) if marked else known)
    names = checked_names(components, "the name of a component")
    stages = [stage, *filter(None, checked_names(fallback, "the name of a stage"))]
    behind: list[str] = []
    fallbacks: dict[str, str] = {}
    parts = own = composite.parts
    for name in names:
        if name in composite.absent:
            behind.append(f"{name} is absent")
            continue
        reached = versions(composite, name)
        found = next((one for one in stages if one in reached), None)
        if found is None:
            behind.append(f"{name} is at {', '.join(one or 'unknown' for one in reached)}")
            continue
        if found != reached[0]:
            parts = {**parts, **_use_version(parts, name, found)}
        if found != stage:
            fallbacks[name] = found
    if behind or not names:
        raise StageError(
            f"{composite.where}: not all components have reached the stage {stage!r}: "
            f"{'; '.join(behind) or 'it has none that later steps replace'}"
            + ("" if len(stages) > 1 else "; `fallback` can name an earlier stage to be taken instead")
        )
    result = composite if parts is own else composite.with_parts(parts)
    result.fallbacks = fallbacks
    return result


def versions(composite: _C, name: str) -> tuple[str, ...]:
    """Return the stages of the versions of a component; the first is that of the default, ``composite[name]``.

    Parameters
    ----------
    composite : Composite
        The composite.
    name : str
        Name of the component.
    """
    own = composite.parts[name].stage
    return (own, *(stage for stage in _kept(composite.parts, name) if stage != own))


def read_version(composite: _C, name: str, stage: str, **parameters: Any) -> Any:
    """Return the version of a component that a stage has made, or a part of it, as `read` does.

    Parameters
    ----------
    composite : Composite
        The composite.
    name, stage : str
        Names of the component and of the stage.
    **parameters
        What to read, as for `read`.

    Raises
    ------
    NoSuchComponentError
        If there is no such version.
    """
    require_type(stage, str, "the name of a stage")
    own = composite.parts[name]
    found = own if own.stage == stage else _kept(composite.parts, name).get(stage)
    if found is None:
        known = versions(composite, name)
        raise NoSuchComponentError(
            f"{composite.where}: component {name!r} has no version {stage!r}{suggest(stage, known)}"
        )
    return found.read(**parameters)


def nested_parts(part: Part) -> dict[str, Part]:
    """Return the parts of a component that is itself a composite; nothing of a stored one is read.

    Raises
    ------
    FormatError
        If what is stored isn't a composite.
    """
    if isinstance(part, ValuePart) and part.kind == "composite":
        return dict(part.value.parts)
    if not isinstance(part, StoredPart) or not isinstance(part.node, GroupNode) or part.kind != "composite":
        raise FormatError(f"a {part.state} component of kind {part.kind!r} is no composite that is stored with another")
    return stored_parts(part.node, part.location, part.session)


def _kept(parts: _Parts, name: str) -> dict[str, Part]:
    """Return the versions of a component that are kept beside the default one, by their stages."""
    kept = nested_parts(parts[VERSIONS]) if VERSIONS in parts else {}
    return nested_parts(kept[name]) if name in kept else {}


def _keep(parts: _Parts, name: str, others: _Parts) -> Part:
    """Return the part of all versions, with others of one component."""
    kept = nested_parts(parts[VERSIONS]) if VERSIONS in parts else {}
    kept.pop(name, None)
    if others:
        kept[name] = _nested(others)
    return _nested(kept, () if others else (name,))


def _nested(parts: _Parts, absent: tuple[str, ...] = ()) -> StoredPart:
    return StoredPart(Contents(dict(parts), absent, where=VERSIONS).group())


def _with_version(parts: _Parts, name: str, part: Part, where: str) -> Part:
    """Return the part of all versions with one more of a component, whose default one stays as it is."""
    if not part.stage or part.stage == parts[name].stage:
        raise WrongValueError(
            f"{where}: a further version of {name!r} needs a stage of its own, not {part.stage!r}, "
            f"since it is found by that"
        )
    return _keep(parts, name, {**_kept(parts, name), part.stage: part})


def _use_version(parts: _Parts, name: str, stage: str) -> dict[str, Part]:
    """Return what changes when another version of a component is the default: what was that is kept as a version."""
    others = _kept(parts, name)
    chosen, own = others.pop(stage), parts[name]
    if own.stage:
        others[own.stage] = own
    return {name: chosen, VERSIONS: _keep(parts, name, others)}
