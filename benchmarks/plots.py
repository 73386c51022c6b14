"""The pictures of `README.md`, drawn of the figures of `run.py`; this needs matplotlib (extra ``benchmarks``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

mpl.use("Agg")

OURS, OTHERS = "#c44e52", "#8c9bb0"
PANELS = {
    "exposure": ["write", "read whole", "one cutout", "100 cutouts", "WCS", "size, MB"],
    "visit": ["write", "record of each", "all WCS", "size, MB"],
    "catalog": ["write", "read whole", "3 columns", "1000 rows"],
}


def bars(peers: dict[str, Any], tasks: list[str], title: str, path: Path) -> None:
    """Draw a row of panels, each with a bar for each peer."""
    names = list(peers)[::-1]
    figure, axes = plt.subplots(1, len(tasks), figsize=(2.1 * len(tasks) + 2, 0.24 * len(names) + 1.1), sharey=True)
    for ax, task in zip(axes, tasks, strict=True):
        for row, name in enumerate(names):
            value = peers[name].get(task)
            value = value["wall"] if isinstance(value, dict) else value
            if value is not None:
                ax.barh(row, value, color=OURS if name.startswith("compositeh5") else OTHERS)
        log(ax.xaxis)
        lowest, highest = ax.dataLim.minposx, ax.dataLim.x1
        ax.set_xlim(lowest / 2, highest * 1.5)
        ax.set_title(task if "MB" in task else f"{task}, ms", fontsize=9)
        ax.tick_params(labelsize=7)
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def growth(found: dict[str, Any], path: Path) -> None:
    """Draw how the cost of each task grows."""
    figure, axes = plt.subplots(1, len(found), figsize=(3 * len(found), 2.8))
    for ax, (what, tasks) in zip(axes, found.items(), strict=True):
        for name, row in tasks.items():
            ax.plot(row["numbers"], row["cpu"], "o-", ms=3, lw=1, label=f"{name}: n^{row['exponent']:.2f}")
        log(ax.xaxis)
        log(ax.yaxis)
        ax.set_xlabel(f"number of {what}", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("CPU time, ms", fontsize=8)
    save(figure, path)


def log(axis: Any) -> None:
    """Make an axis logarithmic, with labels at powers of ten or, where there are few of these, between them."""
    {"x": axis.axes.set_xscale, "y": axis.axes.set_yscale}[axis.axis_name]("log")
    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    # Without the version and the date: the same figures make the same file.
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def draw(figures: dict[str, Any], folder: Path) -> None:
    """Draw all that there are figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = {"exposure": "One exposure", "visit": "A visit", "catalog": "A catalog"}
    for group, tasks in PANELS.items() if "peers" in figures else ():
        bars(figures["peers"][group], tasks, f"{titles[group]}: wall time, shorter is better", folder / f"{group}.png")
    if figures.get("growth"):
        growth(figures["growth"], folder / "growth.png")
