"""The training rows behind one answer, shown as what they are."""

from __future__ import annotations

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .._showable import count, one_row, take
from ._influence_data import collect, named, number_of_rows, position_of, require_length, strongest
from ._influence_image import draw_images, image_size
from ._influence_table import draw_table, table_size
from ._influence_text import draw_text
from ._influence_words import measured
from ._matplotlib import axes_for, finite_vector, require_matplotlib

_DRAW = {"image": draw_images, "table": draw_table, "text": draw_text}


class InfluenceDisplay:
    """The most supporting and the most opposing training rows of one query: images, table rows or texts.

    Made by :meth:`from_estimator` or :meth:`from_predictions`. Blue is supporting, orange opposing.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    query : Bunch
        ``X`` the query as it is shown, ``y`` its target or None, ``prediction`` the network's answer or None,
        ``index`` its position.
    supporting, opposing : Bunch
        ``indices`` (n,) and ``scores`` (n,) of training rows, strongest first, ``X`` the rows as they are shown, ``y``
        their targets or None.
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
        Standard deviation of a table's columns over the training rows, NaN where they are not numbers: the measure of
        differences.
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
        query,
        supporting,
        opposing,
        kind,
        measurement="the measurement",
        unit=None,
        has_unit=True,
        feature_names=None,
        spread=None,
        target_name="target",
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
        estimator,
        X_query,
        y=None,
        *,
        X_train,
        y_train=None,
        query=0,
        k=5,
        kind="auto",
        inverse_transform=None,
        feature_names=None,
        target_names=None,
        prediction=None,
        scale=1.0,
        unit=None,
        ax=None,
    ):
        """Ask a fitted method, and draw.

        Parameters
        ----------
        estimator : BaseAttribution
            Fitted.
        X_query : array-like of shape (n_query, ...)
            Queries as the network reads them.
        y : array-like, optional
            Their targets, passed to :meth:`~sklearn_source.SourceAttribution.top_influences` and shown.
        X_train : array-like of shape (n_train, ...)
            The training rows in the order of ``fit``.
        y_train : array-like, optional
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
            If lengths do not fit, the query does not exist, or rows cannot be shown as ``kind``.
        ImportError
            Without matplotlib.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        require_length(X_train, estimator.n_train_, "X_train", "the rows that the estimator was fitted on")
        position = position_of(query, count(X_query))
        asked, target = one_row(X_query, position), None if y is None else np.asarray(take(y, [position]))
        k = min(number_of_rows(k), estimator.n_train_)
        tops = [estimator.top_influences(asked, target, k=k, order=order) for order in ("supporting", "opposing")]
        classes = isinstance(estimator.net_, ClassifierMixin)
        if prediction is None and classes:
            predicted = np.asarray(estimator.net_.predict(asked))
            prediction = named(predicted[0], target_names) if predicted.shape == (1,) else None
        measurement = "the score"
        if estimator.has_unit:
            measured = named(target[0], target_names) if classes and target is not None else None
            measurement = _in_words(estimator._measure.name, prediction if measured is None else measured)
        return cls(
            **collect(
                [(top.indices[0], top.scores[0]) for top in tops],
                take(X_query, [position]),
                target,
                position,
                X_train=X_train,
                y_train=y_train,
                kind=kind,
                inverse_transform=inverse_transform,
                feature_names=feature_names,
                target_names=target_names,
                classes=classes,
                prediction=prediction,
                scale=scale,
                has_unit=estimator.has_unit,
            ),
            measurement=measurement,
            unit=unit,
        ).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        scores,
        X_query,
        y=None,
        *,
        X_train,
        y_train=None,
        query=0,
        k=5,
        kind="auto",
        inverse_transform=None,
        feature_names=None,
        target_names=None,
        prediction=None,
        scale=1.0,
        unit=None,
        has_unit=True,
        measurement="the measurement",
        ax=None,
    ):
        """Draw scores that are there already.

        Parameters
        ----------
        scores : array-like of shape (n_query, n_train)
            From ``transform``, a mean over networks, or from elsewhere with the same sign.
        X_query, y, X_train, y_train, query, k, kind, inverse_transform : as in :meth:`from_estimator`
        feature_names, target_names, prediction, scale, unit, ax : as in :meth:`from_estimator`
            ``target_names`` name classes where ``y`` or ``y_train`` are integers. ``prediction`` is shown where given.
        has_unit : bool, default=True
            Whether the sign of a score means raising and lowering.
        measurement : str, default="the measurement"
            What they raise or lower.

        Returns
        -------
        display : InfluenceDisplay
            Drawn.

        Raises
        ------
        ValueError
            As :meth:`from_estimator`; or if scores are not finite or their shape does not fit.
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        scores, n_train, n_query = np.asarray(scores), count(X_train), count(X_query)
        if scores.shape != (n_query, n_train):
            raise ValueError(
                f"expected scores of shape (n_query, n_train) = ({n_query}, {n_train}), as X_query and X_train say, "
                f"got {scores.shape}"
            )
        position = position_of(query, n_query)
        row = finite_vector(scores[position], "scores")
        targets = [np.asarray(values) for values in (y, y_train) if values is not None]
        return cls(
            **collect(
                strongest(row, number_of_rows(k)),
                take(X_query, [position]),
                None if y is None else np.asarray(take(y, [position])),
                position,
                X_train=X_train,
                y_train=y_train,
                kind=kind,
                inverse_transform=inverse_transform,
                feature_names=feature_names,
                target_names=target_names,
                classes=bool(targets) and all(values.dtype.kind in "bui" for values in targets),
                prediction=prediction,
                scale=scale,
                has_unit=has_unit,
            ),
            measurement=measurement,
            unit=unit,
        ).plot(ax=ax)

    def plot(self, ax=None):
        """Draw.

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
        ImportError
            Without matplotlib.
        """
        if self.kind not in _DRAW:
            raise ValueError(f"kind must be one of {tuple(_DRAW)}, got {self.kind!r}")
        self.ax_ = axes_for(ax, f"{type(self).__name__}.plot", _FIGSIZE[self.kind](self))
        self.figure_ = self.ax_.figure
        self.axes_ = np.asarray(_DRAW[self.kind](self, self.ax_, resize=ax is None), dtype=object)
        return self

    def headings(self):
        """What is written over the supporting rows and over the opposing ones.

        Returns
        -------
        headings : tuple of str
        """
        if not self.has_unit:
            return "Highest scores", "Lowest scores"
        unit = f" ({self.unit})" if self.unit else ""
        return f"Raised {self.measurement}{unit}", f"Lowered {self.measurement}{unit}"


_FIGSIZE = {
    "image": image_size,
    "table": table_size,
    "text": lambda display: (11.0, 6.0),
}


def _in_words(name, label):
    return measured(name) + (f" of {label}" if name == "log_odds" and label is not None else "")
