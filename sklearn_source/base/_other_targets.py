"""The training rows of a fitted method with targets that a user asks about."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..network import Network, outputs_of
from ..rows import Rows, as_arrays, cast_like_training, cast_real, is_stream, list_to_array

# Rows whose losses are asked together, where only their values are looked at.
_ROWS_AT_ONCE = 256


def with_targets(method, y_train):
    """The training rows with other targets.

    Parameters
    ----------
    method : NetworkAttribution
        Fitted.
    y_train : targets of all training rows, as ``fit`` takes them

    Returns
    -------
    rows : Rows

    Raises
    ------
    ValueError
        If the targets are not as many as the rows, or none that the network's loss reads.
    TypeError
        If the rows are a dataset or a stream, which has targets of its own.
    """
    X, before, _ = method._given
    if is_stream(X):
        raise TypeError(
            "expected training rows given as arrays, got a stream, whose targets come with its rows and cannot be "
            "replaced: fit the method on the same rows as arrays (a numpy.memmap, where they do not fit in memory)"
        )
    if isinstance(X, torch.utils.data.Dataset):
        raise TypeError("expected training rows given as arrays, got a dataset, whose targets cannot be replaced")
    if not isinstance(y_train, (list, Mapping)) and np.ndim(y_train) == 0:
        raise ValueError(f"expected y_train, a target for each of the {method.n_train_} training rows, got {y_train!r}")
    X, y = as_arrays(method.net_, method._front.transform(X), list_to_array(y_train, "y_train"))
    if isinstance(y, np.ndarray) and getattr(before, "dtype", y.dtype).kind == "f":
        y = cast_real(y, before.dtype, "y_train")
    X, y = cast_like_training(X, y, method._form, method._y_shape)
    return method._network.prepare(X, y, method._training_draws())


def require_losses(network: Network, rows: Rows) -> None:
    """One forward pass: refuse targets that the loss cannot read."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        x, y = rows.batch(slice(start, start + _ROWS_AT_ONCE))
        try:
            losses = network.row_loss(outputs_of(network.forward, x), y, x)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"expected targets in y_train that the loss can read ({error})") from error
        if not bool(torch.isfinite(losses).all()):
            raise ValueError("expected targets in y_train whose loss is finite, got some with another")
