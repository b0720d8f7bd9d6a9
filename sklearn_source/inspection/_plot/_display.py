"""What the displays have in common: the check for matplotlib, the axes drawn in, checked numbers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Display:
    """Base of the displays, which hold what they draw and draw it by ``plot``.

    Matplotlib is imported on use alone, so that the room can be imported without it.

    Attributes
    ----------
    ax_ : Axes
        Those drawn in.
    figure_ : Figure
        Their figure.
    """

    ax_: Axes
    figure_: Figure

    @classmethod
    def _require_matplotlib(cls, method):
        """Say what is missing before any computation; ``method`` is the name of the one called."""
        _pyplot(f"{cls.__name__}.{method}")

    def _set_axes(self, ax, figsize):
        """The given axes, or those of a new figure of ``figsize`` inches where ``ax`` is None, kept as ``ax_``."""
        plt = _pyplot(f"{type(self).__name__}.plot")
        if ax is None:
            ax = plt.subplots(figsize=figsize, layout="constrained")[1]
        elif not hasattr(ax, "get_position") or not hasattr(ax, "figure"):
            raise ValueError(f"expected ax to be matplotlib Axes or None, got a {type(ax).__name__}")
        self.ax_, self.figure_ = ax, ax.figure
        return ax


def _pyplot(caller):
    """``matplotlib.pyplot``, or one clear error where it is missing."""
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(f"{caller} draws with matplotlib: pip install matplotlib, or sklearn-source[plot]") from error


def number_array(values, what):
    """Values as an array of numbers, refused where they are something else."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"expected {what} as an array of numbers ({error})") from error
    if array.dtype.kind not in "buif":
        raise ValueError(f"expected {what} as numbers, got {array.dtype} of shape {array.shape}")
    return array


def finite_vector(values, what, length=None):
    """Values as float64 (n,), refused where they are not finite, not numbers, or not of a length that is given."""
    array = number_array(values, what)
    if array.dtype.kind not in "buif" or array.ndim != 1 or (length is not None and len(array) != length):
        size = "n," if length is None else f"{length},"
        raise ValueError(f"expected {what} as numbers of shape ({size}), got {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite {what}, got NaN or infinity")
    return array.astype(np.float64)
