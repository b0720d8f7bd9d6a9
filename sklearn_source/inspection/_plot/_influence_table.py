"""A query and its rows as one table: features downwards, rows sideways."""

from __future__ import annotations

import numpy as np

from ._captions import signed, value_text
from ._matplotlib import LITERAL, OPPOSING, SUPPORTING, blue_orange, ink_on, lay_out, shrink_to_fit
from ._row_kinds import numbers

_MAX_FEATURES = 30
_LEAST_LINE, _OTHER_LINES = 10.0, 7  # points that a line has at least; lines that are no features
_LONGEST = 11  # characters of a cell that is not a number
_GAP = 0.25
_FAR = 2.0  # standard deviations at which a difference is as dark as it gets
_NAME_SIZE, _CELL_SIZE = 10.0, 10.0


def table_size(display):
    """Inches in which cells are legible."""
    names, columns, rows, _ = _layout(display, _MAX_FEATURES)
    return 0.085 * max(len(name) for name in names) + 0.72 * (columns + 1) + 0.6, 0.3 * rows + 0.3


def draw_table(display, ax, resize):
    """Returns the axes, as a list."""
    names, columns, n_lines, chosen = _layout(display, _MAX_FEATURES if resize else _room(ax))
    groups = (display.supporting, display.opposing)
    query = display.query.X
    decimals = {
        j: _decimals([query[j], *(row[j] for group in groups for row in group.X)], _spread(display, j)) for j in chosen
    }
    targets = [display.query.y, display.query.prediction, *(y for group in groups for y in group.y or ())]
    target_decimals = _decimals([y for y in targets if y is not None])
    ax.set_axis_off()
    name_width = 0.125 * max(len(name) for name in names)
    ax.set_xlim(-name_width, columns)
    ax.set_ylim(n_lines, 0)
    fitted, headings = [], []

    def write(x, y, text, width=0.94, **style):
        options = {"ha": "center", "va": "center", "fontsize": _CELL_SIZE, **LITERAL, **style}
        fitted.append((ax.text(x, y + 0.5, text, **options), ax, width, 0.95))

    def fill(x, y, colour):
        ax.add_patch(_rectangle(x, y, colour))

    lines = {"row": 1, "score": 2}
    tops = {feature: 3 + place for place, feature in enumerate(chosen)}
    target_line = 3 + len(chosen) + 0.2
    write(-0.15, 1, "training row", name_width, ha="right")
    write(-0.15, 2, f"score ({display.unit})" if display.unit else "score", name_width, ha="right")
    for feature in chosen:
        write(-0.15, tops[feature], display.feature_names[feature], name_width, ha="right")
    write(0.5, 1, f"query {display.query.index}", weight="bold")
    for feature in chosen:
        write(0.5, tops[feature], _cell(query[feature], decimals[feature]), weight="bold")
    has_targets = display.query.y is not None or any(group.y is not None for group in groups)
    if has_targets:
        write(-0.15, target_line, display.target_name, name_width, ha="right", style="italic")
    if display.query.y is not None:
        write(0.5, target_line, _cell(display.query.y, target_decimals), weight="bold")
    if display.query.prediction is not None:
        write(-0.15, target_line + 1, "predicted", name_width, ha="right", style="italic")
        write(0.5, target_line + 1, _cell(display.query.prediction, target_decimals), weight="bold")
    strongest = max((float(np.abs(group.scores).max()) for group in groups if len(group.scores)), default=1.0) or 1.0
    colours = blue_orange()
    x = 1 + _GAP
    for group, heading, colour in zip(groups, display.headings(), (SUPPORTING, OPPOSING)):
        width = max(len(group.X), 3)
        text = heading if len(group.X) else f"{heading}: no row"
        text = ax.text(x, 0.5, text, ha="left", va="center", color=colour, weight="bold", fontsize=10, **LITERAL)
        headings.append((text, ax, width, 0.95))
        for j, row in enumerate(group.X):
            write(x + 0.5, lines["row"], str(group.indices[j]))
            shade = colours(0.5 + 0.5 * float(group.scores[j]) / strongest)
            fill(x, lines["score"], shade)
            write(x + 0.5, lines["score"], signed(group.scores[j], groups), color=ink_on(shade))
            for feature in chosen:
                grey = 1 - 0.42 * _difference(row[feature], query[feature], _spread(display, feature))
                fill(x, tops[feature], (grey, grey, grey))
                write(x + 0.5, tops[feature], _cell(row[feature], decimals[feature]))
            if group.y is not None:
                write(x + 0.5, target_line, _cell(group.y[j], target_decimals), style="italic")
            x += 1
        x += _GAP + max(0, 3 - len(group.X))
    for y in (1, 3, 3 + len(chosen) + 0.1):
        ax.plot([-name_width, columns], [y, y], color="0.3", lw=0.8)
    note = "Grey: distance from the query in standard deviations\nover the training rows; darkest at 2 and more."
    left_out = len(display.feature_names) - len(chosen)
    if left_out:
        note += f" Left out:\n{left_out} features that differ less."
    text = ax.text(columns, n_lines, note, ha="right", va="bottom", color="0.35", fontsize=8.5, **LITERAL)
    for texts in (
        fitted,
        headings,
        [(text, ax, columns + name_width, 1.9)],
    ):  # long words must not make the cells small
        shrink_to_fit(ax.figure, texts)
    return [ax]


def _room(ax):
    """Features of which a line each is legible in axes of a given height."""
    lay_out(ax.figure)
    lines = ax.bbox.height * 72 / ax.figure.canvas.figure.dpi / _LEAST_LINE
    return int(np.clip(lines - _OTHER_LINES, 3, _MAX_FEATURES))


def _layout(display, most):
    """Names in the first column, number of columns beside it and of lines, features shown."""
    groups = (display.supporting, display.opposing)
    chosen = _chosen(display, most)
    names = [*(display.feature_names[i] for i in chosen), "training row", display.target_name]
    names.append(f"score ({display.unit})" if display.unit else "score")
    columns = 1 + 2 * _GAP + sum(max(len(group.X), 3) for group in groups)
    targets = display.query.y is not None or any(group.y is not None for group in groups)
    lines = 3 + len(chosen) + 0.2 + targets + (display.query.prediction is not None) + 2
    return names, columns, lines, chosen


def _chosen(display, most):
    """All features, or those in which the rows differ most from the query, in their own order."""
    n = len(display.feature_names)
    if n <= most:
        return list(range(n))
    rows = [*display.supporting.X, *display.opposing.X]
    differs = [
        sum(_difference(row[j], display.query.X[j], _spread(display, j), cap=np.inf) for row in rows) for j in range(n)
    ]
    return sorted(np.argsort(-np.asarray(differs), kind="stable")[:most].tolist())


def _spread(display, feature):
    return np.nan if display.spread is None else display.spread[feature]


def _difference(value, reference, spread, cap=1.0):
    """How far a value is from the query's, from 0 to 1 at ``_FAR`` standard deviations; 1 where they are no numbers."""
    pair = numbers([value, reference])
    if pair is None or np.isnan(spread):
        return float(value != reference)
    if np.isnan(pair).any():
        return float(np.isnan(pair).sum() == 1)
    distance = abs(pair[0] - pair[1])
    return 0.0 if distance == 0 else float(min(cap, distance / max(_FAR * spread, np.finfo(float).tiny)))


def _decimals(values, spread=np.nan):
    """Decimals that give the largest of some values four digits, but no more than they have; None for no numbers.

    What is nothing beside the spread of a column is left of zeros that were scaled and back.
    """
    column = numbers(values)
    if column is None or column.ndim != 1:
        return None
    column = column[np.isfinite(column)]
    largest = float(np.abs(column).max()) if len(column) else 0.0
    if largest < 1e-5 * spread:
        return 0
    if largest >= 1e6 or 0 < largest < 1e-3:
        return -1
    most = int((2 if largest < 1 else 3) - np.floor(np.log10(largest))) if largest else 0
    tolerance = 1e-5 * largest  # what is left of whole numbers that were scaled in single precision and back
    most = max(most, 0)
    return next(d for d in range(most + 1) if d == most or np.allclose(column, column.round(d), rtol=0, atol=tolerance))


def _cell(value, decimals):
    if decimals is None:
        return _shortened(value_text(value))
    number = float(value)
    if np.isnan(number):
        return "–"
    text = f"{number:.3g}" if decimals < 0 else f"{number:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _shortened(text):
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _rectangle(x, y, colour):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", lw=1)
