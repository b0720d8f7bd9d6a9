"""Gradient methods and a folder of their training gradients: what is written there, and scores read from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from ..gradients.algebra import Dense, even_chunks, pack, unpack, weighted_sum
from ..utils._config import bytes_for
from ..utils._digest import digest
from ..utils._file_lock import FileLock
from ..utils._first_rows import N_ROWS, projected
from ..utils._progress import progress
from ..utils._warnings import warn
from ._gradient_store import GradientStore
from ._queries import Queries
from ._row_gradients import BatchGradients
from ._shared_rows import spread_gradients
from ._terms import term_scores


def store_gradients(method: Any, path: Any, tol: float | None) -> StoredGradients:
    """The training gradients of a fitted method in a folder, which is written where it is not there yet."""
    terms = _distinct(method._terms(_a_query(method)))
    opened = partial(
        GradientStore,
        path,
        {**_identity(method, terms), "tol": tol},
        rows_per_file=_rows_per_file(method, terms, tol),
        n_rows=method.n_train_,
        first_rows=_first_rows(method, list(terms.values())),
        dtype=method._network.dtype,
    )
    store = opened() if os.path.lexists(path) else None
    if store is None or store.missing():
        with FileLock(path) as lock:
            lock.wait(partial(_say_who_writes, path))
            store = opened()  # as whoever wrote it until now has left it
            missing = store.missing()
            # Written here, whoever computed them: workers may be on machines that do not see the folder.
            found = spread_gradients(method, _pieces, missing, list(terms.values()), tol)
            for rows, pieces in zip(progress(missing, verbose=method.verbose, desc="storing gradients"), found):
                store.write(rows, pieces)
    return StoredGradients(store, list(terms), tol)


def _say_who_writes(path, owner):
    warn(
        f"{owner} is storing gradients in {os.fspath(path)!r}: store_gradients waits until that ends, and goes on from "
        "what is there then"
    )


class StoredGradients:
    """The training gradients of one fitted method.

    Parameters
    ----------
    store : GradientStore
    keys : list of str
        Of the terms whose gradients the store has, in its order.
    tol : float or None
        Of the rows' gradients.
    """

    def __init__(self, store: GradientStore, keys: list[str], tol: float | None):
        self.store, self.tol, self._keys = store, tol, keys

    def loosen(self, queries: Queries) -> None:
        """Let queries have the error that the rows have, where they have no tolerance of their own."""
        queries.tol = self.tol if queries.tol is None else queries.tol
        queries.coupling_tol = None if self.tol is None else queries.tol

    def score_batches(self, method: Any, terms: list[Any], n_queries: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (slice of training rows, their scores (n_queries, rows) for the queries of some terms)."""
        shapes = [block.shape for block in method._gradients.blocks]
        like = torch.empty(0, dtype=method._network.dtype, device=method._network.device)
        met = [_StoredTerm(term, self._keys.index(_key(term))) for term in terms]
        for rows in progress(self.store.slices, verbose=method.verbose, desc="training rows"):
            for some, tensors in self.store.read(rows):
                total = torch.zeros((n_queries, some.stop - some.start), dtype=like.dtype, device=like.device)
                for term in met:
                    scores = term.scores(tensors, shapes, like)
                    method._require_finite(scores, term.term, [])
                    total += method._times_credit(scores, term.term, np.arange(some.start, some.stop))
                yield some, total


class _StoredTerm:
    """A :class:`Term` that meets stored rows, in whichever form these are."""

    def __init__(self, term, number):
        self.term, self._number = term, number
        self._dense: dict[int, torch.Tensor] = {}

    def scores(self, tensors, shapes, like):
        """(n_query, rows) of the rows of some tensors."""
        blocks = []
        for i, shape in enumerate(shapes):
            prefix = _name(self._number, i, "")
            own = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
            blocks.append(unpack(own, shape, like))
        values = [self._values(i, block) for i, block in enumerate(blocks)]
        return term_scores(replace(self.term, weights=np.ones(1), values=values), [blocks])

    def _values(self, i, gradient):
        """The queries as they meet gradients of a form: outer products pay where the rows are some too."""
        values = self.term.values[i]
        if isinstance(values, torch.Tensor) or not isinstance(gradient, Dense):
            return values
        if i not in self._dense:
            self._dense[i] = values.matrix().flatten(1)
        return self._dense[i]


def _a_query(method):
    """A training row as a query, for the checkpoints that the method's terms are of."""
    measure = method._measure
    rows = method._rows.with_draws(method._measured_draws(measure))
    return Queries(method._gradients, rows, np.arange(1), measure, n_met=1)


def _key(term):
    """What the training gradients of a term are of, beside the rows: checkpoints, what is drawn there, weights."""
    states = [[state.step, state.digest, state.draws] for state in term.checkpoints]
    return digest([states, [float(weight) for weight in term.weights]])


def _distinct(terms):
    """Terms by their key, those of the same gradients once."""
    return {_key(term): term for term in reversed(terms)}


def _identity(method, terms):
    """What the gradients are known by: a digest by name."""
    fitted = method._fitted_parts()
    blocks = [[block.name, block.shape, list(block.parameters)] for block in method._gradients.blocks]
    parts = {
        "net": fitted["net"],
        "training rows": fitted["training rows"],
        "checkpoints": list(terms),
        "layers": [blocks, str(method._network.dtype)],
        "draws": method._rows.draws,
    }
    return {**{name: digest(value) for name, value in parts.items()}, "sklearn-source": version("sklearn-source")}


def _first_rows(method, terms):
    """An inner product of the gradients of some rows with fixed numbers, for each term."""
    n = method.n_train_
    index = np.unique(np.linspace(0, n - 1, min(N_ROWS, n)).round().astype(np.int64))
    return [
        sum(projected(gradient.matrix()) for gradient in gradients).tolist()
        for gradients in _summed(method, terms, index)
    ]


def _summed(method, terms, index):
    """For each term the weighted sums over its checkpoints of the rows' gradients, one per block."""
    training = BatchGradients(method._gradients, method._rows, index)
    with method._gradients.engine.attached():
        for number, term in enumerate(terms):
            gradients = [training.at(state) for state in term.checkpoints]
            weights = [float(weight) for weight in term.weights]
            yield [weighted_sum(blocks, weights) for blocks in zip(*gradients)]
            training.keep_only(terms[number + 1].checkpoints if number + 1 < len(terms) else [])


def _pieces(method, rows, terms, tol):
    """(slice of training rows, tensors by name) of one batch after another."""
    pieces = []
    for batch in even_chunks(rows.stop - rows.start, method._gradients.batch_size):
        some = slice(rows.start + batch.start, rows.start + batch.stop)
        tensors = {}
        for number, blocks in enumerate(_summed(method, terms, np.arange(some.start, some.stop))):
            for i, gradient in enumerate(blocks):
                packed = pack(gradient, tol)
                if not all(bool(torch.isfinite(value).all()) for value in packed.values()):
                    method._require_finite(torch.tensor(torch.nan), terms[number], [blocks])
                tensors.update({_name(number, i, name): value for name, value in packed.items()})
        pieces.append((some, tensors))
    return pieces


def _name(term, block, name):
    return f"{term}/{block}/{name}"


def _rows_per_file(method, terms, tol):
    """As many rows in each file, nearly, as an eighth of a batch's bytes takes of matrices or factors."""
    numbers = 0
    for term in terms.values():
        for gradient in method._gradients.probe:
            groups, out, inp = gradient.shape
            positions = gradient.n_positions * (len(term.checkpoints) if gradient.has_factors else 1)
            numbers += groups * min(out * inp, positions * (out + inp))
    at_most = max(1, bytes_for("batch") // 8 // (numbers * (2 if tol else method._network.dtype.itemsize)))
    n_files = -(-method.n_train_ // at_most)
    return -(-method.n_train_ // n_files)
