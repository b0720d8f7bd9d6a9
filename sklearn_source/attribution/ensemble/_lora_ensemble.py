"""Low-rank adapters trained on top of one network as members (Deng et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch

from ...base import BaseAttribution, unwrap
from ...network import train_module
from ...retraining import kept_fit
from ...rows import open_rows, require_trainable
from ...trajectory import Trajectory, TrajectoryRecorder, recorder_in
from ...utils._argument_checks import require_reproducible
from ...utils._compat import WORKERS, Interval
from ...utils._random import draw_seed
from ._adapters import freeze, with_adapters
from ._ensemble_base import BaseEnsemble
from ._one_network import Examined, MemberMaker, fit_members, prepared


class LoRAEnsemble(BaseEnsemble):
    """Mean of the scores of low-rank adapters, each trained for some steps on top of one network.

    The weights of the network are frozen. A member adds to its layers products of two thin matrices, of which one
    starts at zero, so that it begins as the network; they are trained on the training rows, and scores are those of the
    adapters' training alone. Vectors of gradients and checkpoints have the size of the adapters.

    Read more in the :ref:`User Guide <lora_ensemble>`.

    Parameters
    ----------
    estimator : BaseAttribution, optional
        The method that every member is attributed by, not fitted. None: :class:`~sklearn_source.InfluenceFunctions`.
    n_members : int, default=10
        Number of members.
    rank : int, default=8
        Of the products; less where a layer has fewer inputs or outputs.
    alpha : float, optional
        The products are multiplied by ``alpha / rank``. None: by one.
    n_steps : int, default=200
        Batches that each member is trained on.
    lr : float, optional
        Learning rate; None: that of the net.
    optimizer : type of torch.optim.Optimizer, optional
        Its class, at its defaults but for the rate. None: that of the net, with its options.
    layers : str or list of str, optional
        Names of the layers, or of modules with layers, that adapters go beside: ``nn.Linear``, ``nn.Embedding``,
        ``nn.Conv1d`` and ``nn.Conv2d`` without groups, ``nn.MultiheadAttention``. None: all of these that have
        trainable weights.
    random_state : int, RandomState instance or None, default=None
        Seeds the adapters and their training, and sampled Fisher draws of members. The first members are the same
        whatever ``n_members`` is.
    cache : path-like, optional
        A folder where trained adapters are kept: a ``fit`` that was killed goes on at the member it was in, and one
        with more members trains only those. Needs an integer ``random_state``.
    n_jobs : int, optional
        Members trained and fitted at once, by joblib.
    verbose : int, default=0
        Show progress.

    Attributes
    ----------
    members_ : list of BaseAttribution
        The fitted members.
    n_parameters_ : int
        Numbers that a member has of its own: those of its adapters.
    n_base_parameters_ : int
        Numbers that the network has.
    n_bytes_ : int
        What the record of one member's training takes: its adapters at every checkpoint, and the state of its
        optimizer.
    n_base_bytes_ : int
        What the weights of the network take, once for all members.
    n_train_ : int
        Number of training rows, the columns of :meth:`transform`.

    See Also
    --------
    DropoutEnsemble : Members without any training.

    Notes
    -----
    Members are trained by the net's own loss, batches and split, in training mode, without its callbacks. Scores have
    no unit, but an order and a sign: they tell how the measurement would change by what the adapters learned of a row,
    not by what the network had learned of it before. A class that ``y`` does not give is the one that the network
    predicts, for all members. Cost: ``n_members * n_steps`` steps, then that of ``estimator`` on the adapters for each
    member.

    References
    ----------
    .. [1] Deng, Li, Zhang, Ma (2024), "Efficient Ensembles Improve Training Data Attribution", arXiv:2405.17293.
    .. [2] Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.
    """

    has_unit = False
    _parameter_constraints = {
        **BaseEnsemble._parameter_constraints,
        "n_jobs": [*WORKERS],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "rank": [Interval(Integral, 1, None, closed="left")],
        "alpha": [None, Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "lr": [None, Interval(Real, 0, None, closed="neither")],
        "cache": [None, str, PathLike],
    }

    def __init__(
        self,
        estimator: BaseAttribution | None = None,
        n_members: int = 10,
        rank: int = 8,
        alpha: float | None = None,
        *,
        n_steps: int = 200,
        lr: float | None = None,
        optimizer: type[torch.optim.Optimizer] | None = None,
        layers: str | Sequence[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
        cache: str | PathLike[str] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.n_members = n_members
        self.rank = rank
        self.alpha = alpha
        self.n_steps = n_steps
        self.lr = lr
        self.optimizer = optimizer
        self.layers = layers
        self.random_state = random_state
        self.cache = cache
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _fit_members(self, X, y, net, as_is, stage):
        require_reproducible(self.cache, self.random_state)
        require_trainable(unwrap(net)[0], X)
        X = open_rows(unwrap(net)[0], X, y)
        net, X, y = self._trained(X, y, net, as_is)
        if stage is not None:
            raise ValueError("stage= has no meaning here: adapters are trained in one stage of their own")
        base = Examined().fit(X, y, net=net).network.module
        weights = [value.detach() for value in base.parameters()]
        freeze(base, self.layers)
        if self.optimizer is not None and not (
            isinstance(self.optimizer, type) and issubclass(self.optimizer, torch.optim.Optimizer)
        ):
            raise ValueError(f"expected optimizer to be a class of torch's optimizers or None, got {self.optimizer!r}")
        training = {"n_steps": self.n_steps, "lr": self.lr, "optimizer": self.optimizer}
        scale = 1.0 if self.alpha is None else self.alpha / self.rank
        make = _Trained(
            self.estimator, net, X, y, None, draw_seed(self.random_state),
            module=partial(with_adapters, base, self.rank, scale), training=training, cache=self.cache,
        )  # fmt: skip
        members, sizes = zip(*fit_members(make, self.n_members, n_jobs=self.n_jobs, verbose=self.verbose))
        self.n_parameters_, self.n_bytes_ = sizes[0]
        self.n_base_parameters_ = sum(value.numel() for value in weights)
        self.n_base_bytes_ = sum(value.nbytes for value in weights)
        return list(members), net


class _Trained(MemberMaker):
    def __init__(self, *given, module, training, cache):
        super().__init__(*given)
        self.module, self.training, self.cache = module, training, cache

    def __call__(self, number):
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0] >> 1)
        # As many checkpoints as of the network's own training.
        recorder = TrajectoryRecorder((recorder_in(self.net) or TrajectoryRecorder()).n_checkpoints)
        net, X, y = train_module(
            self.net, self.module, self.X, self.y, seed=seed, recorder=recorder, **self.training,
            fit=None if self.cache is None else partial(kept_fit, self.cache, seed),
        )  # fmt: skip
        member = prepared(self.estimator, self.seed)
        if "trajectory" in member.get_params(deep=False):
            member.set_params(trajectory=None)  # that of the network is none of the adapters'
        n_parameters = sum(value.numel() for value in net.module_.parameters())
        return member.fit(X, y, net=net), (n_parameters, _bytes_of(Trajectory.from_net(net)))


def _bytes_of(trajectory):
    """Of all tensors that a trajectory holds."""
    return sum(
        value.nbytes
        for checkpoint in trajectory.checkpoints
        for part in (checkpoint.parameters, checkpoint.buffers, *(checkpoint.optimizer_state or {}).values())
        for value in part.values()
        if isinstance(value, torch.Tensor)
    )
