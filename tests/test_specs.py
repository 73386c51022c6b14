"""What README.md and the pages in specs/ and benchmarks/ say: their code runs, what they name exists."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import PAGES, ROOT, blocks, needs_the_command, run

from compositeh5 import kinds
from compositeh5.composite import definitions

RUN_ELSEWHERE = {"README.md": "test_readme.py", "use-cases.md": "test_use_cases.py"}
"""Pages whose code another test module runs."""


FLAGS = ("--quick", "--readme", "--plots")
"""Options of benchmarks behind which there is no value."""


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for match in re.finditer(r"`(?:tests/(?:stress/)?(test_\w+\.py)(?:::)?)?(test_\w+)?`", page.read_text()):
        file, name = match.groups()
        assert file is None or file in tests
        if name is not None:
            sources = tests.values() if file is None else [tests[file]]
            assert any(f"def {name}(" in source for source in sources), name


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_code_of_a_page_is_right(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language == "python":
            compile(block.code, page.name, "exec")
        elif block.language in ("sh", "bash"):
            done = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.code}\n{done.stderr}"
        elif block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "toml":
            tomllib.loads(block.code)
        else:
            assert block.language == "text", f"a block of {page.name} doesn't say in what language it is: {block.code}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES[:-1] if page.name not in RUN_ELSEWHERE], ids=lambda page: page.name
)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [block for block in blocks(page.read_text()) if not {"network", "images"}.intersection(block.tags)]
    if not wanted:
        return
    needs_the_command()
    for name in ("dask.dataframe", "lsst.daf.butler", "xarray"):
        if name.split(".")[0] in page.read_text():
            pytest.importorskip(name, reason=f"the page shows {name}")
    monkeypatch.setattr(kinds, "_registered", {})
    monkeypatch.setattr(definitions, "_registered", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    run(wanted, namespace, tmp_path, page.name)


@pytest.mark.parametrize("page", PAGES[:-1], ids=page_name)
def test_what_a_page_links_to_exists(page: Path) -> None:
    # The pictures of benchmarks/README.md are made by their run.
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_commands_that_a_page_names_exist_and_have_these_options(page: Path) -> None:
    commands = re.findall(r"python (benchmarks/\w+\.py|tests/stress)((?: [\w-]+)*)", page.read_text())
    for program, arguments in commands:
        path = ROOT / program
        source = (path / "__main__.py" if path.is_dir() else path).read_text()
        words = arguments.split()
        parts = [
            word for before, word in zip(["", *words], words, strict=False) if before in FLAGS or before[:2] != "--"
        ]
        for word in parts:
            assert f'"{word}"' in source, f"{program} has no {word}"


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "specs" / "img").iterdir())
    assert pictures
    assert all(path.suffix == ".png" and path.stat().st_size < 150_000 for path in pictures)
