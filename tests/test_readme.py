"""The code blocks of the README run, in their order, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import compositeh5

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def run_shell(code: str, folder: Path) -> None:
    """Run the lines of a block as a user would, but for tools that are not on this machine."""
    lines = [line for line in code.splitlines() if shutil.which(line.split()[0]) or not line.startswith("h5")]
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(compositeh5.__file__).parents[1]),
    }
    result = subprocess.run(
        ["bash", "-euc", "\n".join(lines)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_two_commands_come_first() -> None:
    first, second = (code for _, code in BLOCKS[:2])
    for code, end in ((first, "compositeh5 demo"), (second, "pytest -q")):
        assert code.startswith("python3 -m venv")
        assert code.endswith(f"{end}\n")
        assert code.count("\n") == 1


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lsst.daf.butler", reason="the extra `butler` isn't installed")
    if not (Path(sys.executable).parent / "compositeh5").exists():
        pytest.skip("the package isn't installed, so there is no command `compositeh5`")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for language, code in BLOCKS[2:]:
        if language == "python":
            exec(compile(code, "README.md", "exec"), namespace)
        else:
            run_shell(code, tmp_path)
    assert namespace["stamp"]["image"].shape == (64, 64)
    assert namespace["wcs"] is None
    assert (tmp_path / "image.fits").exists()
    printed = capsys.readouterr().out
    assert printed.count("30.0 s") == 2
    assert "linked -> visit.visit_info" in printed
