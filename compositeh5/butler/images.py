"""The formatter of ``lsst.images``: its objects as composites in the files of a Butler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lsst.daf.butler import DatasetProvenance, StorageClass
from lsst.images.serialization import ButlerInfo

from .. import lsst_images
from ..composite.composite import Composite
from ..errors import NoSuchComponentError, UnsupportedParameterError, suggest
from .datasets import BBOX, COMPONENTS, as_box
from .formatter import CompositeFormatter

COMBINED_COMPONENTS = (COMPONENTS, "masked_image")
"""Components that only combine others; "all components" doesn't include them."""


class ImagesFormatter(CompositeFormatter):
    """Stores ``VisitImage``, ``CellCoadd`` and the other types of ``lsst.images`` as composites.

    It is for the storage classes that ``lsst-daf-butler`` has for them (``VisitImage``, ``MaskedImageV2``, ...). Their
    components and parameters are those that its own formatter gives; recipes are those of `CompositeFormatter`.

    The configuration ``resource://compositeh5/butler/configs/lsst_images.yaml`` is that of
    ``resource://compositeh5/butler/configs/seed.yaml`` with this formatter for all of them.
    """

    def _composite(self, in_memory_dataset: Any) -> Composite:
        provenance = self._provenance if self._provenance is not None else DatasetProvenance()
        info = ButlerInfo(dataset=self.dataset_ref.to_simple(), provenance=provenance)
        return lsst_images.to_composite(in_memory_dataset, butler_info=info)

    def _read(self, composite: Composite, component: str | None, parameters: dict[str, Any]) -> Any:
        storage_class = self.file_descriptor.storageClass
        if BBOX in parameters:
            parameters[BBOX] = as_box(parameters[BBOX])
        if component == COMPONENTS:
            return _components(composite, storage_class, parameters)
        if COMPONENTS in parameters:
            raise UnsupportedParameterError(
                f"{composite.location}: {COMPONENTS!r} is a parameter of the component {COMPONENTS!r}"
            )
        return lsst_images.read(composite, storage_class.pytype, component=component, **parameters)


def _components(composite: Composite, storage_class: StorageClass, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return several components; each is given those of the parameters that it has."""
    known = storage_class.allComponents()
    rest = {name: value for name, value in parameters.items() if name != COMPONENTS}
    wanted: str | Iterable[str] | None = parameters.get(COMPONENTS)
    names = [name for name in known if name not in COMBINED_COMPONENTS] if wanted is None else wanted
    names = list(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in names:
        if name not in known or name == COMPONENTS:
            there = suggest(name, known.keys() - {COMPONENTS})
            raise NoSuchComponentError(f"the storage class {storage_class.name} has no component {name!r}{there}")
    for parameter in rest:
        if not any(parameter in known[name].parameters for name in names):
            raise UnsupportedParameterError(f"no component of {names} has the parameter {parameter!r}")
    return {
        name: lsst_images.read(
            composite, component=name, **{key: value for key, value in rest.items() if key in known[name].parameters}
        )
        for name in names
    }
