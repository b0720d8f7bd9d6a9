"""Warnings that point at the user's line, however many of our frames lie between."""

from __future__ import annotations

import sys
import warnings

# Ours, and those through which others call us: pipelines and searches, a net's fit, workers, decorators.
_PASSED_OVER = frozenset({"sklearn_source", "sklearn", "skorch", "joblib", "torch", "contextlib"})


def warn(message, category=UserWarning):
    """Warn at the innermost frame that is the user's: neither of this package nor of those that it is called through.

    Parameters
    ----------
    message : str
    category : type of Warning
    """
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
