"""Other software opens the files, and shows what they are. specs/interoperability.md has the table."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.table import QTable
from support import exposure, tool, write_visit

import compositeh5 as ch5
import compositeh5.astropy
from compositeh5.errors import (
    CorruptFileError,
    FormatError,
    NoSuchComponentError,
    NotACompositeFileError,
    UnsupportedVersionError,
    WrongIdError,
)
from compositeh5.trees.verify import verify

ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

LISTING = """\
/                        Group
/by-id                   Group
/by-id/<id> Soft Link {/composite}
/composite               Group
/composite/image         Dataset {300, 400}
/composite/mask          Dataset {300, 400}
/composite/psf           Group
/composite/psf/kernels   Dataset {1, 5, 5}
/composite/psf/positions Dataset {1, 2}
/composite/variance      Dataset {300, 400}
/composite/visit_info    External Link {../visit/visit_903334.h5//by-id/<id>/visit_info} {Group}
/composite/visit_info/airmass Dataset {SCALAR}
/composite/visit_info/boresight Group
/composite/visit_info/boresight/lat Dataset {SCALAR}
/composite/visit_info/boresight/lon Dataset {SCALAR}
/composite/visit_info/date Group
/composite/visit_info/date/jd1 Dataset {SCALAR}
/composite/visit_info/date/jd2 Dataset {SCALAR}
/composite/visit_info/dithers Dataset {3}
/composite/visit_info/exposure_time Dataset {SCALAR}
/composite/visit_info/filter Dataset {SCALAR}
/composite/visit_info/observatory Dataset {3}
/composite/visit_info/visit Dataset {SCALAR}
/composite/visit_info/weather Group
/composite/visit_info/weather/humidity Dataset {SCALAR}
/composite/visit_info/weather/temperature Dataset {SCALAR}
/composite/wcs           Dataset {SCALAR}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a visit, two exposures that link to it, and a catalog; not to be changed."""
    root = tmp_path_factory.mktemp("tree")
    write_visit(root)
    table = QTable({"id": np.arange(5), "flux": np.arange(5.0) * u.nJy, "name": list("abcde")})
    ch5.Composite("source_catalog", table=table).write(root / "src" / "src.h5")
    return root


@pytest.fixture(scope="module")
def ccd(tree: Path) -> Path:
    return tree / "calexp" / "calexp_903334_0.h5"


@pytest.fixture(scope="module")
def catalog(tree: Path) -> Path:
    return tree / "src" / "src.h5"


# ---- The tools of HDF5 -------------------------------------------------------------------------------------


def test_h5ls_lists_components_and_what_is_linked(ccd: Path) -> None:
    listing = tool("h5ls", "-r", "-E", ccd)
    assert (listing.returncode, listing.stderr) == (0, "")
    assert re.sub(ID, "<id>", listing.stdout) == LISTING


def test_h5dump_prints_values_and_those_linked(ccd: Path, catalog: Path) -> None:
    linked = tool("h5dump", "-d", "/composite/visit_info/exposure_time", ccd).stdout
    assert re.search(r"\(0\): 30\n", linked)
    assert re.search(r'ATTRIBUTE "units" .*\(0\): "s"\n', linked, re.DOTALL)
    assert re.search(r"\(0\): 0, 1, 2, 3, 4\n", tool("h5dump", "-d", "/composite/table/flux", catalog).stdout)
    for path in (ccd, catalog):
        whole = tool("h5dump", path)
        assert (whole.returncode, whole.stderr) == (0, "")


def test_h5diff_finds_what_differs(tree: Path, ccd: Path, tmp_path: Path) -> None:
    uncompressed, other = tmp_path / "same.h5", tmp_path / "other.h5"
    exposure().write(tmp_path / "a.h5")
    exposure().write(uncompressed, recipes={"default": ch5.Recipe(gzip=0)})
    image = exposure()["image"].array.copy()
    image[3, 4] += 1
    exposure(image=ch5.Image(image, (100, 200), "nJy")).write(other)
    assert tool("h5diff", tmp_path / "a.h5", uncompressed).returncode == 0
    # Of whole files it would compare the ids, too.
    changed = tool("h5diff", tmp_path / "a.h5", other, "/composite/image", "/composite/image")
    assert changed.returncode == 1
    assert "1 differences found" in changed.stdout
    assert tool("h5diff", "--follow-symlinks", ccd, tree / "calexp" / "calexp_903334_1.h5").returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-f", "NONE"),
        ("-f", "NONE", "-l", "CONTI"),
        ("-f", "GZIP=9"),
        ("-f", "FLET"),
        ("-l", "CHUNK=50x50"),
        ("-L",),
    ],
    ids=" ".join,
)
def test_h5repack_keeps_composites(ccd: Path, options: tuple[str, ...]) -> None:
    repacked = ccd.with_name(f"repacked{'_'.join(options)}.h5")
    try:
        assert tool("h5repack", *options, ccd, repacked).returncode == 0
        with ch5.open(ccd) as old, ch5.open(repacked) as new:
            verify(new)
            assert (new.id, new.digest) == (old.id, old.digest)
            assert np.array_equal(new["image"].array, old["image"].array)
            assert new["visit_info"] == old["visit_info"]
    finally:
        repacked.unlink(missing_ok=True)


def h5copy(source: Path, target: Path, *options: str, name: str = "composite") -> None:
    done = tool("h5copy", *options, "-i", source, "-o", target, "-s", "/composite", "-d", f"/{name}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def copy(ccd: Path) -> Iterator[Path]:
    """A file that h5copy made, in the folder of the original: links are relative."""
    path = ccd.with_name("copy.h5")
    h5copy(ccd, path)
    yield path
    path.unlink()


def test_what_h5copy_copies_is_read(ccd: Path, copy: Path, tmp_path: Path) -> None:
    with ch5.open(ccd) as old, ch5.open(copy) as new:
        verify(new)
        assert (new.id, new.digest, new.data_id) == (old.id, old.digest, old.data_id)
        assert np.array_equal(new["image"].array, old["image"].array)
        assert new["visit_info"] == old["visit_info"]
        new.write(tmp_path / "calexp" / "written.h5")
        identifier = new.id
    with ch5.open(copy, id=identifier) as new, ch5.open(tmp_path / "calexp" / "written.h5") as written:
        assert new.id == written.id
        assert new["wcs"].wcs.compare(written["wcs"].wcs)
    with pytest.raises(WrongIdError, match=f"it holds {identifier}"):
        ch5.open(copy, id="97f639a8-fba8-52e5-99c8-ed0214ec9881")
    assert CCDData.read(copy).unit == u.nJy  # recognised by what is in it


def test_of_several_that_h5copy_copied_one_must_be_named(ccd: Path, catalog: Path, copy: Path) -> None:
    h5copy(catalog, copy, name="src")
    with ch5.open(copy, "src") as c:
        assert c["table"]["flux"].value.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(NoSuchComponentError, match="say which composite is meant; there are: composite, src"):
        ch5.open(copy)


def test_a_copy_that_is_not_whole_is_refused(ccd: Path, copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        del file["composite/mask"]
    with pytest.raises(CorruptFileError, match="copied into this file, but not all of it"):
        ch5.open(copy)


def test_a_copy_of_a_newer_version_is_refused(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file["composite"].attrs["kind_version"] = 2
    with pytest.raises(UnsupportedVersionError, match="version 2 of composites is newer than version 1"):
        ch5.open(copy)


def test_links_that_h5copy_expanded_are_refused(ccd: Path, tmp_path: Path) -> None:
    h5copy(ccd, tmp_path / "expanded.h5", "-f", "ext")
    with pytest.raises(FormatError, match="visit_info: is recorded as a link, but is stored here"):
        ch5.open(tmp_path / "expanded.h5")


def test_other_files_are_not_taken_for_copies(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["composite/image"] = np.zeros((3, 4))
        file["text"] = "of variable length"
        file["composite"].attrs["kind"] = h5py.Empty("f")
        file["loop"] = h5py.SoftLink("/loop")
    with pytest.raises(NotACompositeFileError, match="its root has no attribute 'compositeh5_format'"):
        ch5.open(tmp_path / "other.h5")


IS_IMAGE = """
import ctypes, sys
library, path, *names = sys.argv[1:]
hl = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
hl.H5Fopen.argtypes = [ctypes.c_char_p, ctypes.c_uint, ctypes.c_int64]
hl.H5Fopen.restype = ctypes.c_int64
hl.H5IMis_image.argtypes = [ctypes.c_int64, ctypes.c_char_p]
file = hl.H5Fopen(path.encode(), 0, 0)
assert file >= 0
print(*(hl.H5IMis_image(file, name.encode()) for name in names))
"""


def test_the_image_library_of_hdf5_knows_images(ccd: Path) -> None:
    bundled = sorted((Path(h5py.__file__).parents[1] / "h5py.libs").glob("libhdf5_hl*"))
    found = [ctypes.util.find_library(name) for name in ("hdf5_hl", "hdf5_serial_hl")]
    library = next((str(name) for name in (*found, *bundled) if name), None)
    if library is None:
        pytest.skip("libhdf5_hl isn't installed (Debian package libhdf5-hl-100)")
    # In a process of its own: this one has the HDF5 of h5py.
    names = [f"/composite/{name}" for name in ("image", "mask", "variance", "wcs")]
    command = [sys.executable, "-c", IS_IMAGE, library, str(ccd), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1", "0"]


# ---- Other software ----------------------------------------------------------------------------------------


def test_silx_plots_the_image(ccd: Path, catalog: Path) -> None:
    pytest.importorskip("silx", reason="needs silx")
    import silx.io
    from silx.io import nxdata
    from silx.io.utils import get_data

    with silx.io.open(str(ccd)) as file, ch5.open(ccd) as c:
        plot = nxdata.get_default(file)
        assert plot.is_image
        assert plot.signal_name == "image (nJy)"
        assert np.array_equal(plot.signal[()], c["image"].array)
        assert file["composite/visit_info/exposure_time"][()] == 30
    assert np.array_equal(get_data(f"silx:{catalog}?path=/composite/table/flux"), np.arange(5.0))


def test_nexusformat_has_a_default_plot_and_follows_links(ccd: Path) -> None:
    nexus = pytest.importorskip("nexusformat.nexus", reason="needs nexusformat (also NeXpy's)")
    root = nexus.nxload(str(ccd))
    plot = root.get_default()
    assert isinstance(plot, nexus.NXdata)
    assert plot.nxpath == "/composite"
    with ch5.open(ccd) as c:
        assert np.array_equal(plot.nxsignal.nxdata, c["image"].array)
    assert float(root["composite/visit_info"]["exposure_time"]) == 30
    assert plot.nxsignal.attrs["units"] == "nJy"


def test_pytables_sees_images_columns_and_links(ccd: Path, catalog: Path) -> None:
    tables = pytest.importorskip("tables", reason="needs PyTables")
    with tables.open_file(str(ccd)) as file, ch5.open(ccd) as c:
        image = file.root.composite.image
        assert isinstance(image, tables.array.ImageArray)
        assert np.array_equal(image[5:8], c["image"].array[5:8])
        link = file.root.composite.visit_info
        assert isinstance(link, tables.link.ExternalLink)
        target = link()
        assert target.exposure_time.read() == 30
        link.umount()
    with tables.open_file(str(catalog)) as file:
        assert file.root.composite.table.flux[1:3].tolist() == [1, 2]
        assert file.root.composite.table.flux.attrs.units == b"nJy"


def test_xarray_opens_pixels_and_tables(ccd: Path, catalog: Path) -> None:
    xarray = pytest.importorskip("xarray", reason="needs xarray")
    pytest.importorskip("h5netcdf", reason="needs h5netcdf")
    options = {"engine": "h5netcdf", "phony_dims": "sort"}
    with xarray.open_dataset(ccd, group="composite", **options) as dataset, ch5.open(ccd) as c:
        assert {"image", "mask", "variance"} <= set(dataset)
        assert np.array_equal(dataset["image"][10:20, 5], c["image"].array[10:20, 5])
        assert dataset["image"].attrs["units"] == "nJy"
    with xarray.open_dataset(ccd, group="composite/psf", **options) as dataset:
        assert dataset["kernels"].shape == (1, 5, 5)
    with xarray.open_dataset(catalog, group="composite/table", **options) as dataset:
        assert dataset["flux"].values.tolist() == [0, 1, 2, 3, 4]
        # A table has one length.
        assert dataset["flux"].dims == dataset["id"].dims
    with xarray.open_datatree(catalog, **options) as tree:
        assert "/composite/table" in tree.groups


def test_h5netcdf_lists_components(ccd: Path) -> None:
    h5netcdf = pytest.importorskip("h5netcdf", reason="needs h5netcdf")
    with h5netcdf.File(ccd, phony_dims="sort") as file:
        assert set(file["composite"].variables) == {"image", "mask", "variance", "wcs"}
        assert set(file["composite"].groups) == {"psf", "visit_info"}
