"""Scores straight from METHOD sections 2, 4 and 5: explicit P x P operators, a loop over segments, a sign."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ._dense import ggn, row_gradients
from ._factors import block_factors, blocks_matrix, phi_dense, scatter_blocks


@dataclass
class ReferenceSegment:
    """One segment: ``h`` and ``rho`` numbers, or one value per flat coordinate (parameter groups); ``curvature`` a
    (P, P) matrix or a list of blocks; ``row_gradients[c]`` (N_s, P) at checkpoint c with ``weights[c]``; ``rows`` the
    global indices of those N_s rows (default: all, in order); ``second`` the c of :func:`second_order`, likewise."""

    h: float | torch.Tensor
    rho: float | torch.Tensor
    weights: Sequence[float]
    row_gradients: Sequence[torch.Tensor]
    curvature: torch.Tensor | list
    rows: torch.Tensor | None = None
    second: float | torch.Tensor = 0.0


def segment_rate(lr, start, end, momentum=0.0, dampening=0.0, nesterov=False) -> float:
    """h of the steps in ``(start, end]``: how far a gradient of one there moves a weight until torch's SGD ends."""
    return _moved(tuple(lr), start, end, momentum, dampening, nesterov)


def segment_second_order(lr, start, end, momentum=0.0, dampening=0.0, nesterov=False, since=0) -> float:
    """c of these steps: such that they leave ``exp(-h s - c (h s)^2)`` of a direction of small curvature s.

    ``since``: the first step of their stage.

    From the way of torch's SGD under a pull of one and small curvatures of both signs, ``F(s) = h - m s``: with
    ``F = (1 - exp(-h s - kappa s^2)) / s`` there is ``kappa = h^2 / 2 - m``.
    """
    lr, rule, kappa = tuple(lr), (momentum, dampening, nesterov), []
    for last in (start, end):
        h = _moved(lr, since, last, *rule)
        epsilon = 1e-4 / h if h else 1.0
        up, down = (_moved(lr, since, last, *rule, curvature=s) for s in (epsilon, -epsilon))
        kappa.append(h**2 / 2 + (up - down) / (2 * epsilon))
    return (kappa[1] - kappa[0]) / segment_rate(lr, start, end, *rule) ** 2


@functools.lru_cache(maxsize=1000)
def _moved(lr, first, last, momentum, dampening, nesterov, curvature=0.0):
    """Where a weight ends that starts at 0 and has gradient ``curvature * weight - 1`` at steps ``first .. last``."""
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0, momentum=momentum, dampening=dampening, nesterov=nesterov)
    for k, rate in enumerate(lr):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = (curvature * weight.detach() - 1.0) * float(first <= k < last)
        optimizer.step()
    return weight.item()


def quadrature_weights(steps, quadrature="trapezoid") -> list[float]:
    """Weights (sum 1) of checkpoints at ``steps``, the first being the segment's start, the last its end."""
    if quadrature == "right":
        return [0.0] + [1.0 / (len(steps) - 1)] * (len(steps) - 1)
    weights = [0.0] * len(steps)
    for i in range(len(steps) - 1):
        share = (steps[i + 1] - steps[i]) / (steps[-1] - steps[0])
        weights[i] += share / 2
        weights[i + 1] += share / 2
    return weights


def phi_F(h, rho, second=0.0):
    """sigma -> ``(1 - exp(-x - c x^2)) / (sigma + rho)``, x = h (sigma + rho), c = second; h in the limit 0."""

    def phi(sigma):
        x = sigma + rho
        exponents = -(h * x) - second * (h * x) ** 2
        return torch.stack(
            [-torch.expm1(e) / v if abs(h * v) > 1e-12 else torch.full_like(v, h) for e, v in zip(exponents, x)]
        )

    return phi


def phi_S(h, rho, second=0.0):
    """sigma -> ``exp(-x - c x^2)``, x = h (sigma + rho)."""
    return lambda sigma: torch.exp(-h * (sigma + rho) - second * (h * (sigma + rho)) ** 2)


def metric_operators(H, h, rho, second=0.0):
    """(F, S) of the flow ``theta' = -D (H + rho) theta`` over unit time, D = diag(h): in the metric of D.

    ``M = D^1/2 (H + rho) D^1/2``, ``F = D^1/2 [(1 - e^-M) / M] D^1/2``, ``S = D^-1/2 e^-M D^1/2`` on query gradients.
    """
    root = torch.diag(h.sqrt())
    M = root @ (H + torch.diag(rho)) @ root
    F = root @ phi_dense(M, phi_F(1.0, 0.0, second)) @ root
    S = torch.linalg.inv(root) @ phi_dense(M, phi_S(1.0, 0.0, second)) @ root
    return F, S


def segment_operators(segment):
    """``(F, S)``, both (P, P), acting on query gradients from the left."""
    curvature, h, rho, c = segment.curvature, segment.h, segment.rho, segment.second
    if not any(torch.is_tensor(value) for value in (h, rho, c)):
        operator = phi_dense if torch.is_tensor(curvature) else blocks_matrix
        return operator(curvature, phi_F(h, rho, c)), operator(curvature, phi_S(h, rho, c))
    size = segment.row_gradients[0].shape[1]
    h, rho, c = (torch.as_tensor(value, dtype=torch.float64).expand(size) for value in (h, rho, c))
    if torch.is_tensor(curvature):
        assert c.min() == c.max()  # one function of one matrix
        return metric_operators(curvature, h, rho, c[0])
    pairs = []
    for block in curvature:  # block by block, so that a layer with two rates stays exact within its block
        where = block.index.reshape(-1)
        assert c[where].min() == c[where].max()
        pairs.append(metric_operators(block.matrix(), h[where], rho[where], c[where][0]))
    return scatter_blocks(curvature, [F for F, _ in pairs]), scatter_blocks(curvature, [S for _, S in pairs])


def source_scores(segments, query_gradients, n_train=None) -> torch.Tensor:
    """(n_query, n_train): ``tau = -1/N_s sum_l < F_l S_{l+1} ... S_L grad f_q, gbar_l(m) >``.

    ``query_gradients`` (n_query, P) at the final parameters; ``segments`` in time order.
    """
    n_train = len(segments[0].row_gradients[0]) if n_train is None else n_train
    tau = torch.zeros(len(query_gradients), n_train, dtype=query_gradients.dtype)
    u = query_gradients.T  # (P, n_query)
    for segment in reversed(segments):
        F, S = segment_operators(segment)
        average = sum(w * g for w, g in zip(segment.weights, segment.row_gradients, strict=True))
        rows = torch.arange(len(average)) if segment.rows is None else segment.rows
        tau.index_add_(1, rows, -(F @ u).T @ average.T / len(average))
        u = S @ u
    return tau


def auto_damping(blocks, scale=0.1) -> list[float]:
    """``0.1 * mean eigenvalue`` of every block."""
    return [scale * float(block.eigenvalues.mean()) for block in blocks]


def influence_scores(curvature, query_gradients, train_gradients, damping=0.0) -> torch.Tensor:
    """``-(1/N) <(H + lambda)^-1 grad f_q, grad l_m>``; ``damping`` a number, "auto", or one number per block."""
    if torch.is_tensor(curvature):
        if damping == "auto":
            damping = 0.1 * float(torch.trace(curvature)) / len(curvature)
        inverse = torch.linalg.inv(curvature + damping * torch.eye(len(curvature), dtype=curvature.dtype))
    else:
        if damping == "auto":
            damping = auto_damping(curvature)
        each = damping if isinstance(damping, (list, tuple)) else [damping] * len(curvature)
        inverse = scatter_blocks(
            curvature,
            [b.matrix(lambda s, d=d: 1.0 / (s + d)) for b, d in zip(curvature, each, strict=True)],
        )
    return -query_gradients @ inverse @ train_gradients.T / len(train_gradients)


def tracin_scores(rates, query_gradients, train_gradients) -> torch.Tensor:
    """``-(1/N) sum_c h_c <grad f_q(theta_c), grad l_m(theta_c)>``; lists over checkpoints, h_c numbers or (P,)."""
    total = 0.0
    for h, q, g in zip(rates, query_gradients, train_gradients, strict=True):
        total = total - (q * h) @ g.T / len(g)
    return total


def mean_parameters(checkpoints) -> dict[str, torch.Tensor]:
    """``sum_c w_c theta_c`` (FAST-SOURCE: ``averaging="parameters"``)."""
    return {name: sum(w * params[name] for params, w in checkpoints) for name in checkpoints[0][0]}


def source_from_checkpoints(
    module, segments, loss_fn, X, y, measurement_fn, X_query, y_query=None, *, curvature="ekfac", columns_fn=None,
    names=None, dense=(), averaging="statistics",
) -> torch.Tensor:  # fmt: skip
    """SOURCE from end to end: ``segments`` = list of ``(checkpoints, h, rho, c)`` in time order, all rows in each.

    The last checkpoint of the last segment is the trained network. ``curvature``: "exact" (dense GGN; needs no
    ``columns_fn``) or a kind of ``block_factors``.
    """
    final = segments[-1][0][-1][0]
    built = []
    seen = {}  # neighbouring segments share their boundary checkpoint: same dict object, same gradients

    def at(params):
        if id(params) not in seen:
            seen[id(params)] = (params, row_gradients(module, params, loss_fn, X, y, names)[0])
        return seen[id(params)][1]

    for checkpoints, h, rho, c in segments:
        if averaging == "parameters":
            checkpoints = [(mean_parameters(checkpoints), 1.0)]
        weights = [w for _, w in checkpoints]
        gradients = [at(params) for params, _ in checkpoints]
        if curvature == "exact":
            H = sum(w * ggn(module, params, loss_fn, X, y, names) for params, w in checkpoints)
        else:
            H = block_factors(module, checkpoints, columns_fn, X, y, curvature, names, dense)
        built.append(ReferenceSegment(h, rho, weights, gradients, H, second=c))
    queries, _ = row_gradients(module, final, measurement_fn, X_query, y_query, names)
    return source_scores(built, queries)
