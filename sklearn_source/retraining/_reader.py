"""What a trained network gives for the queries."""

from __future__ import annotations

import numpy as np
import torch

from ..loss import TargetError, resolve_measurement
from ..network import Network, outputs_of, row_form, validate_query_rows
from ..rows import as_arrays, cast_like_training, is_stream, require_rows
from ..utils._digest import digest
from ..utils._warnings import warn
from ._training_state import CODE, changed, code_of, training_state

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
    asked : (name or callable, output)
        The measurement as the user asked for it.
    state : dict
        :func:`training_state` of the net that the network was copied from.
    code : list of type
        :func:`code_of` the same.
    """

    def __init__(self, network, rows, targets, measure, asked, state, code):
        self.network, self.rows, self.targets, self.measure = network, rows, targets, measure
        self.asked, self.state, self.code = asked, state, code

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

    def describe_code(self):
        """What the code that trains is here and now, with the variables it names: str.

        A class that came by value has no source where it arrives: only descriptions of one process can be compared.
        """
        return digest(self.code)

    def read_trained(self, net, train_rows, code_before):
        """Values of the queries by a trained skorch net, also where it has more than parameters and buffers.

        A counter in the module, a running mean in the criterion: what is read is then a copy of the net itself.

        Parameters
        ----------
        net : skorch.NeuralNet
        train_rows : Rows
        code_before : str
            :meth:`describe_code` before the training, by the process that trained.
        """
        state = training_state(net)
        if state[CODE] != self.state[CODE]:
            # Something that is made once, a table that the first forward pass fills, is in `state` already.
            if state[CODE] != code_before:
                warn(
                    f"{CODE} changed while a network trained, and the next network goes on with it: if training reads "
                    "it, networks depend on those before; keep it in an attribute of the module, criterion or net",
                )
            state[CODE] = self.state[CODE]
        if changed(self.state, state) is None:
            return self.read(*values_of(net))
        network = Network.from_net(net)
        measure = resolve_measurement(self.asked[0], network, self.asked[1])
        _calibrate(network, train_rows, measure)
        return Reader(network, self.rows, self.targets, measure, self.asked, state, self.code).read(*values_of(net))


def values_of(net):
    """(parameters, buffers) of a skorch net's module, by name."""
    module = net.module_
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return parameters, {name: b.detach() for name, b in module.named_buffers()}


def _calibrate(network, rows, measure):
    """Let a network take from the training rows what the loss of a row needs."""
    failed = None
    try:
        network.calibrate(rows)
    except ValueError as error:
        failed = error
    _raise_if_measured(failed, rows, measure)


def _raise_if_measured(failed, rows, measure):
    """Only losses that are measured have to be the rows' own; targets that do not fit would train nonsense."""
    if failed is not None and (measure.name == "neg_loss" or (rows.has_y and isinstance(failed, TargetError))):
        raise failed


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
    TypeError
        Queries in a stream.
    ValueError
        Missing targets, or what :func:`resolve_measurement` refuses.
    """
    x, y = train_rows.batch(slice(0, 4))
    outputs_of(fresh.forward, x)
    failed = None
    try:
        fresh.calibrate(train_rows)
    except ValueError as error:
        failed = error
    measure = resolve_measurement(measurement, fresh, output)  # what the outputs are may be known only now
    _raise_if_measured(failed, train_rows, measure)
    if X_query is None:
        raise ValueError("expected X_query, the queries to measure, got None: pass them")
    require_rows(X_query, "X_query")
    if is_stream(X_query):
        raise TypeError(
            f"expected X_query as arrays or a map-style Dataset, got a stream, {type(X_query).__name__}: read its rows "
            "into arrays, X_query and y_query"
        )
    x, y = train_rows.given.batch(slice(0, 4))
    form = row_form(x)
    shape = tuple(y.shape[1:]) if isinstance(y, torch.Tensor) else None
    X_query, y_query = cast_like_training(*as_arrays(start, X_query, y_query), form, shape)
    if getattr(getattr(y_query, "dtype", None), "kind", "") == "c" and not torch.is_complex(y):
        raise ValueError(f"expected real numbers in y_query, like the targets of training, got {y_query.dtype}")
    is_other = isinstance(y_query, np.ndarray) and shape is not None and y_query.shape[1:] != shape
    if is_other and fresh.predictive.takes_numbers:
        raise ValueError(
            f"expected y_query as the targets of training, shape {('n_query', *shape)}, got {y_query.shape}: pass one "
            "target of that shape for each query"
        )
    rows = fresh.prepare_queries(X_query, y_query, fresh.measured_draws(measure))
    first = slice(0, 1)
    validate_query_rows(fresh, rows.given.batch(first)[0], form, rows.batch(first)[0])

    def reader(targets):
        state, code = training_state(start), code_of(start)
        return _checked(Reader(fresh, rows, targets, measure, (measurement, output), state, code))

    if measure.name == "prediction":
        return reader(None), "none"
    if rows.has_y:
        with torch.no_grad():
            output_now = torch.cat([fresh.forward(rows.batch(w)[0]) for w in _windows(rows)])
        targets = torch.cat([rows.targets(w) for w in _windows(rows)])
        return reader(measure.target(output_now, targets)), "given"
    if measure.needs_y or not fresh.is_classification:
        if measure.needs_y:
            raise ValueError(
                f"expected the targets of the queries, which measurement {measure.name!r} needs, got none: pass y_query"
            )
        return reader(None), "none"
    if not getattr(net, "initialized_", False):
        raise ValueError(
            f"expected one fixed label per query, which measurement {measure.name!r} needs, got none and an untrained "
            "net: pass y_query, or a trained net, whose predicted classes are then taken"
        )
    trained = Network.from_net(net)
    with torch.no_grad():
        targets = torch.cat([measure.target(trained.forward(rows.batch(w)[0])) for w in _windows(rows)])
    return reader(targets), "predicted"


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
