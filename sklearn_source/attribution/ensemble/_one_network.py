"""Members that come of one trained network: how each is fitted."""

from __future__ import annotations

from sklearn.base import clone

from ...base import NetworkAttribution
from ...network import PortableNet
from ...utils._progress import progress
from ...utils._workers import in_blocks, n_workers
from .._influence import InfluenceFunctions


class Examined(NetworkAttribution):
    """The network that members come of and its training rows, looked at and refused as methods do."""

    def __init__(self, net=None, *, measurement="auto", random_state=0, verbose=0):
        self.net = net
        self.measurement = measurement
        self.random_state = random_state
        self.verbose = verbose

    @property
    def network(self):
        """A private copy of the network."""
        return self._network

    def some_rows(self):
        """A batch of few training rows."""
        return self._rows.batch(slice(0, 4))[0]

    def _fit_method(self):
        """Nothing is learned."""

    def _prepare_queries(self, rows, index, measure):
        raise NotImplementedError

    def _score_batches(self, queries, n_queries):
        raise NotImplementedError

    def _self_batches(self):
        raise NotImplementedError


def fit_members(make, n_members, *, n_jobs, verbose):
    """``make(0), make(1), ...`` by however many workers."""
    numbers = range(n_members)
    if n_workers(n_jobs) == 1:
        return [make(number) for number in progress(numbers, verbose=verbose, desc="members")]
    return list(in_blocks(_made, make, numbers, n_jobs=n_jobs))


def _made(make, number):
    return make(number)


def prepared(estimator, seed):
    """An unfitted copy of a prototype for a member, with a seed of its own unless it has one."""
    member = InfluenceFunctions() if estimator is None else clone(estimator)
    parameters = member.get_params(deep=False)
    if "random_state" in parameters and parameters["random_state"] is None:
        member.set_params(random_state=seed)
    return member


class MemberMaker:
    """Fits a member; it crosses to other processes, as joblib asks it to.

    Parameters
    ----------
    estimator : BaseAttribution or None
    net : skorch.NeuralNet
    X, y, stage
        For ``fit``.
    seed : int
    """

    def __init__(self, estimator, net, X, y, stage, seed):
        self.estimator, self.net, self.X, self.y, self.stage, self.seed = estimator, net, X, y, stage, seed

    def __getstate__(self):
        return {**vars(self), "net": PortableNet(self.net)}
