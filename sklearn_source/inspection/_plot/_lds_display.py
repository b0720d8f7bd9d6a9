"""Linear datamodeling scores of several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ...metrics import check_truth, linear_datamodeling_score
from ...model_selection import queries_of, scores_for
from ._captions import format_slope
from ._display import Display
from ._estimator_names import estimator_names, has_unit
from ._fit_missing import fit_missing
from ._matplotlib import LITERAL, REFERENCE, SUPPORTING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from skorch import NeuralNet

    from ...retraining import Retraining


class LDSDisplay(Display):
    """How well each of several methods predicts retrained networks, with intervals, the noise ceiling and the slopes.

    Made by :meth:`from_estimators` or :meth:`from_predictions`.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    results : dict of str to Bunch
        By method, what :func:`~sklearn_source.metrics.linear_datamodeling_score` returned.
    confidence : float, default=0.95
        Of the intervals.

    Attributes
    ----------
    points_ : PathCollection
        The scores, one point per method.
    intervals_ : LineCollection
        Their intervals.
    values_ : list of Text
        The scores in numbers, at the right.
    slopes_ : list of Text
        Of retrained on predicted changes, at the right of the scores: 1 is right, below 1 scores are too large. A dash
        for methods whose scores have no unit, empty for results that do not tell it.
    queries_ : list of PathCollection
        The scores of single queries, per method; empty where not shown.
    ceiling_ : Line2D or None
        The noise ceiling; None where a single repeat cannot tell it.
    ax_ : matplotlib Axes
        The axes drawn in.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    sklearn_source.metrics.linear_datamodeling_score : The numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.utils import Bunch
    >>> from sklearn_source.inspection import LDSDisplay
    >>> rng = np.random.default_rng(0)
    >>> effects, masks = rng.normal(size=(5, 20)), rng.random((50, 20)) < 0.5
    >>> truth = Bunch(masks=masks, outputs=(masks @ effects.T)[:, None] + rng.normal(size=(50, 4, 5)))
    >>> scores = {"the effects": effects, "noise": rng.normal(size=(5, 20))}
    >>> LDSDisplay.from_predictions(scores, truth).results["the effects"].score > 0.8
    True
    """

    def __init__(self, *, results: dict[str, Bunch], confidence: float = 0.95):
        self.results = results
        self.confidence = confidence

    @classmethod
    def from_estimators(
        cls,
        estimators: Sequence[BaseEstimator] | Mapping[str, BaseEstimator],
        truth: Retraining,
        *,
        X_query: Any = None,
        y_query: Any = None,
        net: NeuralNet | None = None,
        X_train: Any = None,
        y_train: Any = None,
        confidence: float = 0.95,
        n_bootstrap: int = 1000,
        random_state: int | np.random.RandomState | None = 0,
        show_queries: bool = False,
        ax: Axes | None = None,
    ) -> LDSDisplay:
        """Score the queries by every method, compare with the truth, and draw.

        Parameters
        ----------
        estimators : list of BaseAttribution, or dict of str to BaseAttribution
            Fitted ones, pipelines and searches that end in one, and unfitted ones, of which clones are fitted. Those of
            a list are named by their classes, and by the parameters in which those of one class differ.
        truth : Retraining
            From :func:`~sklearn_source.retraining.retrain_on_subsets`, of the same rows and measurement.
        X_query, y_query : array-like of shape (n_query, ...), optional
            The queries of the truth and their targets; default: ``truth.X_query``, ``truth.y_query``.
        net : skorch.NeuralNet, optional
            For unfitted estimators that hold none; default: the network of the first fitted one.
        X_train, y_train : array-like of shape (n_train, ...), optional
            The training rows and their targets, for unfitted estimators; default: those of the first fitted one.
        confidence : float, default=0.95
            Of the intervals.
        n_bootstrap : int, default=1000
            Resamplings of the queries and subsets behind the intervals.
        random_state : int, RandomState instance or None, default=0
            Of the resamplings.
        show_queries : bool, default=False
            Whether to add a small point for every query.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : LDSDisplay
            Drawn.

        Raises
        ------
        ValueError
            If there is no estimator, the truth does not hold its queries, or scores and truth do not fit each other:
            other rows, another measurement.
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted and there are no training rows to fit it on.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_estimators")
        check_truth(truth)
        by_name = dict(estimators) if isinstance(estimators, Mapping) else estimator_names(estimators)
        X_query, y_query = queries_of(truth, X_query, y_query)
        results = {}
        for name, fitted in fit_missing(by_name, net, X_train, y_train):
            results[name] = linear_datamodeling_score(
                scores_for(truth, fitted, X_query, y_query), truth,
                confidence=confidence, n_bootstrap=n_bootstrap, random_state=random_state,
            )  # fmt: skip
            if not has_unit(fitted):
                results[name].slope = np.nan
        return cls(results=results, confidence=confidence).plot(ax=ax, show_queries=show_queries)

    @classmethod
    def from_predictions(
        cls,
        scores: Mapping[str, ArrayLike],
        truth: Retraining,
        *,
        confidence: float = 0.95,
        n_bootstrap: int = 1000,
        random_state: int | np.random.RandomState | None = 0,
        show_queries: bool = False,
        ax: Axes | None = None,
    ) -> LDSDisplay:
        """Compare scores that are there already with the truth, and draw.

        Parameters
        ----------
        scores : dict of str to array-like of shape (n_query, n_train)
            By method.
        truth : Retraining
            From :func:`~sklearn_source.retraining.retrain_on_subsets`, of the same rows, queries and measurement.
        confidence : float, default=0.95
            Of the intervals.
        n_bootstrap : int, default=1000
            Resamplings of the queries and subsets behind the intervals.
        random_state : int, RandomState instance or None, default=0
            Of the resamplings.
        show_queries : bool, default=False
            Whether to add a small point for every query.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : LDSDisplay
            Drawn.

        Raises
        ------
        ValueError
            If there is no method, or scores and truth do not fit each other.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_predictions")
        if not isinstance(scores, Mapping) or not scores:
            raise ValueError(
                f"expected scores as a dict from the name of a method to its scores, got {type(scores).__name__}"
                + (" without entries" if isinstance(scores, Mapping) else "")
            )
        results = {
            name: linear_datamodeling_score(
                values, truth, confidence=confidence, n_bootstrap=n_bootstrap, random_state=random_state
            )
            for name, values in scores.items()
        }
        return cls(results=results, confidence=confidence).plot(ax=ax, show_queries=show_queries)

    def plot(self, ax: Axes | None = None, *, show_queries: bool = False) -> LDSDisplay:
        """Draw a line for each method.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; default: a new figure.
        show_queries : bool, default=False
            Whether to add a small point for every query.

        Returns
        -------
        display : LDSDisplay
            Itself.

        Raises
        ------
        ValueError
            Without results.
        ImportError
            Without matplotlib.
        """
        names, results = list(self.results), list(self.results.values())
        if not results:
            raise ValueError("expected results of at least one method, got none")
        ax = self._set_axes(ax, (7.0, 1.5 + 0.42 * len(names)))
        places = np.arange(len(names))
        scores = np.array([result.score for result in results])
        low, high = np.array([result.interval for result in results]).T
        self.queries_ = []
        if show_queries:
            for place, result in zip(places, results):
                below = np.full(len(result.per_query), place + 0.25)
                points = ax.scatter(result.per_query, below, s=9, color=SUPPORTING, alpha=0.35, lw=0)
                self.queries_.append(points)
        self.intervals_ = ax.hlines(places, low, high, color=SUPPORTING, lw=2.5)
        self.points_ = ax.scatter(scores, places, s=60, marker="|", color=SUPPORTING, lw=2.5, zorder=3)
        self.values_ = _column(ax, 5, [f"{score:.2f}" for score in scores])
        slopes = [result.get("slope") for result in results]
        self.slopes_ = []
        if not all(slope is None for slope in slopes):
            self.slopes_ = _column(ax, 45, [format_slope(slope) for slope in slopes], "slope")
        self.ceiling_ = self._draw_ceiling(ax, results[0].ceiling)
        ax.axvline(0, color="0.3", lw=0.8, zorder=0)
        ax.set_yticks(places, names, **LITERAL)
        ax.set_ylim(len(names) - 0.5, -0.65)
        shown = [low.min(), *(result.per_query.min() for result in results if show_queries)]
        ax.set_xlim(min(-0.02, float(np.min(shown)) - 0.03), 1.0)
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
        words = f"linear datamodeling score, with {self.confidence:.0%} interval"
        ax.set_xlabel(words + ("\nsmall points: single queries" if show_queries else ""))
        return self

    def _draw_ceiling(self, ax, ceiling):
        """Shade what no scores reach, and return the line; None where the ceiling is not known."""
        if not np.isfinite(ceiling):
            return None
        ax.axvspan(ceiling, 1.0, color="0.9", lw=0, zorder=0)
        line = ax.axvline(ceiling, color=REFERENCE, ls="--", lw=1.5, zorder=1)
        ax.annotate(
            f"noise ceiling: perfect scores reach {ceiling:.2f}",
            (ceiling, 1),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if ceiling > 0.5 else "left",
            color="0.3",
            fontsize=9,
        )
        return line


def _column(ax, offset, texts, header=""):
    """Write a text for each method at the right, some points away from the axes, where nothing else is."""
    places = [(place, ("axes fraction", "data"), "center") for place in range(len(texts))]
    if header:
        places.append((1, "axes fraction", "baseline"))
    written = [
        ax.annotate(
            text.replace("-", "\N{MINUS SIGN}"), (1, place), (offset, 3 if text == header else 0),
            xycoords=coordinates, textcoords="offset points", va=align, annotation_clip=False,
        )
        for text, (place, coordinates, align) in zip([*texts, header], places)
    ]  # fmt: skip
    return written[: len(texts)]
