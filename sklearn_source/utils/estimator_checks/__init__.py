"""Checks that every attribution method has to pass, whoever wrote it."""

from __future__ import annotations

from ._suite import check_attribution_estimator, parametrize_with_attribution_checks

__all__ = ["check_attribution_estimator", "parametrize_with_attribution_checks"]
