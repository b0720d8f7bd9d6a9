"""The files that :mod:`sklearn_source.datasets` loads."""

from __future__ import annotations
