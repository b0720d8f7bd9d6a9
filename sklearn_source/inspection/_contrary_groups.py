"""Groups of training rows without which a network would be less wrong, by leaving them out together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.utils import Bunch

from ._group_search import MEMBERSHIP, MIN_CORE, N_ROUNDS, nodes_of
from ._left_out import LeftOut

# Fixed on other draws of the planted causes than those that benchmarks/behaviour_groups.py reports.
_LATE, _EARLY = 2e-3, 1e-2  # ridges, of the kernel's trace
_MOST, _MOST_ROWS = 0.25, 300  # of all rows, and rows, that may be a group
_N_REFINED = 60  # nodes of most gain whose members are chosen anew
_SAME = 0.7  # of two nodes' rows together in both: one of them is enough
_OVERLAP = 0.3  # of a group's rows may be in better ones of its kind
# Of a better group's rows, how many another may have; more tells nothing new, unless it is a smaller part of the better
# one, or so large that the better one is a small part of it: by its size, in units of the better one's.
_CONTAINED, _AS_LARGE = 0.5, (0.75, 5)
_APART = 0.5  # of the usual residual, beyond which the rows of a group are off together


@dataclass(frozen=True)
class Judged:
    """A group, with what leaving it out does to the errors as they are and as chance deals them out.

    Attributes
    ----------
    rows : ndarray of int
    gains : ndarray (n_draws,)
        Fall of the sum of squared errors.
    aligned : ndarray (n_draws,)
        Inner product of the change with minus the errors, by the length of the change.
    off : float
        How far the rows' targets are from what is predicted without them, their mean.
    """

    rows: np.ndarray
    gains: np.ndarray
    aligned: np.ndarray
    off: float


class _Judge:
    """Judges groups by one ridge, each once."""

    def __init__(self, left_out, errors):
        self.left_out, self._known = left_out, {}
        self._errors = np.stack([left_out.weighed(one).ravel() for one in errors])

    def __call__(self, rows):
        rows = np.sort(rows)
        key = rows.tobytes()
        if key not in self._known:
            moved, own = self.left_out.moved(rows)
            products, square = -self._errors @ moved.ravel(), float((moved**2).sum())
            self._known[key] = Judged(
                rows, 2 * products - square, products / math.sqrt(square + 1e-300), float(np.linalg.norm(own.mean(0)))
            )
        return self._known[key]


def contrary_groups(kernel, taught, n_groups, *, weights=None, alpha=1.0, random=None):
    """Groups of rows, the most telling first.

    Two kinds take turns. Rows that contradict what the others teach: nodes of trees over rows that are alike to the
    network, or teach alike, or are alike and off the same way; those of most gain, and with members chosen anew by
    their likeness and by how far they are off once the group is left out. They are ordered by their gain and by how far
    they are off. Rows that share what others do not, a mark say, whose targets may be right: nodes of trees over rows
    that learn alike or hold each other up, grown to all that do; ordered by how well what is learnt of them early fits
    the errors, and by their likeness.

    Parameters
    ----------
    kernel : TangentKernel
    taught : ndarray (n_train, n_train)
        Scores of all rows for the training rows as queries.
    n_groups : int
        At most.
    weights : ndarray (n_query,), optional
        How many queries each of the kernel's stands for.
    alpha : float, default=1
        The errors are dealt out among the queries ``1 / alpha - 1`` times, and groups that are no stronger than the
        strongest of ``1 - alpha`` of these left out; 1: none is.
    random : RandomState

    Returns
    -------
    groups : list of Bunch
        ``rows``, ``p_value`` (NaN for ``alpha=1``), ``explained``, the share of the squared errors that goes without
        the rows, and ``falls`` (n_query,), by how much each query's does.
    """
    n_draws = 0 if alpha >= 1 else math.ceil(1 / alpha - 1 - 1e-9)
    errors = [kernel.errors, *(kernel.errors[random.permutation(len(kernel.errors))] for _ in range(n_draws))]
    late, early = (_Judge(LeftOut(kernel, share, weights), errors) for share in (_LATE, _EARLY))
    n = len(kernel.training)
    likeness = _likenesses(kernel, taught, late.left_out)
    nodes = {name: _tree_nodes(one, n) for name, one in likeness.items()}
    wrong = [(name, late(rows)) for name in ("alike", "signed", "teach") for rows in nodes[name]]
    grown = {}
    for name in ("learn", "held"):
        for rows in nodes[name]:
            rows = _grown(likeness[name], rows)
            grown.setdefault(rows.tobytes(), rows)
    shared = [(early(rows), _coherence(likeness, rows)) for rows in grown.values()]
    refined, strongest, ranked = {}, [], []
    for draw in range(len(errors)):
        contrary = {}
        for name, judged in _leading(wrong, draw):
            if id(judged) not in refined:
                own = {"signed": "alike"}.get(name, name)
                found = [_refined(late.left_out, likeness[one], judged.rows) for one in dict.fromkeys((own, "alike"))]
                refined[id(judged)] = [judged, *(late(rows) for rows in found)]
            contrary.update((id(one), one) for one in refined[id(judged)])
        of_wrong = [(_contrariness(one, draw), one) for one in contrary.values()]
        of_shared = [(max(one.aligned[draw], 0) ** 2 * coherence, one) for one, coherence in shared]
        strongest.append([max([0.0, *(strength for strength, _ in part)]) for part in (of_wrong, of_shared)])
        if draw == 0:
            ranked = [_ranked(of_wrong), _ranked(of_shared)]
    strongest = np.array(strongest)
    usual = strongest.mean(axis=0) + np.finfo(float).tiny
    by_chance = (strongest[1:] / usual).max(axis=1)
    groups, taken, sets = [], np.zeros((2, n), dtype=bool), []
    parts, judges = [iter(part) for part in ranked], (late, early)
    for turn in range(2 * n_groups):
        kind = turn % 2
        for strength, one in parts[kind]:
            p_value = (1 + (by_chance >= strength / usual[kind]).sum()) / (1 + n_draws) if n_draws else np.nan
            own = set(one.rows.tolist())
            known = taken[kind, one.rows].mean() > _OVERLAP or any(_tells_nothing_new(own, other) for other in sets)
            if known or p_value > alpha + 1e-9:
                continue
            taken[kind, one.rows] = True
            sets.append(own)
            groups.append(_told(judges[kind].left_out, kernel, one, p_value))
            break
    return groups[:n_groups]


def _tells_nothing_new(own, better):
    low, high = _AS_LARGE
    return len(own & better) > _CONTAINED * len(better) and low < len(own) / len(better) < high


def _shares(own, other):
    """Of the rows of two sets together, those in both."""
    return len(own & other) / len(own | other)


def _told(left_out, kernel, judged, p_value):
    moved, _ = left_out.moved(judged.rows)
    errors = left_out.weighed(kernel.errors)
    falls = -(2 * errors * moved + moved**2).sum(axis=1)
    total = float((errors**2).sum())
    return Bunch(rows=judged.rows, p_value=p_value, explained=judged.gains[0] / total if total else 0.0, falls=falls)


def _contrariness(judged, draw):
    """How well what goes with the rows fits the errors, in length and in direction, and how far the rows are off."""
    gain, aligned = max(judged.gains[draw], 0), max(judged.aligned[draw], 0)
    return math.sqrt(aligned * math.sqrt(gain)) * judged.off


def _ranked(judged):
    return sorted((one for one in judged if one[0] > 0), key=lambda one: -one[0])


def _likenesses(kernel, taught, left_out):
    """Likeness of all rows (n, n) in five respects."""
    length = np.sqrt(np.maximum(np.diag(kernel.training), np.finfo(float).tiny))
    alike = kernel.training / length / length[:, None]
    lone = _unit(left_out.lone_residuals)
    taught = np.array(taught, dtype=np.float64)
    np.fill_diagonal(taught, 0)
    teach = _unit(taught.T)
    learn = _unit(taught / np.maximum(np.sqrt((taught**2).sum(axis=0)), np.finfo(float).tiny))
    return {
        "alike": alike,
        "signed": alike * (lone @ lone.T),
        "teach": teach @ teach.T,
        "learn": learn @ learn.T,
        "held": left_out.likeness,
    }


def _most(n):
    return min(_MOST * n, _MOST_ROWS)


def _tree_nodes(likeness, n):
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


def _leading(wrong, draw):
    """The groups of most gain, without those that are nearly another."""
    gains = np.array([judged.gains[draw] for _, judged in wrong])
    chosen, sets = [], []
    for i in np.argsort(-gains, kind="stable"):
        if gains[i] <= 0 or len(chosen) == _N_REFINED:
            break
        own = set(wrong[i][1].rows.tolist())
        if all(_shares(own, other) <= _SAME for other in sets):
            sets.append(own)
            chosen.append(wrong[i])
    return chosen


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


def _grown(likeness, rows):
    """All rows that are half as alike to a group as its median member."""

    def choose(rows):
        mean = _mean_likeness(likeness, rows)
        return mean > MEMBERSHIP * np.median(mean[rows])

    return _rounds(choose, rows, len(likeness))


def _refined(left_out, likeness, rows):
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


def _coherence(likeness, rows):
    """How alike different rows are in every sense that does not ask for their targets, and how many they are."""
    means = []
    for name in ("learn", "held", "alike"):
        inner = likeness[name][np.ix_(rows, rows)]
        means.append(max((inner.sum() - np.trace(inner)) / (len(rows) * (len(rows) - 1)), 0))
    return math.prod(means) ** 0.2 * len(rows) ** 0.25


def _unit(values):
    return values / np.maximum(np.sqrt((values**2).sum(axis=1, keepdims=True)), np.finfo(float).tiny)
