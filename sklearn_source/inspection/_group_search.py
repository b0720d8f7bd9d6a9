"""Training rows that push errors together: found by what they teach, not by where they lie."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.utils import Bunch

# Fixed on other draws of the planted causes than those that benchmarks/behaviour_groups.py reports.
_N_SUSPECTS = 40  # rows of most harm to some errors, in which a core is looked for
_MIN_CORE = 5
_N_TAUGHT = 60  # rows of a group at most that are asked who teaches what they teach
_N_GROWN = 30  # cores that are grown
_MEMBERSHIP = 0.5  # of what the median row of the group has of support and harm, to belong to it
_N_ROUNDS = 3
_OVERLAP = 0.3  # share of a group's rows that may be in better ones
_LEAST_PUSH = 0.05  # of the median row's: rows that push nothing are not specific
MAX_POOL = 600


def find_groups(harm, push, signs, teach, n_groups):
    """Groups of rows, the most telling first.

    Harm is looked at twice, as it is and in units of how far a row pushes any answer: a habit that many rows teach a
    little (a mark of a class) shows in the second alone. The rows of most harm to some errors that teach alike are a
    core; who teaches what the core teaches, and does like harm, joins it.

    Parameters
    ----------
    harm : ndarray of shape (n_errors, n_train)
        How far each row pushes towards each error.
    push : ndarray of shape (n_train,)
        Root mean square of a row's scores over all queries.
    signs : ndarray of shape (n_errors,)
        Errors of one sign are explained together.
    teach : callable
        Of rows (n,), the scores (n, n_train) of all rows for what these were to learn.
    n_groups : int
        At most.

    Returns
    -------
    groups : list of Bunch
        ``rows`` and ``errors``, places in ``harm``.
    """
    floor = _LEAST_PUSH * np.median(push) + np.finfo(float).tiny
    specific = harm / np.maximum(push, floor)
    suspects = list(_suspects(harm, specific, signs))
    pool = _pool(suspects, harm.shape[1])
    taught = _unit_rows(np.asarray(teach(pool), dtype=np.float32))
    place = np.full(harm.shape[1], -1)
    place[pool] = np.arange(len(pool))
    cores = [core for one in suspects if (core := _core(one, taught, place)) is not None]
    cores.sort(key=lambda core: -core.strength)
    grown, seen = [], []
    for core in cores:
        if any(len(np.intersect1d(core.rows, other)) > 0.7 * len(core.rows) for other in seen):
            continue
        seen.append(core.rows)
        rows = _grown(core, taught, place)
        grown.append(Bunch(rows=rows, errors=core.errors, strength=_strength(core.total, rows)))
        if len(seen) == _N_GROWN:
            break
    grown.sort(key=lambda group: -group.strength)
    chosen, taken = [], np.zeros(harm.shape[1], dtype=bool)
    for group in grown:
        if taken[group.rows].mean() > _OVERLAP or harm[np.ix_(group.errors, group.rows)].sum() <= 0:
            continue
        taken[group.rows] = True
        chosen.append(group)
        if len(chosen) == n_groups:
            break
    return chosen


def _suspects(harm, specific, signs):
    """Yield for clusters of errors of one sign ``errors``, the ``rows`` of most harm and the ``total`` (n_train,)."""
    for cluster in _clusters(_unit_rows(specific)):
        for sign in np.unique(signs[cluster]):
            errors = cluster[signs[cluster] == sign]
            if len(errors) < 2 and len(harm) > 1:
                continue
            for one in (specific, harm):
                total = one[errors].sum(axis=0)
                rows = np.argsort(-total, kind="stable")[:_N_SUSPECTS]
                rows = rows[total[rows] > 0]
                if len(rows):
                    yield Bunch(errors=errors, rows=rows, total=total, sign=sign)


def _clusters(profiles):
    """The nodes of a Ward tree over profiles (n, d), as arrays of places: those of two and more, or the single one."""
    n = len(profiles)
    if n == 1:
        return [np.arange(1)]
    return [np.array(node) for node in _nodes(linkage(profiles, "ward")) if len(node) > 1]


def _nodes(tree):
    """The leaves under every node of a linkage, leaves themselves first."""
    members = [[i] for i in range(len(tree) + 1)]
    for first, second, *_ in tree:
        members.append(members[int(first)] + members[int(second)])
    return members


def _pool(suspects, n_train):
    """The rows that are suspected most often, at most MAX_POOL."""
    counts = np.zeros(n_train, dtype=np.int64)
    for one in suspects:
        counts[one.rows] += 1
    order = np.argsort(-counts, kind="stable")[:MAX_POOL]
    return np.sort(order[counts[order] > 0])


def _core(suspected, taught, place):
    """The suspects of most harm that teach alike, None for too few."""
    rows = suspected.rows[place[suspected.rows] >= 0]
    least = min(_MIN_CORE, len(place))
    if len(rows) < least:
        return None
    lessons = suspected.sign * taught[place[rows]]
    alike = np.ones(len(lessons), dtype=bool) if not lessons.any() else lessons.any(axis=1)
    rows, lessons = rows[alike], lessons[alike]
    if len(rows) < least:
        return None
    nodes = [np.array(node) for node in _nodes(linkage(lessons, "average", metric="cosine")) if len(node) >= least]

    def merit(node):
        mean = lessons[node].mean(axis=0)
        return _strength(suspected.total, rows[node]) * np.sqrt(mean @ mean)

    core = rows[max(nodes, key=merit)]
    return Bunch(rows=core, errors=suspected.errors, total=suspected.total, sign=suspected.sign,
                 strength=_strength(suspected.total, core))  # fmt: skip


def _strength(total, rows):
    """Harm of rows by the square root of their number, in units of the harm of a row anywhere."""
    return total[rows].sum() / np.sqrt(len(rows)) / (np.sqrt((total**2).mean()) + np.finfo(float).tiny)


def _grown(core, taught, place):
    """The rows that teach what a core teaches and do like harm, in rounds."""
    rows = core.rows
    for _ in range(_N_ROUNDS):
        asked = rows[place[rows] >= 0]
        lessons = core.sign * taught[place[asked]]
        support = lessons.sum(axis=0, dtype=np.float64)
        count = np.full(len(place), float(len(asked)))
        support[asked] -= lessons[np.arange(len(asked)), asked]  # that a row teaches itself tells nothing
        count[asked] -= 1
        value = np.sqrt(np.maximum(support / np.maximum(count, 1), 0) * np.maximum(core.total, 0))
        joined = np.flatnonzero(value > _MEMBERSHIP * np.median(value[rows]))
        if len(joined) < min(3, len(core.rows)):
            return core.rows
        rows = joined[np.argsort(-value[joined], kind="stable")][:_N_TAUGHT]
        if not (place[rows] >= 0).any():
            break
    return joined


def _unit_rows(values):
    length = np.sqrt((values**2).sum(axis=1, keepdims=True))
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)
