"""Single values (scalars) of components, and tables with one row of them for each composite.

Scalars are the values of records that are one number, truth value, text, time or position; mean and error of
photometric calibrations; centre and corners of what a WCS covers. Their names are the
path to the value, with dots: ``visit_info.weather.humidity``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..composite.cutout import image_box
from ..errors import OutsideError
from ..kinds.units import unit_to_text

if TYPE_CHECKING:
    from astropy.table import QTable
    from astropy.wcs import WCS

    from ..composite.composite import Composite
    from ..composite.link import Link

KINDS_WITH_SCALARS = frozenset({"record", "photo_calib", "wcs"})
"""The kinds of components that have scalars."""

_SHARED = 256
"""So many linked components are kept, for all detectors of a visit link to the same."""

_shared: dict[tuple[Link | None, str], dict[str, Scalar]] = {}

_INT64 = range(-(2**63), 2**63)
# Making the text of a unit takes long, and there are few of them.
_unit_text = lru_cache(1024)(unit_to_text)

_FILL: dict[str, Any] = {
    "bool": False,
    "int": 0,
    "float": np.nan,
    "text": "",
    "time": (0.0, 0.0),
    "corners": (np.nan,) * 4,
}


class Scalar(NamedTuple):
    """A value that can stand in a column, in plain types so that many are made, sent and put together fast.

    Attributes
    ----------
    type : str
        ``"bool"``, ``"int"`` (of 64 bits), ``"float"``, ``"text"``, ``"time"`` or ``"corners"``.
    unit : str
        Unit of a float or of corners, scale of a time; empty where there is none.
    value : object
        The value: of a time two floats, whose sum is the Julian date, of corners four floats.
    """

    type: str
    unit: str
    value: Any


Row: TypeAlias = Mapping[str, Scalar]
"""Scalars by name."""


def component_scalars(composite: Composite, name: str) -> dict[str, Scalar]:
    """Return the scalars of a component of one of the `KINDS_WITH_SCALARS`. No pixel is read."""
    link = composite.links.get(name)
    if (link, name) in _shared:
        return _shared[link, name]
    found = _scalars(composite, name, composite[name])
    # What a WCS covers depends on the image beside it.
    if link is not None and link.kind != "wcs":
        if len(_shared) >= _SHARED:
            _shared.clear()
        _shared[link, name] = found
    return found


def _scalars(composite: Composite, name: str, value: Any) -> dict[str, Scalar]:
    match composite.kind(name):
        case "record":
            return dict(_of_value(name, value))
        case "photo_calib":
            from astropy.units import nJy

            unit = _unit_text(nJy / value.instrumental_unit)
            return {f"{name}.{part}": Scalar("float", unit, getattr(value, part)) for part in ("mean", "error")}
        case _:
            return _of_wcs(composite, name, value)


def to_scalar(value: float | str) -> Scalar:
    """Return a number or text, such as a value of a data ID, as `Scalar`."""
    ((_, scalar),) = _of_value("", value)
    return scalar


def _of_value(name: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    """Yield the scalars of a value of a record; none if it is something else."""
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case bool():
            yield name, Scalar("bool", "", value)
        case int() if value in _INT64:
            yield name, Scalar("int", "", value)
        case int() | str():
            yield name, Scalar("text", "", str(value))
        case float():
            yield name, Scalar("float", "", value)
        case Mapping():
            for key, item in value.items():
                yield from _of_value(f"{name}.{key}", item)
        case None | complex() | bytes() | list() | tuple():
            pass
        case _:
            yield from _of_object(name, value)


def _of_object(name: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    from astropy.coordinates import BaseCoordinateFrame, EarthLocation, SkyCoord, UnitSphericalRepresentation
    from astropy.time import Time
    from astropy.units import Quantity

    if np.shape(value) != () or np.any(getattr(value, "mask", False)):
        return
    if isinstance(value, EarthLocation):
        parts: dict[str, Any] = {"lon": value.lon, "lat": value.lat, "height": value.height}
        yield from _of_value(name, parts)
    elif isinstance(value, Quantity):
        yield name, Scalar("float", _unit_text(value.unit), float(value.value))
    elif isinstance(value, Time):
        yield name, Scalar("time", value.scale, (float(value.jd1), float(value.jd2)))
    elif isinstance(value, SkyCoord | BaseCoordinateFrame):
        parts = {part: getattr(value, part) for part in value.get_representation_component_names()}
        if isinstance(value.data, UnitSphericalRepresentation):
            del parts["distance"]
        yield from _of_value(name, parts)


def _of_wcs(composite: Composite, name: str, wcs: WCS) -> dict[str, Scalar]:
    """Return the ICRS positions of the middle of the image, and of its outer corners from its first pixel on."""
    if not wcs.has_celestial:
        return {}
    sky_wcs = wcs if wcs.naxis == 2 else wcs.celestial
    try:
        # The shape that the WCS knows spares a look at pixels, which may be in another file.
        shape = tuple(reversed(sky_wcs.pixel_shape or ())) or image_box(composite).shape
    except OutsideError:
        return {}
    y1, x1 = (n - 0.5 for n in shape)
    x = np.array([-0.5, x1, x1, -0.5, (x1 - 0.5) / 2])
    y = np.array([-0.5, -0.5, y1, y1, (y1 - 0.5) / 2])
    sky = sky_wcs.pixel_to_world(x, y).icrs
    found: dict[str, Scalar] = {}
    for part, degrees in (("ra", sky.ra.deg.tolist()), ("dec", sky.dec.deg.tolist())):
        if np.isfinite(degrees).all():
            found[f"{name}.{part}"] = Scalar("float", "deg", degrees[4])
            found[f"{name}.{part}_corners"] = Scalar("corners", "deg", tuple(degrees[:4]))
    return found


def table_of(rows: Sequence[Row], first: Mapping[str, str]) -> QTable:
    """Return a table of the scalars of many composites.

    Parameters
    ----------
    rows : sequence of mapping
        Scalars by name. What one doesn't have is masked.
    first : mapping
        Names and types of the columns that come first, also if no row has them; the others follow sorted.

    Returns
    -------
    QTable
        Numbers with a unit are in the unit in which they occur first. Magnitudes are in plain ``mag``: the
        description of their column has the whole unit. Where values of one name can't share a column, being text and
        numbers or of units that can't be converted, later ones have another, ``name [unit]``.
    """
    from astropy.table import QTable

    table = QTable()
    names = [*first, *sorted({name for row in rows for name in row} - first.keys())]
    for name in names:
        scalars = [row.get(name) for row in rows]
        for number, family in enumerate(_families(scalars) or [_ColumnBuilder(first.get(name, "text"), "")]):
            title = f"{name} [{family.unit or family.type}]" if number else name
            while number and (title in names or title in table.colnames):
                title += "_"
            table[title] = family.column(scalars)
            meta = {"field": name} if number else {}
            if family.type == "float" and _is_logarithmic(family.unit):
                meta["unit"] = table[title].info.description = family.unit
            if meta:
                table[title].info.meta = meta
    return table


def rows_of(table: QTable) -> list[dict[str, Scalar]]:
    """Return the rows from which `table_of` made a table."""
    rows: list[dict[str, Scalar]] = [{} for _ in range(len(table))]
    for title in table.colnames:
        column = table[title]
        meta = column.info.meta or {}
        name = meta.get("field", title)
        type_, unit, values = _values(column)
        masked = np.broadcast_to(getattr(column, "mask", False), np.shape(column))
        # Corners are masked all or none.
        missing = masked if masked.ndim == 1 else masked[:, 0]
        for row, value, is_missing in zip(rows, values, missing.tolist(), strict=True):
            if not is_missing:
                row[name] = Scalar(type_, meta.get("unit", unit), value)
    return rows


@dataclass
class _ColumnBuilder:
    """What shares a column: values of one type and unit, and those that can be converted to it."""

    type: str
    unit: str
    factors: dict[tuple[str, str], float] = field(default_factory=dict)

    def admits(self, type_: str, unit: str) -> bool:
        """Return whether values of this type and unit can stand in the column; if so, they may from now on."""
        if (type_, unit) == (self.type, self.unit):
            factor = 1.0
        elif unit == self.unit and {type_, self.type} == {"int", "float"}:
            factor, self.type = 1.0, "float"
        elif type_ == self.type in ("float", "corners") and not any(map(_is_logarithmic, (unit, self.unit))):
            from astropy.units import Unit, UnitConversionError

            try:
                factor = float(Unit(unit).to(Unit(self.unit)))
            except UnitConversionError:
                return False
        else:
            return False
        self.factors[type_, unit] = factor
        return True

    def column(self, scalars: Sequence[Scalar | None]) -> Any:
        """Return the column of those scalars that can stand in it, others masked."""
        from astropy.table import MaskedColumn
        from astropy.time import Time
        from astropy.units import Unit
        from astropy.utils.masked import Masked

        mine = [s if s is not None and s[:2] in self.factors else None for s in scalars]
        values = np.array([_FILL[self.type] if s is None else s.value for s in mine], _DTYPES[self.type])
        values = values.reshape(len(mine), *np.shape(_FILL[self.type]))
        mask = np.array([s is None for s in mine], bool)
        if self.type == "time":
            jd1, jd2 = (Masked(part, mask) if mask.any() else part for part in values.T)
            times = Time(jd1, jd2, format="jd", scale=self.unit)
            times.format = "isot"
            return times
        if any(factor != 1 for factor in self.factors.values()):
            values = (values.T * [1.0 if s is None else self.factors[s[:2]] for s in mine]).T
        if self.unit:
            unit = Unit(self.unit)
            values = values << getattr(unit, "function_unit", unit)
            return Masked(values, np.broadcast_to(mask, values.T.shape).T) if mask.any() else values
        return MaskedColumn(values, mask=mask) if mask.any() else values


_DTYPES: dict[str, Any] = {
    "bool": bool,
    "int": np.int64,
    "float": np.float64,
    "text": np.str_,
    "time": np.float64,
    "corners": np.float64,
}


def _families(scalars: Sequence[Scalar | None]) -> list[_ColumnBuilder]:
    families: list[_ColumnBuilder] = []
    for type_, unit in dict.fromkeys(s[:2] for s in scalars if s is not None):
        if not any(family.admits(type_, unit) for family in families):
            families.append(_ColumnBuilder(type_, unit, {(type_, unit): 1.0}))
    return families


def _values(column: Any) -> tuple[str, str, list[Any]]:
    """Return type, unit and values of a column, of masked ones whatever stands there."""
    if hasattr(column, "jd1"):
        parts = (getattr(part, "unmasked", part).tolist() for part in (column.jd1, column.jd2))
        return "time", column.scale, list(zip(*parts, strict=True))
    unit = _unit_text(column.unit) if getattr(column, "unit", None) is not None else ""
    values = getattr(column, "value", column)
    data = np.asarray(getattr(values, "unmasked", values))
    if data.ndim > 1:
        return "corners", unit, [tuple(row) for row in data.tolist()]
    return {"b": "bool", "i": "int", "f": "float", "U": "text"}[data.dtype.kind], unit, data.tolist()


@cache
def _is_logarithmic(unit: str) -> bool:
    if not unit:
        return False
    from astropy.units import Unit

    return hasattr(Unit(unit), "function_unit")
