"""What is known of each kind of layer: filled by the files of this room, asked by the rest of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ._parameter_rule import ParameterRule

# torch's function -> reader; class of modules -> specs of its parameters; torch's function -> its substitute.
READERS: dict[Callable, Callable] = {}
SPECIFICATIONS: dict[type[nn.Module], Callable] = {}
SUBSTITUTES: dict[Callable, Callable] = {}


class Arguments(NamedTuple):
    """What one call of a function of torch does with its parameters.

    Attributes
    ----------
    rule : type of ParameterRule
        How the weight is used.
    x : Tensor or callable
        The input that meets the weight; of a norm a function that gives it, as only some of them are needed.
    weight, bias : Tensor or None
        Parameters or not: those that are not looked for are passed over.
    settings : tuple
        What else the rule needs of the call; picklable.
    groups : int
    """

    rule: type[ParameterRule]
    x: torch.Tensor | Callable
    weight: torch.Tensor | None
    bias: torch.Tensor | None = None
    settings: tuple[Any, ...] = ()
    groups: int | str = 1


@dataclass(frozen=True)
class ParameterSpec:
    """How a layer uses a weight and the bias that goes with it, either of which may be None, by their names."""

    rule: type[ParameterRule]
    weight: str | None
    bias: str | None = None
    groups: int | str = 1


def reads(*functions):
    """Register a reader of these functions of torch.

    A reader has the function's own signature and returns :class:`Arguments`, or None for a call it has no rule for.
    """
    return _registering(READERS, functions)


def specifies(*modules):
    """Register what layers of these classes own: a function of the layer that returns a list of ParameterSpec.

    Names are those within the layer. A subclass is as the nearest of its bases that is registered.
    """
    return _registering(SPECIFICATIONS, modules)


def substitutes(*functions):
    """Register how to see into functions of torch that use parameters where no reader can see them.

    ``substitute(args, kwargs)`` returns what is called in the function's place, which gives the same values by
    functions that have readers, or None for a call that is left as it is.
    """
    return _registering(SUBSTITUTES, functions)


def _registering(registry, keys):
    def register(function):
        registry.update(dict.fromkeys(keys, function))
        return function

    return register


def specs_of(module):
    """What a layer's kind says of its own parameters: list of ParameterSpec, empty for a layer of no known kind."""
    known = next((cls for cls in type(module).__mro__ if cls in SPECIFICATIONS), None)
    return [] if known is None else SPECIFICATIONS[known](module)
