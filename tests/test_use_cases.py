"""The lines of specs/use-cases.md run: each section in a fresh copy of what its first one makes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pages import blocks, needs_the_command, run

from compositeh5.composite.session import current

PAGE = (Path(__file__).parents[1] / "specs" / "use-cases.md").read_text()
SECTIONS = dict(re.findall(r"^## (Before|U\d+): .*?\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def run_section(name: str, namespace: dict[str, Any], folder: Path, *, butler: bool) -> int:
    """Run the blocks of a section, those for the Butler or the others, and return how many there are."""
    wanted = [block for block in blocks(SECTIONS[name]) if ("butler" in block.tags) == butler]
    run(wanted, namespace, folder, f"use-cases.md {name}")
    return len(wanted)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What the first section makes."""
    folder, namespace = tmp_path_factory.mktemp("made"), dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_section("Before", namespace, folder, butler=False)
    return folder, namespace


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the first section."""
    pytest.importorskip("lsst.daf.butler", reason="the extra `butler` isn't installed")
    folder = tmp_path_factory.mktemp("repository")
    run_section("Before", {}, folder, butler=True)
    return folder


def test_the_page_has_all_use_cases() -> None:
    assert list(SECTIONS) == ["Before", *(f"U{number}" for number in range(1, 23))]
    assert all(blocks(section) for section in SECTIONS.values())


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "Before"])
def test_use_case(
    name: str, made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_the_command()
    folder, namespace = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    current().clear_cache()
    assert run_section(name, dict(namespace), tmp_path, butler=False) or name == "U4"


@pytest.mark.parametrize("name", ["U1", "U4", "U7", "U8", "U10"])
def test_use_case_in_the_butler(
    name: str, made: tuple[Path, dict[str, Any]], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_the_command()
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    namespace = dict(made[1])
    run_section("U1", namespace, tmp_path, butler=True)
    assert name == "U1" or run_section(name, namespace, tmp_path, butler=True)
