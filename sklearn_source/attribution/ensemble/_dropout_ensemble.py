"""Sub-networks of one trained network as members (Deng et al. 2024), each of them one function."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real

import numpy as np

from ...base import BaseAttribution
from ...network import net_with_changed_module
from ...utils._compat import WORKERS, Interval
from ...utils._progress import progress
from ...utils._random import draw_seed
from .._trak import TRAK
from ._ensemble_base import BaseEnsemble
from ._fixed_mask import put_mask
from ._mask_places import find_places
from ._one_network import Examined, MemberMaker, fit_members, prepared

_P_WITHOUT_DROPOUT = 0.1


class DropoutEnsemble(BaseEnsemble):
    """Mean of the scores of sub-networks of one trained network, without any training.

    A member is the network with some units left out: its masks are drawn once, and are the same for every query,
    every training row, every pass and every recorded checkpoint, so that a member is one function with gradients and a
    curvature of its own.

    Read more in the :ref:`User Guide <dropout_ensemble>`.

    Parameters
    ----------
    estimator : BaseAttribution, optional
        The method that every member is attributed by, not fitted. None: :class:`~sklearn_source.InfluenceFunctions`.
    n_masks : int, default=10
        Number of members.
    p : float, optional
        Probability of a unit to be left out. None: that of the network's own dropout in each place; 0.1 where masks are
        put into a network without, or after ``layers``.
    layers : str or list of str, optional
        Names of layers after which units are left out; the network's own dropout is then off elsewhere. None: where the
        network has dropout; in a network without, after its hidden activations, and where these are no modules, after
        its hidden linear layers and convolutions.
    forward_only : bool, default=False
        For :class:`~sklearn_source.TRAK` alone: gradients, projections and the kernel are those of the whole network,
        kept once; only the residuals Q are a mean over sub-networks, by forward passes, as in [1]_.
    random_state : int, RandomState instance or None, default=None
        Seeds the masks, and sampled Fisher draws of members. The first masks are the same whatever ``n_masks`` is.
    n_jobs : int, optional
        Members fitted at once, by joblib.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    members_ : list of BaseAttribution
        The fitted members; a single one with ``forward_only``.
    residuals_ : ndarray of shape (n_masks, n_train)
        With ``forward_only``: of every sub-network.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.

    See Also
    --------
    LoRAEnsemble : Members trained on top of one network.

    Notes
    -----
    A unit is a feature, the same at all positions of a sequence; a channel of maps; a head, for dropout on attention
    weights. Units that are kept are multiplied by ``1 / (1 - p)`` as in training. A class that ``y`` does not give is
    the one that the whole network predicts, for all members. Cost: ``n_masks`` times that of ``estimator``, in ``fit``
    and ``transform``, and as many copies of the weights.

    References
    ----------
    .. [1] Deng, Li, Zhang, Ma (2024), "Efficient Ensembles Improve Training Data Attribution", arXiv:2405.17293.
    """

    _parameter_constraints = {
        **BaseEnsemble._parameter_constraints,
        "n_jobs": [*WORKERS],
        "n_masks": [Interval(Integral, 1, None, closed="left")],
        "p": [None, Interval(Real, 0, 1, closed="left")],
        "forward_only": ["boolean"],
    }

    def __init__(
        self,
        estimator: BaseAttribution | None = None,
        n_masks: int = 10,
        p: float | None = None,
        *,
        layers: str | Sequence[str] | None = None,
        forward_only: bool = False,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.n_masks = n_masks
        self.p = p
        self.layers = layers
        self.forward_only = forward_only
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _fit_members(self, X, y, net, as_is, stage):
        if self.forward_only and not isinstance(self._prototype(), TRAK):
            raise ValueError(
                f"expected estimator=TRAK(), which forward_only=True is for, got {type(self._prototype()).__name__}(), "
                "which needs the gradients of every sub-network: use forward_only=False"
            )
        net, X, y = self._trained(X, y, net, as_is)
        seed, examined = draw_seed(self.random_state), Examined().fit(X, y, net=net, stage=stage)
        places = find_places(examined.network, examined.some_rows(), self.layers)
        for place in places:
            own = place.p if self.layers is None else None
            place.p = self.p if self.p is not None else own or _P_WITHOUT_DROPOUT
        self.__dict__.pop("residuals_", None)
        if self.forward_only:
            member = prepared(self.estimator, seed).fit(X, y, net=net, stage=stage)
            masked = progress(range(self.n_masks), verbose=self.verbose, desc="masks")
            self.residuals_ = np.stack([member.residuals_of(_masked(net, places, seed, n)) for n in masked])
            return [member.with_residuals(self.residuals_.mean(axis=0))], net
        make = _Masked(self.estimator, net, X, y, stage, seed, places=places)
        members = fit_members(make, self.n_masks, n_jobs=self.n_jobs, verbose=self.verbose)
        return members, net

    @property
    def _n_opinions(self):
        return len(self.residuals_) if self.forward_only else super()._n_opinions

    def _moments(self, queries, n_queries):
        if not self.forward_only:
            return super()._moments(queries, n_queries)
        # A sub-network's scores are the same first factor times its own residuals.
        factor = self.members_[0].with_residuals(np.ones(self.n_train_)).transform(*queries).astype(np.float64)
        residuals = self.residuals_.astype(np.float64)
        spread = residuals.std(axis=0, ddof=1) / len(residuals) ** 0.5
        return factor * residuals.mean(axis=0), np.abs(factor) * spread


class _Masked(MemberMaker):
    def __init__(self, *given, places):
        super().__init__(*given)
        self.places = places

    def __call__(self, number):
        net = _masked(self.net, self.places, self.seed, number)
        return prepared(self.estimator, self.seed).fit(self.X, self.y, net=net, stage=self.stage)


def _masked(net, places, seed, number):
    """The sub-network of a member, as a net."""
    return net_with_changed_module(net, partial(_put_masks, places, (seed, number)))


def _put_masks(places, key, module):
    for place in places:
        put_mask(module, place, place.p, key)
