"""A retraining made ready: what is common to all its networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..network import Network, outputs_of, split_pipeline
from ..rows import Rows, as_arrays, cast_real, prepare_rows, require_trainable
from ..stochastic import draws_examples, step_examples
from ..utils._random import seeded
from ._cache_folder import cache_folder
from ._cache_key import fingerprint
from ._clones import initialized, materialize, template_of
from ._plan import BatchPlan
from ._reader import Reader, make_reader
from ._storage import UnitCache


@dataclass(frozen=True)
class Task:
    """What every network of a retraining shares. Can be pickled, also by loky where the module lives in ``__main__``.

    Attributes
    ----------
    template : skorch.NeuralNet
        Unfitted.
    X, y
        Training rows, as ``net.fit`` takes them.
    rows : Rows
        The same, as tensors.
    few : tree of Tensor
        Two of them.
    plan : BatchPlan
    reader : Reader
    renormalize : bool
    about : dict
        ``fingerprint``, and what a reader of the result wants to know.
    unknown : tuple of str
        What could not be described for the fingerprint.
    """

    template: Any
    X: Any
    y: Any
    rows: Rows
    few: Any
    plan: BatchPlan
    reader: Reader
    renormalize: bool
    about: dict
    unknown: tuple[str, ...]

    @property
    def state(self):
        """:func:`training_state` of a network before its training."""
        return self.reader.state

    def cache(self, path):
        """The :class:`UnitCache` in a folder that may hold several; None where nothing may be kept, which is said."""
        start = initialized(self.template)
        few_rows(start, self.X, self.y)  # lazy layers take their shapes
        network = Network.from_net(start)
        folder = cache_folder(path, self.about["fingerprint"], self.unknown, network, self.rows.given)
        return None if folder is None else UnitCache(folder)


def make_task(net, X, y, X_query, y_query, *, measurement, output, paired, renormalize, equal_steps=False):
    """Check everything that can be checked before the work, and make the :class:`Task`."""
    steps, net = split_pipeline(net)
    X, X_query = steps.transform(X), steps.transform(X_query)
    template = template_of(net)
    start = initialized(template)
    _pass_epochs(start, int(template.max_epochs))
    X, y = as_arrays(start, X, y)
    require_trainable(start, X)
    few = few_rows(start, X, y)
    network = Network.from_net(start)
    X, y = _cast_to_module(network, X, y)
    rows = network.prepare(X, y)
    reader, labels = make_reader(net, start, network, rows, X_query, y_query, measurement, output)
    options = template.get_params_for("iterator_train")
    plan = BatchPlan(
        n_rows=len(rows),
        batch_size=int(options.get("batch_size", template.batch_size)),
        shuffle=bool(options.get("shuffle", False)),
        drop_last=bool(options.get("drop_last", False)),
        n_epochs=int(template.max_epochs),
        keep_places=paired,
        equal_steps=equal_steps,
    )
    identity = fingerprint(
        template, X, y, rows, reader, plan, measurement=(measurement, output), renormalize=renormalize
    )
    about = {
        "fingerprint": identity.key,
        "query_labels": labels,
        "output": None if reader.measure.output is None else list(reader.measure.output),
        "optimizer": getattr(template.optimizer, "__name__", str(template.optimizer)),
        "batch_size": plan.batch_size,
        "shuffle": plan.shuffle,
        "max_epochs": plan.n_epochs,
        "paired": paired,
        "renormalize": renormalize,
        "equal_steps": equal_steps,
        "torch": torch.__version__,
    }
    return Task(template, X, y, rows, few, plan, reader, renormalize, about, identity.unknown)


def _pass_epochs(net, n_epochs):
    """Let the history of an untrained net say that it is at the end of its training, where a get_loss looks."""
    for epoch in range(1, n_epochs + 1):
        net.history.new_epoch()
        net.history.record("epoch", epoch)
        net.history.new_batch()


def few_rows(net, X, y):
    """A few rows as the module of an initialized net reads them; its lazy layers take their weights from them."""
    with seeded(0, net.device):
        dtype = next((p.dtype for p in net.module_.parameters() if p.is_floating_point()), torch.float32)
        few, targets = prepare_rows(net, X, y, device=torch.device(net.device), dtype=dtype).batch(slice(0, 2))
        if draws_examples(net):
            few, _ = step_examples(net, (few, targets))
        outputs_of(partial(materialize, net), few)
    return few


def _cast_to_module(network, X, y):
    """Floating-point arrays in the module's dtype, as skorch hands them on without a cast."""
    dtype = None if network.dtype == torch.bfloat16 else torch.empty((), dtype=network.dtype).numpy().dtype
    if dtype is not None and isinstance(X, np.ndarray) and X.dtype.kind == "f":
        X = X.astype(dtype, copy=False)
    numeric_targets = network.predictive.takes_numbers
    if dtype is not None and isinstance(y, np.ndarray) and (y.dtype.kind == "f" or numeric_targets):
        y = cast_real(y, dtype, "y")
    return X, y
