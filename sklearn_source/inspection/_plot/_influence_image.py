"""Images of a query and its rows, side by side."""

from __future__ import annotations

from textwrap import wrap

import numpy as np

from ._captions import format_error, format_score, query_caption, row_caption
from ._matplotlib import LITERAL, OPPOSING, REFERENCE, SUPPORTING, shrink_to_fit, subdivide


def image_size(display):
    """Width and height in inches in which little is left empty."""
    groups = (display.supporting, display.opposing)
    columns = max(len(group.X) for group in groups)
    width = 2.6 + 1.35 * max(columns, 3)
    rows, across = display.query.X.shape[:2]
    side = min(width / (max(columns, 1) + 1.5) - 0.06, 2.0) * rows / across
    lines = sum(
        1
        + (group.errors is not None)
        + max((len(_row_lines(display, group, j)) for j in range(len(group.X))), default=1)
        for group in groups
    )
    return width, float(np.clip(2 * side + 0.19 * lines + 1.1, 3.0, 9.0))


def draw_images(display, ax, resize):
    """Draw the query at the left, supporting rows above, opposing ones below, and return the images' axes in order.

    Images take the size of the axes: ``resize``, whether the figure may grow, changes nothing.
    """
    figure, groups = ax.figure, (display.supporting, display.opposing)
    widest = max(1, *(len(group.X) for group in groups))
    heights = [0.08, 1] * 2  # a line of its own over each row of images, so that long words need not fit over one
    grid = subdivide(ax, 4, widest + 1, width_ratios=[1.5] + [1] * widest, height_ratios=heights)
    value_range = value_range_of([display.query.X, *display.supporting.X, *display.opposing.X])
    query = figure.add_subplot(grid[:, 0])
    _draw_image(query, display.query.X, value_range, REFERENCE)
    words = [line for text in query_caption(display) for line in wrap(text, 22, max_lines=2, placeholder=" …")]
    title = query.set_title("\n".join([f"query {display.query.index}", *words]), fontsize=11, **LITERAL)
    titles = [(title, query, 1.04 * display.query.X.shape[1], np.inf)]
    axes, headings, labels = [query], [], []
    for place, (group, heading, colour) in enumerate(zip(groups, display.headings(), (SUPPORTING, OPPOSING))):
        line = figure.add_subplot(grid[2 * place, 1:])
        line.set_axis_off()
        text = heading if len(group.X) else f"{heading}: no row"
        text = line.text(0, 0, text, color=colour, fontsize=11, in_layout=False, **LITERAL)
        headings.append((text, line, 1.0, np.inf))
        for j, (image, score) in enumerate(zip(group.X, group.scores)):
            own = figure.add_subplot(grid[2 * place + 1, j + 1])
            _draw_image(own, image, value_range, colour)
            own.set_anchor("N")  # close to what is written over it
            title = "\n".join(filter(None, [format_score(score, groups), format_error(group, j)]))
            own.set_title(title, fontsize=11, color=colour, fontweight="bold", pad=4)
            text = own.set_xlabel("\n".join(_row_lines(display, group, j)), fontsize=9, **LITERAL)
            labels.append((text, own, 1.04 * image.shape[1], np.inf))
            axes.append(own)
    for texts in (titles, headings, labels):
        shrink_to_fit(figure, texts)
    return axes


def _row_lines(display, group, j):
    """What is written under row j of a group, a list of lines: its index, and its target on up to two more."""
    target = row_caption(group, j)
    target = f"{display.target_name} {target}" if target.isdigit() else target
    return [f"row {group.indices[j]}", *wrap(target, 16, max_lines=2, placeholder=" …")]


def _draw_image(ax, image, value_range, colour):
    """Draw an image (height, width[, channels]) with a frame; ``value_range`` is what is black and what is white."""
    if image.ndim == 3:
        low, high = value_range
        if image.dtype != np.uint8:
            image = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
        ax.imshow(image, interpolation="nearest")
    else:
        ax.imshow(image, cmap="gray", vmin=value_range[0], vmax=value_range[1], interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.5)


def value_range_of(images):
    """Darkest and lightest value of all images, two floats, so that they compare; colours in [0, 1] keep their own."""
    low = min(float(np.nanmin(image)) for image in images)
    high = max(float(np.nanmax(image)) for image in images)
    if images[0].ndim == 3 and low >= 0 and high <= 1:
        return 0.0, 1.0
    if images[0].ndim == 3 and low >= 0 and high <= 255 and images[0].dtype.kind in "ui":
        return 0.0, 255.0
    return low, high if high > low else low + 1.0
