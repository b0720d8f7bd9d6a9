"""What an action is predicted to do: against a regression solved again, outputs moved by hand, and trainings."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import (
    AttributionEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    SourceAttribution,
    TrajectoryRecorder,
)
from sklearn_source.base import _curvature_method
from sklearn_source.inspection import predict_action
from sklearn_source.inspection._confirmation import log_odds_and_errors, log_odds_and_errors_of_probabilities
from sklearn_source.inspection._outcomes import outcomes
from sklearn_source.inspection._predict_action import predict_actions

DECAY = 0.2


@pytest.fixture(scope="module")
def ridge():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 4))
    y = X @ rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(12, 1))
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        linear_module, lr=0.1, max_epochs=600, batch_size=-1, train_split=None, optimizer__weight_decay=DECAY,
        verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=2)],
    ).fit(X, y)  # fmt: skip
    X_val = rng.normal(size=(6, 4))
    return net, X, y, X_val, X_val @ rng.normal(size=(4, 1))


def linear_module():
    return nn.Linear(4, 1, bias=False, dtype=torch.float64)


def solved(X, y, X_val, weights):
    weights = weights * len(X) / weights.sum()
    H = 2 / len(X) * X.T @ (weights[:, None] * X) + DECAY * np.eye(4)
    return X_val @ np.linalg.solve(H, 2 / len(X) * X.T @ (weights[:, None] * y))


@pytest.mark.parametrize("action", ["remove", "relabel", "reweight"])
def test_a_regression_solved_again(ridge, action):
    net, X, y, X_val, y_val = ridge
    est = InfluenceFunctions(damping=0.0).fit(net, X, y)
    rows, weights, y_after = [2, 5, 7], np.ones(12), y.copy()
    if action == "relabel":
        y_after[rows] += [[1.0], [-2.0], [0.5]]
    else:
        weights[rows] = 0.0 if action == "remove" else 3.0
    effect = predict_action(est, action, rows, X_val, y_val, labels=y_after[rows], weight=3.0)
    before, after = solved(X, y, X_val, np.ones(12)), solved(X, y_after, X_val, weights)
    np.testing.assert_allclose(effect.change, (after - before)[:, 0], rtol=1e-4, atol=1e-7)
    table = effect.table(as_frame=False)
    assert table["quantity"].tolist() == ["measurement", "loss"]
    losses = [np.mean((f - y_val) ** 2) for f in (before, after)]
    np.testing.assert_allclose([table["before"][1], table["after"][1]], losses, rtol=1e-4)
    changes = ((after - y_val) ** 2 - (before - y_val) ** 2)[:, 0]
    assert table["std_error"][1] == pytest.approx(changes.std(ddof=1) / np.sqrt(6), rel=1e-3)
    found = effect.confirm(n_repeats=2, random_state=1, as_frame=False)
    assert found.retrained.shape == (2, 6)
    np.testing.assert_allclose(found.retrained.mean(0), (after - before)[:, 0], rtol=1e-3, atol=1e-5)
    assert found.slope == pytest.approx(1.0, abs=1e-3)
    assert found.correlation == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(found.table["retrained"], found.table["predicted"], rtol=1e-3, atol=1e-5)
    assert "12" not in repr(effect)
    assert "3 rows " in repr(effect)


def classes(kind="logits"):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)
    torch.manual_seed(0)
    options = {
        "lr": 0.2, "max_epochs": 8, "batch_size": 10, "train_split": None, "verbose": 0,
        "callbacks": [TrajectoryRecorder(n_checkpoints=3)],
    }  # fmt: skip
    if kind == "binary":
        return NeuralNetBinaryClassifier(OneOutput, **options), X, np.minimum(y, 1).astype(np.float32)
    if kind == "probabilities":
        return NeuralNetClassifier(Probabilities, **options), X, y
    return NeuralNetClassifier(Logits, criterion=nn.CrossEntropyLoss, **options), X, y


class Logits(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))


class Probabilities(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(dim=1))


class OneOutput(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))


def log_odds(p, y):
    return np.log(p[np.arange(len(y)), y]) - np.log1p(-p[np.arange(len(y)), y])


@pytest.mark.parametrize("kind", ["logits", "probabilities", "binary"])
def test_losses_and_errors_of_moved_log_odds(kind):
    net, X, y = classes(kind)
    net.fit(X, y)
    p, labels = net.predict_proba(X).astype(np.float64), y
    y = y.astype(np.int64)
    if kind == "logits":
        p = torch.as_tensor(net.forward(X)).double().softmax(1).numpy()
    change = np.random.default_rng(0).normal(size=40) * 2
    now, moved = outcomes(net, X, labels), outcomes(net, X, labels, "log_odds", change)
    np.testing.assert_array_equal(now.wrong, p.argmax(1) != y)
    np.testing.assert_allclose(now.loss, -np.log(p[np.arange(40), y]), rtol=1e-4, atol=1e-6)
    q = p.copy()
    own = 1 / (1 + np.exp(-(log_odds(p, y) + change)))
    q *= ((1 - own) / (1 - p[np.arange(40), y]))[:, None]
    q[np.arange(40), y] = own
    np.testing.assert_array_equal(moved.wrong, q.argmax(1) != y)
    np.testing.assert_allclose(moved.loss, -np.log(own), rtol=1e-3, atol=1e-5)
    outputs = torch.as_tensor(net.forward(X)).double()
    ask = log_odds_and_errors if kind != "probabilities" else log_odds_and_errors_of_probabilities
    np.testing.assert_allclose(ask(outputs, torch.as_tensor(y)), log_odds(p, y), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(ask(outputs, torch.as_tensor(-1 - y)), now.wrong)
    shifted = outcomes(net, X, labels, "neg_loss", change)
    np.testing.assert_allclose(shifted.loss, now.loss - change, rtol=1e-5, atol=1e-6)
    assert shifted.wrong is None


@pytest.mark.parametrize("kind", ["logits", "probabilities", "binary"])
@pytest.mark.parametrize("action", ["remove", "relabel", "reweight"])
def test_confirmed_by_training(kind, action):
    net, X, y = classes(kind)
    net.fit(X, y)
    state = copy.deepcopy(net.module_.state_dict())
    est = SourceAttribution(random_state=0).fit(net, X, y)
    labels = "suggested" if kind == "logits" else 1 - y[:8] if kind == "binary" else (y[:8] + 1) % 3
    rows = np.arange(40) if isinstance(labels, str) and action == "relabel" else np.arange(8)
    effect = predict_action(est, action, rows, X[20:], y[20:], labels=labels)
    assert effect.table(as_frame=False)["quantity"].tolist() == ["measurement", "loss", "errors"]
    found = effect.confirm(n_repeats=3, random_state=1, as_frame=False)
    assert found.table["quantity"].tolist() == ["measurement", "loss", "errors"]
    assert np.isfinite([found.table[name] for name in found.table.dtype.names[1:]]).all()
    # The same networks by hand: wrong rows are whole numbers, and losses those of the log-odds.
    assert (found.table["retrained"][2] * 3) == pytest.approx(round(found.table["retrained"][2] * 3))
    assert all(torch.equal(value, state[name]) for name, value in net.module_.state_dict().items())
    if action == "relabel" and kind == "logits":
        assert (np.asarray(effect.labels) != y[effect.rows]).all()


def test_members_tell_the_chance_of_training():
    net, X, y = classes()
    ensemble = AttributionEnsemble(InfluenceFunctions(damping=0.1), n_members=3, random_state=0).fit(
        net.fit(X, y), X, y
    )
    effect = predict_action(ensemble, "remove", [0, 1], X[20:], y[20:])
    alone = [predict_action(member, "remove", [0, 1], X[20:], y[20:]) for member in ensemble.members_]
    np.testing.assert_allclose(effect.changes, [one.change for one in alone])
    expected = np.std([one.change for one in alone], axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(effect.change_error, expected)
    assert np.isnan(alone[0].change_error).all()
    assert any("one network" in caution for caution in alone[0].cautions)
    assert not any("one network" in caution for caution in effect.cautions)
    many = predict_action(ensemble, "remove", np.arange(40) < 9, X[20:], y[20:])
    assert "22% of the training rows" in many.cautions[0]
    without = predict_action(ensemble, "remove", [0, 1], X[20:])  # of the predicted classes
    assert without.table(as_frame=False)["quantity"].tolist() == ["measurement"]
    assert len(effect.confirm(n_repeats=2, random_state=0, as_frame=False).table) == 3
    assert without.confirm(n_repeats=2, random_state=0, as_frame=False).table["quantity"].tolist() == ["measurement"]


def test_a_change_of_the_loss_says_nothing_of_errors():
    net, X, y = classes()
    est = InfluenceFunctions(damping=0.1, measurement="neg_loss").fit(net.fit(X, y), X, y)
    effect = predict_action(est, "remove", [0, 1], X[20:], y[20:])
    table = effect.table(as_frame=False)
    assert table["quantity"].tolist() == ["measurement", "loss"]
    assert table["change"][1] == pytest.approx(-table["change"][0])
    found = effect.confirm(n_repeats=2, random_state=0, as_frame=False)
    assert found.table["retrained"][1] == pytest.approx(-found.table["retrained"][0])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("drop", [0]), {}, "expected action to be one of"),
        (("remove", []), {}, "at least one row"),
        (("remove", [99]), {}, "expected rows as indices from 0 to 39"),
        (("remove", np.ones(40, dtype=bool)), {}, "rows that are left"),
        (("relabel", [0, 1]), {"labels": [1]}, "one target for each of 2 rows"),
        (("relabel", [0, 1]), {"labels": "guess"}, "or 'suggested'"),
        (("relabel", [0, 1]), {"labels": [9, 9]}, "labels in 0..2"),
        (("reweight", [0]), {"weight": -1.0}, "not negative"),
        (("reweight", [0]), {"weight": 1}, "not 1"),
    ],
)
def test_what_cannot_be_asked(arguments, options, message):
    net, X, y = classes()
    est = InfluenceFunctions(damping=0.1).fit(net.fit(X, y), X, y)
    with pytest.raises(ValueError, match=message):
        predict_action(est, *arguments, X[20:], y[20:], **options)


def test_an_order_predicts_nothing():
    net, X, y = classes()
    with pytest.raises(ValueError, match="whose scores have a unit, got GradientSimilarity"):
        predict_action(GradientSimilarity().fit(net.fit(X, y), X, y), "remove", [0], X, y)
    est = InfluenceFunctions(damping=0.1).fit(net, X, y)
    with pytest.raises(ValueError, match="whole number"):
        predict_action(est, "reweight", [0], X, y, weight=0.5).confirm()


def test_sizes_are_doubted_where_the_training_was_not_recorded(ridge):
    net, X, y, X_val, y_val = ridge
    unrecorded = NeuralNetRegressor(linear_module, max_epochs=2, train_split=None, verbose=0).fit(X, y)
    told = {}
    for name, one in (("recorded", net), ("unrecorded", unrecorded)):
        effect = predict_action(InfluenceFunctions().fit(one, X, y), "remove", [1], X_val, y_val)
        told[name] = any("no record of the training" in caution for caution in effect.cautions)
    assert told == {"recorded": False, "unrecorded": True}


def test_actions_of_all_kinds_share_one_refit_of_a_member(ridge, monkeypatch):
    """What each alone would do, from columns and a factor that are made once."""
    net, X, y, X_val, y_val = ridge
    est = AttributionEnsemble(InfluenceFunctions(damping=0.0), nets=[net, copy.deepcopy(net)]).fit(X, y)

    def asked(action, rows, labels=None, weight=None):
        return Bunch(action=action, rows=np.array(rows), labels=labels, weight=weight)

    actions = [
        asked("remove", [2, 5]), asked("relabel", [5, 6], labels=y[:2]), asked("reweight", [7], weight=3.0),
        asked("relabel", [6, 8], labels=y[3:5]),
    ]  # fmt: skip
    alone = [predict_actions(est, [action], X_val, y_val)[0].changes for action in actions]
    made, make = [], _curvature_method.GaussNewtonRefit
    monkeypatch.setattr(_curvature_method, "GaussNewtonRefit", lambda *given: made.append(make(*given)) or made[-1])
    together = predict_actions(est, actions, X_val, y_val)
    assert len(made) == 2
    for effect, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(effect.changes, expected, rtol=1e-9)
    predict_actions(est, actions[:1], X_val, y_val)  # nothing is held when the question is answered
    assert len(made) == 4
