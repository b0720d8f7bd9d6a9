"""Rows that are alike to a network, in several respects: trees over them, and groups that take in who is alike."""

from __future__ import annotations

import math

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from ._group_search import MEMBERSHIP, MIN_CORE, N_ROUNDS, nodes_of, unit_rows

# Fixed on other draws of the planted causes than those that benchmarks/behaviour_groups.py reports.
_MOST, _MOST_ROWS = 0.25, 300  # of all rows, and rows, that may be a group
_APART = 0.5  # of the usual residual, beyond which the rows of a group are off together


def likenesses(kernel, taught, left_out):
    """Likeness of all rows (n, n) in five respects."""
    length = np.sqrt(np.maximum(np.diag(kernel.training), np.finfo(float).tiny))
    alike = kernel.training / length / length[:, None]
    lone = unit_rows(left_out.lone_residuals)
    taught = np.array(taught, dtype=np.float64)
    np.fill_diagonal(taught, 0)
    teach = unit_rows(taught.T)
    learn = unit_rows(taught / np.maximum(np.sqrt((taught**2).sum(axis=0)), np.finfo(float).tiny))
    return {
        "alike": alike,
        "signed": alike * (lone @ lone.T),
        "teach": teach @ teach.T,
        "learn": learn @ learn.T,
        "held": left_out.likeness,
    }


def _most(n):
    return min(_MOST * n, _MOST_ROWS)


def tree_nodes(likeness, n):
    """The nodes, neither too small nor too large, of two trees over rows."""
    distance = np.clip(1 - (likeness + likeness.T) / 2, 0, 2)
    np.fill_diagonal(distance, 0)
    distance = squareform(distance, checks=False)
    found = {}
    for method in ("average", "complete"):
        for node in nodes_of(linkage(distance, method)):
            if MIN_CORE <= len(node) <= _most(n):
                rows = np.sort(node)
                found.setdefault(rows.tobytes(), rows)
    return list(found.values())


def _mean_likeness(likeness, rows):
    """Of every row to the rows of a group, itself left out: (n,)."""
    mean = likeness[:, rows].mean(axis=1)
    mean[rows] = (mean[rows] * len(rows) - likeness[rows, rows]) / max(len(rows) - 1, 1)
    return mean


def _rounds(choose, rows, n):
    """Members chosen anew until they stay."""
    for _ in range(N_ROUNDS):
        chosen = np.flatnonzero(choose(rows))
        if not MIN_CORE <= len(chosen) <= _most(n) or np.array_equal(chosen, rows):
            break
        rows = chosen
    return rows


def grown(likeness, rows):
    """All rows that are half as alike to a group as its median member."""

    def choose(rows):
        mean = _mean_likeness(likeness, rows)
        return mean > MEMBERSHIP * np.median(mean[rows])

    return _rounds(choose, rows, len(likeness))


def refined(left_out, likeness, rows):
    """The same, of them those that are off the same way where the group is, once it is left out."""

    def choose(rows):
        mean = _mean_likeness(likeness, rows)
        chosen = mean > MEMBERSHIP * np.median(mean[rows])
        residuals = left_out.all_residuals(rows)
        # One number per row may be far off; classes are bounded.
        off = np.median(residuals[rows], axis=0) if residuals.shape[1] == 1 else residuals[rows].mean(axis=0)
        if np.linalg.norm(off) > _APART * np.sqrt((residuals**2).sum(axis=1).mean()):
            chosen &= residuals @ off > MEMBERSHIP * (off @ off)
        return chosen

    return _rounds(choose, rows, len(likeness))


def coherence(likeness, rows):
    """How alike different rows are in every sense that does not ask for their targets, and how many they are."""
    means = []
    for name in ("learn", "held", "alike"):
        inner = likeness[name][np.ix_(rows, rows)]
        means.append(max((inner.sum() - np.trace(inner)) / (len(rows) * (len(rows) - 1)), 0))
    return math.prod(means) ** 0.2 * len(rows) ** 0.25
