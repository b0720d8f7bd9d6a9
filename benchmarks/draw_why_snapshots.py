"""Draw the tables of ``why_snapshots.py``.

python benchmarks/draw_why_snapshots.py --tables docs/lds --out docs/lds/why-snapshots.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"0.25": "#2471a3", "0.5": "#1e8449", "1": "#c0392b"}
TITLES = {"exact": "solved to the end", "layers": "projection on layers"}


def read(path: Path) -> list[list[str]]:
    """Return the lines of a table without its header."""
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=Path("."))
    parser.add_argument("--out", type=Path, default=Path("why-snapshots.png"))
    args = parser.parse_args()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    axes[1].sharey(axes[0])
    for ax, kind in zip(axes, TITLES):
        for steps, color in COLORS.items():
            lines = [row for row in read(args.tables / "why-snapshots-positions.csv") if row[:2] == [kind, steps]]
            x = [int(row[2]) / len(lines) for row in lines]
            for column, style, size in ((4, "-", 4), (3, ":", 0)):
                y = [float(row[column]) for row in lines]
                ax.plot(x, y, style, color=color, marker="o", markersize=size, label=steps if size else None)
            ax.axvline(float(steps), color=color, alpha=0.3, linewidth=1)
        ax.set_title(f"{TITLES[kind]}, one snapshot alone", fontsize=10)
        ax.set_xlabel("steps of the snapshot / of the training")
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("linear datamodeling score")
    axes[0].legend(title="steps of the halves / of\nthe training (thin lines)", fontsize=8, title_fontsize=8)
    axes[1].text(0.97, 0.03, "solid: mean of 10 networks\ndotted: one", transform=axes[1].transAxes, ha="right")
    for kind in TITLES:
        lines = [row for row in read(args.tables / "why-snapshots-errors.csv") if row[0] == kind]
        axes[2].plot([int(row[1]) for row in lines], [float(row[2]) for row in lines], marker="o", label=TITLES[kind])
    axes[2].set_title("errors that two snapshots share", fontsize=10)
    axes[2].set_xlabel("snapshots apart, of 16")
    axes[2].set_ylabel("correlation")
    axes[2].grid(alpha=0.25)
    axes[2].legend(fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
