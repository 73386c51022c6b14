"""Simulated visits: what a small camera would have seen, with everything that goes with the pixels.

Stars with a power-law distribution of fluxes are drawn with a Moffat profile whose width and shape change over the
detector; sky and readout noise, a bad column, hot pixels, cosmic rays and saturation follow. The same camera and seed
give the same visit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import AltAz, Angle, EarthLocation, SkyCoord
from astropy.table import QTable
from astropy.time import Time
from astropy.utils import iers
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray

from ..composite.composite import Composite
from ..kinds.image import Image
from ..kinds.mask import Mask
from ..kinds.photo_calib import PhotoCalib
from ..kinds.psf import Psf

INSTRUMENT = "DemoCam"
VISIT = 2025052000042
BAND, PHYSICAL_FILTER = "r", "r_57"

_MASK_PLANES = {
    "BAD": "The pixel is bad on this detector.",
    "SAT": "The pixel is saturated.",
    "INTRP": "The value was interpolated from its neighbours.",
    "CR": "A cosmic ray hit the pixel.",
    "EDGE": "The pixel is too near to the edge to be measured.",
    "DETECTED": "The pixel is part of a source: 5 times the noise or more.",
}

# The boresight and the angle of the detectors' y axis from north through east, in degrees.
_RA, _DEC, _ROTATION = 150.1, -32.4, 27.0
_PIXEL_SCALE = 0.2 / 3600  # degrees
_PIXEL_SIZE = 0.01  # mm
_GAP = 60  # pixels between detectors
_DISTORTION = 2.5e-10  # pixels of radial shift per cubed pixel of distance from the optical axis

_EXPOSURE_TIME = 30.0  # s
_ZERO_POINT = 31.5  # AB magnitude of 1 adu
_SKY = 530.0  # adu per pixel: 21.2 mag per square arcsec
_READ_NOISE = 6.0  # electrons
_FULL_WELL = 60_000.0  # adu above the sky
_BRIGHTEST, _FAINTEST = 15.0, 24.5  # AB magnitudes
_STARS_PER_PIXEL = 30.0 * (0.2 / 60) ** 2  # 30 per square arcmin

_STAMP = 41  # rows and columns of the drawn profile of a star, odd
_PSF_LINES = 4  # of the grid of the PSF, along each axis
_EDGE = 8  # pixels


@dataclass(frozen=True)
class Camera:
    """A camera whose detectors, of so many rows and columns each, stand in rows and columns with gaps between them."""

    detectors: int = 9
    size: int = 1024

    def place(self, detector: int) -> tuple[int, int]:
        """Return row and column of a detector in the focal plane."""
        return divmod(detector, self._columns)

    def name(self, detector: int) -> str:
        """Return the name of a detector, such as ``S12``."""
        row, column = self.place(detector)
        return f"S{row}{column}"

    def axis(self, detector: int) -> tuple[float, float]:
        """Return the position (y, x) of the optical axis in the pixels of a detector."""
        row, column = self.place(detector)
        pitch, middle, centre = self.size + _GAP, (self._columns - 1) / 2, (self.size - 1) / 2
        return centre + (middle - row) * pitch, centre + (middle - column) * pitch

    @property
    def _columns(self) -> int:
        return math.isqrt(self.detectors - 1) + 1

    def table(self) -> QTable:
        """Return the camera as a table with one row per detector."""
        detectors = range(self.detectors)
        offsets = ((self.size - 1) / 2 - np.array([self.axis(d) for d in detectors])) * _PIXEL_SIZE * u.mm
        return QTable(
            {
                "detector": np.arange(self.detectors, dtype=np.int32),
                "name": [self.name(d) for d in detectors],
                "serial": [_serial(d) for d in detectors],
                "type": ["SCIENCE"] * self.detectors,
                "y": offsets[:, 0],
                "x": offsets[:, 1],
                "gain": [_gain(d) for d in detectors] * (u.electron / u.adu),
                "read_noise": np.full(self.detectors, _READ_NOISE) * u.electron,
            }
        )


def simulate_visit(camera: Camera) -> Composite:
    """Return the composite of what is the same for all detectors of the visit."""
    return Composite(
        "visit",
        visit_info=_visit_info(),
        camera=camera.table(),
        data_id={"instrument": INSTRUMENT, "visit": VISIT},
        stage="simulate",
    )


def simulate_exposure(camera: Camera, detector: int, seed: int) -> tuple[Composite, QTable]:
    """Return the exposure of one detector, counted from 0, and the table of the sources measured on it."""
    random = np.random.default_rng([seed, detector])
    gain = _gain(detector)
    zero_point = _ZERO_POINT + random.normal(0.0, 0.02)
    optics = _Optics.random(camera.size, random)
    positions, fluxes = _stars(camera.size, zero_point, random)

    scene = np.full((camera.size, camera.size), _SKY)
    for (y, x), flux in zip(positions, fluxes, strict=True):
        where, stamp = optics.stamp(y, x)
        scene[where] += flux * stamp
    electrons = random.poisson(scene * gain) + random.normal(0.0, _READ_NOISE, scene.shape)
    pixels = (electrons / gain - _SKY).astype(np.float32)
    mask = _spoil(pixels, random)
    variance = ((np.maximum(pixels, 0) + _SKY) / gain + (_READ_NOISE / gain) ** 2).astype(np.float32)
    mask.set("DETECTED", pixels > 5 * np.sqrt(variance))

    wcs = make_wcs(camera, detector)
    exposure = Composite(
        "exposure",
        image=Image(pixels, unit="adu"),
        mask=mask,
        variance=Image(variance, unit="adu2"),
        wcs=wcs,
        psf=optics.psf(),
        photo_calib=PhotoCalib(10 ** (0.4 * (31.4 - zero_point)), 0.003),
        detector=_detector_record(camera, detector),
        filter={"band": BAND, "physical": PHYSICAL_FILTER},
        summary_stats=_summary(pixels, mask, wcs, optics, zero_point, len(fluxes)),
        data_id={"instrument": INSTRUMENT, "visit": VISIT, "detector": detector},
        stage="simulate",
        provenance={"made_by": "compositeh5 demo", "seed": seed},
    )
    return exposure, _measure(pixels, mask, variance, positions, optics, wcs, detector)


def make_wcs(camera: Camera, detector: int) -> WCS:
    """Return the WCS of a detector: a tangent plane with the distortion of the optics (TAN-SIP)."""
    y, x = camera.axis(detector)
    angle = np.radians(_ROTATION)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval = [_RA, _DEC]
    wcs.wcs.crpix = [x + 1, y + 1]  # FITS counts from 1
    wcs.wcs.cd = _PIXEL_SCALE * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.radesys = "ICRS"
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = _DISTORTION  # x (x² + y²) and y (x² + y²)
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.pixel_shape = (camera.size, camera.size)
    wcs.wcs.set()
    return wcs


@dataclass(frozen=True)
class _Optics:
    """The seeing and the optics of one detector: the profile of a point source at each position.

    Width (FWHM in pixels) and ellipticities are linear functions of the position: value at the centre, changes per
    detector along y and x.
    """

    size: int
    width: NDArray[np.float64]
    ellipticity: NDArray[np.float64]

    @classmethod
    def random(cls, size: int, random: np.random.Generator) -> _Optics:
        """Return the optics of a detector: a seeing of about 0.75 arcsec, ellipticities of a few percent."""
        width = np.array([random.normal(3.75, 0.05), *random.normal(0.0, 0.2, 2)])
        return cls(size, width, random.normal(0.0, 0.03, (2, 3)))

    def stamp(self, y: float, x: float) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
        """Return where the profile of a source at (y, x) falls on the detector, and its values there."""
        y0, x0 = round(y) - _STAMP // 2, round(x) - _STAMP // 2
        profile = self._profile(y, x, y - round(y), x - round(x))
        rows = slice(max(y0, 0), min(y0 + _STAMP, self.size))
        columns = slice(max(x0, 0), min(x0 + _STAMP, self.size))
        inside = profile[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
        return (rows, columns), inside

    def psf(self) -> Psf:
        """Return the model of the point spread function: the profile at the nodes of a grid."""
        lines = np.linspace(0.0, self.size - 1.0, _PSF_LINES)
        nodes = [(y, x) for y in lines for x in lines]
        return Psf(np.array([self._profile(y, x, 0.0, 0.0) for y, x in nodes]), np.array(nodes))

    def _profile(self, y: float, x: float, dy: float, dx: float) -> NDArray[np.float64]:
        """Return the profile at (y, x), its centre shifted by (dy, dx): Moffat's, with exponent 3, of sum 1."""
        place = np.array([1.0, y / self.size - 0.5, x / self.size - 0.5])
        fwhm = float(self.width @ place)
        e1, e2 = (float(e) for e in self.ellipticity @ place)
        radius = fwhm / (2 * math.sqrt(2 ** (1 / 3) - 1))
        axis = np.arange(_STAMP) - _STAMP // 2
        v, u = (axis - dy)[:, np.newaxis], (axis - dx)[np.newaxis, :]
        square = (1 - e1) * u**2 + (1 + e1) * v**2 - 2 * e2 * u * v
        profile: NDArray[np.float64] = (1 + square / radius**2) ** -3
        profile /= profile.sum()
        return profile


def _stars(
    size: int, zero_point: float, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions (y, x) in pixels and fluxes in adu; numbers go as 10 to the 0.3 times the magnitude."""
    number = max(5, round(_STARS_PER_PIXEL * size**2))
    low, high = 10 ** (0.3 * _BRIGHTEST), 10 ** (0.3 * _FAINTEST)
    magnitudes = np.log10(random.uniform(low, high, number)) / 0.3
    return random.uniform(-0.5, size - 0.5, (number, 2)), 10 ** (0.4 * (zero_point - magnitudes))


def _spoil(pixels: NDArray[np.float32], random: np.random.Generator) -> Mask:
    """Add cosmic rays, saturation and defects to an image; return the mask that says where."""
    size = len(pixels)
    mask = Mask(np.zeros(pixels.shape, np.int32))
    for name, description in _MASK_PLANES.items():
        mask.add(name, description)
    for _ in range(max(2, round(size**2 / 50_000))):
        y, x = _track(size, random)
        pixels[y, x] += np.float32(random.uniform(300, 4000))
        mask.set("CR", (y, x))
    mask.set("SAT", pixels > _FULL_WELL)
    np.minimum(pixels, np.float32(_FULL_WELL), out=pixels)
    bad = np.zeros(pixels.shape, bool)
    bad[:, random.integers(1, size - 1)] = True
    bad[random.integers(0, size, 20), random.integers(1, size - 1, 20)] = True
    neighbours = (np.roll(pixels, 1, axis=1) + np.roll(pixels, -1, axis=1)) / 2
    pixels[bad] = neighbours[bad]
    mask.set("BAD", bad)
    mask.set("INTRP", bad)
    edge = np.ones(pixels.shape, bool)
    edge[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    mask.set("EDGE", edge)
    return mask


def _track(size: int, random: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pixels (y, x) that a cosmic ray hits."""
    start, angle = random.uniform(0, size, 2), random.uniform(0, np.pi)
    steps = np.arange(random.uniform(4, 25))
    y = np.rint(start[0] + steps * np.sin(angle)).astype(np.intp)
    x = np.rint(start[1] + steps * np.cos(angle)).astype(np.intp)
    inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
    return y[inside], x[inside]


def _measure(
    pixels: NDArray[np.float32],
    mask: Mask,
    variance: NDArray[np.float32],
    positions: NDArray[np.float64],
    optics: _Optics,
    wcs: WCS,
    detector: int,
) -> QTable:
    """Return the table of sources: PSF fluxes at the true positions, their errors, and flags."""
    fluxes, errors, bits = [], [], []
    for y, x in positions:
        where, stamp = optics.stamp(y, x)
        norm = (stamp**2).sum()
        fluxes.append((stamp * pixels[where]).sum() / norm)
        errors.append(math.sqrt((stamp**2 * variance[where]).sum()) / norm)
        near = (slice(round(max(y - 2, 0)), round(y + 3)), slice(round(max(x - 2, 0)), round(x + 3)))
        bits.append(np.bitwise_or.reduce(mask.array[near], axis=None))
    flags = np.array(bits)
    y, x = positions.T
    ra, dec = wcs.all_pix2world(x, y, 0)
    return QTable(
        {
            "id": detector * 1_000_000 + np.arange(len(positions)),
            "y": y * u.pix,
            "x": x * u.pix,
            "ra": ra * u.deg,
            "dec": dec * u.deg,
            "psf_flux": np.array(fluxes) * u.adu,
            "psf_flux_err": np.array(errors) * u.adu,
            "flag_saturated": (flags & mask.bits("SAT")) != 0,
            "flag_bad": (flags & mask.bits("BAD", "CR")) != 0,
            "flag_edge": (flags & mask.bits("EDGE")) != 0,
        },
        meta={"description": "PSF fluxes at the positions of the simulated stars"},
    )


def _visit_info() -> dict[str, Any]:
    """Return what the telescope control system would say about the visit."""
    begin = Time("2025-05-21T00:12:40.500", scale="tai")
    end = begin + _EXPOSURE_TIME * u.s
    average = begin + _EXPOSURE_TIME / 2 * u.s
    rubin = EarthLocation.from_geodetic(-70.749417 * u.deg, -30.244639 * u.deg, 2663 * u.m)
    boresight = SkyCoord(_RA * u.deg, _DEC * u.deg, frame="icrs")
    # The tables that come with astropy cover the date: a demonstration should not wait for the network.
    with iers.conf.set_temp("auto_download", False):
        horizontal = boresight.transform_to(AltAz(obstime=average, location=rubin))
        era = average.earth_rotation_angle(rubin.lon)
    return {
        "id": VISIT,
        "instrument": INSTRUMENT,
        "observation_type": "science",
        "observation_reason": "demonstration",
        "science_program": "DEMO",
        "object": "demo field",
        "has_simulated_content": True,
        "exposure_time": _EXPOSURE_TIME * u.s,
        "dark_time": (_EXPOSURE_TIME + 0.6) * u.s,
        "date_begin": begin,
        "date_avg": average,
        "date_end": end,
        "band": BAND,
        "physical_filter": PHYSICAL_FILTER,
        "boresight": boresight,
        "boresight_altitude": Angle(horizontal.alt.to(u.deg)),
        "boresight_azimuth": Angle(horizontal.az.to(u.deg)),
        "boresight_airmass": float(horizontal.secz),
        "boresight_rotation_angle": Angle(_ROTATION * u.deg),
        "rotation_type": "SKY",
        "earth_rotation_angle": Angle(era.to(u.deg)),
        "observatory": rubin,
        "weather": {
            "air_temperature": 9.4 * u.deg_C,
            "air_pressure": 74_310.0 * u.Pa,
            "humidity": 23.0 * u.percent,
        },
        "focus_z": 0.0 * u.mm,
    }


def _detector_record(camera: Camera, detector: int) -> dict[str, Any]:
    row, column = camera.place(detector)
    half = camera.size // 2
    return {
        "id": detector,
        "name": camera.name(detector),
        "serial": _serial(detector),
        "type": "SCIENCE",
        "row": row,
        "column": column,
        "shape": [camera.size, camera.size],
        "pixel_size": _PIXEL_SIZE * u.mm,
        "amplifiers": {
            name: {
                "columns": columns,
                "gain": _gain(detector) * (u.electron / u.adu),
                "read_noise": _READ_NOISE * u.electron,
                "saturation": _FULL_WELL * u.adu,
            }
            for name, columns in (("C00", [0, half]), ("C01", [half, camera.size]))
        },
    }


def _summary(
    pixels: NDArray[np.float32],
    mask: Mask,
    wcs: WCS,
    optics: _Optics,
    zero_point: float,
    sources: int,
) -> dict[str, Any]:
    last = len(pixels) - 1
    x, y = np.array([(0, 0), (last, 0), (last, last), (0, last), (last / 2, last / 2)]).T
    ra, dec = wcs.all_pix2world(x, y, 0)
    quiet = pixels[~mask.has("DETECTED", "CR", "BAD")]
    return {
        "psf_fwhm": float(optics.width[0]) * _PIXEL_SCALE * 3600 * u.arcsec,
        "sky_level": _SKY * u.adu,
        "sky_noise": float(quiet.std()) * u.adu,
        "zero_point": zero_point * u.ABmag,
        "sources": sources,
        "ra": ra[4] * u.deg,
        "dec": dec[4] * u.deg,
        "ra_corners": ra[:4] * u.deg,
        "dec_corners": dec[:4] * u.deg,
    }


def _serial(detector: int) -> str:
    return f"DEMO-{detector:03d}"


def _gain(detector: int) -> float:
    return 1.6 + 0.01 * (detector % 7)
