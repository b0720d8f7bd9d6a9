"""How alike training rows are: by what they teach others, and by what others teach them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Lessons:
    """What all rows teach the rows of a pool, or, where that is not known, the errors.

    Rows are alike in two respects. Rows of a wrong label ``"teach"`` alike: they push all others the same way. Rows
    with a mark, whose targets are right, push this way and that way; but what others teach one of them they teach them
    all: they ``"learn"`` alike.

    Attributes
    ----------
    taught : ndarray (n_pupils, n_train)
        0 for what a row teaches itself.
    lengths : ndarray (n_train,)
        Of the columns of ``taught``; never 0.
    heard : ndarray (n_pool,) or None
        Lengths of what each row of the pool is taught, in units of how far the teacher moves any: a few rows of much
        influence do not decide.
    alike : dict of ndarray (n_pool, n_pool)
        Cosines of the rows of the pool, for each respect.
    place : ndarray of int (n_train,)
        Where in the pool a row is, -1 for outside.
    column : ndarray of int (n_train,)
        Of ``taught``, which is what a row teaches.
    """

    taught: np.ndarray
    lengths: np.ndarray
    heard: np.ndarray | None
    alike: dict[str, np.ndarray]
    place: np.ndarray
    column: np.ndarray

    @classmethod
    def of(cls, pool, n_train, taught):
        """Of the scores (n_pool, n_train) of all rows for what the rows ``pool`` were to learn."""
        taught = np.array(taught, dtype=np.float32)
        taught[np.arange(len(pool)), pool] = 0
        lengths = _lengths(taught, 0)
        shown = taught / lengths
        heard = _lengths(shown, 1)
        shown /= heard[:, None]
        alike = {"teach": _cosines(taught, lengths, pool), "learn": shown @ shown.T}
        return cls(taught, lengths, heard, alike, _places(pool, n_train), np.arange(n_train))

    @classmethod
    def of_errors(cls, pool, harm):
        """Of the harm (n_errors, n_train) alone: rows teach alike that push the same errors."""
        harm = np.asarray(harm, dtype=np.float32)
        lengths = _lengths(harm, 0)
        alike = {"teach": _cosines(harm, lengths, pool)}
        return cls(harm, lengths, None, alike, _places(pool, harm.shape[1]), np.arange(harm.shape[1]))

    @property
    def n_pool(self):
        """The number of rows whose likeness is known in all respects."""
        return len(self.alike["teach"])

    def of_others(self, pool, random):
        """The same lessons, dealt out at random to other rows ``pool`` (n,), no more than there are."""
        rows, n_train = np.flatnonzero(self.place >= 0), len(self.place)
        takes = random.permutation(rows)[: len(pool)]
        place, column = np.full(n_train, -1), np.empty(n_train, dtype=np.int64)
        place[pool], column[pool] = self.place[takes], takes
        others = np.setdiff1d(np.arange(n_train), pool, assume_unique=True)
        column[others] = random.permutation(np.setdiff1d(np.arange(n_train), takes, assume_unique=True))
        return replace(self, place=place, column=column)

    def likeness(self, groups, respect):
        """Mean cosine of every row to the rows of each group, itself left out.

        Parameters
        ----------
        groups : list of ndarray of int
            Rows; those outside the pool count for ``"teach"`` alone.
        respect : {"teach", "learn"}

        Returns
        -------
        likeness : ndarray of shape (n_groups, n_train)
            For ``"learn"`` 0 outside the pool: what rows there learn is not known.
        """
        groups = [rows if respect == "teach" else rows[self.place[rows] >= 0] for rows in groups]
        found = np.zeros((len(groups), len(self.place)), dtype=np.float32)
        if respect == "teach":
            takes = [self.column[rows] for rows in groups]
            means = [_mean(self.taught[:, at].T / self.lengths[at, None]) for at in takes]
            of_column = np.stack(means) @ self.taught / self.lengths
            found[:] = of_column[:, self.column]
        else:
            takes = [self.place[rows] for rows in groups]
            means = [_mean(self.taught[at] / self.heard[at, None]) for at in takes]
            known = np.flatnonzero(self.place >= 0)
            of_place = (np.stack(means) / self.lengths / self.lengths) @ self.taught.T / self.heard
            found[:, known] = of_place[:, self.place[known]]
        for own, rows in zip(found, groups):
            # A mean over a group that the row is in has a share of its own, which is 1 where it is known.
            own[rows] = (own[rows] * len(rows) - 1) / max(len(rows) - 1, 1)
        return found


def _places(pool, n_train):
    place = np.full(n_train, -1)
    place[pool] = np.arange(len(pool))
    return place


def _cosines(taught, lengths, pool):
    shown = taught[:, pool] / lengths[pool]
    return shown.T @ shown


def _mean(profiles):
    """Mean of profiles (k, d) of length one; 0 for none."""
    return profiles.sum(axis=0) / max(len(profiles), 1)


def _lengths(values, axis):
    return np.maximum(np.sqrt((values**2).sum(axis=axis)), np.finfo(np.float32).tiny)
