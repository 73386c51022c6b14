"""The tables of `README.md`, made of the figures of `run.py`."""

from __future__ import annotations

import math
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
    """Return a Markdown table of ratios of medians."""
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
    lines = [goals_table(figures["goals"])]
    if "map without copying" in figures.get("peers", {}).get("exposure", {}).get("compositeh5 raw", {}):
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


def trees_table(trees: Figures) -> str:
    lines = ["| one exposure | bytes | ms | overlay takes |", "|---|---|---|---|"]
    overlay = next(iter(trees["overlays"].values()))["ms"]
    for name, row in trees["overlays"].items():
        lines.append(f"| {name} | {row['bytes']} | {row['ms']:.1f} | {overlay / row['ms']:.1%} |")
    by_size = {int(files): times for files, times in trees["trees"].items()}
    lines += ["", f"| seconds | {' | '.join(f'{files} files' for files in by_size)} | t ~ n^x |"]
    lines.append("|---|" + "---|" * (len(by_size) + 1))
    (few, short), *_, (many, long) = by_size.items()
    for name in short:
        exponent = math.log(long[name] / short[name]) / math.log(many / few)
        lines.append(f"| {name} | {' | '.join(f'{times[name]:.2f}' for times in by_size.values())} | {exponent:.2f} |")
    return "\n".join(lines)


def plain_table(rows: Figures) -> str:
    """Return a table of numbers, of which the names of columns are those of the first row."""
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(number(row[what]) for what in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def profile_table(found: Figures) -> str:
    """Return a table with a row for each step, and a column for each task."""
    steps = {step: {task: own[step] for task, own in found.items()} for step in next(iter(found.values()))}
    sums = {task: sum(own.values()) for task, own in found.items()}
    return plain_table({**steps, "all": sums})


def environment(figures: Figures) -> str:
    lines = [", ".join(f"{name} {version}" for name, version in figures["versions"].items()), figures["machine"]]
    if figures["quick"]:
        lines.append(
            "A quick run with small sizes, **not those named below**: it shows the form, the figures mean little"
        )
    lines += [f"{name} was left out: {reason}" for name, reason in figures["skipped"].items()]
    return "\n".join(f"- {line}" for line in lines)


def markdown(figures: Figures) -> dict[str, str]:
    """Return the parts of the report by the names of their places."""
    parts: dict[str, str] = {}
    if "peers" in figures:
        parts |= {"environment": environment(figures), "others": where_others_win(figures)}
        parts |= {group: both_tables(peers) for group, peers in figures["peers"].items()}
    makers = {"butler": butler_table, "remote": remote_table, "growth": growth_table, "trees": trees_table}
    makers |= {"recipes": plain_table, "profile": profile_table}
    parts |= {name: make(figures[name]) for name, make in makers.items() if figures.get(name)}
    return parts | ({"goals": goals(figures)} if figures.get("goals") else {})


def update_readme(figures: Figures, path: Path) -> None:
    """Put each part between the marks that name it."""
    text = path.read_text()
    for name, part in markdown(figures).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, found = pattern.subn(lambda marks, part=part: f"{marks[1]}\n{part}\n\n{marks[2]}", text)
        if found != 1:
            raise ValueError(f"{path}: there should be one place for {name!r}, not {found}")
    path.write_text(text)
