"""For people: groups of rows, suspicious rows, thinly covered regions."""

from __future__ import annotations

from ._audit import audit_training_rows
from ._groups import group_influence
from ._regions import under_sampled_regions

__all__ = ["audit_training_rows", "group_influence", "under_sampled_regions"]
