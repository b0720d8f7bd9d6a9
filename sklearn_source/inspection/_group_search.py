"""Training rows that push errors together: found by what they teach and learn, not by where they lie."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.utils import Bunch

# Fixed on other draws of the planted causes than those that benchmarks/behaviour_groups.py reports.
_N_SUSPECTS = 40  # rows of most harm to some errors, in which a core is looked for
MIN_CORE = 5
_N_GROWN = 30  # cores that are grown, for each respect in which rows are alike
MEMBERSHIP = 0.5  # of the median row's likeness to the others of the group, to belong to it
N_ROUNDS = 5
_MOST = 0.4  # of all rows may be a group
_IDENTICAL = 1e-4  # distance of profiles of length one, below which errors are one error
MAX_POOL = 1000
_MOST_SUSPECTED, _MOST_LESSONS = 600, 3e7  # rows, and numbers up to which rows that nobody suspects are in the pool too


def grow_groups(suspects, lessons):
    """Groups that grow from the cores among suspects, the most telling first.

    The rows of most harm to some errors that teach alike are a core; rows that do harm and teach like it join. So for
    rows that learn alike.

    Parameters
    ----------
    suspects : iterable of Bunch
        From :func:`suspected`.
    lessons : Lessons

    Returns
    -------
    groups : list of Bunch
        ``rows`` and ``errors``, ``respect``, and ``strength``, by which they are ordered.
    """
    grown, suspects = [], list(suspects)
    for respect in lessons.alike:
        cores = _distinct([core for one in suspects if (core := _core(one, lessons, respect)) is not None])
        for core, rows in zip(cores, _grown(cores, lessons, respect)):
            grown.append(Bunch(rows=rows, errors=core.errors, respect=respect, strength=_strength(core.judged, rows)))
    grown.sort(key=lambda group: -group.strength)
    return grown if all(one.by_harm for one in suspects) else _in_turns(grown)


def _in_turns(groups):
    """The strongest of each respect, then the second of each: strengths of rows that push both ways do not compare."""
    number, turns = dict.fromkeys((group.respect for group in groups), 0), []
    for group in groups:
        turns.append(number[group.respect])
        number[group.respect] += 1
    return [groups[i] for i in np.argsort(turns, kind="stable")]


def _distinct(cores):
    """The first of most merit, without those that share most of their rows with better ones."""
    chosen, taken = [], []
    for core in sorted(cores, key=lambda core: -core.merit):
        own = set(core.rows.tolist())
        if all(len(own & other) <= 0.7 * len(own) for other in taken):
            chosen.append(core)
            taken.append(own)
        if len(chosen) == _N_GROWN:
            break
    return chosen


def suspected(harm, specific, signs, sizes=None):
    """Yield for clusters of errors of one sign ``errors``, the ``rows`` of most harm and the ``total`` (n_train,).

    Harm is looked at twice, as it is and in units of how far a row pushes any answer: a habit that many rows teach a
    little (a mark of a class) shows in the second alone. ``judged`` (n_train,) is the harm by which a group will be
    ordered: the total, or with ``sizes`` (n_errors,) of residuals what the rows do to the squares of all of the sign.
    Rows around a residual push it both ways, by their own residuals: a group need not be of harmful rows alone then
    (``by_harm``).
    """
    judged = {} if sizes is None else {sign: sizes[signs == sign] @ harm[signs == sign] for sign in np.unique(signs)}
    for cluster in _clusters(unit_rows(specific)):
        for sign in np.unique(signs[cluster]):
            errors = cluster[signs[cluster] == sign]
            if len(errors) < 2 and len(harm) > 1:
                continue
            for one in (specific, harm):
                total = one[errors].sum(axis=0)
                rows = np.argsort(-total, kind="stable")[:_N_SUSPECTS]
                rows = rows[total[rows] > 0]
                if len(rows):
                    yield Bunch(
                        errors=errors, rows=rows, total=total, judged=judged.get(sign, total), by_harm=sizes is None
                    )


def _clusters(profiles):
    """The nodes of a Ward tree over profiles (n, d), as arrays of places: those of two and more, or the single one.

    None is a part of errors that are identical: what is behind one of them is behind all.
    """
    n = len(profiles)
    if n == 1:
        return [np.arange(1)]
    tree = linkage(profiles, "ward")
    joined_at = np.full(2 * n - 1, np.inf)
    joined_at[tree[:, :2].astype(int)] = tree[:, 2, None]
    return [np.array(node) for node, height in zip(nodes_of(tree), joined_at) if len(node) > 1 and height > _IDENTICAL]


def nodes_of(tree):
    """The leaves under every node of a linkage, leaves themselves first."""
    members = [[i] for i in range(len(tree) + 1)]
    for first, second, *_ in tree:
        members.append(members[int(first)] + members[int(second)])
    return members


def pool_of(suspects, n_train, at_most=MAX_POOL):
    """The rows that are suspected most often; then, as groups have rows that nobody suspects, others, if few train."""
    counts = np.zeros(n_train, dtype=np.int64)
    for one in suspects:
        counts[one.rows] += 1
    order = np.argsort(-counts, kind="stable")[:at_most]
    if at_most * n_train > _MOST_LESSONS:
        order = order[:_MOST_SUSPECTED]
        order = order[counts[order] > 0]
    return np.sort(order)


def _core(suspect, lessons, respect):
    """The suspects of most harm that teach (learn) alike, None for too few."""
    rows = suspect.rows[lessons.place[suspect.rows] >= 0]
    least = min(MIN_CORE, len(lessons.place))
    places = lessons.place[rows]
    known = lessons.alike[respect][places, places] > 0
    if known.any():
        rows, places = rows[known], places[known]
    if len(rows) < max(2, least):
        return None
    alike = lessons.alike[respect][np.ix_(places, places)].astype(np.float64)
    distances = np.clip(1 - (alike + alike.T) / 2, 0, 2)
    np.fill_diagonal(distances, 0)
    nodes = [node for node in nodes_of(linkage(squareform(distances, checks=False), "average")) if len(node) > 1]
    members = np.zeros((len(nodes), len(rows)))
    for own, node in zip(members, nodes):
        own[node] = 1
    number = members.sum(axis=1)
    coherence = (((members @ alike) * members).sum(axis=1) - number) / (number * (number - 1))
    strengths = members @ suspect.total[rows] / np.sqrt(number) / _usual(suspect.total)
    fits = (number >= least) & (number <= _MOST * len(lessons.place))
    if not fits.any():
        return None
    merits = np.where(fits, strengths * np.sqrt(np.maximum(coherence, 0)), -1.0)
    best = int(np.argmax(merits))
    return Bunch(**{**suspect, "rows": rows[nodes[best]], "merit": merits[best]})


def _strength(total, rows):
    """Harm of rows by the square root of their number, in units of the harm of a row anywhere."""
    return total[rows].sum() / np.sqrt(len(rows)) / _usual(total)


def _usual(total):
    return np.sqrt(np.square(total).mean()) + np.finfo(float).tiny


def _grown(cores, lessons, respect):
    """The rows that do harm and teach (learn) like each core, in rounds: as many as are most telling."""
    groups = [core.rows for core in cores]
    growing = list(range(len(cores)))
    for _ in range(N_ROUNDS):
        if not growing:
            break
        found = lessons.likeness([groups[i] for i in growing], respect)
        still = []
        for i, likeness in zip(growing, found):
            alike = likeness > MEMBERSHIP * max(np.median(likeness[groups[i]]), 0)
            least = min(MIN_CORE, len(cores[i].rows))
            if cores[i].by_harm:
                joined = _most_telling(alike, likeness, cores[i].total, least)
            else:
                joined = np.flatnonzero(alike) if least <= alike.sum() <= _MOST * len(alike) else None
            if joined is not None and not np.array_equal(joined, np.sort(groups[i])):
                groups[i] = joined
                still.append(i)
        growing = still
    return groups


def _most_telling(alike, likeness, total, least):
    """The rows of most likeness, of those that are alike and do harm, whose strength together is greatest."""
    rows = np.flatnonzero(alike & (total > 0))
    rows = rows[np.argsort(-likeness[rows], kind="stable")]
    numbers = np.arange(1, len(rows) + 1)
    strengths = np.cumsum(total[rows]) / np.sqrt(numbers)
    fits = np.flatnonzero((numbers >= least) & (numbers <= _MOST * len(total)))
    return np.sort(rows[: 1 + fits[np.argmax(strengths[fits])]]) if len(fits) else None


def unit_rows(values):
    length = np.sqrt((values**2).sum(axis=1, keepdims=True))
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)
