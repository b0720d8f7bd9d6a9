"""Inputs laid out a few rows at a time: the same numbers for every layer, number of rows and budget."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from sklearn_source.gradients import GradientEngine
from sklearn_source.gradients.algebra import _factored, _products, squared_in_basis, weighted_sum


class Flattened(nn.Module):
    """Rows and positions in one axis inside."""

    def __init__(self, lead):
        super().__init__()
        self.lead, self.fc = lead, nn.Linear(5, 4)

    def forward(self, x):
        flat = x.reshape(*self.lead, x.shape[-1])
        return torch.tanh(self.fc(flat)).reshape(x.shape[0], x.shape[1], 4).sum(1)


class Twice(nn.Module):
    """One convolution called on two sizes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1, groups=2)

    def forward(self, x):
        return self.conv(torch.tanh(self.conv(x))[..., ::2]).flatten(1)


LAYERS = {
    "sequence": (lambda: nn.Linear(3, 4), (6, 3)),
    "flattened": (lambda: Flattened((-1,)), (6, 5)),
    "flattened, one more axis": (lambda: Flattened((1, -1)), (6, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 9, 7)),
    "twice": (Twice, (4, 9)),
    "no bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 8, 5)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 12, 9)),
}


def gradient_of(make, shape, rows):
    """The layer's gradient, and the same with all its inputs laid out at once."""
    torch.manual_seed(0)
    module = make().double()
    x = torch.randn(rows, *shape, dtype=torch.float64)
    engine = GradientEngine(module, module)
    assert not engine.verify(x)
    with engine.attached():
        capture = engine.capture(x)
        (gradient,) = capture.pull(torch.randn_like(capture.output))
    return gradient, gradient.a.clone(), gradient.g


@pytest.mark.parametrize("budget", [1, 3000, 2**23])
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_budget_gives_the_same(monkeypatch, layer, rows, budget):
    gradient, a, g = gradient_of(*LAYERS[layer], rows)
    monkeypatch.setattr(_factored, "LAYOUT_BYTES", budget)
    monkeypatch.setattr(_factored, "CHUNK_BYTES", budget)
    monkeypatch.setattr(_products, "CHUNK_BYTES", budget)
    G = torch.einsum("bgto,bgti->bgoi", g, a)
    groups, out, inp = gradient.shape
    queries = torch.randn(3, G[0].numel(), dtype=torch.float64)
    left, right = (torch.randn(groups, n, n, dtype=torch.float64) for n in (out, inp))
    turned = torch.einsum("gpo,bgpi,gij->bgoj", left, G, right)
    close = torch.testing.assert_close
    close(gradient.matrix(), G)
    close(gradient[rows // 2 :].matrix(), G[rows // 2 :])
    close(gradient[1:][2:4].matrix(), G[1:][2:4])
    close(gradient.squared_norm(), G.square().sum((1, 2, 3)))
    close(gradient.input_moment(), torch.einsum("bgti,bgtj->gij", a, a))
    close(gradient.output_moment(), torch.einsum("bgto,bgtp->gop", g, g))
    close(gradient.rotate(left, right).matrix(), turned)
    close(squared_in_basis([gradient, gradient], left, right), 2 * turned.square().sum(0))
    for met, expected in ((gradient, G), (gradient.rotate_factors(left, right), turned)):
        close(met.inner_(queries, torch.ones(3, rows, dtype=torch.float64)), 1 + queries @ expected.flatten(1).T)
    summed = weighted_sum([gradient, gradient.rotate_factors(left, right)], [0.5, 2.0])
    close(
        summed.inner_(queries, torch.zeros(3, rows, dtype=torch.float64)), queries @ (G / 2 + 2 * turned).flatten(1).T
    )
    close(pickle.loads(pickle.dumps(summed))[:1].matrix(), (G / 2 + 2 * turned)[:1])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "layer, shape, pays",
    [
        (lambda b: nn.Conv1d(3, 2, 4, padding=2, bias=b), (3, 11), True),
        (lambda b: nn.Conv1d(3, 2, 3, dilation=2, bias=b), (3, 16), True),
        (lambda b: nn.Conv1d(2, 2, 3, dilation=2, stride=2, bias=b), (2, 21), True),
        (lambda b: nn.Conv1d(2, 2, 5, dilation=3, padding=6, bias=b), (2, 13), True),
        (lambda b: nn.Conv1d(2, 2, 5, dilation=3, bias=b), (2, 15), False),  # fewer windows than places
        (lambda b: nn.Conv1d(2, 2, 1, bias=b), (2, 15), False),
        (lambda b: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", groups=2, bias=b), (4, 6, 5), True),
        (lambda b: nn.Conv2d(2, 3, (2, 3), padding="same", bias=b), (2, 7, 4), True),
        (lambda b: nn.Conv2d(2, 3, 3, stride=(1, 2), bias=b), (2, 9, 8), True),
        (lambda b: nn.Conv2d(60, 2, (2, 3), bias=b), (60, 7, 5), True),  # several tiles in a block of places
        (lambda b: nn.Conv3d(2, 2, (3, 2, 1), padding=(1, 0, 0), bias=b), (2, 7, 3, 2), True),
    ],
)
def test_overlapping_windows_save_products_and_change_nothing(monkeypatch, layer, shape, pays, bias):
    gradient, a, _ = gradient_of(lambda: layer(bias), shape, 5)
    monkeypatch.setattr(_factored, "LAYOUT_BYTES", 2 * a[0].numel() * 8)
    assert gradient.inputs.overlap.pays == pays
    torch.testing.assert_close(gradient.input_moment(), torch.einsum("bgti,bgtj->gij", a, a))


def test_windows_that_no_step_of_the_kernel_joins_do_not_overlap():
    gradient, a, _ = gradient_of(lambda: nn.Conv1d(2, 2, 3, stride=2), (2, 21), 3)
    assert gradient.inputs.overlap is None
    torch.testing.assert_close(gradient.input_moment(), torch.einsum("bgti,bgtj->gij", a, a))
