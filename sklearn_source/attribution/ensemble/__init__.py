"""Ensembles of attributions."""

from __future__ import annotations

from ._dropout_ensemble import DropoutEnsemble
from ._lora_ensemble import LoRAEnsemble

__all__ = ["DropoutEnsemble", "LoRAEnsemble"]
