"""The contract that all attribution methods share, and the walk over queries and training rows."""

from __future__ import annotations

from ._attribution import BaseAttribution
from ._gradient import GradientAttribution, Queries
from ._terms import State, Term

__all__ = ["BaseAttribution", "GradientAttribution", "Queries", "State", "Term"]
