"""What happens to queries when the rows said to support them are taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ._curves import add_legend, draw_curve, keep_legend_away, n_curves
from ._display import Display, finite_vector
from ._matplotlib import LITERAL, REFERENCE
from ._removal_result import arguments_from_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection

# Points by which one method after the other is moved sideways, so that intervals do not hide each other.
_OFFSETS = (0, 4, -4, 8, -8)
# Numbers of rows closer than this share of their range would run into each other as ticks.
_MIN_TICK_DISTANCE = 0.06


class SubsetRemovalDisplay(Display):
    """Flipped predictions, or change of the measurement, against the number of rows removed; random rows beside it.

    Made by :meth:`from_result` or :meth:`from_predictions`. Several methods go into one picture by drawing into the
    same axes with ``show_baseline=False``.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    k : array-like of int of shape (n_k,)
        Numbers of rows removed per query.
    score : array-like of shape (n_k,)
        What came of it.
    baseline : array-like of shape (n_k,), optional
        What came of removing as many random rows.
    interval, baseline_interval : array-like of shape (2, n_k) or (n_k, 2), optional
        Lower and upper ends of their intervals; a table of two by two holds the lower ends first.
    name : str, default="rows of highest score"
        In the legend.
    quantity : str, default="queries whose prediction flipped"
        What is measured.
    percent : bool, default=False
        Whether it is a share, written as percentage.

    Attributes
    ----------
    line_ : Line2D
        The method's.
    baseline_ : Line2D or None
        That of random rows.
    intervals_ : list of LineCollection
        Vertical lines: the intervals of random rows and of the method, where they are known.
    ax_ : matplotlib Axes
        The axes drawn in.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    sklearn_source.metrics.subset_removal_score : The numbers.
    sklearn_source.retraining.retrain_without : The networks behind it.

    Examples
    --------
    >>> from sklearn_source.inspection import SubsetRemovalDisplay
    >>> display = SubsetRemovalDisplay.from_predictions([10, 20], [0.3, 0.5], [0.02, 0.04], percent=True)
    >>> display.line_.get_ydata()
    array([0.3, 0.5])
    """

    def __init__(
        self,
        *,
        k: ArrayLike,
        score: ArrayLike,
        baseline: ArrayLike | None = None,
        interval: ArrayLike | None = None,
        baseline_interval: ArrayLike | None = None,
        name: str = "rows of highest score",
        quantity: str = "queries whose prediction flipped",
        percent: bool = False,
    ):
        self.k = k
        self.score = score
        self.baseline = baseline
        self.interval = interval
        self.baseline_interval = baseline_interval
        self.name = name
        self.quantity = quantity
        self.percent = percent

    @classmethod
    def from_result(
        cls,
        result: Bunch,
        *,
        quantity: str = "auto",
        name: str = "rows of highest score",
        show_baseline: bool = True,
        ax: Axes | None = None,
    ) -> SubsetRemovalDisplay:
        """Draw what the metric returned.

        Parameters
        ----------
        result : Bunch
            Of ``subset_removal_score``: ``k``, ``flip_rate``, ``change``, and where they are known their intervals and
            the same for random rows, and ``measurement``. Or any with ``k``, ``score`` and where they are known
            ``baseline``, ``interval``, ``baseline_interval``.
        quantity : {"auto", "flip_rate", "change"}, default="auto"
            ``"auto"``: the rate of flips where there are any to speak of, else the change of the measurement.
        name : str, default="rows of highest score"
            In the legend.
        show_baseline : bool, default=True
            Whether to draw the random rows too.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : SubsetRemovalDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the result lacks the quantity, or lengths differ.
        """
        arguments = arguments_from_result(result, quantity)
        return cls.from_predictions(**arguments, name=name, show_baseline=show_baseline, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        k: ArrayLike,
        score: ArrayLike,
        baseline: ArrayLike | None = None,
        *,
        interval: ArrayLike | None = None,
        baseline_interval: ArrayLike | None = None,
        name: str = "rows of highest score",
        quantity: str = "queries whose prediction flipped",
        percent: bool = False,
        show_baseline: bool = True,
        ax: Axes | None = None,
    ) -> SubsetRemovalDisplay:
        """Draw arrays.

        Parameters
        ----------
        k : array-like of int of shape (n_k,)
            Numbers of rows removed per query, in any order.
        score : array-like of shape (n_k,)
            What came of it.
        baseline : array-like of shape (n_k,), optional
            What came of removing as many random rows.
        interval, baseline_interval : array-like of shape (2, n_k) or (n_k, 2), optional
            Lower and upper ends of their intervals; a table of two by two holds the lower ends first.
        name : str, default="rows of highest score"
            In the legend.
        quantity : str, default="queries whose prediction flipped"
            What is measured.
        percent : bool, default=False
            Whether it is a share, written as percentage.
        show_baseline : bool, default=True
            Whether to draw the random rows too.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : SubsetRemovalDisplay
            Drawn.

        Raises
        ------
        ValueError
            If lengths differ, numbers are not finite, or an upper end is below its lower one.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_predictions")
        counts = finite_vector(k, "k")
        order = np.argsort(counts, kind="stable")
        return cls(
            k=counts[order],
            score=finite_vector(score, "score", len(counts))[order],
            baseline=None if baseline is None else finite_vector(baseline, "baseline", len(counts))[order],
            interval=_interval_ends(interval, "interval", order),
            baseline_interval=_interval_ends(baseline_interval, "baseline_interval", order),
            name=name,
            quantity=quantity,
            percent=percent,
        ).plot(ax=ax, show_baseline=show_baseline)

    def plot(self, ax: Axes | None = None, *, show_baseline: bool = True, color: Any = None) -> SubsetRemovalDisplay:
        """Draw the curves with their intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; default: a new figure.
        show_baseline : bool, default=True
            Whether to draw the random rows too.
        color : matplotlib color, optional
            Of the method; default: another one for each in the same axes.

        Returns
        -------
        display : SubsetRemovalDisplay
            Itself.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        ax = self._set_axes(ax, (6.4, 4.2))
        shifted = _shifted(ax, _OFFSETS[n_curves(ax) % len(_OFFSETS)])
        self.intervals_: list[LineCollection] = []
        k = np.asarray(self.k)
        self.baseline_ = None
        if show_baseline and self.baseline is not None:
            (self.baseline_,) = ax.plot(k, self.baseline, "s-", color=REFERENCE, ms=4, lw=1.2, label="random rows")
            self._draw_interval(ax, self.baseline_interval, REFERENCE, ax.transData)
        self.line_ = draw_curve(ax, k, self.score, self.name, color=color, markers=True, lw=2)
        self.line_.set_transform(shifted)  # after the limits were computed, which know data coordinates only
        self._draw_interval(ax, self.interval, self.line_.get_color(), shifted)
        log = len(k) > 1 and k[0] > 0 and np.diff(k).min() < _MIN_TICK_DISTANCE * (k[-1] - k[0])
        ax.set_xscale("log" if log else "linear")
        words = "training rows removed per query" + (" (log scale)" if log else "")
        ax.set_xlabel(words + ("\nvertical lines: intervals over queries" if self.intervals_ else ""))
        ax.set_ylabel(self.quantity, **LITERAL)
        if self.percent:
            from matplotlib.ticker import PercentFormatter

            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        elif np.min(self.score) < 0 < np.max(self.score):
            ax.axhline(0, color="0.3", lw=0.8)
        if len(k) <= 10:
            ax.set_xticks(k, [f"{value:g}" for value in k])
            ax.set_xticks([], minor=True)
        ax.grid(axis="y", alpha=0.3)
        add_legend(ax, frameon=False)
        return self

    def _draw_interval(self, ax, ends, color, transform):
        """Draw a vertical line for every ``k``, if its ends, (2, n_k), are known."""
        if ends is not None:
            self.intervals_.append(ax.vlines(self.k, ends[0], ends[1], color=color, lw=1.4, alpha=0.7))
            self.intervals_[-1].set_transform(transform)
            keep_legend_away(ax, self.k, *ends, transform)


def _shifted(ax, points):
    """The transform from data coordinates, moved to the right by some points."""
    from matplotlib.transforms import ScaledTranslation

    return ax.transData + ScaledTranslation(points / 72, 0, ax.figure.dpi_scale_trans)


def _interval_ends(interval, what, order):
    """Lower and upper ends, (2, n_k), in the order of k; None where there are none."""
    if interval is None:
        return None
    ends = np.asarray(interval, dtype=np.float64)
    if ends.shape == (len(order), 2) and len(order) != 2:
        ends = ends.T
    if ends.shape != (2, len(order)) or not np.isfinite(ends).all() or (ends[0] > ends[1]).any():
        raise ValueError(
            f"expected {what} as finite lower and upper ends, shape (2, {len(order)}), one of each for every k, got "
            f"shape {ends.shape}"
        )
    return ends[:, order]
