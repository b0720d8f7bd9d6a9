"""Ground truth for attribution: the network trained again on other rows."""

from __future__ import annotations

from ._network_cache import kept_fit
from ._networks import train_networks
from ._retrain import leave_one_out, retrain_on_subsets, retrain_without
from ._retraining import Retraining

__all__ = [
    "Retraining",
    "kept_fit",
    "leave_one_out",
    "retrain_on_subsets",
    "retrain_without",
    "train_networks",
]
