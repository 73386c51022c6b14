"""The code blocks of the README run, in their order, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from pages import ROOT, blocks, needs_the_command, run
from support import pixels, simple_wcs

BLOCKS = blocks((ROOT / "README.md").read_text())


def test_the_two_commands_come_first() -> None:
    first, second = (block.code for block in BLOCKS[:2])
    for code, end in ((first, "compositeh5 demo"), (second, "pytest -q -n auto")):
        assert code.startswith("python3 -m venv")
        assert code.endswith(f"{end}\n")
        assert code.count("\n") == 1


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lsst.daf.butler", reason="the extra `butler` isn't installed")
    needs_the_command()
    monkeypatch.chdir(tmp_path)
    fits.writeto("exposure.fits", pixels((300, 200)), simple_wcs((300, 200)).to_header())
    namespace: dict[str, Any] = {}
    run(BLOCKS[2:], namespace, tmp_path, "README.md")
    assert namespace["stamp"]["image"].shape == (64, 64)
    assert namespace["wcs"] is None
    assert (tmp_path / "image.fits").exists()
    printed = capsys.readouterr().out
    assert printed.count("30.0 s") == 3
    assert "linked -> visit.visit_info" in printed
