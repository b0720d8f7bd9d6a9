"""Predicted against retrained changes: the points are the metric's, the line is the regression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from sklearn_source import GradientSimilarity, TracIn
from sklearn_source.inspection import GroupEffectDisplay, LDSDisplay
from sklearn_source.inspection._plot._captions import format_interval
from sklearn_source.metrics import first_order_change, group_effect_score, top_k_removals
from sklearn_source.retraining import retrain_without

DIAGONAL = "retrained as predicted"


@pytest.fixture
def world():
    """Effects, and truths of top supporters with random groups and of halves."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(6, 40))
    removed = top_k_removals(effects, [2, 8], n_random=3)
    masks = np.ones((1 + len(removed), 40), dtype=bool)
    for mask, rows in zip(masks[1:], removed.values()):
        mask[rows] = False
    halves = np.argsort(rng.random((30, 40)), axis=1) < 20
    truths = [
        Bunch(
            masks=m,
            outputs=first_order_change(effects, m)[:, None] + rng.normal(size=(len(m), 2, 6)),
            names=names,
            measurement="prediction",
        )
        for m, names in ((masks, ["all", *removed]), (halves, None))
    ]
    return effects, *truths


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_points_and_line_are_the_metric(world):
    effects, without, _ = world
    display = GroupEffectDisplay.from_predictions(2 * effects, without, name="cost in $ of $", confidence=0.9)
    expected = group_effect_score(2 * effects, without, confidence=0.9)
    places = np.stack([expected.predicted, expected.retrained], axis=1)
    np.testing.assert_allclose(display.points_.get_offsets(), places)
    random = np.stack([expected.random.predicted, expected.random.retrained], axis=1)
    np.testing.assert_allclose(display.random_.get_offsets(), random)
    (x0, x1), (y0, y1) = display.line_.get_data()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(expected.slope)
    assert y1 == pytest.approx(expected.slope * x1)
    low, high = expected.slope_interval
    assert labels(display)[0] == f"cost in $ of $: slope {expected.slope:.2f} ({low:.2f} to {high:.2f})"
    assert labels(display)[1].startswith(f"random groups: slope {expected.random.slope:.2f}")
    assert labels(display)[2] == DIAGONAL
    areas = display.points_.get_sizes()
    assert areas[expected.n_removed == 8].min() > areas[expected.n_removed == 2].max()
    assert "2 to 8" in display.ax_.get_xlabel()
    assert "the prediction" in display.ax_.get_ylabel()
    assert "mean of each query" not in display.ax_.get_ylabel()
    plain = GroupEffectDisplay(result=expected).plot(show_random=False)
    assert plain.random_ is None
    assert len(plain.ax_.collections) == 1


def test_the_diagonal_looks_like_one_and_all_points_are_seen(world):
    effects, without, halves = world
    for truth, factor in ((without, 5), (without, 0.2), (halves, 1)):
        display = GroupEffectDisplay.from_predictions(factor * effects, truth)
        ax = display.ax_
        display.figure_.canvas.draw()
        assert ax.get_xlim() == ax.get_ylim()
        corners = ax.transData.transform([(0, 0), (1, 1)])
        assert np.ptp(corners[:, 0]) == pytest.approx(np.ptp(corners[:, 1]))
        for points in ax.collections:
            offsets = np.asarray(points.get_offsets())
            assert ax.get_xlim()[0] < offsets.min() < offsets.max() < ax.get_xlim()[1]
        box = ax.get_legend().get_window_extent().transformed(ax.transAxes.inverted())
        assert box.y1 <= box.x0  # the corner next to the diagonal is below it
    assert "mean of each query" in ax.get_ylabel()
    assert "larger points" not in ax.get_xlabel()


def test_two_methods_in_the_same_axes(plt, world):
    effects, _, halves = world
    figure, ax = plt.subplots()
    wide = GroupEffectDisplay.from_predictions(4 * effects, halves, name="a", ax=ax)
    narrow = GroupEffectDisplay.from_predictions(
        None, halves, predicted=first_order_change(effects, halves.masks), name="b", ax=ax
    )
    assert wide.line_.get_color() != narrow.line_.get_color()
    assert tuple(narrow.points_.get_facecolor()[0][:3]) != tuple(wide.points_.get_facecolor()[0][:3])
    assert sum(line.get_label() == DIAGONAL for line in ax.lines) == 1
    assert narrow.identity_ is wide.identity_
    assert ax.get_xlim()[1] > np.asarray(wide.points_.get_offsets()).max()
    assert [label.split(":")[0] for label in labels(narrow)] == ["a", "b", DIAGONAL]
    assert narrow.figure_ is figure
    assert len(plt.get_fignums()) == 1


def test_from_estimator(fitted):
    est, net, X, y = fitted
    removed = top_k_removals(est.transform(X[:3]), 4, n_random=2)
    truth = retrain_without(net, X, y, X[:3], removed=removed, random_state=0)
    display = GroupEffectDisplay.from_estimator(est, truth)
    assert display.result.slope == pytest.approx(group_effect_score(est.transform(X[:3]), truth).slope)
    assert display.result.own_groups
    assert display.name == "SourceAttribution"
    every = GroupEffectDisplay.from_estimator(est, truth, queries=np.full(5, -1), name="SOURCE")
    assert not every.result.own_groups
    assert "SOURCE" in labels(every)[0]
    with pytest.raises(ValueError, match="the truth measured, 'prediction'"):
        GroupEffectDisplay.from_estimator(TracIn(measurement=lambda o, t: -o[:, 0]).fit(net, X, y), truth)


def test_other_results_are_refused(plt):
    with pytest.raises(ValueError, match="expected a result with retrained, query, n_removed, slope"):
        GroupEffectDisplay.from_result(Bunch(predicted=[1.0]))
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "value, interval, text",
    [
        (0.944, (0.8, 1.1), "0.94 (0.80 to 1.10)"),
        (-0.0123, (-0.02, 0.0), "−0.012 (−0.020 to 0.000)"),
        (2.0, (np.nan, np.nan), "2.00"),
        (np.nan, (np.nan, np.nan), "unknown"),
        (23456.0, (20000.0, 30000.0), "2.3e+04 (2.0e+04 to 3.0e+04)"),
        (0.0, (0.0, 0.0), "0.00 (0.00 to 0.00)"),
    ],
)
def test_slopes_in_words(value, interval, text):
    assert format_interval(value, interval) == text


def test_lds_has_a_column_of_slopes(world, fitted):
    effects, _, halves = world
    display = LDSDisplay.from_predictions({"right": effects, "4 times": 4 * effects, "huge": 1e6 * effects}, halves)
    slope = display.results["right"].slope
    texts = [text.get_text() for text in display.slopes_]
    assert texts == [f"{slope:.2f}", f"{slope / 4:.2f}", f"{slope / 1e6:.1e}".replace("-", "−")]
    display.figure_.canvas.draw()
    for value, text in zip(display.values_, display.slopes_):
        boxes = value.get_window_extent(), text.get_window_extent()
        assert boxes[0].x1 < boxes[1].x0 < boxes[1].x1 <= display.figure_.bbox.x1 + 1
    header = next(text for text in display.ax_.texts if text.get_text() == "slope")
    ceiling = next(text for text in display.ax_.texts if "ceiling" in text.get_text())
    assert header.get_window_extent().x0 > ceiling.get_window_extent().x1
    without = {name: Bunch(**{k: v for k, v in r.items() if k != "slope"}) for name, r in display.results.items()}
    assert LDSDisplay(results=without).plot().slopes_ == []
    est, net, X, y = fitted
    masks = np.random.default_rng(0).random((12, 64)) < 0.5
    truth = Bunch(masks=masks, outputs=np.random.default_rng(1).normal(size=(12, 2, 4)))
    methods = [est, GradientSimilarity().fit(net, X, y), make_pipeline(FunctionTransformer(), TracIn(net)).fit(X, y)]
    drawn = LDSDisplay.from_estimators(methods, truth, X_query=X[:4], n_bootstrap=20).slopes_
    assert [text.get_text() == "–" for text in drawn] == [False, True, False]
