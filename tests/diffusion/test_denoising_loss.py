"""What is measured of a diffusion model."""

from __future__ import annotations

import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNet

from sklearn_source import TracIn
from sklearn_source.diffusion import DenoisingLoss
from tests._diffusion_nets import small_net


def test_grids_lie_in_the_middle_of_equal_parts():
    assert DenoisingLoss(4).grid(1000) == [125, 375, 625, 875]
    assert DenoisingLoss(4, timesteps=(500, 1000)).grid(1000) == [562, 687, 812, 937]
    assert DenoisingLoss(timesteps=7).grid(1000) == [7]
    assert DenoisingLoss(timesteps=(3, 6)).grid(1000) == [3, 4, 5]  # no timestep twice
    assert DenoisingLoss(1000).grid(1000) == list(range(1000))


def test_draws_are_as_many_as_the_grid_has_points_and_all_different():
    draws = DenoisingLoss(5, 3, seed=4).draws(small_net())
    assert [draw.given for draw in draws] == [2] * 3 + [6] * 3 + [10] * 3 + [14] * 3 + [18] * 3
    assert len({draw.number for draw in draws}) == 15
    assert {draw.seed for draw in draws} == {4}


@pytest.mark.parametrize(("loss", "expected"), [("squared", -5.0), ("absolute", -2.0), ("output", 1.0)])
def test_losses(loss, expected):
    output, target = torch.ones(2, 3, 2), torch.tensor([0.0, 4.0]).expand(2, 3, 2)  # off by 1 and 3
    assert DenoisingLoss(loss=loss)(output, target).tolist() == [expected] * 2


def test_it_is_a_parameter_as_others_are():
    est = TracIn(measurement=DenoisingLoss(3, timesteps=(0, 5)))
    assert clone(est).measurement == est.measurement
    assert repr(est.measurement).startswith("DenoisingLoss(n_timesteps=3")


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="expected loss to be one of"):
        DenoisingLoss(loss="huber")
    with pytest.raises(ValueError, match="expected n_noise to be an integer >= 1"):
        DenoisingLoss(n_noise=0)
    with pytest.raises(ValueError, match="expected timesteps from 0 to 19"):
        DenoisingLoss(timesteps=20).draws(small_net())
    with pytest.raises(ValueError, match="expected a DiffusionNet, whose loss has timesteps, got a NeuralNet"):
        DenoisingLoss().draws(NeuralNet(torch.nn.Linear, criterion=torch.nn.MSELoss))
