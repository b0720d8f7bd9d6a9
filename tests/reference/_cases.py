"""Tiny float64 problems."""

from __future__ import annotations

import torch
from torch import nn

cross_entropy = nn.functional.cross_entropy
mse = nn.functional.mse_loss


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n, classes, seed=0):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def build(*layers, seed=0):
    """A float64 eval-mode Sequential with seeded N(0, 0.5^2) parameters, and those parameters."""
    module = nn.Sequential(*layers).double().eval()
    for i, parameter in enumerate(module.parameters()):
        parameter.data = 0.5 * random(*parameter.shape, seed=100 * seed + i)
    return module, {name: p.detach().clone() for name, p in module.named_parameters()}


def perturbed(params, seed):
    return {name: p + 0.1 * random(*p.shape, seed=seed + i) for i, (name, p) in enumerate(params.items())}


def mlp_case():
    module, params = build(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 3))
    return module, params, random(6, 3), labels(6, 3)


def conv_case():
    module, params = build(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Conv2d(4, 4, (2, 1), dilation=(1, 2), groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    module[1].running_mean.copy_(random(4))
    module[1].running_var.copy_(random(4, seed=1).square() + 0.5)
    return module, params, random(5, 2, 5, 4), labels(5, 3)


class Sequence(nn.Module):
    """Linear layers over tokens, one of them called twice, and a mean over tokens."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x))))).mean(1)


def sequence_case():
    torch.manual_seed(0)
    module = Sequence().double().eval()
    return module, {n: p.detach().clone() for n, p in module.named_parameters()}, random(4, 5, 3), labels(4, 2)


CASES = {"mlp": mlp_case, "conv": conv_case, "sequence": sequence_case}


def block_diagonal_checkpoints(case):
    module, params, X, y = CASES[case]()
    return module, [(params, 0.25), (perturbed(params, 50), 0.75)], X, y


def linear_problem(seed=0):
    """60 rows, 6 features of scales 1 to 0.1: slow directions are far from converged after 400 steps."""
    scale = torch.logspace(0, -1, 6, dtype=torch.float64)
    X, X_query = random(60, 6, seed=seed) * scale, random(8, 6, seed=seed + 1) * scale
    y = X @ random(6, 1, seed=seed + 2) + 0.3 * random(60, 1, seed=seed + 3)
    module, params = build(nn.Linear(6, 1), seed=seed)
    return module, params, X, y, X_query
