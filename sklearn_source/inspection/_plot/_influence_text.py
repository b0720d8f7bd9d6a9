"""A query and its rows as texts in two columns."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ._captions import format_error, format_score, query_caption, row_caption
from ._matplotlib import LITERAL, OPPOSING, REFERENCE, SUPPORTING, update_layout

_FONT_SIZES = (10.0, 9.0, 8.0, 7.0)
_LINE_HEIGHT = 1.35  # line height in font sizes
_MAX_LINES, _MAX_QUERY_LINES = 6, 8
_LONGEST_LINE = 1000  # letters
_INDENT, _COLUMN_GAP = 14.0, 24.0  # points


def text_size(display):
    """Width and height in inches; :func:`draw_text` gives a new figure the height that the texts need."""
    return 11.0, 6.0


def draw_text(display, ax, resize):
    """Draw the texts and return the axes, as a list; where the figure may ``resize`` it takes the height they need."""
    figure = ax.figure
    ax.set_axis_off()
    update_layout(figure)
    points = 72 / figure.canvas.figure.dpi
    width, height = ax.bbox.width * points, ax.bbox.height * points
    size, max_lines = _FONT_SIZES[0], _MAX_LINES
    layout = _lay_out_texts(display, width, size, max_lines)
    if resize:
        margin = figure.get_figheight() * 72 - height
        height = layout.height
        figure.set_figheight((height + margin) / 72)
    for size in _FONT_SIZES:
        layout = _lay_out_texts(display, width, size, max_lines)
        if layout.height <= height:
            break
    while layout.height > height and max_lines > 1:
        max_lines -= 1
        layout = _lay_out_texts(display, width, size, max_lines)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    for x, y, text, style in layout.texts:
        ax.text(x, y, text, va="top", clip_on=False, **{"fontsize": size, **LITERAL, **style})
    for x, top, bottom, colour, strength in layout.bars:
        ax.plot([x, x], [top, bottom], color=colour, lw=1.5 + 4 * strength, solid_capstyle="butt")
    return [ax]


class _Layout:
    """Where everything goes, in points from the top left corner.

    Attributes
    ----------
    texts : list of (x, y, line, style)
        Lines by their upper left corners.
    bars : list of (x, top, bottom, colour, strength)
        Vertical bars, the wider the stronger, from 0 to 1.
    height : float
        Of all.
    """

    def __init__(self):
        self.texts, self.bars, self.height = [], [], 0.0


def _lay_out_texts(display, width, size, max_lines):
    """The :class:`_Layout` of a display at a width in points, a font size, and so many lines a text."""
    layout, step = _Layout(), size * _LINE_HEIGHT
    groups = (display.supporting, display.opposing)
    title = " · ".join([f"query {display.query.index}", *query_caption(display)])
    y = _add_paragraph(
        layout, 0, 0, width, title, display.query.X, size, max(max_lines, _MAX_QUERY_LINES if max_lines > 1 else 1)
    )
    layout.bars.append((4, 0, y, REFERENCE, 0.5))
    top = y + step
    column = (width - _COLUMN_GAP) / 2
    strongest = max((float(np.abs(group.scores).max()) for group in groups if len(group.scores)), default=1.0) or 1.0
    for place, (group, heading, colour) in enumerate(zip(groups, display.headings(), (SUPPORTING, OPPOSING))):
        x, y = place * (column + _COLUMN_GAP), top
        heading = heading if len(group.X) else f"{heading}: no row"
        for line in wrap_text(heading, column, size, 2):
            layout.texts.append((x, y, line, {"color": colour, "fontweight": "bold"}))
            y += step
        y += 0.3 * step
        for j, text in enumerate(group.X):
            score = " ".join(filter(None, [format_score(group.scores[j], groups), format_error(group, j)]))
            title = " · ".join(filter(None, [score, f"row {group.indices[j]}", row_caption(group, j)]))
            end = _add_paragraph(layout, x, y, column, title, text, size, max_lines, colour)
            layout.bars.append((x + 4, y, end, colour, abs(float(group.scores[j])) / strongest))
            y = end + 0.7 * step
        layout.height = max(layout.height, y)
    return layout


def _add_paragraph(layout, x, y, width, title, text, size, max_lines, colour="black"):
    """Add a title and a text under it to a layout, and return y where they end."""
    text_width = width - _INDENT
    for line in wrap_text(title, text_width, size, 1):
        layout.texts.append((x + _INDENT, y, line, {"color": colour, "fontweight": "bold"}))
        y += size * _LINE_HEIGHT
    for line in wrap_text(text.strip() or "(empty)", text_width, size, max_lines):
        layout.texts.append((x + _INDENT, y, line, {}))
        y += size * _LINE_HEIGHT
    return y


def wrap_text(text, width, size, max_lines):
    """Lines, a list of str, no wider than ``width`` points, at most ``max_lines``: an ellipsis stands for the rest."""
    lines, line = [], ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if _text_width(candidate, size) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while (
            len(lines) <= max_lines and _text_width(word, size) > width and len(word) > 1
        ):  # longer than a line: broken
            n_letters = _n_letters_that_fit(word, width, size)
            lines.append(word[:n_letters])
            word = word[n_letters:]
        line = word
        if len(lines) > max_lines:
            break
    lines.append(line)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while last and _text_width(last + " …", size) > width:
        last = last[:-1]
    if last != lines[max_lines - 1] and " " in last:  # not within a word
        last = last[: last.rindex(" ")]
    return [*lines[: max_lines - 1], last.rstrip() + " …"]


def _n_letters_that_fit(word, width, size):
    """How many letters of a word fill a line: at least one."""
    low, high = 1, len(word)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _text_width(word[:middle], size) <= width else (low, middle)
    return low


@lru_cache(maxsize=8192)
def _text_width(text, size):
    """Width of a text in points at a font size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    if len(text) > _LONGEST_LINE:  # as wide as any place for it, and not worth measuring
        return np.inf
    # Bold is a little wider, and hinting moves letters: 4 % of margin.
    return 1.04 * text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]
