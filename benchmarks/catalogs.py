"""How a catalog is written to each container, and columns and rows are read from it."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Table

import compositeh5 as ch5

Columns = dict[str, Any]


class Catalog:
    """A container of columns of equal length."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"Catalog{type(self).__name__}.data"

    def write(self, columns: Columns) -> None:
        raise NotImplementedError

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        """Return some columns, or some rows of them; no more than needed is read, as far as that is possible."""
        raise NotImplementedError


class Composite(Catalog):
    name, recipe = "compositeh5", "lossless"

    def write(self, columns: Columns) -> None:
        composite = ch5.Composite("source_catalog", table=Table(columns, copy=False))
        composite.write(self.path, replace=True, recipes={"default": self.recipe})

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        with ch5.open(self.path) as c:
            table = c.read("table", columns=names, **({} if rows == slice(None) else {"rows": rows}))
        return {name: table[name].data for name in names}


class CompositeRaw(Composite):
    name, recipe = "compositeh5 raw", "raw"


class Plain(Catalog):
    """A dataset for each column."""

    name = "h5py gzip"
    options: ClassVar[dict[str, Any]] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}

    def write(self, columns: Columns) -> None:
        with h5py.File(self.path, "w") as file:
            for name, values in columns.items():
                file.create_dataset(name, data=values, **self.options)

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        with h5py.File(self.path) as file:
            return {name: file[name][rows] for name in names}


class PlainContiguous(Plain):
    name = "h5py contiguous"
    options: ClassVar[dict[str, Any]] = {}


class Fits(Catalog):
    """A binary table."""

    name = "FITS"

    def write(self, columns: Columns) -> None:
        fits.BinTableHDU(Table(columns, copy=False)).writeto(self.path, overwrite=True)

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        with fits.open(self.path) as hdus:
            data = hdus[1].data
            return {name: np.array(data[name][rows]) for name in names}


class Fitsio(Catalog):
    name, needs = "fitsio", "fitsio"

    def write(self, columns: Columns) -> None:
        self.path.unlink(missing_ok=True)
        with importlib.import_module("fitsio").FITS(str(self.path), "rw") as file:
            file.write(list(columns.values()), names=list(columns))

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        with importlib.import_module("fitsio").FITS(str(self.path)) as file:
            found = file[1][names][rows]
            return {name: found[name] for name in names}


class Asdf(Catalog):
    name, needs = "asdf", "asdf"

    def write(self, columns: Columns) -> None:
        importlib.import_module("asdf").AsdfFile(dict(columns)).write_to(self.path)

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        with importlib.import_module("asdf").open(self.path, memmap=True) as file:
            return {name: np.array(file[name][rows]) for name in names}


class Zarr(Catalog):
    name, needs = "zarr 3 (zstd)", "zarr"

    def write(self, columns: Columns) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        group = importlib.import_module("zarr").open_group(self.path, mode="w")
        for name, values in columns.items():
            group.create_array(name, data=values)

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        group = importlib.import_module("zarr").open_group(self.path, mode="r")
        return {name: group[name][rows] for name in names}


class Npz(Catalog):
    name = "npz"

    def write(self, columns: Columns) -> None:
        with self.path.open("wb") as file:
            np.savez(file, **columns)

    def read(self, names: list[str], rows: slice = slice(None)) -> Columns:
        with np.load(self.path) as file:
            return {name: file[name][rows] for name in names}


CATALOGS: tuple[type[Catalog], ...] = (
    Composite, CompositeRaw, Plain, PlainContiguous, Fits, Fitsio, Asdf, Zarr, Npz,
)  # fmt: skip
