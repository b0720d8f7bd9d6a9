"""Curvatures by name."""

from __future__ import annotations

from ._covariances import fit_diagonal, fit_ekfac, fit_identity, fit_kfac
from ._gram import fit_exact

CURVATURES = {
    "ekfac": fit_ekfac,
    "kfac": fit_kfac,
    "diagonal": fit_diagonal,
    "identity": fit_identity,
    "exact": fit_exact,
}
