"""A user's own class and its definition. A storage class names it; the Butler does no more than import it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import compositeh5 as ch5

fails: dict[str, BaseException] = {}
"""What the parts of the class raise: ``constructor``, ``getter``, ``setter``."""


def _maybe_fail(part: str) -> None:
    if part in fails:
        raise fails[part]


@dataclass
class Observation:
    image: Any
    wcs: Any
    visit_info: Any = None
    _sources: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        _maybe_fail("constructor")

    def getSources(self) -> Any:
        _maybe_fail("getter")
        return self._sources

    def setSources(self, table: Any) -> None:
        _maybe_fail("setter")
        self._sources = table


class Unregistered(Observation):
    """A class for which there is no definition."""


definition = ch5.register_definition(
    ch5.load_definition(
        {
            "name": "test_observation",
            "version": 1,
            "dimensions": ["instrument", "visit", "detector"],
            "python_type": "observations.Observation",
            "components": {
                "image": {"kind": "image", "required": True},
                "wcs": {"kind": "wcs", "required": True},
                "visit_info": {"kind": "record", "shared": ["instrument", "visit"]},
                "sources": {"kind": "table", "getter": "getSources", "setter": "setSources"},
            },
        }
    )
)
