"""Per-row gradients, Jacobians and P x P curvature matrices, one row at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.func import functional_call


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the flat vector of length ``size``."""

    names: tuple[str, ...]
    shapes: dict[str, torch.Size]
    slices: dict[str, slice]
    size: int

    def flatten(self, tensors) -> torch.Tensor:
        """``{name: tensor}`` -> (P,)."""
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    def unflatten(self, vector) -> dict[str, torch.Tensor]:
        """(P,) -> ``{name: tensor}``."""
        return {name: vector[self.slices[name]].reshape(self.shapes[name]) for name in self.names}

    def indices(self, name) -> torch.Tensor:
        """Flat positions of a parameter's entries, arranged in the parameter's own shape."""
        return torch.arange(self.size)[self.slices[name]].reshape(self.shapes[name])


def make_layout(module, params, names=None) -> Layout:
    """Flat layout of ``names`` (default: the trainable parameters of ``module`` found in ``params``, module order)."""
    if names is None:
        names = [name for name, p in module.named_parameters() if name in params and p.requires_grad]
    shapes, slices, start = {}, {}, 0
    for name in names:
        shapes[name] = params[name].shape
        slices[name] = slice(start, start + params[name].numel())
        start += params[name].numel()
    return Layout(tuple(names), shapes, slices, start)


def one_row(X, n):
    """Row ``n`` as a batch of one; None stays None, tuples and dicts are cut member by member."""
    if X is None:
        return None
    if isinstance(X, dict):
        return {key: one_row(value, n) for key, value in X.items()}
    if isinstance(X, tuple):
        return tuple(one_row(value, n) for value in X)
    return X[n : n + 1]


def n_rows(X) -> int:
    if isinstance(X, dict):
        return n_rows(next(iter(X.values())))
    return n_rows(X[0]) if isinstance(X, tuple) else len(X)


def call(module, params, x):
    """The module's output on ``x`` at ``params``; a tied parameter is addressed by its first name only."""
    if module.training:
        raise ValueError("the reference expects the module in eval mode: call module.eval() first")
    own = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    values = {name: value for name, value in params.items() if name in own}
    if isinstance(x, dict):
        return functional_call(module, values, (), x)
    return functional_call(module, values, x if isinstance(x, tuple) else (x,))


def leaves_of(params, layout) -> dict[str, torch.Tensor]:
    """Fresh differentiable copies of the parameters in the layout."""
    return {name: params[name].detach().clone().requires_grad_(True) for name in layout.names}


def flat_grad(scalar, leaves, layout) -> torch.Tensor:
    """(P,) gradient of a scalar; zero where it does not depend on a parameter."""
    grads = torch.autograd.grad(scalar, list(leaves.values()), retain_graph=True, allow_unused=True)
    filled = {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(leaves, grads, strict=True)}
    return layout.flatten(filled)


def row_gradients(module, params, loss_fn, X, y=None, names=None):
    """Gradient of ``loss_fn`` (a loss or a measurement) row by row: ``((N, P) tensor, Layout)``."""
    layout = make_layout(module, params, names)
    rows = []
    for n in range(n_rows(X)):
        leaves = leaves_of(params, layout)
        output = call(module, {**params, **leaves}, one_row(X, n))
        rows.append(flat_grad(loss_fn(output, one_row(y, n)), leaves, layout))
    return torch.stack(rows), layout


def column_gradients(module, params, columns_fn, X, y=None, names=None):
    """``J_n^T b_c`` for every row n and column c: ``(list over rows of (n_columns, P), Layout)``."""
    layout = make_layout(module, params, names)
    rows = []
    for n in range(n_rows(X)):
        leaves = leaves_of(params, layout)
        output = call(module, {**params, **leaves}, one_row(X, n))
        columns = columns_fn(output.detach(), one_row(y, n))
        rows.append(torch.stack([flat_grad((output * b).sum(), leaves, layout) for b in columns]))
    return rows, layout


def row_jacobian(module, params, x, names=None) -> torch.Tensor:
    """(n_out, P) Jacobian of one row's output (flattened), one backward pass per element."""
    layout = make_layout(module, params, names)
    leaves = leaves_of(params, layout)
    output = call(module, {**params, **leaves}, x).reshape(-1)
    return torch.stack([flat_grad(element, leaves, layout) for element in output])


def loss_hessian(loss_fn, output, y) -> torch.Tensor:
    """(n_out, n_out) Hessian of one row's loss in that row's output."""
    hessian = torch.autograd.functional.hessian(lambda o: loss_fn(o, y), output.detach())
    return hessian.reshape(output.numel(), output.numel())


def ggn(module, params, loss_fn, X, y=None, names=None) -> torch.Tensor:
    """(P, P) generalised Gauss-Newton matrix of the MEAN row loss: ``1/N sum_n J_n^T Hess_n J_n``."""
    total = 0.0
    for n in range(n_rows(X)):
        x = one_row(X, n)
        jacobian = row_jacobian(module, params, x, names)
        with torch.no_grad():
            output = call(module, params, x)
        total = total + jacobian.T @ loss_hessian(loss_fn, output, one_row(y, n)) @ jacobian
    return total / n_rows(X)


def ggn_from_columns(module, params, columns_fn, X, y=None, names=None) -> torch.Tensor:
    """(P, P) ``1/N sum_n sum_c (J_n^T b_c)(J_n^T b_c)^T``: a Fisher that need not be the loss's Hessian."""
    rows, _ = column_gradients(module, params, columns_fn, X, y, names)
    return sum(torch.outer(g, g) for row in rows for g in row) / len(rows)


def mean_hessian(module, params, loss_fn, X, y=None, names=None) -> torch.Tensor:
    """(P, P) true Hessian of the mean row loss (the GGN plus the curvature of the network itself)."""
    layout = make_layout(module, params, names)

    def mean_loss(vector):
        values = {**params, **layout.unflatten(vector)}
        losses = [loss_fn(call(module, values, one_row(X, n)), one_row(y, n)) for n in range(n_rows(X))]
        return sum(losses) / len(losses)

    return torch.autograd.functional.hessian(mean_loss, layout.flatten(params).detach())
