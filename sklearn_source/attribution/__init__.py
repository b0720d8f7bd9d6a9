"""Attribution methods, one file each."""

from __future__ import annotations

from ._empirical import EmpiricalInfluence
from ._gradient_similarity import GradientSimilarity
from ._influence import InfluenceFunctions
from ._representation_similarity import RepresentationSimilarity
from ._source import SourceAttribution
from ._source_segment import SegmentSummary
from ._tracin import TracIn
from ._trak import TRAK

__all__ = [
    "TRAK",
    "EmpiricalInfluence",
    "GradientSimilarity",
    "InfluenceFunctions",
    "RepresentationSimilarity",
    "SegmentSummary",
    "SourceAttribution",
    "TracIn",
]
