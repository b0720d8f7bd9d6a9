"""Exact differentiation of a recorded training by an adaptive optimizer, its preconditioner frozen, on a quadratic.

Written from torch's documented update rules, with the optimizers' own state read after every step. A replay of the
weights by the same rules has to meet the recorded ones, so that the derivative is that of what was done.
"""

from __future__ import annotations

import torch


def _bias(beta, k):
    return 1.0 - beta**k


def adam_like(state, group, k):
    v = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    return 1.0 / ((v / _bias(group["betas"][1], k)).sqrt() + group["eps"])


def radam(state, group, k):
    v, b2 = state["exp_avg_sq"], group["betas"][1]
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * k * b2**k / _bias(b2, k)
    if rho <= 5:
        return torch.ones_like(v)
    r = ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5
    return r * _bias(b2, k) ** 0.5 / (v.sqrt() + group["eps"])


def rmsprop(state, group, k):
    v = state["square_avg"]
    if group["centered"]:
        v = v - state["grad_avg"] ** 2
    return 1.0 / (v.sqrt() + group["eps"])


PRECONDITIONERS = {
    "Adam": adam_like,
    "AdamW": adam_like,
    "NAdam": lambda state, group, k: adam_like(state, {**group, "amsgrad": False}, k),
    "RAdam": radam,
    "Adamax": lambda state, group, k: 1.0 / state["exp_inf"],
    "RMSprop": rmsprop,
    "Adagrad": lambda state, group, k: 1.0 / (state["sum"].sqrt() + group["eps"]) / (1 + (k - 1) * group["lr_decay"]),
}


class Stepper:
    """The update rule with given preconditioners, linear in the weights: for the weights and for their derivatives."""

    def __init__(self, kind, group):
        self.kind, self.group, self.memory, self.product = kind, group, 0.0, 1.0

    def __call__(self, theta, gradient, k, P):
        """One step; ``theta`` and ``gradient`` (p, any), ``P`` (p, 1)."""
        group, kind = self.group, self.kind
        lr, decay = group["lr"], group.get("weight_decay", 0.0)
        if kind == "AdamW" or group.get("decoupled_weight_decay"):
            theta = theta * (1 - lr * decay)
        else:
            gradient = gradient + decay * theta
        if kind == "RMSprop":
            self.memory = group["momentum"] * self.memory + P * gradient
            return theta - lr * self.memory
        if kind == "Adagrad":
            return theta - lr * P * gradient
        beta = group["betas"][0]
        self.memory = beta * self.memory + (1 - beta) * gradient
        if kind == "NAdam":
            psi = group["momentum_decay"]
            mu, following = (beta * (1 - 0.5 * 0.96 ** (j * psi)) for j in (k, k + 1))
            self.product *= mu
            theta = theta - lr * (1 - mu) / (1 - self.product) * P * gradient
            return theta - lr * following / (1 - self.product * following) * P * self.memory
        return theta - lr * P * self.memory / _bias(beta, k)


def frozen_effects(module, kind, options, n_steps, X, y, X_query, schedule=None):
    """Train a linear module on the mean squared error of all rows with ``torch.optim.<kind>``.

    Returns
    -------
    effects : (n_query, N)
        Derivative of the module's prediction in each row's weight (1/N kept), the preconditioners frozen.
    recorded : {step: (parameters, optimizer.state_dict())}
        Before the first and after every step.
    replayed : float
        Largest distance between the recorded weights and those of the replay.
    """
    optimizer = getattr(torch.optim, kind)(module.parameters(), **options)
    base = options["lr"]
    names = [name for name, _ in module.named_parameters()]
    A = torch.cat([X, torch.ones(len(X), 1, dtype=X.dtype)], 1)  # weight, then bias
    hessian = 2 * A.T @ A / len(X)
    recorded = {0: _snapshot(module, optimizer)}
    start = torch.cat([p.detach().reshape(-1) for p in module.parameters()])[:, None].clone()
    theta, delta = start.clone(), torch.zeros(A.shape[1], len(X), dtype=X.dtype)
    walk = turn = None
    for k in range(1, n_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = base * (schedule(k) if schedule else 1.0)
        before = torch.cat([p.detach().reshape(-1) for p in module.parameters()])[:, None]
        optimizer.zero_grad()
        ((module(X) - y) ** 2).mean().backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in module.parameters()])[:, None].clone()
        optimizer.step()
        group = optimizer.param_groups[0]
        P = [PRECONDITIONERS[kind](optimizer.state[p], group, k).reshape(-1) for p in module.parameters()]
        P = torch.cat(P)[:, None].clone()
        if walk is None:
            walk, turn = Stepper(kind, group), Stepper(kind, group)
        theta = walk(theta, gradient, k, P)
        own = 2 * (A @ before - y) * A / len(X)  # (N, p): what a row puts into the mean gradient
        delta = turn(delta, hessian @ delta + own.T, k, P)
        recorded[k] = _snapshot(module, optimizer)
    end = torch.cat([p.detach().reshape(-1) for p in module.parameters()])[:, None]
    queries = torch.cat([X_query, torch.ones(len(X_query), 1, dtype=X.dtype)], 1)
    assert names == ["weight", "bias"]
    return queries @ delta, recorded, float((theta - end).abs().max())


def _snapshot(module, optimizer):
    state = optimizer.state_dict()
    copied = {i: {k: v.clone() if torch.is_tensor(v) else v for k, v in s.items()} for i, s in state["state"].items()}
    groups = [dict(group) for group in state["param_groups"]]
    return {k: v.clone() for k, v in module.state_dict().items()}, {"state": copied, "param_groups": groups}
