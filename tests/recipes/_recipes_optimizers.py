"""Recipes of optimizers, their rates and their groups."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Freezer, LRScheduler, Unfreezer
from torch import optim

from ._recipe import MLP, Line, classes, recipe


class OwnSGD(optim.Optimizer):
    """Sign descent, under a name of torch's."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "momentum": 0.0, "weight_decay": 0.0, "dampening": 0.0})

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= group["lr"] * parameter.grad / (0.1 + parameter.grad.abs())
        return loss


OwnSGD.__name__ = "SGD"


class SubclassOfSGD(optim.SGD):
    """Nothing is changed."""


class HalvingSGD(optim.SGD):
    """A subclass of torch's SGD that does change the step."""

    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(0.5)
        super().step()
        return loss


class SAM(optim.SGD):
    """Two steps in one: up along the gradient, and back down with the gradient from there (Foret et al. 2021)."""

    def step(self, closure=None):
        with torch.enable_grad():
            closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            moves = [0.3 * p.grad / (norm + 1e-12) for p in parameters]
            for p, move in zip(parameters, moves):
                p += move
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for p, move in zip(parameters, moves):
                p -= move
        super().step()
        return loss


class Lookahead(optim.SGD):
    """Every fifth step goes half of the way only (Zhang et al. 2019)."""

    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.count = 0

    def step(self, closure=None):
        loss = super().step(closure)
        parameters = [p for group in self.param_groups for p in group["params"]]
        if self.count == 0:
            self.slow = [p.detach().clone() for p in parameters]
        self.count += 1
        if self.count % 5 == 0:
            with torch.no_grad():
                for p, slow in zip(parameters, self.slow):
                    slow += 0.5 * (p - slow)
                    p.copy_(slow)
        return loss


short = {"max_epochs": 10, "lr": 0.0005, "optimizer__momentum": 0.9}
# Every step recorded: over so few, squares grow from one checkpoint to the next.
adaptive = {"module": Line, "n_checkpoints": None, "max_epochs": 20}
adam = {**adaptive, "optimizer": optim.Adam, "lr": 0.0005, "optimizer__betas": (0.5, 0.99)}
per_batch = {"step_every": "batch"}

RECIPES = [
    recipe("SGD", methods=("SOURCE", "Krylov", "TracIn")),
    recipe("SGD, one layer", module=Line, methods=("SOURCE", "EK-FAC", "Influence")),
    recipe(
        "SGD, classifier", net=NeuralNetClassifier, module=Line, data=classes, lr=0.05, methods=("SOURCE", "TracIn")
    ),
    recipe("SGD, weight decay", optimizer__weight_decay=0.1),
    recipe("momentum", lr=0.0015, max_epochs=40, optimizer__momentum=0.9, methods=("SOURCE", "Krylov")),
    recipe("momentum, one layer", module=Line, lr=0.0015, max_epochs=40, optimizer__momentum=0.9, methods=("EK-FAC",)),
    recipe("Nesterov", lr=0.0015, max_epochs=40, optimizer__momentum=0.9, optimizer__nesterov=True),
    recipe("dampening", lr=0.02, optimizer__momentum=0.5, optimizer__dampening=0.5),
    recipe("momentum, 30 steps", **short, methods=("SOURCE", "TracIn")),
    recipe("momentum that overshoots", "right or warned", "momentum", **{**short, "lr": 0.005}),
    recipe("Nesterov, 30 steps", **short, optimizer__nesterov=True),
    recipe("momentum, 30 steps, one layer", module=Line, **short, methods=("EK-FAC",)),
    # SOURCE takes one preconditioner per segment: wider where layers differ.
    recipe("Adam", **{**adam, "module": MLP}, tolerance=0.12),
    recipe("Adam, first order", **{**adam, "module": MLP}, methods=("TracIn",)),
    recipe("Adam, one layer", **adam, methods=("SOURCE", "EK-FAC")),
    recipe("Adam, converged", module=Line, optimizer=optim.Adam, lr=0.05, max_epochs=200, methods=("Influence",)),
    recipe("Adam, default betas", **{**adaptive, "max_epochs": 40}, optimizer=optim.Adam, lr=0.0005),
    recipe("Adam, 30 steps", **{**adaptive, "max_epochs": 10}, optimizer=optim.Adam, lr=0.0005, tolerance=0.12),
    recipe("AdamW", **{**adam, "optimizer": optim.AdamW}, optimizer__weight_decay=0.5),
    recipe("NAdam", **{**adam, "optimizer": optim.NAdam}),
    recipe("RMSprop", **adaptive, optimizer=optim.RMSprop, lr=0.0005, methods=("SOURCE", "TracIn")),
    recipe("Adagrad", **adaptive, optimizer=optim.Adagrad, lr=0.003, methods=("SOURCE", "TracIn")),
    recipe("LBFGS", "refused", "LBFGS", optimizer=optim.LBFGS, max_epochs=2),
    recipe(
        "own class named SGD",
        "refused or warned",
        "SGD",
        optimizer=OwnSGD,
        methods=("SOURCE", "TracIn"),
    ),
    recipe("subclass of SGD that changes nothing", "right or refused", "SubclassOfSGD", optimizer=SubclassOfSGD),
    recipe("subclass of SGD that halves", "right or refused", "HalvingSGD", optimizer=HalvingSGD),
    recipe("SAM optimizer", "refused", "SAM", optimizer=SAM),
    recipe("Lookahead optimizer", "refused", "Lookahead", optimizer=Lookahead),
    recipe(
        "OneCycle per batch, cycled momentum",
        optimizer__momentum=0.9,
        after=(lambda: LRScheduler(optim.lr_scheduler.OneCycleLR, max_lr=0.004, total_steps=90, **per_batch),),
        lr=0.002,
        max_epochs=30,
    ),
    recipe(
        "CyclicLR per batch, cycled momentum",
        optimizer__momentum=0.9,
        after=(
            lambda: LRScheduler(optim.lr_scheduler.CyclicLR, base_lr=0.001, max_lr=0.004, step_size_up=20, **per_batch),
        ),
        lr=0.001,
    ),
    recipe(
        "CyclicLR per batch, 30 steps",
        after=(
            lambda: LRScheduler(
                optim.lr_scheduler.CyclicLR, base_lr=0.0002, max_lr=0.0006, step_size_up=9, **per_batch
            ),
        ),
        **{**short, "lr": 0.001},
    ),
    recipe(
        "StepLR per epoch", lr=0.03, after=(lambda: LRScheduler(optim.lr_scheduler.StepLR, step_size=10, gamma=0.5),)
    ),
    recipe(
        "cosine per batch",
        lr=0.03,
        before=(lambda: LRScheduler(optim.lr_scheduler.CosineAnnealingLR, T_max=60, **per_batch),),
        methods=("SOURCE", "TracIn"),
    ),
    recipe("parameter groups", optimizer__param_groups=[("head.*", {"lr": 0.01})], methods=("SOURCE", "Krylov")),
    recipe("frozen layer", after=(lambda: Freezer("hidden.*"),)),
    recipe("unfrozen layer", after=(lambda: Freezer("hidden.*"), lambda: Unfreezer("hidden.*", at=10))),
    recipe("layer frozen on the way", after=(lambda: Freezer("hidden.*", at=10),)),
]
