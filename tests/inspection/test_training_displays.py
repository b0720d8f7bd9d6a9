"""Where influence arose, and how methods compare with the truth."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from sklearn_source import EmpiricalInfluence, InfluenceFunctions, SourceAttribution, TracIn
from sklearn_source.inspection import (
    GroupEffectDisplay,
    InfluenceDisplay,
    LDSDisplay,
    MislabelDisplay,
    SegmentDisplay,
    SubsetRemovalDisplay,
    segment_scores,
)
from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.model_selection import FullTrainingSet, make_lds_scorer
from sklearn_source.retraining import retrain_on_subsets
from sklearn_source.utils._compat import FrozenEstimator
from tests._nets import make_net
from tests.metrics._worlds import additive_world


def test_segments_add_up_to_the_scores(fitted):
    est, _, X, _ = fitted
    parts = segment_scores(est, X[:5])
    assert parts.shape == (3, 5, 64)
    np.testing.assert_allclose(parts.sum(0), est.transform(X[:5]), atol=1e-6)


def test_the_last_segment_is_the_last_of_them(fitted):
    """Nothing was learned before it: the last segment alone is SOURCE of one segment of the steps after its start."""
    est, net, X, y = fitted
    last = est._fitted[-1]
    assert {state.step for state in last.states} == set(est.segments_[-1].checkpoints)
    # The last segment's score needs no other: switch the others' rows off and compare.
    parts = segment_scores(est, X[:5])
    alone = SourceAttribution(n_segments=3).fit(net, X, y)
    for segment in alone._fitted[:-1]:
        segment.credited = np.zeros(64, dtype=bool)
    np.testing.assert_allclose(parts[-1], alone.transform(X[:5]), atol=1e-6)


@pytest.mark.parametrize("query", [None, 3, -1])
def test_segment_bars(fitted, query):
    est, _, X, _ = fitted
    display = SegmentDisplay.from_estimator(est, X[:5], query=query, scale=2.0, unit="MPa")
    parts = 2.0 * segment_scores(est, X[:5]).astype(np.float64)
    parts = parts if query is None else parts[:, [query]]
    up, down = parts.clip(min=0).sum(2).mean(1), parts.clip(max=0).sum(2).mean(1)
    np.testing.assert_allclose([bar.get_height() for bar in display.supporting_], up, rtol=1e-5)
    np.testing.assert_allclose([bar.get_height() for bar in display.opposing_], down, rtol=1e-5)
    shares = (up - down) / (up - down).sum()
    np.testing.assert_allclose(display.shares_, shares, rtol=1e-5)
    upper, lower = display.axes_
    assert [text.get_text() for text in upper.texts] == [f"{share:.0%}" for share in shares]
    assert "MPa" in upper.get_ylabel()
    assert [bar.get_x() + bar.get_width() / 2 for bar in display.supporting_] == pytest.approx(
        [(segment.start + segment.end) / 2 for segment in est.segments_]
    )
    medians = [line.get_ydata()[0] for line in lower.lines if line.get_linewidth() == 2]
    marks = [line.get_ydata() for line in lower.lines if line.get_marker() == "_"]
    for mark, segment in zip(marks, est.segments_, strict=True):
        assert mark == pytest.approx([max(1e-6, segment.h_sigma_quantiles[q]) for q in (0.95, 0.99, 1.0)])
    assert medians == pytest.approx([max(1e-6, segment.h_sigma_quantiles[0.5]) for segment in est.segments_])
    again = SegmentDisplay.from_predictions(parts, est.segments_)
    np.testing.assert_allclose(again.supporting, display.supporting, rtol=1e-5)


def test_stages_are_named_where_there_are_several(fitted):
    est, _, X, _ = fitted
    assert not SegmentDisplay.from_estimator(est, X[:2]).axes_[1].texts[2:]
    segments = [dataclasses.replace(s, stage=int(i > 0)) for i, s in enumerate(est.segments_)]
    lower = SegmentDisplay.from_predictions(np.ones((3, 2, 64)), segments).axes_[1]
    assert [(text.get_text(), text.xy[0]) for text in lower.texts[2:]] == [
        ("stage 0", 0),
        ("stage 1", segments[1].start),
    ]


def test_segment_display_in_given_axes(plt, fitted):
    est, _, X, _ = fitted
    figure, axes = plt.subplots(1, 2, layout="constrained")
    display = SegmentDisplay.from_estimator(est, X[:2], ax=axes[0])
    figure.canvas.draw()
    assert display.figure_ is figure
    assert all(ax.get_position().x1 < 0.55 for ax in display.axes_)


def test_segment_display_refuses(plt, fitted):
    est, net, X, y = fitted
    with pytest.raises(ValueError, match="TracIn, which has none"):
        SegmentDisplay.from_estimator(TracIn().fit(net, X, y), X[:2])
    with pytest.raises(ValueError, match="one of the 2 queries"):
        SegmentDisplay.from_estimator(est, X[:2], query=2)
    with pytest.raises(ValueError, match="n_segments = 3"):
        SegmentDisplay.from_predictions(np.zeros((2, 2, 64)), est.segments_)
    with pytest.raises(NotFittedError):
        segment_scores(SourceAttribution(), X[:2])
    assert plt.get_fignums() == []


def test_lds_points_are_the_metric():
    scores, truth, effects = additive_world(0, n_subsets=25, n_query=7)
    methods = {"good $1": effects, "noisy": scores, "opposite": -effects}
    display = LDSDisplay.from_predictions(methods, truth, n_bootstrap=50, confidence=0.9, show_queries=True)
    expected = [linear_datamodeling_score(s, truth, n_bootstrap=50, confidence=0.9) for s in methods.values()]
    np.testing.assert_allclose(display.points_.get_offsets()[:, 0], [result.score for result in expected])
    segments = np.array(display.intervals_.get_segments())
    np.testing.assert_allclose(segments[:, :, 0], [result.interval for result in expected])
    np.testing.assert_allclose(display.queries_[1].get_offsets()[:, 0], expected[1].per_query)
    assert display.ceiling_.get_xdata()[0] == pytest.approx(expected[0].ceiling)
    numbers = [float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in display.values_]
    np.testing.assert_allclose(numbers, [result.score for result in expected], atol=0.005001)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == list(methods)
    low, high = display.ax_.get_xlim()
    assert low < segments[:, :, 0].min()
    assert high == 1.0
    assert "90%" in display.ax_.get_xlabel()
    assert "single queries" in display.ax_.get_xlabel()
    display.figure_.canvas.draw()
    right, edge = display.ax_.bbox.x1, display.figure_.bbox.x1
    for text in display.values_:  # beside the axes, where no point or line can be, and not cut
        box = text.get_window_extent()
        assert right < box.x0 < box.x1 <= edge + 1


def test_no_ceiling_from_a_single_repeat():
    scores, truth, _ = additive_world(0, n_subsets=25, n_query=7, n_repeats=1)
    display = LDSDisplay.from_predictions({"a": scores}, truth, n_bootstrap=20)
    assert display.ceiling_ is None


def test_lds_of_fitted_and_unfitted_estimators(plt, fitted):
    est, net, X, y = fitted
    rng = np.random.default_rng(0)
    masks = rng.random((20, 64)) < 0.5
    truth = Bunch(masks=masks, outputs=rng.normal(size=(20, 2, 4)))
    figure, ax = plt.subplots()
    unfitted = [InfluenceFunctions(), SourceAttribution(n_segments=1, random_state=0)]
    display = LDSDisplay.from_estimators(
        [est, *unfitted], truth, X_query=X[:4], X_train=X, y_train=y, n_bootstrap=20, ax=ax
    )
    assert list(display.results) == [
        "SourceAttribution(n_segments=3)",
        "InfluenceFunctions",
        "SourceAttribution(n_segments=1)",
    ]
    assert display.figure_ is figure
    expected = InfluenceFunctions().fit(net, X, y).transform(X[:4])
    expected = linear_datamodeling_score(expected, truth, n_bootstrap=20).score
    assert display.results["InfluenceFunctions"].score == pytest.approx(expected)
    assert not hasattr(unfitted[0], "net_")  # a clone was fitted
    twins = LDSDisplay.from_estimators([est, est], truth, X_query=X[:4], n_bootstrap=20)
    assert list(twins.results) == ["SourceAttribution", "SourceAttribution #2"]
    with pytest.raises(NotFittedError, match="TracIn is not fitted: fit it, or pass X_train"):
        LDSDisplay.from_estimators([TracIn()], truth, X_query=X[:4])
    with pytest.raises(NotFittedError, match="Pipeline is not fitted"):
        LDSDisplay.from_estimators([est, make_pipeline(FunctionTransformer(), TracIn(net))], truth, X_query=X[:4])
    with pytest.raises(ValueError, match="at least one estimator"):
        LDSDisplay.from_estimators([], truth, X_query=X[:4])
    for wrong in (est, [est, 1]):
        with pytest.raises(TypeError, match="expected .*estimators"):
            LDSDisplay.from_estimators(wrong, truth, X_query=X[:4])
    with pytest.raises(ValueError, match="which it does not hold"):
        LDSDisplay.from_estimators([est], truth)
    with pytest.raises(ValueError, match="dict from the name"):
        LDSDisplay.from_predictions([np.zeros((4, 64))], truth)


def test_lds_of_what_a_fitted_estimator_and_the_truth_know(fitted):
    """Unfitted methods are fitted as the fitted one was; the truth brings its queries and recognises the rows."""
    est, net, X, y = fitted
    truth = retrain_on_subsets(net, X, y, X[:4], n_subsets=12, n_repeats=2, random_state=0)
    methods = [est, TracIn(), EmpiricalInfluence(truth), EmpiricalInfluence(truth).fit(X)]
    display = LDSDisplay.from_estimators(methods, truth, n_bootstrap=20)
    fresh = TracIn().fit(net, X, y)
    for name, method in (("SourceAttribution", est), ("TracIn", fresh), ("EmpiricalInfluence", methods[3])):
        expected = linear_datamodeling_score(method.transform(X[:4]), truth, n_bootstrap=20).score
        assert display.results[name].score == pytest.approx(expected)
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = SourceAttribution(n_segments=3).fit(net, X[order], y[order])
    pipeline = make_pipeline(FunctionTransformer(), TracIn(FrozenEstimator(net))).fit(X[order], y[order])
    again = LDSDisplay.from_estimators([shuffled, TracIn(), pipeline], truth, n_bootstrap=20)
    scores = [result.score for result in again.results.values()]
    expected = [display.results[name].score for name in ("SourceAttribution", "TracIn", "TracIn")]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    options = {"scoring": make_lds_scorer(truth), "cv": FullTrainingSet(2)}
    search = GridSearchCV(SourceAttribution(FrozenEstimator(net)), {"n_segments": [3]}, **options).fit(X, y)
    again = LDSDisplay.from_estimators({"best": search, "TracIn": TracIn()}, truth, n_bootstrap=20)
    scores = [result.score for result in again.results.values()]
    np.testing.assert_allclose(scores, expected[:2], atol=1e-6)
    alone = LDSDisplay.from_estimators([EmpiricalInfluence(truth)], truth, X_train=X, y_train=y, n_bootstrap=20)
    assert alone.results["EmpiricalInfluence"].score == display.results["EmpiricalInfluence"].score
    with pytest.raises(ValueError, match="the truth measured, 'prediction'"):
        LDSDisplay.from_estimators([TracIn(measurement=lambda o, t: -o[:, 0]).fit(net, X, y)], truth)


def test_lds_of_a_trajectory_given_by_hand(fitted):
    """What the fitted method was told of the training, the others are told too."""
    est, net, X, y = fitted
    unrecorded = make_net(recorded=False, iterator_train__shuffle=True).fit(X, y)
    unrecorded.module_.load_state_dict(net.module_.state_dict())
    by_hand = SourceAttribution(trajectory=est.trajectory_, n_segments=est.n_segments).fit(unrecorded, X, y)
    truth = retrain_on_subsets(net, X, y, X[:4], n_subsets=5, n_repeats=1, random_state=0)
    display = LDSDisplay.from_estimators([by_hand, TracIn()], truth, n_bootstrap=20)
    expected = LDSDisplay.from_estimators([est, TracIn()], truth, n_bootstrap=20)
    for one, other in zip(display.results.values(), expected.results.values(), strict=True):
        assert one.score == pytest.approx(other.score)


def test_what_is_missing_is_said_without_matplotlib(monkeypatch, fitted):
    est, _, X, _ = fitted
    real = importlib.import_module

    def blocked(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(importlib, "import_module", blocked)
    calls = {
        "InfluenceDisplay.from_estimator": lambda: InfluenceDisplay.from_estimator(est, X, X_train=X),
        "GroupEffectDisplay.from_predictions": lambda: GroupEffectDisplay.from_predictions(None, None),
        "LDSDisplay.from_predictions": lambda: LDSDisplay.from_predictions({}, None),
        "MislabelDisplay.from_estimator": lambda: MislabelDisplay.from_estimator(est, [1]),
        "SegmentDisplay.from_estimator": lambda: SegmentDisplay.from_estimator(est, X),
        "SubsetRemovalDisplay.from_predictions": lambda: SubsetRemovalDisplay.from_predictions([1], [1]),
    }
    for name, call in calls.items():
        with pytest.raises(ImportError, match=rf"{name} draws with matplotlib: pip install"):
            call()


def test_the_room_is_entered_without_matplotlib():
    import subprocess
    import sys

    code = "import sys, sklearn_source.inspection; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
