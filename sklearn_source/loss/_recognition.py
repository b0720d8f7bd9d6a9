"""Which predictive distribution a loss implies: by its criterion's type, or by asking a loss of any code."""

from __future__ import annotations

import math

import torch
from skorch import NeuralNetClassifier

from ..utils._compat_skorch import criterion_names
from ..utils._tree import take
from ._derivatives import gradient
from ._predictive import (
    Bernoulli,
    BernoulliProbabilities,
    Categorical,
    CategoricalLogProbabilities,
    CategoricalProbabilities,
    Elementwise,
    Gaussian,
    Laplace,
    Predictive,
)
from ._weighted_mean import FAILURES, TOLERANCE

_OF_CRITERION = {
    torch.nn.CrossEntropyLoss: Categorical(),
    torch.nn.BCEWithLogitsLoss: Bernoulli(),
    torch.nn.BCELoss: BernoulliProbabilities(),
    torch.nn.MSELoss: Gaussian(),
    torch.nn.L1Loss: Laplace(),
}


def predictive_of_criterion(net, overridden, dtype, device):
    """What the outputs of a net parametrise, as its criterion's type tells.

    Parameters
    ----------
    net : skorch.NeuralNet
    overridden : bool
        Whether its ``get_loss`` is not skorch's own.
    dtype, device
        Of the outputs.

    Returns
    -------
    predictive : Predictive
    closed_form : bool
        Whether its Hessian is that of the loss, up to the criterion's weights.
    """
    criterion = getattr(net, "criterion_", None)
    if len(criterion_names(net)) != 1:
        return Predictive(), False
    if isinstance(criterion, torch.nn.NLLLoss):
        if overridden:
            predictive = _probe_nll(net, criterion, dtype, device)
        elif isinstance(net, NeuralNetClassifier):
            predictive = CategoricalProbabilities()
        else:
            predictive = CategoricalLogProbabilities()
        return predictive, not overridden and type(criterion) is torch.nn.NLLLoss
    for cls, predictive in _OF_CRITERION.items():
        if isinstance(criterion, cls):
            return predictive, type(criterion) is cls and not overridden
    return Predictive(), False


def _probe_nll(net, criterion, dtype, device):
    """Whether an overridden ``get_loss`` takes the logarithm that NLLLoss needs, seen from one made-up row."""
    n = 2 if criterion.weight is None else len(criterion.weight)
    p = torch.full((1, n), 0.75 / max(n - 1, 1), dtype=dtype, device=device)
    p[0, 0] = 0.25
    y = torch.zeros(1, dtype=torch.int64, device=device)
    try:
        with torch.no_grad():
            value = float(net.get_loss(p, y, X=None, training=True))
            probs, logprobs = float(criterion(p.log(), y)), float(criterion(p, y))
    except Exception:  # whatever an override does with a row it did not expect: then it is not one of the two
        return Predictive()
    if math.isclose(value, probs, rel_tol=1e-3):
        return CategoricalProbabilities()
    return CategoricalLogProbabilities() if math.isclose(value, logprobs, rel_tol=1e-3) else Predictive()


def recognise_binary(batch_loss, x, y, forward):
    """What one output per row means to a classifier's loss, which rises in it for one class and falls for the other.

    Parameters
    ----------
    batch_loss : BatchLoss
    x, y
        Some training rows.
    forward : callable
        From a batch to the outputs.

    Returns
    -------
    Bernoulli or None
        Of logits (any score above which nothing is known) or of probabilities; no is a target of 0, or of -1.
    """
    with torch.no_grad():
        output = forward(x)

    def losses(made, targets):
        first = torch.zeros(len(made), dtype=torch.int64, device=made.device)
        return batch_loss.rows_alone(made, targets, take(x, first))

    if not isinstance(y, torch.Tensor) or output.shape[1:].numel() != 1 or y.shape[1:].numel() != 1 or y.is_complex():
        return None
    within = bool(((output >= 0) & (output <= 1)).all())
    kinds = []
    if not (within and output.is_cuda):  # a criterion of probabilities asked for -4 would end the process there
        kinds.append((Bernoulli, (-4.0, -1.0, 0.25, 0.75, 2.0, 5.0)))
    if within:
        kinds.append((BernoulliProbabilities, (0.1, 0.3, 0.6, 0.9)))
    for cls, points in kinds:
        made = torch.tensor(points, dtype=output.dtype, device=output.device).reshape(-1, *output.shape[1:])
        for no in (0.0, -1.0):
            try:
                targets = [torch.full((len(points), *y.shape[1:]), t).to(y) for t in (1.0, no)]
                slopes = [gradient(lambda o, t=t: losses(o, t), made) for t in targets]
            except FAILURES:
                continue
            if all(bool((s >= 0).all() & s.any() & torch.isfinite(s).all()) for s in (-slopes[0], slopes[1])):
                return cls(no)
    return None


def recognise_predictive(losses, output, *, absolute_error=False):
    """The distribution that some rows' losses are of, by their gradients and products with their Hessians.

    Parameters
    ----------
    losses : callable
        Row losses (B,) as a function of the outputs, every row by itself.
    output : Tensor (B, ...)
        Of a few rows.
    absolute_error : bool
        Whether the criterion is one, whose Hessian says nothing.

    Returns
    -------
    Predictive or None
        A softmax cross-entropy at every position (of logits, log-probabilities or probabilities), an absolute error, or
        any other loss that is a sum over the elements of the output. None where it is none of these.
    """
    output = output.detach()
    axes = [axis for axis in sorted({1, output.ndim - 1}) if 0 < axis < output.ndim and output.shape[axis] > 1]
    candidates = [Categorical(axis) for axis in axes]
    for axis in axes:
        if _normalised(output.exp(), axis):
            candidates.append(CategoricalLogProbabilities(axis))
        if (output >= 0).all() and _normalised(output, axis):
            candidates.append(CategoricalProbabilities(axis))
    candidates += [Laplace()] if absolute_error else []
    candidates.append(Elementwise())
    return next((c for c in candidates if _matches(c, losses, output)), None)


def _matches(predictive, losses, output):
    """Whether the losses are of this kind at two outputs: those given, and half way to made-up ones."""
    generator = torch.Generator().manual_seed(0)
    try:
        # Half way: what lies between probabilities are probabilities.
        for other in (output, 0.5 * output + 0.5 * predictive.stand_in(output)):
            vector = torch.randn(other.shape, generator=generator, dtype=torch.float64).to(other)
            measured, expected = predictive.evidence(losses, output, other, vector)
            size, tolerance = expected.abs().max(), 10 * TOLERANCE.get(other.dtype, 2e-2)
            if not size > 0 or not torch.isfinite(measured).all():
                return False
            if (measured - expected).abs().max() > tolerance * size:
                return False
    except FAILURES:  # probabilities asked for as logits, a loss without a second derivative
        return False
    return True


def _normalised(p, axis):
    total = p.sum(axis)
    return bool((total - 1).abs().max() <= 10 * TOLERANCE.get(p.dtype, 2e-2))
