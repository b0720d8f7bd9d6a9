"""The data set and the network of the examples, small enough to come with the package."""

from __future__ import annotations

from ._concrete import load_concrete, load_concrete_split
from ._mlp import MLP

__all__ = ["MLP", "load_concrete", "load_concrete_split"]
