"""Bad arguments of the metrics and of ``model_selection``."""

from __future__ import annotations

import functools

import numpy as np

from sklearn_source import TracIn, config_context, set_config
from sklearn_source import metrics as m
from sklearn_source.model_selection import FullTrainingSet, held_out_score, make_lds_scorer
from sklearn_source.retraining import Retraining
from tests.robustness import _bad_values as bad
from tests.robustness._bad_cells import but, of, only
from tests.robustness._bad_methods import LABELS, TRUTH, X_query, fitted, query_labels

SCORES = np.random.default_rng(1).normal(size=(4, 24))
LEVEL = {**bad.FRACTION, "None": None}
CALLABLE = {"5": 5, "a text": "function", "a list": []}


def _classes(good):
    """Classes are of any kind, so that fewer values are bad ones."""
    names = "NaN", "too short", "too long", "two columns", "complex", "a number", "a text", "objects", "ragged", "inf"
    return only(bad.labels(good), *names, "mixed", "no rows")


@functools.cache
def loo_truth():
    masks = np.vstack([np.ones(24, bool), ~np.eye(24, dtype=bool)[:5]])
    return _truth(masks, ["all", *"01234"], "prediction")


@functools.cache
def removal_truth():
    removed = m.top_k_removals(SCORES, [3], n_random=2)
    masks = [np.ones(24, bool), *(~np.isin(np.arange(24), row) for rows in removed.values() for row in [rows])]
    return _truth(np.array(masks), ["all", *removed], "log_odds")


def _truth(masks, names, measurement):
    outputs = np.random.default_rng(2).normal(size=(len(masks), 2, 4)).astype(np.float32)
    seeds = np.arange(2 * len(masks)).reshape(-1, 2)
    return Retraining(masks=masks, outputs=outputs, measurement=measurement, seeds=seeds, names=names)


def cells(folder):
    scores, truths, count, seed = bad.score_tables(SCORES), bad.truths(TRUTH), bad.COUNT_NOT_NONE, bad.SEED
    other = {**scores, "other queries": SCORES[:2], "other rows": SCORES[:, :5]}
    both, predicted = but(other, "None"), but(bad.score_tables(np.zeros((9, 4))), "None")
    predicted["other queries"] = np.zeros((9, 3))
    level, limit, asked = {"confidence": LEVEL}, bad.LIMITED, but(bad.rows(4), "None")
    masks = {
        "whole numbers": TRUTH.masks.astype(int), "too narrow": TRUTH.masks[:, :3], "one axis": TRUTH.masks[0],
        "None": None, "texts": np.full((9, 24), "a"), "ragged": [[True], [True, False]],
        "no row left": np.zeros((2, 24), bool),
    }  # fmt: skip
    wrong = {
        "too short": [True], "numbers": np.arange(24) * 1.0, "texts": ["a"] * 24, "none": np.zeros(24, bool),
        "all": np.ones(24, bool), "None": None, "a table": np.zeros((24, 1), bool), "a number": 5, "beyond": [30],
        "complex": np.ones(24) + 0j, "NaN": np.full(24, np.nan),
    }  # fmt: skip
    thresholds = {"text": "half", "NaN": float("nan"), "a list": [0.5], "1j": 1j}
    ks = {**but(limit, "a list", "an array"), "with a negative": [3, -1], "none": [], "texts": ["3"], "1.5s": [1.5]}
    lds, scored = {"scores": SCORES, "truth": TRUTH, "n_bootstrap": 20}, {"scores": SCORES, "truth": TRUTH}
    two, classes = {"scores": SCORES, "other": SCORES[::-1]}, {"y_query": query_labels, "y_train": LABELS}
    found = []
    add = lambda name, good, **bads: found.extend(of(name, getattr(m, name), good, **bads))  # noqa: E731
    add("linear_datamodeling_score", lds, scores=other, truth=truths, n_bootstrap=count, random_state=seed, **level)
    add("linear_datamodeling_score", {**lds, "scores": None, "predicted": None}, predicted=predicted)
    add("linear_datamodeling_difference", {**lds, "others": SCORES}, scores=both, others=other, truth=truths, **level)
    add("linear_datamodeling_difference", {**lds, "others": SCORES}, n_bootstrap=count, random_state=seed)
    add("group_effect_score", scored, scores=other, truth=truths, queries=asked, **level)
    add("group_effect_score", {**scored, "scores": None}, predicted=predicted)
    add("leave_one_out_correlation", {"scores": SCORES, "truth": loo_truth()}, scores=other, truth=truths, **level)
    add("class_detection_score", {"scores": SCORES, **classes}, scores=other, y_query=_classes(query_labels), k=limit)
    add("class_detection_score", {"scores": SCORES, **classes}, y_train=_classes(LABELS), **level)
    add("first_order_change", {"scores": SCORES, "masks": TRUTH.masks}, scores=scores, masks=masks)
    add("first_order_change", {"scores": SCORES, "masks": TRUTH.masks}, renormalize=bad.SWITCH)
    share = {"share": but(LEVEL, "0")}
    add("generally_influential_share", {"scores": SCORES, "k": 3}, scores=scores, k=limit, **share, **level)
    good = {"scores": SCORES[0], "is_mislabelled": LABELS == 1}
    add("mislabel_detection_score", good, scores=but(scores, "one axis"), is_mislabelled=wrong, **level)
    good = {"scores": SCORES, "randomized": SCORES[::-1]}
    add("model_randomization_score", good, scores=other, randomized=but(other, "three axes"), **level)
    add("top_k_overlap", two, scores=other, other=both, k=limit, **level)
    add("top_k_removals", {"scores": SCORES, "k": 3}, scores=scores, k=ks, n_random=but(count, "0"), random_state=seed)
    add("subset_removal_score", {"truth": removal_truth()}, truth=truths, queries=asked, threshold=thresholds, **level)
    return found + selection_cells()


def selection_cells():
    queries = {"too few": X_query[:2], "5": 5, "a text": "rows", "a set": {1}}
    good = {"truth": TRUTH, "X_query": X_query}
    found = of("make_lds_scorer", make_lds_scorer, good, truth=bad.truths(TRUTH), X_query=queries, metric=CALLABLE)
    found += of("make_lds_scorer", make_lds_scorer, good, queries=but(bad.rows(4), "None"), random_state=bad.SEED)
    searches = {"None": None, "5": 5, "an estimator": fitted("TracIn"), "a class": TracIn}
    found += of("held_out_score", held_out_score, {}, search=searches)
    found += of("FullTrainingSet", FullTrainingSet, {}, n_splits=bad.COUNT_NOT_NONE)
    for name, function in (("set_config", set_config), ("config_context", _entered)):
        found += of(name, function, {}, memory_budget=bad.COUNT)
    return found


def _entered(**options):
    with config_context(**options):
        return "entered"
