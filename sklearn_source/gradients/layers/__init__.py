"""How each kind of layer turns what it saw into per-row gradients."""

from __future__ import annotations

from ._linear import MIXABLE, EmbeddingRule, MixedRule, VectorRule, rule_of
from ._readers import READERS
from ._recurrent import unrolled
from ._row_layout import split_rows

__all__ = [
    "EmbeddingRule",
    "MIXABLE",
    "MixedRule",
    "READERS",
    "VectorRule",
    "rule_of",
    "split_rows",
    "unrolled",
]
