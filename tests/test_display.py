"""Pictures, and what notebooks show."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import counted_reads, exposure, pixels, simple_wcs, write_visit
from terminal import compositeh5_shows

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.composite.display import png
from compositeh5.errors import NoSuchComponentError
from compositeh5.kinds.mask import MaskPlaneError
from compositeh5.preview import COLOURS, picture


def decoded(data: bytes) -> NDArray[np.uint8]:
    """Read a PNG file without filters, checking all of its parts; the first row is the upper one."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(data):
        (length,), name = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        parts[name], at = body, at + 12 + length
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    nx, ny, depth, colour, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(ny, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((ny, nx) if colour == 0 else (ny, nx, 3))


class Texts(HTMLParser):
    """The elements and texts of a page; fails for what isn't closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.images: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for key, value in attrs if key == "title"]
        self.images += [value or "" for key, value in attrs if key == "src"]
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def thumbnail(self) -> NDArray[np.uint8]:
        (source,) = self.images
        return decoded(base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True))


# ---- Pictures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 4, 3)])
def test_png_has_the_pixels(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(decoded(png(values))[::-1], values)


def test_contrast_is_that_of_zscale() -> None:
    from astropy.visualization import ZScaleInterval

    image = pixels((200, 200))
    image[0, 0], image[1, 1], image[2, 2] = np.nan, np.inf, 1e30  # zscale must not see the first two
    shown = picture(ch5.Composite(None, image=ch5.Image(image)))
    assert (shown.low, shown.high) == ZScaleInterval().get_limits(image[np.isfinite(image)])
    assert shown.pixels.shape == (200, 200, 3)
    assert not shown.pixels[0, 0].any()
    assert shown.pixels[1, 1].tolist() == shown.pixels[2, 2].tolist() == [255, 255, 255]
    finite = np.isfinite(image)
    order = np.argsort(image[finite])
    assert (np.diff(shown.pixels[finite][order, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("value", [np.nan, -np.inf, 0, 7])
def test_images_without_contrast(value: float) -> None:
    shown = picture(ch5.Composite(None, image=ch5.Image(np.full((20, 30), value, np.float32))))
    assert not shown.pixels.any()
    assert shown.low < shown.high


def test_large_images_are_reduced_and_planes_stay_visible() -> None:
    mask = np.zeros((101, 250), np.uint8)
    mask[50, 50] = 2
    planes = {"BAD": 0, "SAT": 1, "MINE": 2}
    composite = ch5.Composite(None, image=ch5.Image(np.ones((101, 250), np.int16)), mask=ch5.Mask(mask, planes))
    shown = picture(composite, 50)
    assert shown.step == 5
    assert shown.pixels.shape == (21, 50, 3)
    assert shown.colours == {"SAT": "green"}
    assert np.argwhere(shown.pixels.any(axis=2)).tolist() == [[10, 10]]
    assert shown.pixels[10, 10].tolist() == [channel // 2 for channel in COLOURS["green"]]
    for chosen in ([], ["BAD"]):
        assert picture(composite, 50, planes=chosen).colours == {}
    with pytest.raises(MaskPlaneError, match="no plane 'X'"):
        picture(composite, planes=["X"])


def test_blocks_are_means_of_what_there_is() -> None:
    values = np.zeros((20, 30), np.float32)
    values[18:, 24:] = 1  # a block at the edges is smaller
    values[:6, :6], values[:3] = 1, np.nan
    shown = picture(ch5.Composite(None, image=ch5.Image(values)), 5)
    assert (shown.step, shown.low, shown.high) == (6, 0, 1)
    assert np.argwhere(shown.pixels[:, :, 0] == 255).tolist() == [[0, 0], [3, 4]]


def test_what_has_no_picture() -> None:
    with pytest.raises(NoSuchComponentError, match="no image"):
        picture(ch5.Composite(None, text="a"))
    with pytest.raises(TypeError, match="3 axes"):
        picture(ch5.Composite(None, cube=ch5.Image(np.zeros((2, 3, 4)))))


# ---- Notebooks ---------------------------------------------------------------------------------------------


def test_a_composite_in_a_notebook(tmp_path: Path) -> None:
    visit_path, (path, _) = write_visit(tmp_path)
    with ch5.open(path) as c:
        new = c.overlay(wcs=simple_wcs((300, 400)), photo_calib=None, stage="jointcal")
        new.write(tmp_path / "new" / "ccd.h5")
    visit_path.unlink()
    with ch5.open(tmp_path / "new" / "ccd.h5") as c:
        page = Texts(c._repr_html_())
        texts = page.texts
        assert texts[0] == "Composite exposure"
        assert "data ID: detector=11 instrument=DemoCam visit=903334" in texts
        assert f"file: {tmp_path / 'new' / 'ccd.h5'}" in texts
        for state in ("linked", "stored", "absent", "lost"):
            assert any(text.startswith(state) for text in texts), state
        assert {"jointcal", "single_frame", "300 x 400", "nJy2", "480.0 kB"} <= set(texts)
        assert any("visit_903334.h5" in title for title in page.titles)
    assert page.thumbnail().shape == (100, 134)
    closed = Texts(c._repr_html_())
    assert closed.tags == ["pre"]
    assert "closed" in closed.texts[0]


def test_a_thumbnail_shows_the_image(tmp_path: Path) -> None:
    image = np.zeros((100, 150), np.float32)
    image[:50] = 1
    page = Texts(ch5.Composite(None, image=ch5.Image(image, (10, 20)))._repr_html_())
    assert (page.thumbnail()[50:] > page.thumbnail()[:50]).all()  # the first rows are the lower ones
    assert any(text.startswith("image: ") for text in page.texts)


def test_a_thumbnail_of_a_large_image_reads_its_middle(tmp_path: Path) -> None:
    path = tmp_path / "large.h5"
    ch5.Composite(None, image=ch5.Image(pixels((3000, 3500)), origin=(100, 200))).write(path)
    with ch5.open(path) as c:
        ch5.Composite(None, image=ch5.Image(pixels((9, 9))))._repr_html_()  # loads what it needs
        with counted_reads() as count:
            page = Texts(c._repr_html_())
    assert count() < 0.25 * path.stat().st_size
    assert page.thumbnail().shape == (171, 171)
    assert any("image, rows 1088 to 2112, columns 1438 to 2462: " in text for text in page.texts)


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>\"&"
    path = tmp_path / "<b>.h5"
    base = ch5.Composite(None, note=f"x{evil}", dataset_type=evil, run=evil, data_id={evil: evil}, stage=evil)
    base.write(path)
    new = base.overlay(other=np.zeros(3), stage=evil)
    new.write(tmp_path / "new.h5")
    for place in (path, tmp_path / "new.h5"):
        with ch5.open(place) as c:
            page = Texts(c._repr_html_())
        assert not {"script", "b>"} & set(page.tags)
        assert page.tags.count("b") == 1
        assert any(evil in text for text in page.texts)


def test_what_is_damaged_is_shown_without_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "ccd.h5"
    exposure().write(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 4
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    with ch5.open(path) as c:
        page = Texts(c._repr_html_())
    assert "image" in page.texts
    assert not page.images


def test_composites_without_image_have_no_thumbnail() -> None:
    for components in ({"text": "a"}, {"cube": ch5.Image(np.zeros((2, 3, 4)))}, {"none": ch5.Image(np.zeros((0, 4)))}):
        assert not Texts(ch5.Composite(None, components)._repr_html_()).images


# ---- The verb ----------------------------------------------------------------------------------------------


def test_preview_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exposure().write(tmp_path / "ccd.h5")
    out = tmp_path / "ccd.png"
    assert main(["preview", str(tmp_path / "ccd.h5"), "-o", str(out), "--size", "100"]) == 0
    colours = decoded(out.read_bytes())
    assert colours.shape == (75, 100, 3)
    assert (colours[72, 8] != colours[72, 8, 0]).any()  # BAD is red
    assert re.fullmatch(rf"{out}: 75 x 100, 4 x 4 in one, -\S+ to \S+, BAD red\n", capsys.readouterr().out)
    assert main(["preview", str(tmp_path / "ccd.h5"), "-o", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["preview", str(tmp_path / "ccd.h5"), "-o", str(out), "--force", "--planes", ""]) == 0
    grey = decoded(out.read_bytes())
    assert (grey == grey[:, :, :1]).all()


def test_preview_needs_a_terminal_or_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exposure().write(tmp_path / "ccd.h5")
    assert main(["preview", str(tmp_path / "ccd.h5")]) == 2
    assert "`-o picture.png` writes a file" in capsys.readouterr().err
    assert main(["preview", str(tmp_path / "ccd.h5"), "-o", "a.jpg"]) == 2
    assert "pictures are written as .png" in capsys.readouterr().err
    ch5.Composite(None, text="a").write(tmp_path / "text.h5")
    assert main(["preview", str(tmp_path / "text.h5"), "-o", str(tmp_path / "a.png")]) == 2
    assert "has no image" in capsys.readouterr().err


def test_preview_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="needs rich (the extra `cli`)")
    exposure((60, 80)).write(tmp_path / "ccd.h5")
    shown = compositeh5_shows("preview", tmp_path / "ccd.h5")
    assert shown.code == 0
    # What is before the picture is the progress, which is wiped out.
    *lines, legend, _ = shown.raw.replace("\r", "").split("\n")
    lines = [line for line in lines if "▀" in line]
    assert [line.count("▀") for line in lines] == [40] * 15
    assert "\x1b[38;2;" in lines[0]
    assert legend.startswith("30 x 40, 2 x 2 in one, ")
    assert legend.endswith(", BAD red")
