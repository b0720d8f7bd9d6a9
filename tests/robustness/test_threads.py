"""What belongs to the whole process: global generators, switches of torch, and locks that a fork meets."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklearn_source import InfluenceFunctions, LoRAEnsemble, SourceAttribution
from sklearn_source.metrics import linear_datamodeling_score, top_k_removals
from sklearn_source.retraining import retrain_on_subsets
from sklearn_source.utils._compat_torch import checkpointing_off
from sklearn_source.utils._fastpath import mha_fastpath_off
from sklearn_source.utils._locks import ThreadLock
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(30, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


def prototype(**options):
    return make_net(module__hidden=(5,), iterator_train__shuffle=True, **options)


def scores(estimator):
    return clone(estimator).fit(X, y).transform(X[:3])


def in_threads(function, n):
    """What the function gives in so many threads at once."""
    found, barrier = [None] * n, threading.Barrier(n)

    def work(i):
        barrier.wait()
        found[i] = function()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def global_states():
    return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()


@pytest.mark.parametrize(
    "estimator",
    [SourceAttribution(prototype(), n_segments=2, random_state=0), InfluenceFunctions(prototype(), random_state=0)],
)
def test_bare_nets_in_threads(estimator):
    alone, before = scores(estimator), global_states()
    for found in in_threads(lambda: scores(estimator), 4):
        np.testing.assert_array_equal(found, alone)
    assert global_states() == before


def test_adapters_in_threads():
    with seeded(0):
        net = prototype().fit(X, y)
    one, more = (LoRAEnsemble(n_members=3, n_steps=6, random_state=0, n_jobs=n) for n in (1, 3))
    with joblib.parallel_config("threading"):
        np.testing.assert_array_equal(one.fit(net, X, y).transform(X[:3]), more.fit(net, X, y).transform(X[:3]))


def test_a_search_in_threads():
    def measured(estimator, X, y=None):
        return float(np.abs(estimator.transform(X)).sum())

    def search(n_jobs):
        every = np.arange(len(X))
        estimator = SourceAttribution(prototype(), n_segments=1, random_state=0)
        found = GridSearchCV(
            estimator, {"n_segments": [1, 2, 3]}, scoring=measured, cv=[(every, every)], n_jobs=n_jobs, refit=False
        )
        return found.fit(X, y).cv_results_["mean_test_score"]

    with joblib.parallel_config("threading"):
        np.testing.assert_array_equal(search(3), search(1))


def test_no_seed_leaves_the_global_generators_alone():
    masks = np.random.default_rng(0).random((6, 30)) < 0.5
    truth = SimpleNamespace(masks=masks, outputs=np.random.default_rng(1).normal(size=(6, 2, 2)))
    before = global_states()
    retrain_on_subsets(prototype(), X, y, X[:2], n_subsets=2, n_repeats=1, random_state=None)
    linear_datamodeling_score(np.ones((2, 30)), truth, n_bootstrap=5, random_state=None)
    top_k_removals(np.ones((2, 30)), 3, random_state=None)
    scores(SourceAttribution(prototype(), n_segments=2))
    assert global_states() == before


@pytest.mark.parametrize(
    ("context", "read"),
    [
        (mha_fastpath_off, torch.backends.mha.get_fastpath_enabled),
        (checkpointing_off, lambda: torch.utils.checkpoint.CheckpointFunction),
    ],
)
def test_switches_are_put_back_whichever_thread_leaves_last(context, read):
    before, inside, leave = read(), threading.Event(), threading.Event()

    def other():
        with context():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with context():
        thread.start()
        assert inside.wait(10)
    assert read() != before  # the other is still inside
    leave.set()
    thread.join()
    assert read() == before


def in_child(function):
    """Exit status of a function in a fork: 0 where it returned True, 1 where not; None where it hung."""
    pid = os.fork()
    if not pid:
        status = 2
        try:
            status = 0 if function() else 1
        finally:
            os._exit(status)
    for _ in range(200):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_a_thread_transforms():
    with seeded(0):
        net = prototype().fit(X, y)
    fitted = SourceAttribution(n_segments=3, random_state=0).fit(net, X, y)
    alone, stop = fitted.transform(X), threading.Event()

    def work():
        while not stop.is_set():
            fitted.transform(X)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        found = []
        for trial in range(12):
            time.sleep(0.003 * trial)
            found.append(in_child(lambda: np.array_equal(fitted.transform(X), alone)))
    finally:
        stop.set()
        thread.join()
    assert found == [0] * len(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_leaves_parameters_to_a_thread_that_was_using_them():
    """Each has a lock, which a vanished thread does not give back (caught in the act once in some hundred forks)."""
    inside, leave = threading.Event(), threading.Event()
    waiting = threading.local()

    def measured(output, target):
        if getattr(waiting, "here", False):
            inside.set()
            leave.wait(30)
        return output[:, 0]

    with seeded(0):
        net = prototype().fit(X, y)
    fitted = SourceAttribution(measurement=measured, random_state=0).fit(net, X, y)
    alone, module = fitted.transform(X), fitted._network.module
    before = {id(p): p for p in module.parameters()}
    weights = [p.detach().clone() for p in before.values()]

    def work():
        waiting.here = True
        fitted.transform(X)

    def others_and_same_scores():
        same = np.array_equal(fitted.transform(X), alone)
        after = list(module.parameters())
        return same and not any(id(p) in before for p in after) and all(map(torch.equal, after, weights))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert inside.wait(30)
        assert in_child(others_and_same_scores) == 0
    finally:
        leave.set()
        thread.join()
    assert all(id(p) in before for p in module.parameters())  # the parent keeps its own


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_lock_that_the_forking_thread_holds_stays_its_own():
    lock = ThreadLock()

    def leave_and_enter():
        lock.__exit__()
        with lock:
            return lock._depth == 1

    with lock:
        assert in_child(leave_and_enter) == 0
