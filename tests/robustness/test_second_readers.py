"""What one reader of an argument refuses the others refuse too."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sklearn_source import InfluenceFunctions, SourceAttribution, TracIn
from sklearn_source.inspection import audit_training_rows, group_influence
from sklearn_source.metrics import check_truth, class_detection_score, group_effect_score, linear_datamodeling_score
from sklearn_source.retraining import leave_one_out, retrain_on_subsets, retrain_without
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net(module__hidden=(4,)).fit(X, y)


@pytest.fixture(scope="module")
def fitted(net):
    return TracIn().fit(net, X, y)


def test_labels_in_a_column_are_no_groups_of_single_rows(fitted):
    labels = (np.arange(24) % 3)[:, None]
    with pytest.raises(ValueError, match=r"labels\.ravel\(\)"):
        group_influence(fitted, X[:2], labels)
    with pytest.raises(ValueError, match=r"labels\.ravel\(\)"):
        fitted.predict_reweighting(X[:2], groups=labels)
    assert group_influence(fitted, X[:2], labels.ravel()).influence.shape == (2, 3)
    assert group_influence(fitted, X[:2], np.arange(24)[:, None]).influence.shape == (2, 24)


def test_labels_of_two_kinds(fitted):
    with pytest.raises(ValueError, match="labels of one kind"):
        group_influence(fitted, X[:2], ["a", 1] * 12)


def test_a_row_named_twice(fitted):
    calls = [
        lambda: group_influence(fitted, X[:2], {"a": [1, 1]}),
        lambda: leave_one_out(make_net(module__hidden=(4,)), X, y, X[:2], rows=[1, 1]),
        lambda: retrain_without(make_net(module__hidden=(4,)), X, y, X[:2], removed={"a": [1, 1]}),
        lambda: fitted.predict_reweighting(X[:2], groups={"a": [1, 1]}),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="2 times"):
            call()


def test_estimators_that_are_averaged_are_of_one_method_and_measurement(net, fitted):
    others = [SourceAttribution(n_segments=2).fit(net, X, y), TracIn(measurement="neg_loss").fit(net, X, y)]
    for other in others:
        with pytest.raises(ValueError, match="one method and measurement"):
            group_influence([fitted, other], X[:2], {"a": [1, 2]}, y[:2])


@pytest.mark.parametrize("method", [TracIn, InfluenceFunctions])
@pytest.mark.parametrize("measurement", ["neg_loss", "prediction"])
def test_targets_of_another_width_than_in_fit(net, method, measurement):
    estimator = method(measurement=measurement).fit(net, X, y)
    for wrong in (np.hstack([y[:3], y[:3]]), np.zeros((3, 0), np.float32)):
        with pytest.raises(ValueError):
            estimator.transform(X[:3], wrong)
    np.testing.assert_array_equal(estimator.transform(X[:3], y[:3]), estimator.transform(X[:3], y[:3, 0]))


@pytest.mark.parametrize("output", [-1, (-1,)])
def test_outputs_are_counted_from_the_first_by_all(net, output):
    with pytest.raises(ValueError, match="output"):
        TracIn(measurement="prediction", output=output).fit(net, X, y)
    with pytest.raises(ValueError, match="output"):
        retrain_on_subsets(
            make_net(module__hidden=(4,)),
            X,
            y,
            X[:2],
            measurement="prediction",
            output=output,
            n_subsets=2,
            n_repeats=1,
        )


def test_more_rows_than_there_are(fitted):
    with pytest.raises(ValueError, match="expected k"):
        audit_training_rows(fitted, X, y, k=25)


def test_numbers_are_no_texts():
    scores = np.eye(3)
    with pytest.raises(ValueError, match="encode both alike"):
        class_detection_score(scores, [0, 1, 2], ["0", "1", "2"])
    with pytest.raises(ValueError, match="encode both alike"):
        class_detection_score(scores, np.array([0, 1, 2], object), np.array(["0", "1", "2"], object))
    assert class_detection_score(scores, ["0", "1", "2"], ["0", "1", "2"]).score == 1


MASKS, OUTPUTS = np.random.default_rng(1).random((9, 6)) < 0.5, np.random.default_rng(2).normal(size=(9, 2, 3))
TRUTHS = {
    "texts": (MASKS, np.full((9, 2, 3), "a")),
    "objects": (MASKS, np.full((9, 2, 3), None)),
    "complex numbers": (MASKS, OUTPUTS.astype(complex)),
    "ragged outputs": (MASKS, [[[1.0]], [[1.0], [2.0]]] + [[[1.0]]] * 7),
    "ragged masks": ([[True], [True, False]], OUTPUTS),
    "integers as masks": (MASKS.astype(int), OUTPUTS),
}


@pytest.mark.parametrize("kind", list(TRUTHS))
def test_truths_that_are_none(kind):
    with pytest.raises(ValueError, match="expected"):
        check_truth(SimpleNamespace(masks=TRUTHS[kind][0], outputs=TRUTHS[kind][1]))


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-8, 1 / 3, 1e9, 12345.678])
@pytest.mark.parametrize("size", [None, 11])
def test_scores_that_are_all_alike_order_nothing(value, size):
    """Sums of constants differ by rounding alone, which is no order; with subsets of several sizes the size is one."""
    rng = np.random.default_rng(0)
    masks = rng.random((60, 23)) < 0.5
    if size is not None:
        masks = np.argsort(rng.random((60, 23)), axis=1) < size
    truth = SimpleNamespace(masks=masks, outputs=rng.normal(size=(60, 2, 5)))
    scores = np.full((5, 23), value)
    effects = group_effect_score(scores, truth)
    assert np.isnan(effects.slope)  # first-order changes of constants are zero, whatever the subset
    assert effects.rank_correlation == 0.0
    if size is not None:
        lds = linear_datamodeling_score(scores, truth, n_bootstrap=50)
        assert lds.score == 0.0
        assert lds.interval == (0.0, 0.0)
        assert not lds.per_query.any()


def test_small_differences_of_scores_still_count():
    rng = np.random.default_rng(0)
    masks, effects = np.argsort(rng.random((60, 23)), axis=1) < 11, rng.normal(size=(5, 23))
    truth = SimpleNamespace(masks=masks, outputs=(masks @ effects.T)[:, None])
    assert linear_datamodeling_score(1.0 + 1e-9 * effects, truth, n_bootstrap=20).score > 0.99
    assert group_effect_score(1.0 + 1e-9 * effects, truth).rank_correlation > 0.99
