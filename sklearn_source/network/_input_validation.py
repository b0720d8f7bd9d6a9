"""Validation of rows against what the network reads, each row by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..utils._compat_torch import tree_leaves, tree_map

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_FAILURES = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError)


def row_form(batch):
    """Shape and kind of one row: (shape, whether floating) for a tensor, the same in dicts and lists."""
    if isinstance(batch, Mapping):
        return {key: row_form(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [row_form(value) for value in batch]
    return (tuple(batch.shape[1:]), batch.is_floating_point()) if isinstance(batch, torch.Tensor) else type(batch)


@torch.no_grad()
def outputs_of(forward, x):
    """``forward`` of some training rows.

    Raises
    ------
    ValueError
        When the network fails on them.
    """
    try:
        return forward(x)
    except torch.cuda.OutOfMemoryError:
        raise
    except _FAILURES as error:
        raise ValueError(
            f"the network cannot read X, {_describe(row_form(x))} per row: pass the X given to net.fit ({error})"
        ) from error


def validate_training_rows(network, x):
    """Outputs of some training rows.

    Raises
    ------
    ValueError
        When the network fails on them, or the output of a row depends on the others or on chance.
    """
    output = outputs_of(network.forward, x)
    alone = outputs_of(network.forward, tree_map(lambda leaf: leaf[:1] if isinstance(leaf, torch.Tensor) else leaf, x))
    sizes = {len(leaf) for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor) and leaf.ndim}
    if output.ndim == 0 or len(sizes) == 1 and len(output) not in sizes:
        raise ValueError(
            f"expected one output per row, but for {sizes.pop()} rows the module returned a tensor of shape "
            f"{tuple(output.shape)}: let it return (rows, ...), of a sequence (rows, tokens, classes), and flatten in "
            "the criterion or in get_loss"
        )
    tolerance = _TOLERANCE.get(output.dtype, 2e-2)
    if torch.isfinite(output).all() and not torch.allclose(
        alone[0], output[0], tolerance, tolerance * output.abs().max()
    ):
        raise ValueError(
            "the network's output for a row changes with the other rows of its batch, or from call to call: no "
            "gradient belongs to one row. Statistics over a batch and random numbers must stop in evaluation mode, as "
            "those of BatchNorm and Dropout do"
        )
    return output


def validate_query_rows(network, x, form):
    """Refuse query rows, of another form than the training rows, on which the network fails.

    Another form alone is no error: sequences differ in length, and what only the loss reads may be missing.

    Parameters
    ----------
    network : Network
    x : batch of query rows
    form : from :func:`row_form`, of the training rows
    """
    query_form = row_form(x)
    if query_form == form:
        return
    reason = "another number of axes"
    expected = form
    if isinstance(query_form, dict) and isinstance(form, dict) and set(query_form) < set(form):
        expected = {key: form[key] for key in query_form}
        reason = "inputs are missing"
    if _axes(query_form) == _axes(expected) or type(query_form) is not type(expected):
        try:
            with torch.no_grad():
                network.forward(x)
            return
        except torch.cuda.OutOfMemoryError:
            raise
        except _FAILURES as error:
            reason = str(error)
    raise ValueError(
        f"the network cannot read these queries: expected rows like those of fit, {_describe(form)}, got "
        f"{_describe(query_form)} ({reason})"
    )


def _axes(form):
    """The form with the number of axes of a row in the place of shapes."""
    if isinstance(form, dict):
        return {key: _axes(value) for key, value in form.items()}
    if isinstance(form, list):
        return [_axes(value) for value in form]
    return len(form[0]) if _is_tensor(form) else form


def _is_tensor(form):
    return isinstance(form, tuple)


def _describe(form):
    """The form in words."""
    if isinstance(form, dict):
        return "{" + ", ".join(f"{key!r}: {_describe(value)}" for key, value in form.items()) + "}"
    if isinstance(form, list):
        return "[" + ", ".join(map(_describe, form)) + "]"
    return f"{'floats' if form[1] else 'integers'} of shape {form[0]}" if _is_tensor(form) else form.__name__
