"""Groups of training rows without which a network would be less wrong, by leaving them out together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.utils import Bunch

from ._alike_rows import coherence, grown, likenesses, refined, tree_nodes
from ._left_out import LeftOut

# Fixed on other draws of the planted causes than those that benchmarks/behaviour_groups.py reports.
_LATE, _EARLY = 2e-3, 1e-2  # ridges, of the kernel's trace
_N_REFINED = 60  # nodes of most gain whose members are chosen anew
_SAME = 0.7  # of two nodes' rows together in both: one of them is enough
_OVERLAP = 0.3  # of a group's rows may be in better ones of its kind
# Of a better group's rows, how many another may have; more tells nothing new, unless it is a smaller part of the better
# one, or so large that the better one is a small part of it: by its size, in units of the better one's.
_CONTAINED, _AS_LARGE = 0.5, (0.75, 5)


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
    likeness = likenesses(kernel, taught, late.left_out)
    nodes = {name: tree_nodes(one, len(taught)) for name, one in likeness.items()}
    kinds = _Contrary(late, likeness, nodes), _Shared(early, likeness, nodes)
    found = [[kind.strengths(draw) for kind in kinds] for draw in range(1 + n_draws)]
    strongest = np.array([[max([0.0, *(strength for strength, _ in part)]) for part in draw] for draw in found])
    usual = strongest.mean(axis=0) + np.finfo(float).tiny  # what is found counts as one more draw
    by_chance = (strongest[1:] / usual).max(axis=1)

    def p_value(strength, kind):
        return (1 + (by_chance >= strength / usual[kind]).sum()) / (1 + n_draws) if n_draws else np.nan

    ranked = [[(one, p_value(strength, kind)) for strength, one in _ranked(part)] for kind, part in enumerate(found[0])]
    chosen = _in_turns(
        [[pair for pair in part if not pair[1] > alpha + 1e-9] for part in ranked], n_groups, len(taught)
    )
    return [_told(kinds[kind].judge.left_out, kernel, one.rows, p_value) for kind, one, p_value in chosen]


class _Contrary:
    """Rows that contradict what the others teach."""

    def __init__(self, judge, likeness, nodes):
        self.judge, self._likeness, self._refined = judge, likeness, {}
        self._nodes = [(name, judge(rows)) for name in ("alike", "signed", "teach") for rows in nodes[name]]

    def strengths(self, draw):
        """Groups with what orders them by the errors of a draw: list of (float, Judged)."""
        leading = _leading(self._nodes, draw)
        groups = {id(one): one for name, judged in leading for one in self._with_members_anew(name, judged)}
        return [(_contrariness(one, draw), one) for one in groups.values()]

    def _with_members_anew(self, name, judged):
        if id(judged) not in self._refined:
            own = {"signed": "alike"}.get(name, name)
            rows = [
                refined(self.judge.left_out, self._likeness[one], judged.rows) for one in dict.fromkeys((own, "alike"))
            ]
            self._refined[id(judged)] = [judged, *(self.judge(some) for some in rows)]
        return self._refined[id(judged)]


class _Shared:
    """Rows that share what others do not."""

    def __init__(self, judge, likeness, nodes):
        groups = [grown(likeness[name], rows) for name in ("learn", "held") for rows in nodes[name]]
        self.judge = judge
        self._groups = [
            (judge(rows), coherence(likeness, rows)) for rows in {rows.tobytes(): rows for rows in groups}.values()
        ]

    def strengths(self, draw):
        """Groups with what orders them by the errors of a draw: list of (float, Judged)."""
        return [(max(one.aligned[draw], 0) ** 2 * alike, one) for one, alike in self._groups]


def _in_turns(ranked, n_groups, n):
    """The first of either kind, the second of either, ... without those that tell nothing new: (kind, Judged, p)."""
    chosen, taken, sets = [], np.zeros((len(ranked), n), dtype=bool), []
    parts = [iter(part) for part in ranked]
    for turn in range(len(parts) * n_groups):
        kind = turn % len(parts)
        for one, p_value in parts[kind]:
            own = set(one.rows.tolist())
            if taken[kind, one.rows].mean() > _OVERLAP or any(tells_nothing_new(own, other) for other in sets):
                continue
            taken[kind, one.rows] = True
            sets.append(own)
            chosen.append((kind, one, p_value))
            break
    return chosen[:n_groups]


def tells_nothing_new(own, better):
    """Whether a group has much of a better one in it, and is neither a part of it nor far larger: both sets of rows."""
    low, high = _AS_LARGE
    return len(own & better) > _CONTAINED * len(better) and low < len(own) / len(better) < high


def _shares(own, other):
    """Of the rows of two sets together, those in both."""
    return len(own & other) / len(own | other)


def explained_without(kernel, groups, weights=None):
    """The share of the squared errors that goes without the rows of each group, after training to the end: list."""
    left_out = LeftOut(kernel, _LATE, weights)
    return [_told(left_out, kernel, rows, np.nan).explained for rows in groups]


def _told(left_out, kernel, rows, p_value):
    moved, _ = left_out.moved(rows)
    errors = left_out.weighed(kernel.errors)
    falls, total = -(2 * errors * moved + moved**2).sum(axis=1), float((errors**2).sum())
    return Bunch(rows=rows, p_value=p_value, explained=float(falls.sum()) / total if total else 0.0, falls=falls)


def _contrariness(judged, draw):
    """How well what goes with the rows fits the errors, in length and in direction, and how far the rows are off."""
    gain, aligned = max(judged.gains[draw], 0), max(judged.aligned[draw], 0)
    return math.sqrt(aligned * math.sqrt(gain)) * judged.off


def _ranked(judged):
    return sorted((one for one in judged if one[0] > 0), key=lambda one: -one[0])


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
