"""Bad arguments of the displays, and of what ensembles and results say besides their scores."""

from __future__ import annotations

import functools

import numpy as np

from sklearn_source.inspection import (
    GroupEffectDisplay,
    InfluenceDisplay,
    LDSDisplay,
    MislabelDisplay,
    SegmentDisplay,
    SubsetRemovalDisplay,
    predict_action,
    segment_scores,
)
from sklearn_source.metrics import subset_removal_score
from tests.robustness import _bad_values as bad
from tests.robustness._bad_cells import but, of
from tests.robustness._bad_inspection import LEVEL, NAMES
from tests.robustness._bad_methods import LABELS, TRUTH, X_query, fitted, query_labels, y_query
from tests.robustness._bad_methods import X as X_train
from tests.robustness._bad_metrics import CALLABLE, SCORES, removal_truth

POSITIONS = {"beyond": 4, "negative": -5, "fractions": 0.5, "a text": "0", "True": True, "a list": [0], "NaN": np.nan}


def cells(folder):
    return influence_cells() + curve_cells() + segment_cells() + ensemble_cells()


def influence_cells():
    good = {"X_query": X_query, "y": query_labels, "X_train": X_train, "y_train": LABELS, "k": 2}
    bads = {
        "X_train": bad.not_rows(X_train), "y_train": bad.not_rows(X_train), "query": POSITIONS,
        "k": but(bad.COUNT_NOT_NONE), "kind": bad.CHOICE, "inverse_transform": CALLABLE, "target_names": NAMES,
        "feature_names": NAMES, "scale": {**bad.POSITIVE, "None": None},
    }  # fmt: skip
    of_estimator, of_scores = InfluenceDisplay.from_estimator, InfluenceDisplay.from_predictions
    methods = {
        "estimator": bad.FITTED,
        "X_query": bad.tables(X_query),
        "y": but(bad.labels(query_labels), "beyond", "negative"),
    }
    given = {"estimator": fitted("TracIn", "labels"), **good}
    found = of("InfluenceDisplay.from_estimator", of_estimator, given, **methods, **bads)
    scores = {**bad.score_tables(SCORES), "other rows": SCORES[:, :5], "other queries": SCORES[:2]}
    return found + of("InfluenceDisplay.from_predictions", of_scores, {"scores": SCORES, **good}, scores=scores, **bads)


def curve_cells():
    scores, truths = {**bad.score_tables(SCORES), "other rows": SCORES[:, :5]}, bad.truths(TRUTH)
    asked = bad.given(bad.rows(4))
    of_scores = GroupEffectDisplay.from_predictions
    good = {"scores": SCORES, "truth": TRUTH}
    found = of("GroupEffectDisplay.from_predictions", of_scores, good, scores=scores, truth=truths, queries=asked)
    found += of("GroupEffectDisplay.from_predictions", of_scores, good, confidence=LEVEL)
    good = {"estimator": fitted("TracIn"), "truth": TRUTH, "X_query": X_query}
    of_estimator = GroupEffectDisplay.from_estimator
    bads = {"estimator": bad.FITTED, "truth": truths, "X_query": bad.given(bad.tables(X_query))}
    found += of("GroupEffectDisplay.from_estimator", of_estimator, good, **bads, confidence=LEVEL)
    named = {name: {"a": value} for name, value in scores.items()} | {"no names": SCORES, "empty names": {}, "5 ": 5}
    good = {"scores": {"a": SCORES}, "truth": TRUTH, "n_bootstrap": 20}
    bads = {"scores": named, "truth": truths, "confidence": LEVEL, "n_bootstrap": bad.COUNT_NOT_NONE}
    found += of("LDSDisplay.from_predictions", LDSDisplay.from_predictions, good, **bads, random_state=bad.SEED)
    good = {"estimators": [fitted("TracIn")], "truth": TRUTH, "X_query": X_query, "n_bootstrap": 20}
    several = {name: [value] for name, value in bad.FITTED.items()} | {"none": [], "one": 5, "a text": "TracIn"}
    bads = {"estimators": several, "truth": truths, "X_query": bad.given(bad.tables(X_query))}
    found += of("LDSDisplay.from_estimators", LDSDisplay.from_estimators, good, **bads)
    wrong = {
        "too short": [True], "texts": ["a"] * 24, "none": np.zeros(24, bool), "None": None, "a number": 5,
        "all": np.ones(24, bool), "a table": np.zeros((24, 1), bool), "NaN": np.full(24, np.nan),
    }  # fmt: skip
    own, good = but(bad.score_tables(SCORES), "one axis"), {"scores": SCORES[0], "is_mislabelled": LABELS == 1}
    found += of("MislabelDisplay.from_predictions", MislabelDisplay.from_predictions, good, scores=own)
    found += of("MislabelDisplay.from_predictions", MislabelDisplay.from_predictions, good, is_mislabelled=wrong)
    good = {"estimator": fitted("TracIn"), "is_mislabelled": LABELS == 1}
    bads = {"estimator": bad.FITTED, "is_mislabelled": wrong}
    found += of("MislabelDisplay.from_estimator", MislabelDisplay.from_estimator, good, **bads)
    results = {"None": None, "5": 5, "a dict": {}, "a text": "result"}
    good = {"result": subset_removal_score(removal_truth())}
    bads = {"result": results, "quantity": bad.CHOICE}
    found += of("SubsetRemovalDisplay.from_result", SubsetRemovalDisplay.from_result, good, **bads)
    good = {"k": [1, 2, 4], "score": [0.1, 0.2, 0.4]}
    lines = {"texts": ["a"] * 3, "too short": [1.0], "None": None, "a table": np.ones((3, 3)), "a text": "abc", "5": 5}
    bads = {"k": lines, "score": lines, "baseline": bad.given(lines)}
    return found + of("SubsetRemovalDisplay.from_predictions", SubsetRemovalDisplay.from_predictions, good, **bads)


@functools.cache
def by_segment():
    return segment_scores(fitted("SourceAttribution"), X_query)


def segment_cells():
    good = {"estimator": fitted("SourceAttribution"), "X_query": X_query}
    bads = {"estimator": {**bad.FITTED, "another": fitted("TracIn")}, "X_query": bad.tables(X_query)}
    numbers = {"query": POSITIONS, "scale": {**bad.POSITIVE, "None": None}}
    found = of("SegmentDisplay.from_estimator", SegmentDisplay.from_estimator, good, **bads, **numbers)
    good = {"scores": by_segment(), "segments": fitted("SourceAttribution").segments_}
    segments = {"None": None, "5": 5, "none": [], "texts": ["a", "b"], "one": fitted("SourceAttribution").segments_[:1]}
    scores = but(bad.score_tables(by_segment()), "three axes")
    bads = {"scores": scores, "segments": segments, "query": POSITIONS}
    return found + of("SegmentDisplay.from_predictions", SegmentDisplay.from_predictions, good, **bads)


def ensemble_cells():
    ensemble, found = fitted("AttributionEnsemble"), []
    queries = bad.tables(X_query)
    found += of("AttributionEnsemble.score_error", ensemble.score_error, {"X": X_query}, X=queries)
    stable = ensemble.stable_influences
    found += of("AttributionEnsemble.stable_influences", stable, {"X": X_query}, X=queries, alpha=LEVEL)
    effect = predict_action(fitted("TracIn"), "remove", [0, 1], X_query, y_query)
    bads = {"n_repeats": bad.COUNT_NOT_NONE, "random_state": bad.SEED, "engine": bad.CHOICE, "cache": bad.FOLDER}
    good = {"n_repeats": 1, "random_state": 0}
    found += of("ActionEffect.confirm", effect.confirm, good, **but(bads, "random_state"), as_frame=bad.CHOICE)
    return found + of("ActionEffect.table", effect.table, {}, as_frame=bad.CHOICE)
