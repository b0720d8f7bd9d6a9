"""What displays need of matplotlib: colours, axes divided, text that fits and is taken literally."""

from __future__ import annotations

from typing import Any

# Blue and orange differ for readers with any of the common colour vision deficiencies, and in print by lightness.
SUPPORTING, OPPOSING = "#2268b2", "#d9690a"
REFERENCE = "0.45"
# Names come from data: a dollar sign in them is no formula.
LITERAL: dict[str, Any] = {"parse_math": False}


def subdivide(ax, n_rows, n_columns, **ratios):
    """A GridSpec of n_rows x n_columns in the place of axes, which stay, empty."""
    from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec

    ax.set_axis_off()
    place = ax.get_subplotspec()
    if place is not None:
        return GridSpecFromSubplotSpec(n_rows, n_columns, subplot_spec=place, **ratios)
    box = ax.get_position()  # axes put by hand
    sides = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
    return GridSpec(n_rows, n_columns, figure=ax.figure, **sides, **ratios)


def update_layout(figure):
    """Have the figure compute the places of its axes, which text that has to fit needs to know."""
    figure.canvas.figure.draw_without_rendering()


def shrink_to_fit(figure, texts, smallest=4.0):
    """Give all texts one size at which each fits its place.

    Parameters
    ----------
    figure : Figure
        That holds them.
    texts : list of (Text, Axes, width, height)
        With the room each has, in data units of the axes.
    smallest : float
        Size in points below which no text gets, whether it fits or not.
    """
    update_layout(figure)
    factor = 1.0
    for text, ax, width, height in texts:
        box = text.get_window_extent()
        (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (width, 1)])
        factor = min(factor, abs(x1 - x0) / max(box.width, 1), abs(y1 - y0) * height / max(box.height, 1))
    for text, *_ in texts:
        text.set_fontsize(max(smallest, text.get_fontsize() * factor))


def score_colormap():
    """Colour map from opposing through white to supporting."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("supporting", [OPPOSING, "white", SUPPORTING])


def text_color_on(colour):
    """``"black"`` or ``"white"``, whichever is legible on a colour (red, green, blue) of values in [0, 1]."""
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"
