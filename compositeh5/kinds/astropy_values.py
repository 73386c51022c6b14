"""Typed values of astropy: quantities, masked ones, times, locations, coordinates and their frames.

Classes are looked up by name in astropy's own registries of time formats, scales, frames, representations and
ellipsoids; a file can't name anything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.coordinates import (
    Angle,
    BaseCoordinateFrame,
    BaseDifferential,
    BaseRepresentation,
    Distance,
    EarthLocation,
    Latitude,
    Longitude,
    SkyCoord,
    SkyOffsetFrame,
    frame_transform_graph,
)
from astropy.coordinates.representation import DIFFERENTIAL_CLASSES, REPRESENTATION_CLASSES
from astropy.time import Time, TimeDelta
from astropy.units import Decibel, Dex, Magnitude, Quantity, deg
from astropy.utils.masked import Masked

from ..errors import EncodeError, FormatError
from ..storage.nodes import Array, AttrValue, Group, GroupNode, Node
from .units import unit_from_text, unit_to_text
from .values import Decoder, Encoder, decode_value, encode_value, nested, read_mask, read_part, read_rows, value_shape

_QUANTITIES: dict[str, type[Quantity]] = {
    "quantity": Quantity,
    "angle": Angle,
    "latitude": Latitude,
    "longitude": Longitude,
    "distance": Distance,
    "magnitude": Magnitude,
    "decibel": Decibel,
    "dex": Dex,
}
_QUANTITY_NAMES = {cls: name for name, cls in _QUANTITIES.items()}
_NUMBERS = "biufc"
_TIME_DEFAULTS: dict[str, int | str] = {"precision": 3, "in_subfmt": "*", "out_subfmt": "*"}


def encoder(cls: type) -> Encoder | None:
    """Return the function that encodes values of an astropy class; None if there is none."""
    if cls in _QUANTITY_NAMES:
        return _encode_quantity
    if cls in _TIME_NAMES:
        return _encode_time
    if cls is EarthLocation:
        return _encode_location
    if cls is SkyCoord:
        return _encode_sky_coord
    if issubclass(cls, Masked):
        return _encode_masked
    if issubclass(cls, BaseCoordinateFrame):
        return _encode_frame
    return _encode_representation if issubclass(cls, BaseRepresentation | BaseDifferential) else None


def _encode_quantity(value: Quantity, path: str) -> Node:
    node = encode_value(value.view(np.ndarray), path)
    attrs: dict[str, AttrValue] = {"type": _QUANTITY_NAMES[type(value)], "units": unit_to_text(value.unit, path)}
    if isinstance(value, Longitude) and value.wrap_angle.to_value(deg) != 360:
        attrs["wrap_angle"] = float(value.wrap_angle.to_value(deg))
    node.attrs = attrs
    return node


def _decode_quantity(node: Node, rows: slice | None) -> Quantity:
    values = read_rows(node, rows, _NUMBERS)
    unit = unit_from_text(node.attr("units", str), node.where)
    cls = _QUANTITIES[node.attr("type", str)]
    options: dict[str, Any] = {}
    if cls is Longitude:
        options["wrap_angle"] = Angle(node.attr("wrap_angle", float, 360.0), deg)
    elif cls is Distance:
        options["allow_negative"] = True
    return cls(values, unit, dtype=values.dtype, copy=False, **options)


def _encode_masked(value: Any, path: str) -> Node:
    with nested(path, EncodeError):
        values, mask = encode_value(value.unmasked, path), Array(np.asarray(value.mask), {}, f"{path}.mask")
    return Group({"values": values, "mask": mask}, {"type": "masked"}, path)


def _decode_masked(node: GroupNode, rows: slice | None) -> Any:
    values = node.array("values")
    return Masked(decode_value(values, rows), mask=read_mask(node, value_shape(values), rows), copy=False)


def _encode_time(value: Time | TimeDelta, path: str) -> Node:
    plain = value.unmasked if value.masked else value
    children: dict[str, Node] = {
        name: Array(np.asarray(getattr(plain, name)), {}, f"{path}.{name}") for name in ("jd1", "jd2")
    }
    attrs: dict[str, AttrValue] = {"type": _TIME_NAMES[type(value)], "format": value.format}
    if value.scale is not None:
        attrs["scale"] = value.scale
    for name, default in _TIME_DEFAULTS.items():
        if (setting := getattr(value, name)) != default:
            attrs[name] = setting
    with nested(path, EncodeError):
        if value.masked:
            children["mask"] = Array(np.asarray(value.mask), {}, f"{path}.mask")
        if isinstance(value, Time) and value.location is not None:
            children["location"] = encode_value(value.location, f"{path}.location")
    if isinstance(value, Time) and value.isscalar and not value.masked and (text := _isot(value)):
        attrs["isot"] = text
    return Group(children, attrs, path)


def _isot(value: Time) -> str | None:
    """Return a scalar time for human readers; None where that format has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # erfa finds far future years dubious
        try:
            return str(value.isot)
        except ValueError:
            return None


def _decode_time(node: GroupNode, rows: slice | None) -> Time | TimeDelta:
    cls = _TIMES[node.attr("type", str)]
    scale, format_ = node.attr("scale", str, None), node.attr("format", str)
    if scale not in cls.SCALES and not (scale is None and cls is TimeDelta):
        raise FormatError(f"{node.where}: there is no time scale {scale!r} (there are {', '.join(cls.SCALES)})")
    if format_ not in cls.FORMATS:
        raise FormatError(f"{node.where}: there is no time format {format_!r} (there are {', '.join(cls.FORMATS)})")
    shape = value_shape(node)
    jd1, jd2 = (read_rows(node.array(name, len(shape)), rows, "f") for name in ("jd1", "jd2"))
    if jd1.shape != jd2.shape:
        raise FormatError(f"{node.where}: jd1 and jd2 differ in shape: {jd1.shape}, {jd2.shape}")
    options: dict[str, Any] = {}
    if "location" in node:
        options["location"] = read_part(node["location"], rows, shape[:1])
    value = cls(jd1, jd2, format="jd", scale=scale, **options)
    if "mask" in node:
        # Not before: masked input would lose the values under the mask.
        value[read_mask(node, shape, rows)] = np.ma.masked
    value.format = format_
    for name, default in _TIME_DEFAULTS.items():
        setattr(value, name, node.attr(name, type(default), default))
    # It holds copies of what was read, which may be shared.
    value.writeable = jd1.flags.writeable
    return value


_TIMES: dict[str, type[Time | TimeDelta]] = {"time": Time, "timedelta": TimeDelta}
_TIME_NAMES = {cls: name for name, cls in _TIMES.items()}


def _encode_location(value: EarthLocation, path: str) -> Node:
    xyz = np.stack([part.value for part in (value.x, value.y, value.z)], axis=-1)
    attrs = {"type": "earth_location", "units": unit_to_text(value.unit, path), "ellipsoid": value.ellipsoid}
    return Array(xyz, attrs, path)


def _decode_location(node: Node, rows: slice | None) -> EarthLocation:
    xyz = read_rows(node, rows, "f")
    if xyz.shape[-1:] != (3,) or xyz.dtype != np.float64:
        raise FormatError(f"{node.where}: locations should be float64 of shape (..., 3), not {xyz.dtype} {xyz.shape}")
    unit = unit_from_text(node.attr("units", str), node.where)
    value = EarthLocation.from_geocentric(*np.moveaxis(xyz, -1, 0), unit=unit)
    value.ellipsoid = node.attr("ellipsoid", str)
    value.flags.writeable = xyz.flags.writeable
    return value


def _encode_sky_coord(value: SkyCoord, path: str) -> Node:
    node = _encode_frame(value.frame, path)
    # A SkyCoord also carries attributes of other frames, for transformations to them.
    others = {
        name: attribute
        for name in sorted(frame_transform_graph.frame_attributes.keys() - value.frame.frame_attributes.keys())
        if (attribute := getattr(value, name)) is not None
    }
    _add_attributes(node, others, path)
    node.attrs["type"] = "sky_coord"
    return node


def _decode_sky_coord(node: GroupNode, rows: slice | None) -> SkyCoord:
    frame, others = _decode_frame_parts(node, rows)
    value = SkyCoord(frame, copy=False)
    for name, attribute in others.items():
        setattr(value, name, attribute)
    return value


def _encode_frame(value: BaseCoordinateFrame, path: str) -> Group:
    cls = type(value)
    if isinstance(value, SkyOffsetFrame) or frame_transform_graph.lookup_name(value.name) is not cls:
        raise EncodeError(
            f"{path}: coordinates in the frame {cls.__name__} can't be stored; transform them to one that astropy "
            f"knows by name, such as 'icrs'"
        )
    if not value.has_data:
        raise EncodeError(f"{path}: a frame without coordinates can't be stored; pass its name")
    node = _encode_representation(value.data, path)
    node.attrs = {
        "type": "frame",
        "frame": value.name,
        "representation": node.attrs["representation"],
        "representation_type": _class_name(REPRESENTATION_CLASSES, value.representation_type, path),
    }
    if value.differential_type is not None:
        node.attrs["differential_type"] = _class_name(DIFFERENTIAL_CLASSES, value.differential_type, path)
    attributes = {
        name: getattr(value, name) for name in value.frame_attributes if not value.is_frame_attr_default(name)
    }
    _add_attributes(node, attributes, path)
    return node


def _add_attributes(node: Group, attributes: Mapping[str, Any], path: str) -> None:
    if attributes:
        with nested(path, EncodeError):
            children = {name: encode_value(value, f"{path}.{name}") for name, value in attributes.items()}
        group = node.children.setdefault("attributes", Group({}, {}, f"{path}.attributes"))
        assert isinstance(group, Group)
        group.children.update(children)


def _decode_frame(node: GroupNode, rows: slice | None) -> BaseCoordinateFrame:
    frame, others = _decode_frame_parts(node, rows)
    if others:
        raise FormatError(f"{node.where}: frame {frame.name!r} has no attribute {next(iter(others))!r}")
    return frame


def _decode_frame_parts(node: GroupNode, rows: slice | None) -> tuple[BaseCoordinateFrame, dict[str, Any]]:
    """Return a frame with its data, and those attributes that aren't the frame's own."""
    name = node.attr("frame", str)
    cls = frame_transform_graph.lookup_name(name)
    if cls is None or issubclass(cls, SkyOffsetFrame):
        raise FormatError(f"{node.where}: there is no coordinate frame {name!r}; import the package that defines it")
    data = _decode_representation(node, rows, REPRESENTATION_CLASSES)
    attributes = {}
    if "attributes" in node:
        shape = value_shape(node)
        for key, child in node.group("attributes").items():
            if key not in frame_transform_graph.frame_attributes:
                raise FormatError(f"{node.where}: no coordinate frame has an attribute {key!r}")
            attributes[key] = read_part(child, rows, shape[:1])
    own = {key: attributes.pop(key) for key in cls.frame_attributes if key in attributes}
    frame = cls(data, copy=False, **own)
    shown_as, velocities = node.attr("representation_type", str), node.attr("differential_type", str, None)
    frame.set_representation_cls(
        _class(REPRESENTATION_CLASSES, shown_as, node),
        None if velocities is None else _class(DIFFERENTIAL_CLASSES, velocities, node),
    )
    return frame, attributes


def _encode_representation(value: BaseRepresentation | BaseDifferential, path: str) -> Group:
    is_differential = isinstance(value, BaseDifferential)
    registry = DIFFERENTIAL_CLASSES if is_differential else REPRESENTATION_CLASSES
    differentials = {} if is_differential else value.differentials
    if differentials.keys() - {"s"}:
        raise EncodeError(f"{path}: derivatives other than the velocity can't be stored with coordinates")
    with nested(path, EncodeError):
        children = {name: encode_value(getattr(value, name), f"{path}.{name}") for name in value.components}
        if differentials:
            children["differential"] = encode_value(differentials["s"], f"{path}.differential")
    attrs: dict[str, AttrValue] = {
        "type": "differential" if is_differential else "representation",
        "representation": _class_name(registry, type(value), path),
    }
    return Group(children, attrs, path)


def _decode_representation(
    node: GroupNode, rows: slice | None, registry: Mapping[str, type]
) -> BaseRepresentation | BaseDifferential:
    cls: Any = _class(registry, node.attr("representation", str), node)
    components = {name: decode_value(node[name], rows) for name in cls.attr_classes}
    value = cls(**components, copy=False)
    if "differential" in node and issubclass(cls, BaseRepresentation):
        value = value.with_differentials({"s": decode_value(node.group("differential"), rows)})
    return value


def _class_name(registry: Mapping[str, type], cls: type, path: str) -> str:
    for name, registered in registry.items():
        if registered is cls:
            return name
    raise EncodeError(f"{path}: astropy knows no representation {cls.__name__} by name")


def _class(registry: Mapping[str, type], name: str, node: Node) -> type:
    if name not in registry:
        raise FormatError(f"{node.where}: there is no representation {name!r} (there are {', '.join(registry)})")
    return registry[name]


DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(_QUANTITIES, _decode_quantity),
    "masked": _decode_masked,
    "time": _decode_time,
    "timedelta": _decode_time,
    "earth_location": _decode_location,
    "sky_coord": _decode_sky_coord,
    "frame": _decode_frame,
    "representation": lambda node, rows: _decode_representation(node, rows, REPRESENTATION_CLASSES),
    "differential": lambda node, rows: _decode_representation(node, rows, DIFFERENTIAL_CLASSES),
}
"""The functions that decode values, by the names of their types."""
