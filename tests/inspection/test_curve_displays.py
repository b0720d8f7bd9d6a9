"""Mislabel and subset removal displays draw the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch

from sklearn_source.inspection import MislabelDisplay, SubsetRemovalDisplay

K = [5, 10, 20]


def test_mislabelled_rows_are_counted_by_hand():
    rng = np.random.default_rng(0)
    scores, bad = rng.normal(size=50), rng.random(50) < 0.3
    display = MislabelDisplay.from_predictions(scores, bad)
    order = sorted(range(50), key=lambda i: -scores[i])
    expected = [sum(bad[i] for i in order[:k]) / bad.sum() for k in range(51)]
    np.testing.assert_allclose(display.line_.get_ydata(), expected)
    np.testing.assert_array_equal(display.line_.get_xdata(), np.arange(51))
    assert display.auc == pytest.approx(roc_auc_score(bad, scores))
    assert f"AUC {display.auc:.2f}" in display.line_.get_label()
    np.testing.assert_array_equal(display.ideal_.get_xdata(), [0, bad.sum(), 50])
    np.testing.assert_array_equal(display.random_.get_ydata(), [0, 1])
    assert "of 50" in display.ax_.get_xlabel()
    assert f"of {bad.sum()}" in display.ax_.get_ylabel()
    by_position = MislabelDisplay.from_predictions(scores, np.flatnonzero(bad))
    np.testing.assert_array_equal(by_position.found, display.found)


def test_tied_rows_are_found_at_the_mean_of_all_orders():
    scores, bad = np.array([1.0, 1, 1, 0, 0, 2]), np.array([True, False, True, True, False, False])
    share_found = np.zeros(7)
    rng = np.random.default_rng(0)
    for _ in range(4000):
        order = np.lexsort((rng.random(6), -scores))
        share_found += np.append(0, np.cumsum(bad[order])) / 3 / 4000
    np.testing.assert_allclose(MislabelDisplay.from_predictions(scores, bad).found, share_found, atol=0.02)


def test_mislabel_from_estimator(fitted):
    est = fitted[0]
    bad = np.arange(64) % 5 == 0
    display = MislabelDisplay.from_estimator(est, bad)
    np.testing.assert_array_equal(display.found, MislabelDisplay.from_predictions(est.self_influence(), bad).found)
    assert "SourceAttribution" in display.name


@pytest.mark.parametrize(
    "scores, bad, message",
    [
        (np.ones(4), np.zeros(4, bool), "0 mislabelled of 4"),
        (np.ones(4), np.ones(4, bool), "4 mislabelled of 4"),
        (np.ones(4), np.ones(3, bool), "mask of 4 booleans"),
        (np.ones(4), [4], "indices from 0 to 3"),
        (np.array([1.0, np.nan]), [0], "finite scores"),
        (np.ones((2, 2)), [0], "shape"),
        (["a", "b"], [0], "numbers"),
    ],
)
def test_mislabel_refuses(plt, scores, bad, message):
    with pytest.raises(ValueError, match=message):
        MislabelDisplay.from_predictions(scores, bad)
    assert plt.get_fignums() == []


def test_removal_draws_its_arrays_in_the_order_of_k():
    display = SubsetRemovalDisplay.from_predictions(
        [20, 5, 10], [0.6, 0.1, 0.3], [0.03, 0.01, 0.02], interval=[(0.5, 0, 0.2), (0.7, 0.2, 0.4)], percent=True
    )
    np.testing.assert_array_equal(display.line_.get_xdata(), K)
    np.testing.assert_array_equal(display.line_.get_ydata(), [0.1, 0.3, 0.6])
    np.testing.assert_array_equal(display.baseline_.get_ydata(), [0.01, 0.02, 0.03])
    (lines,) = display.intervals_
    ends = [tuple(segment.ravel()) for segment in lines.get_segments()]
    assert ends == [(5, 0, 5, 0.2), (10, 0.2, 10, 0.4), (20, 0.5, 20, 0.7)]


def metric_result(**fields):
    unknown = np.full(3, np.nan)
    result = {
        "k": np.array(K),
        "score": 0.4,
        "change": np.array([0.2, 0.4, 0.9]),
        "change_interval": (np.array([0.1, 0.3, 0.7]), np.array([0.3, 0.5, 1.1])),
        "random_change": np.array([0.0, 0.01, -0.01]),
        "random_change_interval": (np.full(3, -0.05), np.full(3, 0.05)),
        "flip_rate": unknown,
        "flip_interval": (unknown, unknown),
        "random_flip_rate": unknown,
        "random_flip_interval": (unknown, unknown),
    }
    return Bunch(**{**result, **fields})


def test_removal_from_the_metric():
    display = SubsetRemovalDisplay.from_result(metric_result())
    np.testing.assert_array_equal(display.line_.get_ydata(), [0.2, 0.4, 0.9])
    np.testing.assert_array_equal(display.baseline_.get_ydata(), [0.0, 0.01, -0.01])
    assert len(display.intervals_) == 2
    assert "fall of the measurement" in display.ax_.get_ylabel()
    named = SubsetRemovalDisplay.from_result(metric_result(measurement="log_odds"))
    assert "fall of the log-odds" in named.ax_.get_ylabel()
    flips = metric_result(flip_rate=np.array([0.1, 0.2, 0.5]))
    display = SubsetRemovalDisplay.from_result(flips)
    np.testing.assert_array_equal(display.line_.get_ydata(), [0.1, 0.2, 0.5])
    assert display.baseline_ is None
    assert display.intervals_ == []
    assert "flipped" in display.ax_.get_ylabel()
    np.testing.assert_array_equal(SubsetRemovalDisplay.from_result(flips, quantity="change").score, [0.2, 0.4, 0.9])


def test_removal_from_a_plain_result():
    plain = Bunch(k=[1, 2], score=[0.5, 0.6], baseline=[0.1, 0.1], interval=[(0.4, 0.5), (0.6, 0.7)])
    display = SubsetRemovalDisplay.from_result(plain)
    np.testing.assert_array_equal(display.line_.get_ydata(), [0.5, 0.6])
    np.testing.assert_array_equal(display.interval, [(0.4, 0.5), (0.6, 0.7)])  # lower ends first


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"score": [1.0]}, "score as numbers of shape"),
        ({"baseline": [1.0]}, "baseline as numbers of shape"),
        ({"score": [1, np.inf, 2]}, "finite score"),
        ({"interval": [(1, 2)]}, r"interval as finite lower and upper ends, shape \(2, 3\)"),
        ({"interval": [(3, 3, 3), (1, 1, 1)]}, "lower and upper ends"),
        ({"ax": 3}, "matplotlib Axes or None"),
    ],
)
def test_removal_refuses(plt, arguments, message):
    with pytest.raises(ValueError, match=message):
        SubsetRemovalDisplay.from_predictions(**{"k": K, "score": [0.1, 0.2, 0.3], **arguments})
    assert plt.get_fignums() == []


def test_removal_refuses_other_results():
    with pytest.raises(ValueError, match="fields k and score"):
        SubsetRemovalDisplay.from_result(Bunch(k=K))
    with pytest.raises(ValueError, match="expected quantity to be"):
        SubsetRemovalDisplay.from_result(metric_result(), quantity="flips")


def test_an_auc_is_perfect_only_where_it_is():
    bad = np.arange(3000) < 1500

    def label(scores):
        return MislabelDisplay.from_predictions(scores, bad).line_.get_label()

    scores = np.where(bad, 2.0, 1.0)
    assert "(AUC 1.000)" in label(scores)
    assert "(AUC 0.000)" in label(-scores)
    scores[0] = 0.0  # one row of 1500 last: 0.9993
    assert "(AUC 0.999)" in label(scores)
    scores[0] = 1.0  # tied with the correct rows: 0.9997
    assert "(AUC 0.999)" in label(scores)
    assert "(AUC 0.001)" in label(-scores)
    scores[:300] = 0.0
    assert "(AUC 0.80)" in label(scores)


@pytest.mark.parametrize("size", [(6, 4.6), (3, 2.4)])
def test_the_legend_hides_no_curve_above_the_diagonal(plt, size):
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for sign, name in ((1, "self-influence by SourceAttribution"), (2, "loss"), (-1, "cost in $ and effort of $")):
        MislabelDisplay.from_predictions(np.arange(60.0) * sign, np.arange(50, 60), name=name, ax=ax)
    figure.canvas.draw()
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert [name.split(" (")[0] for name in names[:2]] == ["self-influence by SourceAttribution", "loss"]
    assert {name.split(":")[0] for name in names[3:]} == {"ideal", "random order"}
    box = legend.get_window_extent().transformed(ax.transAxes.inverted())
    assert box.y1 <= box.x0  # the corner next to the diagonal is below it


def test_removal_shows_intervals_of_all_methods_in_the_same_axes(plt):
    figure, ax = plt.subplots()
    options = {"ax": ax, "percent": True}
    first = SubsetRemovalDisplay.from_predictions([20], [0.3], [0.0], interval=([0.1], [0.5]), **options)
    second = SubsetRemovalDisplay.from_predictions([20], [0.4], interval=([0.2], [0.9]), **options)
    figure.canvas.draw()
    low, high = ax.get_ylim()
    assert low < 0
    assert high > 0.9
    places = [display.line_.get_transform().transform((20, 0))[0] for display in (first, second)]
    assert 2 < abs(places[1] - places[0]) < 15  # pixels: beside each other
    assert ax.get_xlim()[0] < 20 < ax.get_xlim()[1]
    assert "intervals over queries" in ax.get_xlabel()


def test_the_legend_of_removals_hides_no_interval(plt):
    ends = np.array([[0.0, 0.06, 0.2, 0.4], [0.1, 0.2, 0.4, 0.7]])
    display = SubsetRemovalDisplay.from_predictions([5, 10, 20, 50], ends.mean(0), np.zeros(4), interval=ends)
    display.figure_.canvas.draw()
    box = display.ax_.get_legend().get_window_extent()
    for x, (low, high) in zip(display.k, ends.T, strict=True):
        (left, bottom), (_, top) = display.ax_.transData.transform([(x, low), (x, high)])
        assert left < box.x0 or left > box.x1 or top < box.y0 or bottom > box.y1


@pytest.mark.parametrize("k, scale", [([5, 10, 20], "linear"), ([5, 10, 20, 200], "log"), ([0, 1, 100], "linear")])
def test_numbers_of_rows_that_would_collide_go_on_a_log_scale(k, scale):
    ax = SubsetRemovalDisplay.from_predictions(k, np.linspace(0, 1, len(k))).ax_
    assert ax.get_xscale() == scale
    assert [text.get_text() for text in ax.get_xticklabels()] == [str(value) for value in k]
    assert ("log scale" in ax.get_xlabel()) == (scale == "log")


def test_methods_in_the_same_axes_look_different(plt):
    figure, ax = plt.subplots()
    lines = [MislabelDisplay.from_predictions(np.arange(6.0) * s, [4], ax=ax).line_ for s in (1, -1, 2)]
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_linestyle() for line in lines}) == 3
    assert all(line.figure is figure for line in lines)
    assert len(plt.get_fignums()) == 1
