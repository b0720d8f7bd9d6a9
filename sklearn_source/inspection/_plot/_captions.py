"""What is written beside a query and a row."""

from __future__ import annotations

import numpy as np


def measured(name):
    """A measurement in words."""
    words = {"log_odds": "the log-odds", "prediction": "the prediction", "neg_loss": "the fit (minus the loss)"}
    return "the measurement" if name is None else words.get(name, str(name))


def value_text(value):
    """A number with four digits, anything else as it is."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return ", ".join(value_text(part) for part in value.ravel()[:4]) + (", …" if value.size > 4 else "")
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)


def signed(score, groups):
    """A score with its sign, with as many decimals as the smallest score shown needs for two digits."""
    scores = np.abs(np.concatenate([group.scores for group in groups]))
    scores = scores[scores > 0]
    smallest = float(scores.min()) if len(scores) else 1.0
    decimals = int(np.clip(1 - np.floor(np.log10(smallest)), 0, 4))
    text = f"{score:+.{decimals}f}" if scores.size == 0 or scores.max() < 1e6 else f"{score:+.2e}"
    if float(text) == 0 and score != 0:
        text = f"{score:+.1e}"
    return text.replace("-", "\N{MINUS SIGN}")


def label(group, j):
    """The target of a row, or an empty string."""
    return "" if group.y is None else value_text(group.y[j])


def answer(display):
    """Lines on the query's target and the network's answer."""
    lines = []
    if display.query.y is not None:
        lines.append(f"{display.target_name}: {value_text(display.query.y)}")
    if display.query.prediction is not None:
        lines.append(f"predicted: {value_text(display.query.prediction)}")
    return lines
