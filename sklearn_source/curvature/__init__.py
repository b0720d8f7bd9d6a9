"""Curvatures: estimate H from Fisher columns, then apply ``phi(H)`` to vectors."""

from __future__ import annotations

from ._cg import conjugate_gradient
from ._eigen import Basis, EigenCurvature
from ._fit import fit_diagonal, fit_ekfac, fit_identity, fit_kfac, moments
from ._gauss_newton import gauss_newton_product
from ._gram import GramCurvature, fit_exact
from ._meeting import meeting_place

CURVATURES = {
    "ekfac": fit_ekfac,
    "kfac": fit_kfac,
    "diagonal": fit_diagonal,
    "identity": fit_identity,
    "exact": fit_exact,
}

__all__ = [
    "CURVATURES",
    "Basis",
    "EigenCurvature",
    "GramCurvature",
    "conjugate_gradient",
    "gauss_newton_product",
    "meeting_place",
    "moments",
]
