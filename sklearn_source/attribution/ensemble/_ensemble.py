"""An ensemble over networks: trained from fresh seeds, given by the user, or snapshots of one run."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from os import PathLike
from typing import Literal

import numpy as np
from skorch import NeuralNet

from ...base import BaseAttribution, unwrap
from ...network import split_pipeline
from ...retraining import train_networks
from ...trajectory import TrajectoryRecorder
from ...utils._argument_checks import require_reproducible
from ...utils._compat import WORKERS, Interval, StrOptions
from ...utils._digest import tensor_digest
from ...utils._progress import progress
from ...utils._random import draw_seeds
from ...utils._warnings import warn
from ._ensemble_base import BaseEnsemble
from ._one_network import prepared
from ._snapshot_nets import snapshot_nets

_N_NETWORKS = 10


class AttributionEnsemble(BaseEnsemble):
    """Mean of a method's scores over several networks.

    What retraining shows is a mean over networks, and a single one has its own chance: the mean of several predicts it
    better than any of them, and how much they differ says how sure it is.

    Read more in the :ref:`User Guide <attribution_ensemble>`.

    Parameters
    ----------
    estimator : BaseAttribution, optional
        The method, unfitted. None: :class:`~sklearn_source.InfluenceFunctions` at its defaults. Its ``net``, where it
        has one and ``fit`` is given none: frozen, it is the first member; bare, clones of it are trained.
    members : {"independent", "snapshots"}, default="independent"
        ``"independent"``: networks trained anew from fresh seeds, beside the one given. ``"snapshots"``: the recorded
        checkpoints of the last stage of the one given, each as a network whose training ended there; no training.
    n_members : int, optional
        How many networks, the one given among them. None: 10, or every recorded snapshot.
    nets : list of skorch.NeuralNet, optional
        Trained networks to be the members, beside the one given, where there is one; nothing is trained then.
    random_state : int, RandomState instance or None, default=None
        Seeds the trainings, a seed for each member whatever their number. None: fresh entropy.
    cache : path-like, optional
        A folder where trained members are kept: a ``fit`` that was killed goes on at the member it was in, and one with
        more members trains only those. Known by the net, the rows, the seed and the method's recorder; may be shared by
        several ensembles. Needs an integer ``random_state``.
    n_jobs : int, optional
        Processes among which trainings are shared out, as of :class:`joblib.Parallel`.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    members_ : list of BaseAttribution
        The method fitted on each network.
    net_ : skorch.NeuralNet
        The network given, the first of ``nets``, or the last snapshot.
    has_unit : bool
        As that of the method.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.
    n_features_in_ : int
        Columns of X, where X is a matrix.
    feature_names_in_ : ndarray of str
        Columns' names, where X is a data frame.

    See Also
    --------
    SnapshotInfluence : Influence functions over snapshots, by one estimator.

    Notes
    -----
    ``tau = (1/K) sum_k tau_k`` with everything of a member taken on its own network: its trajectory, curvature, and
    gradients of queries and rows ([1]_). The class that a classifier's log-odds are of, where queries come without
    targets, is the one predicted by the network given. Cost: K - 1 trainings for
    ``"independent"`` (many at once for small plain nets, as :func:`~sklearn_source.retraining.retrain_on_subsets` does
    it), then K times the method's; a chunk of the scores of one member, and their sum, are held.

    References
    ----------
    .. [1] Deng, Li, Zhang, Ma (2024), "Efficient Ensembles Improve Training Data Attribution", arXiv:2405.17293.
    """

    _parameter_constraints = {
        **BaseEnsemble._parameter_constraints,
        "members": [StrOptions({"independent", "snapshots"})],
        "n_members": [None, Interval(Integral, 1, None, closed="left")],
        "nets": [None, list, tuple],
        "cache": [None, str, PathLike],
        "n_jobs": [*WORKERS],
    }

    def __init__(
        self,
        estimator: BaseAttribution | None = None,
        *,
        members: Literal["independent", "snapshots"] = "independent",
        n_members: int | None = None,
        nets: Sequence[NeuralNet] | None = None,
        random_state: int | np.random.RandomState | None = None,
        cache: str | PathLike[str] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.members = members
        self.n_members = n_members
        self.nets = nets
        self.random_state = random_state
        self.cache = cache
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _fit_members(self, X, y, net, as_is, stage):
        networks, seeds, X, y = self._networks(X, y, net, as_is)
        if len({tensor_digest(dict(own.module_.named_parameters())) for own in networks}) < len(networks):
            warn(
                "some members have the same weights, so that they agree whatever the data: does the module set a seed "
                "of its own (torch.manual_seed), or is a net given twice?"
            )
        fitted = []
        for own, seed in progress(list(zip(networks, seeds)), verbose=self.verbose, desc="members"):
            fitted.append(prepared(self.estimator, int(seed)).fit(X, y, net=own, stage=stage))
        # The network given, or the end of the run, is the one that is asked about.
        return fitted, networks[-1 if self.members == "snapshots" else 0]

    def _networks(self, X, y, net, as_is):
        """Trained nets, a seed for each, and the rows as they were trained on them."""
        if self.members == "snapshots":
            if self.nets is not None:
                raise ValueError("expected nets= or members='snapshots', got both: leave one of them out")
            recorder = TrajectoryRecorder(n_checkpoints=self.n_members or 8)
            net, X, y = self._trained(X, y, net, as_is, recorder)
            networks = snapshot_nets(net, self.n_members)
        elif self.nets is not None:
            networks = [self._trained(X, y, _bare(own), True)[0] for own in self.nets]
            if net is not None:
                net, X, y = self._trained(X, y, net, as_is)
                networks = [net, *networks]
            if not networks:
                raise ValueError("expected nets= to hold trained nets, got none")
        else:
            return self._independent(X, y, net, as_is)
        return networks, draw_seeds(self.random_state, len(networks)), X, y

    def _independent(self, X, y, net, as_is):
        require_reproducible(self.cache, self.random_state)
        n_wanted = self.n_members or _N_NETWORKS
        seeds = draw_seeds(self.random_state, n_wanted)
        net, frozen = unwrap(net)
        networks = []
        if as_is or frozen:
            networks.append(self._trained(X, y, net, True)[0])
            if n_wanted > 1:
                _require_one_fit(net)
        if len(networks) == n_wanted:
            return networks, seeds, X, y
        trained, X_read, y_read = train_networks(
            net, X, y, seeds[len(networks) :],
            recorder=self._recorder(), cache=self.cache, n_jobs=self.n_jobs, verbose=self.verbose,
        )  # fmt: skip
        if not networks:
            X, y = X_read, y_read
        return [*networks, *trained], seeds, X, y


def _bare(net):
    """A net of ``nets=``, which reads rows as the one given to ``fit`` does."""
    steps, _ = split_pipeline(net)
    if steps:
        raise TypeError(
            "expected nets= as nets, got a pipeline among them: pass one as the network, fit(pipeline, X, y), and of "
            "the others the nets behind the same steps, nets=[other[-1]]"
        )
    return net


def _require_one_fit(net):
    """Refuse a net whose training another ``fit`` does not repeat: its members would be of another kind."""
    n_epochs = len(net.history)
    if n_epochs > net.max_epochs:
        raise ValueError(
            f"expected a net that one fit trained, but its history has {n_epochs} epochs, and max_epochs is "
            f"{net.max_epochs}, for which fresh members would be trained. Train further networks in the same stages "
            "and pass them as nets=, or use members='snapshots'"
        )
