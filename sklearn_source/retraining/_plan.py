"""What is trained on what: the rows of each network, its seed, and the batches that both engines feed it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from ..utils._digest import bytes_digest
from ..utils._random import generator_of


@dataclass(frozen=True)
class Unit:
    """One network to train.

    Attributes
    ----------
    subset, repeat : int
        Its place in the result.
    rows : ndarray of int
        The training rows, sorted.
    seed : int
        Decides its initial weights, batch order and whatever else is drawn.
    """

    subset: int
    repeat: int
    rows: np.ndarray
    seed: int

    @property
    def key(self):
        """str: what the network is, wherever it stands in a result."""
        return f"{bytes_digest(self.rows.tobytes())}-{self.seed:x}"


@dataclass(frozen=True)
class BatchPlan:
    """How the rows of a network are dealt into batches.

    Attributes
    ----------
    n_rows : int
        Training rows in all.
    batch_size : int
        -1: all rows of a network in one batch.
    shuffle, drop_last : bool
        As the net's iterator has them.
    n_epochs : int
    keep_places : bool
        Deal all training rows, then take out those that a network lacks: networks of one seed meet the same batches up
        to those rows. Else deal the rows that it has, as training on them alone would.
    equal_steps : bool
        An epoch deals as many rows as there are in all: those that a network has in one pass after the other, so that
        it takes as many steps as one of all rows.
    n_batches : int or None
        Stop each epoch after so many, for a trial.
    """

    n_rows: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    n_epochs: int
    keep_places: bool = False
    equal_steps: bool = False
    n_batches: int | None = None

    def batches(self, unit, epoch):
        """Row indices of the batches of an epoch, and the rows that each of them was dealt: list of (rows, n_dealt)."""
        rows = self._dealt(unit, epoch)
        size = len(rows) if self.batch_size == -1 else self.batch_size
        stop = len(rows) // size * size if self.drop_last else len(rows)
        dealt = [rows[start : start + size] for start in range(0, stop, size)][: self.n_batches]
        if not self.keep_places:
            return [(batch, len(batch)) for batch in dealt]
        held = np.zeros(self.n_rows, dtype=bool)
        held[unit.rows] = True
        # A batch that lost all its rows is no step.
        return [(batch[held[batch]], len(batch)) for batch in dealt if held[batch].any()]

    def _dealt(self, unit, epoch):
        """The rows of an epoch in their order."""
        n_own = len(unit.rows)
        if not self.equal_steps or self.batch_size == -1 or n_own == self.n_rows:
            return self._pass(unit, epoch)
        start, stop = epoch * self.n_rows, (epoch + 1) * self.n_rows
        passes = range(start // n_own, -(-stop // n_own))
        rows = np.concatenate([self._pass(unit, number) for number in passes])
        return rows[start - passes[0] * n_own :][: self.n_rows]

    def _pass(self, unit, number):
        """All rows once."""
        rows = np.arange(self.n_rows) if self.keep_places else unit.rows
        return np.random.default_rng([unit.seed, number]).permutation(rows) if self.shuffle else rows

    def deal(self, unit, draw):
        """The batches of one epoch after the other; ``draw()`` lets lazy layers draw their weights."""
        draw()
        return (self.batches(unit, epoch) for epoch in range(self.n_epochs))

    def trial(self, n_batches):
        """The first batches of the first two epochs: schedules and losses may change from one to the other."""
        return replace(self, n_epochs=min(self.n_epochs, 2), n_batches=n_batches)


def root_seed(random_state):
    """The integer that all seeds come from."""
    if isinstance(random_state, Integral) and not isinstance(random_state, bool) and random_state >= 0:
        return int(random_state)
    return int(generator_of(random_state).randint(2**31))


def draw_seeds(n_subsets, n_repeats, root, paired):
    """Seeds (n_subsets, n_repeats) of uint64; `paired`: a repeat has the same one for all subsets."""
    seeds = np.empty((n_subsets, n_repeats), dtype=np.uint64)
    for j in range(n_subsets):
        for r in range(n_repeats):
            place = (2, r) if paired else (1, j, r)
            # 63 bits: what torch.manual_seed takes.
            seeds[j, r] = np.random.SeedSequence(root, spawn_key=place).generate_state(1, np.uint64)[0] >> np.uint64(1)
    return seeds


def make_units(masks, seeds):
    """One unit per network."""
    return [
        Unit(j, r, np.flatnonzero(mask), int(seeds[j, r]))
        for j, mask in enumerate(masks)
        for r in range(seeds.shape[1])
    ]
