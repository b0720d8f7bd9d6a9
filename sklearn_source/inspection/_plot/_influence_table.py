"""A query and its rows as one table: features downwards, rows sideways."""

from __future__ import annotations

import numpy as np

from ._captions import format_error, format_score, format_value
from ._matplotlib import (
    LITERAL,
    OPPOSING,
    SUPPORTING,
    score_colormap,
    shrink_to_fit,
    text_color_on,
    update_layout,
)
from ._row_kinds import floats_or_none

_MAX_FEATURES = 30
_MIN_LINE_HEIGHT, _OTHER_LINES = 10.0, 8  # points that a line has at least; lines that are no features
_MAX_CELL_LENGTH = 11  # characters of a cell that is not a number
_GAP = 0.25
_DARKEST_AT = 2.0  # standard deviations at which a difference is as dark as it gets
_NAME_SIZE, _CELL_SIZE = 10.0, 10.0


def table_size(display):
    """Width and height in inches in which cells are legible."""
    names, columns, rows, _ = _table_layout(display, _MAX_FEATURES)
    return 0.085 * max(len(name) for name in names) + 0.72 * (columns + 1) + 0.6, 0.3 * rows + 0.3


def draw_table(display, ax, resize):
    """Draw the table and return the axes, as a list; without ``resize``, only features that fit are shown."""
    names, columns, n_lines, features = _table_layout(display, _MAX_FEATURES if resize else _n_features_that_fit(ax))
    groups = (display.supporting, display.opposing)
    query = display.query.X
    decimals = {
        j: decimals_of([query[j], *(row[j] for group in groups for row in group.X)], feature_std(display, j))
        for j in features
    }
    targets = [display.query.y, display.query.prediction, *(y for group in groups for y in group.y or ())]
    target_decimals = decimals_of([y for y in targets if y is not None])
    ax.set_axis_off()
    name_width = 0.125 * max(len(name) for name in names)
    ax.set_xlim(-name_width, columns)
    ax.set_ylim(n_lines, 0)
    cells, headings = [], []

    def write(x, y, text, width=0.94, **style):
        options = {"ha": "center", "va": "center", "fontsize": _CELL_SIZE, **LITERAL, **style}
        cells.append((ax.text(x, y + 0.5, text, **options), ax, width, 0.95))

    def fill(x, y, colour):
        ax.add_patch(_rectangle(x, y, colour))

    first = _first_feature_line(display)
    lines = {"row": 1, "score": 2, "error": 3}
    feature_lines = {feature: first + place for place, feature in enumerate(features)}
    target_line = first + len(features) + 0.2
    write(-0.15, 1, "training row", name_width, ha="right")
    write(-0.15, 2, f"score ({display.unit})" if display.unit else "score", name_width, ha="right")
    if first > lines["error"]:
        write(-0.15, lines["error"], "standard error", name_width, ha="right")
    for feature in features:
        write(-0.15, feature_lines[feature], display.feature_names[feature], name_width, ha="right")
    write(0.5, 1, f"query {display.query.index}", weight="bold")
    for feature in features:
        write(0.5, feature_lines[feature], format_cell(query[feature], decimals[feature]), weight="bold")
    has_targets = display.query.y is not None or any(group.y is not None for group in groups)
    if has_targets:
        write(-0.15, target_line, display.target_name, name_width, ha="right", style="italic")
    if display.query.y is not None:
        write(0.5, target_line, format_cell(display.query.y, target_decimals), weight="bold")
    if display.query.prediction is not None:
        write(-0.15, target_line + 1, "predicted", name_width, ha="right", style="italic")
        write(0.5, target_line + 1, format_cell(display.query.prediction, target_decimals), weight="bold")
    strongest = max((float(np.abs(group.scores).max()) for group in groups if len(group.scores)), default=1.0) or 1.0
    colours = score_colormap()
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
            write(x + 0.5, lines["score"], format_score(group.scores[j], groups), color=text_color_on(shade))
            if group.errors is not None:
                write(x + 0.5, lines["error"], format_error(group, j))
            for feature in features:
                grey = 1 - 0.42 * difference(row[feature], query[feature], feature_std(display, feature))
                fill(x, feature_lines[feature], (grey, grey, grey))
                write(x + 0.5, feature_lines[feature], format_cell(row[feature], decimals[feature]))
            if group.y is not None:
                write(x + 0.5, target_line, format_cell(group.y[j], target_decimals), style="italic")
            x += 1
        x += _GAP + max(0, 3 - len(group.X))
    for y in (1, first, first + len(features) + 0.1):
        ax.plot([-name_width, columns], [y, y], color="0.3", lw=0.8)
    note = "Grey: distance from the query in standard deviations\nover the training rows; darkest at 2 and more."
    left_out = len(display.feature_names) - len(features)
    if left_out:
        note += f" Left out:\n{left_out} features that differ less."
    text = ax.text(columns, n_lines, note, ha="right", va="bottom", color="0.35", fontsize=8.5, **LITERAL)
    for texts in (
        cells,
        headings,
        [(text, ax, columns + name_width, 1.9)],
    ):  # long words must not make the cells small
        shrink_to_fit(ax.figure, texts)
    return [ax]


def _n_features_that_fit(ax):
    """How many features have a legible line each in axes of their height."""
    update_layout(ax.figure)
    lines = ax.bbox.height * 72 / ax.figure.canvas.figure.dpi / _MIN_LINE_HEIGHT
    return int(np.clip(lines - _OTHER_LINES, 3, _MAX_FEATURES))


def _table_layout(display, max_features):
    """Names in the first column, number of columns beside it and of lines, and positions of the features shown."""
    groups = (display.supporting, display.opposing)
    features = features_to_show(display, max_features)
    names = [*(display.feature_names[i] for i in features), "training row", display.target_name]
    names.append(f"score ({display.unit})" if display.unit else "score")
    first = _first_feature_line(display)
    if first > 3:
        names.append("standard error")
    columns = 1 + 2 * _GAP + sum(max(len(group.X), 3) for group in groups)
    targets = display.query.y is not None or any(group.y is not None for group in groups)
    lines = first + len(features) + 0.2 + targets + (display.query.prediction is not None) + 2
    return names, columns, lines, features


def _first_feature_line(display):
    """Under the headings, the rows' numbers, their scores and the errors of these where they are known."""
    return 3 + any(group.errors is not None for group in (display.supporting, display.opposing))


def features_to_show(display, max_features):
    """Positions of all features, or of those in which the rows differ most from the query, in their own order."""
    n = len(display.feature_names)
    if n <= max_features:
        return list(range(n))
    rows = [*display.supporting.X, *display.opposing.X]
    differs = [
        sum(difference(row[j], display.query.X[j], feature_std(display, j), cap=np.inf) for row in rows)
        for j in range(n)
    ]
    return sorted(np.argsort(-np.asarray(differs), kind="stable")[:max_features].tolist())


def feature_std(display, feature):
    """Standard deviation of a feature over the training rows, NaN where it is not known."""
    return np.nan if display.spread is None else display.spread[feature]


def difference(value, reference, std, cap=1.0):
    """How far a value is from the query's: 1 at ``_DARKEST_AT`` standard deviations, at most ``cap``.

    Where they are no numbers, 1 if they differ and 0 if not.
    """
    pair = floats_or_none([value, reference])
    if pair is None or np.isnan(std):
        return float(value != reference)
    if np.isnan(pair).any():
        return float(np.isnan(pair).sum() == 1)
    distance = abs(pair[0] - pair[1])
    return 0.0 if distance == 0 else float(min(cap, distance / max(_DARKEST_AT * std, np.finfo(float).tiny)))


def decimals_of(values, std=np.nan):
    """Decimals that give the largest of some values four digits, but no more than they have; None for no numbers.

    What is nothing beside a column's standard deviation is left of zeros that were scaled and back.
    """
    column = floats_or_none(values)
    if column is None or column.ndim != 1:
        return None
    column = column[np.isfinite(column)]
    largest = float(np.abs(column).max()) if len(column) else 0.0
    if largest < 1e-5 * std:
        return 0
    if largest >= 1e6 or 0 < largest < 1e-3:
        return -1
    most = int((2 if largest < 1 else 3) - np.floor(np.log10(largest))) if largest else 0
    tolerance = 1e-5 * largest  # what is left of whole numbers that were scaled in single precision and back
    most = max(most, 0)
    return next(d for d in range(most + 1) if d == most or np.allclose(column, column.round(d), rtol=0, atol=tolerance))


def format_cell(value, decimals):
    """A value as str, with the decimals that :func:`decimals_of` gave for its line."""
    if decimals is None:
        return _shorten(format_value(value))
    number = float(value)
    if np.isnan(number):
        return "–"
    text = f"{number:.3g}" if decimals < 0 else f"{number:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _shorten(text):
    """A text cut to the length of a cell, with an ellipsis."""
    return text if len(text) <= _MAX_CELL_LENGTH else text[: _MAX_CELL_LENGTH - 1] + "…"


def _rectangle(x, y, colour):
    """A cell of the table, filled."""
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", lw=1)
