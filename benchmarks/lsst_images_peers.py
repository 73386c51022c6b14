"""The containers of lsst.images (Python 3.12 or later): FITS and NDF."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from astropy import units as u
from containers import SIDE, Corner, Peer
from data import CALIBRATION, Exposure
from lsst.images import Box, DetectorFrame, Image, Mask, MaskedImage, MaskPlane, MaskSchema, SkyProjection
from lsst.images.fits import FitsCompressionOptions
from lsst.images.serialization import open_archive, write_archive


class ImagesFits(Peer):
    """Its default: GZIP_2 tiles."""

    name, needs, extension = "lsst.images FITS", "lsst.images", ".fits"
    options: ClassVar[dict[str, Any]] = {}
    cold = (
        "import sys\nfrom lsst.images.serialization import open_archive\n"
        "with open_archive(sys.argv[1]) as a:\n    print(a.metadata['calibration'])"
    )

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self.path = self.path.with_suffix(self.extension)

    def write(self, data: Exposure) -> None:
        self.path.unlink(missing_ok=True)
        box = Box.from_shape(data.image.shape)
        frame = DetectorFrame(instrument="Cam", visit=1, detector=1, bbox=box)
        schema = MaskSchema([MaskPlane("BAD", ""), MaskPlane("SAT", "")])
        image = MaskedImage(
            Image(data.image, unit=u.adu, bbox=box),
            # It has a byte for each eight planes.
            mask=Mask(data.mask.astype(np.uint8)[..., np.newaxis], schema=schema, bbox=box),
            variance=Image(data.variance, unit=u.adu**2, bbox=box),
            sky_projection=SkyProjection.from_fits_wcs(data.wcs, frame, pixel_bounds=box),
            metadata={"calibration": CALIBRATION, **data.record},
        )
        write_archive(image, self.path, **self.options)

    def planes(self) -> list[Any]:
        with open_archive(self.path) as archive:
            found = archive.read()
        return [found.image.array, found.mask.array[..., 0], found.variance.array]

    def calibration(self) -> float:
        with open_archive(self.path) as archive:
            return float(archive.metadata["calibration"])

    def record(self) -> dict[str, Any]:
        with open_archive(self.path) as archive:
            return dict(archive.metadata)

    def wcs(self) -> Any:
        with open_archive(self.path) as archive:
            return archive.get_component("sky_projection")

    def cutouts(self, corners: list[Corner]) -> list[Any]:
        with open_archive(self.path) as archive:
            boxes = [Box.factory[y : y + SIDE, x : x + SIDE] for y, x in corners]
            return [archive.get_component("image", bbox=box).array for box in boxes]


class ImagesRice(ImagesFits):
    """Quantized as LSST does it."""

    name = "lsst.images FITS, lossy"
    options: ClassVar[dict[str, Any]] = {
        "compression_options": dict.fromkeys(("image", "variance"), FitsCompressionOptions.LOSSY),
        "compression_seed": 1,
    }


class ImagesNdf(ImagesFits):
    name, extension = "lsst.images NDF", ".sdf"


PEERS: tuple[type[Peer], ...] = (ImagesFits, ImagesRice, ImagesNdf)
