"""What is written beside a query and its rows."""

from __future__ import annotations

import numpy as np


def measurement_in_words(name):
    """The name of a measurement, or None, in words."""
    words = {"log_odds": "the log-odds", "prediction": "the prediction", "neg_loss": "the fit (minus the loss)"}
    return "the measurement" if name is None else words.get(name, str(name))


def format_value(value):
    """A number as str with four digits, the first of an array, anything else as it is."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return ", ".join(format_value(part) for part in value.ravel()[:4]) + (", …" if value.size > 4 else "")
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)


def format_score(score, groups):
    """A score as str with its sign, and as many decimals as the smallest score of the groups needs for two digits."""
    scores = np.abs(np.concatenate([group.scores for group in groups]))
    scores = scores[scores > 0]
    smallest = float(scores.min()) if len(scores) else 1.0
    decimals = int(np.clip(1 - np.floor(np.log10(smallest)), 0, 4))
    text = f"{score:+.{decimals}f}" if scores.size == 0 or scores.max() < 1e6 else f"{score:+.2e}"
    if float(text) == 0 and score != 0:
        text = f"{score:+.1e}"
    return text.replace("-", "\N{MINUS SIGN}")


def format_error(group, j):
    """The standard error of the score of row j of a group, as str with two digits; empty where it is not known."""
    if group.errors is None:
        return ""
    error = float(group.errors[j])
    if not np.isfinite(error):
        return "± unknown"
    return f"± {error:.2g}" if error < 100 else f"± {error:.0f}" if error < 1e6 else f"± {error:.1e}"


def format_interval(value, interval):
    """A number as str with two digits behind the point or more, and its interval (two floats) where that is known."""
    if not np.isfinite(value):
        return "unknown"
    numbers = [value, *interval] if np.isfinite(interval).all() else [value]
    decimals = int(np.clip(1 - np.floor(np.log10(abs(value))), 2, 6)) if value else 2
    scientific = max(map(abs, numbers)) >= 1e4 or 0 < abs(value) < 1e-4
    texts = [(f"{n:.1e}" if scientific else f"{n:.{decimals}f}").replace("-", "\N{MINUS SIGN}") for n in numbers]
    return texts[0] if len(texts) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def format_slope(slope):
    """A slope, float or None, as str; a dash where it is NaN, nothing for None."""
    if slope is None or not np.isfinite(slope):
        return "" if slope is None else "\N{EN DASH}"
    return f"{slope:.2f}" if 0.1 <= abs(slope) < 1000 else f"{slope:.1e}"


def row_caption(group, j):
    """The target of row j of a group as str, empty where it is not known."""
    return "" if group.y is None else format_value(group.y[j])


def query_caption(display):
    """Lines, a list of str, on a display's query: its target and the network's prediction, where they are known."""
    lines = []
    if display.query.y is not None:
        lines.append(f"{display.target_name}: {format_value(display.query.y)}")
    if display.query.prediction is not None:
        lines.append(f"predicted: {format_value(display.query.prediction)}")
    return lines
