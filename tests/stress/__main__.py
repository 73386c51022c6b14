"""Long campaigns: damage, faults, strangers' text, many processes at once, and a long run of one repository.

    python tests/stress [--minutes 60] [--seed 0] [CAMPAIGN ...]

The time is shared by the campaigns (damage, faults, parsers, concurrency, soak), each of which runs at least one round;
rounds differ by their seeds. Prints a Markdown table for each, and the details of what must not be; exit code 1 if
there is any. Files are made below TMPDIR: with that on tmpfs, nothing waits for the disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from concurrency import concurrency, concurrency_table
from damage import damage, damage_table, other_software
from faults import faults, faults_table
from parsers import parsers, parsers_table
from reporting import Table
from soak import soak, soak_table

ROUNDS: dict[str, tuple[Callable[[], Table], Callable[[Table, Path, int], None]]] = {
    "damage": (damage_table, damage),
    "faults": (faults_table, faults),
    "parsers": (parsers_table, parsers),
    "concurrency": (concurrency_table, concurrency),
}


def campaign(name: str, folder: Path, seconds: float, seed: int) -> Table:
    """Run a campaign for some time, or one round if that takes longer."""
    if name == "soak":
        soak(table := soak_table(), folder, seconds)
        return table
    end = time.monotonic() + seconds
    new_table, one_round = ROUNDS[name]
    table = new_table()
    if name == "damage":
        other_software(table, folder)
    one_round(table, folder, seed)
    while time.monotonic() < end:
        seed += 1
        one_round(table, folder, seed)
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="for all campaigns together")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", default=[*ROUNDS, "soak"])
    options = parser.parse_args(arguments)
    if unknown := set(options.campaigns) - {*ROUNDS, "soak"}:
        parser.error(f"no campaign {', '.join(unknown)}")
    is_bad = False
    for name in options.campaigns:
        with tempfile.TemporaryDirectory() as folder:
            seconds = 60 * options.minutes / len(options.campaigns)
            table = campaign(name, Path(folder).resolve(), seconds, options.seed)
        print(f"### {name}\n\n{table.markdown()}\n", flush=True)
        for found in table.found[:20]:
            print(f"{found}\n")
        is_bad |= bool(table.found)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
