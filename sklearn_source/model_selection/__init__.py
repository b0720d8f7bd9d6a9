"""Choosing a method and its settings by ground truth: what GridSearchCV and its kin need for attribution."""

from __future__ import annotations

from ._ground_truth import queries_of, scores_for
from ._held_out import held_out_score
from ._scorer import make_lds_scorer
from ._splitter import FullTrainingSet

__all__ = [
    "FullTrainingSet",
    "held_out_score",
    "make_lds_scorer",
    "queries_of",
    "scores_for",
]
