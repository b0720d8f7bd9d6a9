"""What an optimizer's recorded state says of its steps: a diagonal preconditioner, and the rate of every step.

An adaptive step is ``theta -= rate * P * (momentum of gradients)`` with ``P = 1 / (sqrt(v) + eps)``, elementwise. Each
:class:`Family` reads ``v`` and the rate from what torch's optimizers keep. A kind of optimizer that is not here is
refused: a formula for another one would be silently wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """One kind of optimizer.

    Attributes
    ----------
    state : tuple of str
        What :meth:`second_moment` reads, beside ``step``.
    counted : bool
        Whether :meth:`rate_factors` may be other than None: then the rate of a step depends on its number.
    """

    state: tuple[str, ...] = ()
    counted: bool = False

    @property
    def adaptive(self):
        """Whether steps are preconditioned."""
        return bool(self.state)

    def keys(self, group):
        """The entries of the state needed under the settings of ``group``."""
        return self.state

    def second_moment(self, state, group):
        """``v`` of one parameter, free of the bias of its start, as the step divides by its root.

        Zero where no gradient ever came, and only there: such an element has ``P = 0``, it was not moved. A kind with
        ``eps`` inside the root therefore puts it in here for elements above zero alone, and has an :meth:`epsilon` of
        zero. A step with a numerator ``n`` is one that divides by the root of ``v / n ** 2``.
        """
        raise NotImplementedError

    def epsilon(self, group):
        """What is added to the root."""
        return float(group.get("eps", 0.0))

    def decoupled(self, group):
        """Whether weight decay shrinks the weights beside the step, instead of entering the gradient."""
        return bool(group.get("decoupled_weight_decay", False))

    def rate_factors(self, group, counts):
        """What multiplies the learning rate of a parameter's steps number ``counts`` (from 1): None for one.

        A factor of 0 says that the step was not preconditioned; its rate then counts as that of plain momentum.
        """
        return None


@dataclass(frozen=True)
class _Adam(Family):
    state: tuple[str, ...] = ("exp_avg_sq",)
    always_decoupled: bool = False

    def keys(self, group):
        return ("max_exp_avg_sq",) if group.get("amsgrad") else self.state

    def second_moment(self, state, group):
        # AMSGrad keeps the largest raw average and corrects it by the present step.
        return state[self.keys(group)[0]] / (1.0 - group["betas"][1] ** float(state["step"]))

    def decoupled(self, group):
        return self.always_decoupled or super().decoupled(group)


@dataclass(frozen=True)
class _RAdam(_Adam):
    counted: bool = True

    def rate_factors(self, group, counts):
        """The rectification (Liu et al. 2020, Algorithm 2); while undefined, steps are those of plain momentum."""
        beta = group["betas"][1]
        limit = 2.0 / (1.0 - beta) - 1.0
        powers = beta**counts
        length = limit - 2.0 * counts * powers / (1.0 - powers)
        defined = np.where(length > 5.0, length, limit)
        square = (defined - 4.0) * (defined - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * defined)
        return np.where(length > 5.0, np.sqrt(square), 0.0)


@dataclass(frozen=True)
class _Adamax(Family):
    state: tuple[str, ...] = ("exp_inf",)

    def second_moment(self, state, group):
        # eps is in the running maximum already, and is all of it where no gradient ever came.
        largest = state["exp_inf"]
        return torch.where(largest > 1.001 * float(group["eps"]), largest.square(), torch.zeros_like(largest))

    def epsilon(self, group):
        return 0.0


@dataclass(frozen=True)
class _RMSprop(Family):
    state: tuple[str, ...] = ("square_avg",)
    counted: bool = True

    def keys(self, group):
        return ("square_avg", "grad_avg") if group.get("centered") else self.state

    def second_moment(self, state, group):
        second = state["square_avg"]
        if group.get("centered"):
            return (second - state["grad_avg"].square()).clamp_min(0)
        return second / (1.0 - group["alpha"] ** float(state["step"]))

    def rate_factors(self, group, counts):
        """Its average starts at zero and is not corrected: the first steps are larger by what Adam would correct."""
        return None if group.get("centered") else 1.0 / np.sqrt(1.0 - group["alpha"] ** counts)


@dataclass(frozen=True)
class _Adagrad(Family):
    state: tuple[str, ...] = ("sum",)
    counted: bool = True

    def second_moment(self, state, group):
        return state["sum"] / float(state["step"]) if self._from_zero(group) else state["sum"]

    def rate_factors(self, group, counts):
        """A sum of squares is their mean times the number of steps: what falls between checkpoints is the rate."""
        factors = 1.0 / (1.0 + (counts - 1.0) * float(group.get("lr_decay", 0.0)))
        return factors / np.sqrt(counts) if self._from_zero(group) else factors

    def _from_zero(self, group):
        return not group.get("initial_accumulator_value")


FAMILIES = {
    "SGD": Family(),
    "Adam": _Adam(),
    "AdamW": _Adam(always_decoupled=True),
    "NAdam": _Adam(),
    "RAdam": _RAdam(),
    "Adamax": _Adamax(),
    "RMSprop": _RMSprop(),
    "Adagrad": _Adagrad(),
}


def family_of(stage):
    """The family of a stage's optimizer.

    Raises
    ------
    ValueError
        Where its kind is unknown, or it climbed (``maximize=True``).
    """
    if stage.optimizer not in FAMILIES:
        raise ValueError(
            f"stage {stage.index} was trained with {stage.optimizer}, whose steps are not known to be a diagonal "
            f"preconditioner times a momentum of gradients. Covered: {', '.join(FAMILIES)}. Train with one of them; "
            "for an optimizer of your own that steps like one of them, describe the training by "
            "Trajectory.from_checkpoints(..., optimizer=<that name>, optimizer_states=...); or use InfluenceFunctions "
            "or GradientSimilarity, which do not depend on the optimizer"
        )
    if any(group.get("maximize") for group in stage.groups):
        raise ValueError(
            f"stage {stage.index} was trained with maximize=True, which is not covered: train on the negated loss "
            "instead"
        )
    return FAMILIES[stage.optimizer]


def preconditioner_of(moment, epsilon):
    """``1 / (sqrt(v) + eps)``; 0 where no gradient ever came: there nothing moved, whatever ``eps`` says."""
    return torch.where(moment > 0, 1.0 / (moment.sqrt() + epsilon), torch.zeros_like(moment))
