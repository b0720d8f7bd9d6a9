"""The one list of methods that tests go through: a new method is in all of them."""

from __future__ import annotations

from sklearn_source.utils.discovery import all_attributions

# Those that are fitted on a net and its training rows.
METHODS = [cls for _, cls in all_attributions("network")]
# Those whose scores are inner products of per-row gradients.
GRADIENT_METHODS = [cls for _, cls in all_attributions("gradient")]
