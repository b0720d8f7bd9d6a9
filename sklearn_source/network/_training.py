"""Training clones of a net from fresh weights, leaving the net and the global random states alone."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor

from ..rows import cast_real, open_rows, require_trainable
from ..utils._random import seeded
from ._whole_training import train_to_the_end


@contextlib.contextmanager
def seeded_clone(net, seed):
    """An unfitted clone, to be initialized and trained while the context lasts.

    Global generators start from ``seed`` and are put back afterwards, gradients are on, and other threads wait.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not modified.
    seed : int

    Yields
    ------
    fresh : skorch.NeuralNet
    """
    with seeded(seed, net.device), torch.enable_grad():
        yield clone(net)


def refuse_module_instance(net, consequence, otherwise=""):
    """ValueError where a net was built from a module instance, whose clones all start from the same weights.

    Parameters
    ----------
    net : skorch.NeuralNet
    consequence : str
        What that means, from " that ..." or ", so that ..." on.
    otherwise : str
        What else may be done about it.
    """
    if isinstance(net.module, torch.nn.Module):
        raise ValueError(
            f"expected a net that makes its module, got a {type(net).__name__} that holds a module "
            f"instance{consequence}: build the net from the module's class (module=MLP, module__hidden=...){otherwise}"
        )


def train_clone(net, X, y, *, seed, recorder=None):
    """Train a clone of ``net`` on ``X, y``.

    Arrays are brought into the dtype of the module and targets into the shape of its output. Global random states are
    put back as they were.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not modified.
    X, y : what ``net.fit`` takes
    seed : int
    recorder : skorch.callbacks.Callback, optional
        Added to the callbacks unless the net has one of its class.

    Returns
    -------
    net : skorch.NeuralNet
        The trained clone.
    X, y
        As it was trained on them.

    Raises
    ------
    TypeError, ValueError
        When rows come by a stream, or by a loader that collates as the net does not.
    ValueError
        When the net was built from a module instance and trained: a clone would start from the trained weights.
    KeyboardInterrupt
        When the training was interrupted; no half-trained network is returned.
    """
    X, y = rows_for_training(net, X, y, seed=seed)
    with seeded_clone(net, seed) as fresh:
        if recorder is not None:
            add_callback(fresh, "trajectory_recorder", recorder)
        try:
            train_to_the_end(fresh.fit, X, y)
        except (AttributeError, LookupError, RuntimeError, TypeError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError) or _took_a_step(fresh):
                raise
            raise ValueError(
                f"the net cannot be trained on these X and y ({error}): pass what its module and its loss read"
            ) from error
    return fresh, X, y


def _took_a_step(net):
    """Whether the training of a net came as far as a loss."""
    epochs = getattr(net, "history", None) or []
    return any("train_loss" in batch for epoch in epochs for batch in epoch.get("batches", ()))


def rows_for_training(net, X, y, *, seed):
    """``X, y`` as :func:`train_clone` trains on them; its errors where it cannot train anew, or not on such rows."""
    require_trainable(net, X)
    X = open_rows(net, X, y)
    if getattr(net, "initialized_", False) and len(net.history):
        refuse_module_instance(
            net,
            " that is trained already, so that training it anew would start from those weights",
            ", or freeze it, FrozenEstimator(net), to use it as it is",
        )
    with seeded_clone(net, seed) as trial:
        return suited(trial, X, y)


def add_callback(net, name, callback):
    """Add a callback to a net that is not initialized, unless it has one of its class."""
    given = net.callbacks
    given = list(given) if given not in (None, "disable") else []
    if not any(isinstance(c[1] if isinstance(c, tuple) else c, type(callback)) for c in given):
        net.callbacks = [*given, (name, callback)]  # set_params stumbles over "disable"


def suited(net, X, y):
    """Arrays in the dtype of the net's module, targets in the shape of its output; ``net`` is for a trial only."""
    if not isinstance(X, np.ndarray) and not sparse.issparse(X):
        return X, y
    net.callbacks, net.verbose = "disable", 0
    net.initialize()
    dtype = next((p.dtype for p in net.module_.parameters() if p.is_floating_point()), torch.float32)
    dtype = torch.empty((), dtype=dtype if dtype != torch.bfloat16 else torch.float32).numpy().dtype
    output = None
    if X.dtype.kind in "iub":
        # Integers are codes to a module that embeds them and numbers to any other: the module decides.
        output = _output(net, X)
    if output is None:
        X = cast_real(X, dtype, "X")
        X = sparse.csr_matrix(X) if sparse.issparse(X) else X  # skorch cannot take single rows of sparse arrays
        output = _output(net, X)
    if not isinstance(y, np.ndarray):
        return X, y
    if isinstance(net, NeuralNetClassifier) and output is not None and output.ndim == 2 and y.ndim == 1:
        if y.min() < 0 or y.max() >= output.shape[1]:
            raise ValueError(
                f"expected class labels 0 to {output.shape[1] - 1}, as the network has {output.shape[1]} outputs, got "
                f"{y.min()} to {y.max()}: encode them (LabelEncoder does), or give the network more outputs"
            )
    if y.dtype.kind == "f" or isinstance(net, (NeuralNetRegressor, NeuralNetBinaryClassifier)):
        y = cast_real(y, dtype, "y")
        shape = output.shape[1:] if output is not None else (1,) if isinstance(net, NeuralNetRegressor) else ()
        if y.shape[1:] != shape and y[0].size == int(np.prod(shape)):
            y = y.reshape(len(y), *shape)
    return X, y


def _output(net, X):
    """What an initialized net puts out for two rows; None where it fails, which training will report."""
    rows = X[:2].toarray() if sparse.issparse(X) else np.ascontiguousarray(X[:2])
    net.module_.eval()
    try:
        with torch.no_grad():
            output = net.infer(torch.from_numpy(rows).to(net.device))
    except Exception:  # modules fail in their own ways, some because a callback is to shape them first
        return None
    output = output[0] if isinstance(output, tuple) else output
    return output if isinstance(output, torch.Tensor) else None
