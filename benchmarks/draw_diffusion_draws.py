"""Draw the table of ``diffusion_digits.py draws``: more draws of each row, or more networks?

    python benchmarks/draw_diffusion_draws.py docs/lds/diffusion-draws.csv --out docs/lds/diffusion-draws.png

One line for each number of networks; at the left against what the draws cost, at the right with the training of the
networks beyond the first, which is there anyway.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"1": "#2471a3", "2": "#1e8449", "4": "#c0392b"}
PLACES = {"1": (8, -11), "2": (-9, 3), "4": (-9, 4)}  # of the number of draws beside a point, so that none meet


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, default=Path("diffusion-draws.png"))
    args = parser.parse_args()
    with args.table.open(newline="") as file:
        table = list(csv.DictReader(file))
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    training = next(float(row["training, s"]) for row in table if row["networks"] == "1")
    for networks, color in COLORS.items():
        rows = [row for row in table if row["networks"] == networks]
        y = [float(row["LDS"]) for row in rows]
        passes = [int(row["draws"]) * int(networks) for row in rows]
        seconds = [float(row["fit and transform, s"]) + float(row["training, s"]) - training for row in rows]
        for ax, x in zip(axes, (passes, seconds)):
            ax.plot(x, y, "o-", color=color, label=networks)
        for row, *point in zip(rows, seconds, y):
            place = {"xytext": PLACES[networks], "textcoords": "offset points"}
            axes[1].annotate(row["draws"], point, ha="center", fontsize=8, color=color, **place)
    for ax in axes:
        ceiling = float(table[0]["ceiling"])
        ax.axhline(ceiling, color="black", alpha=0.4, linewidth=1, linestyle="--")
        ax.annotate("ceiling, rough", (0.02, ceiling), (0, 3), ax.get_yaxis_transform(), "offset points", fontsize=8)
        ax.set_xscale("log")
        ax.margins(y=0.1)
        ax.minorticks_off()
        ax.grid(alpha=0.25)
    axes[0].set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    axes[1].set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axes[0].set_xlabel("gradients of a row: draws times networks")
    axes[1].set_xlabel("seconds, with training of further networks (draws at points)")
    axes[0].set_ylabel("linear datamodeling score")
    axes[1].legend(title="networks", loc="lower right", fontsize=9)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
