"""Workers that are processes, and are killed in the middle: joblib's own, and those of a cluster of dask or ray.

    python -m pytest -m slow tests/robustness/test_worker_processes.py

A process takes seconds to start. The network kills the first worker that runs it while a file is there.
"""

from __future__ import annotations

import os
import signal

import joblib
import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor

from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    InfluenceFunctions,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.retraining import retrain_on_subsets

pytestmark = pytest.mark.slow
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(2000, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
X_query = _RNG.normal(size=(20, 3)).astype(np.float32)


def mortal_net(flag, **options):
    """A net of a class that no other process can import."""

    class Mortal(torch.nn.Module):
        def __init__(self, flag, home):
            super().__init__()
            self.first, self.second = torch.nn.Linear(3, 12), torch.nn.Linear(12, 1)
            self.flag, self.home = flag, home

        def forward(self, X):
            if os.getpid() != self.home:
                try:
                    os.unlink(self.flag)
                except FileNotFoundError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return self.second(self.first(X).tanh())

    return NeuralNetRegressor(
        Mortal, module__flag=str(flag), module__home=os.getpid(), optimizer=torch.optim.SGD, lr=0.05, batch_size=64,
        max_epochs=2, train_split=None, verbose=0, **options,
    )  # fmt: skip


@pytest.fixture
def flag(tmp_path):
    return tmp_path / "kill"


@pytest.fixture
def fitted(flag):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = mortal_net(flag, callbacks=[TrajectoryRecorder()]).fit(X, y)
    return SourceAttribution(n_segments=2, batch_size=100, random_state=0).fit(net, X, y)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("dask", wait_for_workers_timeout=120),
    ):
        yield client


@pytest.fixture(scope="module")
def ray_cluster():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=128 << 20)
    register_ray()
    yield
    ray.shutdown()


@pytest.fixture
def on_ray(ray_cluster):
    with joblib.parallel_config("ray", n_jobs=2):
        yield


def same(one, other):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max())


def check_all(fitted, flag, expects_warning):
    """Every kind of call, a worker killed in each."""
    fitted.set_params(n_jobs=1)
    scores, top, own = fitted.transform(X_query), fitted.top_influences(X_query, k=5), fitted.self_influence()
    net = fitted.net_

    def killed(call):
        flag.touch()
        if expects_warning:
            with pytest.warns(UserWarning, match="workers were lost"):
                result = call()
        else:
            result = call()
        assert not flag.exists(), "no worker was killed"
        return result

    fitted.set_params(n_jobs=2)
    np.testing.assert_array_equal(fitted.transform(X_query), scores)  # with all workers alive
    np.testing.assert_array_equal(killed(lambda: fitted.transform(X_query)), scores)
    np.testing.assert_array_equal(killed(lambda: fitted.top_influences(X_query, k=5)).indices, top.indices)
    same(killed(fitted.self_influence), own)
    refitted = killed(lambda: SourceAttribution(n_segments=2, n_jobs=2, random_state=0).fit(net, X, y))
    same(refitted.set_params(n_jobs=1).transform(X_query), scores)


def test_processes_of_joblib(fitted, flag):
    check_all(fitted, flag, expects_warning=True)
    assert (
        joblib.Parallel(2)(joblib.delayed(torch.get_num_threads)() for _ in range(2))
        == [
            max(1, joblib.cpu_count() // 2)
            if "OMP_NUM_THREADS" not in os.environ
            else int(os.environ["OMP_NUM_THREADS"])
        ]
        * 2
    )


def test_a_dask_cluster(fitted, flag, cluster):
    check_all(fitted, flag, expects_warning=False)  # dask itself gives the block to another worker


def test_ray(fitted, flag, on_ray):
    check_all(fitted, flag, expects_warning=False)  # ray runs a task again by itself


def test_what_else_goes_to_ray(fitted, on_ray, tmp_path):
    net = fitted.net_
    for method in (TRAK(n_components=8, random_state=0), InfluenceFunctions(random_state=0)):
        alone = method.set_params(n_jobs=1).fit(net, X, y).transform(X_query)
        same(method.set_params(n_jobs=None).fit(net, X, y).transform(X_query), alone)
    stored = [
        method.set_params(n_jobs=n_jobs).store_gradients(tmp_path / str(n_jobs)).transform(X_query)
        for n_jobs in (1, None)
    ]
    np.testing.assert_array_equal(*stored)
    members = [
        AttributionEnsemble(TracIn(), n_members=2, random_state=0, n_jobs=n_jobs).fit(net, X, y) for n_jobs in (1, None)
    ]
    same(*(ensemble.transform(X_query) for ensemble in members))


def test_a_dask_cluster_that_gives_up(fitted, flag, cluster):
    """Where dask does not try again, the call does."""
    scores = fitted.set_params(n_jobs=1).transform(X_query)
    cluster.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    fitted.set_params(n_jobs=None)
    flag.touch()
    with pytest.warns(UserWarning, match="workers were lost .*KilledWorker"):
        np.testing.assert_array_equal(fitted.transform(X_query), scores)
    assert not flag.exists()


def check_retraining(flag, engine):
    """On the cluster that joblib has been given, whose worker is killed, against one process."""
    masks = np.random.default_rng(1).random((6, 300)) < 0.5
    options = {"subsets": masks, "n_repeats": 1, "random_state": 0, "engine": engine, "chunk_size": 2}
    with joblib.parallel_config("threading", n_jobs=1):
        expected = retrain_on_subsets(mortal_net(flag), X[:300], y[:300], X_query, **options).outputs
    flag.touch()
    found = retrain_on_subsets(mortal_net(flag), X[:300], y[:300], X_query, **options).outputs
    assert not flag.exists() or engine == "vectorized"  # recorded steps run no module
    same(found, expected)


@pytest.mark.parametrize("engine", ["joblib", "vectorized"])
def test_retraining_on_a_dask_cluster(flag, cluster, engine):
    check_retraining(flag, engine)


@pytest.mark.parametrize("engine", ["joblib", "vectorized"])
def test_retraining_on_ray(flag, on_ray, engine):
    check_retraining(flag, engine)


@pytest.mark.parametrize("engine", ["joblib", "vectorized"])
def test_retraining_by_processes_of_joblib(flag, engine):
    masks = np.random.default_rng(1).random((6, 300)) < 0.5
    options = {"subsets": masks, "n_repeats": 1, "random_state": 0, "engine": engine, "chunk_size": 2}
    expected = retrain_on_subsets(mortal_net(flag), X[:300], y[:300], X_query, **options).outputs
    flag.touch()
    with pytest.warns(UserWarning, match="workers were lost"):
        found = retrain_on_subsets(mortal_net(flag), X[:300], y[:300], X_query, n_jobs=2, **options).outputs
    same(found, expected)


def test_retraining_that_kills_its_workers_every_time_ends(cluster):
    """By joblib's own way to dask it waited for ever."""

    class Deadly(torch.nn.Linear):
        """Ends every process but the one that made it."""

        def __init__(self, home):
            super().__init__(3, 1)
            self.home = home

        def forward(self, X):
            if os.getpid() != self.home:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(X)

    net = NeuralNetRegressor(Deadly, module__home=os.getpid(), max_epochs=1, train_split=None, verbose=0)
    with pytest.warns(UserWarning, match="workers were lost"), pytest.raises(RuntimeError, match="lost 3 times"):
        retrain_on_subsets(net, X[:300], y[:300], X_query, n_subsets=4, random_state=0, engine="joblib")
