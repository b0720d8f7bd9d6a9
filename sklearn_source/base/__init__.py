"""The contract that all attribution methods share, and the walk over queries and training rows."""

from __future__ import annotations

from ._attribution import BaseAttribution
from ._by_term import scores_by_term
from ._curvature_method import CurvatureAttribution
from ._gradient import GradientAttribution, Queries
from ._net_argument import net_first
from ._network_estimator import NetworkEstimator
from ._terms import State, Term

__all__ = [
    "BaseAttribution",
    "CurvatureAttribution",
    "GradientAttribution",
    "NetworkEstimator",
    "Queries",
    "State",
    "Term",
    "net_first",
    "scores_by_term",
]
