"""Curves of several methods in the same axes, told apart by colour, line and marker, and their legend."""

from __future__ import annotations

import numpy as np

from ._matplotlib import OPPOSING, SUPPORTING, update_layout

# Colours that keep their distance for all readers, and another line or marker for each method.
_STYLES = [
    (SUPPORTING, "-", "o"),
    (OPPOSING, (0, (6, 1.5)), "D"),
    ("#1a936f", "-.", "^"),
    ("#7b3294", (0, (3, 1, 1, 1)), "v"),
    ("black", (0, (1, 1)), "X"),
]
_CURVE_ID = "sklearn_source-curve"
_BELOW_DIAGONAL = 0.92  # width and height of a legend that stays below it, as shares of the axes, together


def n_curves(ax):
    """How many methods these axes show."""
    return sum(line.get_gid() == _CURVE_ID for line in ax.lines)


def draw_curve(ax, x, y, name, *, color=None, markers=False, **style):
    """Draw the curve of one more method in these axes, looking different from those that are there.

    Parameters
    ----------
    ax : Axes
        Where.
    x, y : array-like of shape (n,)
        Its points.
    name : str
        In the legend.
    color : color, optional
        Of the curve; None: the next one.
    markers : bool
        Whether to mark the points.
    **style
        For ``Axes.plot``.

    Returns
    -------
    line : Line2D
        The curve.
    """
    own_color, line_style, marker = _STYLES[n_curves(ax) % len(_STYLES)]
    if markers:
        style["marker"] = marker
    (line,) = ax.plot(x, y, label=name, color=color or own_color, ls=line_style, zorder=3, **style)
    line.set_gid(_CURVE_ID)
    return line


def keep_legend_away(ax, x, low, high, transform):
    """Have the legend take another place than vertical lines from ``low`` to ``high`` at ``x``, each (n,).

    Matplotlib finds the best place by the lines in the axes, and overlooks collections of lines: these are for it.
    """
    gaps = [float("nan")] * len(x)
    (lines,) = ax.plot(np.stack([x, x, x], axis=1).ravel(), np.stack([low, high, gaps], axis=1).ravel(), visible=False)
    lines.set_transform(transform)


def add_legend(ax, below_diagonal=False, **style):
    """Add a legend: the methods first, then what they are compared with; names are taken literally.

    Parameters
    ----------
    ax : Axes
        Of the curves.
    below_diagonal : bool
        Whether to keep it in the lower right half, written smaller where the axes are small.
    **style
        For ``Axes.legend``.
    """
    handles, names = ax.get_legend_handles_labels()
    pairs = sorted(zip(handles, names), key=lambda pair: getattr(pair[0], "get_gid", str)() != _CURVE_ID)
    place = {"loc": "lower right"} if below_diagonal else {}
    legend = _literal_legend(ax, pairs, **place, **style)
    if below_diagonal:
        legend.set_in_layout(False)  # it gives way to the axes, not they to it
        update_layout(ax.figure)
        box = legend.get_window_extent()
        factor = _BELOW_DIAGONAL / (box.width / ax.bbox.width + box.height / ax.bbox.height)
        if factor < 1:
            smaller = {**style, "fontsize": factor * legend.get_texts()[0].get_fontsize()}
            _literal_legend(ax, pairs, **place, **smaller)


def _literal_legend(ax, pairs, **style):
    """The legend of pairs of (handle, name), in which a dollar sign is no formula."""
    legend = ax.legend(*zip(*pairs), **style)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend
