"""The same content in files of several formats, and how each is read: for ``torture.py``."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import compositeh5 as ch5
from compositeh5.composite.session import current

Ranges = list[tuple[int, int]]
"""First byte, and the one after the last."""

Opened = tuple[Mapping[str, Any], object]
"""Arrays by name, of which a slice is read when it is asked for, and everything else."""

SHAPE, TILE = (360, 400), (120, 134)
_RNG = np.random.default_rng(1)
ARRAYS = {
    "image": _RNG.normal(0, 23, SHAPE).astype("f4"),
    "mask": (_RNG.random(SHAPE) > 0.99).astype("i4"),
    "psf": np.ones((9, 9)) / 81 + np.arange(9),
}
INFO: dict[str, Any] = {"visit": 7, "filter": "i_39", "exposure_time": 30.0, "dithers": [1, 2, 3]}


@dataclass(frozen=True)
class Format:
    """A format, as its library writes and reads it.

    Attributes
    ----------
    write : callable
        Writes the content to a path.
    opened : callable
        Context manager for a path: gives what was stored.
    pixels : callable
        Where the values of the image and the mask are in a file; all else is metadata here.
    errors : tuple of type
        What it may raise where it notices damage. Anything else counts as a crash.
    """

    write: Callable[[Path], None]
    opened: Callable[[Path], Any]
    pixels: Callable[[Path], Ranges]
    errors: tuple[type[BaseException], ...] = (Exception,)

    def read(self, path: Path) -> dict[str, object]:
        """Return all that a file holds."""
        with self.opened(path) as (arrays, info):
            return {"info": info, **{name: _bytes(array[:]) for name, array in sorted(arrays.items())}}

    def read_cutouts(self, path: Path) -> dict[str, object]:
        """Return the pixels, read as cutouts that cover them."""
        with self.opened(path) as (arrays, _):
            return {
                f"{name} {y} {x}": _bytes(arrays[name][y : y + TILE[0], x : x + TILE[1]])
                for name in ("image", "mask")
                for y in range(0, SHAPE[0], TILE[0])
                for x in range(0, SHAPE[1], TILE[1])
            }


def _bytes(values: Any) -> tuple[object, ...]:
    values = np.asarray(values)
    # Byte order is no content.
    return values.shape, values.dtype.kind, values.astype(values.dtype.newbyteorder("<")).tobytes()


# ---- Ours ---------------------------------------------------------------------------------------------------


def _write_ours(path: Path) -> None:
    ch5.Composite(
        None,
        image=ch5.Image(ARRAYS["image"]),
        mask=ch5.Mask(ARRAYS["mask"], {"BAD": 0}),
        psf=ch5.Psf.constant(ARRAYS["psf"]),
        info=INFO,
        data_id={"visit": 7, "detector": 1},
        provenance={"inputs": ["raw"]},
    ).write(path)


@contextmanager
def open_ours(path: Path) -> Iterator[Opened]:
    current().clear_cache()
    with ch5.open(path) as c:
        about = (sorted(c), c.data_id, c.provenance, c.stage, c.run, c.definition, c["info"], dict(c["mask"].planes))
        yield {"image": c.lazy("image"), "mask": c.lazy("mask"), "psf": c["psf"].kernels}, repr(about)


@contextmanager
def _open_verified(path: Path) -> Iterator[Opened]:
    current().clear_cache()
    if problems := ch5.trees.verify_files(path).problems:
        raise ch5.errors.CorruptFileError(problems[0].detail)
    with open_ours(path) as found:
        yield found


def _pixels_of_ours(path: Path) -> Ranges:
    file = current().open(str(path))
    try:
        group = file.root.group("composite")
        found = [extent for name in ("image", "mask") for extent in group.array(name).extents()]
        return [(start, start + size) for start, size in found]
    finally:
        file.close()


# ---- h5py ---------------------------------------------------------------------------------------------------


def _write_h5py(path: Path, **options: object) -> None:
    with h5py.File(path, "w") as file:
        for name, values in ARRAYS.items():
            file.create_dataset(name, data=values, **(options if values.size > 100 else {}))
        file.create_group("info").attrs.update(INFO)


@contextmanager
def _open_h5py(path: Path) -> Iterator[Opened]:
    with h5py.File(path) as file:
        info = {name: np.asarray(value).tolist() for name, value in file["info"].attrs.items()}
        yield {name: file[name] for name in ARRAYS}, info


def _pixels_of_h5py(path: Path) -> Ranges:
    found = []
    with h5py.File(path) as file:
        for name in ("image", "mask"):
            did = file[name].id
            if file[name].chunks is None:
                found.append((did.get_offset(), did.get_offset() + did.get_storage_size()))
            else:
                chunks = [did.get_chunk_info(i) for i in range(did.get_num_chunks())]
                found += [(chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in chunks]
    return found


# ---- FITS ---------------------------------------------------------------------------------------------------


def _write_fits(path: Path, checksum: bool) -> None:
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header.update(VISIT=7, FILTER="i_39", EXPTIME=30.0, DITHERS="1,2,3")
    images = [fits.ImageHDU(values, name=name) for name, values in ARRAYS.items()]
    fits.HDUList([primary, *images]).writeto(path, checksum=checksum)


@contextmanager
def _open_fits(path: Path, checksum: bool) -> Iterator[Opened]:
    from astropy.io import fits

    with warnings.catch_warnings():
        # It warns where it finds a wrong checksum or a short file; that counts as noticed.
        warnings.simplefilter("error")
        with fits.open(path, memmap=False, checksum=checksum) as hdus:
            info = [hdus[0].header[name] for name in ("VISIT", "FILTER", "EXPTIME", "DITHERS")]
            yield {name: hdus[name].section for name in ARRAYS}, info


def _pixels_of_fits(path: Path) -> Ranges:
    from astropy.io import fits

    with fits.open(path) as hdus:
        places = [hdus[name].fileinfo() for name in ("image", "mask")]
        return [(place["datLoc"], place["datLoc"] + ARRAYS["image"].nbytes) for place in places]


# ---- zarr, ASDF, npz ----------------------------------------------------------------------------------------


def _write_zarr(path: Path) -> None:
    import zarr

    with zarr.storage.ZipStore(path, mode="w") as store:
        root = zarr.create_group(store, attributes=INFO)
        for name, values in ARRAYS.items():
            root.create_array(name, data=values, chunks=tuple(min(n, 200) for n in values.shape))


@contextmanager
def _open_zarr(path: Path) -> Iterator[Opened]:
    import zarr

    with zarr.storage.ZipStore(path, mode="r") as store:
        root = zarr.open_group(store, mode="r")
        yield {name: root[name] for name in ARRAYS}, dict(root.attrs)


def _members(path: Path, names: tuple[str, ...]) -> Ranges:
    found = []
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.startswith(names):
                start = member.header_offset
                start += 30 + sum(int.from_bytes(data[start + i : start + i + 2], "little") for i in (26, 28))
                found.append((start, start + member.compress_size))
    return found


def _write_asdf(path: Path) -> None:
    import asdf

    asdf.AsdfFile({"info": INFO, **ARRAYS}).write_to(path)


@contextmanager
def _open_asdf(path: Path, validate_checksums: bool) -> Iterator[Opened]:
    import asdf

    with asdf.open(path, validate_checksums=validate_checksums) as file:
        yield {name: file[name] for name in ARRAYS}, dict(file["info"])


def _pixels_of_asdf(path: Path) -> Ranges:
    data = path.read_bytes()
    return [(start, start + ARRAYS[name].nbytes) for name in ("image", "mask") if (start := _found(data, name)) >= 0]


def _found(data: bytes, name: str) -> int:
    return data.find(ARRAYS[name].tobytes())


def _write_npz(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, info=np.array(json.dumps(INFO)), **ARRAYS)


@contextmanager
def _open_npz(path: Path) -> Iterator[Opened]:
    with np.load(path) as file:
        yield {name: file[name] for name in ARRAYS}, json.loads(str(file["info"]))


# ---- All of them --------------------------------------------------------------------------------------------

OURS = "compositeh5"
VERIFIED = "compositeh5, after `verify`"

FORMATS: dict[str, Format] = {
    OURS: Format(_write_ours, open_ours, _pixels_of_ours, (ch5.CompositeH5Error,)),
    VERIFIED: Format(_write_ours, _open_verified, _pixels_of_ours, (ch5.CompositeH5Error,)),
    "h5py, gzip + shuffle": Format(
        lambda path: _write_h5py(path, compression="gzip", compression_opts=1, shuffle=True, chunks=(180, 200)),
        _open_h5py,
        _pixels_of_h5py,
    ),
    "h5py, contiguous": Format(_write_h5py, _open_h5py, _pixels_of_h5py),
    "FITS": Format(lambda path: _write_fits(path, False), lambda path: _open_fits(path, False), _pixels_of_fits),
    "FITS, `checksum=True`": Format(
        lambda path: _write_fits(path, True), lambda path: _open_fits(path, True), _pixels_of_fits
    ),
    "zarr 3, zip store": Format(_write_zarr, _open_zarr, lambda path: _members(path, ("image/c", "mask/c"))),
    "ASDF": Format(_write_asdf, lambda path: _open_asdf(path, False), _pixels_of_asdf),
    "ASDF, `validate_checksums`": Format(_write_asdf, lambda path: _open_asdf(path, True), _pixels_of_asdf),
    "npz": Format(_write_npz, _open_npz, lambda path: _members(path, ("image", "mask"))),
}
"""By the names in the table. Of peers every exception, and of astropy every warning, counts as damage noticed."""
