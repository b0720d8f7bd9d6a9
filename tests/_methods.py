"""The one list of methods that tests go through, a new method being in all of them; curvatures that they are given."""

from __future__ import annotations

from sklearn_source.curvature import CURVATURES
from sklearn_source.utils.discovery import all_attributions

# Those that are fitted on a net and its training rows.
METHODS = [cls for _, cls in all_attributions("network")]
# Those that need the record of a training.
RECORDED = [cls for cls in METHODS if cls._needs_trajectory]
# Those whose scores are inner products of per-row gradients.
GRADIENT_METHODS = [cls for _, cls in all_attributions("gradient")]


def apart(kind="ekfac", **options):
    """A curvature whose blocks are not coupled, as the block-diagonal references have it."""
    curvature = CURVATURES[kind](**options)
    return curvature.set_params(coupling=None) if "coupling" in curvature.get_params() else curvature


def joint(kind="ekfac", n_iter=100, **options):
    """A curvature whose blocks are coupled by every column, until nothing is left of the equation."""
    return CURVATURES[kind](coupling="krylov", max_rows=None, n_iter=n_iter, **options)
