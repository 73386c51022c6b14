"""Values of components for people and for other software: as text, as plain data for JSON, as common files."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import kinds
from ..composite.display import columns
from ..errors import EncodeError
from ..kinds.pixels import Pixels
from ..storage.nodes import ArrayNode, GroupNode
from ..storage.publish import publish

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.wcs import WCS

    from ..kinds.mask import Mask

_Writer = Callable[[Any, str], object]
"""Writes a value to a file of this name."""


def write(value: Any, kind: str, path: str, *, replace: bool = False) -> None:
    """Write the value of a component to a file of its own, all of it or nothing; its extension says how.

    `EncodeError` is raised if values of this kind aren't written to such files, or this one can't be.
    """
    extension = os.path.splitext(path)[1].lower()
    writers = _WRITERS.get(kind, _PLAIN_WRITERS)
    writer = writers.get(extension) or writers.get("")
    if writer is None:
        raise EncodeError(
            f"{path}: a component of kind {kind!r} can be written as {', '.join(writers)}, not {extension!r}"
        )
    with tempfile.TemporaryDirectory() as folder:
        written = os.path.join(folder, f"value{extension}")
        try:
            writer(value, written)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            # What numpy and astropy say to values that a format has no place for; or a library isn't there.
            raise EncodeError(f"{path}: this {kind} can't be written as {extension}: {error}") from error
        with open(written, "rb") as file:
            publish(path, lambda output: shutil.copyfileobj(file, output), replace=replace)


def to_text(value: Any, kind: str, *, short: bool = False) -> str:
    """Return the value of a component as text for people; if it is to be short, tables are cut to the terminal."""
    if kind == "table":
        limit = None if short else -1
        return "\n".join(value.pformat(max_lines=limit, max_width=limit))
    content = to_plain(value, kind)
    if isinstance(content, list):
        content = {str(number): item for number, item in enumerate(content)}
    return columns(list(_lines("", content))) if isinstance(content, dict) else _one_line(content)


def to_plain(value: Any, kind: str) -> Any:
    """Return what `to_text` says of the value of a component as plain data for JSON.

    Records, lists, texts and calibrations are themselves, as `plain` gives them; tables have ``unit`` and ``values`` of
    each column by name; arrays and images have their shape, type, unit and range, masks the number of pixels of each
    plane; others are text.
    """
    return _FACTS.get(kind, plain)(value)


def plain(value: Any) -> Any:
    """Return a value of a record as what JSON and YAML can hold: nothing is lost but types.

    Quantities are ``{"value": ..., "unit": ...}``, times ``{"value": ..., "scale": ...}``, coordinates and
    locations have their parts by name, NaN and infinities are text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    from astropy.coordinates import BaseCoordinateFrame, EarthLocation, SkyCoord, UnitSphericalRepresentation
    from astropy.time import Time
    from astropy.units import Quantity

    if isinstance(value, EarthLocation):
        return {"longitude": plain(value.lon), "latitude": plain(value.lat), "height": plain(value.height)}
    if isinstance(value, Quantity):
        return {"value": plain(value.value), "unit": str(value.unit)}
    if isinstance(value, Time):
        precise = value.copy("isot")
        precise.precision = 9  # the digits of a second; astropy shows 3
        return {"value": plain(precise.value), "scale": value.scale}
    if isinstance(value, SkyCoord | BaseCoordinateFrame):
        parts = {name: getattr(value, name) for name in value.get_representation_component_names()}
        if isinstance(value.data, UnitSphericalRepresentation):
            parts.pop("distance", None)
        return {"frame": value.name, **plain(parts)}
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return str(value)


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Return name and text of each value of a record, those of nested ones with dotted names."""
    if isinstance(value, dict) and value.keys() not in ({"value", "unit"}, {"value", "scale"}):
        for key, item in value.items():
            yield from _lines(f"{name}.{key}" if name else key, item)
    else:
        yield name, _one_line(value)


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        text, unit = _one_line(value["value"]), value.get("unit") or value.get("scale") or ""
        return f"{text} {unit}".rstrip()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---- What is told of large values, and of those that aren't plain data --------------------------------------


def _array_facts(value: Any) -> Any:
    if not isinstance(value, np.ndarray | Pixels):
        return plain(value)
    array = np.asarray(value)
    is_number = array.dtype.kind in "iuf"
    numbers = array[np.isfinite(array)] if is_number else array[:0]
    limits = (numbers.min(), np.median(numbers), numbers.max()) if numbers.size else (None, None, None)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "unit": str(getattr(value, "unit", None) or ""),
        "not_finite": array.size - numbers.size if is_number else 0,
        **dict(zip(("minimum", "median", "maximum"), map(plain, limits), strict=True)),
    }


def _mask_facts(value: Mask) -> dict[str, Any]:
    planes = {name: int(np.count_nonzero(value.has(name))) for name in value.planes}
    return {"shape": list(value.shape), "dtype": str(value.dtype), "planes": planes}


def _table_facts(value: Table) -> dict[str, Any]:
    from astropy.units import Quantity

    return {
        name: {
            "unit": str(getattr(column, "unit", None) or ""),
            "values": plain(column.value.tolist() if isinstance(column, Quantity) else list(column)),
        }
        for name, column in value.items()
    }


def _wcs_text(value: WCS) -> str:
    """Return the header cards that are stored: their numbers are exact, those of `WCS.to_header` are not."""
    node = kinds.encode(value, "wcs")
    cards = node.array("header") if isinstance(node, GroupNode) else node
    assert isinstance(cards, ArrayNode)
    return str(cards.read())


_FACTS: dict[str, Callable[[Any], Any]] = {
    "array": _array_facts,
    "composite": lambda value: value.tree(),
    "image": _array_facts,
    "mask": _mask_facts,
    "psf": repr,
    "table": _table_facts,
    "wcs": _wcs_text,
}

# ---- Files -------------------------------------------------------------------------------------------------


def _values(value: Any) -> NDArray[Any]:
    if hasattr(value, "mask"):
        raise ValueError("there is no place for its mask")
    return np.asarray(value)


def _npy(value: Any, path: str) -> None:
    np.save(path, _values(value), allow_pickle=False)


def _image_fits(value: Any, path: str) -> None:
    """Write an image, mask or array with its unit, first pixel and the bits of its planes."""
    from astropy.io import fits

    header = fits.Header()
    if unit := getattr(value, "unit", None):
        try:
            header["BUNIT"] = unit.to_string("fits")
        except ValueError:
            # The standard has no name for it: better a unit that people can read than none.
            header["BUNIT"] = str(unit)
    if origin := getattr(value, "origin", None):
        # LTV: the cards of IRAF that LSST and others use for what parent coordinates are here.
        header["LTV1"], header["LTV2"] = -origin[1], -origin[0]
    for name, plane in getattr(value, "planes", {}).items():
        header[f"HIERARCH MP_{name}"] = plane.bit
    pixels = _values(value)
    try:
        hdu = fits.PrimaryHDU(pixels, header)
    except KeyError as error:
        raise ValueError(f"FITS images have no pixels of type {pixels.dtype.name}") from error
    hdu.writeto(path)


def _table(value: Table, path: str) -> None:
    value.write(path, **({"path": "table", "serialize_meta": True} if path.endswith(".hdf5") else {}))


def _json(value: Any, path: str) -> None:
    _text(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def _yaml(value: Any, path: str) -> None:
    import yaml

    _text(yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True), path)


def _header(value: WCS, path: str) -> None:
    """Write the cards as text, one per line, as `astropy.io.fits.Header.fromtextfile` reads them."""
    if any((value.cpdis1, value.cpdis2, value.det2im1, value.det2im2)):
        raise ValueError("its distortion is in tables, of which cards say nothing")
    _text(f"{_wcs_text(value)}\nEND\n", path)


def _text(value: str, path: str) -> None:
    Path(path).write_bytes(value.encode())


_PLAIN_WRITERS: dict[str, _Writer] = {".json": _json, ".yaml": _yaml}
_PIXEL_WRITERS: dict[str, _Writer] = {".npy": _npy, ".fits": _image_fits}

_WRITERS: dict[str, dict[str, _Writer]] = {
    "array": _PIXEL_WRITERS,
    "bytes": {"": lambda value, path: Path(path).write_bytes(value)},
    "composite": {},
    "image": _PIXEL_WRITERS,
    "mask": _PIXEL_WRITERS,
    "psf": {
        ".npy": lambda value, path: _npy(value.kernels, path),
        ".fits": lambda value, path: _image_fits(value.kernels, path),
    },
    "table": dict.fromkeys((".ecsv", ".fits", ".csv", ".hdf5", ".parquet"), _table),
    "text": {"": _text},
    "wcs": {".hdr": _header, ".txt": _header},
}
