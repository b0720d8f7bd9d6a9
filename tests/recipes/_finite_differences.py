"""Scores of rows against finite differences of the skorch training itself, each row's loss weighted a little up and down.

A row's weight enters at the gradient that comes back to the network's output: nothing that the training computes
forwards changes, so a recipe of any kind (its own loop, its own loss) trains on, and only what the row pulls at the weights
is scaled. The trainings compared run without this package in them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_source import TrajectoryRecorder

N_CHECKPOINTS = 24


class RowWeights(Callback):
    """Weigh every row's loss in training; a row is known by the first number of its input."""

    def __init__(self, keys, weights):
        self.keys = keys
        self.weights = weights

    def on_train_begin(self, net, **kwargs):
        keys, weights = torch.as_tensor(self.keys), torch.as_tensor(self.weights)

        def weigh(module, inputs, output):
            if module.training and output.requires_grad:
                hits = inputs[0][:, :1] == keys
                if not bool(hits.any(dim=1).all()):
                    raise AssertionError("a recipe changes the first column, by which its rows are known")
                factor = (hits.to(weights) @ weights).reshape(-1, *[1] * (output.ndim - 1))
                output.register_hook(lambda gradient: gradient * factor.to(gradient.dtype))

        self.handle_ = net.module_.register_forward_hook(weigh)

    def on_train_end(self, net, **kwargs):
        self.handle_.remove()


# What of an optimizer's state is the moving mean (or sum) of squares, and what it starts from.
SQUARES = {
    "Adam": ("exp_avg_sq", {"step": torch.zeros(()), "exp_avg": 0.0}),
    "AdamW": ("exp_avg_sq", {"step": torch.zeros(()), "exp_avg": 0.0}),
    "NAdam": ("exp_avg_sq", {"step": torch.zeros(()), "exp_avg": 0.0, "mu_product": torch.ones(())}),
    "RMSprop": ("square_avg", {"step": torch.zeros(())}),
    "Adagrad": ("sum", {"step": torch.zeros(())}),
}


class HeldSquares(Callback):
    """Keep the preconditioner of an adaptive optimizer what it was in a first training, as methods with a unit do.

    Before a step, the running squares become what the first training's were, less what this step will add.
    """

    def __init__(self, steps, replay):
        self.steps = steps
        self.replay = replay

    def on_train_begin(self, net, **kwargs):
        self.position_ = 0

    def on_grad_computed(self, net, named_parameters, **kwargs):
        optimizer = net.optimizer_
        key, fresh = SQUARES[type(optimizer).__name__]
        for group in optimizer.param_groups:
            kept = group["alpha"] if "alpha" in group else group["betas"][1] if "betas" in group else None
            share = 1.0 if kept is None else (1.0 - kept) / kept
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if not state:
                    zeros = torch.zeros_like(parameter)
                    state.update({k: v.clone() if torch.is_tensor(v) else zeros.clone() for k, v in fresh.items()})
                    state[key] = zeros.clone()
                added = share * parameter.grad.square()
                if self.replay:
                    state[key].copy_(self.steps[self.position_] - added)
                    self.position_ += 1
                else:
                    self.steps.append(state[key] + added)


@dataclass
class Outcome:
    """What a method said of a training: an error, warnings, or nothing, and how far its scores are from the truth."""

    kind: str  # "right", "warned", "refused", "crashed" or "silent wrong"
    error: float = float("nan")
    words: str = ""

    def matches(self, expected, says):
        import re

        if self.kind not in expected:
            return False
        return self.kind == "right" or re.search(says, self.words) is not None


def directions(n_rows, n=1):
    """Weights of rows to go along: random ones of length one, so that no row's error is hidden by another's."""
    drawn = np.random.default_rng(1).normal(size=(n, n_rows))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@lru_cache(maxsize=None)
def recorded(recipe, method):
    """The net that the package sees, its outputs, and what was said while it trained."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = recipe.train(method, TrajectoryRecorder(n_checkpoints=N_CHECKPOINTS))
    return net, recipe.measure(net), [str(w.message) for w in caught]


@lru_cache(maxsize=None)
def truth(recipe, method, eps=None, n_directions=1):
    """Derivatives of the measurements along :func:`directions`, (n_directions, n_query)."""
    keys, eps = recipe.rows()[0][:, 0], eps or recipe.eps
    present = recorded(recipe, method)[1]
    holding = []
    if recipe.optimizer in SQUARES and method != "Influence":
        squares = []
        recipe.train(method, HeldSquares(squares, replay=False))
        holding = [HeldSquares(squares, replay=True)]
    slopes = []
    for direction in directions(len(keys), n_directions):
        up, down = (
            recipe.measure(recipe.train(method, RowWeights(keys, 1.0 + sign * eps * direction), *holding))
            for sign in (1, -1)
        )
        # Another training (of other batches, or changed by the recorder) would not lie between the two.
        assert np.abs((up + down) / 2 - present).max() < 0.1 * np.abs(up - down).max() + 1e-9, recipe.name
        slopes.append((up - down) / (2 * eps))
    return np.stack(slopes)


def error_of(scores, slopes):
    """Relative error of scores, (n_query, n_rows), against the derivatives."""
    found = directions(scores.shape[1], len(slopes)) @ scores.T
    return float(np.linalg.norm(found - slopes) / np.linalg.norm(slopes))


def outcome(recipe, method, estimator, tolerance, with_error=False):
    """Attribute, and judge.

    ``with_error``: compute the error of scores that were warned of, too (a test need not, a table shows it).
    """
    said = []
    try:
        net, _, said = recorded(recipe, method)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores = recipe.attribute(estimator, net).transform(recipe.queries())
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        # An error is a refusal where it says what was expected, to a user: of these kinds, from a line of this package.
        return Outcome("refused" if _by_the_package(error) else "crashed", words=text)
    own = [str(w.message) for w in caught if not issubclass(w.category, (DeprecationWarning, FutureWarning))]
    words = "; ".join([*said, *own])
    if own and not with_error:
        return Outcome("warned", words=words)
    error = error_of(scores, truth(recipe, method))
    if own:
        return Outcome("warned", error, words)
    return Outcome("right" if error < tolerance else "silent wrong", error, words)


def _by_the_package(error):
    if not isinstance(error, (ValueError, TypeError, NotImplementedError)):
        return False
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    return "sklearn_source" in last.tb_frame.f_code.co_filename
