"""What a metric of removals returned, as arguments of its display."""

from __future__ import annotations

import numpy as np

from ...utils._argument_checks import check_choice
from ._captions import measurement_in_words

_FIELDS = ("score", "interval", "baseline", "baseline_interval")  # of results that are no metric's
# By the name of the metric's field: the fields of it, of its interval and of the random rows'; words; whether a share.
_QUANTITIES = {
    "flip_rate": (
        ("flip_rate", "flip_interval", "random_flip_rate", "random_flip_interval"),
        "queries flipped",
        True,
    ),
    "change": (
        ("change", "change_interval", "random_change", "random_change_interval"),
        "fall of {}, mean over queries",
        False,
    ),
}


def arguments_from_result(result, quantity):
    """Arguments of :meth:`SubsetRemovalDisplay.from_predictions`, a dict.

    Parameters
    ----------
    result : Bunch
        With ``k``, and the fields of a quantity or those of the display.
    quantity : {"auto", "flip_rate", "change"}
        What is drawn; "auto": the first that the result knows.

    Raises
    ------
    ValueError
        If the quantity is another one, or the result lacks it.
    """
    check_choice("quantity", quantity, ("auto", *_QUANTITIES))
    if quantity == "auto":
        quantity = next((name for name in _QUANTITIES if _is_known(getattr(result, name, None))), None)
    fields, words, percent = _QUANTITIES.get(quantity, (_FIELDS, "effect of removal", False))
    score, interval, baseline, baseline_interval = (getattr(result, field, None) for field in fields)
    if getattr(result, "k", None) is None or score is None:
        raise ValueError(
            f"expected a result with fields k and {fields[0]}, as subset_removal_score returns it, got a "
            f"{type(result).__name__} without"
        )
    return {
        "k": result.k,
        "score": score,
        "baseline": baseline if _is_known(baseline) else None,
        "interval": interval if _is_known(interval) else None,
        "baseline_interval": baseline_interval if _is_known(baseline_interval) else None,
        "quantity": words.format(measurement_in_words(getattr(result, "measurement", None))),
        "percent": percent,
    }


def _is_known(values):
    """Whether there are numbers: the metric says NaN where it cannot tell."""
    return values is not None and bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())
