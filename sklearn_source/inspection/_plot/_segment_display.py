"""Where in training influence arose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ...rows import count_rows, take_rows
from .._segment_scores import iter_segment_scores
from .._showable import take_showable
from ._display import Display, number_array
from ._influence_data import check_scale, position_of
from ._matplotlib import LITERAL, OPPOSING, SUPPORTING, subdivide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...attribution import SegmentSummary, SourceAttribution

_MAX_TICKS = 14
_FLOOR = 1e-6  # h sigma below which nothing at all moved: where the axis ends


class SegmentDisplay(Display):
    """In which segments of training the influence arose, and how far each segment had learned.

    Above, for every segment of :class:`~sklearn_source.SourceAttribution`, the sum of its positive scores over the
    training rows and that of its negative ones, with the segment's share of all absolute scores. Below, quantiles of
    ``h sigma`` over the directions of the weights: far above 1, a direction was learned to the end within the segment,
    which then acts like an influence function there; far below 1 it hardly moved, as TracIn takes for granted. Most of
    the gradients lies in the few directions at the top, which the marks at 95 %, 99 % and the largest show.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    segments : list of SegmentSummary
        The ``segments_`` of an estimator.
    supporting, opposing : ndarray of shape (n_segments,)
        Sums of positive and of negative scores over training rows, mean over queries, in the unit of the measurement.
    of : str, default="mean of all queries"
        Whose scores they are.
    unit : str, optional
        Of the scores.

    Attributes
    ----------
    shares_ : ndarray of shape (n_segments,)
        Of the sum of absolute scores.
    supporting_, opposing_ : BarContainer
        The bars.
    axes_ : ndarray of Axes of shape (2,)
        Scores, and ``h sigma``.
    ax_ : matplotlib Axes
        The axes that were divided.
    figure_ : matplotlib Figure

    See Also
    --------
    segment_scores : The scores of every row and query by segment.
    InfluenceDisplay : Which rows they are.

    Examples
    --------
    >>> display = SegmentDisplay.from_estimator(est, X_query, query=0)  # doctest: +SKIP
    >>> display.shares_  # of each segment in all influence on the first query  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        segments: Sequence[SegmentSummary],
        supporting: np.ndarray,
        opposing: np.ndarray,
        of: str = "mean of all queries",
        unit: str | None = None,
    ):
        self.segments = segments
        self.supporting = supporting
        self.opposing = opposing
        self.of = of
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: SourceAttribution,
        X_query: Any,
        y: Any = None,
        *,
        query: int | None = None,
        scale: float = 1.0,
        unit: str | None = None,
        ax: Axes | None = None,
    ) -> SegmentDisplay:
        """Score queries segment by segment, and draw.

        Parameters
        ----------
        estimator : SourceAttribution
            Fitted.
        X_query : array-like of shape (n_query, ...)
            The queries, as ``transform`` takes them.
        y : array-like of shape (n_query, ...), optional
            Their targets, for measurements that need them.
        query : int, optional
            Which one; default: the mean of all.
        scale : float, default=1.0
            Multiplies the scores.
        unit : str, optional
            Of the scores times ``scale``.
        ax : matplotlib Axes, optional
            Axes that are divided in two; default: a new figure.

        Returns
        -------
        display : SegmentDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the estimator has no segments, or the query does not exist.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_estimator")
        check_scale(scale)
        n_query = count_rows(X_query)  # a number, of all that transform takes
        position, of = _which_queries(query, n_query)
        if position is not None:
            X_query, y = take_rows(X_query, [position]), None if y is None else np.asarray(take_showable(y, [position]))
            n_query = 1
        sums = np.zeros((2, len(getattr(estimator, "segments_", ()))))
        for segment, _, _, scores in iter_segment_scores(estimator, X_query, y):
            sums[0, segment] += float(scores.clamp(min=0).sum())
            sums[1, segment] += float(scores.clamp(max=0).sum())
        supporting, opposing = scale * sums / n_query  # type: ignore[operator]
        return cls(segments=estimator.segments_, supporting=supporting, opposing=opposing, of=of, unit=unit).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        scores: ArrayLike,
        segments: Sequence[SegmentSummary],
        *,
        query: int | None = None,
        unit: str | None = None,
        ax: Axes | None = None,
    ) -> SegmentDisplay:
        """Draw scores that :func:`segment_scores` gave.

        Parameters
        ----------
        scores : array-like of shape (n_segments, n_query, n_train)
            By segment, query and training row.
        segments : list of SegmentSummary
            The ``segments_`` of the estimator.
        query : int, optional
            Which one; default: the mean of all.
        unit : str, optional
            Of the scores.
        ax : matplotlib Axes, optional
            Axes that are divided in two; default: a new figure.

        Returns
        -------
        display : SegmentDisplay
            Drawn.

        Raises
        ------
        ValueError
            If shapes do not fit, or the query does not exist.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_predictions")
        values: np.ndarray = number_array(scores, "scores").astype(np.float64)
        if not isinstance(segments, (list, tuple)) or not all(hasattr(one, "start") for one in segments):
            raise ValueError(f"expected segments as the segments_ of an estimator, got {segments!r}")
        if not values.size or values.ndim != 3 or len(values) != len(segments) or not np.isfinite(values).all():
            raise ValueError(
                f"expected finite scores of shape (n_segments, n_query, n_train) with n_segments = {len(segments)}, "
                f"got shape {values.shape}"
            )
        position, of = _which_queries(query, values.shape[1])
        if position is not None:
            values = values[:, [position]]
        supporting, opposing = (signed.sum(2).mean(1) for signed in (values.clip(min=0), values.clip(max=0)))
        return cls(segments=segments, supporting=supporting, opposing=opposing, of=of, unit=unit).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> SegmentDisplay:
        """Draw the scores and the spectra of the segments, one above the other.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes that are divided in two; default: a new figure.

        Returns
        -------
        display : SegmentDisplay
            Itself.

        Raises
        ------
        ValueError
            If sums and segments differ in number.
        ImportError
            Without matplotlib.
        """
        absolute = np.asarray(self.supporting) - np.asarray(self.opposing)
        if absolute.shape != (len(self.segments),):
            raise ValueError(
                f"expected supporting and opposing sums for each of {len(self.segments)} segments, got {absolute.shape}"
            )
        self.shares_ = absolute / (absolute.sum() or 1.0)
        ax = self._set_axes(ax, (7.2, 6.6))
        grid = subdivide(ax, 2, 1, height_ratios=[1.25, 1], hspace=0.12)
        upper = self.figure_.add_subplot(grid[0])
        lower = self.figure_.add_subplot(grid[1], sharex=upper)
        self.axes_ = np.array([upper, lower], dtype=object)
        self._draw_scores(upper)
        self._draw_spectra(lower)
        steps = sorted({step for segment in self.segments for step in (segment.start, segment.end)})
        if len(steps) <= _MAX_TICKS:
            lower.set_xticks(steps)
        upper.tick_params(labelbottom=False)
        upper.set_xlim(steps[0], steps[-1])
        lower.set_xlabel(
            "training step\nbox: middle half of the directions, with their median;\n"
            "line: from the lowest 5 %, with marks at 95 %, 99 % and the largest"
        )
        return self

    def _draw_scores(self, ax):
        """Draw a bar up and one down for each segment, with its share."""
        ends = np.array([(segment.start, segment.end) for segment in self.segments], dtype=float)
        centres = ends.mean(1)
        width = min(0.55 * np.diff(ends).min(), 0.2 * np.ptp(ends))  # one width: heights are to be compared
        self.supporting_ = ax.bar(centres, self.supporting, width, color=SUPPORTING, label="supporting rows")
        self.opposing_ = ax.bar(centres, self.opposing, width, color=OPPOSING, label="opposing rows")
        for centre, top, share in zip(centres, self.supporting, self.shares_):
            ax.annotate(f"{share:.0%}", (centre, top), (0, 3), textcoords="offset points", ha="center", va="bottom")
        ax.axhline(0, color="0.3", lw=0.8)
        ax.margins(y=0.16)
        ax.set_ylabel("sum of scores" + (f" ({self.unit})" if self.unit else ""), **LITERAL)
        ax.set_title(f"Influence by segment of training, {self.of}; % of absolute scores", fontsize=11)
        self._mark_stages(ax)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, borderaxespad=0.3)

    def _draw_spectra(self, ax):
        """Draw a box for the ``h sigma`` of each segment."""
        total = self.segments[-1].end - self.segments[0].start
        width = min(0.3 * min(segment.end - segment.start for segment in self.segments), 0.12 * total)
        lowest = 0.1
        for segment in self.segments:
            centre = (segment.start + segment.end) / 2
            q = {key: max(value, _FLOOR) for key, value in segment.h_sigma_quantiles.items()}
            ax.plot([centre, centre], [q[0.05], q[1.0]], color="0.35", lw=1.2, zorder=0.5)  # behind the box
            ax.bar(centre, q[0.75] - q[0.25], width, q[0.25], color="0.75", edgecolor="0.35")
            ax.plot([centre - width / 2, centre + width / 2], [q[0.5], q[0.5]], color="black", lw=2)
            ax.plot([centre] * 3, [q[0.95], q[0.99], q[1.0]], ls="", marker="_", color="0.35", ms=10)
            lowest = min(lowest, q[0.05])
        ax.set_yscale("log")
        ax.set_ylim(0.5 * lowest, max(20.0, 2 * ax.get_ylim()[1]))
        ax.axhline(1, color="0.3", ls="--", lw=1)
        words = {"transform": ax.get_yaxis_transform(), "color": "0.3", "fontsize": 9}
        ax.text(1.015, 1.4, "learned\nto the end", va="bottom", **words)
        ax.text(1.015, 0.7, "hardly\nmoved", va="top", **words)
        ax.set_ylabel("$h \\sigma$ of the directions\nof the weights (log scale)")
        self._mark_stages(ax)
        self._name_stages(ax)

    def _name_stages(self, ax):
        """Write the number of each stage where it begins, if there are several."""
        starts = {}
        for segment in self.segments:
            starts.setdefault(segment.stage, segment.start)
        for stage, start in starts.items() if len(starts) > 1 else ():
            words = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 9}
            ax.annotate(f"stage {stage}", (start, 1), (3, 2), va="bottom", annotation_clip=False, **words)

    def _mark_stages(self, ax):
        """Draw a line between segments, a heavier one between stages."""
        for before, after in zip(self.segments, self.segments[1:]):
            if before.stage != after.stage:
                ax.axvline(after.start, color="black", lw=1.5)
            else:
                ax.axvline(after.start, color="0.7", lw=0.8)


def _which_queries(query, n_query):
    """Position of the one query that is drawn, None for the mean of all, and what the title says of it."""
    if query is None:
        return None, f"mean of {n_query} queries"
    position = position_of(query, n_query)
    return position, f"query {position}"
