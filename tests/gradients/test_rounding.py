"""Gradients that are exactly zero in theory and rounding in practice are no disagreement with autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sklearn_source.gradients import GradientEngine


class Keys(nn.Module):
    """The bias of the keys moves all scores of a query alike, which a softmax takes out."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, width) for width in (8, 8, 8, 2))

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        return self.out((torch.softmax(scores, -1) @ self.v(x)).mean(1))


class Pooled(nn.Module):
    """So does the bias of the one score that tokens are pooled by."""

    def __init__(self):
        super().__init__()
        self.k, self.out = nn.Linear(8, 1), nn.Linear(8, 2)

    def forward(self, x):
        return self.out((torch.softmax(self.k(x), 1) * x).sum(1))


class Normalised(nn.Module):
    """A norm over positions takes out the bias before it."""

    def __init__(self):
        super().__init__()
        self.k, self.norm, self.out = nn.Conv1d(5, 6, 3), nn.InstanceNorm1d(6), nn.Linear(36, 2)

    def forward(self, x):
        return self.out(torch.tanh(self.norm(self.k(x))).flatten(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cls", [Keys, Pooled, Normalised])
def test_a_bias_that_something_takes_out(cls, dtype):
    for seed in range(4):
        torch.manual_seed(seed)
        module, x = cls().to(dtype).eval(), torch.randn(16, 5, 8).to(dtype)
        engine = GradientEngine(module, module, "k.bias")
        assert engine.verify(x) == []
        with engine.attached():
            capture = engine.capture(x)
            (gradient,) = capture.pull(torch.randn(16, 2).to(dtype))
        assert gradient.matrix().abs().max() < 100 * torch.finfo(dtype).eps


def test_a_wrong_gradient_of_that_size_is_still_one():
    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1e-3 * self.bias.sum() * x.sum(1, keepdim=True)

    module = Scaled(3, 2).double()
    engine = GradientEngine(module, module, "bias")
    with pytest.warns(UserWarning, match="uses bias"):
        assert engine.verify(torch.randn(5, 3).double()) == [""]
