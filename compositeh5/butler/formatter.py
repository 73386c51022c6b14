"""The formatter: how datasets become files, and files datasets."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from lsst.daf.butler import DatasetProvenance, FormatterV2
from lsst.daf.butler.datastore.cache_manager import AbstractDatastoreCacheManager
from lsst.resources import ResourcePath

from ..composite.composite import Composite
from ..composite.definitions import definition_names, get_definition
from ..composite.writing import write_image_of
from ..errors import ConfigurationError, suggest
from ..storage.layout import DEFAULT
from ..storage.publish import Output, make_folders, named, write_durably
from ..storage.recipes import OTHERS, Recipes, read_recipes
from .dataset_files import location_of, opener, using_resolver_parameter
from .datasets import (
    as_composite,
    as_dataset,
    is_composite_class,
    read_component,
    read_composite,
    with_dataset_identity,
)
from .disassembly import Piece, read_piece

SINGLE_COMPONENT = "value"
"""Name of the component of a file that holds a dataset which is no composite."""

_recipe: ContextVar[str | None] = ContextVar("_recipe", default=None)


@contextmanager
def use_recipe(name: str | None) -> Iterator[None]:
    """Choose the recipe of all puts within a ``with`` block; with None, the configuration chooses."""
    token = _recipe.set(name)
    try:
        yield
    finally:
        _recipe.reset(token)


class CompositeFormatter(FormatterV2):  # type: ignore[misc]
    """Stores composites, objects that a definition makes composites of, and single components, in HDF5 files.

    A file has the id, data ID, dataset type and run of its dataset. Reading needs no configuration; only the parts that
    are asked for are read. Components of disassembled composites, and datasets that are no composites, are stored
    as composites of one component.

    How they are compressed follows from the section ``write_recipes`` of the configuration of formatters, which has
    for this class recipes by name: for each, the settings of `~compositeh5.Recipe` by component, those of others under
    ``default``. The write parameter ``recipe`` chooses one; without it, it is the one named ``default``, if any.

    Raises
    ------
    ConfigurationError
        If a recipe is wrong, or for a component that there isn't, or there is none of the name that the write parameter
        gives.
    """

    default_extension = ".h5"
    supported_extensions = frozenset({".h5", ".hdf5"})
    supported_write_parameters = frozenset({"recipe"})
    can_read_from_uri = True

    _provenance: DatasetProvenance | None = None

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._recipes = self._chosen_recipes()

    @classmethod
    def validate_write_recipes(cls, recipes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the recipes as they are.

        Raises
        ------
        ConfigurationError
            If one of them has a wrong setting. The message names the recipe, the component and the setting.
        """
        for name, settings in (recipes or {}).items():
            read_recipes(name, settings)
        return recipes

    def can_accept(self, in_memory_dataset: Any) -> bool:
        """Return whether this is a composite for such datasets, or what the delegate gives for a component of one."""
        return isinstance(in_memory_dataset, Piece) or (
            isinstance(in_memory_dataset, Composite) and is_composite_class(self.file_descriptor.storageClass.pytype)
        )

    def add_provenance(self, in_memory_dataset: Any, /, *, provenance: DatasetProvenance | None = None) -> Any:
        """Keep the provenance for the file; the object stays as it is."""
        self._provenance = provenance
        return in_memory_dataset

    def write_direct(
        self,
        in_memory_dataset: Any,
        uri: ResourcePath,
        cache_manager: AbstractDatastoreCacheManager | None = None,
    ) -> bool:
        """Write a dataset to its place if that is local, and return whether it was written.

        The Butler itself would not force the name of the file to the disk, and its registry could know of a dataset
        that a loss of power has taken away.

        Raises
        ------
        DefinitionError, EncodeError, OSError
            As `write_local_file` does; nothing is left behind.
        """
        if not uri.isLocal:
            return super().write_direct(in_memory_dataset, uri, cache_manager)  # type: ignore[no-any-return]
        make_folders(os.path.dirname(uri.ospath))
        with named(uri.ospath, replace=True) as temporary:
            self.write_local_file(in_memory_dataset, uri.updatedFile(os.path.basename(temporary)))
        return True

    def to_bytes(self, in_memory_dataset: Any) -> bytes:
        """Return the bytes of the file of a dataset, for a remote datastore whose files aren't cached.

        Raises
        ------
        DefinitionError, EncodeError
            As `write_local_file` does.
        """
        image = io.BytesIO()
        self._write(in_memory_dataset, image)
        return image.getvalue()

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write a dataset to a file that will get another name, and force it to the disk.

        It takes little more memory than the dataset has.

        Raises
        ------
        DefinitionError
            If the storage class doesn't have all components of a composite.
        EncodeError
            If a component can't be stored.
        OSError
            If the file can't be written.
        """
        write_durably(uri.ospath, partial(self._write, in_memory_dataset))

    def _write(self, in_memory_dataset: Any, output: Output | io.BytesIO) -> None:
        if isinstance(in_memory_dataset, Piece):
            # Of the pieces only what joins them has a provenance: the delegate was given it.
            composite = with_dataset_identity(in_memory_dataset.composite(), self.dataset_ref)
        else:
            composite = as_dataset(self._composite(in_memory_dataset), self.dataset_ref, self._provenance)
        # Links are relative to where the file will be, not to where it is written.
        final = location_of(self.file_descriptor.location.uri.updatedExtension(self.default_extension))
        # A recipe serves many dataset types: it may be for components that this one doesn't have.
        recipes = {name: recipe for name, recipe in self._recipes.items() if name in composite or name == OTHERS}
        write_image_of({DEFAULT: composite}, final, output, recipes=recipes)
        if isinstance(in_memory_dataset, Piece):
            in_memory_dataset.written(composite, final)

    def read_from_uri(self, uri: ResourcePath, component: str | None = None, expected_size: int = -1) -> Any:
        """Read a dataset, or a component, or the part that the parameters of the get select.

        Raises
        ------
        FileNotFoundError
            If the file is lost; `BrokenLinkError` if it is that of a linked component.
        CompositeH5Error
            If it can't be read, or has no such part.
        """
        original = self.file_descriptor.location.uri
        with (
            using_resolver_parameter(self.file_descriptor.parameters) as parameters,
            opener(uri, self.dataset_ref, original=original, size=expected_size)() as composite,
        ):
            return self._read(composite, component, parameters)

    def _read(self, composite: Composite, component: str | None, parameters: dict[str, Any]) -> Any:
        piece = self.file_descriptor.component
        if component is not None and component != piece:
            return read_component(composite, component, parameters)
        if piece is not None:
            return read_piece(composite, piece, parameters)
        if SINGLE_COMPONENT in composite and not is_composite_class(self.file_descriptor.storageClass.pytype):
            return read_component(composite, SINGLE_COMPONENT, parameters)
        # The storage class makes the objects of a user's own class of it.
        return read_composite(composite, parameters)

    def _composite(self, in_memory_dataset: Any) -> Composite:
        piece, storage_class = self.file_descriptor.component, self.file_descriptor.storageClass
        if piece is None and (
            isinstance(in_memory_dataset, Composite)
            or is_composite_class(storage_class.pytype)
            or storage_class.components
        ):
            return as_composite(in_memory_dataset, storage_class)
        # What another delegate takes out of an object of its own goes by its name, as our pieces do.
        return Composite(None, {piece or SINGLE_COMPONENT: in_memory_dataset})

    def _chosen_recipes(self) -> Recipes:
        name = _recipe.get() or self.write_parameters.get("recipe")
        if name is None:
            name = OTHERS
        elif name not in self.write_recipes:
            raise ConfigurationError(
                f"{self.dataset_ref.datasetType.name}: there is no recipe {name!r} among the write_recipes of "
                f"{self.name()}{suggest(name, self.write_recipes)}"
            )
        recipes = read_recipes(name, self.write_recipes.get(name, {}))
        if recipes:
            self._check_components(name, recipes)
        return recipes

    def _check_components(self, name: str, recipes: Recipes) -> None:
        # One recipe may serve many dataset types, so it may be for components that this one doesn't have.
        storage_class = self.dataset_ref.datasetType.storageClass
        known = {SINGLE_COMPONENT, OTHERS}.union(
            storage_class.components, *(get_definition(each).components for each in definition_names())
        )
        for component in recipes:
            if component not in known:
                raise ConfigurationError(
                    f"recipe {name!r}: neither the storage class {storage_class.name} nor a definition has a component "
                    f"{component!r}{suggest(component, known)}; if others have it, give them a recipe of their own"
                )
