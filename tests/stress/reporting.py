"""What the campaigns count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Table:
    """How often each outcome was met, in rows, and what must not be met.

    Attributes
    ----------
    head : tuple of str
        What the name of a row, or each part of it, is.
    bad : frozenset of str
        Outcomes that are defects.
    found : list of str
        Details of these.
    """

    head: tuple[str, ...]
    bad: frozenset[str]
    rows: dict[tuple[str, ...], Counter[str]] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def note(self, *row: str, counts: dict[str, int] | str, detail: str = "") -> None:
        """Count outcomes in a row; details are kept of bad ones."""
        counts = {counts: 1} if isinstance(counts, str) else counts
        self.rows.setdefault(row, Counter()).update(counts)
        if bad := {what: count for what, count in counts.items() if what in self.bad and count}:
            self.found.append(f"{', '.join(row)}: {bad} {detail}")

    def markdown(self) -> str:
        columns = list(dict.fromkeys(what for counts in self.rows.values() for what in counts))
        lines = [" | ".join([*self.head, *columns]), "|".join(["---"] * (len(self.head) + len(columns)))]
        lines += [" | ".join([*row, *(str(counts[what]) for what in columns)]) for row, counts in self.rows.items()]
        return "\n".join(f"| {line} |" for line in lines)
