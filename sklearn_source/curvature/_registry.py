"""Curvatures by name."""

from __future__ import annotations

from ._base import Curvature
from ._diagonal import Diagonal
from ._ekfac import EKFAC
from ._exact_gauss_newton import ExactGaussNewton
from ._identity import Identity
from ._kfac import KFAC

CURVATURES = {"ekfac": EKFAC, "kfac": KFAC, "diagonal": Diagonal, "identity": Identity, "exact": ExactGaussNewton}


def resolve_curvature(curvature: str | Curvature) -> Curvature:
    """The object that a name stands for, at its defaults; an object is itself.

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For anything else, as a class instead of an instance of it.
    """
    if isinstance(curvature, Curvature):
        return curvature
    if isinstance(curvature, str) and curvature in CURVATURES:
        return CURVATURES[curvature]()
    expected = f"expected curvature= to be one of {', '.join(map(repr, CURVATURES))} or an instance of Curvature"
    if isinstance(curvature, str):
        raise ValueError(f"{expected}, got {curvature!r}")
    hint = ": write it with parentheses" if isinstance(curvature, type) and issubclass(curvature, Curvature) else ""
    raise TypeError(f"{expected}, got {curvature!r}{hint}")
