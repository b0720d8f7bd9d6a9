"""The data sets and the networks of the examples, small enough to come with the package or downloaded on request."""

from __future__ import annotations

from ._concrete import load_concrete, load_concrete_split
from ._mlp import MLP
from ._plays import fetch_plays, load_plays
from ._questions import fetch_questions, load_questions
from ._tokens import TextEncoder, next_tokens
from ._transformer import CharTransformer, TextClassifier

__all__ = [
    "MLP",
    "CharTransformer",
    "TextClassifier",
    "TextEncoder",
    "fetch_plays",
    "fetch_questions",
    "load_concrete",
    "load_concrete_split",
    "load_plays",
    "load_questions",
    "next_tokens",
]
