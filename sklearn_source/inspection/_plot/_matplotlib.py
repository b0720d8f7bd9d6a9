"""What all displays share: colours, axes, text that is taken literally."""

from __future__ import annotations

import importlib

import numpy as np

# Blue and orange differ for readers with any of the common colour vision deficiencies, and in print by lightness.
SUPPORTING, OPPOSING = "#2268b2", "#d9690a"
REFERENCE = "0.45"
# Several methods in one picture: colours that keep their distance for all readers, and another line or marker for each.
_CURVES = [
    (SUPPORTING, "-", "o"),
    (OPPOSING, (0, (6, 1.5)), "D"),
    ("#1a936f", "-.", "^"),
    ("#7b3294", (0, (3, 1, 1, 1)), "v"),
    ("black", (0, (1, 1)), "X"),
]
_MARK = "sklearn_source-curve"
_BELOW_DIAGONAL = 0.92  # width and height of a legend that stays below it, as shares of the axes, together
# Names come from data: a dollar sign in them is no formula.
LITERAL = {"parse_math": False}


def pyplot(caller):
    """``matplotlib.pyplot``, or one clear error where it is missing."""
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(f"{caller} draws with matplotlib: pip install matplotlib, or sklearn-source[plot]") from error


def require_matplotlib(caller):
    """Say what is missing before any computation."""
    pyplot(caller)


def axes_for(ax, caller, figsize=None):
    """The given axes, or those of a new figure."""
    plt = pyplot(caller)
    if ax is None:
        return plt.subplots(figsize=figsize, layout="constrained")[1]
    if not hasattr(ax, "get_position") or not hasattr(ax, "figure"):
        raise ValueError(f"expected ax to be matplotlib Axes or None, got a {type(ax).__name__}")
    return ax


def n_curves(ax):
    """How many methods these axes show."""
    return sum(line.get_gid() == _MARK for line in ax.lines)


def next_curve(ax):
    """Colour, line style and marker for one more method in these axes."""
    return _CURVES[n_curves(ax) % len(_CURVES)]


def count_curve(line):
    """Have the next method look different."""
    line.set_gid(_MARK)


def add_legend(ax, below_diagonal=False, **style):
    """A legend: the methods first, then what they are compared with; names are taken literally.

    Parameters
    ----------
    ax : Axes
    below_diagonal : bool
        Whether to keep it in the lower right half, written smaller where the axes are small.
    **style
        For ``Axes.legend``.
    """
    handles, names = ax.get_legend_handles_labels()
    pairs = sorted(zip(handles, names), key=lambda pair: getattr(pair[0], "get_gid", str)() != _MARK)
    place = {"loc": "lower right"} if below_diagonal else {}
    legend = _legend(ax, pairs, **place, **style)
    if below_diagonal:
        legend.set_in_layout(False)  # it gives way to the axes, not they to it
        lay_out(ax.figure)
        box = legend.get_window_extent()
        factor = _BELOW_DIAGONAL / (box.width / ax.bbox.width + box.height / ax.bbox.height)
        if factor < 1:
            _legend(ax, pairs, **place, **{**style, "fontsize": factor * legend.get_texts()[0].get_fontsize()})


def _legend(ax, pairs, **style):
    legend = ax.legend(*zip(*pairs), **style)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def divide(ax, n_rows, n_columns, **ratios):
    """A grid in the place of axes, which stay, empty."""
    from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec

    ax.set_axis_off()
    place = ax.get_subplotspec()
    if place is not None:
        return GridSpecFromSubplotSpec(n_rows, n_columns, subplot_spec=place, **ratios)
    box = ax.get_position()  # axes put by hand
    sides = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
    return GridSpec(n_rows, n_columns, figure=ax.figure, **sides, **ratios)


def lay_out(figure):
    """Let the figure find the places of its axes, which text that has to fit needs to know."""
    figure.canvas.figure.draw_without_rendering()


def shrink_to_fit(figure, texts, smallest=4.0):
    """Give all texts one size at which each fits its place.

    Parameters
    ----------
    figure : Figure
    texts : list of (Text, Axes, width, height)
        With the room each has, in data units of the axes.
    """
    lay_out(figure)
    factor = 1.0
    for text, ax, width, height in texts:
        box = text.get_window_extent()
        (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (width, 1)])
        factor = min(factor, abs(x1 - x0) / max(box.width, 1), abs(y1 - y0) * height / max(box.height, 1))
    for text, *_ in texts:
        text.set_fontsize(max(smallest, text.get_fontsize() * factor))


def blue_orange():
    """Colour map from opposing through white to supporting."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("supporting", [OPPOSING, "white", SUPPORTING])


def ink_on(colour):
    """Black or white, whichever is legible on a colour."""
    red, green, blue = colour[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def finite_vector(values, what, length=None):
    """One-dimensional float64, finite, of a length where one is given."""
    array = np.asarray(values)
    if array.dtype.kind not in "buif" or array.ndim != 1 or (length is not None and len(array) != length):
        size = "n," if length is None else f"{length},"
        raise ValueError(f"expected {what} as numbers of shape ({size}), got {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite {what}, got NaN or infinity")
    return array.astype(np.float64)
