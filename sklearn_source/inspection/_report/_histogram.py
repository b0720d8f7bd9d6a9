"""The distribution of all scores of one query, as what a page draws."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

WIDTH, HEIGHT = 440, 90
_NOISE_WIDTH = 1.96  # standard errors on either side
_MOST_ROWS = 0.95


def histogram(profile, scale, errors):
    """Bars of a histogram with counts on a logarithmic axis, and the band in which scores may be chance.

    Parameters
    ----------
    profile : Bunch
        With ``scores`` (n_train,) of the query, and ``counts`` (n_bins,) and ``edges`` (n_bins + 1,) of their
        histogram.
    scale : float
        Multiplies scores.
    errors : ndarray (n_train,) or None
        Standard errors of the scores.

    Returns
    -------
    drawing : Bunch
        bars : list of Bunch
            ``x``, ``y``, ``width``, ``height`` in the units of the drawing, ``side`` ("supporting", "opposing" or
            "zero"), ``words``.
        noise : Bunch or None
            ``x`` and ``width`` of the band, ``half`` its half width in the unit of the scores, 1.96 of the standard
            errors that 95 % of the rows stay below; ``n_certain``, how many scores are beyond 1.96 of their own.
        low, high : float
            Ends of the axis in the unit of the scores.
        median_share : float
            Share of all rows whose score is in the tallest bar.
    """
    counts, edges = profile.counts, profile.edges
    reach = float(edges[-1])
    heights = np.log1p(counts) / np.log1p(max(1, counts.max())) * HEIGHT
    step = WIDTH / len(counts)
    bars = []
    for j, (count, height) in enumerate(zip(counts, heights)):
        if count:
            low, high = edges[j] * scale, edges[j + 1] * scale
            side = "zero" if low < 0 < high else "supporting" if low >= 0 else "opposing"
            words = f"{int(count):,} rows from {low:.2g} to {high:.2g}"
            bars.append(
                Bunch(x=round(j * step, 1), y=round(HEIGHT - height, 1), width=round(step - 1, 1),
                      height=round(max(height, 1.0), 1), side=side, words=words)
            )  # fmt: skip
    noise = None
    if errors is not None and np.isfinite(errors).any():
        half = _NOISE_WIDTH * float(np.quantile(errors[np.isfinite(errors)], _MOST_ROWS))
        n_certain = int((np.abs(profile.scores) > _NOISE_WIDTH * errors).sum())
        width = min(half / reach, 1.0) * WIDTH
        noise = Bunch(x=round((WIDTH - width) / 2, 1), width=round(width, 1), half=half * scale, n_certain=n_certain)
    share = float(counts.max() / counts.sum())
    return Bunch(bars=bars, noise=noise, low=-reach * scale, high=reach * scale, median_share=share)
