"""Ways in which users write the loss of a language model, and each written out token by token."""

from __future__ import annotations

import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn
from torch.nn.functional import cross_entropy

V, T = 4, 5


class Flattened(nn.Module):
    """The mean over all tokens of the batch that are not ignored."""

    def forward(self, output, y):
        return cross_entropy(output.reshape(-1, V), y.reshape(-1), ignore_index=-100)


class FlattenedCE(nn.CrossEntropyLoss):
    """The same as a subclass: class weights, smoothing and reduction as the user likes."""

    def forward(self, output, y):
        return super().forward(output.reshape(-1, V), y.reshape(-1))


class GetLoss(NeuralNet):
    """The same in get_loss."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred.reshape(-1, V), y_true.reshape(-1), X, training)


class Functional(NeuralNetClassifier):
    """The same, leaving the criterion of the classifier (NLLLoss) unused."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        return cross_entropy(y_pred.reshape(-1, V), y_true.reshape(-1))


class Movedim(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        return super().get_loss(y_pred.movedim(-1, 1), y_true, X, training)


class Shifted(nn.Module):
    """Position t predicts the token at t + 1."""

    def forward(self, output, y):
        return cross_entropy(output[:, :-1].reshape(-1, V), y[:, 1:].reshape(-1))


class Masked(NeuralNet):
    """A padding mask in X, and an unreduced criterion."""

    def infer(self, x, **fit_params):
        return super().infer(x["x"])

    def get_loss(self, y_pred, y_true, X=None, training=False):
        mask = X["mask"].reshape(-1)
        loss = cross_entropy(y_pred.reshape(-1, V), y_true.reshape(-1), reduction="none")
        return (loss * mask).sum() / mask.sum()


class MaskedRows(Masked):
    """The mean over rows of the mean over each row's tokens: no row counts for more than another."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = cross_entropy(y_pred.movedim(-1, 1), y_true, reduction="none")
        return ((loss * X["mask"]).sum(1) / X["mask"].sum(1)).mean()


class MaskedSum(Masked):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = cross_entropy(y_pred.reshape(-1, V), y_true.reshape(-1), reduction="none")
        return (loss * X["mask"].reshape(-1)).sum()


def token_losses(output, y):
    """(B, T) minus log-probability of every token: classes last."""
    return -output.log_softmax(-1).gather(-1, y.clamp(min=0)[..., None])[..., 0]


weight = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)


def counted(y, mask):
    return (y != -100).double()


def weighed(y, mask):
    return weight[y.clamp(min=0)] * (y != -100)


def shifted(y, mask):
    return (y[:, 1:] != -100).double()


def by_mask(y, mask):
    return mask


# name: (net class, criterion, its parameters, weight of every token, how the batch adds up)
LOSSES = {
    "module": (NeuralNet, Flattened, {}, counted, "mean"),
    "subclass": (NeuralNet, FlattenedCE, {}, counted, "mean"),
    "subclass weight": (NeuralNet, FlattenedCE, {"weight": weight}, weighed, "mean"),
    "subclass sum": (NeuralNet, FlattenedCE, {"reduction": "sum"}, counted, "sum"),
    "get_loss": (GetLoss, nn.CrossEntropyLoss, {}, counted, "mean"),
    "get_loss sum": (GetLoss, nn.CrossEntropyLoss, {"reduction": "sum"}, counted, "sum"),
    "get_loss weight": (GetLoss, nn.CrossEntropyLoss, {"weight": weight}, weighed, "mean"),
    "functional": (Functional, nn.NLLLoss, {}, counted, "mean"),
    "movedim": (Movedim, nn.CrossEntropyLoss, {}, counted, "mean"),
    "shifted": (NeuralNet, Shifted, {}, shifted, "mean"),
    "mask": (Masked, nn.MSELoss, {}, by_mask, "mean"),
    "mask sum": (MaskedSum, nn.MSELoss, {}, by_mask, "sum"),
    "mask rows": (MaskedRows, nn.MSELoss, {}, by_mask, "rows"),
}
PLAIN = [name for name in LOSSES if "mask" not in name]


def definition(name, output, y, mask):
    """Per row: the sum of its token losses, and its weight; computed from the definition alone."""
    weights = LOSSES[name][3](y, mask)
    losses = token_losses(output[:, :-1], y[:, 1:]) if name == "shifted" else token_losses(output, y)
    sums, totals = (weights * losses).sum(1), weights.sum(1)
    return (sums / totals, torch.ones_like(totals)) if LOSSES[name][4] == "rows" else (sums, totals)
