"""AdaBelief [1]_: an optimizer, and what the package has to know of it.

.. [1] J. Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sklearn_source.trajectory._preconditioner import FAMILIES, Family


class AdaBelief(torch.optim.Optimizer):
    """Adam whose second moment is that of the gradient's distance from its own average."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(p), exp_avg_var=torch.zeros_like(p))
                grad = p.grad + group["weight_decay"] * p
                state["step"] += 1
                state["exp_avg"].lerp_(grad, 1 - first)
                state["exp_avg_var"].lerp_((grad - state["exp_avg"]).square(), 1 - second)
                mean = state["exp_avg"] / (1 - first ** float(state["step"]))
                variance = state["exp_avg_var"] / (1 - second ** float(state["step"]))
                p.sub_(group["lr"] * mean / (variance.sqrt() + group["eps"]))
        return loss


@dataclass(frozen=True)
class _AdaBelief(Family):
    """What the optimizer above divides by. In the package this class and the line below it are all that is added."""

    state: tuple[str, ...] = ("exp_avg_var",)

    def second_moment(self, state, group):
        return state["exp_avg_var"] / (1.0 - group["betas"][1] ** float(state["step"]))


# By name for a class of torch.optim, else by module and name: another class may be called the same.
FAMILIES[f"{AdaBelief.__module__}.AdaBelief"] = _AdaBelief()
