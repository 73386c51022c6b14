"""Make the tables of `README.md` from the figures of `run.py`.

python benchmarks/report.py FIGURES.json [--readme]
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

OURS = "compositeh5"

Figures = dict[str, Any]
CLOCKS = {"wall": "Wall time", "cpu": "CPU time"}


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(peers: dict[str, dict[str, Any]], clock: str) -> str:
    """Return a Markdown table: a row for each peer, a column for each task, ratios in brackets."""
    tasks = list(dict.fromkeys(task for found in peers.values() for task in found))
    lines = [f"| | {' | '.join(tasks)} |", f"|---|{'---|' * len(tasks)}"]
    for peer, found in peers.items():
        cells = []
        for task in tasks:
            value, base = (one[clock] if isinstance(one, dict) else one for one in (found.get(task), ours(peers, task)))
            cell = "" if value is None else number(value)
            cells.append(cell + (f" ({value / base:.2g})" if value and base else ""))
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ours(peers: dict[str, dict[str, Any]], task: str) -> Any:
    return peers.get(OURS, {}).get(task)


def both_tables(peers: dict[str, dict[str, Any]]) -> str:
    parts = [f"{name} in ms (medians); in brackets the ratio to `{OURS}`." for name in CLOCKS.values()]
    wall, cpu = (f"{part}\n\n{table(peers, clock)}" for part, clock in zip(parts, CLOCKS, strict=True))
    return f"{wall}\n\n<details><summary>CPU time, all threads</summary>\n\n{cpu}\n\n</details>"


def goals_table(found: list[dict[str, Any]]) -> str:
    """Return a Markdown table of what `goals.py` measured: ratios of medians."""
    lines = ["| ratio | goal | wall | CPU | reached |", "|---|---|---|---|---|"]
    for one in found:
        ours, other = one["ours"], one["other"]
        if isinstance(ours, dict):
            ratios = {clock: ours[clock] / other[clock] for clock in CLOCKS}
        else:
            ratios = dict.fromkeys(CLOCKS, ours / other)
        goal, reached = "none", ""
        if (limit := one["limit"]) is not None:
            within = [clock for clock, ratio in ratios.items() if float(f"{ratio:.2g}") <= limit]
            goal = f"<= {limit:g}"
            reached = "yes" if len(within) == 2 else f"{within[0]} only" if within else "**no**"
        lines.append(f"| {one['text']} | {goal} | {ratios['wall']:.2g} | {ratios['cpu']:.2g} | {reached} |")
    return "\n".join(lines)


def goals(figures: Figures) -> str:
    lines = [goals_table(figures.get("goals") or [])]
    if "map without copying" in figures["peers"]["exposure"].get("compositeh5 raw", {}):
        lines.append("| raw image mapped into memory | no copy | no copy | | yes |")
    if figures.get("remote"):
        requests = figures["remote"]["reads"]["WCS"]["compositeh5"][0]
        reached = "yes" if requests <= 2 else "**no**"
        lines.append(f"| WCS in an object store, requests | <= 2 GET, no HEAD | {requests} GET | | {reached} |")
    return "\n".join(lines)


def where_others_win(figures: Figures) -> str:
    lines = []
    for group, peers in figures["peers"].items():
        for task, base in peers.get(OURS, {}).items():
            of = base["wall"] if isinstance(base, dict) else base
            faster = []
            for peer, found in peers.items():
                value = found.get(task)
                value = value["wall"] if isinstance(value, dict) else value
                if value is not None and of and value / of < 0.95 and not peer.startswith(OURS):
                    faster.append((value / of, peer))
            if faster:
                listed = ", ".join(f"{peer} {ratio:.2g}" for ratio, peer in sorted(faster))
                lines.append(f"| {group} | {task} | {listed} |")
    return "\n".join(["| of | task | who takes less, and what part of it (wall time) |", "|---|---|---|", *lines])


def butler_table(butler: Figures) -> str:
    lines = ["| call | wall, ms | CPU, ms | nothing stored: wall | CPU | requests to S3 |", "|---|---|---|---|---|---|"]
    for name, (mine, nothing) in butler["times"].items():
        asked = butler["requests"].get(name, [{}])[0]
        shown = ", ".join(f"{count} {method}" for method, count in sorted(asked.items())) or "none"
        cells = [number(one[clock]) for one in (mine, nothing) for clock in CLOCKS]
        lines.append(f"| {name} | {' | '.join(cells)} | {shown} |")
    sizes = (f"{butler[name]} x {butler[name]} pixels" for name in ("size", "s3_size"))
    return "{}, SQLite; requests with {} (moto).\n\n".format(*sizes) + "\n".join(lines)


def remote_table(remote: Figures) -> str:
    lines = ["| what is read | compositeh5: requests, MB, s | h5py on a stream: requests, MB, s |", "|---|---|---|"]
    for name, row in remote["reads"].items():
        cells = [f"{requests}, {sent:.1f}, {seconds:.2f}" for requests, sent, seconds in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    head = f"A file of {remote['megabytes']:.0f} MB, {remote['latency'] * 1000:.0f} ms latency."
    return f"{head}\n\n" + "\n".join(lines)


def growth_table(growth: Figures) -> str:
    lines = ["| with the number of | task | CPU, ms | t ~ n^x |", "|---|---|---|---|"]
    for what, tasks in growth.items():
        for name, row in tasks.items():
            cells = ", ".join(f"{n}: {number(ms)}" for n, ms in zip(row["numbers"], row["cpu"], strict=True))
            lines.append(f"| {what} | {name} | {cells} | {row['exponent']:.2f} |")
    return "\n".join(lines)


def environment(figures: Figures) -> str:
    lines = [", ".join(f"{name} {version}" for name, version in figures["versions"].items())]
    lines.append(figures["machine"])
    if figures["quick"]:
        lines.append(
            "A quick run with small sizes, **not those named below**: it shows the form, the figures mean little"
        )
    lines += [f"{name} was left out: {reason}" for name, reason in figures["skipped"].items()]
    return "\n".join(f"- {line}" for line in lines)


def markdown(figures: Figures) -> dict[str, str]:
    """Return the parts of the report by the names of their places."""
    parts = {"environment": environment(figures)}
    parts |= {group: both_tables(peers) for group, peers in figures["peers"].items()}
    parts |= {"goals": goals(figures), "others": where_others_win(figures)}
    makers = {"butler": butler_table, "remote": remote_table, "growth": growth_table}
    return parts | {name: make(figures[name]) for name, make in makers.items() if figures.get(name)}


def update_readme(figures: Figures, path: Path) -> None:
    """Put each part between the marks that name it."""
    text = path.read_text()
    for name, part in markdown(figures).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, found = pattern.subn(lambda marks, part=part: f"{marks[1]}\n{part}\n\n{marks[2]}", text)
        if found != 1:
            raise ValueError(f"{path}: there should be one place for {name!r}, not {found}")
    path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text())
    if arguments.readme:
        update_readme(figures, Path(__file__).with_name("README.md"))
    else:
        print("\n".join(f"### {name}\n\n{part}\n" for name, part in markdown(figures).items()))


if __name__ == "__main__":
    main()
