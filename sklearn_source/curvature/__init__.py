"""Curvatures: estimate H from Fisher columns, then apply ``phi(H)`` to vectors.

:class:`EKFAC`, :class:`KFAC`, :class:`Diagonal`, :class:`Identity` and :class:`ExactGaussNewton` are objects of
parameters for a method's ``curvature=``. :class:`Curvature` and :class:`FittedCurvature` are the protocols that they
and what they fit keep; ``_base.py`` shows how to write a curvature of one's own in one file.
"""

from __future__ import annotations

from ._base import Curvature
from ._coupling import fit_curvature
from ._covariances import moments
from ._diagonal import Diagonal
from ._eigen import Basis, EigenCurvature
from ._ekfac import EKFAC
from ._exact_gauss_newton import ExactGaussNewton
from ._fisher import FisherStream, Metric, choose_fisher
from ._fitted_curvature import FittedCurvature
from ._gram import GramCurvature
from ._identity import Identity
from ._kfac import KFAC
from ._refit import GaussNewtonRefit, refit_columns, refit_draws
from ._registry import CURVATURES, resolve_curvature
from ._rotation import decode_queries_or_rotate_rows
from ._spectral import Inverse, SpectralFunction

__all__ = [
    "CURVATURES",
    "Basis",
    "Curvature",
    "Diagonal",
    "EKFAC",
    "EigenCurvature",
    "ExactGaussNewton",
    "FisherStream",
    "FittedCurvature",
    "GaussNewtonRefit",
    "GramCurvature",
    "Identity",
    "Inverse",
    "KFAC",
    "Metric",
    "SpectralFunction",
    "choose_fisher",
    "decode_queries_or_rotate_rows",
    "fit_curvature",
    "moments",
    "refit_columns",
    "refit_draws",
    "resolve_curvature",
]
