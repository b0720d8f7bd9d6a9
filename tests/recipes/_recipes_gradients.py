"""Recipes that do something to gradients between the loss and the step."""

from __future__ import annotations

import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, GradientNormClipping

from ._recipe import MLP, Line, recipe


class Accumulating(NeuralNetRegressor):
    """skorch's FAQ: a step every second batch, the loss divided by two."""

    parts = 2
    steps = 2

    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) / self.parts

    def train_step(self, batch, **fit_params):
        count = len(self.history[-1, "batches"])
        step = self.train_step_single(batch, **fit_params)
        if count % self.steps == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


class AccumulatingSums(Accumulating):
    """The same, the loss not divided."""

    parts = 1


class AccumulatingThree(Accumulating):
    parts = steps = 3


class DividingAtBackward(Accumulating):
    """The factor is in the training step, not in the loss."""

    parts = 1

    def train_step_single(self, batch, **fit_params):
        return scaled_step(self, batch, 0.5, **fit_params)


class MicroBatches(NeuralNetRegressor):
    """A batch in two halves, for memory; one step."""

    def train_step_single(self, batch, **fit_params):
        X, y = batch
        parts = [scaled_step(self, part, len(part[0]) / len(X)) for part in zip(X.split(4), y.split(4))]
        return {"loss": sum(part["loss"] for part in parts), "y_pred": torch.cat([part["y_pred"] for part in parts])}


def scaled_step(net, batch, factor, **fit_params):
    net._set_training(True)
    X, y = batch
    y_pred = net.infer(X, **fit_params)
    loss = net.get_loss(y_pred, y, X=X, training=True)
    (loss * factor).backward()
    return {"loss": loss, "y_pred": y_pred}


class ScaledLoss(NeuralNetRegressor):
    def train_step_single(self, batch, **fit_params):
        return scaled_step(self, batch, 0.25, **fit_params)


class LossScaledByEpoch(NeuralNetRegressor):
    def train_step_single(self, batch, **fit_params):
        return scaled_step(self, batch, len(self.history) / 20, **fit_params)


class OwnNormClipping(NeuralNetRegressor):
    bound = 0.3

    def train_step_single(self, batch, **fit_params):
        step = super().train_step_single(batch, **fit_params)
        torch.nn.utils.clip_grad_norm_(self.module_.parameters(), self.bound)
        return step


class OwnNormClippingNeverReached(OwnNormClipping):
    bound = 1e6


class OwnValueClipping(NeuralNetRegressor):
    def train_step_single(self, batch, **fit_params):
        step = super().train_step_single(batch, **fit_params)
        torch.nn.utils.clip_grad_value_(self.module_.parameters(), 0.05)
        return step


class Scaler(NeuralNetRegressor):
    """torch's GradScaler, as its recipe has it."""

    def train_step(self, batch, **fit_params):
        if not hasattr(self, "scaler_"):
            self.scaler_ = torch.amp.GradScaler("cpu", init_scale=1024.0)
        self.optimizer_.zero_grad()
        step = self.train_step_single(batch, **fit_params)
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()
        return step

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        X, y = batch
        y_pred = self.infer(X, **fit_params)
        loss = self.get_loss(y_pred, y, X=X, training=True)
        self.scaler_.scale(loss).backward()
        return {"loss": loss, "y_pred": y_pred}


class SharpnessAware(NeuralNetRegressor):
    """SAM in the training step, around torch's own SGD."""

    def train_step(self, batch, **fit_params):
        self.optimizer_.zero_grad()
        self.train_step_single(batch, **fit_params)
        parameters = list(self.module_.parameters())
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            moves = [0.3 * p.grad / (norm + 1e-12) for p in parameters]
            for p, move in zip(parameters, moves):
                p += move
        self.optimizer_.zero_grad()
        step = self.train_step_single(batch, **fit_params)
        with torch.no_grad():
            for p, move in zip(parameters, moves):
                p -= move
        self.optimizer_.step()
        return step


class TwoSteps(NeuralNetRegressor):
    """Every batch is trained on twice."""

    def train_step(self, batch, **fit_params):
        super().train_step(batch, **fit_params)
        return super().train_step(batch, **fit_params)


class ManualStep(NeuralNetRegressor):
    """Gradients and step by hand, nothing else changed."""

    def train_step(self, batch, **fit_params):
        self.optimizer_.zero_grad()
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step


class Masked(MLP):
    """A hook keeps most of the hidden units where they are."""

    def __init__(self, **options):
        super().__init__(**options)
        mask = (torch.arange(8) < 2).double()
        self.hidden.weight.register_hook(lambda gradient: gradient * mask[:, None])
        self.hidden.bias.register_hook(lambda gradient: gradient * mask)


class MaskedLine(Line):
    def __init__(self, **options):
        super().__init__(**options)
        self.head.weight.register_hook(lambda gradient: gradient * torch.tensor([1.0, 0.0, 0.0]))


class Reversed(MLP):
    """The gradient is scaled on its way between the layers."""

    def forward(self, X):
        hidden = torch.tanh(self.hidden(X))
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: -0.5 * gradient)
        return self.head(hidden)


class EditGradients(Callback):
    """Do something to every gradient once it is computed."""

    def __init__(self, edit):
        self.edit = edit

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for name, parameter in named_parameters:
            self.edit(name, parameter)


def zero_hidden(name, parameter):
    if name.startswith("hidden"):
        parameter.grad.zero_()


def drop_hidden(name, parameter):
    if name.startswith("hidden"):
        parameter.grad = None


def halve(name, parameter):
    parameter.grad.mul_(0.5)


def add_noise(name, parameter):
    parameter.grad.add_(torch.randn_like(parameter), alpha=0.1)


def normalize(name, parameter):
    parameter.grad.div_(parameter.grad.norm())


def edited(edit):
    return (lambda: EditGradients(edit),)


WORD = "gradient"
EVERY = ("SOURCE", "TracIn")

RECIPES = [
    recipe("accumulation, divided", net=Accumulating, batch_size=4, methods=EVERY),
    recipe("accumulation, summed", net=AccumulatingSums, batch_size=4),
    recipe("accumulation, divided at backward", net=DividingAtBackward, batch_size=4),
    recipe(
        "accumulation, one layer",
        "right or warned",
        "batches a step",
        net=Accumulating,
        module=Line,
        batch_size=4,
        methods=("EK-FAC", "Influence"),
    ),
    recipe(
        "accumulation, left over",
        "right or warned",
        "accumul|batches",
        net=AccumulatingThree,
        batch_size=6,
    ),
    recipe("micro-batches", net=MicroBatches),
    recipe("loss scaled in train_step_single", "right or warned", WORD, net=ScaledLoss, methods=EVERY),
    recipe("loss scaled by epoch there", "right or warned", WORD, net=LossScaledByEpoch, methods=("TracIn",)),
    recipe("own clipping of the norm", "warned", WORD, net=OwnNormClipping, methods=EVERY),
    recipe("own clipping never reached", net=OwnNormClippingNeverReached),
    recipe("own clipping of values", "warned", WORD, net=OwnValueClipping),
    recipe(
        "GradientNormClipping",
        "warned",
        "GradientNormClipping|gradient",
        after=(lambda: GradientNormClipping(0.3),),
        methods=EVERY,
    ),
    recipe(
        "GradientNormClipping never reached",
        "right or warned",
        "GradientNormClipping",
        after=(lambda: GradientNormClipping(1e6),),
    ),
    recipe("GradScaler", net=Scaler),
    recipe("step by hand", net=ManualStep),
    recipe("two steps per batch", net=TwoSteps, max_epochs=15, lr=0.01),
    recipe("SAM in train_step", "warned or refused", WORD, net=SharpnessAware),
    recipe("mask by a tensor hook", "right or warned", WORD, module=Masked, methods=EVERY),
    recipe(
        "mask by a tensor hook, one layer",
        "right or warned",
        WORD,
        module=MaskedLine,
        methods=("EK-FAC", "Influence"),
    ),
    recipe("gradient scaled between layers", "warned or refused", WORD, module=Reversed),
    recipe("zeroed in on_grad_computed", "right or warned", WORD, after=edited(zero_hidden), methods=EVERY),
    recipe("removed in on_grad_computed", "right or warned", WORD, after=edited(drop_hidden)),
    recipe("scaled in on_grad_computed", "right or warned", WORD, after=edited(halve), methods=EVERY),
    recipe("scaled before the recorder", "right or warned", WORD, before=edited(halve)),
    recipe("normalised in on_grad_computed", "warned", WORD, after=edited(normalize)),
    recipe("gradient noise", "right or warned", WORD, after=edited(add_noise)),
]
