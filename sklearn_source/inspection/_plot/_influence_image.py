"""Images of a query and its rows, side by side."""

from __future__ import annotations

from textwrap import wrap

import numpy as np

from ._captions import answer, label, signed
from ._matplotlib import LITERAL, OPPOSING, REFERENCE, SUPPORTING, divide, shrink_to_fit


def image_size(display):
    """Inches in which little is left empty."""
    groups = (display.supporting, display.opposing)
    columns = max(len(group.X) for group in groups)
    width = 2.6 + 1.35 * max(columns, 3)
    rows, across = display.query.X.shape[:2]
    side = min(width / (max(columns, 1) + 1.5) - 0.06, 2.0) * rows / across
    lines = 2 * (2 if groups[0].y is None and groups[1].y is None else 3)
    return width, float(np.clip(2 * side + 0.19 * lines + 1.1, 3.0, 9.0))


def draw_images(display, ax, resize):
    """The query at the left, supporting rows above, opposing ones below: returns the axes of the images, in order."""
    figure, groups = ax.figure, (display.supporting, display.opposing)
    widest = max(1, *(len(group.X) for group in groups))
    heights = [0.08, 1] * 2  # a line of its own over each row of images, so that long words need not fit over one
    grid = divide(ax, 4, widest + 1, width_ratios=[1.5] + [1] * widest, height_ratios=heights)
    brightness = _brightness([display.query.X, *display.supporting.X, *display.opposing.X])
    query = figure.add_subplot(grid[:, 0])
    _show(query, display.query.X, brightness, REFERENCE)
    words = [line for text in answer(display) for line in wrap(text, 22, max_lines=2, placeholder=" …")]
    title = query.set_title("\n".join([f"query {display.query.index}", *words]), fontsize=11, **LITERAL)
    titles = [(title, query, 1.04 * display.query.X.shape[1], np.inf)]
    axes, headings, labels = [query], [], []
    for place, (group, heading, colour) in enumerate(zip(groups, display.headings(), (SUPPORTING, OPPOSING))):
        line = figure.add_subplot(grid[2 * place, 1:])
        line.set_axis_off()
        text = heading if len(group.X) else f"{heading}: no row"
        text = line.text(0, 0, text, color=colour, fontsize=11, in_layout=False, **LITERAL)
        headings.append((text, line, 1.0, np.inf))
        for j, (image, index, score) in enumerate(zip(group.X, group.indices, group.scores)):
            own = figure.add_subplot(grid[2 * place + 1, j + 1])
            _show(own, image, brightness, colour)
            own.set_anchor("N")  # close to what is written over it
            name = label(group, j)
            name = f"{display.target_name} {name}" if name.isdigit() else name
            own.set_title(signed(score, groups), fontsize=11, color=colour, fontweight="bold", pad=4)
            words = "\n".join([f"row {index}", *wrap(name, 16, max_lines=2, placeholder=" …")])
            text = own.set_xlabel(words, fontsize=9, **LITERAL)
            labels.append((text, own, 1.04 * image.shape[1], np.inf))
            axes.append(own)
    for texts in (titles, headings, labels):
        shrink_to_fit(figure, texts)
    return axes


def _show(ax, image, brightness, colour):
    if image.ndim == 3:
        low, high = brightness
        if image.dtype != np.uint8:
            image = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
            image = image if image.shape[-1] == 3 else np.concatenate([image[..., :3], image[..., 3:]], axis=-1)
        ax.imshow(image, interpolation="nearest")
    else:
        ax.imshow(image, cmap="gray", vmin=brightness[0], vmax=brightness[1], interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2.5)


def _brightness(images):
    """Darkest and lightest value of all images, so that they compare; colours in [0, 1] keep their own."""
    low = min(float(np.nanmin(image)) for image in images)
    high = max(float(np.nanmax(image)) for image in images)
    if images[0].ndim == 3 and low >= 0 and high <= 1:
        return 0.0, 1.0
    if images[0].ndim == 3 and low >= 0 and high <= 255 and images[0].dtype.kind in "ui":
        return 0.0, 255.0
    return low, high if high > low else low + 1.0
