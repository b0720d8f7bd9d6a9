"""A list of training rows to look at, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..base import BaseAttribution, NetworkAttribution
from ..loss import resolve_measurement
from ..network import Network
from ..utils._argument_checks import check_count, check_k, check_names
from ._nearest_neighbours import neighbour_disagreement, row_vectors
from ._plot._influence_data import class_name
from ._predictions import predict_rows
from ._recommendations import recommend_actions
from ._score_chunks import check_attribution, score_chunks
from ._table import make_table

if TYPE_CHECKING:
    import pandas


def audit_training_rows(
    estimator: BaseAttribution,
    X: Any,
    y: Any,
    *,
    X_query: Any = None,
    y_query: Any = None,
    representation: ArrayLike | None = None,
    n_neighbors: int = 10,
    k: int = 10,
    high: float = 0.05,
    target_names: Sequence[str] | Mapping[Any, str] | None = None,
    as_frame: bool | str = "auto",
) -> pandas.DataFrame | np.recarray:
    """List suspicious training rows, worst first, each with what speaks against it and what might be done.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    estimator : fitted attribution method
        Any that looks into a network, or an ensemble of such.
    X : array-like of shape (n_train, ...)
        The training rows, as given to its ``fit``.
    y : array-like of shape (n_train, ...)
        Their targets, as given to its ``fit``.
    X_query : array-like of shape (n_query, ...), optional
        Held-out rows: which training rows oppose them is then told.
    y_query : array-like of shape (n_query, ...), optional
        Their true targets. Pass them for classifiers: without, rows are judged by whether they oppose what the network
        predicts.
    representation : array-like of shape (n_train, n_features), optional
        Vectors in which distances between rows mean something, embeddings say. None: X itself where it is an array or
        a table of numbers; for other X nothing is told of neighbours.
    n_neighbors : int, default=10
        Nearest rows that a row's label is compared with; 0: nothing is told of neighbours, as suits rows of token ids
        without a ``representation``.
    k : int, default=10
        A row opposes a query where it is among the query's k lowest scores, and that is negative.
    high : float, default=0.05
        Share of the rows whose value of a criterion counts as high.
    target_names : list or dict of str, optional
        Of the classes, by which reasons call them; the columns keep their numbers.
    as_frame : bool or "auto", default="auto"
        A pandas DataFrame, or else a NumPy record array. "auto": a frame where pandas is installed.

    Returns
    -------
    table : DataFrame or recarray of n_train rows
        By falling ``suspicion``. Columns, where there is what they need:

        - ``row``: place in X.
        - ``suggestion``: ``"relabel"`` (classes only: most neighbours have one other label, and the network predicts
          it too or, without the row, might), ``"drop"`` (it opposes many queries or a near duplicate has another
          label, and something else speaks against it too), ``"inspect"`` (something does), or ``"keep"``.
        - ``suggested_label``: for classes, what network and neighbours expect; the own label unless they agree on
          another.
        - ``reason``: in words.
        - ``suspicion``: mean of the criteria's ranks, 0 to 1.
        - ``label``, ``predicted``: classes; or ``target``, ``predicted`` of regressions with one output. Rows of
          several classes (sequences, sets of labels) have neither, and nothing is told of their neighbours.
        - ``probability``: of the label.
        - ``loss``: of the row, by the trained network.
        - ``self_influence``: how much of its fit it owes to its presence; in the unit of the loss if the method has
          one.
        - ``loss_without``: ``loss + self_influence``, the loss of a network that had not seen the row, for methods
          that have a unit.
        - ``probability_without``: the same for the probability of the label.
        - ``neighbour_disagreement``: share of the neighbours with another label; of regressions, distance from the
          neighbours' mean in standard deviations.
        - ``near_duplicate``: a row next to it with another label, -1 for none; closer than a tenth of the usual
          distance to the nearest row.
        - ``opposed_queries``: number of queries it opposes.
        - ``query_influence``: sum of its scores over the queries.

    Raises
    ------
    ValueError
        If the rows are not those of ``fit``, in their order, or settings are out of range.
    TypeError
        If the estimator has no network to ask.

    See Also
    --------
    MislabelDisplay : How soon wrong labels that are known are found by a score.
    under_sampled_regions : Predictions that rest on few rows.

    Notes
    -----
    A network that has learned a wrong label by heart agrees with it. That such a row owes its fit to itself shows in
    ``self_influence``, so ``"relabel"`` asks that most neighbours have another label, and that the network predicts it,
    or self-influence is high, or ``probability_without`` is below one half. ``loss_without`` is an estimate to first
    order: it orders rows, but where the loss is nearly 0 it understates what a network without the row would lose, and
    TracIn, which knows no curvature, overstates it many times.

    To oppose a query speaks against a row only where more of the measurement is better: for ``"log_odds"`` and
    ``"neg_loss"``. For regressions fit the estimator with ``measurement="neg_loss"`` and pass ``y_query``; with
    ``"prediction"`` the columns are there and nothing is made of them.

    Suggestions are for people to decide on: rows of a class so rare that their neighbours are of others look
    mislabelled too (:func:`under_sampled_regions` finds these). Costs ``self_influence``, one pass over the rows,
    nearest neighbours, and ``transform`` of the queries, a part of them at a time.

    References
    ----------
    .. [1] P. W. Koh, P. Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017, section 5.4.
    .. [2] E. Nguyen, J. Bertram, E. Kortukov, J. Y. Song, S. J. Oh, "Towards User-Focused Research in Training Data
       Attribution for Human-Centered Explainable AI", 2024, arXiv:2409.16978.

    Examples
    --------
    >>> table = audit_training_rows(est, X, y, X_query=X_test, y_query=y_test)  # doctest: +SKIP
    >>> table[table["suggestion"] == "relabel"].head()  # doctest: +SKIP
    """
    check_attribution(estimator)
    method = getattr(estimator, "members_", [estimator])[0]
    if not isinstance(method, NetworkAttribution):
        raise TypeError(f"expected a method with a network to ask, got {type(estimator).__name__}")
    _check_settings(n_neighbors, high)
    check_names("target_names", target_names, or_mapping=True)
    check_k(k, estimator.n_train_)
    if X_query is None and y_query is not None:
        raise ValueError("expected X_query where y_query is given, got None: pass the queries too")
    n = estimator.n_train_
    X, y = method._require_fit_rows(X, y)
    predictions = predict_rows(estimator.net_, X, y)
    influence = np.asarray(estimator.self_influence(), dtype=np.float64)
    columns = _prediction_columns(predictions, influence, bool(getattr(estimator, "has_unit", False)))
    vectors = row_vectors(X, representation, n)
    neighbours = None
    if vectors is not None and predictions.target is not None and n > 1 and n_neighbors:
        neighbours = neighbour_disagreement(vectors, predictions.target, predictions.is_classification, n_neighbors)
        columns["neighbour_disagreement"] = neighbours.disagreement
        if predictions.is_classification:
            columns["near_duplicate"] = neighbours.near_duplicate
    if X_query is not None:
        opposed, total = _query_opposition(estimator, X_query, y_query, k)
        columns["opposed_queries"], columns["query_influence"] = opposed, total
    criteria = dict(columns)
    if not higher_is_better(method):  # to oppose a query is then no harm
        criteria.pop("opposed_queries", None)
    names = partial(class_name, target_names=target_names)
    recommendations = recommend_actions(criteria, predictions, neighbours, high, names)
    order = np.argsort(-recommendations["suspicion"], kind="stable")
    columns = {"row": np.arange(n), **recommendations, **columns}
    return make_table({name: np.asarray(column)[order] for name, column in columns.items()}, as_frame)


def _check_settings(n_neighbors, high):
    """Raise a ValueError for settings out of range."""
    check_count("n_neighbors", n_neighbors, smallest=0)
    if not isinstance(high, Real) or isinstance(high, bool) or not 0 < high < 1:
        raise ValueError(f"expected high to be a share between 0 and 1, got {high!r}")


def _prediction_columns(predictions, influence, has_unit):
    """The columns that the network and the row alone give: dict of str to ndarray (n,), in the order of the table.

    Takes the Bunch of :func:`predict_rows`, self-influence (n,), and whether that has the unit of the loss.
    """
    columns = {}
    if predictions.is_classification:
        columns.update(label=predictions.target, predicted=predictions.predicted)
        if predictions.probability is not None:
            columns["probability"] = predictions.probability
    elif predictions.target is not None and predictions.target.ndim == 1:
        columns.update(target=predictions.target, predicted=predictions.predicted)
    columns.update(loss=predictions.loss, self_influence=influence)
    if has_unit:
        columns["loss_without"] = predictions.loss + influence
        if predictions.loss_is_log:
            columns["probability_without"] = np.exp(-columns["loss_without"]).clip(0, 1)
    return columns


def higher_is_better(estimator):
    """Whether more of the estimator's measurement is better, so that a row that lowers it does harm."""
    measurement = getattr(estimator, "measurement", None)
    if measurement == "auto":
        measurement = resolve_measurement(measurement, Network.from_net(estimator.net_)).name
    return isinstance(measurement, str) and measurement in ("log_odds", "neg_loss")


def _query_opposition(estimator, X_query, y_query, k):
    """Number of queries that each row opposes and the sum of its scores over all, each (n_train,).

    A row opposes a query where its score is negative and among the query's ``k`` lowest.
    """
    count, total = np.zeros(estimator.n_train_, dtype=np.int64), np.zeros(estimator.n_train_)
    for _, scores in score_chunks(estimator, X_query, y_query):
        lowest = np.argpartition(scores, k - 1, axis=1)[:, :k]
        negative = np.take_along_axis(scores, lowest, axis=1) < 0
        np.add.at(count, lowest[negative], 1)
        total += scores.sum(axis=0)
    return count, total
