"""Plain gradient descent / SGD with one loss weight per row, and the effects of a row by actual retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call, grad, vmap

from ._dense import call, n_rows, one_row


@dataclass(frozen=True)
class Recipe:
    """How training goes: torch's SGD rule. ``lr`` one number or one per step; ``batches[k]`` the row indices of step k
    (None: all rows at every step); weight decay is coupled to the gradient."""

    n_steps: int
    lr: float | Sequence[float]
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batches: Sequence[Sequence[int]] | None = None

    def rate(self, step) -> float:
        return self.lr[step] if isinstance(self.lr, Sequence) else self.lr


def train(module, initial, loss_fn, X, y, recipe, row_weights, record=()):
    """Train one replica per row of ``row_weights`` (R, N), all from ``initial`` and on the same batches.

    The loss of a step is ``1/|B| sum_{m in B} w_m l_m``: a weight below 1 takes from the row, not from |B|.

    Returns ``{step: {name: (R, ...) tensor}}`` for the steps in ``record`` (0 = initial) and the last one.
    """
    n_replicas = len(row_weights)
    theta = {name: value.detach().expand(n_replicas, *value.shape).clone() for name, value in initial.items()}
    velocity = None
    kept = {0: dict(theta)} if 0 in record else {}

    def row_loss(values, x, target):
        return loss_fn(functional_call(module, values, (x[None],)), target[None])

    def step_loss(values, weights, batch):
        losses = vmap(row_loss, in_dims=(None, 0, 0))(values, X[batch], y[batch])
        return (weights[batch] * losses).sum() / len(batch)

    gradient = vmap(grad(step_loss), in_dims=(0, 0, None))
    for step in range(recipe.n_steps):
        batch = torch.arange(n_rows(X)) if recipe.batches is None else torch.as_tensor(recipe.batches[step])
        g = gradient(theta, row_weights, batch)
        g = {name: g[name] + recipe.weight_decay * theta[name] for name in theta}
        if recipe.momentum:
            if velocity is None:  # torch starts the buffer at the gradient itself, dampening or not
                velocity = g
            else:
                velocity = {n: recipe.momentum * velocity[n] + (1 - recipe.dampening) * g[n] for n in theta}
            g = {n: g[n] + recipe.momentum * velocity[n] for n in theta} if recipe.nesterov else velocity
        theta = {name: theta[name] - recipe.rate(step) * g[name] for name in theta}
        if step + 1 in record or step + 1 == recipe.n_steps:
            kept[step + 1] = dict(theta)
    return kept


def replica(stacked, r=0) -> dict[str, torch.Tensor]:
    """The parameters of one replica."""
    return {name: value[r] for name, value in stacked.items()}


def measure(module, stacked, measurement_fn, X_query, y_query=None) -> torch.Tensor:
    """(R, n_query) measurement of every replica on every query."""
    n_replicas = len(next(iter(stacked.values())))
    rows = []
    for r in range(n_replicas):
        values = [
            measurement_fn(call(module, replica(stacked, r), one_row(X_query, q)), one_row(y_query, q))
            for q in range(n_rows(X_query))
        ]
        rows.append(torch.stack([value.reshape(()) for value in values]))
    return torch.stack(rows)


def retraining_effects(module, initial, loss_fn, X, y, recipe, measurement_fn, X_query, y_query, weight):
    """(n_query, N) ``f_q(all rows) - f_q(row m's loss weight = weight)``, 1/N kept."""
    n = n_rows(X)
    row_weights = torch.ones(n + 1, n, dtype=torch.float64)
    for m in range(n):
        row_weights[m + 1, m] = weight
    final = train(module, initial, loss_fn, X, y, recipe, row_weights)[recipe.n_steps]
    f = measure(module, final, measurement_fn, X_query, y_query)
    return (f[0] - f[1:]).T


def finite_difference_effects(
    module, initial, loss_fn, X, y, recipe, measurement_fn, X_query, y_query=None, eps=1e-4
) -> torch.Tensor:
    """Effect of reweighting each row by ``1 - eps`` in actual retraining, scaled to removal: divided by eps."""
    effects = retraining_effects(module, initial, loss_fn, X, y, recipe, measurement_fn, X_query, y_query, 1.0 - eps)
    return effects / eps


def leave_one_out_effects(module, initial, loss_fn, X, y, recipe, measurement_fn, X_query, y_query=None):
    """Effect of removing each row for good: its loss weight 0 in actual retraining, 1/N (1/|B|) kept."""
    return retraining_effects(module, initial, loss_fn, X, y, recipe, measurement_fn, X_query, y_query, 0.0)
