"""The U-Net of the examples: its shapes, and its gradients row by row against autograd."""

from __future__ import annotations

import pytest
import torch

from sklearn_source.gradients import GradientEngine, to_matrices
from sklearn_source.modules import UNet


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("channels", [(8,), (8, 16), (4, 8, 8)])
def test_output_is_shaped_like_the_image(channels, size):
    images = torch.randn(3, 2, size, size)
    assert UNet(2, channels)(images, torch.tensor([0, 5, 900])).shape == images.shape


def test_timestep_and_class_matter():
    torch.manual_seed(0)
    net, image = UNet(channels=(8,), n_classes=3), torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    output = net(image, torch.tensor([1, 50, 50]), torch.tensor([0, 0, 1]))
    assert (output[0] - output[1]).abs().max() > 1e-3
    assert (output[1] - output[2]).abs().max() > 1e-3


@pytest.mark.parametrize("n_examples", [1, 3])
def test_gradients_of_rows_are_those_of_autograd(n_examples):
    """Also where every row is several examples, and no layer needs the slow way."""
    torch.manual_seed(0)
    net = UNet(channels=(4, 8), n_classes=3).double().eval()
    x = torch.randn(4, n_examples, 1, 6, 6, dtype=torch.float64)
    t, label = torch.randint(1000, (4, n_examples)), torch.randint(3, (4, n_examples))

    def forward(batch):
        output = net(*(leaf.flatten(0, 1) for leaf in batch))
        return output.unflatten(0, batch[0].shape[:2])

    engine = GradientEngine(net, forward)
    assert engine.verify((x, t, label)) == []
    assert all(block.by_uses for block in engine.blocks)
    assert sum(block.size for block in engine.blocks) == sum(p.numel() for p in net.parameters())
    cotangent = torch.randn(x.shape, dtype=torch.float64)
    with engine.attached():
        gradients = engine.capture((x, t, label)).pull(cotangent)
    for row in range(4):
        some = slice(row, row + 1)
        output = forward((x[some], t[some], label[some]))
        names, values = zip(*net.named_parameters())
        expected = dict(zip(names, torch.autograd.grad(output, values, cotangent[some])))
        for block, gradient in zip(engine.blocks, gradients):
            torch.testing.assert_close(gradient[some].matrix()[0], to_matrices(block, expected), rtol=1e-9, atol=1e-11)
