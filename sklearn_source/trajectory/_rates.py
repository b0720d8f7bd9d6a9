"""Learning rates and weight decay of a training's steps, summed over some of them."""

from __future__ import annotations

from numbers import Integral

from ._stage import Stage

# A gradient c times as large moves the weights c times as far; decay is none of it.
_POWERS_OF_A_FACTOR = {"plain": 0, "momentum": 1, "decay": 0, "second": 2}


class Rates:
    """What a trajectory tells of the rates of its steps, whichever checkpoints it has.

    Parameters
    ----------
    stages : tuple of Stage
        Consecutive, from step 0 on.
    parameter_names : tuple of str
        In the order of the module, also those that no optimizer held.
    """

    def __init__(self, stages: tuple[Stage, ...], parameter_names: tuple[str, ...]) -> None:
        self.stages, self.parameter_names = stages, parameter_names

    @property
    def n_steps(self) -> int:
        """Steps taken over all stages."""
        return self.stages[-1].end

    def integrated_learning_rate(self, start: int, end: int, *, per: str = "momentum") -> dict[str, float]:
        r"""Sum the learning rates of the steps in ``(start, end]``.

        Parameters
        ----------
        start, end : int
            Steps, counted over all stages.
        per : {"momentum", "plain"}
            ``"momentum"``: how far a constant gradient of one in these steps moves the weights until the end of
            training, by the velocity that it leaves. Far from the end that is
            :math:`\sum_k \eta_k (1 - \text{dampening}_k) / (1 - \text{momentum}_k)` ([1]_, appendix D); a step that
            added up several batches counts as often. ``"plain"``: :math:`\sum_k \eta_k`.

        Returns
        -------
        rates : dict of parameter name to float
            0 for a parameter that no group of the optimizer held.

        References
        ----------
        .. [1] Bae, Lin, Lorraine, Grosse, "Training Data Attribution via Approximate Unrolled Differentiation", 2024.
        """
        if per not in ("momentum", "plain"):
            raise ValueError(f"expected per to be 'momentum' or 'plain', got {per!r}")
        return self._sum_rates(per, start, end)

    def mean_weight_decay(self, start: int, end: int) -> dict[str, float]:
        """Average the weight decay of the steps in ``(start, end]``, each weighted by its learning rate.

        Parameters
        ----------
        start, end : int
            Steps, counted over all stages.

        Returns
        -------
        weight_decay : dict of parameter name to float
            0 where the learning rates sum to 0.
        """
        rates, decays = (self._sum_rates(kind, start, end) for kind in ("momentum", "decay"))
        return {name: decays[name] / rate if rate != 0.0 else 0.0 for name, rate in rates.items()}

    def second_order(self, start: int, end: int) -> dict[str, float]:
        r"""What steps of finite size do beside the flow of their rates, over the steps in ``(start, end]``.

        Where a direction of curvature s is left with :math:`\exp(-h s)` by the flow, discrete steps with momentum leave
        :math:`\exp(-h s - c\,(h s)^2)`, to second order in s. For plain descent at a constant rate c is half the
        inverse of the number of steps; momentum m adds m / (1 - m) to the half, in the long run.

        Parameters
        ----------
        start, end : int
            Steps, counted over all stages.

        Returns
        -------
        c : dict of parameter name to float
            0 where the learning rates sum to 0.
        """
        rates, seconds = (self._sum_rates(kind, start, end) for kind in ("momentum", "second"))
        return {name: seconds[name] / rate**2 if rate != 0.0 else 0.0 for name, rate in rates.items()}

    def _sum_rates(self, kind, start, end):
        whole = all(isinstance(step, Integral) and not isinstance(step, bool) for step in (start, end))
        if not whole or not 0 <= start <= end <= self.n_steps:
            raise ValueError(
                f"expected whole steps 0 <= start <= end <= {self.n_steps}, got start={start!r}, end={end!r}"
            )
        held = (name for stage in self.stages for group in stage.groups for name in group["params"])
        totals = dict.fromkeys([*self.parameter_names, *held], 0.0)
        power = _POWERS_OF_A_FACTOR[kind]
        for stage in self.stages:
            if stage.end <= start or stage.start >= end:
                continue
            for group, total in zip(stage.groups, stage.rate_sums(kind, start, end).tolist()):
                for name in group["params"]:
                    totals[name] += total * stage.factors.get(name, 1.0) ** power
        return totals
