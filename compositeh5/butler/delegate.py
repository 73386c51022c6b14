"""Delegates: what the Butler asks about composites, and components, that are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lsst.daf.butler import DatasetComponent, DatasetProvenance, DatasetRef, StorageClassDelegate

from .. import kinds
from ..composite.composite import Composite
from ..composite.definition import VERSIONS
from ..composite.parts import ValuePart
from ..errors import DefinitionError
from .dataset_files import using_resolver_parameter
from .datasets import ASSEMBLY, COMPONENTS, as_composite, as_dataset, definition_of, read_component, read_composite
from .disassembly import Assembly, take_apart


class CompositeDelegate(StorageClassDelegate):  # type: ignore[misc]
    """Takes composites apart, puts them together and applies parameters; the results are those that files give.

    An object of a user's own class is taken for the composite that a definition makes of it. It is kept as this, of
    which the storage class makes an object again.
    """

    def can_accept(self, inMemoryDataset: Any) -> bool:
        """Return whether this is a composite, which is kept as it is."""
        return isinstance(inMemoryDataset, Composite)

    def getComponent(self, composite: Any, componentName: str) -> Any:
        """Return a component such that changing it doesn't change the composite; None if there is none."""
        composite = as_composite(composite, self.storageClass)
        if componentName == COMPONENTS:
            return read_component(self.copy(composite), COMPONENTS, {})
        value = read_component(composite, componentName, {})
        return kinds.get(composite.kind(componentName)).share(value) if componentName in composite else value

    def disassemble(
        self, composite: Any, subset: Iterable[str] | None = None, override: Any = None
    ) -> dict[str, DatasetComponent]:
        """Return all components of the storage class, and what joins them, each as a `.disassembly.Piece`.

        Raises
        ------
        DefinitionError
            If the storage class doesn't have all of them.
        """
        whole = as_composite(composite if override is None else override, self.storageClass)
        if ASSEMBLY not in self.storageClass.components:
            raise DefinitionError(
                f"composites of the storage class {self.storageClass.name} can't be disassembled: it needs a component "
                f"{ASSEMBLY!r} of storage class CompositeH5AssemblyV1"
            )
        if VERSIONS in whole:
            raise DefinitionError(
                f"{whole!r}: has several versions of components; these can't be disassembled: store it whole, or "
                f"replace({{{VERSIONS!r}: None}})"
            )
        components = self.storageClass.components
        pieces = take_apart(whole, [name for name in components if name != ASSEMBLY])
        return {
            name: DatasetComponent(name, components[name], piece)
            for name, piece in pieces.items()
            if subset is None or name in set(subset)
        }

    def assemble(self, components: dict[str, Any], pytype: type | None = None) -> Any:
        """Return the composite of components, with what joins them where that is given, or the object made of it.

        Raises
        ------
        DefinitionError
            If they don't fit the definition to which the storage class belongs, where there is one.
        """
        assembly = components.get(ASSEMBLY)
        if isinstance(assembly, Assembly):
            composite = assembly.joined(components)
        else:
            composite = Composite(definition_of(self.storageClass), components)
        return self.storageClass.coerce_type(composite)

    def handleParameters(self, inMemoryDataset: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return the parts that parameters select, as `read_composite` does."""
        if not parameters:
            return inMemoryDataset
        with using_resolver_parameter(parameters) as rest:
            return read_composite(as_composite(inMemoryDataset, self.storageClass), rest)

    def selectResponsibleComponent(self, derivedComponent: str, fromComponents: set[str | None]) -> str:
        """Return the component whose file links to all others."""
        return ASSEMBLY

    def add_provenance(
        self, inMemoryDataset: Any, ref: DatasetRef, provenance: DatasetProvenance | None = None
    ) -> Composite:
        """Return a copy that knows which dataset it is, as one from a file does."""
        return as_dataset(self.copy(inMemoryDataset), ref, provenance)

    def copy(self, inMemoryDataset: Any) -> Composite:
        """Return a composite of copies of the values; those that can't be changed are shared."""
        copied = as_composite(inMemoryDataset, self.storageClass).load()
        parts = {
            name: ValuePart(kinds.get(part.kind).share(part.value), part.kind, part.stage)
            if isinstance(part, ValuePart)
            else part
            for name, part in copied.parts.items()
        }
        result = copied.with_parts(parts, id=copied.id)
        result.location = copied.location
        return result


class ComponentDelegate(StorageClassDelegate):  # type: ignore[misc]
    """Applies parameters to single values: components, and datasets that are no composites."""

    def handleParameters(self, inMemoryDataset: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return the part of a value that parameters select; None for an absent component."""
        if inMemoryDataset is None or not parameters:
            return inMemoryDataset
        with using_resolver_parameter(parameters) as rest:
            return read_component(Composite(None, {"value": inMemoryDataset}), "value", rest)

    def copy(self, inMemoryDataset: Any) -> Any:
        """Return a copy of a value, or the value itself if it can't be changed."""
        return kinds.get(kinds.infer(inMemoryDataset)).share(inMemoryDataset)
