"""Several networks' opinions, averaged."""

from __future__ import annotations

from ._dropout_ensemble import DropoutEnsemble
from ._ensemble import AttributionEnsemble
from ._lora_ensemble import LoRAEnsemble

__all__ = ["AttributionEnsemble", "DropoutEnsemble", "LoRAEnsemble"]
