"""How an exposure, and a visit of many, is written to each container and read from it."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from data import CALIBRATION, Exposure

import compositeh5 as ch5
from compositeh5.composite.session import current

PLANES = ("image", "mask", "variance")
SIDE = 256

Corner = tuple[int, int]


class Peer:
    """A container: how an exposure is written to it and read from it."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    """Module that must be installed."""
    cold: ClassVar[str]
    """Program that prints the calibration of the file of which the path is its argument."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{type(self).__name__}.data"

    def write(self, data: Exposure) -> None:
        raise NotImplementedError

    def planes(self) -> list[Any]:
        """Return all pixels, in memory."""
        raise NotImplementedError

    def calibration(self) -> float:
        raise NotImplementedError

    def record(self) -> Mapping[str, Any]:
        """Return what is known of the visit."""
        raise NotImplementedError

    def wcs(self) -> Any:
        raise NotImplementedError

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        """Return cutouts of the image from the file, which is opened once."""
        raise NotImplementedError

    def mapped(self) -> Any | None:
        """Return the image without reading or copying it; None if that isn't possible."""
        return None

    # A visit: a file for each detector.

    def members(self, count: int) -> list[Peer]:
        """Return the files of the detectors of a visit."""
        return [type(self)(self.path.parent / "visit" / type(self).__name__ / str(n)) for n in range(count)]

    def write_visit(self, exposures: Sequence[Exposure]) -> None:
        for member, data in zip(self.members(len(exposures)), exposures, strict=True):
            member.path.parent.mkdir(parents=True, exist_ok=True)
            member.write(data)

    def records(self, count: int) -> list[Mapping[str, Any]]:
        """Return the record of the visit from each detector."""
        return [member.record() for member in self.members(count)]

    def all_wcs(self, count: int) -> list[Any]:
        return [member.wcs() for member in self.members(count)]


class Composite(Peer):
    name, recipe = "compositeh5", "lossless"
    cold = "import sys, compositeh5\nwith compositeh5.open(sys.argv[1]) as c:\n    print(c['photo_calib'].mean)"

    def write(self, data: Exposure) -> None:
        self._write(data, data.record)

    def _write(self, data: Exposure, record: Any) -> None:
        mask = ch5.Mask(data.mask, {"BAD": 0, "SAT": 1})
        ch5.Composite(
            "exposure",
            image=data.image,
            mask=mask,
            variance=data.variance,
            wcs=data.wcs,
            photo_calib=ch5.PhotoCalib(CALIBRATION, 0.1),
            visit_info=record,
        ).write(self.path, replace=True, recipes={"default": self.recipe})

    def planes(self) -> list[Any]:
        with ch5.open(self.path) as c:
            return [c["image"].array, c["mask"].array, c["variance"].array]

    def calibration(self) -> float:
        with ch5.open(self.path) as c:
            return float(c["photo_calib"].mean)

    def wcs(self) -> WCS:
        with ch5.open(self.path) as c:
            return c["wcs"]

    def record(self) -> Mapping[str, Any]:
        with ch5.open(self.path) as c:
            return c["visit_info"]

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        boxes = [ch5.Box(y, y + SIDE, x, x + SIDE) for y, x in corners]
        if len(boxes) == 1:
            with ch5.open(self.path) as c:
                return [c.read("image", box=boxes[0]).array]
        return [part["image"].array for part in ch5.trees.cutouts(self.path, boxes, components=["image"])]

    # The record is in a file of its own, to which all detectors link.

    def write_visit(self, exposures: Sequence[Exposure]) -> None:
        members = self.members(len(exposures))
        visit = ch5.Composite("visit", visit_info=exposures[0].record)
        visit.write(members[0].path.parents[1] / "visit.h5", replace=True)
        link = visit.link("visit_info")
        for member, data in zip(members, exposures, strict=True):
            member._write(data, link)

    def records(self, count: int) -> list[Mapping[str, Any]]:
        forget_links()
        paths = [member.path for member in self.members(count)]
        return list(ch5.trees.read_many(paths, "visit_info"))

    def all_wcs(self, count: int) -> list[Any]:
        return list(ch5.trees.read_many([member.path for member in self.members(count)], "wcs"))

    def open_all(self, count: int) -> None:
        """Open and close the file of each detector."""
        for member in self.members(count):
            ch5.open(member.path).close()


def forget_links() -> None:
    """Forget what was decoded of linked components, as a new process would."""

    current().clear_cache()


class CompositeRaw(Composite):
    name, recipe = "compositeh5 raw", "raw"

    def mapped(self) -> Any:
        with ch5.open(self.path) as c:
            return c.memmap("image")


class CompositeQuantized(Composite):
    name, recipe = "compositeh5 quantized", "quantized"


class Plain(Peer):
    """What one writes with h5py in a few lines."""

    name = "h5py gzip"
    options: ClassVar[dict[str, Any]] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    group = ""
    cold = "import sys, h5py\nwith h5py.File(sys.argv[1]) as f:\n    print(f['calibration'][()])"

    def write(self, data: Exposure) -> None:
        with h5py.File(self.path, "w") as file:
            for name in PLANES:
                values = getattr(data, name)
                chunks = {"chunks": tuple(min(256, n) for n in values.shape)} if self.options else {}
                file.create_dataset(name, data=values, **chunks, **self.options)
            file["wcs"] = data.wcs.to_header_string()
            file["calibration"] = CALIBRATION
            file.create_group("record").attrs.update(data.record)

    def planes(self) -> list[Any]:
        with h5py.File(self.path) as file:
            found = []
            for name in PLANES:
                dataset = file[self.group + name]
                out = np.empty(dataset.shape, dataset.dtype)
                dataset.read_direct(out)
                found.append(out)
            return found

    def calibration(self) -> float:
        with h5py.File(self.path) as file:
            return float(file["calibration"][()])

    def record(self) -> Mapping[str, Any]:
        with h5py.File(self.path) as file:
            return dict(file["record"].attrs)

    def wcs(self) -> WCS:
        with h5py.File(self.path) as file:
            return WCS(fits.Header.fromstring(file["wcs"].asstr()[()]))

    def open_all(self, count: int) -> None:
        for member in self.members(count):
            h5py.File(member.path).close()

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with h5py.File(self.path) as file:
            image = file[self.group + "image"]
            return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class PlainContiguous(Plain):
    name = "h5py contiguous"
    options: ClassVar[dict[str, Any]] = {}

    def mapped(self) -> Any:
        with h5py.File(self.path) as file:
            image = file[self.group + "image"]
            return np.memmap(self.path, image.dtype, "r", image.id.get_offset(), image.shape)


class PlainLinked(Plain):
    """The record of the visit in a file of its own, behind external links that HDF5 follows."""

    name = "h5py gzip, external links"

    def write_visit(self, exposures: Sequence[Exposure]) -> None:
        super().write_visit(exposures)
        members = self.members(len(exposures))
        with h5py.File(members[0].path.parents[1] / "visit.h5", "w") as file:
            file.create_group("record").attrs.update(exposures[0].record)
        for member in members:
            with h5py.File(member.path, "r+") as file:
                del file["record"]
                file["record"] = h5py.ExternalLink("../visit.h5", "/record")


class OnComposite(Plain):
    """h5py on the file that compositeh5 wrote."""

    writer: ClassVar[type[Composite]]
    group = "composite/"
    cold = "import sys, h5py\nwith h5py.File(sys.argv[1]) as f:\n    print(f['composite/photo_calib/mean'][()])"

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{self.writer.__name__}.data"

    def write(self, data: Exposure) -> None:
        raise NotImplementedError("it is written by compositeh5")

    def calibration(self) -> float:
        with h5py.File(self.path) as file:
            return float(file["composite/photo_calib/mean"][()])

    def wcs(self) -> WCS:
        with h5py.File(self.path) as file:
            cards = file["composite/wcs"].asstr()[()]
            return WCS(fits.Header.fromstring(cards, sep="\n"))


class OnLossless(OnComposite):
    name, writer = "h5py on compositeh5's file", Composite


class OnRaw(OnComposite):
    name, writer = "h5py on the raw one", CompositeRaw

    mapped = PlainContiguous.mapped


class Fits(Peer):
    name = "FITS"
    cold = "import sys\nfrom astropy.io import fits\nwith fits.open(sys.argv[1]) as h:\n    print(h[0].header['CALIB'])"

    def hdu(self, values: Any, name: str) -> Any:
        return fits.ImageHDU(values, name=name)

    def write(self, data: Exposure) -> None:
        primary = fits.PrimaryHDU(header=data.wcs.to_header())
        primary.header["CALIB"] = CALIBRATION
        primary.header.update(data.record)
        hdus = [self.hdu(getattr(data, name), name) for name in PLANES]
        fits.HDUList([primary, *hdus]).writeto(self.path, overwrite=True)

    def planes(self) -> list[Any]:
        with fits.open(self.path, memmap=False) as hdus:
            # In the byte order of the machine, as the others give them.
            return [hdus[i].data.astype(hdus[i].data.dtype.newbyteorder("="), copy=False) for i in (1, 2, 3)]

    def calibration(self) -> float:
        with fits.open(self.path) as hdus:
            return float(hdus[0].header["CALIB"])

    def record(self) -> Mapping[str, Any]:
        with fits.open(self.path) as hdus:
            return dict(hdus[0].header)

    def mapped(self) -> Any:
        with fits.open(self.path, memmap=True) as hdus:
            return hdus[1].data if hdus[1].is_image and type(hdus[1]) is fits.ImageHDU else None

    def wcs(self) -> WCS:
        with fits.open(self.path) as hdus:
            return WCS(hdus[0].header)

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with fits.open(self.path) as hdus:
            image = hdus[1].section
            return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class FitsRice(Fits):
    name = "FITS RICE q16"

    def hdu(self, values: Any, name: str) -> Any:
        level = {"quantize_level": 16, "quantize_method": 1} if values.dtype.kind == "f" else {}
        return fits.CompImageHDU(values, name=name, compression_type="RICE_1", **level)


class FitsGzip(Fits):
    name = "FITS GZIP_2"

    def hdu(self, values: Any, name: str) -> Any:
        return fits.CompImageHDU(values, name=name, compression_type="GZIP_2", quantize_level=0)


class FitsioRice(Peer):
    name, needs = "fitsio RICE q16", "fitsio"
    cold = "import sys, fitsio\nprint(fitsio.read_header(sys.argv[1])['CALIB'])"

    def write(self, data: Exposure) -> None:
        fitsio = importlib.import_module("fitsio")
        self.path.unlink(missing_ok=True)
        with fitsio.FITS(str(self.path), "rw") as file:
            header = dict(data.wcs.to_header()) | {"CALIB": CALIBRATION} | data.record
            file.write(None, header=header)
            for name in PLANES:
                values = getattr(data, name)
                level = {"qlevel": 16, "qmethod": 1} if values.dtype.kind == "f" else {}
                file.write(values, compress="RICE", tile_dims=[1, values.shape[1]], extname=name, **level)

    def planes(self) -> list[Any]:
        with importlib.import_module("fitsio").FITS(str(self.path)) as file:
            return [file[i].read() for i in (1, 2, 3)]

    def calibration(self) -> float:
        return float(importlib.import_module("fitsio").read_header(str(self.path))["CALIB"])

    def record(self) -> Mapping[str, Any]:
        header = importlib.import_module("fitsio").read_header(str(self.path))
        return {key: header[key] for key in header}

    def wcs(self) -> WCS:
        header = importlib.import_module("fitsio").read_header(str(self.path))
        return WCS(fits.Header({key: header[key] for key in header if key and key not in ("COMMENT", "HISTORY")}))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with importlib.import_module("fitsio").FITS(str(self.path)) as file:
            return [file[1][y : y + SIDE, x : x + SIDE] for y, x in corners]


class Asdf(Peer):
    name, needs = "asdf", "asdf"
    cold = "import sys, asdf\nwith asdf.open(sys.argv[1]) as f:\n    print(f['calibration'])"

    def write(self, data: Exposure) -> None:
        tree = {name: getattr(data, name) for name in PLANES}
        tree |= {"wcs": data.wcs.to_header_string(), "calibration": CALIBRATION, "record": data.record}
        importlib.import_module("asdf").AsdfFile(tree).write_to(self.path)

    def planes(self) -> list[Any]:
        with importlib.import_module("asdf").open(self.path) as file:
            return [np.array(file[name]) for name in PLANES]

    def calibration(self) -> float:
        with importlib.import_module("asdf").open(self.path) as file:
            return float(file["calibration"])

    def record(self) -> Mapping[str, Any]:
        with importlib.import_module("asdf").open(self.path) as file:
            return dict(file["record"])

    def mapped(self) -> Any:
        file = importlib.import_module("asdf").open(self.path, memmap=True)
        return np.asarray(file["image"])

    def wcs(self) -> WCS:
        with importlib.import_module("asdf").open(self.path) as file:
            return WCS(fits.Header.fromstring(file["wcs"]))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with importlib.import_module("asdf").open(self.path, memmap=True) as file:
            image = file["image"]
            return [np.array(image[y : y + SIDE, x : x + SIDE]) for y, x in corners]


class Zarr(Peer):
    name, needs = "zarr 3 (zstd, sharded)", "zarr"
    cold = "import sys, zarr\nprint(zarr.open_group(sys.argv[1], mode='r').attrs['calibration'])"

    def write(self, data: Exposure) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        group = importlib.import_module("zarr").open_group(self.path, mode="w")
        header = data.wcs.to_header_string()
        group.attrs.update({"wcs": header, "calibration": CALIBRATION, "record": data.record})
        for name in PLANES:
            values = getattr(data, name)
            whole = tuple(-(-n // 256) * 256 for n in values.shape)
            array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(256, 256), shards=whole)
            array[...] = values

    def group(self) -> Any:
        return importlib.import_module("zarr").open_group(self.path, mode="r")

    def planes(self) -> list[Any]:
        group = self.group()
        return [group[name][...] for name in PLANES]

    def calibration(self) -> float:
        return float(self.group().attrs["calibration"])

    def record(self) -> Mapping[str, Any]:
        return dict(self.group().attrs["record"])

    def wcs(self) -> WCS:
        return WCS(fits.Header.fromstring(self.group().attrs["wcs"]))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        image = self.group()["image"]
        return [image[y : y + SIDE, x : x + SIDE] for y, x in corners]


class Npz(Peer):
    name = "npz"
    cold = "import sys, numpy\nwith numpy.load(sys.argv[1]) as f:\n    print(f['calibration'])"

    def write(self, data: Exposure) -> None:
        with self.path.open("wb") as file:
            planes = {name: getattr(data, name) for name in PLANES}
            record = json.dumps(data.record)
            np.savez(file, **planes, wcs=data.wcs.to_header_string(), calibration=CALIBRATION, record=record)

    def planes(self) -> list[Any]:
        with np.load(self.path) as file:
            return [file[name] for name in PLANES]

    def calibration(self) -> float:
        with np.load(self.path) as file:
            return float(file["calibration"])

    def record(self) -> Mapping[str, Any]:
        with np.load(self.path) as file:
            return dict(json.loads(str(file["record"])))

    def wcs(self) -> WCS:
        with np.load(self.path) as file:
            return WCS(fits.Header.fromstring(str(file["wcs"])))

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with np.load(self.path) as file:
            image = file["image"]
            return [image[y : y + SIDE, x : x + SIDE].copy() for y, x in corners]


PEERS: tuple[type[Peer], ...] = (
    Composite, CompositeRaw, CompositeQuantized, Plain, PlainContiguous, PlainLinked, OnLossless, OnRaw,
    Fits, FitsRice, FitsGzip, FitsioRice, Asdf, Zarr, Npz,
)  # fmt: skip
