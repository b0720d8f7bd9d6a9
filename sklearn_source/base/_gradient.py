"""Methods whose scores are inner products of query vectors with per-row training gradients."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from ..curvature import FisherStream, choose_fisher
from ..gradients import GradientEngine, to_matrices
from ..gradients.algebra import Dense, held_bytes, to_meet
from ..loss import resolve_measurement
from ..utils._config import bytes_for
from ..utils._digest import tensor_digest
from ..utils._progress import progress
from ._attribution import BaseAttribution
from ._terms import State, TrainingGradients, meet
from ._trainable import mark_trained

_MAX_BATCH = 2048
# Rows that are looked at for parameters that only some rows use.
_LOOKED_AT = 16


class Queries:
    """Gradients of the measurement of some query rows, at any weights; ``n_met`` training rows will be scored."""

    def __init__(self, method, rows, index, measure, n_met=None):
        self._method, self._rows, self._index, self._measure = method, rows, index, measure
        self.n_met = method.n_train_ if n_met is None else n_met
        self._targets = {}

    def __len__(self):
        return len(self._index)

    def gradients(self, state):
        """Per block, the gradients of the queries' measurements at ``state``, in the form the layer gives them."""
        method = self._method
        if state is not method._final:
            self._fix_targets()
        parts = []
        with method._engine.attached():
            method._network.load(state.parameters, state.buffers)
            for start in range(0, len(self), method._batch):
                x, y = self._rows.batch(self._index[start : start + method._batch])
                capture = method._engine.capture(x)
                leaf = capture.output.detach().requires_grad_()
                if start not in self._targets:
                    self._targets[start] = self._measure.target(leaf.detach(), y, x)
                with torch.enable_grad():
                    values = self._measure(leaf, self._targets[start], x)
                    cotangent = torch.autograd.grad(values.sum(), leaf)[0]
                parts.append(capture.pull(cotangent))
        return parts

    def _fix_targets(self):
        """Measure at every checkpoint what is measured at the trained weights: the class predicted there."""
        method = self._method
        starts = [start for start in range(0, len(self), method._batch) if start not in self._targets]
        if starts:
            method._network.load(method._final.parameters, method._final.buffers)
        for start in starts:
            x, y = self._rows.batch(self._index[start : start + method._batch])
            with torch.no_grad():
                self._targets[start] = self._measure.target(method._network.forward(x), y, x)

    def to_meet(self, state, factors):
        """Per block, the gradients at ``state`` times the block's factor: see :func:`~.gradients.to_meet`."""
        return [to_meet(parts, factor) for parts, factor in zip(zip(*self.gradients(state)), factors)]

    def encoded(self, state, encode):
        """``encode(gradients)`` batch by batch: per block one tensor (n_query, groups, out, in)."""
        parts = [encode(part) for part in self.gradients(state)]
        return [torch.cat(blocks) if len(blocks) > 1 else blocks[0] for blocks in zip(*parts)]


class GradientAttribution(BaseAttribution):
    """Base of the methods built on per-row gradients.

    A method gives :meth:`_terms`: which query vectors meet the training gradients at which checkpoints. Everything
    else, the walk over the training rows and queries, is here.
    """

    _parameter_constraints = {**BaseAttribution._parameter_constraints, "layers": [None, str, list, tuple]}

    @abstractmethod
    def _fit_gradients(self):
        """Learn what :meth:`_terms` needs."""

    @abstractmethod
    def _terms(self, queries):
        """The list of :class:`Term` for a chunk of :class:`Queries`."""

    def _treatment(self):
        """What the optimizer did with each parameter: dict of name to hashable, or None."""
        return None

    def _bytes_per_query(self):
        """Bytes that :meth:`_terms` keeps per query."""
        return self._engine.n_parameters * self._network.dtype.itemsize

    def _fit_method(self):
        network = self._network
        if self._needs_trajectory:
            mark_trained(network.module, self.trajectory_)
        parameters, buffers = network.parameters(), network.buffers()
        self._final = State(-1, parameters, buffers, tensor_digest({**parameters, **buffers}))
        self._engine = GradientEngine(network.module, network.forward, self.layers, self._treatment())
        self._engine.verify(self._rows.batch(np.arange(min(_LOOKED_AT, self.n_train_)))[0])
        probe, _ = self._rows.batch(np.arange(min(4, self.n_train_)))
        with self._engine.attached():
            capture = self._engine.capture(probe)
            self._probe = capture.pull(torch.ones_like(capture.output))
        self._batch = self.batch_size or self._choose_batch()
        self._fit_gradients()

    def _choose_batch(self):
        """Rows whose inputs and output gradients fit the budget."""
        per_row = held_bytes(self._probe) / len(self._probe[0])
        rows = int(np.clip(bytes_for("batch") // max(per_row, 1), 8, _MAX_BATCH))
        return min(rows, self._dense_rows(1))

    def _dense_rows(self, n_columns):
        """Rows whose dense gradients fit their budget, at least one."""
        dense = held_bytes([gradient for gradient in self._probe if isinstance(gradient, Dense)]) / len(self._probe[0])
        return max(1, int(bytes_for("dense_gradients") // max(dense * n_columns, 1)))

    def _state(self, checkpoint):
        """A recorded checkpoint on the network's device."""
        return State(
            checkpoint.step,
            {name: value.to(self._network.device) for name, value in checkpoint.parameters.items()},
            {name: value.to(self._network.device) for name, value in checkpoint.buffers.items()},
            # A checkpoint's own digest is of its parameters alone; gradients depend on the buffers too.
            f"{checkpoint.digest}-{tensor_digest(checkpoint.buffers)}",
        )

    def _fisher_stream(self, states, weights, index, metric=None):
        """Fisher columns of some rows at some weights, as the estimator's parameters say, in a metric where given."""
        network = self._network
        probe, _ = self._rows.batch(index[:1])
        network.load(states[-1].parameters, states[-1].buffers)
        with torch.no_grad():
            n_roots = network.n_roots(network.forward(probe))
        fisher = choose_fisher(self.fisher, network, n_roots)
        n_columns = {"exact": n_roots, "sampled": self.n_samples}.get(fisher, 1)
        return FisherStream(
            network,
            self._engine,
            self._rows,
            index,
            states,
            weights,
            fisher=fisher,
            n_samples=self.n_samples,
            keys=self._keys,
            seed=self._seed,
            batch_size=min(self._batch, self._dense_rows(n_columns)),
            cache_bytes=self.cache_size * 2**20,
            progress=lambda iterable, desc: progress(iterable, verbose=self.verbose, desc=desc),
            metric=metric,
        )

    def _matrices(self, values):
        """Numbers per parameter element, a dict of CPU tensors, as one matrix per block on the network's device."""
        network = self._network
        values = {name: values[name].to(network.device, network.dtype) for name in self._engine.names}
        return [to_matrices(block, network.module, values) for block in self._engine.blocks]

    def _queries_at_once(self):
        return int(bytes_for("query_vectors") // max(self._bytes_per_query(), 1))

    def _only(self, index):
        """A :class:`Term`'s ``credited`` for the rows ``index``: None where these are all."""
        credited = np.zeros(self.n_train_, dtype=bool)
        credited[index] = True
        return None if credited.all() else credited

    def _prepare_queries(self, rows, index, measure):
        return self._terms(Queries(self, rows, index, measure))

    def _score_batches(self, terms, n_queries):
        starts = range(0, self.n_train_, self._batch)
        with self._engine.attached():
            for start in progress(starts, verbose=self.verbose, desc="training rows"):
                columns = slice(start, min(start + self._batch, self.n_train_))
                yield columns, self._batch_scores(terms, columns, n_queries)

    def _batch_scores(self, terms, columns, n_queries):
        """Sum of all terms for one batch of training rows: (n_queries, rows)."""
        index = np.arange(columns.start, columns.stop)
        total = torch.zeros((n_queries, len(index)), dtype=self._network.dtype, device=self._network.device)
        used = np.zeros(len(index), dtype=bool)
        for term in terms:
            used |= True if term.credited is None else term.credited[index]
        if not used.any():
            return total
        index = index[used]
        training = TrainingGradients(self._network, self._engine, *self._rows.batch(index))
        for number, term in enumerate(terms):
            part = self._term_scores(term, training, index)
            if used.all():
                total += part
            else:
                total[:, torch.as_tensor(used)] += part
            following = terms[number + 1].checkpoints if number + 1 < len(terms) else []
            training.forget_all_but(following)
        return total

    def _term_scores(self, term, training, index, rowwise=False):
        """:func:`meet` for the training rows ``index``, zero for those the term does not credit."""
        gradients = [training.at(state) for state in term.checkpoints]
        part = meet(term, gradients, rowwise)
        self._require_finite(part, term, gradients)
        if term.credited is None:
            return part
        return part * torch.as_tensor(term.credited[index], device=part.device)

    def _self_batches(self):
        measure = resolve_measurement("neg_loss", self._network)
        size = max(1, min(self._batch, self._queries_at_once()))
        for start in progress(range(0, self.n_train_, size), verbose=self.verbose, desc="self-influence"):
            columns = slice(start, min(start + size, self.n_train_))
            index = np.arange(columns.start, columns.stop)
            terms = self._terms(Queries(self, self._rows, index, measure, n_met=len(index)))
            total = torch.zeros(len(index), dtype=self._network.dtype, device=self._network.device)
            training = TrainingGradients(self._network, self._engine, *self._rows.batch(index))
            with self._engine.attached():
                for term in terms:
                    total += self._term_scores(term, training, index, rowwise=True)
            yield columns, total

    def _require_finite(self, scores, term, gradients):
        if bool(torch.isfinite(scores).all()):
            return
        for state, blocks in zip(term.checkpoints, gradients):
            for block, gradient in zip(self._engine.blocks, blocks):
                if not bool(torch.isfinite(gradient.squared_norm()).all()):
                    where = "the trained weights" if state.step < 0 else f"the checkpoint of step {state.step}"
                    raise ValueError(
                        f"non-finite gradients of training rows in layer {block.name!r} at {where}: look for rows "
                        "whose loss overflows there, or attribute a shorter trajectory"
                    )
        raise ValueError(
            "scores are not finite although all training gradients are: the queries' gradients overflow. Check the "
            "queries for extreme values"
        )
