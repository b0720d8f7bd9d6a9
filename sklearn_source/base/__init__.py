"""The contract that all attribution methods share, and the walk over queries and training rows."""

from __future__ import annotations

from ._attribution import BaseAttribution
from ._by_term import scores_by_term
from ._gradient import GradientAttribution, Queries
from ._terms import State, Term

__all__ = ["BaseAttribution", "GradientAttribution", "Queries", "State", "Term", "scores_by_term"]
