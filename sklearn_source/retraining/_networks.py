"""Networks trained anew as ``net.fit`` trains them."""

from __future__ import annotations

import sys

import numpy as np
from sklearn.base import clone

from ..network import PortableNet, add_callback, rows_for_training
from ..rows import count_rows
from ..utils._progress import tqdm
from ._clones import initialized
from ._fit_engines import LoopEngine, choose_for_fit
from ._network_cache import NetworkCache
from ._plan import Unit
from ._recorded_training import RecordedTraining
from ._run import run
from ._task import few_rows


def train_networks(net, X, y, seeds, *, recorder=None, cache=None, n_jobs=None, verbose=0):
    """Clones of a net, each trained from a seed as :func:`~.network.train_clone` trains it.

    Many at once where that gives what skorch gives, up to rounding: a trial of some steps says so.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not modified.
    X, y : what ``net.fit`` takes
    seeds : sequence of int
    recorder : TrajectoryRecorder, optional
        Watches each training, unless the net has one of its own.
    cache : path-like, optional
        A folder where trained networks are kept, whose training is then not repeated.
    n_jobs : int or None
    verbose : int

    Returns
    -------
    nets : list of skorch.NeuralNet
    X, y
        As they were trained on them.

    Raises
    ------
    ValueError
        When a clone would start from trained weights.
    """
    X, y = rows_for_training(net, X, y, seed=int(seeds[0]))
    template = clone(net)
    if recorder is not None:
        add_callback(template, "trajectory_recorder", clone(recorder))
    every = np.arange(count_rows(X, as_skorch=True) or 0)
    units = [Unit(0, number, every, int(seed)) for number, seed in enumerate(seeds)]
    kept = None if cache is None else _network_cache(cache, template, X, y)
    engine, reason = LoopEngine(template, X, y, keep=kept is not None), "all are kept"
    if kept is None or len(kept.read({unit.key for unit in units})) < len({unit.key for unit in units}):
        engine, reason = choose_for_fit(engine, units, n_jobs)
    if verbose > 0:
        tqdm.write(f"training {len(units)} networks, {engine.name} engine: {reason}", file=sys.stderr)
    found, _ = run(engine, units, n_jobs=n_jobs, cache=kept, verbose=verbose)
    trained = [found[unit.key] for unit in units]
    few = None
    for place, training in enumerate(trained):
        if isinstance(training, PortableNet):
            trained[place] = training.net
        elif isinstance(training, RecordedTraining):  # else joblib brought the net itself from another process
            few = few_rows(initialized(template), X, y) if few is None else few
            trained[place] = training.as_net(template, X, y, few)
    return trained, X, y


def _network_cache(path, template, X, y):
    start = initialized(template)
    few_rows(start, X, y)  # lazy layers take their shapes
    return NetworkCache.of_training(path, template, start, X, y)
