"""Several networks' opinions, averaged."""

from __future__ import annotations

from ._ensemble import AttributionEnsemble

__all__ = ["AttributionEnsemble"]
