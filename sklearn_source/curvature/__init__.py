"""Curvatures: estimate H from Fisher columns, then apply ``phi(H)`` to vectors."""

from __future__ import annotations

from ._cache import cached_curvature
from ._cg import conjugate_gradient
from ._covariances import moments
from ._eigen import Basis, EigenCurvature
from ._fisher import FisherStream, Metric, choose_fisher
from ._gauss_newton import gauss_newton_product
from ._gram import GramCurvature
from ._registry import CURVATURES
from ._rotation import meeting_place

__all__ = [
    "Basis",
    "CURVATURES",
    "EigenCurvature",
    "FisherStream",
    "GramCurvature",
    "Metric",
    "cached_curvature",
    "choose_fisher",
    "conjugate_gradient",
    "gauss_newton_product",
    "meeting_place",
    "moments",
]
