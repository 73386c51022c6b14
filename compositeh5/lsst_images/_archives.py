"""The archives of ``lsst.images`` over composites: what its types write themselves to, and are read from."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import EllipsisType
from typing import Any

import numpy as np
import pydantic
from astropy.table import Column, Table
from lsst.images.serialization import (
    ArchiveInfo,
    ArchiveReadError,
    ArchiveTree,
    ArrayReferenceModel,
    InlineArrayModel,
    InputArchive,
    JsonRef,
    NestedOutputArchive,
    NumberType,
    OutputArchive,
    TableColumnModel,
    TableModel,
    class_for_schema,
    parameterize_tree,
)
from numpy.typing import NDArray

from ..composite.composite import Composite
from ..composite.opening import Source, open_composite
from ..errors import FormatError, UnknownKindError, UnsupportedVersionError
from ._trees import BYTES, STAMPS, Tree

_INDIRECT = "#/indirect/"


class CompositeOutputArchive(OutputArchive):  # type: ignore[misc]
    """What an object of ``lsst.images`` serializes itself to, on its way to a composite.

    Attributes
    ----------
    arrays : dict of str to ndarray
        The arrays, which are not copied, by the sources that the references in the tree name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrays: dict[str, NDArray[Any]] = {}
        self._pointers: dict[Hashable, JsonRef] = {}
        self._indirect: list[Any] = []
        self._frame_sets: list[tuple[Any, JsonRef]] = []

    def tree(self, obj: Any, metadata: Mapping[str, Any] | None = None, butler_info: Any = None) -> dict[str, Any]:
        """Return the JSON of the tree of an object, with references in the place of arrays."""
        root = self.serialize_root(obj, None if metadata is None else dict(metadata), butler_info)
        root.indirect = self._indirect
        return json.loads(root.model_dump_json())  # type: ignore[no-any-return]

    def serialize_direct(self, name: str, serializer: Callable[[Any], Any]) -> Any:
        return serializer(NestedOutputArchive(f"/{name}", self))

    def serialize_pointer(self, name: str, serializer: Callable[[Any], Any], key: Hashable) -> JsonRef:
        if key not in self._pointers:
            # What it contains may be pointed to as well, and comes first.
            model = self.serialize_direct(name, serializer)
            self._pointers[key] = JsonRef.model_construct(ref=f"{_INDIRECT}{len(self._indirect)}")
            self._indirect.append(model)
        return self._pointers[key]

    def serialize_frame_set(
        self, name: str, frame_set: Any, serializer: Callable[[Any], Any], key: Hashable
    ) -> JsonRef:
        pointer = self.serialize_pointer(name, serializer, key)
        self._frame_sets.append((frame_set, pointer))
        return pointer

    def iter_frame_sets(self) -> Iterator[tuple[Any, JsonRef]]:
        return iter(self._frame_sets)

    def add_array(self, array: NDArray[Any], **hints: Any) -> ArrayReferenceModel:
        # Names, tiles and compression are those of the components; headers are for FITS.
        return self._reference(array)

    def add_table(self, table: Table, **hints: Any) -> TableModel:
        columns = TableColumnModel.from_table(table)
        for column in columns:
            column.data = self._reference(np.asarray(table[column.name]))
        return TableModel(columns=columns, meta=table.meta)

    def add_structured_array(
        self,
        array: NDArray[Any],
        *,
        units: Mapping[str, Any] | None = None,
        descriptions: Mapping[str, str] | None = None,
        **hints: Any,
    ) -> TableModel:
        columns = TableColumnModel.from_record_dtype(array.dtype)
        for column in columns:
            column.data = self._reference(array[column.name])
            column.unit = (units or {}).get(column.name)
            column.description = (descriptions or {}).get(column.name, "")
        return TableModel(columns=columns)

    def _reference(self, array: NDArray[Any]) -> ArrayReferenceModel:
        source = f"array:{len(self.arrays)}"
        self.arrays[source] = np.asarray(array)
        return ArrayReferenceModel(source=source, shape=list(array.shape), datatype=NumberType.from_numpy(array.dtype))


class CompositeInputArchive(InputArchive):  # type: ignore[misc]
    """What an object of ``lsst.images`` reads itself from: a composite, of which only what it asks for is read.

    Parameters
    ----------
    composite : Composite
        The composite, which must stay open.

    Raises
    ------
    FormatError
        If it isn't an object of ``lsst.images``.
    """

    def __init__(self, composite: Composite) -> None:
        self._tree = Tree(composite)
        self._deserialized: dict[int, Any] = {}

    @property
    def info(self) -> ArchiveInfo:
        """Schema of the object."""
        try:
            return ArchiveInfo.from_schema_url(self._tree.stamp("schema_url"), format_version=None)
        except ValueError as error:
            raise FormatError(f"{self._where}: {error}") from error

    @classmethod
    def get_basic_info(cls, path: Source) -> ArchiveInfo:
        with open_composite(path) as composite:
            return cls(composite).info

    @classmethod
    @contextmanager
    def open_tree(
        cls, path: Source | Composite, *, partial: bool = True, **backend_kwargs: Any
    ) -> Iterator[tuple[CompositeInputArchive, Any, ArchiveInfo]]:
        """Open a file, or an open composite; give the archive, the tree and the schema.

        The fields of the tree are read when they are asked for. ``backend_kwargs`` are the parameters of
        `compositeh5.open`; ``partial`` makes no difference.
        """
        if isinstance(path, Composite):
            archive = cls(path)
            try:
                yield archive, archive.root(), archive.info
            finally:
                archive._tree.close()
            return
        with open_composite(path, **backend_kwargs) as composite, cls.open_tree(composite) as opened:
            yield opened

    def root(self) -> Any:
        """Return the model of the root. Its fields are read and validated when they are asked for.

        Raises
        ------
        UnknownKindError
            If no installed package knows the schema.
        UnsupportedVersionError
            If the installed one is too old for it.
        FormatError
            If it isn't what the schema says.
        """
        name = self.info.schema_name
        known = class_for_schema(name)
        if known is None:
            raise UnknownKindError(f"{self._where}: no installed package knows the schema {name!r} of lsst.images")
        model_type = parameterize_tree(known, JsonRef)
        try:
            major, own = (int(str(v).split(".")[0]) for v in (self._tree.stamp("schema_version"), known.SCHEMA_VERSION))
        except ValueError as error:
            raise FormatError(f"{self._where}: the version of its schema isn't one: {error}") from error
        if self._tree.stamp("min_read_version") > own:
            raise UnsupportedVersionError(
                f"{self._where}: the schema {name!r} {self._tree.stamp('schema_version')} needs a newer lsst.images; "
                f"the installed one has {known.SCHEMA_VERSION}"
            )
        if major < own or issubclass(known.PUBLIC_TYPE, ArchiveTree):
            # What brings a tree up to date needs all of it; and so does an object that is its own model.
            return self._validated(model_type, self._tree.whole(list(model_type.model_fields)), name)
        root = _lazy(model_type).model_construct()
        for field in model_type.model_fields.keys() - set(STAMPS):
            root.__dict__.pop(field, None)
        root.__dict__["_compositeh5_archive"] = self
        return root

    def field(self, model_type: type[pydantic.BaseModel], name: str) -> Any:
        """Return a field of the root, read and validated."""
        field = model_type.model_fields[name]
        try:
            value = self._tree.field(name)
        except KeyError:
            if field.is_required():
                raise FormatError(f"{self._where}: has no component {name!r}, which it needs") from None
            return field.get_default(call_default_factory=True)
        return self._validated(_alone(model_type, name), {"value": value}, name).value

    def deserialize_pointer(self, pointer: Any, model_type: Any, deserializer: Callable[[Any, Any], Any]) -> Any:
        index = self._index(pointer)
        if index not in self._deserialized:
            stored = self._tree.field("indirect")
            if not 0 <= index < len(stored):
                raise FormatError(f"{self._where}: has no {pointer.ref}")
            self._deserialized[index] = deserializer(self._validated(model_type, stored[index], pointer.ref), self)
        return self._deserialized[index]

    def get_frame_set(self, ref: Any) -> Any:
        from lsst.images import FrameSet

        found = self._deserialized.get(self._index(ref))
        if not isinstance(found, FrameSet):
            raise ArchiveReadError(f"{self._where}: {ref.ref} must be read as a set of frames before what refers to it")
        return found

    def get_array(
        self,
        model: ArrayReferenceModel | InlineArrayModel,
        *,
        slices: tuple[slice, ...] | EllipsisType = ...,
        strip_header: Any = None,
    ) -> NDArray[Any]:
        if isinstance(model, InlineArrayModel):
            return np.array(model.data, dtype=model.datatype.to_numpy())[slices]
        parts = () if isinstance(slices, EllipsisType) else slices
        source = str(model.source)
        if source.endswith(BYTES) and "/" not in source:
            return self._bytes_of_mask(source.removesuffix(BYTES), parts[1:], model.shape)
        selection = tuple(slice(*each.indices(n)) for each, n in zip(parts, model.shape, strict=False))
        values = self._tree.array(source)(selection)
        # What is in memory belongs to the composite.
        return values if values.base is None and values.flags.writeable else values.copy()

    def get_table(self, model: TableModel, strip_header: Any = None) -> Table:
        table = Table(meta=model.meta)
        for column in model.columns:
            table[column.name] = Column(
                self.get_array(column.data),
                unit=column.unit,
                description=column.description,
                meta=column.meta,
            )
        return table

    def get_structured_array(self, model: TableModel, strip_header: Any = None) -> NDArray[Any]:
        return np.asarray(self.get_table(model).as_array())

    def _bytes_of_mask(self, name: str, parts: tuple[slice, ...], shape: list[int]) -> NDArray[Any]:
        selection = tuple(slice(*each.indices(n)) for each, n in zip(parts, shape, strict=False))
        values = self._tree.array(name)(selection)
        found = values.astype(values.dtype.newbyteorder("<"), copy=False)[..., np.newaxis].view(np.uint8)
        return np.moveaxis(np.ascontiguousarray(found[..., : shape[-1]]), -1, 0)

    @property
    def _where(self) -> str:
        return self._tree.composite.where

    def _index(self, pointer: Any) -> int:
        try:
            return int(pointer.ref.removeprefix(_INDIRECT))
        except ValueError as error:
            raise FormatError(f"{self._where}: {pointer.ref!r} isn't a pointer") from error

    def _validated(self, model_type: Any, value: Any, name: str) -> Any:
        try:
            return model_type.model_validate_json(json.dumps(value))
        except pydantic.ValidationError as error:
            raise FormatError(f"{self._where}: {name!r} isn't as its schema says: {error}") from error
        except ArchiveReadError as error:
            raise UnsupportedVersionError(f"{self._where}: {name!r}: {error}") from error


@cache
def _lazy(model_type: type[ArchiveTree]) -> type[ArchiveTree]:
    """Return a model whose missing fields are read when they are asked for."""

    def __getattr__(self: Any, name: str) -> Any:
        archive = self.__dict__.get("_compositeh5_archive")
        if archive is None or name not in model_type.model_fields:
            return model_type.__getattr__(self, name)
        self.__dict__[name] = archive.field(model_type, name)
        return self.__dict__[name]

    return type(model_type.__name__, (model_type,), {"__getattr__": __getattr__, "__module__": __name__})


@cache
def _alone(model_type: type[pydantic.BaseModel], name: str) -> type[pydantic.BaseModel]:
    """Return a model of one field of another."""
    field: Any = model_type.model_fields[name]
    return pydantic.create_model(name, value=(field.annotation, field))
