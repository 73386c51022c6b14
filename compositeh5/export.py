"""Values of components for people and for other software: as text, as plain data for JSON, as common files."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import kinds
from .container.nodes import ArrayNode, GroupNode
from .container.publish import publish
from .errors import EncodeError
from .kinds._pixels import Pixels

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.units import UnitBase
    from astropy.wcs import WCS

    from .kinds.mask import Mask


def write(value: Any, kind: str, path: str | os.PathLike[str], *, replace: bool = False) -> None:
    """Write the value of a component to a file of its own, all of it or nothing.

    Parameters
    ----------
    value : object
        The value.
    kind : str
        Name of its kind.
    path : path
        The file. Its extension says how: ``.npy`` and ``.fits`` for images, masks, arrays and the kernels of a PSF,
        ``.ecsv``, ``.fits``, ``.csv``, ``.hdf5`` (as astropy reads it, from path ``table``) and ``.parquet`` (needs
        pyarrow) for tables, ``.json`` and ``.yaml`` for records and photometric calibrations, ``.hdr`` for a WCS; any
        for text and bytes.
    replace : bool, optional
        Whether a file that is there is replaced.

    Raises
    ------
    EncodeError
        If values of this kind aren't written to files with this extension, or this one can't be.
    FileExistsError
        If the file exists, and ``replace`` is False.
    OSError
        If it can't be written; nothing is left behind.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    writers = _WRITERS.get(kind, _PLAIN_WRITERS)
    writer = writers.get(extension) or writers.get("")
    if writer is None:
        raise EncodeError(
            f"{path}: a component of kind {kind!r} can be written as {', '.join(writers)}, not {extension!r}"
        )
    try:
        data = writer(value)
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        # What numpy and astropy say to values that a format has no place for; or a library isn't there.
        raise EncodeError(f"{path}: this {kind} can't be written as {extension}: {error}") from error
    publish(path, data, replace=replace)


def to_text(value: Any, kind: str, *, short: bool = False) -> str:
    """Return the value of a component as text for people.

    Parameters
    ----------
    value : object
        The value.
    kind : str
        Name of its kind.
    short : bool, optional
        Whether tables are cut to the size of the terminal.
    """
    if kind == "table":
        limit = None if short else -1
        return "\n".join(value.pformat(max_lines=limit, max_width=limit))
    return _TEXTS.get(kind, _record_text)(value)


def to_plain(value: Any, kind: str) -> Any:
    """Return what `to_text` says of the value of a component as plain data for JSON.

    Records, lists, texts and calibrations are themselves, as `plain` gives them; tables have ``unit`` and ``values`` of
    each column by name; arrays and images have their shape, type, unit and range, masks the number of pixels of each
    plane; others are text.

    Parameters
    ----------
    value : object
        The value.
    kind : str
        Name of its kind.
    """
    return _FACTS.get(kind, plain)(value)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows of text as aligned columns; characters that would act on a terminal are escaped."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def printable(text: str) -> str:
    """Return a text of one line with what would act on a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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


# ---- Text for people ---------------------------------------------------------------------------------------


def _record_text(value: Any) -> str:
    content = plain(value)
    if isinstance(content, list):
        content = {str(number): item for number, item in enumerate(content)}
    return columns(list(_lines("", content))) if isinstance(content, dict) else _one_line(content)


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Return name and text of each value of a record, those of nested ones with dotted names."""
    if isinstance(value, dict) and not _is_one_value(value):
        for key, item in value.items():
            yield from _lines(f"{name}.{key}" if name else key, item)
    else:
        yield name, _one_line(value)


def _is_one_value(value: dict[str, Any]) -> bool:
    return value.keys() in ({"value", "unit"}, {"value", "scale"})


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        text, unit = _one_line(value["value"]), value.get("unit") or value.get("scale") or ""
        return f"{text} {unit}".rstrip()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _array_text(value: Any) -> str:
    """Return shape, type, unit and the range of the values of an array, image or quantity; others in full."""
    if not isinstance(value, np.ndarray | Pixels):
        return _record_text(value)
    facts = _array_facts(value)
    lines = [
        ", ".join(filter(None, (" x ".join(map(str, facts["shape"])) or "one value", facts["dtype"], facts["unit"])))
    ]
    if facts["not_finite"]:
        lines[0] += f", {facts['not_finite']} not finite"
    if facts["median"] is not None:
        lines.append("minimum {minimum:.6g}, median {median:.6g}, maximum {maximum:.6g}".format(**facts))
    return "\n".join(lines)


def _array_facts(value: Any) -> Any:
    if not isinstance(value, np.ndarray | Pixels):
        return plain(value)
    array = np.asarray(value)
    numbers = array[np.isfinite(array)] if array.dtype.kind in "iuf" else array[:0]
    limits = (numbers.min(), np.median(numbers), numbers.max()) if numbers.size else (None, None, None)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "unit": str(getattr(value, "unit", None) or ""),
        "not_finite": array.size - numbers.size if array.dtype.kind in "iuf" else 0,
        **dict(zip(("minimum", "median", "maximum"), map(plain, limits), strict=True)),
    }


def _mask_text(value: Mask) -> str:
    lines = [f"{' x '.join(map(str, value.shape))}, {value.dtype}"]
    counts = _mask_facts(value)["planes"]
    width = max(map(len, counts), default=0)
    for name, count in counts.items():
        lines.append(f"{name.ljust(width)}  {count} pixels ({100 * count / max(value.array.size, 1):.3g} %)")
    return "\n".join(lines)


def _mask_facts(value: Mask) -> dict[str, Any]:
    planes = {name: int(np.count_nonzero(value.has(name))) for name in value.planes}
    return {"shape": list(value.shape), "dtype": str(value.dtype), "planes": planes}


def _table_facts(value: Table) -> dict[str, Any]:
    return {
        name: {"unit": str(getattr(column, "unit", None) or ""), "values": _column_values(column)}
        for name, column in value.items()
    }


def _column_values(column: Any) -> Any:
    from astropy.units import Quantity

    return plain(column.value.tolist() if isinstance(column, Quantity) else list(column))


def _wcs_text(value: WCS) -> str:
    """Return the header cards that are stored: their numbers are exact, those of `WCS.to_header` are not."""
    node = kinds.encode(value, "wcs")
    cards = node.array("header") if isinstance(node, GroupNode) else node
    assert isinstance(cards, ArrayNode)
    return str(cards.read())


_TEXTS: dict[str, Callable[[Any], str]] = {
    "array": _array_text,
    "composite": lambda value: value.tree(),
    "image": _array_text,
    "mask": _mask_text,
    "psf": repr,
    "text": str,
    "wcs": _wcs_text,
}

_FACTS: dict[str, Callable[[Any], Any]] = {
    "array": _array_facts,
    "composite": _TEXTS["composite"],
    "image": _array_facts,
    "mask": _mask_facts,
    "psf": repr,
    "table": _table_facts,
    "wcs": _wcs_text,
}

# ---- Bytes of files ----------------------------------------------------------------------------------------


_Writer = Callable[[Any], bytes]


def _npy(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, _values(value), allow_pickle=False)
    return stream.getvalue()


def _values(value: Any) -> NDArray[Any]:
    if hasattr(value, "mask"):
        raise ValueError("there is no place for its mask")
    return np.asarray(value)


def _image_fits(value: Any) -> bytes:
    """Return a FITS file of an image, mask or array, with its unit, first pixel and the bits of its planes."""
    from astropy.io import fits

    header = fits.Header()
    if unit := getattr(value, "unit", None):
        header["BUNIT"] = _fits_unit(unit)
    if origin := getattr(value, "origin", None):
        # LTV: the cards of IRAF that LSST and others use for what parent coordinates are here.
        header["LTV1"], header["LTV2"] = -origin[1], -origin[0]
    for name, plane in getattr(value, "planes", {}).items():
        header[f"HIERARCH MP_{name}"] = plane.bit
    return _fits_bytes(fits.PrimaryHDU(_values(value), header))


def _fits_unit(unit: UnitBase) -> str:
    try:
        return str(unit.to_string("fits"))
    except ValueError:
        # The standard has no name for it: better a unit that people can read than none.
        return str(unit)


def _fits_bytes(hdu: Any) -> bytes:
    stream = io.BytesIO()
    hdu.writeto(stream)
    return stream.getvalue()


def _table_fits(value: Table) -> bytes:
    stream = io.BytesIO()
    value.write(stream, format="fits")
    return stream.getvalue()


def _table_text(format: str) -> _Writer:
    def table_text(value: Table) -> bytes:
        stream = io.StringIO()
        value.write(stream, format=format)
        return stream.getvalue().encode()

    return table_text


def _table_file(format: str, **options: Any) -> _Writer:
    """Return the writer of a format that astropy writes to named files only."""

    def table_file(value: Table) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "table")
            value.write(path, format=format, **options)
            with open(path, "rb") as file:
                return file.read()

    return table_file


def _json(value: Any) -> bytes:
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _yaml(value: Any) -> bytes:
    import yaml

    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True).encode()


def _header(value: WCS) -> bytes:
    """Return the cards as text, one per line, as `astropy.io.fits.Header.fromtextfile` reads them."""
    if any((value.cpdis1, value.cpdis2, value.det2im1, value.det2im2)):
        raise ValueError("its distortion is in tables, of which cards say nothing")
    return f"{_wcs_text(value)}\nEND\n".encode()


_PLAIN_WRITERS: dict[str, _Writer] = {".json": _json, ".yaml": _yaml}
_PIXEL_WRITERS: dict[str, _Writer] = {".npy": _npy, ".fits": _image_fits}

_WRITERS: dict[str, dict[str, _Writer]] = {
    "array": _PIXEL_WRITERS,
    "bytes": {"": bytes},
    "composite": {},
    "image": _PIXEL_WRITERS,
    "mask": _PIXEL_WRITERS,
    "psf": {".npy": lambda value: _npy(value.kernels), ".fits": lambda value: _image_fits(value.kernels)},
    "table": {
        ".ecsv": _table_text("ascii.ecsv"),
        ".fits": _table_fits,
        ".csv": _table_text("ascii.csv"),
        ".hdf5": _table_file("hdf5", path="table", serialize_meta=True),
        ".parquet": _table_file("parquet"),
    },
    "text": {"": str.encode},
    "wcs": {".hdr": _header, ".txt": _header},
}
