"""Dataset types of composites."""

from __future__ import annotations

from lsst.daf.butler import Butler, DatasetType, MissingDatasetTypeError, StorageClassFactory

from ..composite.definition import Definition
from ..composite.definitions import get_definition
from ..errors import DefinitionError


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
