"""Recipes of losses: penalties, coefficients that change, weights of rows, chance, precision."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from ._recipe import N_FEATURES, Line, classes, recipe, regression


def penalized(penalty):
    """A net that adds a penalty to its loss: skorch's own recipe."""

    class Penalized(NeuralNetRegressor):
        def get_loss(self, y_pred, y_true, *args, **kwargs):
            return super().get_loss(y_pred, y_true, *args, **kwargs) + penalty(self.module_)

    return Penalized


def l2(module):
    return 0.3 * sum(value.square().sum() for value in module.parameters())


def l2_small(module):
    return 0.15 * sum(value.square().sum() for value in module.parameters())


def l1(module):
    return 0.03 * sum(value.abs().sum() for value in module.parameters())


def towards_a_half(module):
    return 0.3 * sum((value - 0.5).square().sum() for value in module.parameters())


def l2_of_head(module):
    return 0.5 * module.head.weight.square().sum()


def orthogonal(module):
    """Not separable by weight."""
    weight = module.hidden.weight
    return 1.5 * (weight.T @ weight - torch.eye(N_FEATURES, dtype=weight.dtype)).square().sum()


class PenaltyOfOutputs(NeuralNetRegressor):
    """A penalty on what the network says is a loss of the rows."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred, y_true, *args, **kwargs) + 0.2 * y_pred.square().mean()


class ScaledMSE(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, y_pred, y_true):
        return self.scale * (y_pred - y_true).square().mean()


class WarmingUp(nn.Module):
    """A Python counter, beside what a state dict holds."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, y_pred, y_true):
        self.calls += 1
        return min(1.0, self.calls / 40) * (y_pred - y_true).square().mean()


class WarmingUpByBuffer(nn.Module):
    """The counter as a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, y_pred, y_true):
        self.calls += 1
        return (self.calls / 40).clamp(max=1.0) * (y_pred - y_true).square().mean()


class OtherInTraining(nn.Module):
    def forward(self, y_pred, y_true):
        return (3.0 if self.training else 1.0) * (y_pred - y_true).square().mean()


class OtherLossInTraining(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, *args, training=False, **kwargs):
        loss = super().get_loss(y_pred, y_true, *args, training=training, **kwargs)
        return 3.0 * loss if training else loss


class ByHistory(NeuralNetRegressor):
    def get_loss(self, *args, **kwargs):
        return min(1.0, self.history[-1, "epoch"] / 20) * super().get_loss(*args, **kwargs)


class ByAttribute(NeuralNetRegressor):
    beta = 1.0

    def get_loss(self, *args, **kwargs):
        return self.beta * super().get_loss(*args, **kwargs)


class AnnealCriterion(Callback):
    def on_epoch_begin(self, net, **kwargs):
        net.criterion_.scale = min(1.0, len(net.history) / 20)


class AnnealNet(Callback):
    def on_epoch_begin(self, net, **kwargs):
        net.beta = min(1.0, len(net.history) / 20)


def weighted_rows():
    X, y = regression()
    weights = torch.linspace(0.1, 2.0, len(X)).double().numpy()[:, None]
    return X, torch.cat([torch.as_tensor(y), torch.as_tensor(weights)], dim=1).numpy()


class SampleWeights(NeuralNetRegressor):
    """Weights of rows beside the targets."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return (y_true[:, 1:] * (y_pred - y_true[:, :1]).square()).mean()


class NormalizedWeights(NeuralNetRegressor):
    """The weights of a batch sum to one."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        weights = y_true[:, 1:] / y_true[:, 1:].sum()
        return (weights * (y_pred - y_true[:, :1]).square()).sum()


class NoisyTargets(NeuralNetRegressor):
    def get_loss(self, y_pred, y_true, *args, training=False, **kwargs):
        if training:
            y_true = y_true + 0.3 * torch.randn_like(y_true)
        return super().get_loss(y_pred, y_true, *args, training=training, **kwargs)


ELSE = "^(?!.*couples rows).*"  # which is not what is the matter
changing = {"says": ELSE + "loss"}

RECIPES = [
    recipe("L2 in get_loss", "right or refused or warned", "penalty", net=penalized(l2)),
    recipe(
        "L2 in get_loss, one layer",
        "right or refused or warned",
        "penalty",
        net=penalized(l2),
        module=Line,
        methods=("EK-FAC",),
    ),
    recipe(
        "L2 in get_loss, converged",
        "right or refused or warned",
        "penalty",
        net=penalized(l2_small),
        module=Line,
        methods=("Influence",),
        optimizer__weight_decay=0.0,
    ),
    recipe("L1 in get_loss", "right or refused or warned", "penalty", net=penalized(l1)),
    recipe(
        "L2 towards other values",
        "right or refused or warned",
        "penalty",
        net=penalized(towards_a_half),
        module=Line,
        methods=("SOURCE", "EK-FAC"),
    ),
    recipe("L2 on some weights", "right or refused or warned", "penalty", net=penalized(l2_of_head)),
    recipe(
        "L2 on some weights, one layer",
        tolerance=0.1,  # a weight and a bias that are treated differently are two blocks of EK-FAC
        net=penalized(l2_of_head),
        module=Line,
        methods=("EK-FAC",),
    ),
    recipe("orthogonality in get_loss", "right or refused or warned", "penalty", net=penalized(orthogonal)),
    recipe("penalty of outputs", net=PenaltyOfOutputs),
    recipe(
        "annealed by a callback on criterion_",
        "right or refused or warned",
        **changing,
        criterion=ScaledMSE,
        after=(AnnealCriterion,),
        methods=("SOURCE", "TracIn"),
    ),
    recipe(
        "annealed by the history",
        "right or refused or warned",
        **changing,
        net=ByHistory,
        methods=("SOURCE", "TracIn"),
    ),
    recipe("annealed by a counter in the criterion", "right or refused or warned", **changing, criterion=WarmingUp),
    recipe(
        "annealed by a buffer of the criterion", "right or refused or warned", **changing, criterion=WarmingUpByBuffer
    ),
    recipe(
        "annealed by an attribute of the net",
        "right or refused or warned",
        **changing,
        net=ByAttribute,
        after=(AnnealNet,),
    ),
    recipe(
        "criterion other in training",
        "right",
        "",
        criterion=OtherInTraining,
        lr=0.007,
        methods=("SOURCE", "TracIn"),
    ),
    recipe("get_loss other in training", net=OtherLossInTraining, lr=0.007),
    recipe("weights of rows in get_loss", net=SampleWeights, data=weighted_rows, lr=0.01),
    recipe(
        "weights normalised by batch",
        "right or refused or warned",
        "row|batch",
        net=NormalizedWeights,
        data=weighted_rows,
    ),
    recipe(
        "weights of classes",
        net=NeuralNetClassifier,
        module=Line,
        data=classes,
        lr=0.05,
        criterion__weight=torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64),
        tolerance=0.1,  # what the weights of a batch's rows come to is chance
    ),
    recipe(
        "label smoothing", net=NeuralNetClassifier, module=Line, data=classes, lr=0.05, criterion__label_smoothing=0.1
    ),
    recipe(
        "noise on targets in get_loss",
        "right or refused or warned",
        ELSE + "(draw|random|chance|noise)",
        net=NoisyTargets,
    ),
]
