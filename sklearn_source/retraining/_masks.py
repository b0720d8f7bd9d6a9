"""The rows that each network of a retraining has, as masks."""

from __future__ import annotations

from collections import Counter
from numbers import Integral, Real

import numpy as np

from ..rows import row_indices


def draw_masks(n_rows, n_subsets, subset_size, root):
    """Random subsets of equally many rows: (n_subsets, n_rows). More of the same root begin with the same ones."""
    size = _subset_size(subset_size, n_rows)
    masks = np.zeros((n_subsets, n_rows), dtype=bool)
    for j, mask in enumerate(masks):
        rng = np.random.default_rng(np.random.SeedSequence(root, spawn_key=(0, j)))
        mask[rng.choice(n_rows, size=size, replace=False)] = True
    return masks


def check_masks(subsets, n_rows):
    """The user's own subsets."""
    try:
        masks = np.asarray(subsets)
    except ValueError as error:
        raise ValueError(f"expected subsets as booleans of shape (n_subsets, {n_rows}) ({error})") from error
    if (
        not masks.size
        or masks.dtype != bool
        or masks.ndim != 2
        or masks.shape[1] != n_rows
        or not masks.any(axis=1).all()
    ):
        raise ValueError(
            f"expected subsets as booleans of shape (n_subsets, {n_rows}), none of them empty, got {masks.dtype} of "
            f"shape {masks.shape}"
        )
    return masks


def leave_out_masks(names, groups, n_rows):
    """All rows, then all but each group: masks and names."""
    if not names:
        raise ValueError("expected at least one group of rows to train without, got none: name some rows")
    names = ["all", *names]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"expected groups whose names differ as texts, from each other and from 'all', the training on all rows, "
            f"got {name!r} {times} times: rename them"
        )
    masks = np.ones((len(names), n_rows), dtype=bool)
    for mask, name, rows in zip(masks[1:], names[1:], groups):
        mask[row_indices(rows, n_rows, f"group {name!r}")] = False
        if mask.all() or not mask.any():
            raise ValueError(
                f"expected groups of some rows but not all, got {'no' if mask.all() else 'all'} rows in group "
                f"{name!r}: leave it out"
            )
    return masks, names


def _subset_size(subset_size, n_rows):
    """Rows of a subset, from a fraction or a number."""
    if isinstance(subset_size, Integral) and not isinstance(subset_size, bool):
        size = int(subset_size)
    elif isinstance(subset_size, Real) and 0 < subset_size < 1:
        size = round(float(subset_size) * n_rows)
    else:
        size = 0
    if not 1 <= size < n_rows:
        raise ValueError(
            f"expected subset_size to be a fraction between 0 and 1 or a number of rows from 1 to {n_rows - 1}, got "
            f"{subset_size!r}"
        )
    return size
