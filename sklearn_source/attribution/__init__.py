"""Attribution methods, one file each."""

from __future__ import annotations

from ._diffusion import DiffusionReTrac, DiffusionTracIn
from ._empirical import EmpiricalInfluence
from ._gradient_similarity import GradientSimilarity
from ._influence import InfluenceFunctions
from ._representation_similarity import RepresentationSimilarity
from ._snapshot_influence import SnapshotInfluence
from ._source import SourceAttribution
from ._source_segment import SegmentSummary
from ._tracin import TracIn
from ._trak import TRAK
from .ensemble import AttributionEnsemble, DropoutEnsemble, LoRAEnsemble

__all__ = [
    "TRAK",
    "AttributionEnsemble",
    "DiffusionReTrac",
    "DiffusionTracIn",
    "DropoutEnsemble",
    "EmpiricalInfluence",
    "GradientSimilarity",
    "InfluenceFunctions",
    "LoRAEnsemble",
    "RepresentationSimilarity",
    "SegmentSummary",
    "SnapshotInfluence",
    "SourceAttribution",
    "TracIn",
]
