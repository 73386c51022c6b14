"""What the pages in specs/ name must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", sorted((ROOT / "specs").glob("*.md")), ids=lambda path: path.name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    tests = {path.name: path.read_text() for path in (ROOT / "tests").glob("test_*.py")}
    for match in re.finditer(r"`(?:tests/(test_\w+\.py)(?:::)?)?(test_\w+)?`", page.read_text()):
        file, name = match.groups()
        assert file is None or file in tests
        if name is not None:
            sources = tests.values() if file is None else [tests[file]]
            assert any(f"def {name}(" in source for source in sources), name
