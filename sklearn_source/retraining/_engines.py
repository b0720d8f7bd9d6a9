"""The two ways to train, one result: a skorch clone for each network, or many networks at once."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..utils._config import bytes_for
from ..utils._random import TURN
from ._clones import initialized, start, train
from ._reader import values_of
from ._stacked import StackedTrainer
from ._training_state import changed, training_state
from ._vectorizable import replayable, why_not_faster, why_not_vectorized

# Parameters, gradients and two moments of networks trained together on a processor: what its cache holds, however much
# memory there is.
_CACHE_BYTES = 12 << 20
N_TRIAL = 3  # steps of an epoch that both engines take in the trial


class JoblibEngine:
    """A skorch clone for each network. Can be pickled.

    Parameters
    ----------
    task : Task
    """

    name, chunk_size = "joblib", 1

    def __init__(self, task):
        self.task = task

    @property
    def pads(self):
        """Whether networks with unequal numbers of rows are dealt the same batches."""
        return self.task.plan.keep_places

    def train(self, unit, plan):
        """The trained skorch clone of a unit."""
        task = self.task
        return train(task.template, task.X, task.y, task.few, unit, plan, renormalize=task.renormalize)

    def states(self, units, plan):
        """Trained (parameters, buffers) of each unit."""
        return [values_of(self.train(unit, plan)) for unit in units]

    def __call__(self, units):
        """Outputs for the queries of each unit's network: list of ndarray (n_query,)."""
        return self._outputs(units)

    def _outputs(self, units):
        outputs, reader = [], self.task.reader
        for unit in units:
            code = reader.describe_code()
            net = self.train(unit, self.task.plan)
            with TURN:  # threads share the network that the reader loads with one state after the other
                outputs.append(reader.read_trained(net, self.task.rows, code))
        return outputs


class VectorizedEngine(JoblibEngine):
    """Networks trained together, stacked. Can be pickled.

    Parameters
    ----------
    task : Task
    chunk_size : int or None
        Networks trained together; None: as many as fit the cache of a processor, or the memory budget on a GPU.
    """

    name = "vectorized"

    def __init__(self, task, chunk_size=None):
        super().__init__(task)
        self.chunk_size = chunk_size or together(task.reader.network)

    def states(self, units, plan):
        """Trained (parameters, buffers) of each unit; the units have equally many rows."""
        task = self.task
        x, y = task.rows.given.batch(slice(None))
        name = task.about["fingerprint"] if replayable(task.template) else None
        trainer = StackedTrainer(task.template, task.reader.network, x, y, renormalize=task.renormalize, name=name)
        return trainer.train(units, plan)

    def _outputs(self, units):
        states = self.states(units, self.task.plan)
        with TURN:
            return [self.task.reader.read(*state) for state in states]


def choose(engine, task, units, chunk_size):
    """The engine that is asked for, or that fits best, and why.

    Parameters
    ----------
    engine : {"auto", "vectorized", "joblib"}
    task : Task
    units : list of Unit
    chunk_size : int or None

    Returns
    -------
    engine : callable
    reason : str

    Raises
    ------
    ValueError
        If the vectorized engine is asked for and does not fit.
    """
    one_by_one = JoblibEngine(task)
    if engine == "joblib":
        return one_by_one, "asked for"
    reason = why_not_vectorized(initialized(task.template), task.reader.network, task.rows)
    reason = reason or _why_not_in_step(task.plan, units)
    if engine == "auto":
        reason = reason or why_not_faster(task.reader.network)
    if reason is None:
        vectorized = VectorizedEngine(task, chunk_size)
        reason = why_trial_differs(vectorized, one_by_one, units, task.plan.trial(N_TRIAL))
    if reason is None:
        return vectorized, "asked for" if engine == "vectorized" else "a trial of it gave what skorch gives"
    if engine == "vectorized":
        raise ValueError(
            f'expected a net that engine="vectorized" can train, got one that it cannot ({reason}): use engine="auto" '
            'or "joblib"'
        )
    return one_by_one, reason


def why_trial_differs(vectorized, one_by_one, units, plan):
    """Why a few steps of both engines differ; None where they do not."""
    last = units[-1]
    # Two seeds, so that what the module draws besides its weights is seen to differ.
    units = [next((u for u in units if len(u.rows) == len(last.rows)), last), replace(last, seed=last.seed ^ 1)]
    task, trained = vectorized.task, []
    for unit in units:
        before = start(task.template, task.few, unit)
        state = training_state(before)
        after = one_by_one.train(unit, plan)
        if kept := changed(state, training_state(after)):
            return f"{kept} changes while it trains, and is no parameter or buffer of the module"
        if drawn := changed(task.state, state):
            return f"{drawn} differs between networks, and is no parameter or buffer of the module"
        trained.append((values_of(before), values_of(after)))
    try:
        states = vectorized.states(units, plan)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, KeyError, IndexError) as error:
        return f"its training cannot be vectorized ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
    for ((initial, _), theirs), mine in zip(trained, states):
        moved = sum(float((theirs[0][n] - initial[n]).double().square().sum()) for n in initial)
        for values, expected, scale in ((mine[0], theirs[0], moved), (mine[1], theirs[1], None)):
            off = sum(float((values[n].double() - expected[n].double()).square().sum()) for n in expected)
            size = sum(float(expected[n].double().square().sum()) for n in expected) if scale is None else scale
            if not math.isfinite(size):
                continue  # it diverges under skorch too, so there is nothing to compare
            # Rounding differs; a network whose every step is a few per mille off is another network.
            if not off <= 1e-6 * size + 1e-12 * sum(float(v.double().square().sum()) for v in expected.values()):
                return "a trial of vectorized training gave other networks than skorch does"
    return None


def _why_not_in_step(plan, units):
    """Why networks cannot step together where rows were taken out of their batches; None where they can."""
    if not plan.keep_places:
        return None
    size = plan.n_rows if plan.batch_size == -1 else min(plan.batch_size, plan.n_rows)
    smallest = size if plan.drop_last else plan.n_rows % size or size
    for unit in units:
        if plan.n_rows - len(unit.rows) >= smallest:
            numbers = {len(plan.batches(unit, epoch)) for epoch in range(plan.n_epochs)}
            if numbers != {plan.n_rows // size + (not plan.drop_last and plan.n_rows % size > 0)}:
                return "a batch lost all its rows, so that its network takes fewer steps than others"
    return None


def together(network):
    """Networks trained together, an int from 1 to 4096: as many as fit what their stacks may take in bytes."""
    n_bytes = sum(p.numel() * p.element_size() for p in network.parameters().values())
    limit = bytes_for("stacked_networks") if torch.device(network.device).type == "cuda" else _CACHE_BYTES
    return int(min(4096, max(1, limit // max(1, 4 * n_bytes))))
