"""Training rows that push errors together: found by what they teach, not by where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.utils import Bunch

# Fixed on other draws of the planted causes than those that benchmarks/behaviour_groups.py reports.
_N_SUSPECTS = 40  # rows of most harm to some errors, in which a core is looked for
_MIN_CORE = 5
_N_TAUGHT = 60  # rows of a group at most that are asked who teaches what they teach
_N_GROWN = 30  # cores that are grown
_MEMBERSHIP = 0.5  # of what the median row of the group has of support and harm, to belong to it
_N_ROUNDS = 3
MAX_POOL = 600


@dataclass(frozen=True)
class Lessons:
    """What the rows of a pool teach.

    Attributes
    ----------
    taught : ndarray (n_pool, n_train)
        Of length one.
    alike : ndarray (n_pool, n_pool)
        Their cosines.
    place : ndarray of int (n_train,)
        Where in the pool a row is, -1 for outside.
    column : ndarray of int (n_train,)
        Of ``taught``, which tells what a row is taught.
    """

    taught: np.ndarray
    alike: np.ndarray
    place: np.ndarray
    column: np.ndarray

    @classmethod
    def of(cls, pool, n_train, taught):
        """Of the scores (n_pool, n_train) of all rows for what the rows ``pool`` were to learn."""
        taught = _unit_rows(np.asarray(taught, dtype=np.float32))
        place = np.full(n_train, -1)
        place[pool] = np.arange(len(pool))
        return cls(taught, taught @ taught.T, place, np.arange(n_train))

    def of_others(self, pool, random):
        """The same lessons, dealt out at random to other rows ``pool`` (n,), no more than there are."""
        rows, n_train = np.flatnonzero(self.place >= 0), len(self.place)
        takes = random.permutation(rows)[: len(pool)]
        place, column = np.full(n_train, -1), np.empty(n_train, dtype=np.int64)
        place[pool], column[pool] = self.place[takes], takes
        others = np.setdiff1d(np.arange(n_train), pool, assume_unique=True)
        column[others] = random.permutation(np.setdiff1d(np.arange(n_train), takes, assume_unique=True))
        return Lessons(self.taught, self.alike, place, column)


def grow_groups(suspects, lessons):
    """Groups that grow from the cores among suspects, the most telling first.

    The rows of most harm to some errors that teach alike are a core; who teaches what the core teaches, and does like
    harm, joins it.

    Parameters
    ----------
    suspects : iterable of Bunch
        From :func:`suspected`.
    lessons : Lessons

    Returns
    -------
    groups : list of Bunch
        ``rows`` and ``errors``, and ``strength``, by which they are ordered.
    """
    cores = [core for one in suspects if (core := _core(one, lessons)) is not None]
    cores.sort(key=lambda core: -core.strength)
    grown, seen = [], []
    for core in cores:
        if any(len(np.intersect1d(core.rows, other)) > 0.7 * len(core.rows) for other in seen):
            continue
        seen.append(core.rows)
        rows = _grown(core, lessons)
        grown.append(Bunch(rows=rows, errors=core.errors, strength=_strength(core.total, rows)))
        if len(seen) == _N_GROWN:
            break
    return sorted(grown, key=lambda group: -group.strength)


def suspected(harm, specific, signs):
    """Yield for clusters of errors of one sign ``errors``, the ``rows`` of most harm and the ``total`` (n_train,).

    Harm is looked at twice, as it is and in units of how far a row pushes any answer: a habit that many rows teach a
    little (a mark of a class) shows in the second alone.
    """
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


def pool_of(suspects, n_train, at_most=MAX_POOL):
    """The rows that are suspected most often."""
    counts = np.zeros(n_train, dtype=np.int64)
    for one in suspects:
        counts[one.rows] += 1
    order = np.argsort(-counts, kind="stable")[:at_most]
    return np.sort(order[counts[order] > 0])


def _core(suspect, lessons):
    """The suspects of most harm that teach alike, None for too few."""
    rows = suspect.rows[lessons.place[suspect.rows] >= 0]
    least = min(_MIN_CORE, len(lessons.place))
    places = lessons.place[rows]
    known = lessons.alike[places, places] > 0
    if known.any():
        rows, places = rows[known], places[known]
    if len(rows) < max(2, least):
        return None
    alike = lessons.alike[np.ix_(places, places)].astype(np.float64)
    distances = np.clip(1 - (alike + alike.T) / 2, 0, 2)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    nodes = [np.array(node) for node in _nodes(tree) if len(node) >= least]

    def merit(node):
        return _strength(suspect.total, rows[node]) * np.sqrt(max(alike[np.ix_(node, node)].mean(), 0.0))

    core = rows[max(nodes, key=merit)]
    return Bunch(rows=core, errors=suspect.errors, total=suspect.total, sign=suspect.sign,
                 strength=_strength(suspect.total, core))  # fmt: skip


def _strength(total, rows):
    """Harm of rows by the square root of their number, in units of the harm of a row anywhere."""
    return total[rows].sum() / np.sqrt(len(rows)) / (np.sqrt((total**2).mean()) + np.finfo(float).tiny)


def _grown(core, lessons):
    """The rows that teach what a core teaches and do like harm, in rounds."""
    rows, place = core.rows, lessons.place
    for _ in range(_N_ROUNDS):
        asked = rows[place[rows] >= 0]
        told = core.sign * lessons.taught[place[asked]]
        support = told.sum(axis=0, dtype=np.float64)[lessons.column]
        count = np.full(len(place), float(len(asked)))
        support[asked] -= told[np.arange(len(asked)), lessons.column[asked]]  # what a row teaches itself tells nothing
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
