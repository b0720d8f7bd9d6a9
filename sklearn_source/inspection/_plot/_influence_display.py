"""The training rows behind one answer, shown as what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ._display import Display
from ._influence_data import ShownRows, display_arguments
from ._influence_image import draw_images, image_size
from ._influence_ranking import rank_by_estimator, rank_by_scores
from ._influence_table import draw_table, table_size
from ._influence_text import draw_text, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FIGSIZE = {"image": image_size, "table": table_size, "text": text_size}
_DRAW = {"image": draw_images, "table": draw_table, "text": draw_text}


class InfluenceDisplay(Display):
    """The most supporting and the most opposing training rows of one query: images, table rows or texts.

    Made by :meth:`from_estimator` or :meth:`from_predictions`. Blue is supporting, orange opposing.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    query : Bunch
        ``X`` the query as it is shown, ``y`` its target or None, ``prediction`` the network's answer or None,
        ``index`` its position.
    supporting, opposing : Bunch
        ``indices`` (n,) and ``scores`` (n,) of training rows, strongest first, ``errors`` (n,) their standard errors or
        None, ``X`` the rows as they are shown, ``y`` their targets or None.
    kind : {"image", "table", "text"}
        As what they are shown.
    measurement : str, default="the measurement"
        What the scores are parts of.
    unit : str, optional
        Of the scores.
    has_unit : bool, default=True
        Whether the sign of a score says that a row raised or lowered the measurement; if not, rows are titled as those
        of the highest and the lowest scores.
    feature_names : list of str, optional
        Of a table.
    spread : ndarray of shape (n_features,), optional
        Standard deviations of a table's columns over the training rows, NaN for no numbers: the unit of differences.
    target_name : str, default="target"
        What the targets are called.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn in; emptied to hold ``axes_`` where the kind needs several.
    axes_ : ndarray of Axes
        Those with content: the query's first, then the rows' in order for images; one for tables and texts.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    SegmentDisplay : Where in training the influence arose.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_source.inspection import InfluenceDisplay
    >>> X, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    >>> scores = np.array([[0.2, -0.1, 0.0, 0.4, -0.3, 0.1]])
    >>> display = InfluenceDisplay.from_predictions(scores, X[:1], X_train=X, y_train=y, k=2)
    >>> display.supporting.indices, display.opposing.indices
    (array([3, 0]), array([4, 1]))
    """

    def __init__(
        self,
        *,
        query: Bunch,
        supporting: Bunch,
        opposing: Bunch,
        kind: str,
        measurement: str = "the measurement",
        unit: str | None = None,
        has_unit: bool = True,
        feature_names: Sequence[str] | None = None,
        spread: np.ndarray | None = None,
        target_name: str = "target",
    ):
        self.query = query
        self.supporting = supporting
        self.opposing = opposing
        self.kind = kind
        self.measurement = measurement
        self.unit = unit
        self.has_unit = has_unit
        self.feature_names = feature_names
        self.spread = spread
        self.target_name = target_name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X_query: Any,
        y: Any = None,
        *,
        X_train: Any,
        y_train: Any = None,
        query: int = 0,
        k: int = 5,
        kind: str = "auto",
        inverse_transform: Callable | None = None,
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | Mapping[Any, str] | None = None,
        prediction: Any = None,
        scale: float = 1.0,
        unit: str | None = None,
        ax: Axes | None = None,
    ) -> InfluenceDisplay:
        """Ask a fitted method, and draw.

        Parameters
        ----------
        estimator : BaseAttribution
            Fitted. Standard errors are shown of methods that know them (``score_error``: ensembles, and effects
            measured by retraining).
        X_query : array-like of shape (n_query, ...)
            Queries as the network reads them.
        y : array-like of shape (n_query, ...), optional
            Their targets, passed to :meth:`~sklearn_source.SourceAttribution.top_influences` and shown.
        X_train : array-like of shape (n_train, ...)
            The training rows in the order of ``fit``.
        y_train : array-like of shape (n_train, ...), optional
            Their targets, to be shown; in whatever unit you like to read.
        query : int, default=0
            Which query.
        k : int, default=5
            Rows of either sign; fewer are shown where fewer have it.
        kind : {"auto", "image", "table", "text"}, default="auto"
            ``"auto"``: strings are text, frames and arrays of shape (n, n_features) tables, those with two or three
            dimensions per row images. ``"image"`` also shows flattened squares.
        inverse_transform : callable, optional
            Makes of rows as the network reads them rows as people do, ``scaler.inverse_transform`` or
            ``tokenizer.batch_decode`` say; used on the query and on training rows.
        feature_names : list of str, optional
            Of a table; default: the columns of a frame.
        target_names : list or dict of str, optional
            Of the classes. For a regression the name of the target, in a list.
        prediction : object, optional
            The network's answer, to be shown; default: the predicted class of a classifier.
        scale : float, default=1.0
            Multiplies the scores, as ``scaler_y.scale_[0]`` does to give them the unit of the target.
        unit : str, optional
            Of the scores times ``scale``.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : InfluenceDisplay
            Drawn.

        Raises
        ------
        ValueError
            If lengths do not fit, training rows stand in another order than in ``fit``, the query does not exist, or
            rows cannot be shown as ``kind``.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_estimator")
        ranking = rank_by_estimator(estimator, X_query, y, X_train, y_train, query, k, target_names, prediction)
        shown = ShownRows(
            X_train, y_train, kind, inverse_transform, feature_names, target_names,
            has_classes=ranking.has_classes, example=ranking.query_row,
        )  # fmt: skip
        return cls(**display_arguments(ranking, shown, scale, unit)).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        scores: ArrayLike,
        X_query: Any,
        y: Any = None,
        *,
        X_train: Any,
        y_train: Any = None,
        query: int = 0,
        k: int = 5,
        kind: str = "auto",
        inverse_transform: Callable | None = None,
        feature_names: Sequence[str] | None = None,
        target_names: Sequence[str] | Mapping[Any, str] | None = None,
        prediction: Any = None,
        scale: float = 1.0,
        unit: str | None = None,
        has_unit: bool = True,
        measurement: str = "the measurement",
        errors: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> InfluenceDisplay:
        """Draw scores that are there already.

        Parameters
        ----------
        scores : array-like of shape (n_query, n_train)
            From ``transform``, a mean over networks, or from elsewhere with the same sign.
        X_query : array-like of shape (n_query, ...)
            Queries, which ``inverse_transform`` makes readable.
        y : array-like of shape (n_query, ...), optional
            Their targets, to be shown.
        X_train : array-like of shape (n_train, ...)
            The training rows in the order of the scores.
        y_train : array-like of shape (n_train, ...), optional
            Their targets, to be shown.
        query : int, default=0
            Which query.
        k : int, default=5
            Rows of either sign; fewer are shown where fewer have it.
        kind : {"auto", "image", "table", "text"}, default="auto"
            ``"auto"``: strings are text, frames and arrays of shape (n, n_features) tables, those with two or three
            dimensions per row images. ``"image"`` also shows flattened squares.
        inverse_transform : callable, optional
            Makes of rows rows as people read them; used on the query and on training rows.
        feature_names : list of str, optional
            Of a table; default: the columns of a frame.
        target_names : list or dict of str, optional
            Of the classes, where ``y`` and ``y_train`` are integers. Else the name of the target, in a list.
        prediction : object, optional
            The network's answer, to be shown.
        scale : float, default=1.0
            Multiplies the scores, to give them the unit of the target say.
        unit : str, optional
            Of the scores times ``scale``.
        has_unit : bool, default=True
            Whether the sign of a score means raising and lowering.
        measurement : str, default="the measurement"
            What they raise or lower.
        errors : array-like of shape (n_query, n_train), optional
            Standard errors of the scores, to be shown.
        ax : matplotlib Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        display : InfluenceDisplay
            Drawn.

        Raises
        ------
        ValueError
            If shapes do not fit, scores are not finite, the query does not exist, or rows cannot be shown as ``kind``.
        ImportError
            Without matplotlib.
        """
        cls._require_matplotlib("from_predictions")
        ranking = rank_by_scores(
            scores, errors, X_query, y, X_train, y_train, query, k, prediction, has_unit, measurement
        )
        shown = ShownRows(
            X_train, y_train, kind, inverse_transform, feature_names, target_names,
            has_classes=ranking.has_classes, example=ranking.query_row,
        )  # fmt: skip
        return cls(**display_arguments(ranking, shown, scale, unit)).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> InfluenceDisplay:
        """Draw the query and its rows.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where; default: a new figure of a size that the rows ask for.

        Returns
        -------
        display : InfluenceDisplay
            Itself.

        Raises
        ------
        ValueError
            If the kind is none of those that can be drawn, or ``ax`` is something else.
        ImportError
            Without matplotlib.
        """
        if self.kind not in _DRAW:
            raise ValueError(f"expected kind to be one of {tuple(_DRAW)}, got {self.kind!r}")
        axes = self._set_axes(ax, _FIGSIZE[self.kind](self))
        self.axes_ = np.asarray(_DRAW[self.kind](self, axes, resize=ax is None), dtype=object)
        return self

    def headings(self) -> tuple[str, str]:
        """Say what is written over the supporting rows and over the opposing ones.

        Returns
        -------
        headings : tuple of str
            Of the supporting rows, and of the opposing ones.
        """
        known = any(group.errors is not None for group in (self.supporting, self.opposing))
        words = ", ".join(filter(None, [self.unit if self.has_unit else None, "± standard error" if known else None]))
        unit = f" ({words})" if words else ""
        if not self.has_unit:
            return f"Highest scores{unit}", f"Lowest scores{unit}"
        return f"Raised {self.measurement}{unit}", f"Lowered {self.measurement}{unit}"
