"""What kind of optimizer steps like this one: known by its class, not by its name."""

from __future__ import annotations

import functools
import inspect

import torch

__all__ = ["inner_optimizer", "optimizer_kind"]


def inner_optimizer(optimizer):
    """The optimizer that takes the steps: itself, or what a wrapper (accelerate's, say) holds as ``optimizer``."""
    seen = set()
    while id(optimizer) not in seen:
        seen.add(id(optimizer))
        inner = vars(optimizer).get("optimizer")
        if not isinstance(inner, torch.optim.Optimizer) or not _passes_on(optimizer):
            break
        optimizer = inner
    return optimizer


def _passes_on(wrapper):
    """Whether a wrapper's step is that of the optimizer in it: those of accelerate are known to."""
    return type(wrapper).__module__.split(".")[0] == "accelerate"


def optimizer_kind(optimizer):
    """Name of the class of ``torch.optim`` whose ``step`` the optimizer runs; else its own class with its module.

    A subclass that inherits ``step`` steps like its parent. torch wraps ``step`` of every class that it makes an
    instance of, so that what is wrapped is compared.
    """
    return _kind(type(inner_optimizer(optimizer)))


@functools.lru_cache(maxsize=64)
def _kind(cls):
    own = inspect.unwrap(cls.step)
    for parent in cls.__mro__:
        if parent.__module__.startswith("torch.optim.") and inspect.unwrap(parent.step) is own:
            return parent.__name__
    return f"{cls.__module__}.{cls.__qualname__}"
