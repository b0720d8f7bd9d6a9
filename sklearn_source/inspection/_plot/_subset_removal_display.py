"""What happens to queries when the rows said to support them are taken away."""

from __future__ import annotations

import numpy as np

from ._influence_words import measured
from ._matplotlib import (
    LITERAL,
    REFERENCE,
    add_legend,
    axes_for,
    count_curve,
    finite_vector,
    n_curves,
    next_curve,
    require_matplotlib,
)

_PLAIN = ("score", "interval", "baseline", "baseline_interval")
# Points by which one method after the other is moved sideways, so that intervals do not hide each other.
_ASIDE = (0, 4, -4, 8, -8)
# Numbers of rows closer than this share of their range would run into each other as ticks.
_CLOSE = 0.06
# By the name of the metric's field: the fields of it, of its interval and of the random rows'; words; whether a share.
_QUANTITIES = {
    "flip_rate": (
        ("flip_rate", "flip_interval", "random_flip_rate", "random_flip_interval"),
        "queries flipped",
        True,
    ),
    "change": (
        ("change", "change_interval", "random_change", "random_change_interval"),
        "fall of {}, mean over queries",
        False,
    ),
}


class SubsetRemovalDisplay:
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
    figure_ : matplotlib Figure

    See Also
    --------
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
        k,
        score,
        baseline=None,
        interval=None,
        baseline_interval=None,
        name="rows of highest score",
        quantity="queries whose prediction flipped",
        percent=False,
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
    def from_result(cls, result, *, quantity="auto", name="rows of highest score", show_baseline=True, ax=None):
        """Draw what the metric returned.

        Parameters
        ----------
        result : Bunch
            Of ``subset_removal_score``: ``k``, ``flip_rate``, ``change``, and where they are known their intervals and
            the same for random rows, and ``measurement``. Or any with ``k``, ``score`` and where they are known
            ``baseline``, ``interval``, ``baseline_interval``.
        quantity : {"auto", "flip_rate", "change"}, default="auto"
            ``"auto"``: the rate of flips where there are any to speak of, else the change of the measurement.
        name, show_baseline, ax : as in :meth:`from_predictions`

        Returns
        -------
        display : SubsetRemovalDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the result lacks the quantity, or lengths differ.
        """
        if quantity not in ("auto", *_QUANTITIES):
            raise ValueError(f"quantity must be 'auto' or one of {tuple(_QUANTITIES)}, got {quantity!r}")
        if quantity == "auto":
            known = [q for q in _QUANTITIES if _known(getattr(result, q, None))]
            quantity = known[0] if known else None
        fields, words, percent = _QUANTITIES.get(quantity, (_PLAIN, "effect of removal", False))
        words = words.format(measured(getattr(result, "measurement", None)))
        score, interval, baseline, baseline_interval = (getattr(result, field, None) for field in fields)
        if getattr(result, "k", None) is None or score is None:
            raise ValueError(
                f"expected a result with fields k and {fields[0]}, as subset_removal_score returns it, got a "
                f"{type(result).__name__} without"
            )
        return cls.from_predictions(
            result.k,
            score,
            baseline if _known(baseline) else None,
            interval=interval if _known(interval) else None,
            baseline_interval=baseline_interval if _known(baseline_interval) else None,
            name=name,
            quantity=words,
            percent=percent,
            show_baseline=show_baseline,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        k,
        score,
        baseline=None,
        *,
        interval=None,
        baseline_interval=None,
        name="rows of highest score",
        quantity="queries whose prediction flipped",
        percent=False,
        show_baseline=True,
        ax=None,
    ):
        """Draw arrays.

        Parameters
        ----------
        k, score, baseline, interval, baseline_interval, name, quantity, percent : as in the class
        show_baseline : bool, default=True
            Whether to draw it too.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : SubsetRemovalDisplay
            Drawn.

        Raises
        ------
        ValueError
            If lengths differ, or numbers are not finite.
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        k = finite_vector(k, "k")
        order = np.argsort(k, kind="stable")
        score = finite_vector(score, "score", len(k))[order]
        if baseline is not None:
            baseline = finite_vector(baseline, "baseline", len(k))[order]
        return cls(
            k=k[order],
            score=score,
            baseline=baseline,
            interval=_ends(interval, "interval", order),
            baseline_interval=_ends(baseline_interval, "baseline_interval", order),
            name=name,
            quantity=quantity,
            percent=percent,
        ).plot(ax=ax, show_baseline=show_baseline)

    def plot(self, ax=None, *, show_baseline=True, color=None):
        """Draw.

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
        """
        ax = axes_for(ax, f"{type(self).__name__}.plot", (6.4, 4.2))
        own, style, marker = next_curve(ax)
        aside = _aside(ax, _ASIDE[n_curves(ax) % len(_ASIDE)])
        self.intervals_ = []
        k = np.asarray(self.k)
        self.baseline_ = None
        if show_baseline and self.baseline is not None:
            (self.baseline_,) = ax.plot(k, self.baseline, "s-", color=REFERENCE, ms=4, lw=1.2, label="random rows")
            self._draw_interval(ax, self.baseline_interval, REFERENCE, ax.transData)
        look = {"marker": marker, "ls": style, "color": color or own, "lw": 2}
        (self.line_,) = ax.plot(k, self.score, label=self.name, zorder=3, **look)
        self.line_.set_transform(aside)  # after the limits were found, which know data coordinates only
        count_curve(self.line_)
        self._draw_interval(ax, self.interval, self.line_.get_color(), aside)
        log = len(k) > 1 and k[0] > 0 and np.diff(k).min() < _CLOSE * (k[-1] - k[0])
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
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_interval(self, ax, ends, color, transform):
        if ends is not None:
            self.intervals_.append(ax.vlines(self.k, ends[0], ends[1], color=color, lw=1.4, alpha=0.7))
            self.intervals_[-1].set_transform(transform)


def _aside(ax, points):
    """Data coordinates, moved to the right by some points."""
    from matplotlib.transforms import ScaledTranslation

    return ax.transData + ScaledTranslation(points / 72, 0, ax.figure.dpi_scale_trans)


def _known(values):
    """Whether there are numbers: the metric says NaN where it cannot tell."""
    return values is not None and bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())


def _ends(interval, what, order):
    """Lower and upper ends, each (n_k,), in the order of k."""
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
