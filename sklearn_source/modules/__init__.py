"""The networks of the examples, to be given to a skorch net."""

from __future__ import annotations

from ._char_transformer import CharTransformer
from ._mlp import MLP
from ._text_classifier import TextClassifier
from ._unet import UNet

__all__ = [
    "CharTransformer",
    "MLP",
    "TextClassifier",
    "UNet",
]
