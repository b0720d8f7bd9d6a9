"""A name for everything that decides the result of a retraining, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping

import joblib
import numpy as np
import torch

from ..trajectory import row_hashes

# What a net prints, and what it predicts with, changes no training.
_IRRELEVANT = ("verbose", "warm_start", "torch_load_kwargs", "use_caching", "predict_nonlinearity")


def fingerprint(template, X, y, rows, reader, plan, *, measurement, renormalize):
    """24 hexadecimal digits that name the training, the rows, the queries and the measurement.

    Parameters
    ----------
    template : skorch.NeuralNet
    X, y
        Training rows as handed over.
    rows : Rows
        The same, readable.
    reader : Reader
    plan : BatchPlan
    measurement : (name or callable, output)
    renormalize : bool

    Returns
    -------
    fingerprint : str
    """
    parts = {
        "net": describe_net(template),
        "rows": _rows(X, y, rows),
        "queries": _rows(None, None, reader.rows),
        "targets": None if reader.targets is None else describe(reader.targets),
        "measurement": describe(measurement),
        "plan": [plan.batch_size, plan.shuffle, plan.drop_last, plan.n_epochs, plan.keep_places, renormalize],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def describe_net(net):
    """The configuration of a net as JSON."""
    params = net.get_params(deep=False)
    relevant = {k: v for k, v in params.items() if k not in _IRRELEVANT and not k.startswith(("iterator_valid", "_"))}
    return {"class": describe(type(net)), **{name: describe(value) for name, value in sorted(relevant.items())}}


def describe(value):
    """Any parameter as JSON that does not change from process to process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in sorted(value.items(), key=lambda kv: str(kv[0]))}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(json.dumps(describe(item)) for item in value)}
    if isinstance(value, torch.Tensor):
        return {"tensor": joblib.hash(_plain(value)), "dtype": str(value.dtype)}
    if isinstance(value, (np.ndarray, np.generic)):
        return {"array": joblib.hash(np.asarray(value))}
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if isinstance(value, type) or inspect.isroutine(value):
        return {"name": getattr(value, "__qualname__", str(value)), "code": _source(value)}
    if isinstance(value, torch.nn.Module):
        return {"module": repr(value), "state": describe(dict(value.state_dict()))}
    state = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.endswith("_")}
    return {"object": describe(type(value)), "state": describe(state) if state else _text(value)}


def _source(thing):
    # Library code has a version, not a source of the user's: its text may change without meaning anything.
    if (getattr(thing, "__module__", "") or "").split(".")[0] in ("torch", "skorch", "sklearn", "numpy", "builtins"):
        return thing.__module__
    try:
        return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16]
    except (OSError, TypeError):  # typed into an interpreter
        return getattr(thing, "__module__", "")


def _text(value):
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def _rows(X, y, rows):
    hashes = None if X is None else row_hashes(X, y)
    if hashes is not None:
        return joblib.hash(hashes)
    # Some other Dataset, or the queries, which are few: their tensors.
    digest = hashlib.sha256()
    for start in range(0, len(rows), 1024):
        digest.update(joblib.hash(_plain(rows.batch(slice(start, start + 1024)))).encode())
    return digest.hexdigest()


def _plain(tree):
    if isinstance(tree, torch.Tensor):
        tree = tree.detach().cpu()
        return (tree.float() if tree.dtype == torch.bfloat16 else tree).numpy()
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, (list, tuple)) else tree
