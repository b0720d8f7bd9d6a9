"""Validation of rows against what the network reads."""

from __future__ import annotations

import pytest
import torch
from skorch import NeuralNet
from torch import nn

from sklearn_source.network import Network, row_form, validate_query_rows, validate_training_rows


class Flat(nn.Module):
    """One output per element of all rows."""

    def forward(self, z):
        return z.reshape(-1)


class MinusMean(nn.Module):
    """A statistic over the batch, in evaluation mode too."""

    def forward(self, z):
        return z - z.mean(0)


@pytest.fixture
def x():
    return torch.randn((4, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_form_of_a_row(x):
    assert row_form({"a": x, "b": [x.long(), x[:, 0]]}) == {"a": ((5,), True), "b": [((5,), False), ((), True)]}


def test_good_rows_give_their_outputs(make_net, x):
    network = Network.from_net(make_net())
    torch.testing.assert_close(validate_training_rows(network, x), network.forward(x))


@pytest.mark.parametrize(
    ("head", "match"), [(Flat(), "expected one output per row"), (MinusMean(), "changes with the other rows")]
)
def test_outputs_that_are_no_rows_own(make_net, x, head, match):
    with pytest.raises(ValueError, match=match):
        validate_training_rows(Network.from_net(make_net(head=head)), x)


def test_rows_of_another_width(make_net, x):
    network = Network.from_net(make_net())
    with pytest.raises(ValueError, match=r"cannot read X, floats of shape \(4,\) per row: pass the X given to net.fit"):
        validate_training_rows(network, x[:, :4])
    form = row_form(x)
    validate_query_rows(network, x[:2], form)
    with pytest.raises(ValueError, match=r"expected rows like those of fit, floats of shape \(5,\), got floats of"):
        validate_query_rows(network, x[:, :4], form)
    with pytest.raises(ValueError, match="another number of axes"):
        validate_query_rows(network, x[:, None], form)


def test_another_form_that_the_network_reads_is_no_error(x):
    class AnyLength(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            return self.scale * x.mean(1)

    network = Network.from_net(NeuralNet(AnyLength, criterion=nn.MSELoss).initialize())
    validate_query_rows(network, x[:, :3], row_form(x))
