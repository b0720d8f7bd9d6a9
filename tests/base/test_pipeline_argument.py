"""A fitted pipeline as the network: the same numbers as rows transformed by hand give the net itself."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder
from skorch import NeuralNetClassifier

from sklearn_source import (
    AttributionEnsemble,
    DropoutEnsemble,
    EmpiricalInfluence,
    InfluenceFunctions,
    LoRAEnsemble,
    RepresentationSimilarity,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
)
from sklearn_source.inspection import (
    InfluenceDisplay,
    LDSDisplay,
    attribution_report,
    audit_training_rows,
    behaviour_groups,
    predict_action,
    under_sampled_regions,
)
from sklearn_source.model_selection import make_lds_scorer
from sklearn_source.retraining import retrain_on_subsets
from tests._nets import make_net

RNG = np.random.RandomState(0)
SCALES = np.array([1.0, 10.0, 100.0, 1000.0])
NAMES = ["age", "mass", "water", "load"]
X = pd.DataFrame(RNG.normal(size=(40, 4)) * SCALES + 7, columns=NAMES)
Y = (X[["age"]] + X[["mass"]].to_numpy() / 10 + 0.1 * RNG.normal(size=(40, 1))).to_numpy(np.float32)
LABELS = (Y[:, 0] > 8).astype(np.int64)
QUERIES = pd.DataFrame(RNG.normal(size=(12, 4)) * SCALES + 7, columns=NAMES)
Y_QUERY = (QUERIES[["age"]] + QUERIES[["mass"]].to_numpy() / 10).to_numpy(np.float32)


def to_float32(X):
    return np.array(X, dtype=np.float32)  # frames show arrays that nobody may write into


def pipeline_of(net, *steps):
    return make_pipeline(*(steps or [StandardScaler()]), FunctionTransformer(to_float32), net)


def fitted(pipe, X=X, y=Y):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pipe.fit(X, y)


@pytest.fixture(scope="module")
def pipe():
    return fitted(pipeline_of(make_net()))


@pytest.fixture(scope="module")
def labelled():
    net = make_net(NeuralNetClassifier, criterion=torch.nn.CrossEntropyLoss, module__n_outputs=2, max_epochs=2)
    return fitted(pipeline_of(net), y=LABELS)


def by_hand(pipe, *tables):
    """The net, and rows as it reads them."""
    return pipe[-1], *(pipe[:-1].transform(table) for table in tables)


def pair(method, pipe, y=Y):
    """A method fitted on the pipeline, and on the net."""
    net, rows = by_hand(pipe, X)
    return clone(method).fit(pipe, X, y), clone(method).fit(net, rows, y)


ENSEMBLES = [
    AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=0),
    AttributionEnsemble(TracIn(), members="snapshots", n_members=2, random_state=0),
    DropoutEnsemble(TracIn(), n_masks=2, random_state=0),
    LoRAEnsemble(InfluenceFunctions(), n_members=2, n_steps=4, rank=1, random_state=0),
]
METHODS = [*ENSEMBLES, SourceAttribution(), SnapshotInfluence(), RepresentationSimilarity()]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_scores(pipe, method):
    est, hand = pair(method, pipe)
    queries = by_hand(pipe, QUERIES)[1]
    np.testing.assert_array_equal(est.transform(QUERIES), hand.transform(queries))
    np.testing.assert_array_equal(est.self_influence(), hand.self_influence())
    np.testing.assert_array_equal(est.top_influences(QUERIES, k=3).indices, hand.top_influences(queries, k=3).indices)
    np.testing.assert_array_equal(est.row_hashes_, hand.row_hashes_)
    again = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(again.transform(QUERIES), est.transform(QUERIES))
    if hasattr(est, "predict_relabeling"):
        changed = Y.copy()
        changed[:3] += 1
        np.testing.assert_array_equal(
            est.predict_relabeling(QUERIES, y_train=changed), hand.predict_relabeling(queries, y_train=changed)
        )


def test_ways_in(pipe):
    expected = TracIn().fit(pipe, X, Y).transform(QUERIES)
    nested = Pipeline([("first", pipe[:1]), ("none", None), ("kept", "passthrough"), ("rest", pipe[1:])])
    for fit in (
        lambda: TracIn().fit(X, Y, net=pipe),
        lambda: TracIn(FrozenEstimator(pipe)).fit(X, Y),
        lambda: TracIn().fit(FrozenEstimator(pipe), X, Y),
        lambda: TracIn().fit(nested, X, Y),
        lambda: TracIn().fit(Pipeline([("net", nested)]), X, Y),
        lambda: TracIn().fit(pipe, X.iloc[::-1], Y[::-1]),
        lambda: AttributionEnsemble(TracIn(), n_members=1).fit(pipe, X, Y),
    ):
        found = fit().transform(QUERIES)
        assert np.array_equal(found, expected) or np.allclose(found[:, ::-1], expected, rtol=1e-5, atol=1e-7)
    again = TracIn().fit(pipe, X, Y)
    np.testing.assert_array_equal(
        again.fit(pipe[-1], by_hand(pipe, X)[1], Y).transform(by_hand(pipe, QUERIES)[1]), expected
    )


def test_a_search_and_a_scorer(pipe):
    truth = retrain_on_subsets(pipe, X, Y, QUERIES, n_subsets=4, n_repeats=1, random_state=0)
    net, rows, queries = by_hand(pipe, X, QUERIES)
    hand = retrain_on_subsets(net, rows, Y, queries, n_subsets=4, n_repeats=1, random_state=0)
    np.testing.assert_array_equal(truth.outputs, hand.outputs)
    everything = [(np.arange(40), np.arange(40))]
    search = {"param_grid": {"damping": [0.01, 0.1]}, "cv": everything, "error_score": "raise"}
    found = GridSearchCV(InfluenceFunctions(FrozenEstimator(pipe)), scoring=make_lds_scorer(truth), **search)
    other = GridSearchCV(InfluenceFunctions(FrozenEstimator(net)), scoring=make_lds_scorer(hand), **search)
    scores = found.fit(X, Y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores, other.fit(rows, Y).cv_results_["mean_test_score"])
    # What is not fitted yet is fitted like the one that is.
    both = LDSDisplay.from_estimators({"one": InfluenceFunctions().fit(pipe, X, Y), "two": TracIn()}, truth)
    same = LDSDisplay.from_estimators({"one": InfluenceFunctions().fit(net, rows, Y), "two": TracIn()}, hand)
    assert [found.score for found in both.results.values()] == [found.score for found in same.results.values()]


@pytest.mark.parametrize("action", ["remove", "relabel", "reweight"])
@pytest.mark.parametrize("ensemble", [False, True])
def test_actions(pipe, action, ensemble):
    method = (
        AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=0) if ensemble else InfluenceFunctions()
    )
    est, hand = pair(method, pipe)
    queries, options = by_hand(pipe, QUERIES)[1], {"labels": Y[3:6] + 1} if action == "relabel" else {}
    effect = predict_action(est, action, [3, 4, 5], QUERIES, Y_QUERY, **options)
    expected = predict_action(hand, action, [3, 4, 5], queries, Y_QUERY, **options)
    pd.testing.assert_frame_equal(effect.table(), expected.table())
    found = effect.confirm(n_repeats=1, random_state=0)
    pd.testing.assert_frame_equal(found.table, expected.confirm(n_repeats=1, random_state=0).table)


def test_tables_and_groups(labelled):
    est, hand = pair(InfluenceFunctions(), labelled, LABELS)
    net, rows, queries = by_hand(labelled, X, QUERIES)
    y = 1 - labelled.predict(QUERIES)
    pd.testing.assert_frame_equal(
        audit_training_rows(est, X, LABELS, X_query=QUERIES, y_query=y),
        audit_training_rows(hand, rows, LABELS, X_query=queries, y_query=y),
    )
    pd.testing.assert_frame_equal(under_sampled_regions(est, QUERIES).table, under_sampled_regions(hand, queries).table)
    found, other = behaviour_groups(est, QUERIES, y, random_state=0), behaviour_groups(hand, queries, y, random_state=0)
    np.testing.assert_array_equal(found.errors, other.errors)
    for own, one in zip(found.groups, other.groups, strict=True):
        np.testing.assert_array_equal(own.rows, one.rows)


def test_a_report_shows_the_rows_as_they_were_given(labelled):
    est, hand = pair(InfluenceFunctions(), labelled, LABELS)
    y = 1 - labelled.predict(QUERIES)
    report = attribution_report(est, QUERIES, y)
    other = attribution_report(hand, by_hand(labelled, QUERIES)[1], y)
    pd.testing.assert_frame_equal(
        report.actions_.drop(columns="description"), other.actions_.drop(columns="description")
    )
    np.testing.assert_allclose(np.asarray(report.rows.shown.train([3]), dtype=float)[0], X.iloc[3])
    np.testing.assert_allclose(np.asarray(report.rows.query(2), dtype=float).ravel(), QUERIES.iloc[2])
    assert list(report.rows.shown.feature_names) == NAMES
    assert "water" in report.to_html()


def test_a_display_in_the_order_of_fit(labelled):
    est, hand = pair(InfluenceFunctions(), labelled, LABELS)
    display = InfluenceDisplay.from_estimator(est, QUERIES, X_train=X, y_train=LABELS, k=3)
    other = InfluenceDisplay.from_estimator(hand, by_hand(labelled, QUERIES)[1], X_train=X, y_train=LABELS, k=3)
    np.testing.assert_array_equal(display.supporting.indices, other.supporting.indices)
    with pytest.raises(ValueError, match="in the order of fit"):
        InfluenceDisplay.from_estimator(est, QUERIES, X_train=X.iloc[::-1], y_train=LABELS[::-1])


def test_columns_of_several_kinds():
    table = X.assign(kind=np.array(["a", "b"])[LABELS])
    columns = ColumnTransformer([("numbers", StandardScaler(), NAMES), ("words", OneHotEncoder(), ["kind"])])
    pipe = fitted(pipeline_of(make_net(), columns), table, Y)
    est = SourceAttribution().fit(pipe, table, Y)
    hand = SourceAttribution().fit(pipe[-1], pipe[:-1].transform(table), Y)
    queries = QUERIES.assign(kind="a")
    np.testing.assert_array_equal(est.transform(queries), hand.transform(pipe[:-1].transform(queries)))
    with pytest.raises(ValueError, match="columns are missing: {'kind'}"):
        est.transform(QUERIES)


def test_float64_rows_of_a_scaler():
    """A module that casts for itself lets a pipeline do without a step that does."""

    class Casting(type(make_net().module(hidden=(3,), n_outputs=1))):
        def forward(self, X):
            return super().forward(X.float())

    pipe = fitted(make_pipeline(StandardScaler(), make_net(module=Casting, module__hidden=(3,))))
    rows = pipe[:-1].transform(X)
    assert rows.dtype == np.float64
    est = SourceAttribution().fit(pipe, X, Y)
    hand = SourceAttribution().fit(pipe[-1], rows, Y)
    np.testing.assert_array_equal(est.transform(QUERIES), hand.transform(pipe[:-1].transform(QUERIES)))


def test_steps_that_write_into_the_rows_leave_the_users_alone(pipe):
    rows = X.to_numpy()
    before = rows.copy()
    own = Pipeline([("scale", StandardScaler(copy=False).fit(X.to_numpy())), *pipe.steps[1:]])
    est = TracIn().fit(own, rows, Y)
    scores = est.transform(rows)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(scores, est.transform(rows))


def test_nothing_is_fitted_again(pipe, monkeypatch):
    mean = pipe[0].mean_.copy()
    monkeypatch.setattr(StandardScaler, "fit", None)
    monkeypatch.setattr(StandardScaler, "partial_fit", None)
    est = AttributionEnsemble(InfluenceFunctions(), n_members=2, random_state=0).fit(pipe, X, Y)
    predict_action(est, "remove", [1], QUERIES, Y_QUERY).confirm(n_repeats=1, random_state=0)
    np.testing.assert_array_equal(pipe[0].mean_, mean)


class Resampling(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.asarray(X)[:-1]


class Sampler(BaseEstimator):
    def fit_resample(self, X, y):
        return X, y


def test_what_is_refused(pipe):
    *front, (_, net) = pipe.steps
    with pytest.raises(NotFittedError, match=r"step 'standardscaler' \(StandardScaler\) is not fitted"):
        TracIn().fit(pipeline_of(make_net()), X, Y)
    with pytest.raises(NotFittedError, match="not trained"):
        TracIn().fit(Pipeline([*front, ("net", make_net())]), X, Y)
    with pytest.raises(TypeError, match="whose last step 'model' is a LogisticRegression"):
        TracIn().fit(Pipeline([*front, ("model", LogisticRegression())]), X, Y)
    with pytest.raises(TypeError, match="last step 'none' is 'passthrough'"):
        TracIn().fit(Pipeline([*front, ("none", "passthrough")]), X, Y)
    with pytest.raises(TypeError, match=r"'smote' \(Sampler\) draws others \(fit_resample\)"):
        TracIn().fit(Pipeline([("smote", Sampler()), *pipe.steps]), X, Y)
    with pytest.raises(TypeError, match="which has no transform"):
        TracIn().fit(Pipeline([("model", LogisticRegression()), *pipe.steps]), X, Y)
    with pytest.raises(ValueError, match=r"'fewer' \(Resampling\) made 39 rows of 40"):
        TracIn().fit(Pipeline([("fewer", Resampling().fit(X)), *pipe.steps]), X, Y)
    targets = TransformedTargetRegressor(pipe, transformer=StandardScaler())
    with pytest.raises(TypeError, match="TransformedTargetRegressor.*pass ttr.regressor_ as the network"):
        TracIn().fit(targets, X, Y)
    with pytest.raises(TypeError, match="TransformedTargetRegressor.*pass ttr.regressor_ as the network"):
        TracIn().fit(Pipeline([("scale", pipe[0]), ("net", targets)]), X, Y)
    search = GridSearchCV(pipe, {"mlp": [None]})
    search.best_estimator_ = pipe
    with pytest.raises(TypeError, match="got a GridSearchCV: pass its best_estimator_"):
        TracIn().fit(search, X, Y)
    with pytest.raises(ValueError, match=r"make_pipeline\(StandardScaler\(\), SourceAttribution\(net\)\)"):
        TracIn(pipe).fit(X, Y)
    with pytest.raises(TypeError, match=r"nets= as nets, got a pipeline.*nets=\[other\[-1\]\]"):
        AttributionEnsemble(TracIn(), nets=[pipe, pipe]).fit(X, Y)
    rows = torch.utils.data.TensorDataset(torch.zeros(40, 4), torch.zeros(40, 1))
    for given in (rows, torch.utils.data.DataLoader(rows, batch_size=8)):
        with pytest.raises(TypeError, match=f"take, got a {type(given).__name__}: pass them as arrays"):
            TracIn().fit(pipe, given)
    with pytest.raises(ValueError, match="1 features"):
        TracIn().fit(pipe, X, Y).transform(QUERIES[["age"]].to_numpy())
    assert net.initialized_


def test_the_transformed_target_by_hand_as_advised():
    targets = TransformedTargetRegressor(
        pipeline_of(make_net(module__n_outputs=2)), transformer=StandardScaler(), check_inverse=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ttr = targets.fit(X, np.tile(Y, 2))  # of two columns: scikit-learn flattens a single one
    y = ttr.transformer_.transform(np.tile(Y, 2)).astype(np.float32)
    assert InfluenceFunctions(output=0).fit(ttr.regressor_, X, y).transform(QUERIES).shape == (12, 40)


def test_steps_that_hand_the_net_other_rows_in_training():
    table = X.assign(kind=RNG.choice(list("abc"), 40))
    columns = ColumnTransformer([("numbers", "passthrough", NAMES), ("words", TargetEncoder(cv=2), ["kind"])])
    pipe = fitted(pipeline_of(make_net(), columns, StandardScaler()), table, Y)
    with pytest.raises(ValueError, match="(?s)not the rows.*TargetEncoder.*fit the steps"):
        TracIn().fit(pipe, table, Y)
    scaled = fitted(pipeline_of(make_net()), X, Y)
    with pytest.raises(ValueError, match="(?s)not the rows.*in the same precision"):
        TracIn().fit(scaled, X.astype(np.float32), Y)
    # As advised.
    steps, net = pipe[:-1], fitted(make_net(), pipe[:-1].transform(table), Y)
    TracIn().fit(Pipeline([*steps.steps, ("net", net)]), table, Y)
    bare = Pipeline([*steps.steps, ("net", fitted(make_net(recorded=False), pipe[:-1].transform(table), Y))])
    with pytest.warns(UserWarning, match="ColumnTransformer.*other rows in pipeline.fit than its transform"):
        InfluenceFunctions().fit(bare, table, Y)


def test_a_later_fit_of_the_pipeline_is_none_of_a_fitted_method():
    pipe = fitted(pipeline_of(make_net()))
    method = InfluenceFunctions().fit(pipe, X, Y)
    scores = method.transform(QUERIES)
    pipe[0].fit(7 * X)
    np.testing.assert_array_equal(method.transform(QUERIES), scores)
    fitted(pipe, X[10:], Y[10:])
    np.testing.assert_array_equal(method.transform(QUERIES), scores)


def test_steps_that_cannot_be_copied_are_refused(pipe):
    class Held(FunctionTransformer):
        def __deepcopy__(self, memo):
            raise RuntimeError("an open file")

    steps = Pipeline([("held", Held().fit(X)), *pipe.steps])
    with pytest.raises(TypeError, match="steps that can be copied.*'held'.*an open file"):
        TracIn().fit(steps, X, Y)


def test_measured_effects_know_rows_of_a_pipeline_in_any_order(pipe):
    truth = retrain_on_subsets(pipe, X, Y, QUERIES, n_subsets=3, n_repeats=1, random_state=0)
    order = np.random.default_rng(0).permutation(len(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*in all subsets or in none")
        found = EmpiricalInfluence(truth).fit(pipe, X.iloc[order], Y[order]).transform(QUERIES)
        expected = EmpiricalInfluence(truth).fit(pipe, X, Y).transform(QUERIES)
    np.testing.assert_array_equal(found, expected[:, order])
