"""Measurements of one query row (METHOD section 1), each ``f(output, y) -> scalar`` on a batch of one."""

from __future__ import annotations

import torch


def predicted_class(output) -> torch.Tensor:
    """(1,) class that the row's output favours: argmax of several outputs, sign of a single logit."""
    flat = output.detach().reshape(-1)
    return (flat > 0).long() if flat.numel() == 1 else flat.argmax().reshape(1)


def log_odds(output, y):
    """``z_y - log sum_{j != y} exp z_j`` for logits (1, C)."""
    z, label = output.reshape(-1), int(y)
    others = sum(torch.exp(z[j]) for j in range(len(z)) if j != label)
    return z[label] - torch.log(others)


def log_odds_probabilities(output, y):
    """``log p_y - log(1 - p_y)`` for class probabilities (1, C), with 1 - p_y summed over the other classes."""
    p, label = output.reshape(-1), int(y)
    others = sum(p[j] for j in range(len(p)) if j != label)
    return torch.log(p[label]) - torch.log(others)


def log_odds_binary(output, y):
    """``log p_y - log(1 - p_y)`` for a single logit z with ``p_1 = sigmoid(z)``: +z for class 1, -z for class 0."""
    p_one = torch.sigmoid(output.reshape(()))
    p = p_one if int(y) == 1 else 1 - p_one
    return torch.log(p) - torch.log(1 - p)


def prediction(index=0):
    """The network's output number ``index``."""
    return lambda output, y=None: output.reshape(-1)[index]


def neg_loss(loss_fn):
    """Minus the criterion on the query."""
    return lambda output, y: -loss_fn(output, y)
