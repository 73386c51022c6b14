"""A formatter for the example objects of the Butler's own tests, which stores them as composites.

It is what somebody writes who has Python objects of their own: `taken_apart` and `put_together` are all there is to it,
reading and writing are those of `CompositeFormatter`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml
from lsst.resources import ResourcePath

from compositeh5 import Composite, Record
from compositeh5.butler.formatter import SINGLE_COMPONENT, CompositeFormatter


class MetricFormatter(CompositeFormatter):
    """Stores each field of an object as a component, and anything else as a composite of one component.

    The parameter ``slice`` of their lists is read as ``rows`` of an array, and their derived component ``counter`` is
    the length of ``data``. Files of YAML or JSON can be ingested.
    """

    supported_extensions = CompositeFormatter.supported_extensions | {".yaml", ".json"}

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        super().write_local_file(self._taken_apart(in_memory_dataset), uri)

    def to_bytes(self, in_memory_dataset: Any) -> bytes:
        return super().to_bytes(self._taken_apart(in_memory_dataset))

    def _taken_apart(self, in_memory_dataset: Any) -> Any:
        return taken_apart(in_memory_dataset) if self.file_descriptor.component is None else stored(in_memory_dataset)

    def read_from_uri(self, uri: ResourcePath, component: str | None = None, expected_size: int = -1) -> Any:
        storage_class = self.file_descriptor.storageClass
        if uri.getExtension() in (".yaml", ".json"):
            with ResourcePath.temporary_uri(suffix=self.default_extension) as converted:
                self.write_local_file(put_together(yaml.safe_load(uri.read()), storage_class.pytype), converted)
                return self.read_from_uri(converted, component)
        parameters = self.file_descriptor.parameters or {}
        self.file_descriptor.parameters = {"rows" if key == "slice" else key: parameters[key] for key in parameters}
        value = super().read_from_uri(uri, "data" if component == "counter" else component, expected_size)
        if component == "counter":
            return len(value)
        wanted = storage_class if component is None else storage_class.allComponents()[component]
        written = None if value is None else put_together(restored(value), wanted.pytype)
        return self.file_descriptor.readStorageClass.coerce_type(written)


def taken_apart(value: Any) -> Composite:
    """Return the composite of an object: of its fields if it has any, else of itself."""
    if hasattr(value, "model_dump"):
        fields = value.model_dump(mode="json")
    elif dataclasses.is_dataclass(value):
        fields = dataclasses.asdict(value)
    elif hasattr(value, "exportAsDict"):
        fields = value.exportAsDict()
    else:
        fields = {SINGLE_COMPONENT: value}
    return Composite(None, {name: stored(field) for name, field in fields.items()})


def put_together(value: Any, pytype: type) -> Any:
    """Return a value, or an object of a type that has its items as fields."""
    if isinstance(value, pytype):
        return value
    if hasattr(pytype, "model_validate"):
        return pytype.model_validate(value)
    return pytype(**value) if isinstance(value, Mapping) else pytype(value)


def stored(value: Any) -> Any:
    """Return a value as its kind takes it.

    Numbers and lists of numbers are arrays (of floats if any is one); a dict whose keys aren't text is a list of pairs.
    """
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        value = list(value.items())
    items = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(item, int | float) for item in items):
        return np.asarray(value)
    return [stored(item) for item in value] if isinstance(value, list | tuple) else value


def restored(value: Any) -> Any:
    """Return a plain Python value for one of a component, or of a composite."""
    if isinstance(value, Composite):
        fields = {**{name: restored(value[name]) for name in value}, **dict.fromkeys(value.absent)}
        return fields.get(SINGLE_COMPONENT, fields)
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, list):
        return [restored(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
