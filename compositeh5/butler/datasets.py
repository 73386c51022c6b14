"""What datasets in files and in memory have in common: parts of composites, and what the Butler knows of them.

The parameters of a read are those of the kinds (``columns`` and ``rows`` of tables, ``fields`` of records, ``items`` of
lists), and ``bbox``, as boxes are called in the Butler: a `Box`, or that of another package, in parent coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lsst.daf.butler import DatasetProvenance, DatasetRef, StorageClass
from lsst.resources import ResourcePath

from .. import kinds
from ..composite import Composite
from ..errors import DefinitionError, OutsideError, UnsupportedParameterError
from ..geometry import Box
from ..opening import open_composite
from ..operations.cutout import image_box
from ..parts import MemoryPart

BBOX = "bbox"
"""Name of the parameter, and of the derived component, that is a box."""


def read_component(composite: Composite, name: str, parameters: Mapping[str, Any]) -> Any:
    """Return a component of a composite, or the part of it that parameters select.

    The derived component ``bbox`` is the `Box` of the planes of pixels: of those that the same parameters leave.

    Returns
    -------
    object
        The value; None if the composite doesn't have the component.

    Raises
    ------
    UnsupportedParameterError
        If the component doesn't have one of the parameters.
    OutsideError
        If the box has no pixel of the image.
    """
    if name in composite:
        _check_understood(parameters, [composite.kind(name)], f"component {name!r}")
        if BBOX in parameters:
            return composite.cutout(as_box(parameters[BBOX]), components=[name])[name]
        return composite.read(name, **parameters)
    if name == BBOX:
        _check_understood(parameters, map(composite.kind, composite), f"{composite!r}")
        full = image_box(composite)
        box = full.intersection(as_box(parameters.get(BBOX, full)))
        if box.is_empty:
            raise OutsideError(f"{composite!r}: {parameters[BBOX]} has no pixel in {full}")
        return box
    return None


def read_composite(composite: Composite, parameters: Mapping[str, Any]) -> Composite:
    """Return a composite in memory, or the parts of its components that parameters select.

    Each parameter is applied to all components whose kind has it; with ``bbox``, the WCS follows the planes of
    pixels. The other components are as they are.

    Raises
    ------
    UnsupportedParameterError
        If no component has one of the parameters.
    OutsideError
        If the box has no pixel of the image.
    """
    if not parameters:
        return composite.load()
    _check_understood(parameters, map(composite.kind, composite), f"{composite!r}")
    result = composite.replace()
    if BBOX in parameters:
        result._parts |= composite.cutout(as_box(parameters[BBOX]))._parts
    for name in composite:
        kind = kinds.get(composite.kind(name))
        if chosen := {key: value for key, value in parameters.items() if key in kind.parameters}:
            value = composite.read(name, **chosen)
            result._parts[name] = MemoryPart(value, kind.name, composite.component_stage(name))
    return result.load()


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
        raise TypeError(f"bbox should be a box of compositeh5, lsst.images or lsst.geom, not {box!r}") from None
    return Box(y0, y1, x0, x1)


@contextmanager
def open_uri(uri: ResourcePath, original: ResourcePath | None = None) -> Iterator[Composite]:
    """Open the composite of a file, which may be remote: then only what is asked for is transferred.

    Parameters
    ----------
    uri : ResourcePath
        The file, or a copy of it.
    original : ResourcePath, optional
        The file, if that is a copy: links are relative to this.
    """
    location = location_of(original or uri)
    if uri.isLocal:
        with open_composite(uri.ospath, location=location) as composite:
            yield composite
    else:
        with uri.open("rb") as stream, open_composite(stream, location=location) as composite:
            yield composite


def location_of(uri: ResourcePath) -> str:
    """Return a URI as locations are written: a path, or the URL of what isn't a local file."""
    return str(uri.ospath if uri.isLocal else uri.geturl())


def check_components(composite: Composite, storage_class: StorageClass) -> None:
    """Raise `DefinitionError` if a composite has components that could not be got from such a dataset."""
    known = storage_class.components
    if unknown := [name for name in composite if known and name not in known]:
        raise DefinitionError(
            f"{composite!r}: the storage class {storage_class.name} has no component {', '.join(unknown)}"
        )


def identified(composite: Composite, ref: DatasetRef, provenance: DatasetProvenance | None) -> Composite:
    """Return a composite with the id, data ID, dataset type, run and provenance of a dataset."""
    known = dict(composite.provenance)
    if provenance is not None:
        known["butler"] = provenance.to_flat_dict(ref, simple_types=True)
    return composite.replace(
        id=str(ref.id),
        data_id=dict(ref.dataId.required),
        dataset_type=ref.datasetType.name,
        run=ref.run,
        provenance=known,
    )


def _limits(interval: Any) -> tuple[int, int]:
    if hasattr(interval, "start"):
        return interval.start, interval.stop
    return interval.begin, interval.end


def _check_understood(parameters: Mapping[str, Any], kind_names: Iterable[str], what: str) -> None:
    known = set().union(*(kinds.get(name).parameters for name in kind_names))
    # A box has two names.
    known = {BBOX if name == "box" else name for name in known}
    for name in parameters:
        if name not in known:
            raise UnsupportedParameterError(
                f"{what} has no parameter {name!r}; it has {', '.join(sorted(known)) or 'none'}"
            )
