"""Which training rows made a network predict something, and by how much would the answer change without them?"""

from __future__ import annotations

from importlib.metadata import version

from . import attribution
from .attribution import *  # noqa: F403  (every method: a new one is exported by its room alone)
from .trajectory import Trajectory, TrajectoryRecorder
from .utils._config import config_context, get_config, set_config

__version__ = version("sklearn-source")

__all__ = ["Trajectory", "TrajectoryRecorder", "__version__", "config_context", "get_config", "set_config"]
__all__ += attribution.__all__
