"""The networks of the examples, to be handed to a skorch net."""

from __future__ import annotations

from ._mlp import MLP
from ._text_classifier import CharTransformer, TextClassifier

__all__ = [
    "CharTransformer",
    "MLP",
    "TextClassifier",
]
