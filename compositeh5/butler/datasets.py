"""What datasets in files and in memory have in common: parts of composites, and what the Butler knows of them.

The parameters of a read are those of the kinds (``columns`` and ``rows`` of tables, ``fields`` of records, ``items`` of
lists); ``bbox``, as boxes are called in the Butler: a `Box`, or that of another package, in parent coordinates; and
``components``, the names of those that are wanted of a composite.

A derived component tells something of the composite that the same parameters leave: ``bbox`` (a `Box`) and ``shape``
(rows, columns) of its planes of pixels, its ``stage``, or the values of all its ``components`` in one dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from math import isfinite
from platform import python_version
from typing import Any

from lsst.daf.butler import (
    Butler,
    DatasetProvenance,
    DatasetRef,
    DatasetType,
    MissingDatasetTypeError,
    StorageClass,
    StorageClassFactory,
)

from .. import kinds
from ..box import Box
from ..composite.composite import Composite
from ..composite.cutout import image_box
from ..composite.definition import VERSIONS, Definition
from ..composite.definitions import definition_names, get_definition
from ..composite.parts import ValuePart
from ..composite.python_objects import definitions_of
from ..errors import (
    DefinitionError,
    NoSuchComponentError,
    OutsideError,
    UnsupportedParameterError,
    WrongTypeError,
    checked_names,
    require_type,
    suggest,
)

BBOX = "bbox"
"""Name of the parameter, and of the derived component, that is a box."""

ASSEMBLY = "assembly"
"""Name of the component that joins the others of a disassembled composite, and that no other has."""

COMPONENTS = "components"
"""Name of the parameter that names components, and of the derived component that gives several at once."""


def read_component(composite: Composite, name: str, parameters: Mapping[str, Any]) -> Any:
    """Return a component of a composite, derived or not, or the part of it that parameters select.

    Returns
    -------
    object
        The value; None if the composite doesn't have the component.

    Raises
    ------
    NoSuchComponentError
        If the parameter ``components`` names one that the composite can't have.
    UnsupportedParameterError
        If the component doesn't have one of the parameters.
    OutsideError
        If the box has no pixel of the image, or a composite without pixels is asked for its box or shape.
    """
    if name in composite:
        check_parameters(parameters, [composite.kind(name)], f"component {name!r}")
        if BBOX in parameters:
            return composite.cutout(as_box(parameters[BBOX]), components=[name])[name]
        return composite.read(name, **parameters)
    if name == COMPONENTS:
        part = read_composite(composite, parameters)
        return {**part, **dict.fromkeys(part.absent)}
    if name not in (BBOX, "shape", "stage"):
        return None
    part, rest = select_components(composite, parameters)
    check_parameters(rest, map(part.kind, part), f"{part!r}")
    if name == "stage":
        return part.stage
    full = image_box(part)
    box = full.intersection(as_box(rest.get(BBOX, full)))
    if box.is_empty:
        raise OutsideError(f"{part!r}: {rest[BBOX]} has no pixel in {full}")
    return box if name == BBOX else box.shape


def read_composite(composite: Composite, parameters: Mapping[str, Any]) -> Composite:
    """Return a composite in memory, or the parts of its components that parameters select.

    Each parameter is applied to all components whose kind has it; with ``bbox``, the WCS follows the planes of
    pixels. The other components are as they are.

    Raises
    ------
    NoSuchComponentError
        If the parameter ``components`` names one that the composite can't have.
    UnsupportedParameterError
        If no component has one of the parameters.
    OutsideError
        If the box has no pixel of the image.
    """
    if not parameters:
        return composite.load()
    part, rest = select_components(composite, parameters)
    check_parameters(rest, map(part.kind, part), f"{part!r}")
    changed = dict(part.cutout(as_box(rest[BBOX])).parts) if BBOX in rest else {}
    for name in part:
        kind = kinds.get(part.kind(name))
        if own := {key: value for key, value in rest.items() if key in kind.parameters}:
            changed[name] = ValuePart(part.read(name, **own), kind.name, part.component_stage(name))
    return part.with_parts({**part.parts, **changed}).load()


def select_components(composite: Composite, parameters: Mapping[str, Any]) -> tuple[Composite, dict[str, Any]]:
    """Return a composite of the components that the parameter ``components`` names, and the other parameters.

    Raises
    ------
    NoSuchComponentError
        If the composite can't have one of them.
    """
    rest = dict(parameters)
    wanted = rest.pop(COMPONENTS, None)
    result = composite.replace()
    if wanted is None:
        return result, rest
    names = dict.fromkeys(checked_names(wanted, "the name of a component"))
    known = {*composite, *composite.absent}
    if composite.definition in definition_names():
        known |= get_definition(composite.definition).components.keys()
    for name in names:
        if name not in known:
            raise NoSuchComponentError(f"{composite!r}: there is no component {name!r}{suggest(name, known)}")
    parts = {name: composite.part(name) for name in names if name in composite}
    return composite.with_parts(parts, [name for name in names if name not in composite]), rest


def as_box(box: Any) -> Box:
    """Return a `Box`, or a box of ``lsst.images`` or ``lsst.geom``, as `Box`.

    Raises
    ------
    TypeError
        If it is no box.
    """
    if isinstance(box, Box):
        return box
    try:
        (y0, y1), (x0, x1) = _limits(box.y), _limits(box.x)
    except AttributeError:
        raise WrongTypeError(f"bbox should be a box of compositeh5, lsst.images or lsst.geom, not {box!r}") from None
    return Box(y0, y1, x0, x1)


def storage_class_name(definition: Definition) -> str:
    """Return the name of the storage class of a definition, such as ``CompositeH5SourceCatalogV1``."""
    words = definition.name.split("_")
    return f"CompositeH5{''.join(word[:1].upper() + word[1:] for word in words)}V{definition.version}"


def register_dataset_type(butler: Butler, name: str, definition: str | Definition) -> DatasetType:
    """Return the dataset type of a name, which is made for composites of a definition if there is none.

    Parameters
    ----------
    butler : Butler
        The repository.
    name : str
        Name of the dataset type.
    definition : str or Definition
        Definition of the composites. A new dataset type gets its dimensions, and the storage class
        ``CompositeH5<Name>V<version>``.

    Raises
    ------
    DefinitionError
        If a dataset type can't be made: the definition is unknown or has no dimensions, or there is no storage class
        for it.
    """
    try:
        return butler.get_dataset_type(name)
    except MissingDatasetTypeError:
        pass
    if isinstance(definition, str):
        definition = get_definition(definition)
    storage_class = storage_class_name(definition)
    if storage_class not in StorageClassFactory():
        raise DefinitionError(
            f"the repository has no storage class {storage_class}; `butler compositeh5-install` adds those of this "
            f"package, others must be in its butler.yaml; or register the dataset type {name!r} with another one"
        )
    if not definition.dimensions:
        raise DefinitionError(f"{definition!r} has no dimensions for a dataset type: register {name!r} yourself")
    dataset_type = DatasetType(name, definition.dimensions, storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    return dataset_type


def is_composite_class(cls: type[Any]) -> bool:
    """Return whether objects of a class are stored as composites: it is `Composite`, or a definition is for it."""
    return issubclass(cls, Composite) or bool(definitions_of(cls))


def definition_of(storage_class: StorageClass) -> Definition | None:
    """Return the definition of the composites of a storage class, if it is known.

    Raises
    ------
    DefinitionError
        If several definitions are for its Python class.
    """
    cls = storage_class.pytype
    if issubclass(cls, Composite):
        definitions = map(get_definition, definition_names())
        return next((each for each in definitions if storage_class_name(each) == storage_class.name), None)
    found = definitions_of(cls)
    if len(found) > 1:
        raise DefinitionError(
            f"{cls.__qualname__} objects are of the definitions {', '.join(each.name for each in found)}: "
            f"put Composite.of(object, definition) instead of the object"
        )
    return found[0] if found else None


def as_composite(dataset: Any, storage_class: StorageClass) -> Composite:
    """Return what is stored of a dataset: itself if it is a composite, or that of an object of a user's own class.

    Raises
    ------
    WrongTypeError
        If it is neither a composite nor an object of the class for which the storage class is.
    DefinitionError
        If the object can't be taken apart, or it could not be got from such a dataset with all its components.
    """
    cls = storage_class.pytype
    expected = f"a {cls.__qualname__} for the storage class {storage_class.name}"
    require_type(dataset, (Composite, cls), expected)
    if isinstance(dataset, Composite):
        composite: Composite = dataset
        names = [definition.name for definition in definitions_of(cls)]
        if names and composite.definition not in names:
            raise DefinitionError(f"{composite!r}: isn't of the definition {' or '.join(names)}, as {expected} is")
    else:
        definition = definition_of(storage_class)
        if definition is None:
            raise DefinitionError(
                f"{expected} can't be stored: no registered definition has this class as its python_type; register one "
                f"where the class is defined"
            )
        composite = Composite.of(dataset, definition)
    known = storage_class.components.keys() - {ASSEMBLY}
    # Every composite may have other versions of its components.
    if unknown := [name for name in composite if known and name not in {*known, VERSIONS}]:
        raise DefinitionError(
            f"{composite!r}: the storage class {storage_class.name} has no component {', '.join(unknown)}"
        )
    return composite


def with_dataset_identity(composite: Composite, ref: DatasetRef) -> Composite:
    """Return a composite with the id, data ID, dataset type and run of a dataset."""
    return composite.replace(
        id=str(ref.id), data_id=dict(ref.dataId.required), dataset_type=ref.datasetType.name, run=ref.run
    )


def as_dataset(composite: Composite, ref: DatasetRef, provenance: DatasetProvenance | None) -> Composite:
    """Return a composite as it is stored: `with_dataset_identity`, and with a provenance that tells of the dataset.

    Its entry ``butler`` is what the Butler knows, as ``DatasetProvenance.to_flat_dict`` gives it and ``from_flat_dict``
    reads it: the dataset, the quantum that made it, its inputs, and what is known of each of these. It replaces that of
    another dataset from which the composite came; that of this dataset stays unless another provenance is given. Its
    entry ``software`` has versions; those that the composite names itself stay.
    """
    known = dict(composite.provenance)
    software = known.get("software", {})
    if isinstance(software, Mapping):
        known["software"] = {**_software(), **software}
    flat = (provenance or DatasetProvenance()).to_flat_dict(ref, simple_types=True)
    before = known.get("butler")
    if provenance is not None or not isinstance(before, Mapping) or before.get("id") != flat["id"]:
        # JSON has no place for infinity and NaN, which may be among what is known of an input.
        known["butler"] = {
            key: str(value) if isinstance(value, float) and not isfinite(value) else value
            for key, value in flat.items()
        }
    return with_dataset_identity(composite.replace(provenance=known), ref)


@cache
def _software() -> dict[str, str]:
    packages = ("compositeh5", "h5py", "numpy", "astropy", "lsst-daf-butler")
    return {"python": python_version(), **{name: version(name) for name in packages}}


def parameter_names(kind: str) -> set[str]:
    """Return the names of the parameters of a kind, as gets have them."""
    return {BBOX if name == "box" else name for name in kinds.get(kind).parameters}


def check_parameters(parameters: Mapping[str, Any], kind_names: Iterable[str], what: str) -> None:
    """Raise `UnsupportedParameterError` unless each parameter is one of a kind among these."""
    known: set[str] = set().union(*map(parameter_names, kind_names))
    for name in parameters:
        if name not in known:
            raise UnsupportedParameterError(
                f"{what} has no parameter {name!r}; it has {', '.join(sorted(known)) or 'none'}"
            )


def _limits(interval: Any) -> tuple[int, int]:
    if hasattr(interval, "start"):
        return interval.start, interval.stop
    return interval.begin, interval.end
