"""What a page says in words: every number with its unit and how sure it is."""

from __future__ import annotations

import numpy as np

from .._plot._captions import format_interval

MINUS = "\N{MINUS SIGN}"


def certainty(question):
    """Where errors of the scores come from, or that there are none."""
    name, method = type(question.estimator).__name__, type(question.method).__name__
    members = getattr(question.estimator, "members_", None)
    if hasattr(question.estimator, "score_error") and (members is None or len(members) > 1):
        of_what = "retrainings differ" if members is None else f"the scores of {len(members)} networks differ"
        return (
            f"Numbers after ± are standard errors, told by how much {of_what}; in a histogram, scores inside the grey "
            "band may be chance: for 95 % of the rows 1.96 standard errors are no more. What all of them have wrong "
            "alike is no part of it."
        )
    return (
        f"These scores have no standard errors: {name} looks at one network, and another training might give others. "
        f"AttributionEnsemble({method}(…), n_members=5), fitted like this method, tells how much."
    )


def unit_of_scores(question, rows):
    """What a score is."""
    if not question.has_unit:
        return (
            f"Scores of {type(question.estimator).__name__} have no unit: the larger the score, the more a training "
            "row matters to an answer, but not by how much."
        )
    return (
        "A score says how far a training row moved what is measured, by its presence, "
        f"in {rows.unit}: positive, it raised it; negative, it lowered it."
    )


def sentence_of_action(columns, i, n_query, confidence):
    """What an action should do to the held-out rows, with the interval."""
    found, level = [], f"{confidence:.0%}"
    if has(columns, "errors", i):
        value, low, high = of(columns, "errors", i)
        found.append(f"{signed(value)} errors of {n_query:,} held-out rows ({level} interval {ends(low, high)})")
    if has(columns, "loss", i):
        value, low, high = of(columns, "loss", i)
        found.append(f"mean loss {signed(value)} ({ends(low, high)})")
    if not found and has(columns, "measurement", i):
        value, low, high = of(columns, "measurement", i)
        found.append(f"measurement {signed(value)} on average ({level} interval {ends(low, high)})")
    return "Predicted: " + "; ".join(found) + "." if found else "No effect is predicted."


def interval(columns, name, i):
    """A change and its interval as str; empty where it is not known."""
    if not has(columns, name, i):
        return ""
    value, *around = of(columns, name, i)
    if name == "errors" and value == 0 and not np.any(around):
        return "0 (no answer changes)"
    return format_interval(value, around)


def of(columns, name, i):
    return tuple(float(columns[f"{name}_{part}"][i]) for part in ("change", "low", "high"))


def has(columns, name, i):
    return f"{name}_change" in columns and bool(np.isfinite(columns[f"{name}_change"][i]))


def doubts(columns, i):
    """Why an action may not do what is predicted, as far as the numbers tell: a list of str."""
    found, signs = [], set()
    for name, of_what in (("errors", "errors"), ("loss", "the loss")):
        if has(columns, name, i):
            value, low, high = of(columns, name, i)
            if low <= 0 <= high:
                found.append(f"uncertain for {of_what}: the interval holds 0")
            signs.add(np.sign(value))
    if {1.0, -1.0} <= signs:
        found.append("errors and loss are predicted to go opposite ways")
    return found


def signed(value):
    """A number of two or three digits with its sign."""
    text = f"{value:+.1f}" if 1 <= abs(value) < 1000 else f"{value:+.2g}"
    return ("0" if float(text) == 0 else text).replace("-", MINUS)


def ends(low, high):
    """An interval in words; "unknown" where it is not known."""
    return "unknown" if not np.isfinite([low, high]).all() else f"{signed(low)} to {signed(high)}"


def with_minus(text):
    """A number written with a true minus; other texts as they are."""
    return MINUS + text[1:] if len(text) > 1 and text[0] == "-" and text[1] in ".0123456789" else text


def number(value):
    """A number with four digits, a whole one as it is; empty for None and NaN."""
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return ""
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    return f"{float(value):.3g}".replace("-", MINUS)
