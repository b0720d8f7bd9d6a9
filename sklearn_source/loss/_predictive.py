"""Predictive distributions: what a network's outputs parametrise, as the loss has it.

Each class knows its Hessian in the outputs, and how a loss of any code shows that it is of this kind. What it reads of
such a loss are ``losses``: the rows' losses (B,) as a function of their outputs (B, ...), every row by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ._derivatives import gradient, hessian_product
from ._output_hessian import DiagonalHessian, SoftmaxHessian
from ._weighted_mean import TOLERANCE, stand_in

_BCE_EPSILON = 1e-12  # what torch's BCELoss divides by at least


@dataclass(frozen=True)
class Predictive:
    """Any distribution; by itself, one that is not known.

    Attributes
    ----------
    name : str
    is_classification : bool
        Whether targets are classes.
    takes_numbers : bool
        Whether targets are floating-point numbers, whatever type they come as.
    of_probabilities : bool
        Whether the outputs are probabilities: log-odds of 0 and 1 are cut off at the smallest number of their type.
    """

    name: ClassVar[str] = "unknown"
    is_classification: ClassVar[bool] = False
    takes_numbers: ClassVar[bool] = False
    of_probabilities: ClassVar[bool] = False

    def hessian(self, output, scale):
        """``scale`` times the Hessian of minus the log-likelihood in the outputs, of :mod:`._output_hessian`."""
        raise NotImplementedError

    def scale(self, losses, output):
        """What multiplies that Hessian in a loss of this kind: (B, *positions), zero at positions that do not count."""
        raise NotImplementedError

    def evidence(self, losses, output, other, vector):
        """What the losses give at ``other`` outputs, and what they would give there were they of this kind.

        Returns
        -------
        measured, expected : Tensor like ``output``
        """
        return hessian_product(losses, other, vector), self.hessian(other, self.scale(losses, other)).product(vector)

    def stand_in(self, output):
        """Made-up outputs like ``output`` that parametrise this distribution too."""
        return stand_in(output)

    def to_free(self, output):
        """Numbers like ``output`` that may move every way, where outputs may not: logits of probabilities."""
        return output

    def from_free(self, free):
        """The outputs of :meth:`to_free`."""
        return free


@dataclass(frozen=True)
class Elementwise(Predictive):
    """An unknown one whose loss is a sum over the elements of the output."""

    name = "elementwise"

    def hessian(self, output, scale):
        return DiagonalHessian(scale)

    def scale(self, losses, output):
        return hessian_product(losses, output, torch.ones_like(output)).clamp(min=0)


@dataclass(frozen=True)
class Gaussian(Predictive):
    """The mean of a normal distribution: squared error."""

    name = "gaussian"
    takes_numbers = True

    def hessian(self, output, scale):
        return DiagonalHessian(2 * scale)


@dataclass(frozen=True)
class Laplace(Predictive):
    """The median of a Laplace distribution: absolute error, whose own Hessian is zero; the Fisher stands for it."""

    name = "laplace"
    takes_numbers = True

    def hessian(self, output, scale):
        return DiagonalHessian(scale)

    def scale(self, losses, output):
        return gradient(losses, output).abs()

    def evidence(self, losses, output, other, vector):
        return self.scale(losses, other), self.scale(losses, output)


@dataclass(frozen=True)
class Bernoulli(Predictive):
    """Logits of independent yes or no: binary cross-entropy.

    Parameters
    ----------
    no : float
        The target that stands for no; yes is 1.
    """

    no: float = 0.0
    name = "bernoulli"
    is_classification = True
    takes_numbers = True

    def hessian(self, output, scale):
        # d2/dz2 softplus(z) = s(z) s(-z), which keeps its precision where s(z) is near 1.
        return DiagonalHessian(scale * output.sigmoid() * (-output).sigmoid())

    def probability(self, output):
        """Of yes, elementwise."""
        return output.sigmoid()

    def predicted(self, output, threshold):
        """The targets that are predicted, where a probability above the threshold is a yes."""
        return torch.where(self.probability(output) > threshold, 1.0, self.no).to(output.dtype)

    def log_odds(self, output, target):
        """Of the own class, elementwise."""
        return torch.where(target > 0.5, output, -output)


@dataclass(frozen=True)
class BernoulliProbabilities(Bernoulli):
    """Probabilities of independent yes or no: BCELoss. The Hessian is that of the logits behind."""

    name = "bernoulli_probs"
    of_probabilities = True

    def probability(self, output):
        return output

    def hessian(self, output, scale):
        return DiagonalHessian(scale / (output * (1 - output)).clamp(min=_BCE_EPSILON))

    def log_odds(self, output, target):
        return torch.where(target > 0.5, 1.0, -1.0) * (_log(output) - _log(1 - output))


@dataclass(frozen=True)
class Categorical(Predictive):
    """Logits of one of several classes at every position: softmax and cross-entropy.

    Parameters
    ----------
    axis : int
        The axis of the classes: 1 or the last.
    """

    axis: int = 1
    name = "categorical"
    is_classification = True

    def probabilities(self, output):
        """Like ``output``."""
        return output.softmax(self.axis)

    def hessian(self, output, scale):
        return SoftmaxHessian(self._classes_second(output), scale, self.axis, centred=True)

    def scale(self, losses, output):
        # The gradient is s (p - target): between two outputs the targets drop out.
        p = output.softmax(self.axis)
        spike = torch.zeros_like(p).scatter(self.axis, p.argmin(self.axis, keepdim=True), 12.0)
        change, step = gradient(losses, output) - gradient(losses, spike), p - spike.softmax(self.axis)
        return (change * step).sum(self.axis) / step.square().sum(self.axis)

    def labels(self, losses, output):
        """The class that the loss takes for the true one at every position, -1 where none counts.

        Returns
        -------
        Tensor (B, *positions) of int64
        """
        scale = self.scale(losses, output)
        floor = TOLERANCE.get(output.dtype, 2e-2) * scale.flatten(1).amax(1).reshape(-1, *[1] * (scale.ndim - 1))
        return self._targets(losses, output, scale).argmax(self.axis).where(scale > floor, -1)

    def log_odds(self, output, label):
        """Of the class ``label`` at every position, both (B, *positions)."""
        label = label.unsqueeze(self.axis)
        own = output.gather(self.axis, label).squeeze(self.axis)
        return own - output.scatter(self.axis, label, -torch.inf).logsumexp(self.axis)

    def _targets(self, losses, output, scale):
        """The target probabilities like ``output``, times the scale."""
        return scale.unsqueeze(self.axis) * output.softmax(self.axis) - gradient(losses, output)

    def _classes_second(self, output):
        return self.probabilities(output).movedim(self.axis, 1)


@dataclass(frozen=True)
class CategoricalLogProbabilities(Categorical):
    """Log-probabilities of the classes: NLLLoss, which is linear in them. The Hessian is that of the logits behind."""

    name = "categorical_logprobs"

    def probabilities(self, output):
        return output.exp()

    def from_free(self, free):
        return free.log_softmax(self.axis)

    def hessian(self, output, scale):
        return SoftmaxHessian(self._classes_second(output), scale, self.axis)

    def scale(self, losses, output):
        return -self._log_gradient(losses, output).sum(self.axis)

    def evidence(self, losses, output, other, vector):
        # No class is asked for less than not at all.
        return self._log_gradient(losses, other), self._log_gradient(losses, output).clamp(max=0)

    def _log_gradient(self, losses, output):
        """Gradient in the log-probabilities: minus the scaled target, whatever the outputs."""
        return gradient(losses, output)

    def _targets(self, losses, output, scale):
        return -self._log_gradient(losses, output)


@dataclass(frozen=True)
class CategoricalProbabilities(CategoricalLogProbabilities):
    """Probabilities of the classes: NLLLoss in a NeuralNetClassifier, which takes the logarithm itself."""

    name = "categorical_probs"
    of_probabilities = True

    def probabilities(self, output):
        return output

    def hessian(self, output, scale):
        p = self._classes_second(output)
        return SoftmaxHessian(p, scale, self.axis, stretch=1 / (p + torch.finfo(p.dtype).eps))

    def stand_in(self, output):
        made = stand_in(output)
        return made / made.sum(self.axis, keepdim=True)

    def to_free(self, output):
        return _log(output)

    def from_free(self, free):
        return free.softmax(self.axis)

    def log_odds(self, output, label):
        # 1 - p_y as the sum of the others: it keeps its digits where p_y is near one.
        label = label.unsqueeze(self.axis)
        own = output.gather(self.axis, label).squeeze(self.axis)
        rest = output.scatter(self.axis, label, 0.0).sum(self.axis)
        return _log(own) - _log(rest)

    def _log_gradient(self, losses, output):
        return gradient(losses, output) * (output + torch.finfo(output.dtype).eps)


def _log(p):
    """Logarithm of probabilities, finite where they became 0."""
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
