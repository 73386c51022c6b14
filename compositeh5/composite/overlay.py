"""Composites derived from another: some components replaced, the others linked; and several versions of a component.

``composite[name]`` is the default version. Other versions are in the component `VERSIONS`, a composite of composites:
``versions/<component>/<stage>``.
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
from .encoding import composite_node
from .interface import CompositeLike, check_attributes
from .link import DataId, checked_data_id
from .parts import (
    LinkedPart,
    ListPart,
    Part,
    StoredPart,
    ValuePart,
    parts_of,
    stored_parts,
)

_C = TypeVar("_C", bound=CompositeLike)
_Parts = Mapping[str, Part]


def replace(composite: _C, components: Mapping[str, Any] | None = None, /, **attributes: Any) -> _C:
    """Return a composite in memory like this one, but for some of its components and attributes.

    All others are shared with this one, which must stay open while they are read.

    Parameters
    ----------
    composite : Composite
        The composite.
    components : mapping, optional
        Values, `Link` objects or None by name, in place of those that there are, or new.
    **attributes
        ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as in the constructor. An id
        names one content: without a new one the result has none.

    Raises
    ------
    DefinitionError
        If the definition doesn't have one of the components, or as one of another kind.
    EncodeError
        If a value can't be of its component's kind.
    WrongTypeError
        If there is no attribute of that name.
    """
    values = {} if components is None else components
    require_type(values, Mapping, "a mapping of names to components")
    check_attributes("replace", attributes)
    definition = known_definition(composite.definition)
    for name in values:
        if definition is not None and name not in definition.components and name != VERSIONS:
            raise DefinitionError(f"{composite.where}: the definition {definition.name!r} has no component {name!r}")
    changed, absent = parts_of(values, definition, attributes.get("stage", composite.stage))
    parts = {name: part for name, part in composite.parts.items() if name not in absent}
    absent = (*(name for name in composite.absent if name not in values), *absent)
    return composite.with_parts(parts | changed, absent, **attributes)


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
            old = shown.parts[name]
            if not old.stage or old.stage == result.parts[name].stage:
                raise WrongValueError(
                    f"{composite.where}: a further version of {name!r} needs a stage of its own, not {old.stage!r}, "
                    f"since it is found by that"
                )
            kept = _versions_part(result, name, {**_other_versions(result.parts, name), old.stage: old})
            result = result.replace({VERSIONS: kept}, **keep_id)
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
    result = composite
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
            result = result.with_parts({**result.parts, **_with_default_version(result, name, found)})
        if found != stage:
            fallbacks[name] = found
    if behind or not names:
        raise StageError(
            f"{composite.where}: not all components have reached the stage {stage!r}: "
            f"{'; '.join(behind) or 'it has none that later steps replace'}"
            + ("" if len(stages) > 1 else "; `fallback` can name an earlier stage to be taken instead")
        )
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
    return (own, *(stage for stage in _other_versions(composite.parts, name) if stage != own))


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
    found = own if own.stage == stage else _other_versions(composite.parts, name).get(stage)
    if found is None:
        known = versions(composite, name)
        raise NoSuchComponentError(
            f"{composite.where}: component {name!r} has no version {stage!r}{suggest(stage, known)}"
        )
    return found.read(**parameters)


def nested_parts(part: Part) -> dict[str, Part]:
    """Return the parts of a component that is itself a composite; nothing of a stored one is read."""
    if isinstance(part, ValuePart) and part.kind == "composite":
        return dict(part.value.parts)
    if not isinstance(part, StoredPart) or not isinstance(part.node, GroupNode) or part.kind != "composite":
        raise FormatError(f"a {part.state} component of kind {part.kind!r} is no composite that is stored with another")
    return stored_parts(part.node, part.location, part.session)


def _other_versions(parts: _Parts, name: str) -> dict[str, Part]:
    """Return the versions of a component that are kept beside the default one, by their stages."""
    kept = nested_parts(parts[VERSIONS]) if VERSIONS in parts else {}
    return nested_parts(kept[name]) if name in kept else {}


def _versions_part(composite: CompositeLike, name: str, others: _Parts) -> Part:
    """Return a new part `VERSIONS`, in which ``others`` are the kept versions of one component."""
    kept = nested_parts(composite.parts[VERSIONS]) if VERSIONS in composite.parts else {}
    kept.pop(name, None)
    if others:
        kept[name] = _nested(composite, others)
    return _nested(composite, kept, () if others else (name,))


def _nested(composite: CompositeLike, parts: _Parts, absent: tuple[str, ...] = ()) -> StoredPart:
    """Return these parts as a nested composite without data ID, run, stage or provenance of its own."""
    plain = composite.with_parts(parts, absent, data_id={}, dataset_type="", run="", stage="", provenance={})
    plain.definition, plain.definition_version, plain.signal = "", 1, ""
    return StoredPart(composite_node(plain))


def _with_default_version(composite: CompositeLike, name: str, stage: str) -> dict[str, Part]:
    """Return the parts to replace, so that a kept version becomes the default and the former default is kept."""
    others = _other_versions(composite.parts, name)
    chosen, own = others.pop(stage), composite.parts[name]
    if own.stage:
        others[own.stage] = own
    return {name: chosen, VERSIONS: _versions_part(composite, name, others)}
