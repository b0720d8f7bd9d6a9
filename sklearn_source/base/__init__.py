"""What attribution methods share, and what a method of one's own begins with.

A method is a subclass of one of these bases, each of which gives the ways in, the validation and the output:

- :class:`GradientAttribution`: query vectors meet per-row training gradients. Give ``_fit_gradients`` and ``_terms``.
- :class:`CurvatureAttribution`: the same with functions of a curvature, ``curvature=`` a name or an object.
- :class:`FeatureAttribution`: rows have features, scores are a form in them. Give ``_fit_features``, ``_features``.
- :class:`NetworkAttribution`: anything else that looks into a trained network.
- :class:`BaseAttribution`: the output alone, for scores that come from elsewhere.

:class:`RowGradients` gives gradients of single rows, of their loss or of a measurement, at any recorded weights.
"""

from __future__ import annotations

from ._attribution import BaseAttribution
from ._curvature_method import CurvatureAttribution
from ._feature import FeatureAttribution
from ._gradient import GradientAttribution
from ._kept_refits import keep_refits
from ._net_argument import net_first, net_with_steps, open_pipeline, require_trained, unwrap
from ._network_attribution import NetworkAttribution
from ._projections import PROJECTIONS, make_projection
from ._queries import Queries
from ._query_batches import QueryBatches
from ._row_gradients import RowGradients, State, flat_gradients
from ._scores_by_term import scores_by_term
from ._terms import Term

__all__ = [
    "PROJECTIONS",
    "BaseAttribution",
    "CurvatureAttribution",
    "FeatureAttribution",
    "GradientAttribution",
    "NetworkAttribution",
    "Queries",
    "QueryBatches",
    "RowGradients",
    "State",
    "Term",
    "flat_gradients",
    "keep_refits",
    "make_projection",
    "net_first",
    "net_with_steps",
    "open_pipeline",
    "require_trained",
    "scores_by_term",
    "unwrap",
]
