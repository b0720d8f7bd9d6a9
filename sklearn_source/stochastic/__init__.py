"""Losses that draw: what a row is once chance has had its part, and how that is known afterwards.

A draw turns a row into an ordinary example: an image into a noisy one and the noise to be found, a row into an
augmented one. Everything that is known of examples then holds for rows.
"""

from __future__ import annotations

from ._draw import Draw, RowRandom, fresh_draws
from ._drawn_rows import DrawnRows
from ._stochastic_loss import (
    StochasticLossMixin,
    draws_examples,
    join_draws,
    split_draws,
    stacked_examples,
    step_examples,
)

__all__ = [
    "Draw",
    "DrawnRows",
    "RowRandom",
    "StochasticLossMixin",
    "draws_examples",
    "fresh_draws",
    "join_draws",
    "split_draws",
    "stacked_examples",
    "step_examples",
]
