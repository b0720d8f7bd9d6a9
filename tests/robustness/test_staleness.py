"""What a cache gives is what would be computed now, wherever a network reads its settings from."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor

from sklearn_source import InfluenceFunctions
from sklearn_source.curvature import KFAC
from sklearn_source.modules import MLP
from sklearn_source.retraining import retrain_on_subsets
from sklearn_source.rows import row_hashes
from sklearn_source.utils._random import seeded
from tests.robustness._hidden_settings import KINDS, MADE_ANEW, PLACES, make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(20, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


def scores(net, memory=None):
    method = InfluenceFunctions(damping=0.01, curvature=KFAC(memory=memory, coupling=None))
    return method.fit(net, X, y).transform(X[:2])


def retrained(net, cache=None):
    return retrain_on_subsets(
        net, X, y, X[:2], n_subsets=1, n_repeats=1, random_state=0, engine="joblib", cache=cache
    ).outputs  # fmt: skip


def fitted(place, read):
    with seeded(0):
        return make_net(place, read).initialize()  # weights that two settings share


def trial(kind, place, run, folder):
    """A setting is changed behind a cache: what comes out is what the new setting gives."""
    make = fitted if run is scores else make_net
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind in MADE_ANEW:
            before, net = run(make(place, MADE_ANEW[kind](1.0)), folder), make(place, MADE_ANEW[kind](3.0))
        else:
            read, change = KINDS[kind]
            net = make(place, read)
            before = run(net, folder)
            change(patch, folder)
        after, truth = run(net, folder), run(net)
        again = run(net, folder)
    np.testing.assert_array_equal(after, truth)
    np.testing.assert_allclose(again, truth, rtol=1e-5)
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()  # the setting matters


@pytest.mark.parametrize("run", [scores, retrained])
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("nested objects", "get_loss"), ("a module of the user", "infer"), ("a private attribute", "forward"),
        ("a closure", "criterion"), ("a variable of the environment", "get_loss"),
    ],
)  # fmt: skip
def test_a_changed_setting_is_seen(kind, place, run, tmp_path):
    trial(kind, place, run, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("run", [scores, retrained])
def test_staleness_campaign(run, tmp_path):
    """100 trials each: every kind of setting in every place."""
    names = [*KINDS, *MADE_ANEW]
    for i, kind in enumerate(names):
        for place in PLACES:
            trial(kind, place, run, tmp_path / f"{i}{place}")
    assert len(names) * len(PLACES) == 100


def test_what_no_description_sees_is_said(tmp_path):
    read, change = KINDS["a variable of the environment"]
    for run, net in ((scores, fitted("infer", read)), (retrained, make_net("infer", read))):
        folder = tmp_path / run.__name__
        with pytest.MonkeyPatch.context() as patch:
            run(net, folder)
            change(patch, folder)
            with pytest.warns(UserWarning, match="something that it reads has changed"):
                run(net, folder)


class Penalised(NeuralNetRegressor):
    """Reads attributes that are none of its parameters' own names."""

    def __init__(self, *args, lam=1.0, **options):
        super().__init__(*args, **options)
        self.lam = lam

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred, y_true, X=X, training=training) * self.lam * getattr(self, "_warm", 1.0)


def test_attributes_of_the_net(tmp_path):
    with seeded(0):
        net = Penalised(MLP, module__n_features=3, module__hidden=(4,), train_split=None, verbose=0).initialize()
    found = [scores(net, tmp_path)]
    net.set_params(lam=5.0)
    found.append(scores(net, tmp_path))
    np.testing.assert_array_equal(found[-1], scores(net))
    net._warm = 3.0
    found.append(scores(net, tmp_path))
    np.testing.assert_array_equal(found[-1], scores(net))
    assert min(np.abs(a - b).max() for a, b in zip(found, found[1:])) > 1e-3


class Kept(MLP):
    opened = open(__file__)  # noqa: SIM115

    def forward(self, X):
        return super().forward(X) + 0 * (self.opened is None)


def test_a_module_that_holds_a_file_is_not_kept(tmp_path):
    with seeded(0):
        net = NeuralNetRegressor(Kept, module__n_features=3, module__hidden=(4,), train_split=None, verbose=0)
        net = net.initialize()
    with pytest.warns(UserWarning, match=r"memory= is ignored: .*opened.* cannot be described"):
        np.testing.assert_array_equal(scores(net, tmp_path / "m"), scores(net))
    with pytest.warns(UserWarning, match=r"cache= is ignored: .*opened.* cannot be described"):
        retrained(net, tmp_path / "c")
    assert not list(tmp_path.rglob("*.*"))


class Clock(torch.nn.Module):
    """Reads seconds since 1970, which float32 holds to a minute."""

    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(1, 1, dtype=torch.float64)

    def forward(self, X):
        return self.out((X - 1.7e9) / 100)


def test_rows_are_known_by_every_bit(tmp_path):
    times = 1.7e9 + 50 * np.arange(20.0)[:, None]
    later = times.copy()
    later[7] += 30.0
    assert np.array_equal(row_hashes(times), row_hashes(times.astype(np.float32).astype(np.float64)))
    assert (row_hashes(times, exact=True) != row_hashes(later, exact=True)).nonzero()[0].tolist() == [7]
    whole = np.round(X)
    np.testing.assert_array_equal(row_hashes(whole.astype(np.float64), exact=True), row_hashes(whole))
    for rows in (times, later):
        with seeded(0):
            net = NeuralNetRegressor(Clock, max_epochs=1, train_split=None, verbose=0).initialize()
        targets = np.sin(times / 50)
        method = InfluenceFunctions(damping=0.01, curvature=KFAC(memory=tmp_path, coupling=None))
        plain = InfluenceFunctions(damping=0.01, curvature=KFAC(coupling=None))
        found = [m.fit(net, rows, targets).transform(rows[:2]) for m in (method, plain)]
        np.testing.assert_array_equal(*found)
        kept = [
            retrain_on_subsets(
                net, rows, targets, times[:2], n_subsets=1, n_repeats=1, random_state=0, cache=folder, engine="joblib"
            ).outputs
            for folder in (tmp_path, None)
        ]  # fmt: skip
        np.testing.assert_array_equal(*kept)
