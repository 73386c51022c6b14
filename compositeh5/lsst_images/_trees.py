"""The trees that ``lsst.images`` makes of its objects, as components, and back; needs none of its code.

A tree is what its JSON back end writes, with references in the place of arrays. `take_apart` makes components of
it, `Tree` rebuilds it from those of a composite, one field at a time. The layout is described in the package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from astropy.units import Unit
from numpy.typing import NDArray

from .. import kinds
from ..box import Box
from ..composite.composite import Composite
from ..composite.definition import RESERVED_NAMES
from ..composite.lazy import LazyArray
from ..composite.parts import StoredPart
from ..errors import EncodeError, FormatError
from ..kinds.image import Image
from ..kinds.mask import Mask, MaskPlane
from ..kinds.record import Record
from ..kinds.values import decode_value
from ..storage.nodes import ArrayNode, GroupNode, Node, escape_name, unescape_name

TREE = "tree"
"""The component that holds what isn't a component of its own."""

STAMPS = ("schema_url", "schema_version", "min_read_version")
"""What each model says of itself."""

PER_DETECTOR = {"obs_info": "detector_"}
"""Fields of which the entries whose names begin so differ among the detectors of a visit.

These entries are a component of their own, so that the rest can be shared.
"""

BYTES = ":bytes"
"""What a source ends with that means the bytes of a mask, on a first axis of their own."""

_JSON, _PLANE = "json", "$plane"
_REFERENCE = {"source", "shape", "datatype"}


def take_apart(tree: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the components of a tree, by name.

    Parameters
    ----------
    tree : mapping
        The JSON of the tree.
    arrays : mapping
        The arrays, by the sources that the references in the tree name.
    """
    components: dict[str, Any] = {}
    root = _Planes(arrays, components, set(map(component_of, tree))).replaced(dict(tree), "image", is_root=True)
    rest: dict[str, Any] = {}
    for field, value in root.items():
        name = component_of(field)
        if field in (*STAMPS, _PLANE) or _has_planes(value) or not (isinstance(value, dict) or _is_scalar(value)):
            rest[field] = value
        elif value is None or isinstance(value, str):
            components[name] = value
        elif not isinstance(value, dict):
            components[name] = np.asarray(value)
        elif _is_reference(value, arrays):
            components[name] = arrays[value["source"]]
        elif prefix := PER_DETECTOR.get(field):
            own = {key: each for key, each in value.items() if key.startswith(prefix)}
            components[name] = _record(name, {key: value[key] for key in value if key not in own}, arrays)
            components[f"{name}_{prefix.rstrip('_')}"] = _record(name, own, arrays)
        else:
            components[name] = _record(name, value, arrays)
    return {**components, TREE: _record(TREE, rest, arrays)}


def component_of(field: str) -> str:
    """Return the name of the component of a field of the tree."""
    return f"{field}_" if field in RESERVED_NAMES or field == TREE else field


class _Planes:
    """Makes a component of each image and mask that is anywhere in a tree."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], components: dict[str, Any], taken: set[str]) -> None:
        self._arrays, self._components, self._taken = arrays, components, taken

    def replaced(self, value: Any, name: str, *, is_root: bool = False) -> Any:
        """Return a part of the tree with what is left of images and masks, and the names of their components."""
        if isinstance(value, list):
            return [self.replaced(item, f"{name}_{i}") for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        found = self._image(value) or self._mask(value)
        if found is not None:
            planes, rest = found
            own = "mask" if is_root and isinstance(planes[0], Mask) else name
            value = {_PLANE: [self._added(plane, own) for plane in planes], **rest}
        return {key: self.replaced(each, key if is_root else f"{name}_{key}") for key, each in value.items()}

    def _added(self, plane: Image | Mask, name: str) -> str:
        name = own = re.sub(r"[^0-9A-Za-z_]", "_", name)
        number = 2
        # A field has the name of its component; others give way.
        while own in self._components or (own in self._taken and own != name):
            own = f"{name}_{number}"
            number += 1
        self._components[own] = plane
        return own

    def _pixels(self, reference: Any, dtype_kinds: str) -> NDArray[Any] | None:
        array = self._arrays.get(reference.get("source", "")) if isinstance(reference, dict) else None
        return array if array is not None and array.ndim == 2 and array.dtype.kind in dtype_kinds else None

    def _image(self, model: dict[str, Any]) -> tuple[list[Image], dict[str, Any]] | None:
        data = model.get("data")
        if not isinstance(data, dict) or "yx0" not in model:
            return None
        array = self._pixels(data.get("value", data), Image.DTYPE_KINDS)
        if array is None:
            return None
        rest = {key: value for key, value in model.items() if key not in ("data", "yx0")}
        unit = data.get("unit")
        try:
            return [Image(array, tuple(model["yx0"]), None if unit is None else _unit(unit))], rest
        except EncodeError:
            # A unit that only lsst.images knows.
            return [Image(array, tuple(model["yx0"]))], {**rest, "unit": unit}

    def _mask(self, model: dict[str, Any]) -> tuple[list[Mask], dict[str, Any]] | None:
        if not (isinstance(model.get("data"), list) and "yx0" in model and isinstance(model.get("planes"), list)):
            return None
        arrays = [self._pixels(reference, Mask.DTYPE_KINDS) for reference in model["data"]]
        names = iter(plane for plane in model["planes"] if plane is not None)
        masks = []
        for array in arrays:
            if array is None:
                return None
            bits = range(array.dtype.itemsize * 8 - 1)
            own = zip(bits, names, strict=False)
            planes = {plane["name"]: MaskPlane(bit, plane["description"]) for bit, plane in own}
            masks.append(Mask(array, planes, tuple(model["yx0"])))
        rest = {key: value for key, value in model.items() if key not in ("data", "yx0", "planes")}
        return masks, {**rest, "unused": [i for i, plane in enumerate(model["planes"]) if plane is None]}


def _has_planes(value: Any) -> bool:
    if isinstance(value, dict):
        return _PLANE in value or any(map(_has_planes, value.values()))
    return isinstance(value, list) and any(map(_has_planes, value))


def _record(component: str, fields: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Record:
    """Return the record of a JSON object: what is nested in it as JSON, arrays as arrays named by their path."""
    # Each dataset takes its time to open: what only lsst.images needs has none of its own.
    hidden = {_JSON} if component == TREE else {_JSON, *STAMPS}
    plain = {key: value for key, value in fields.items() if key not in hidden and _is_plain(value)}
    found: dict[str, NDArray[Any]] = {}

    def placed(value: Any, path: str) -> Any:
        if isinstance(value, list):
            # Columns of tables are better known by their names.
            names = [str(item.get("name", i)) if isinstance(item, dict) else str(i) for i, item in enumerate(value)]
            return [placed(item, f"{path}.{name}") for item, name in zip(value, names, strict=True)]
        if not isinstance(value, dict):
            return value
        if _is_reference(value, arrays):
            while path in found or path in plain:
                path += "_"
            found[path] = arrays[value["source"]]
            return {**value, "source": f"{component}/{path}"}
        return {key: placed(item, f"{path}.{key}" if path else key) for key, item in value.items()}

    nested = placed({key: value for key, value in fields.items() if key not in plain}, "")
    return Record({**plain, **found, **({_JSON: json.dumps(nested)} if nested else {})})


def _is_reference(value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    return value.keys() >= _REFERENCE and value["source"] in arrays


def _is_plain(value: Any) -> bool:
    """Return whether a record gives a value back as it is, without needing many datasets for it."""
    if isinstance(value, list):
        return len({type(item) for item in value}) <= 1 and all(map(_is_scalar, value))
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        # HDF5 has no other text.
        return "\0" not in value and value.encode(errors="replace").decode() == value
    return value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63)


def _unit(text: str) -> Any:
    try:
        return Unit(text, format="vounit")
    except ValueError:
        return text


class Tree:
    """The tree of an object that is stored as a composite, of which only what is asked for is read.

    Parameters
    ----------
    composite : Composite
        The composite, which must stay open.

    Raises
    ------
    FormatError
        If it isn't made of a tree.
    """

    def __init__(self, composite: Composite) -> None:
        self.composite = composite
        self._nodes: dict[str, Node] = {}
        self._opened = ExitStack()
        if TREE not in composite or composite.kind(TREE) != "record":
            raise FormatError(f"{composite.where}: isn't an object of lsst.images: it has no record {TREE!r}")
        self._rest = self._fields(TREE)
        for name in STAMPS:
            expected = int if name == "min_read_version" else str
            if not isinstance(self._rest.get(name), expected):
                raise FormatError(f"{composite.where}/{TREE}: {name!r} should be {expected.__name__}")

    def stamp(self, name: str) -> Any:
        """Return one of the `STAMPS`."""
        return self._rest[name]

    def close(self) -> None:
        """Close the files of linked components."""
        self._opened.close()
        self._nodes.clear()

    def field(self, name: str) -> Any:
        """Return the JSON of a field of the root.

        Raises
        ------
        KeyError
            If there is none.
        FormatError
            If its component isn't as `take_apart` makes it.
        """
        own = component_of(name)
        if name in self._rest and name != _PLANE:
            return self._filled(self._rest[name])
        if _PLANE in self._rest and name in (plane := self._plane(self._rest)):
            return plane[name]
        if own in self.composite.absent:
            return None
        if own not in self.composite:
            raise KeyError(name)
        kind = self.composite.kind(own)
        if kind == "text":
            return self.composite[own]
        if kind == "array":
            node = self._node(own)
            if isinstance(node, ArrayNode) and node.ndim:
                return _reference(own, node)
            return np.asarray(self.composite[own]).tolist()
        if kind != "record":
            raise FormatError(f"{self.composite.where}/{own}: a component of kind {kind!r} is no field of a tree")
        fields = self._fields(own)
        if prefix := PER_DETECTOR.get(name):
            rest = f"{own}_{prefix.rstrip('_')}"
            fields |= self._fields(rest) if rest in self.composite else {}
        return fields

    def whole(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the JSON of the root, with those of these fields that there are."""
        result = dict(self._rest)
        for name in names:
            with suppress(KeyError):
                result[name] = self.field(name)
        return result

    def array(self, source: str) -> Callable[[tuple[slice, ...]], NDArray[Any]]:
        """Return what reads a part of the array that a reference means; a `FormatError` says that there is none."""
        name, _, path = source.partition("/")
        if name not in self.composite:
            raise FormatError(f"{self.composite.where}: has no array {source!r}")
        if path and not isinstance(self.composite.part(name), StoredPart):
            # Linked ones are decoded once per process.
            value = self.composite[name]
            if isinstance(value, Record) and isinstance(value.get(path), np.ndarray):
                return lambda selection: value[path][selection]
        else:
            node: Node | None = self._node(name)
            if path and isinstance(node, GroupNode):
                node = node.get(escape_name(path))
            if isinstance(node, ArrayNode):
                return node.read
        raise FormatError(f"{self.composite.where}: {source!r} isn't an array")

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            self._nodes[name], target = self.composite.part(name).open_node()
            if target is not None:
                self._opened.callback(target.close)
        return self._nodes[name]

    def _fields(self, name: str) -> dict[str, Any]:
        """Return the JSON object of a record; its arrays are not read."""
        fields = dict(self._plain_fields(name))
        text = fields.pop(_JSON, None)
        if text is None:
            return fields
        try:
            nested = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError(f"{self.composite.where}/{name}/{_JSON}: isn't valid JSON: {error}") from error
        if not isinstance(nested, dict):
            raise FormatError(f"{self.composite.where}/{name}/{_JSON}: should be a JSON object")
        return {**fields, **nested}

    def _plain_fields(self, name: str) -> Iterator[tuple[str, Any]]:
        if not isinstance(self.composite.part(name), StoredPart):
            for key, value in self.composite[name].items():
                if not isinstance(value, np.ndarray):
                    yield key, value
            return
        node = self._node(name)
        if not isinstance(node, GroupNode):
            raise FormatError(f"{node.where}: there should be a record")
        for link, child in node.items():
            if child.attr("type", str) != "array":
                yield unescape_name(link, node.where), decode_value(child)

    def _filled(self, value: Any) -> Any:
        """Return a part of the tree with the models of its images and masks."""
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if not isinstance(value, dict):
            return value
        if _PLANE in value:
            value = {**{key: each for key, each in value.items() if key != _PLANE}, **self._plane(value)}
        return {key: self._filled(each) for key, each in value.items()}

    def _plane(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the model of an image or a mask that follow from its components."""
        names = model[_PLANE]
        where = self.composite.where
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise FormatError(f"{where}/{TREE}: {_PLANE!r} should be a list of components, not {names!r}")
        references = []
        planes: list[dict[str, str] | None] = []
        for name in names:
            if name not in self.composite:
                raise FormatError(f"{where}: has no component {name!r}, which its tree names")
            node = self._node(name)
            if not isinstance(node, ArrayNode) or node.ndim != 2:
                raise FormatError(f"{node.where}: should be an image or a mask with two axes")
            references.append(_reference(name, node))
            # What there is to know but the pixels.
            y0, x0 = LazyArray(node).origin
            empty = kinds.decode(node, box=Box(y0, y0, x0, x0))
            if isinstance(empty, Mask):
                planes += [{"name": plane, "description": known.description} for plane, known in empty.planes.items()]
        if isinstance(empty, Mask):
            unused = model.get("unused")
            if not (isinstance(unused, list) and all(type(index) is int for index in unused)):
                raise FormatError(f"{where}/{TREE}: 'unused' should be a list of integers, not {unused!r}")
            for index in unused:
                planes.insert(index, None)
            bits = [known.bit for known in empty.planes.values()]
            if len(names) == 1 and bits == list(range(len(planes))) and bits and model.get("dtype") == "uint8":
                # The bytes are those of the mask in memory: it needs no conversion plane by plane.
                shape = [*references[0]["shape"], -(-len(bits) // 8)]
                references = [{"source": names[0] + BYTES, "shape": shape, "datatype": "uint8"}]
            return {"data": references, "yx0": [y0, x0], "planes": planes}
        unit = model.get("unit") if empty.unit is None else _unit_text(empty.unit)
        data = references[0] if unit is None else {"value": references[0], "unit": unit}
        return {"data": data, "yx0": [y0, x0]}


def _reference(source: str, node: ArrayNode) -> dict[str, Any]:
    return {"source": source, "shape": list(node.shape), "datatype": node.dtype.name}


def _unit_text(unit: Any) -> str:
    """Return a unit as lsst.images writes it."""
    try:
        return str(unit.to_string("vounit"))
    except ValueError:
        return str(unit.to_string())
