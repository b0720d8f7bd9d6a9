"""Validation of rows against what the network reads, each row by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..utils._compat_torch import BatchNorm, in_tensor_float, tree_leaves, tree_map

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_FAILURES = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError)

_NAMED = (
    "; a row that is a dict holds inputs of the module by name: where the targets are among them, give pairs (X, y), "
    "by the collate_fn of a DataLoader, DataLoader(rows, batch_size=256, collate_fn=...), or the net's "
    "iterator_train__collate_fn"
)


class OutputError(TypeError):
    """A module that returns something else than a tensor, or a tuple that starts with one.

    Parameters
    ----------
    output : object
        What it returned.
    """

    def __init__(self, output):
        kind, key = type(output).__name__, "0"
        if isinstance(output, Mapping):
            kind += f" of {list(output)}"
            key = next((repr(name) for name in ("logits", *output) if name in output), key)
        super().__init__(
            f"expected a module that returns a tensor (or a tuple that starts with one), got a {kind}: let the net's "
            f"infer return the tensor that is the prediction, super().infer(x, **fit_params)[{key}]"
        )


def row_form(batch):
    """Shape and kind of one row: (shape, whether floating) for a tensor, the same in dicts and lists."""
    if isinstance(batch, Mapping):
        return {key: row_form(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [row_form(value) for value in batch]
    return (tuple(batch.shape[1:]), batch.is_floating_point()) if isinstance(batch, torch.Tensor) else type(batch)


@torch.no_grad()
def outputs_of(forward, x):
    """``forward`` of some training rows, without a graph even where the module turns gradients on.

    Raises
    ------
    ValueError
        When the network fails on them.
    """
    try:
        output = forward(x)
    except (torch.cuda.OutOfMemoryError, OutputError):
        raise
    except _FAILURES as error:
        raise ValueError(
            f"the network cannot read X, {_describe(row_form(x))} per row: pass the X given to net.fit ({error})"
            + (_NAMED if isinstance(x, Mapping) else "")
        ) from error
    return output.detach() if isinstance(output, torch.Tensor) else output


def validate_training_rows(network, x):
    """Outputs of some training rows.

    Raises
    ------
    ValueError
        When the network fails on them, or the output of a row depends on the others or on chance.
    """
    output = outputs_of(network.forward, x)
    sizes = {len(leaf) for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor) and leaf.ndim}
    if output.ndim == 0 or len(sizes) == 1 and len(output) not in sizes:
        raise ValueError(
            f"expected one output per row, but for {sizes.pop()} rows the module returned a tensor of shape "
            f"{tuple(output.shape)}: let it return (rows, ...), of a sequence (rows, tokens, classes), and flatten in "
            "the criterion or in get_loss"
        )
    _require_own_outputs(network, x, output)
    return output


def _require_own_outputs(network, x, output):
    """Refuse a network whose output for the first row is another, or of another shape, without the other rows."""
    first = tree_map(lambda leaf: leaf[:1] if isinstance(leaf, torch.Tensor) else leaf, x)
    try:
        with torch.no_grad():
            alone = network.forward(first).detach()
    except torch.cuda.OutOfMemoryError:
        raise
    except _FAILURES as error:
        alone, reason = None, f"the network fails on a single row ({error})"
    if alone is not None:
        if alone.shape != (1, *output.shape[1:]):
            raise ValueError(
                f"expected one output per row, but for a single row the module returned a tensor of shape "
                f"{tuple(alone.shape)}, for {len(output)} rows {tuple(output.shape)}: name the axis that squeeze() "
                "removes, squeeze(-1), so that the axis of the rows stays"
            )
        tolerance = 2e-2 if in_tensor_float(output) else _TOLERANCE.get(output.dtype, 2e-2)
        if not torch.isfinite(output).all() or torch.allclose(
            alone[0], output[0], tolerance, tolerance * float(output.abs().max())
        ):
            return
        reason = "the network's output for a row changes with the other rows of its batch, or from call to call"
    batch_norms = [
        name
        for name, layer in network.module.named_modules()
        if isinstance(layer, BatchNorm) and layer.running_mean is None
    ]
    cause = (
        f"{batch_norms} take statistics over the batch in evaluation mode too (track_running_stats=False): train with "
        "running statistics, or with GroupNorm or LayerNorm"
        if batch_norms
        else "statistics over a batch and random numbers must stop in evaluation mode, as those of BatchNorm and "
        "Dropout do"
    )
    raise ValueError(f"{reason}: no gradient belongs to one row; {cause}")


def validate_query_rows(network, x, form, examples=None):
    """Refuse query rows, of another form than the training rows, on which the network fails.

    Another form alone is no error: sequences differ in length, and what only the loss reads may be missing.

    Parameters
    ----------
    network : Network
    x : batch of query rows
    form : from :func:`row_form`, of the training rows
    examples : batch, optional
        What the network reads of them where its loss draws; None: the rows themselves.
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
                network.forward(x if examples is None else examples)
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
