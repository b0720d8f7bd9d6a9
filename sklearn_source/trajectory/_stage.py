"""What one call of ``fit`` or ``partial_fit`` did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ._momentum import pull_responses, second_order_terms

__all__ = ["HYPER_PARAMETERS", "Stage", "with_velocities"]

HYPER_PARAMETERS = ("lr", "momentum", "dampening", "weight_decay")


@dataclass(frozen=True, eq=False)
class Stage:
    """One uninterrupted training: a call of ``fit`` or ``partial_fit``.

    Read more in the :ref:`User Guide <stages>`.

    Parameters
    ----------
    index : int
        Position among the stages.
    start, end : int
        It took the steps ``start + 1, ..., end``, counted over all stages.
    optimizer : str
        Class name of the optimizer.
    groups : tuple of dict
        One for each parameter group: ``"params"`` (names) and the hyper-parameters that are not recorded per step
        (``nesterov``, ``betas``, ``eps``, ...).
    hyper : dict of str to ndarray, each (n_steps, n_groups)
        ``lr``, ``momentum``, ``dampening`` and ``weight_decay`` as the optimizer used them at each step; 0 where the
        optimizer has none, and NaN for a missing ``lr``.
    n_rows : int
        Number of rows given to ``fit``.
    rows : ndarray of int64
        Indices, among these, of the rows really trained on (skorch's ``train_split`` takes some away).
    row_hashes : ndarray of uint64, shape (n_rows,), or None
        Fingerprints of the rows given to ``fit``, see :func:`row_hashes`.
    batches : ndarray of shape (n_steps,), optional
        Batches whose gradients each step added up (gradient accumulation). Default: one.
    continues : bool, default=False
        Whether the optimizer went on from the stage before, with the velocity that it had.
    edits : tuple of (int, float), default=()
        Steps after which the recorder saw that something else than the optimizer had changed the weights, and by how
        much, relative to their norm. It looks after few steps.
    draws : dict of int to ndarray of shape (2, len(rows)), optional
        By step, how much of the batches up to it each row of ``rows`` made up, where a draw counts one over the size of
        its batch, and how often it was drawn. None where all rows were drawn alike.
    factors : dict of str to float, optional
        Parameters whose gradient was that of the loss times a constant, as :meth:`Trajectory.verify` found.
    masks : dict of str to Tensor of bool, optional
        Parameters of which some elements never got a gradient: False there.
    velocity_worth : ndarray of shape (n_groups,), optional
        How far one of velocity at the end goes on to move the weights in stages that continue this one.
    exact_hashes : ndarray of uint64, shape (n_rows,), optional
        What ``row_hashes`` are, of every bit, of rows that float32 cannot hold.
    """

    index: int
    start: int
    end: int
    optimizer: str
    groups: tuple[dict, ...]
    hyper: dict[str, np.ndarray]
    n_rows: int
    rows: np.ndarray
    row_hashes: np.ndarray | None = None
    batches: np.ndarray | None = None
    continues: bool = False
    edits: tuple[tuple[int, float], ...] = ()
    draws: Mapping[int, np.ndarray] | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    velocity_worth: np.ndarray | None = field(default=None, repr=False)
    exact_hashes: np.ndarray | None = field(default=None, repr=False)
    _worth_before: np.ndarray = field(init=False, repr=False)
    _sums: dict[str, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self):
        shape = (self.n_steps, len(self.groups))
        for name in HYPER_PARAMETERS:
            if self.hyper[name].shape != shape:
                raise ValueError(f"expected {name} of shape {shape} (steps, groups), got {self.hyper[name].shape}")
        lr, momentum, dampening, decay = (np.asarray(self.hyper[name], dtype=np.float64) for name in HYPER_PARAMETERS)
        batches = np.ones(shape[0]) if self.batches is None else np.asarray(self.batches, dtype=np.float64)
        if batches.shape != shape[:1]:
            raise ValueError(f"expected batches of shape {shape[:1]} (steps,), got {batches.shape}")
        rules = lr, momentum, dampening, [bool(group.get("nesterov")) for group in self.groups], not self.continues
        worth = np.zeros(shape[1]) if self.velocity_worth is None else self.velocity_worth
        responses, worth_before = pull_responses(*rules, worth)
        pulls = np.broadcast_to(batches[:, None], shape)
        steps = {
            "plain": lr,
            "momentum": responses * pulls,
            "decay": responses * decay,
            "second": second_order_terms(*rules, pulls, responses),
        }
        # Prefix sums: the sum over any run of steps is one subtraction.
        sums = {name: np.concatenate([np.zeros((1, shape[1])), each.cumsum(axis=0)]) for name, each in steps.items()}
        object.__setattr__(self, "_sums", sums)
        object.__setattr__(self, "_worth_before", worth_before)

    @property
    def n_steps(self) -> int:
        """Number of steps taken."""
        return self.end - self.start

    def step_rates(self, start: int, end: int) -> np.ndarray:
        """The rates that ``rate_sums("momentum", start, end)`` sums, step by step.

        Parameters
        ----------
        start, end : int
            The steps in ``(start, end]``, counted over all stages, within this one.

        Returns
        -------
        rates : ndarray, shape (end - start, n_groups)
            Per step and parameter group, how far a pull of one by each of its batches moves the weights until the end
            of training.
        """
        return np.diff(self._sums["momentum"][start - self.start : end - self.start + 1], axis=0)

    def draws_between(self, start: int, end: int) -> np.ndarray | None:
        """How much each row was drawn in the steps ``(start, end]``.

        Parameters
        ----------
        start, end : int
            Steps counted over all stages; those nearest that were looked at.

        Returns
        -------
        draws : ndarray of shape (2, len(rows)) or None
            See ``draws``. Over the whole stage, where nothing was drawn in between.
        """
        if self.draws is None:
            return None
        last = max(self.draws)
        points = {self.start: np.zeros_like(self.draws[last]), **self.draws}
        first, second = (points[min(points, key=lambda step: abs(step - near))] for near in (start, end))
        inside = second - first
        return inside if inside[1].sum() > 0 else np.asarray(self.draws[last])

    def rate_sums(self, kind: str, start: int, end: int) -> np.ndarray:
        """Sum a rate over the steps of this stage in ``(start, end]``.

        Parameters
        ----------
        kind : {"plain", "momentum", "decay", "second"}
            The learning rate; how far a pull of one by each batch of the steps moves the weights until the end of
            training, momentum and all; the same of a pull by the weight decay; kappa, see :mod:`._momentum`.
        start, end : int
            Steps counted over all stages; clipped to this stage.

        Returns
        -------
        sums : ndarray, shape (n_groups,)
            One per parameter group.

        Raises
        ------
        ValueError
            If a rate is not finite (the optimizer has no ``lr``).
        """
        first, last = (min(max(step, self.start), self.end) - self.start for step in (start, end))
        sums = self._sums[kind][last] - self._sums[kind][first]
        if not np.isfinite(sums).all():
            raise ValueError(
                f"expected finite learning rates in stage {self.index}, but {self.optimizer} used lr "
                f"{self.hyper['lr'][first:last].tolist()[:1]} with momentum "
                f"{self.hyper['momentum'][first:last].tolist()[:1]}: an optimizer without 'lr' has no integrated "
                "learning rate"
            )
        return sums


def with_velocities(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Let each stage's rates hold what its last velocity moves in the stages that continue it.

    Parameters
    ----------
    stages : sequence of Stage
        In order.

    Returns
    -------
    stages : tuple of Stage
    """
    result: list[Stage] = []
    for stage in reversed(stages):
        later = result[-1] if result else None
        if later is not None and later.continues and _names(later) == _names(stage) and later._worth_before.any():
            stage = replace(stage, velocity_worth=later._worth_before)
        result.append(stage)
    return tuple(reversed(result))


def _names(stage):
    return [group["params"] for group in stage.groups]
