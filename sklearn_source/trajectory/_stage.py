"""What one call of ``fit`` or ``partial_fit`` did."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["HYPER_PARAMETERS", "Stage"]

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
    _sums: dict[str, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self):
        shape = (self.n_steps, len(self.groups))
        for name in HYPER_PARAMETERS:
            if self.hyper[name].shape != shape:
                raise ValueError(f"expected {name} of shape {shape} (steps, groups), got {self.hyper[name].shape}")
        lr, momentum, dampening, decay = (np.asarray(self.hyper[name], dtype=np.float64) for name in HYPER_PARAMETERS)
        with np.errstate(divide="ignore", invalid="ignore"):
            terminal = lr * (1.0 - dampening) / (1.0 - momentum)  # the velocity that a constant gradient ends in
            rates = {"plain": lr, "terminal": terminal, "decay": terminal * decay}
        # Prefix sums: the sum over any run of steps is one subtraction.
        sums = {name: np.concatenate([np.zeros((1, shape[1])), rate.cumsum(axis=0)]) for name, rate in rates.items()}
        object.__setattr__(self, "_sums", sums)

    @property
    def n_steps(self) -> int:
        """Number of steps taken."""
        return self.end - self.start

    def step_rates(self, start: int, end: int) -> np.ndarray:
        """The rates that ``rate_sums("terminal", start, end)`` sums, step by step.

        Parameters
        ----------
        start, end : int
            The steps in ``(start, end]``, counted over all stages, within this one.

        Returns
        -------
        rates : ndarray, shape (end - start, n_groups)
            Per step and parameter group ``lr (1 - dampening) / (1 - momentum)``.
        """
        return np.diff(self._sums["terminal"][start - self.start : end - self.start + 1], axis=0)

    def rate_sums(self, kind: str, start: int, end: int) -> np.ndarray:
        """Sum a rate over the steps of this stage in ``(start, end]``.

        Parameters
        ----------
        kind : {"plain", "terminal", "decay"}
            The learning rate; the learning rate times ``(1 - dampening) / (1 - momentum)``; that times weight decay.
        start, end : int
            Steps counted over all stages; clipped to this stage.

        Returns
        -------
        sums : ndarray, shape (n_groups,)
            One per parameter group.

        Raises
        ------
        ValueError
            If a rate is not finite (the optimizer has no ``lr``, or a momentum of 1).
        """
        first, last = (min(max(step, self.start), self.end) - self.start for step in (start, end))
        sums = self._sums[kind][last] - self._sums[kind][first]
        if not np.isfinite(sums).all():
            raise ValueError(
                f"expected finite learning rates in stage {self.index}, but {self.optimizer} used lr "
                f"{self.hyper['lr'][first:last].tolist()[:1]} with momentum "
                f"{self.hyper['momentum'][first:last].tolist()[:1]}: an optimizer without 'lr' or with momentum 1 has "
                "no integrated learning rate"
            )
        return sums
