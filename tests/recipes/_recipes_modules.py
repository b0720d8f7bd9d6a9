"""Recipes of networks: chance and state in the forward pass, statistics of a batch, precision, compilation."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import PrintLog
from torch import nn

from ._recipe import MLP, recipe, regression


class CountingModule(MLP):
    """Its output depends on how often it was called in training."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = 0

    def forward(self, X):
        if self.training:
            self.calls += 1
        return super().forward(X) * min(1.0, 0.2 + self.calls / 100)


class Dropout(MLP):
    def forward(self, X):
        return self.head(nn.functional.dropout(torch.tanh(self.hidden(X)), 0.2, self.training))


class NoisyInput(MLP):
    def forward(self, X):
        return super().forward(X + 0.3 * torch.randn_like(X) if self.training else X)


class Normalized(MLP):
    """A bias before batch normalisation."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm = nn.BatchNorm1d(8, dtype=torch.float64)

    def forward(self, X):
        return self.head(torch.tanh(self.norm(self.hidden(X))))


class Autocast(MLP):
    """Mixed precision in the forward pass."""

    def __init__(self, **options):
        super().__init__(**options)
        self.float()

    def forward(self, X):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(X)


class WeightNorm(MLP):
    def __init__(self, **options):
        super().__init__(**options)
        nn.utils.parametrizations.weight_norm(self.hidden)


def single():
    return tuple(values.astype("float32") for values in regression())


accelerated = {"skip": "accelerate is not installed"}
if find_spec("accelerate"):
    from accelerate import Accelerator
    from skorch.hf import AccelerateMixin

    class Accelerated(AccelerateMixin, NeuralNetRegressor):
        """skorch's way to Hugging Face's accelerate, which wraps optimizer, module and loader."""

    accelerated = {
        "net": Accelerated,
        "accelerator": Accelerator(cpu=True),
        "device": None,
        "callbacks__print_log": PrintLog(),  # which it sets
    }

adam = {"optimizer": torch.optim.Adam, "lr": 0.0005, "optimizer__betas": (0.5, 0.99)}

RECIPES = [
    recipe("weight_norm", module=WeightNorm),
    recipe(
        "counter in the module",
        "right or refused or warned",
        "module|forward|loss",
        module=CountingModule,
    ),
    recipe("dropout", "right or warned", "dropout", module=Dropout, tolerance=0.2),
    recipe(
        "noise on inputs in forward",
        "right or warned",
        "draw|random|chance|noise|mode",
        module=NoisyInput,
        tolerance=0.2,
    ),
    # A row's pull on others through the batch is a documented limit: so wide.
    recipe("batch normalisation", module=Normalized, tolerance=0.2),
    recipe("batch normalisation, Adam", module=Normalized, tolerance=0.3, **adam),
    recipe(
        "batch normalisation, Adam, first order",
        module=Normalized,
        tolerance=2.0,
        **adam,
        methods=("TracIn",),
    ),
    recipe(
        "autocast",
        "right or refused or warned",
        "autocast|precision",
        module=Autocast,
        data=single,
        tolerance=0.2,
        eps=0.2,
    ),
    recipe(
        "compiled",
        compile=True,
        compile__backend="eager",
    ),
    recipe("accelerate", **accelerated),
]
