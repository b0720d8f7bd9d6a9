"""Attribution methods, one file each."""

from __future__ import annotations

from ._empirical import EmpiricalInfluence
from ._gradient_similarity import GradientSimilarity
from ._influence import InfluenceFunctions
from ._representation_similarity import RepresentationSimilarity
from ._source import SourceAttribution
from ._source_segment import SegmentSummary
from ._tracin import TracIn
from .ensemble import DropoutEnsemble, LoRAEnsemble

__all__ = [
    "DropoutEnsemble",
    "EmpiricalInfluence",
    "GradientSimilarity",
    "InfluenceFunctions",
    "LoRAEnsemble",
    "RepresentationSimilarity",
    "SegmentSummary",
    "SourceAttribution",
    "TracIn",
]
