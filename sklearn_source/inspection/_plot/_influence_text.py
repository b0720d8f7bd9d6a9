"""A query and its rows as texts in two columns."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ._captions import answer, label, signed
from ._matplotlib import LITERAL, OPPOSING, REFERENCE, SUPPORTING, lay_out

_SIZES = (10.0, 9.0, 8.0, 7.0)
_LINE = 1.35  # line height in font sizes
_MAX_LINES, _MAX_QUERY_LINES = 6, 8
_LONGEST_LINE = 1000  # letters
_INDENT, _BETWEEN = 14.0, 24.0  # points


def draw_text(display, ax, resize):
    """Returns the axes, as a list. A new figure takes the height that the texts need."""
    figure = ax.figure
    ax.set_axis_off()
    lay_out(figure)
    points = 72 / figure.canvas.figure.dpi
    width, height = ax.bbox.width * points, ax.bbox.height * points
    size, most = _SIZES[0], _MAX_LINES
    plan = _plan(display, width, size, most)
    if resize:
        margin = figure.get_figheight() * 72 - height
        height = plan.height
        figure.set_figheight((height + margin) / 72)
    for size in _SIZES:
        plan = _plan(display, width, size, most)
        if plan.height <= height:
            break
    while plan.height > height and most > 1:
        most -= 1
        plan = _plan(display, width, size, most)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    for x, y, text, style in plan.texts:
        ax.text(x, y, text, va="top", clip_on=False, **{"fontsize": size, **LITERAL, **style})
    for x, top, bottom, colour, strength in plan.bars:
        ax.plot([x, x], [top, bottom], color=colour, lw=1.5 + 4 * strength, solid_capstyle="butt")
    return [ax]


class _Plan:
    """Where everything goes, in points from the top left corner."""

    def __init__(self):
        self.texts, self.bars, self.height = [], [], 0.0


def _plan(display, width, size, most):
    plan, step = _Plan(), size * _LINE
    groups = (display.supporting, display.opposing)
    title = " · ".join([f"query {display.query.index}", *answer(display)])
    y = _paragraph(plan, 0, 0, width, title, display.query.X, size, max(most, _MAX_QUERY_LINES if most > 1 else 1))
    plan.bars.append((4, 0, y, REFERENCE, 0.5))
    top = y + step
    column = (width - _BETWEEN) / 2
    strongest = max((float(np.abs(group.scores).max()) for group in groups if len(group.scores)), default=1.0) or 1.0
    for place, (group, heading, colour) in enumerate(zip(groups, display.headings(), (SUPPORTING, OPPOSING))):
        x, y = place * (column + _BETWEEN), top
        heading = heading if len(group.X) else f"{heading}: no row"
        for line in wrapped(heading, column, size, 2):
            plan.texts.append((x, y, line, {"color": colour, "fontweight": "bold"}))
            y += step
        y += 0.3 * step
        for j, text in enumerate(group.X):
            name = label(group, j)
            title = " · ".join([signed(group.scores[j], groups), f"row {group.indices[j]}", *filter(None, [name])])
            end = _paragraph(plan, x, y, column, title, text, size, most, colour)
            plan.bars.append((x + 4, y, end, colour, abs(float(group.scores[j])) / strongest))
            y = end + 0.7 * step
        plan.height = max(plan.height, y)
    return plan


def _paragraph(plan, x, y, width, title, text, size, most, colour="black"):
    """A title and a text under it: returns where they end."""
    room = width - _INDENT
    for line in wrapped(title, room, size, 1):
        plan.texts.append((x + _INDENT, y, line, {"color": colour, "fontweight": "bold"}))
        y += size * _LINE
    for line in wrapped(text.strip() or "(empty)", room, size, most):
        plan.texts.append((x + _INDENT, y, line, {}))
        y += size * _LINE
    return y


def wrapped(text, width, size, most):
    """Lines of a text that are no wider than `width` points, at most `most`: an ellipsis stands for the rest."""
    lines, line = [], ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if _width(candidate, size) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while len(lines) <= most and _width(word, size) > width and len(word) > 1:  # longer than a line: broken
            fits = _fitting(word, width, size)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
        if len(lines) > most:
            break
    lines.append(line)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and _width(last + " …", size) > width:
        last = last[:-1]
    if last != lines[most - 1] and " " in last:  # not within a word
        last = last[: last.rindex(" ")]
    return [*lines[: most - 1], last.rstrip() + " …"]


def _fitting(word, width, size):
    """How many letters of a word fill a line: at least one."""
    low, high = 1, len(word)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _width(word[:middle], size) <= width else (low, middle)
    return low


@lru_cache(maxsize=8192)
def _width(text, size):
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    if len(text) > _LONGEST_LINE:  # as wide as any place for it, and not worth measuring
        return np.inf
    # Bold is a little wider, and hinting moves letters: 4 % of margin.
    return 1.04 * text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]
