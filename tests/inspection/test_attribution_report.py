"""A report says what the functions it asks say, of every method and kind of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch
from skorch import NeuralNetClassifier
from torch.utils.data import DataLoader

from sklearn_source import (
    AttributionEnsemble,
    EmpiricalInfluence,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    config_context,
)
from sklearn_source.inspection import (
    attribution_report,
    audit_training_rows,
    behaviour_groups,
    predict_action,
    under_sampled_regions,
)
from sklearn_source.inspection._predict_action import predict_actions
from sklearn_source.inspection._report._actions import best_first, candidate_actions
from sklearn_source.inspection._report._profile import contrasts, profile_scores
from sklearn_source.inspection._report._question import pose_question
from sklearn_source.inspection._score_chunks import keep_scores, score_chunks
from sklearn_source.retraining import retrain_on_subsets
from tests._methods import METHODS
from tests.inspection._known_scores import Known, known
from tests.inspection._reports import OPTIONS, Logits, Page, classes, numbers

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def problem():
    return classes()


@pytest.fixture(scope="module")
def fitted(problem):
    net, X, y, _, _ = problem
    return InfluenceFunctions(damping=0.1, random_state=0).fit(net, X, y)


@pytest.fixture(scope="module")
def report(problem, fitted):
    return attribution_report(fitted, *problem[3:], target_names=NAMES)


def test_the_errors_are_looked_at(problem, fitted, report):
    net, _, _, X_query, y_query = problem
    wrong = np.flatnonzero(net.predict(X_query) != y_query)
    np.testing.assert_array_equal(report.queries_, wrong)
    assert 0 < len(wrong) < 30
    assert "issues" in repr(report)
    scores = fitted.transform(X_query[wrong], y_query[wrong])
    harm = np.empty(48)
    harm[report.issues_["row"]] = report.issues_["harm"]
    np.testing.assert_allclose(harm[report.issues_["row"]], -scores.sum(0)[report.issues_["row"]], rtol=1e-4, atol=1e-6)


def test_issues_are_those_of_the_audit(problem, fitted, report):
    _, X, y, X_query, y_query = problem
    audit = audit_training_rows(fitted, X, y, X_query=X_query, y_query=y_query, target_names=NAMES, as_frame=False)
    place = {row: j for j, row in enumerate(audit["row"])}
    issues = report.issues_
    for j, row in enumerate(issues["row"]):
        said = audit[place[row]]
        assert issues["label"][j] == NAMES[y[row]]
        assert issues["suggested_label"][j] == NAMES[said["suggested_label"]]
        assert issues["is_label_issue"][j] == (said["suggestion"] == "relabel")
        assert issues["reason"][j].startswith(said["reason"])
        if said["suggestion"] != "keep":
            assert issues["suggestion"][j] == said["suggestion"]
    assert set(audit["row"][audit["suggestion"] != "keep"]) <= set(issues["row"])
    assert any("red" in reason or "green" in reason or "blue" in reason for reason in issues["reason"])


def test_planted_labels_are_found(digits):
    """A tenth of the labels of digits made wrong: most of what is called a label issue is one."""
    est, X, y, X_query, y_query = digits
    planted = np.arange(0, 300, 10)
    wrong = y.copy()
    wrong[planted] = (wrong[planted] + 3) % 10
    net = clone(est.net_).set_params(max_epochs=12).fit(X, wrong)
    report = attribution_report(GradientSimilarity().fit(net, X, wrong), X_query, y_query)
    found = report.issues_["row"][report.issues_["is_label_issue"]]
    assert len(found) >= 20
    assert np.isin(found, planted).mean() >= 0.7


def test_actions_are_those_of_predict_action(problem, fitted, report):
    _, _, _, X_query, y_query = problem
    actions = report.actions_
    assert len(actions) >= 3
    for i in range(len(actions)):
        options = {} if actions["labels"][i] is None else {"labels": actions["labels"][i]}
        effect = predict_action(fitted, actions["action"][i], actions["rows"][i], X_query, y_query, **options)
        table = effect.table(as_frame=False)
        change = dict(zip(table["quantity"], table["change"]))
        for name in ("errors", "loss", "measurement"):
            assert actions[f"{name}_change"][i] == pytest.approx(change[name], rel=1e-4, abs=1e-6)
            assert actions[f"{name}_low"][i] <= actions[f"{name}_change"][i] <= actions[f"{name}_high"][i]
        assert actions["accuracy_change"][i] == pytest.approx(-change["errors"] / 30)
        error = dict(zip(table["quantity"], table["std_error"]))["loss"]
        assert actions["loss_high"][i] - actions["loss_change"][i] == pytest.approx(2.045 * error, rel=1e-2)


def test_actions_together_are_what_they_are_alone(problem, fitted):
    _, _, _, X_query, y_query = problem
    asked = [
        Bunch(action="remove", rows=np.arange(5), labels=None, weight=None),
        Bunch(action="relabel", rows=np.arange(3), labels=np.array([0, 1, 2]), weight=None),
        Bunch(action="reweight", rows=np.arange(8, 12), labels=None, weight=3.0),
    ]
    for one, effect in zip(asked, predict_actions(fitted, asked, X_query, y_query)):
        options = {} if one.labels is None else {"labels": one.labels}
        alone = predict_action(fitted, one.action, one.rows, X_query, y_query, weight=3.0, **options)
        np.testing.assert_allclose(effect.change, alone.change, rtol=1e-5, atol=1e-8)
        assert effect.cautions == alone.cautions


def test_a_weight_of_zero_is_a_removal(problem, fitted):
    effects = [
        predict_action(fitted, action, [1, 4], *problem[3:], weight=0.0).change for action in ("remove", "reweight")
    ]
    np.testing.assert_allclose(*effects)


def test_regions_are_those_of_all_held_out_rows(problem, fitted, report):
    found = under_sampled_regions(fitted, *problem[3:], k=10, as_frame=False)
    several = [region for region in found.regions if len(region.queries) > 1]
    assert len(report.regions_) == len(several)
    for own, region in zip(report.regions_, several):
        np.testing.assert_array_equal(own.queries, region.queries)
        np.testing.assert_array_equal(own.rows, region.rows)
        assert own.median_rows <= own.usual_rows


def test_groups_are_those_of_behaviour_groups(problem, fitted, report):
    alone = behaviour_groups(fitted, *problem[3:], class_names=NAMES, random_state=0)
    assert len(report.groups_) == len(alone) > 0
    for own, group in zip(report.groups_, alone):
        np.testing.assert_array_equal(own.rows, group.rows)
        assert own.description == group.description
    removed = [rows.tolist() for a, rows in zip(report.actions_["action"], report.actions_["rows"]) if a == "remove"]
    assert sorted(alone.groups[0].rows.tolist()) in removed


def test_confirmed_by_training(problem, fitted):
    report = attribution_report(fitted, *problem[3:], target_names=NAMES)
    found = report.confirm(actions=[1, 0], n_repeats=2, random_state=3)
    assert found["action"].tolist() == [1, 1, 1, 0, 0, 0]
    alone = report.found.effects[0].confirm(n_repeats=2, random_state=3, as_frame=False).table
    np.testing.assert_allclose(found["retrained"][3:], alone["retrained"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["predicted"][3:], alone["predicted"])
    assert "retrained" in Page(report.to_html()).text
    with pytest.raises(ValueError, match=r"expected actions whose effect is predicted, of \[0, 1"):
        report.confirm(actions=[99])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.filterwarnings("ignore")
def test_every_method(problem, method):
    net, X, y, X_query, y_query = problem
    options = {name: 2 for name in ("n_members", "n_snapshots") if name in method().get_params()}
    try:
        est = method(**options).fit(net, X, y)
    except (ValueError, TypeError) as error:
        pytest.skip(f"not of such a network: {error}")
    report = attribution_report(est, X_query, y_query, n_shown=2, k=2)
    page = Page(report.to_html())
    assert "Answers explained" in page.headings
    has_effects = "loss_change" in report.actions_
    assert has_effects == est.has_unit
    if not est.has_unit:
        assert "have no unit" in page.text


def test_an_ensemble_says_how_sure_it_is(problem):
    net, X, y, X_query, y_query = problem
    est = AttributionEnsemble(InfluenceFunctions(damping=0.1), n_members=3, random_state=0).fit(net, X, y)
    report = attribution_report(est, X_query, y_query, n_shown=2)
    text = Page(report.to_html()).text
    assert "the scores of 3 networks differ" in text
    assert "may be chance" in text
    errors = est.score_error(X_query[report.found.shown], y_query[report.found.shown])
    np.testing.assert_allclose(report.found.errors, errors, rtol=1e-5)
    assert f"± {errors[0][report.found.profile.queries[0].supporting[0][0]]:.2g}" in text
    assert not any("one network" in caution for cautions in report.actions_["cautions"] for caution in cautions)


def test_one_network_says_that_it_does_not_know(report):
    text = Page(report.to_html()).text
    assert "no standard errors" in text
    assert "AttributionEnsemble(InfluenceFunctions(…), n_members=5)" in text
    assert "may be chance" not in text


def test_effects_measured_by_retraining(problem):
    net, X, y, X_query, y_query = problem
    truth = retrain_on_subsets(net, X, y, X_query, y_query, n_subsets=6, n_repeats=1, random_state=0)
    est = EmpiricalInfluence(truth).fit(X, y)
    report = attribution_report(est, X_query, y_query, y_pred=net.predict(X_query), X_train=X, y_train=y)
    assert report.queries_.tolist() == np.flatnonzero(net.predict(X_query) != y_query).tolist()
    assert "retrainings differ" in Page(report.to_html()).text


def test_other_peoples_methods():
    table = np.random.default_rng(0).normal(size=(9, 30))
    est, X = known(table)
    report = attribution_report(est, X)
    assert report.queries_.tolist() == list(range(9))
    np.testing.assert_allclose(report.issues_["harm"], -table.sum(0)[report.issues_["row"]])
    assert report.issues_["row"][0] == (-table.sum(0)).argmax()
    assert "keeps no training rows" in Page(report.to_html()).text
    with_rows = attribution_report(est, X, X_train=np.zeros((30, 1)), feature_names=["a"])
    assert with_rows.rows.kind == "table"


class OnlyX(Known):
    def transform(self, X):
        return super().transform(X)


def test_a_transform_without_targets():
    est = OnlyX(np.eye(5)[:, ::-1]).fit()
    report = attribution_report(est, np.arange(5)[:, None], np.arange(5), y_pred=np.zeros(5, dtype=int))
    assert report.queries_.tolist() == [1, 2, 3, 4]


def test_a_pipeline(problem):
    net, X, y, X_query, y_query = problem
    scaler = StandardScaler().fit(X)
    inner = clone(net).fit(scaler.transform(X), y)
    pipe = make_pipeline(scaler, InfluenceFunctions(FrozenEstimator(inner), damping=0.1)).fit(X, y)
    report = attribution_report(pipe, X_query, y_query, X_train=X, y_train=y)
    alone = attribution_report(pipe[-1], scaler.transform(X_query), y_query)
    np.testing.assert_allclose(report.actions_["loss_change"], alone.actions_["loss_change"], rtol=1e-4)
    np.testing.assert_allclose(report.rows.query(3), X_query[3])
    np.testing.assert_allclose(report.rows.shown.train([3])[0], X[3])


def test_regression():
    net, X, y, X_query, y_query = numbers()
    est = InfluenceFunctions(damping=0.1).fit(net, X, y)
    report = attribution_report(est, X_query, y_query, inverse_transform_y=lambda y: 10 * y + 5, scale=10, unit="MPa")
    loss = (net.predict(X_query) - y_query)[:, 0] ** 2
    assert report.queries_.tolist() == sorted(np.argsort(-loss)[:2])
    assert "errors_change" not in report.actions_
    scores = est.transform(X_query[report.queries_])
    push = np.sign((net.predict(X_query) - y_query)[report.queries_, 0]) @ scores
    np.testing.assert_allclose(report.issues_["harm"], push[report.issues_["row"]], rtol=1e-4, atol=1e-6)
    text = Page(report.to_html()).text
    worst = int(loss.argmax())
    assert f"{10 * y_query[worst, 0] + 5:.4g}".replace("-", "−") in text
    assert "(MPa)" in text


@pytest.mark.parametrize("method", [GradientSimilarity, RepresentationSimilarity])
def test_without_targets(problem, method):
    net, X, y, X_query, _ = problem
    report = attribution_report(method().fit(net, X, y), X_query, n_shown=2)
    assert len(report.queries_) == 30
    assert "predicted" not in report.found.contrasts


def test_a_network_without_errors(problem, fitted):
    net, _, _, X_query, _ = problem
    report = attribution_report(fitted, X_query, net.predict(X_query))
    assert len(report.queries_) == 3
    assert "No held-out row is wrong" in Page(report.to_html()).text


def test_the_profile_against_whole_scores():
    rng = np.random.default_rng(2)
    est, X = known(rng.normal(size=(7, 20)))
    question = pose_question(est, X, None, None, [1, 4, 5])
    found = profile_scores(question, *question.rows(question.asked), np.array([2, 0]), 3)
    scores = est.table[[1, 4, 5]]
    np.testing.assert_allclose(found.harm, -scores.sum(0))
    lowest = np.argsort(scores, axis=1)[:, :3]
    np.testing.assert_array_equal(found.n_harmed, np.bincount(lowest.ravel(), minlength=20))
    for own, row in zip(found.queries, scores[[2, 0]]):
        np.testing.assert_array_equal(own.supporting[0], np.argsort(-row)[:3])
        np.testing.assert_allclose(own.opposing[1], np.sort(row)[:3])
        assert own.counts.sum() == 20
        assert own.edges[-1] == np.abs(row).max()


def test_why_this_answer_and_not_that(problem, fitted):
    _, _, _, X_query, y_query = problem
    question = pose_question(fitted, X_query, y_query, None, "errors")
    i = int(question.asked[0])
    found = contrasts(question, [i], 4)[i]
    predicted = question.answers.predicted[[i]]
    difference = fitted.transform(X_query[[i]], predicted)[0] - fitted.transform(X_query[[i]], y_query[[i]])[0]
    np.testing.assert_array_equal(found.rows, np.argsort(-difference, kind="stable")[:4])
    np.testing.assert_allclose(found.predicted - found.true, difference[found.rows], rtol=1e-4, atol=1e-6)


class Counted(Known):
    def transform(self, X, y=None):
        self.n_calls_ = getattr(self, "n_calls_", 0) + 1
        return super().transform(X, y)


def test_scores_that_fit_are_asked_for_once():
    table = np.random.default_rng(0).normal(size=(6, 50))
    est, X = Counted(table).fit(), np.arange(6)[:, None]
    with keep_scores():
        for _ in range(3):
            np.testing.assert_array_equal(np.concatenate([s for _, s in score_chunks(est, X)]), table)
        assert est.n_calls_ == 1
        np.testing.assert_array_equal(next(score_chunks(est, X[:2]))[1], table[:2])  # other queries are others
    list(score_chunks(est, X))
    assert est.n_calls_ == 3
    budget = 2 * 2**30 * (3 * 50 * 8) // (128 * 2**20) + 16  # three queries at a time
    with config_context(memory_budget=budget), keep_scores():
        assert [len(s) for _, s in score_chunks(est, X)] == [3, 3]
        list(score_chunks(est, X))
    assert est.n_calls_ == 5  # 6 * 50 * 4 bytes are kept


def of_kind(kind, X, y):
    """Rows and targets as a network of such rows takes them, and that network."""
    if kind == "dict":
        return OfDict, {"a": X[:, :2], "b": X[:, 2:]}, y
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    return (Logits, X, y) if kind == "tensor" else (Logits, torch.utils.data.TensorDataset(X, y), None)


@pytest.mark.parametrize("kind", ["dict", "tensor", "dataset"])
def test_queries_of_every_kind_come_in_parts(problem, kind):
    module, X, y = of_kind(kind, *problem[1:3])
    net = NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, **OPTIONS).fit(X, y)
    est = InfluenceFunctions(damping=0.1).fit(net, X, y)
    _, *queries = of_kind(kind, *problem[3:])
    with config_context(memory_budget=2 * 2**30 * (4 * 48 * 8) // (128 * 2**20) + 16):
        parts = [scores for _, scores in score_chunks(est, *queries)]
    assert [len(scores) for scores in parts] == [4] * 7 + [2]
    np.testing.assert_allclose(np.concatenate(parts), est.transform(*queries), rtol=1e-4, atol=1e-6)


class OfDict(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = Logits()

    def forward(self, a, b):
        return self.layers(torch.cat([a, b], dim=1))


def test_no_two_actions_on_the_same_rows():
    issues = {
        "row": np.array([4, 2]), "suggestion": np.array(["drop", "drop"], dtype=object),
        "is_harmful_issue": np.array([True, True]),
    }  # fmt: skip
    groups = [Bunch(rows=np.array([2, 4]), description="both"), Bunch(rows=np.array([1]), description="one")]
    found = candidate_actions(issues, groups, [Bunch(rows=np.array([7, 3]))], 10)
    assert [(a.action, a.rows.tolist()) for a in found] == [("remove", [2, 4]), ("remove", [1]), ("reweight", [3, 7])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": "wrong"}, "expected queries to be 'errors', 'all'"),
        ({"queries": []}, "at least one query"),
        ({"queries": [99]}, "expected queries as indices"),
        ({"y_pred": [1, 2]}, "expected y_pred to have 30 rows"),
        ({"n_shown": 0}, "expected n_shown"),
        ({"k": 0}, "expected k"),
        ({"confidence": 2}, "expected confidence"),
        ({"scale": -1}, "expected scale"),
        ({"X_train": np.zeros((3, 4))}, "expected X_train to have 48 rows"),
        ({"feature_names": ["a"]}, "expected 4 feature_names, one for each column, got 1"),
        ({"y_train": np.zeros(3), "X_train": np.zeros((48, 4))}, "expected y_train to have 48 rows"),
        ({"kind": "image"}, None),
        ({"kind": "film"}, "expected kind"),
    ],
)
def test_errors(problem, fitted, options, message):
    if message is None:  # four numbers are an image of two by two
        assert attribution_report(fitted, *problem[3:], **options).rows.kind == "image"
        return
    with pytest.raises(ValueError, match=message):
        attribution_report(fitted, *problem[3:], **options)


def test_what_is_no_method_is_refused(problem):
    with pytest.raises(TypeError, match="expected a fitted attribution method"):
        attribution_report(StandardScaler().fit(problem[1]), problem[3])


@pytest.mark.parametrize("ask", [attribution_report, behaviour_groups, under_sampled_regions])
def test_queries_of_another_width(problem, fitted, ask):
    with pytest.raises(ValueError, match="X has 3 features, but InfluenceFunctions is expecting 4 features"):
        ask(fitted, problem[3][:, :3], problem[4])


@pytest.mark.parametrize("ask", [behaviour_groups, under_sampled_regions])
def test_feature_names_of_another_number(problem, fitted, ask):
    with pytest.raises(ValueError, match="expected feature_names for each of 4 columns, got 1"):
        ask(fitted, *problem[3:], feature_names=["a"])


def test_a_rising_loss_is_not_first():
    """Fewer errors at a loss that rises by more than its error come after less that costs nothing."""

    class Effect:
        def __init__(self, loss, error):
            self.line = ("loss", 0.0, loss, loss, error)

        def table(self, as_frame):
            return np.rec.fromrecords([self.line], names=["quantity", "before", "after", "change", "std_error"])

    errors = np.array([-9.0, -2.0, 3.0, -3.0, np.nan, 0.0, 2.0])
    loss = np.array([0.2, -0.1, 0.1, 0.01, np.nan, -0.05, -0.2])
    spread = [0.1, 0.1, 0.1, 0.02, None, 0.1, 0.1]
    effects = [None if error is None else Effect(change, error) for change, error in zip(loss, spread)]
    columns = {"action": np.full(7, "remove"), "errors_change": errors, "loss_change": loss}
    assert best_first(columns, effects).tolist() == [3, 1, 5, 0, 6, 2, 4]


def test_groups_with_one_true_label_are_relabelled():
    issues = {"row": np.zeros(0, int), "suggestion": np.zeros(0, object), "is_harmful_issue": np.zeros(0, bool)}
    group = Bunch(rows=np.array([5, 2, 9]), description="three")
    other = Bunch(rows=np.array([5, 2]), label=7, own="1", name="7")
    found = candidate_actions(issues, [group], [], 10, {0: other})
    assert [(a.action, a.rows.tolist()) for a in found] == [("relabel", [2, 5]), ("remove", [2, 5, 9])]
    assert found[0].labels.tolist() == [7, 7]
    assert "labelled 1 the label 7" in found[0].words


def test_cautions_of_an_action_stand_beside_it(problem, fitted):
    report = attribution_report(fitted, *problem[3:], target_names=NAMES)
    caution = "9 % of something"
    report.found.actions["cautions"][1] = [*report.found.actions["cautions"][1], caution]
    page = report.to_html()
    assert page.count(caution) == 1
    table = page[page.index("<table") : page.index("</table>")]
    assert caution in table


def test_rows_of_a_stream_are_passed_as_arrays(problem):
    net, X, y, X_query, y_query = problem
    stream = DataLoader([(torch.from_numpy(X), torch.from_numpy(y))], batch_size=None)
    streamed = InfluenceFunctions().fit(net, stream, None)
    with pytest.raises(TypeError, match="got a stream: pass the same rows as arrays.*X_train= and y_train="):
        attribution_report(streamed, X_query, y_query)
    found = attribution_report(streamed, X_query, y_query, X_train=X, y_train=y)
    expected = attribution_report(InfluenceFunctions().fit(net, X, y), X_query, y_query)
    assert [group.rows.tolist() for group in found.groups_] == [group.rows.tolist() for group in expected.groups_]
    pd.testing.assert_frame_equal(found.issues_, expected.issues_)
    other = np.concatenate([X[:-1], X[:1]])
    with pytest.raises(ValueError, match="training rows"):
        attribution_report(streamed, X_query, y_query, X_train=other, y_train=y)
