"""Checks of the numbers: shape, invariances, and agreement of the three ways to ask for them."""

from __future__ import annotations

import numpy as np

from ._cases import make_case
from ._tools import fitted, has_param, require, require_close, scores_of

# Of the largest score. Batches change the order of float32 sums, a permutation that of whole factorisations.
BATCH_RTOL, ORDER_RTOL, PRECISION_RTOL = 1e-5, 1e-4, 1e-3


def check_attribution_output(name, estimator, case):
    """Scores are a finite float32 matrix, one row per query and one named column per training row."""
    model = fitted(estimator, case)
    scores = model.transform(case.X_query, case.y_query)
    shape = (len(case.X_query), len(case.X))
    require(isinstance(scores, np.ndarray), f"{name}.transform returned a {type(scores).__name__}, not an array")
    require(scores.shape == shape, f"{name}.transform returned shape {scores.shape}, not (n_query, n_train) = {shape}")
    require(scores.dtype == np.float32, f"{name}.transform returned {scores.dtype}, not float32")
    require(np.isfinite(scores).all(), f"{name}.transform returned infinities or NaN")
    require(np.ptp(scores, axis=1).min() > 0, f"{name} gives every training row the same score for some query")
    require(np.ptp(scores, axis=0).max() > 0, f"{name} gives every query the same scores")
    names = list(model.get_feature_names_out())
    require(
        len(names) == len(set(names)) == shape[1],
        f"{name}.get_feature_names_out gave {len(set(names))} different names for {shape[1]} columns",
    )


def check_attribution_query_batches(name, estimator, case):
    """The scores of a query do not depend on the queries beside it."""
    model = fitted(estimator, case)
    together = model.transform(case.X_query, case.y_query)
    alone = [model.transform(case.X_query[[i]], case.y_query[[i]])[0] for i in range(len(case.X_query))]
    require_close(alone, together, BATCH_RTOL, f"{name} scores a query otherwise when it comes alone")
    back = model.transform(case.X_query[::-1], case.y_query[::-1])[::-1]
    require_close(back, together, BATCH_RTOL, f"{name} scores queries otherwise when their order changes")


def check_attribution_batch_size(name, estimator, case):
    """``batch_size`` is about memory, not about numbers."""
    if not has_param(estimator, "batch_size"):
        return
    expected = scores_of(estimator, case)
    for batch_size in (1, 7):
        scores = scores_of(estimator, case, batch_size=batch_size)
        require_close(scores, expected, BATCH_RTOL, f"{name}(batch_size={batch_size}) changes the scores")


def check_attribution_permuted_rows(name, estimator, case):
    """Training rows in another order give the same columns in that order."""
    expected = scores_of(estimator, case)
    order = np.random.RandomState(1).permutation(len(case.X))
    net = case.trained_net()
    model = fitted(estimator, type(case)(case.task, case.X[order], case.y[order], *_queries(case)), net=net)
    scores = model.transform(case.X_query, case.y_query)
    require_close(scores, expected[:, order], ORDER_RTOL, f"{name} does not permute its columns with the training rows")


def _queries(case):
    return case.X_query, case.y_query, case.dtype


def check_attribution_top_influences(name, estimator, case):
    """``top_influences`` gives the extremes of the matrix that ``transform`` gives, best first."""
    model = fitted(estimator, case)
    scores = model.transform(case.X_query, case.y_query)
    n_query, n_train = scores.shape
    for order, sign in (("supporting", -1), ("opposing", 1)):
        for k in (1, 5, n_train):
            what = f"{name}.top_influences(k={k}, order={order!r})"
            top = model.top_influences(case.X_query, case.y_query, k=k, order=order)
            require(
                top.indices.shape == top.scores.shape == (n_query, k),
                f"{what}: shapes {top.indices.shape} and {top.scores.shape}, not {(n_query, k)}",
            )
            require(top.indices.dtype.kind == "i", f"{what}: indices of dtype {top.indices.dtype}, not integers")
            require(top.scores.dtype == np.float32, f"{what}: scores of dtype {top.scores.dtype}, not float32")
            require(
                all(len(set(row)) == k for row in top.indices.tolist()), f"{what}: a training row comes more than once"
            )
            at = np.take_along_axis(scores, top.indices, axis=1)
            require_close(top.scores, at, BATCH_RTOL, f"{what}: its scores are not those of transform at its indices")
            best = sign * np.sort(sign * scores, axis=1)[:, :k]
            require_close(top.scores, best, BATCH_RTOL, f"{what}: these are not the most extreme rows, in order")


def check_attribution_self_influence(name, estimator, case):
    """``self_influence`` is each row's score for its own fit."""
    model = fitted(estimator, case)
    own = model.self_influence()
    require(own.shape == (len(case.X),), f"{name}.self_influence returned shape {own.shape}, not {(len(case.X),)}")
    require(own.dtype == np.float32, f"{name}.self_influence returned {own.dtype}, not float32")
    require(np.isfinite(own).all(), f"{name}.self_influence returned infinities or NaN")
    if has_param(estimator, "measurement"):
        other = fitted(estimator, case, measurement="neg_loss")
        if getattr(estimator, "fit_depends_on_measurement", False):  # then only this one is comparable
            own = other.self_influence()
        matrix = other.transform(case.X, case.y)
        message = f"{name}.self_influence is not the diagonal of transform(X, y) with measurement='neg_loss'"
        require_close(own, np.diag(matrix), ORDER_RTOL, message)


def check_attribution_float64(name, estimator, case):
    """The same training in float64 gives the same scores, but for rounding."""
    double = make_case(case.task, np.float64)
    message = f"{name} scores a float32 net otherwise than the same net in float64"
    require_close(scores_of(estimator, case), scores_of(estimator, double), PRECISION_RTOL, message)
