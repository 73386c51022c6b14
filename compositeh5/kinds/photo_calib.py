"""Kind ``photo_calib``: the factor from instrumental fluxes to nJy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..box import Box
from ..errors import EncodeError, FormatError, WrongTypeError
from ..storage.nodes import Array, Group, GroupNode, Node
from .units import unit_from_text, unit_to_text
from .values import expect_group

if TYPE_CHECKING:
    from astropy.units import Magnitude, Quantity, UnitBase

_Numbers: TypeAlias = ArrayLike | None

VERSION = 1
IMMUTABLE = True

COUNTS = ("adu", "ct", "electron", "ph")
"""Units of instrumental fluxes that are known to be such without a look at `astropy.units`."""


@dataclass(frozen=True, eq=False)
class ChebyshevField:
    """A function of position: a sum of products of Chebyshev polynomials of the first kind over a box.

    Its value at (y, x) is ``sum(coefficients[i, j] * T_i(v) * T_j(u))``, where v and u run from -1 to 1 between the
    outer edges of the box: v = -1 at y0 - 0.5 and 1 at y1 - 0.5, with pixel centres at integers. These are the
    definition, and the order of the coefficients, of ``lsst.afw.math.ChebyshevBoundedField``.

    Parameters
    ----------
    coefficients : array_like of float, shape (ny, nx)
        Copied, as float64.
    box : Box
        The domain, in parent coordinates. The polynomials are evaluated outside of it, too, but mean little there.

    Raises
    ------
    EncodeError
        If the coefficients aren't a finite plane of numbers, or the box is empty.
    """

    coefficients: NDArray[np.float64]
    box: Box

    def __post_init__(self) -> None:
        try:
            coefficients = np.array(self.coefficients, np.float64)
        except (TypeError, ValueError) as error:
            raise EncodeError(f"ChebyshevField: the coefficients should be floats (ny, nx): {error}") from error
        if coefficients.ndim != 2 or 0 in coefficients.shape or not np.isfinite(coefficients).all():
            raise EncodeError(
                f"ChebyshevField: the coefficients should be finite, with two axes, but their shape is "
                f"{coefficients.shape}"
            )
        if not isinstance(self.box, Box) or self.box.is_empty:
            raise EncodeError(f"ChebyshevField: the box should be a Box with pixels, not {self.box!r}")
        coefficients.flags.writeable = False
        object.__setattr__(self, "coefficients", coefficients)

    def __call__(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Return the values at positions (y, x) in parent coordinates, in pixels; y and x are broadcast."""
        y, x = np.broadcast_arrays(np.asarray(y, np.float64), np.asarray(x, np.float64))
        v = (2 * y - (self.box.y0 + self.box.y1 - 1)) / self.box.shape[0]
        u = (2 * x - (self.box.x0 + self.box.x1 - 1)) / self.box.shape[1]
        return np.asarray(np.polynomial.chebyshev.chebval2d(v, u, self.coefficients))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChebyshevField):
            return NotImplemented
        return self.box == other.box and np.array_equal(self.coefficients, other.coefficients)

    def __hash__(self) -> int:
        return hash((self.box, self.coefficients.tobytes()))


@dataclass(frozen=True)
class PhotoCalib:
    """The photometric calibration of an exposure, as in ``lsst.afw.image.PhotoCalib``.

    Parameters
    ----------
    mean : float
        Mean of the calibration factor over the image, in nJy per instrumental unit.
    error : float, optional
        1-sigma error of the mean. The relative error ``error / mean`` is that of the calibration everywhere.
    field : ChebyshevField, optional
        The calibration factor at each position: its values include the mean. None if it is the same everywhere.
    instrumental_unit : astropy.units.UnitBase or str, optional
        Unit of instrumental fluxes.

    Raises
    ------
    EncodeError
        If the mean isn't positive, the error is negative, one of them isn't finite, or the unit can't be stored.
    """

    mean: float
    error: float = 0.0
    field: ChebyshevField | None = None
    instrumental_unit: UnitBase | str = dataclasses.field(default_factory=lambda: "adu")

    def __post_init__(self) -> None:
        mean, error = _finite(self.mean, "mean"), _finite(self.error, "error")
        if mean <= 0 or error < 0:
            raise EncodeError(f"PhotoCalib: needs mean > 0 and error >= 0, but they are {mean} and {error}")
        if self.field is not None and not isinstance(self.field, ChebyshevField):
            raise EncodeError(f"PhotoCalib: field should be a ChebyshevField, not {type(self.field).__name__}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "error", error)
        if isinstance(self.instrumental_unit, str) and self.instrumental_unit in COUNTS:
            # Made when it is asked for: in a new process loading astropy.units would take longer than all else.
            object.__setattr__(self, "_unit_text", self.instrumental_unit)
            object.__delattr__(self, "instrumental_unit")
            return
        unit = unit_from_text(unit_to_text(self.instrumental_unit), "PhotoCalib")
        if hasattr(unit, "physical_unit"):
            raise EncodeError(f"PhotoCalib: fluxes in {unit} are logarithmic; a linear unit is needed")
        object.__setattr__(self, "instrumental_unit", unit)

    def __getattr__(self, name: str) -> Any:
        if name != "instrumental_unit" or "_unit_text" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        unit = unit_from_text(self._unit_text, "PhotoCalib")
        object.__setattr__(self, "instrumental_unit", unit)
        return unit

    def calibration(self, y: _Numbers = None, x: _Numbers = None) -> NDArray[np.float64]:
        """Return the calibration factor, in nJy per instrumental unit.

        Parameters
        ----------
        y, x : array_like of float, optional
            Positions in parent coordinates, in pixels, which are broadcast against each other. Without them, the result
            is the mean also for a calibration that varies over the image.
        """
        if y is None and x is None:
            return np.array(self.mean)
        if y is None or x is None:
            raise WrongTypeError("a position needs both y and x")
        if self.field is None:
            return np.full(np.broadcast_shapes(np.shape(y), np.shape(x)), self.mean)
        return self.field(y, x)

    @overload
    def to_flux(
        self, instrumental: ArrayLike, error: None = None, y: _Numbers = None, x: _Numbers = None
    ) -> Quantity: ...

    @overload
    def to_flux(
        self, instrumental: ArrayLike, error: ArrayLike, y: _Numbers = None, x: _Numbers = None
    ) -> tuple[Quantity, Quantity]: ...

    def to_flux(
        self, instrumental: ArrayLike, error: _Numbers = None, y: _Numbers = None, x: _Numbers = None
    ) -> Quantity | tuple[Quantity, Quantity]:
        """Return fluxes in nJy, and their errors if those of the instrumental fluxes are given.

        With the instrumental flux f +- s, the calibration c at its position, and the mean calibration m +- e, the flux
        is ``c f`` and its error ``c sqrt(s**2 + (f e / m)**2)``.

        Parameters
        ----------
        instrumental, error : array_like or astropy.units.Quantity
            Instrumental fluxes and their 1-sigma errors; numbers are in the instrumental unit.
        y, x : array_like of float, optional
            Positions in parent coordinates, in pixels. Without them, the mean calibration is used, also if the
            calibration varies over the image.

        Raises
        ------
        astropy.units.UnitConversionError
            If quantities can't be converted to the instrumental unit.
        """
        from astropy.units import Quantity, nJy

        factor = Quantity(self.calibration(y, x), nJy / self.instrumental_unit)
        flux = Quantity(instrumental, self.instrumental_unit)
        if error is None:
            return flux * factor
        own = Quantity(error, self.instrumental_unit)
        return flux * factor, np.hypot(own, flux * (self.error / self.mean)) * factor

    @overload
    def to_magnitude(
        self, instrumental: ArrayLike, error: None = None, y: _Numbers = None, x: _Numbers = None
    ) -> Magnitude: ...

    @overload
    def to_magnitude(
        self, instrumental: ArrayLike, error: ArrayLike, y: _Numbers = None, x: _Numbers = None
    ) -> tuple[Magnitude, Quantity]: ...

    def to_magnitude(
        self, instrumental: ArrayLike, error: _Numbers = None, y: _Numbers = None, x: _Numbers = None
    ) -> Magnitude | tuple[Magnitude, Quantity]:
        """Return AB magnitudes, and their errors in mag if those of the instrumental fluxes are given.

        The zero point is 10^(-0.4 * 48.6) erg / (s cm2 Hz), about 3631 Jy (Oke & Gunn 1983); the error is
        ``2.5 / ln(10)`` times the relative error of the flux. Magnitudes are NaN for negative fluxes and infinite for
        zero; errors are NaN for both.

        Parameters
        ----------
        instrumental, error, y, x
            As for `to_flux`.
        """
        from astropy.units import ABmag, mag

        with np.errstate(divide="ignore", invalid="ignore"):
            if error is None:
                return self.to_flux(instrumental, y=y, x=x).to(ABmag)
            flux, flux_error = self.to_flux(instrumental, error, y, x)
            relative = np.where(flux > 0, (flux_error / flux).value, np.nan)
            return flux.to(ABmag), 2.5 / np.log(10) * relative * mag

    def __repr__(self) -> str:
        from astropy.units import nJy

        shape = "constant" if self.field is None else f"field {self.field.coefficients.shape} over {self.field.box}"
        return f"<PhotoCalib ({self.mean:g} +- {self.error:g}) {nJy / self.instrumental_unit}, {shape}>"


def _finite(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise EncodeError(f"PhotoCalib: {name} should be a number, not {value!r}") from error
    if not isfinite(number):
        raise EncodeError(f"PhotoCalib: {name} should be finite, not {number}")
    return number


def coerce(value: Any) -> PhotoCalib:
    """Return the value, which must be a `PhotoCalib`."""
    if not isinstance(value, PhotoCalib):
        raise EncodeError(f"expected a PhotoCalib, found {type(value).__name__}")
    return value


def encode(value: PhotoCalib) -> Group:
    """Return the group of a calibration."""
    children: dict[str, Node] = {"mean": Array(np.array(value.mean)), "error": Array(np.array(value.error))}
    if value.field is not None:
        box = value.field.box
        children["field"] = Group(
            {"coefficients": Array(value.field.coefficients)},
            {"box": np.array([box.y0, box.y1, box.x0, box.x1], np.int64)},
        )
    return Group(children, {"instrumental_unit": unit_to_text(value.instrumental_unit)})


def decode(node: Node) -> PhotoCalib:
    """Return the calibration of a group."""
    group = expect_group(node, "a photometric calibration")
    mean, error = (float(group.array(name, 0, "f").read()) for name in ("mean", "error"))
    unit = node.attr("instrumental_unit", str)
    try:
        field = _decode_field(group.group("field")) if "field" in group else None
        return PhotoCalib(mean, error, field, unit)
    except EncodeError as problem:
        raise FormatError(f"{node.where}: {problem}") from problem


def _decode_field(node: GroupNode) -> ChebyshevField:
    limits = node.attr("box", np.ndarray)
    if limits.shape != (4,) or limits.dtype.kind != "i":
        raise FormatError(f"{node.where}: attribute 'box' should be four integers (y0, y1, x0, x1), not {limits!r}")
    try:
        box = Box(*limits.tolist())
    except ValueError as error:
        raise FormatError(f"{node.where}: {error}") from error
    return ChebyshevField(node.array("coefficients", 2, "f").read(), box)
