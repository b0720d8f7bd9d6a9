"""Networks whose loss depends on a number that is kept somewhere, each time somewhere else."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import sys
import types
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import torch
from skorch import NeuralNetRegressor

from sklearn_source.modules import MLP

NUMBER, SPACE, TABLE, LISTED = 1.0, SimpleNamespace(value=1.0), {"a": {"b": 1.0}}, [[1.0]]
NESTED = SimpleNamespace(loss=SimpleNamespace(parts=[SimpleNamespace(weight=1.0)]))
ARRAY, TENSOR, POINT = np.ones(2), torch.ones(2), namedtuple("Point", "x")(1.0)
CONFIG = types.ModuleType("a_users_config")
CONFIG.__file__ = "/home/user/a_users_config.py"
sys.modules[CONFIG.__name__] = CONFIG
CONFIG.value = 1.0


@dataclasses.dataclass
class Settings:
    value: float = 1.0


class Holder:
    kept = 1.0

    def __init__(self, value):
        self._value = value

    def __call__(self):
        return self._value

    @property
    def doubled(self):
        return helper() * 2

    @staticmethod
    def static():
        return DATACLASS.value


class Level(enum.Enum):
    LOW = 1.0
    HIGH = 3.0


DATACLASS, OBJECT, LEVEL, PARTIAL = Settings(), Holder(1.0), Level.LOW, functools.partial(float, 1.0)
BOUND = OBJECT.__call__


def helper():
    return NUMBER


def of_helper():
    return helper()


def enclosing(value):
    def read():
        return value

    return read


def with_default(value):
    def read(value=value):
        return value

    return read


def wrapped(value):
    inner = enclosing(value)

    @functools.wraps(inner)
    def read():
        return inner() * 1.0

    return read


REPLACED = enclosing(1.0)


def _set(name, value):
    def change(patch, folder):
        patch.setitem(globals(), name, value)

    return change


def _attribute(owner, name, value):
    return lambda patch, folder: patch.setattr(owner, name, value)


def _item(owner, place, value):
    return lambda patch, folder: patch.setitem(owner, place, value)


# Name -> (reads the number, makes it another one).
KINDS = {
    "a global number": (lambda: NUMBER, _set("NUMBER", 3.0)),
    "a global in a helper": (of_helper, _set("NUMBER", 3.0)),
    "a helper that is replaced": (lambda: REPLACED(), _set("REPLACED", enclosing(3.0))),
    "a namespace": (lambda: SPACE.value, _attribute(SPACE, "value", 3.0)),
    "a table": (lambda: TABLE["a"]["b"], _item(TABLE["a"], "b", 3.0)),
    "a list": (lambda: LISTED[0][0], _set("LISTED", [[3.0]])),
    "nested objects": (lambda: NESTED.loss.parts[0].weight, _attribute(NESTED.loss.parts[0], "weight", 3.0)),
    "a dataclass": (lambda: DATACLASS.value, _attribute(DATACLASS, "value", 3.0)),
    "an enumeration": (lambda: LEVEL.value, _set("LEVEL", Level.HIGH)),
    "a named tuple": (lambda: POINT.x, _set("POINT", POINT._replace(x=3.0))),
    "a class attribute": (lambda: Holder.kept, _attribute(Holder, "kept", 3.0)),
    "a private attribute": (lambda: OBJECT._value, _attribute(OBJECT, "_value", 3.0)),
    "a callable object": (lambda: OBJECT(), _attribute(OBJECT, "_value", 3.0)),
    "a bound method": (lambda: BOUND(), _attribute(OBJECT, "_value", 3.0)),
    "a property": (lambda: OBJECT.doubled, _set("NUMBER", 3.0)),
    "a static method": (lambda: Holder.static(), _attribute(DATACLASS, "value", 3.0)),
    "an array": (lambda: float(ARRAY[1]), _set("ARRAY", np.array([1.0, 3.0]))),
    "a tensor": (lambda: float(TENSOR[1]), _set("TENSOR", torch.tensor([1.0, 3.0]))),
    "a partial": (lambda: PARTIAL(), _set("PARTIAL", functools.partial(float, 3.0))),
    "a module of the user": (lambda: CONFIG.value, _attribute(CONFIG, "value", 3.0)),
    "a variable of the environment": (
        lambda: float(os.environ.get("HIDDEN_SETTING", 1.0)),
        lambda patch, folder: patch.setenv("HIDDEN_SETTING", "3.0"),
    ),
    "a switch of a library": (
        lambda: 1.0 + 2.0 * torch.are_deterministic_algorithms_enabled(),
        lambda patch, folder: patch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True),
    ),
}
MADE_ANEW = {"a closure": enclosing, "a default": with_default, "a decorated function": wrapped}
PLACES = ("get_loss", "infer", "forward", "criterion")


def make_net(place, read):
    """A net whose ``place`` multiplies by what ``read`` gives."""

    class Module(MLP):
        def forward(self, X):
            return super().forward(X) * (read() if place == "forward" else 1.0)

    class Loss(torch.nn.MSELoss):
        def forward(self, output, target):
            return super().forward(output, target) * read()

    class Net(NeuralNetRegressor):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            loss = super().get_loss(y_pred, y_true, X=X, training=training)
            return loss * read() if place == "get_loss" else loss

        def infer(self, x, **fit_params):
            output = super().infer(x, **fit_params)
            return output * read() if place == "infer" else output

    return Net(
        Module, module__n_features=3, module__hidden=(4,), criterion=Loss if place == "criterion" else torch.nn.MSELoss,
        max_epochs=1, batch_size=10, lr=0.05, train_split=None, verbose=0,
    )  # fmt: skip
