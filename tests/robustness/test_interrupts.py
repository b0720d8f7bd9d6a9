"""An interrupt comes out as one, whichever training of the package it meets, and leaves nothing half trained."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sklearn_source import SourceAttribution
from sklearn_source.retraining import retrain_on_subsets
from tests.robustness._interrupted import X, interrupt_at, net, starters, stopping, y

HOW = ("signal", "raise", "handler")


def trial(name, place, number, how, folder):
    """Interrupt one training and go on: True when the interrupt came; fails where something half trained came out."""
    start = starters(place, folder)[name]
    truth, state = starters(place)[name](), torch.get_rng_state()
    with interrupt_at(number, how) as came:
        try:
            result = start()
        except KeyboardInterrupt:
            result = None
        if not came():
            np.testing.assert_array_equal(result, truth)
            return False
    assert result is None, "an interrupted training passed for a whole one"
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(start(), truth)  # what the cache holds by now is whole
    return True


@pytest.mark.parametrize("name", list(starters("module")))
def test_an_interrupt_ends_what_was_asked_for(name, tmp_path):
    assert trial(name, "module", 7, "signal", tmp_path)


@pytest.mark.parametrize("how", HOW)
def test_however_it_is_raised(how, tmp_path):
    assert trial("subsets", "module", 20, how, tmp_path)


@pytest.mark.parametrize("how", ["signal", "handler"])
def test_a_signal_that_meets_a_callback_is_none_of_its_decisions(how, tmp_path):
    assert trial("subsets", "callback", 20, how, tmp_path)


def test_early_stopping_is_a_legitimate_end():
    early = retrain_on_subsets(
        stopping(), X, y, X[:3], subsets=np.ones((1, len(X)), bool), n_repeats=1, random_state=0, engine="joblib"
    ).outputs  # fmt: skip
    short = retrain_on_subsets(
        net(max_epochs=2), X, y, X[:3], subsets=np.ones((1, len(X)), bool), n_repeats=1, random_state=0, engine="joblib"
    ).outputs  # fmt: skip
    np.testing.assert_array_equal(early, short)
    estimator = SourceAttribution(stopping(), n_segments=1, random_state=0).fit(X, y)
    assert len(estimator.net_.history) == 2


class Looks(Callback):
    """Notes down the net's class, and that it can be pickled, while it trains."""

    seen = None

    def on_epoch_end(self, net, **kwargs):
        copied = pickle.loads(pickle.dumps(net))
        type(self).seen = type(copied), isinstance(net, type(copied)), type(net).__name__


def test_the_net_is_what_it_was_and_can_be_saved_by_a_callback():
    given = net(callbacks=[("looks", Looks())])
    fitted = SourceAttribution(given, n_segments=1, random_state=0).fit(X, y)
    assert Looks.seen == (type(given), True, type(given).__name__)
    assert type(fitted.net_) is type(given)


@pytest.mark.slow
def test_campaign(tmp_path):
    """Interrupts at random passes of random trainings, in modules and callbacks; seeded."""
    rng, came = np.random.default_rng(0), 0
    names = list(starters("module"))
    for number in range(160):
        name, place = names[rng.integers(len(names))], ("module", "callback")[rng.integers(2)]
        how = HOW[rng.integers(3)] if place == "module" else ("signal", "handler")[rng.integers(2)]
        came += trial(name, place, int(rng.integers(1, 45)), how, tmp_path / str(number))
    assert came >= 100
