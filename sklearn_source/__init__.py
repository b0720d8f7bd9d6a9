"""Which training rows made a network predict something, and by how much would the answer change without them?"""

from __future__ import annotations

from importlib.metadata import version

from .attribution import (
    EmpiricalInfluence,
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
)
from .trajectory import Trajectory, TrajectoryRecorder
from .utils._config import config_context, get_config, set_config

__version__ = version("sklearn-source")

__all__ = [
    "EmpiricalInfluence",
    "GradientSimilarity",
    "InfluenceFunctions",
    "RepresentationSimilarity",
    "SourceAttribution",
    "TracIn",
    "Trajectory",
    "TrajectoryRecorder",
    "__version__",
    "config_context",
    "get_config",
    "set_config",
]
