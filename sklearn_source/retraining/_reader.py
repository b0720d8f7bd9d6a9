"""What a trained network gives for the queries."""

from __future__ import annotations

import numpy as np
import torch

from ..loss import TargetError, resolve_measurement
from ..network import Network, outputs_of, row_form, validate_query_rows
from ..rows import as_arrays, cast_like_training

_BATCH = 1024  # queries at a time


class Reader:
    """The measurement of every query, by networks of one architecture.

    Can be pickled, also by loky where the module's class lives in ``__main__``.

    Parameters
    ----------
    network : Network
        Any network of that architecture; its parameters do not matter.
    rows : Rows
        The queries.
    targets : Tensor or None
        What the measurement compares with.
    measure : Measurement
    """

    def __init__(self, network, rows, targets, measure):
        self.network, self.rows, self.targets, self.measure = network, rows, targets, measure

    @torch.no_grad()
    def read(self, parameters, buffers):
        """Values of the queries under these parameters and buffers: (n_query,) of float32, float64 where it is exact.

        Never the labels that a retrained network predicts itself: the measurement has to be the same for all of them.
        """
        self.network.load(parameters, buffers)
        parts = []
        for start in range(0, len(self.rows), _BATCH):
            window = slice(start, start + _BATCH)
            x, _ = self.rows.batch(window)
            target = None if self.targets is None else self.targets[window]
            parts.append(self.measure(self.network.forward(x), target, x))
        values = torch.cat(parts)
        return values.to(torch.float64 if values.dtype == torch.float64 else torch.float32).cpu().numpy()


def make_reader(net, start, fresh, train_rows, X_query, y_query, measurement, output):
    """A reader for retrainings of a net.

    Parameters
    ----------
    net : skorch.NeuralNet
        The user's. Where it is trained, its predicted classes stand for missing ``y_query``.
    start : skorch.NeuralNet
        An initialized clone.
    fresh : Network
        Of the same.
    train_rows : Rows
    X_query, y_query, measurement, output
        As in :func:`retrain_on_subsets`.

    Returns
    -------
    reader : Reader
    labels_from : str
        ``"given"``, ``"predicted"`` or ``"none"``.

    Raises
    ------
    ValueError
        Missing targets, or what :func:`resolve_measurement` refuses.
    """
    measure = resolve_measurement(measurement, fresh, output)
    x, y = train_rows.batch(slice(0, 4))
    outputs_of(fresh.forward, x)
    try:
        fresh.calibrate(train_rows)
    except ValueError as error:
        # Only losses that are measured have to be the rows' own; targets that do not fit would train nonsense.
        if measure.name == "neg_loss" or isinstance(error, TargetError):
            raise
    if X_query is None:
        raise ValueError("expected X_query, the queries to measure, got None: pass them")
    form = row_form(x)
    shape = tuple(y.shape[1:]) if isinstance(y, torch.Tensor) else None
    rows = fresh.prepare_queries(*cast_like_training(*as_arrays(start, X_query, y_query), form, shape))
    validate_query_rows(fresh, rows.batch(slice(0, 1))[0], form)
    if measure.name == "prediction":
        return _checked(Reader(fresh, rows, None, measure)), "none"
    if rows.has_y:
        with torch.no_grad():
            output_now = torch.cat([fresh.forward(rows.batch(w)[0]) for w in _windows(rows)])
        targets = torch.cat([rows.targets(w) for w in _windows(rows)])
        return _checked(Reader(fresh, rows, measure.target(output_now, targets), measure)), "given"
    if measure.needs_y or not fresh.is_classification:
        if measure.needs_y:
            raise ValueError(
                f"expected the targets of the queries, which measurement {measure.name!r} needs, got none: pass y_query"
            )
        return _checked(Reader(fresh, rows, None, measure)), "none"
    if not getattr(net, "initialized_", False):
        raise ValueError(
            f"expected one fixed label per query, which measurement {measure.name!r} needs, got none and an untrained "
            "net: pass y_query, or a trained net, whose predicted classes are then taken"
        )
    trained = Network.from_net(net)
    with torch.no_grad():
        targets = torch.cat([measure.target(trained.forward(rows.batch(w)[0])) for w in _windows(rows)])
    return _checked(Reader(fresh, rows, targets, measure)), "predicted"


def _windows(rows):
    """Slices that cut rows into parts of at most ``_BATCH``."""
    return [slice(start, start + _BATCH) for start in range(0, len(rows), _BATCH)]


def _checked(reader):
    """Say what cannot be measured before the work."""
    network = reader.network
    value = reader.read(network.parameters(), network.buffers())
    if value.shape != (len(reader.rows),):
        raise ValueError(
            f"expected one value per query, got shape {np.shape(value)}: let the measurement return shape (n_query,)"
        )
    return reader
