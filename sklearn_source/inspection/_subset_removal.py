"""What happens to queries when the rows said to support them are taken away."""

from __future__ import annotations

import numpy as np

from ._plotting import LITERAL, REFERENCE, SUPPORTING, axes_for, finite_vector, require_matplotlib


class SubsetRemovalDisplay:
    """Flipped predictions, or change of the measurement, against the number of rows removed; random rows beside it.

    Made by :meth:`from_result` or :meth:`from_predictions`. Several methods go into one picture by drawing into the
    same axes with ``show_baseline=False``.

    Parameters
    ----------
    k : array-like of int of shape (n_k,)
        Numbers of rows removed per query.
    score : array-like of shape (n_k,)
        What came of it.
    baseline : array-like of shape (n_k,), optional
        What came of removing as many random rows.
    interval, baseline_interval : array-like of shape (n_k, 2) or (2, n_k), optional
        Ends of their intervals; a table of two by two holds one interval per line.
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
    bands_ : list of PolyCollection
        Intervals.
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
    def from_result(cls, result, *, ax=None, show_baseline=True, **names):
        """Draw what the metric returned.

        Parameters
        ----------
        result : Bunch
            With ``k`` and ``score``, and ``baseline``, ``interval`` and ``baseline_interval`` where there are any.
        ax : matplotlib Axes, optional
        show_baseline : bool, default=True
        **names : str
            ``name``, ``quantity`` and ``percent`` of the class.

        Returns
        -------
        display : SubsetRemovalDisplay
            Drawn.

        Raises
        ------
        ValueError
            If ``k`` or ``score`` is missing, or lengths differ.
        """
        missing = [field for field in ("k", "score") if getattr(result, field, None) is None]
        if missing:
            raise ValueError(
                f"expected a result with fields k and score, got a {type(result).__name__} without {', '.join(missing)}"
            )
        fields = {field: getattr(result, field, None) for field in ("baseline", "interval", "baseline_interval")}
        return cls.from_predictions(result.k, result.score, **fields, ax=ax, show_baseline=show_baseline, **names)

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
            Of the method; default: blue in empty axes, else the next of the cycle.

        Returns
        -------
        display : SubsetRemovalDisplay
            Itself.
        """
        ax = axes_for(ax, f"{type(self).__name__}.plot", (6.4, 4.2))
        if color is None and not ax.lines:
            color = SUPPORTING
        self.bands_ = []
        k = np.asarray(self.k)
        self.baseline_ = None
        if show_baseline and self.baseline is not None:
            (self.baseline_,) = ax.plot(k, self.baseline, "s--", color=REFERENCE, ms=4, label="random rows")
            self._band(ax, k, self.baseline_interval, REFERENCE)
        (self.line_,) = ax.plot(k, self.score, "o-", color=color, lw=2, label=self.name)
        self._band(ax, k, self.interval, self.line_.get_color())
        ax.set_xlabel("training rows removed per query")
        ax.set_ylabel(self.quantity, **LITERAL)
        if self.percent:
            from matplotlib.ticker import PercentFormatter

            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        elif np.min(self.score) < 0 < np.max(self.score):
            ax.axhline(0, color="0.3", lw=0.8)
        if len(k) <= 10:
            ax.set_xticks(k)
        ax.grid(axis="y", alpha=0.3)
        for text in ax.legend(frameon=False).get_texts():
            text.set_parse_math(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _band(self, ax, k, ends, color):
        if ends is not None:
            self.bands_.append(ax.fill_between(k, ends[:, 0], ends[:, 1], color=color, alpha=0.2, lw=0))


def _ends(interval, what, order):
    """Interval ends as (n_k, 2)."""
    if interval is None:
        return None
    ends = np.asarray(interval, dtype=np.float64)
    if ends.shape == (2, len(order)) and len(order) != 2:
        ends = ends.T
    if ends.shape != (len(order), 2) or not np.isfinite(ends).all() or (ends[:, 0] > ends[:, 1]).any():
        raise ValueError(
            f"expected {what} as finite lower and upper ends of shape ({len(order)}, 2), one line for each k, got shape "
            f"{ends.shape}"
        )
    return ends[order]
