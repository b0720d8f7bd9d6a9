"""The data sets of the examples, small enough to come with the package or downloaded on request."""

from __future__ import annotations

from ._concrete import load_concrete, load_concrete_split
from ._plays import fetch_plays, load_plays
from ._questions import fetch_questions, load_questions
from ._tokens import TextEncoder, next_tokens

__all__ = [
    "TextEncoder",
    "fetch_plays",
    "fetch_questions",
    "load_concrete",
    "load_concrete_split",
    "load_plays",
    "load_questions",
    "next_tokens",
]
