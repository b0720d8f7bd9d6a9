"""Ensembles of attributions."""

from __future__ import annotations

from ._dropout_ensemble import DropoutEnsemble

__all__ = ["DropoutEnsemble"]
