"""Draw the tables of ``frontier.py``: linear datamodeling scores against networks, seconds of serving, and megabytes.

    python benchmarks/draw_frontier.py docs/lds/frontier-*.csv --out docs/lds/frontier.png

Lines join one method over more and more networks; the grey stairs are the best that a price can buy.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

COLORS = {"final": "#777777", "snapshots": "#c0392b", "dropout": "#2471a3", "lora": "#1e8449"}
NAMES = {"final": "the network alone", "snapshots": "its snapshots", "dropout": "dropout", "lora": "LoRA"}
MARKERS = {
    "influence functions, uncoupled": "v",
    "influence functions, layers": "^",
    "influence functions, exact": "D",
    "influence functions, krylov": "P",
    "SOURCE, L = 1, uncoupled": "s",
    "SOURCE, L = 1, layers": ">",
    "SOURCE, L = 1, krylov": "p",
    "SOURCE, uncoupled": "d",
    "SOURCE, layers": "o",
    "SOURCE, krylov": "h",
    "TRAK": "*",
    "TracIn": "x",
    "gradient dot": "1",
    "gradient cosine": "2",
}
COLUMNS = {
    "networks": "networks trained",
    "transform, s": "seconds of transform, one thread",
    "MB": "megabytes kept",
}


def lines_of(path: Path) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Return the rows of a table by members and method."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["members"], row["method"]), []).append(row)
    return found


def draw(ax: Any, lines: dict[tuple[str, str], list[dict[str, str]]], column: str) -> None:
    """Draw one panel."""
    for (members, method), rows in lines.items():
        kind = members.split("-")[0]
        x, y = zip(*((max(float(row[column]), 0.01), float(row["LDS"])) for row in rows))
        if column == "networks":  # side by side what would lie on one line
            x = tuple(value * 1.05 ** (list(COLORS).index(kind) - 1.5) for value in x)
        color = COLORS[kind]
        size = {"*": 9.0}.get(MARKERS[method], 5.0)
        ax.plot(x, y, color=color, marker=MARKERS[method], markersize=size, linewidth=0.7, alpha=0.75)
    points = sorted((max(float(row[column]), 0.01), float(row["LDS"])) for rows in lines.values() for row in rows)
    edge: list[tuple[float, float]] = []
    for x, y in points:
        if not edge or y > edge[-1][1]:
            edge.append((x, y))
    edge.append((points[-1][0], edge[-1][1]))
    ax.step(*zip(*edge), where="post", color="black", alpha=0.18, linewidth=4, zorder=0)
    ax.set_xscale("log")
    if column == "networks":
        ax.set_xticks([1, 2, 3, 5, 10], ["1", "2", "3", "5", "10"])
        ax.minorticks_off()
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.25)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("frontier.png"))
    args = parser.parse_args()
    figure, axes = plt.subplots(
        len(args.tables), 3, figsize=(12, 1 + 3.6 * len(args.tables)), sharey="row", squeeze=False, layout="constrained"
    )
    methods, kinds = [], []
    for path, panels in zip(args.tables, axes):
        lines = lines_of(path)
        for column, ax in zip(COLUMNS, panels):
            draw(ax, lines, column)
        panels[0].set_ylabel(f"{path.stem.removeprefix('frontier-')}\nlinear datamodeling score")
        methods += [method for _, method in lines]
        kinds += [members.split("-")[0] for members, _ in lines]
    for ax, label in zip(axes[-1], COLUMNS.values()):
        ax.set_xlabel(label)
    shown = [plt.Line2D([], [], color=COLORS[k], linewidth=3, label=NAMES[k]) for k in COLORS if k in kinds]
    shown += [
        plt.Line2D([], [], color="black", marker=MARKERS[m], linestyle="", label=m) for m in MARKERS if m in methods
    ]
    figure.legend(handles=shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
