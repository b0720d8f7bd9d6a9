"""Bad arguments of the functions for people: audits, groups, regions, actions, reports."""

from __future__ import annotations

import numpy as np

from sklearn_source.inspection import (
    attribution_report,
    audit_training_rows,
    behaviour_groups,
    group_influence,
    predict_action,
    segment_scores,
    under_sampled_regions,
)
from tests.robustness import _bad_values as bad
from tests.robustness._bad_cells import but, of
from tests.robustness._bad_methods import LABELS, X_query, fitted, query_labels, y_query
from tests.robustness._bad_methods import X as X_train
from tests.robustness._bad_metrics import CALLABLE

NAMES = {"5": 5, "too few": ["a"], "a text": "abc", "a set": {"a", "b", "c"}}
FRAME, LEVEL, SEED = but(bad.CHOICE, "'auto'"), bad.FRACTION, bad.SEED


def cells(folder):
    return group_cells() + audit_cells() + action_cells() + region_cells() + report_cells()


def group_cells():
    queries, one = bad.tables(X_query), {"estimator": fitted("TracIn"), "X_query": X_query, "groups": {"a": [0, 1]}}
    some = {"estimator": bad.FITTED, "X_query": queries}
    found = of("group_influence", group_influence, one, **some, groups=bad.groups(24), uncertainty=bad.CHOICE)
    found += of("group_influence", group_influence, one, confidence=LEVEL, refit=bad.SWITCH)
    good = {"est": fitted("TracIn"), "X_query": X_query, "y_query": y_query, "n_groups": 2, "X_train": X_train}
    bads = {"est": bad.FITTED, "X_query": queries, "y_query": bad.numbers(y_query), "n_groups": bad.COUNT_NOT_NONE}
    names = {"feature_names": NAMES, "class_names": but(NAMES, "too few"), "random_state": SEED}
    found += of("behaviour_groups", behaviour_groups, good, **bads, X_train=bad.given(bad.tables(X_train)), **names)
    source = {"estimator": fitted("SourceAttribution"), "X": X_query}
    others = {**bad.FITTED, "of another method": fitted("TracIn")}
    return found + of("segment_scores", segment_scores, source, estimator=others, X=queries)


def audit_cells():
    good = {"estimator": fitted("TracIn", "labels"), "X": X_train, "y": LABELS}
    vectors = {
        "one axis": np.zeros(24), "a row short": np.zeros((23, 2)), "NaN": np.full((24, 2), np.nan), "5": 5,
        "texts": np.full((24, 2), "a"), "a text": "rows", "ragged": [[1.0], [1.0, 2.0]] * 12,
    }  # fmt: skip
    neighbours = but(bad.LIMITED, "0", "too many", "10**12")  # none, or as many as there are
    settings = {"n_neighbors": neighbours, "k": bad.LIMITED, "high": LEVEL, "target_names": NAMES, "as_frame": FRAME}
    bads = {"estimator": bad.FITTED, "X": bad.tables(X_train), "y": bad.labels(LABELS), "representation": vectors}
    queries = bad.given(bad.tables(X_query))
    return of("audit_training_rows", audit_training_rows, good, **bads, X_query=queries, **settings)


def action_cells():
    queries, actions = bad.tables(X_query), {**bad.CHOICE, "None": None}
    act = {"estimator": fitted("TracIn"), "action": "remove", "rows": [0, 1], "X_val": X_query, "y_val": y_query}
    bads = {"estimator": bad.FITTED, "action": actions, "rows": bad.rows(24), "X_val": queries}
    bads["step"] = actions
    found = of("predict_action", predict_action, act, **bads, y_val=bad.numbers(y_query))
    relabel = {**act, "estimator": fitted("TracIn", "labels"), "y_val": query_labels, "action": "relabel"}
    labels = {
        "too few": [0], "beyond": [0, 9], "texts": ["a", "b"], "nonsense": "nonsense", "NaN": [0, np.nan], "None": None,
        "a number": 5, "fractions": [0.5, 1.0], "two columns": [[0, 1], [0, 1]], "objects": [None, None],
    }  # fmt: skip
    good = {**relabel, "labels": [0, 0]}
    found += of("predict_action(relabel)", predict_action, good, labels=labels, y_val=bad.labels(query_labels))
    weights = {**but(bad.POSITIVE, "0"), "1": 1.0, "None": None}
    return found + of("predict_action(reweight)", predict_action, {**act, "action": "reweight"}, weight=weights)


def region_cells():
    good = {"estimator": fitted("TracIn"), "X_query": X_query, "y_query": y_query, "k": 3, "n_random": 3}
    bads = {"estimator": bad.FITTED, "X_query": bad.tables(X_query), "y_query": bad.numbers(y_query), "k": bad.LIMITED}
    settings = {"share": but(LEVEL, "None", "1"), "n_random": bad.COUNT_NOT_NONE, "weight": bad.POSITIVE}
    more = {"feature_names": NAMES, "random_state": SEED, "as_frame": FRAME}
    return of("under_sampled_regions", under_sampled_regions, good, **bads, **settings, **more)


def report_cells():
    good = {
        "estimator": fitted("TracIn", "labels"), "X_query": X_query, "y_query": query_labels, "queries": [0, 1],
        "X_train": X_train, "y_train": LABELS, "n_shown": 2, "k": 2,
    }  # fmt: skip
    answers = {
        "too short": [0], "texts": ["a"] * 4, "NaN": [np.nan] * 4, "a number": 5, "a table": np.zeros((4, 2)),
        "ragged": [[0], [0, 1], [0], [0]],
    }  # fmt: skip
    functions = {"inverse_transform": CALLABLE, "inverse_transform_y": CALLABLE}
    names = {"feature_names": but(NAMES, "too few"), "target_names": NAMES, "unit": {"5": 5, "a list": ["MPa"]}}
    rows = {"X_query": bad.tables(X_query), "y_query": bad.labels(query_labels), "queries": bad.rows(4)}
    shown = {"X_train": bad.not_rows(X_train), "y_train": bad.given(bad.labels(LABELS)), "kind": bad.CHOICE}
    numbers = {"n_shown": bad.COUNT_NOT_NONE, "k": bad.LIMITED, "confidence": LEVEL}
    words = {"scale": {**bad.POSITIVE, "None": None}, "title": {"5": 5, "None": None}, "y_pred": answers}
    bads = {"estimator": bad.FITTED, **rows, **shown, **functions, **names, **numbers, **words}
    return of("attribution_report", attribution_report, good, **bads)
