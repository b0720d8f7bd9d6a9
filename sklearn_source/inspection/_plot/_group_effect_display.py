"""What scores predict for groups of rows beside what retraining shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ...metrics import check_truth, group_effect_score
from ...model_selection import queries_of, scores_for
from ._captions import format_interval, measurement_in_words
from ._curves import add_legend, draw_curve, n_curves
from ._display import Display
from ._matplotlib import LITERAL, REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...retraining import Retraining

_AREAS = (9.0, 45.0)  # of the points of small and of the largest groups, in points squared
_OPAQUE = 100  # so many points are drawn solid; more let each other shine through


class GroupEffectDisplay(Display):
    """Predicted against retrained change, a point for each group of rows and query; right are those on the diagonal.

    Made by :meth:`from_estimator`, :meth:`from_predictions` or :meth:`from_result`. Several methods go into one picture
    by drawing into the same axes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    result : Bunch
        What :func:`~sklearn_source.metrics.group_effect_score` returned.
    name : str, default="scores"
        Of the method, in the legend.

    Attributes
    ----------
    points_ : PathCollection
        The method's, one for each group and query.
    line_ : Line2D
        The regression of retrained on predicted changes.
    random_ : PathCollection or None
        Those of random groups, where the others belong to queries.
    identity_ : Line2D
        Where retraining shows what was predicted.
    ax_ : matplotlib Axes
        The axes drawn in.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    sklearn_source.metrics.group_effect_score : The numbers.
    LDSDisplay : The order of subsets, for several methods.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from sklearn_source.inspection import GroupEffectDisplay
    >>> rng = np.random.default_rng(0)
    >>> values, masks = rng.normal(size=(5, 20)), rng.random((50, 20)) < 0.5
    >>> outputs = np.stack([values[:, mask].mean(axis=1) for mask in masks])[:, None]  # a network that knows the mean
    >>> scores = (values - values.mean(axis=1, keepdims=True)) / 20
    >>> display = GroupEffectDisplay.from_predictions(scores, Bunch(masks=masks, outputs=outputs))
    >>> round(display.result.slope, 6)
    1.0
    """

    def __init__(self, *, result: Bunch, name: str = "scores"):
        self.result = result
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        truth: Retraining,
        *,
        X_query: Any = None,
        y_query: Any = None,
        queries: ArrayLike | None = None,
        confidence: float = 0.95,
        name: str | None = None,
        ax: Axes | None = None,
    ) -> GroupEffectDisplay:
        """Score the queries, compare with the truth, and draw.

        Parameters
        ----------
        estimator : BaseAttribution, or a pipeline or search that ends in one
            Fitted.
        truth : Retraining
            From :func:`~sklearn_source.retraining.retrain_without` or
            :func:`~sklearn_source.retraining.retrain_on_subsets`, of the same rows and measurement.
        X_query, y_query : array-like of shape (n_query, ...), optional
            The queries of the truth and their targets; default: ``truth.X_query``, ``truth.y_query``.
        queries : array-like of int, shape (n_groups,), optional
            The query that each group belongs to, -1 for all; default: as the names of the groups say.
        confidence : float, default=0.95
            Of the interval of the slope.
        name : str, optional
            In the legend; default: the class.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : GroupEffectDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the truth does not hold its queries, or scores and truth do not fit each other.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_estimator")
        check_truth(truth)
        scores = scores_for(truth, estimator, *queries_of(truth, X_query, y_query))
        name = type(estimator).__name__ if name is None else name
        return cls.from_predictions(scores, truth, queries=queries, confidence=confidence, name=name, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        scores: ArrayLike | None,
        truth: Retraining,
        *,
        predicted: ArrayLike | None = None,
        queries: ArrayLike | None = None,
        confidence: float = 0.95,
        name: str = "scores",
        ax: Axes | None = None,
    ) -> GroupEffectDisplay:
        """Compare scores, or changes that were predicted otherwise, with the truth, and draw.

        Parameters
        ----------
        scores : array-like of shape (n_query, n_train) or None
            In the unit of the measurement.
        truth : Retraining
            Of the same rows, queries and measurement.
        predicted : array-like of shape (n_subsets, n_query), optional
            In place of scores: how far the measurement goes on each subset of the truth.
        queries : array-like of int, shape (n_groups,), optional
            The query that each group belongs to, -1 for all; default: as the names of the groups say.
        confidence : float, default=0.95
            Of the interval of the slope.
        name : str, default="scores"
            In the legend.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : GroupEffectDisplay
            Drawn.

        Raises
        ------
        ValueError
            If scores and truth do not fit each other.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_predictions")
        result = group_effect_score(scores, truth, predicted=predicted, queries=queries, confidence=confidence)
        return cls.from_result(result, name=name, ax=ax)

    @classmethod
    def from_result(cls, result: Bunch, *, name: str = "scores", ax: Axes | None = None) -> GroupEffectDisplay:
        """Draw what the metric returned.

        Parameters
        ----------
        result : Bunch
            Of :func:`~sklearn_source.metrics.group_effect_score`.
        name : str, default="scores"
            In the legend.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : GroupEffectDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the result is another's.
        ImportError
            Without matplotlib.
        """
        missing = [field for field in ("predicted", "retrained", "query", "n_removed", "slope") if field not in result]
        if missing:
            raise ValueError(
                f"expected a result with {', '.join(missing)}, as group_effect_score returns it, got one without"
            )
        return cls(result=result, name=name).plot(ax=ax)

    def plot(self, ax: Axes | None = None, *, color: Any = None, show_random: bool = True) -> GroupEffectDisplay:
        """Draw the points, their regression and the diagonal.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; default: a new figure.
        color : matplotlib color, optional
            Of the method; default: another one for each in the same axes.
        show_random : bool, default=True
            Whether to add the random groups, in grey, where the others belong to queries.

        Returns
        -------
        display : GroupEffectDisplay
            Itself.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        ax, result = self._set_axes(ax, (5.4, 5.4)), self.result
        first = not n_curves(ax)
        random = result.get("random") if show_random else None
        ends = np.array([min(result.predicted.min(), 0.0), max(result.predicted.max(), 0.0)])
        label = f"{self.name}: slope {format_interval(result.slope, result.slope_interval)}"
        self.line_ = draw_curve(ax, ends, result.slope * ends, label, color=color, lw=2)
        sizes = np.unique(np.concatenate([part.n_removed for part in (result, random) if part is not None]))
        self.random_ = None
        if random is not None:
            words = f"random groups: slope {format_interval(random.slope, random.slope_interval)}"
            self.random_ = _draw_points(ax, random, REFERENCE, sizes, label=words, zorder=1)
        self.points_ = _draw_points(ax, result, self.line_.get_color(), sizes, zorder=2)
        if first:
            ax.axhline(0, color="0.3", lw=0.8, zorder=0)
            ax.axvline(0, color="0.3", lw=0.8, zorder=0)
            ax.axline((0, 0), slope=1, color="black", ls="--", lw=1.2, label="retrained as predicted", zorder=2.5)
        self.identity_ = next(line for line in ax.lines if line.get_label() == "retrained as predicted")
        places = np.concatenate([np.asarray(points.get_offsets()) for points in ax.collections])
        low, high = min(places.min(), 0.0), max(places.max(), 0.0)
        margin = 0.05 * (high - low or 1.0)
        ax.set_xlim(low - margin, high + margin)
        ax.set_ylim(low - margin, high + margin)
        ax.set_aspect("equal")
        what = measurement_in_words(result.get("measurement"))
        words = "" if result.own_groups else "\nabout the mean of each query"
        ax.set_ylabel(f"change of {what}, retrained{words}", **LITERAL)
        if len(sizes) > 1:
            words += "; " if words else "\n"
            words += f"larger points: more rows removed, {sizes[0]} to {sizes[-1]}"
        ax.set_xlabel(f"change of {what}, predicted{words}", **LITERAL)
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
        add_legend(ax, below_diagonal=True, frameon=False)
        return self


def _draw_points(ax, result, color, sizes, **style):
    """Draw a point for each group and query, and return them; larger ones for larger groups where sizes differ."""
    small, large = _AREAS
    areas = small + (large - small) * (result.n_removed / sizes[-1] if len(sizes) > 1 else np.zeros(len(result.query)))
    alpha = float(np.clip(np.sqrt(_OPAQUE / len(areas)), 0.08, 0.8))
    return ax.scatter(result.predicted, result.retrained, s=areas, color=color, alpha=alpha, lw=0, **style)
