"""What is attributed: one number per query row, computed from the network's output."""

from __future__ import annotations

import operator

import torch

_NAMES = ("auto", "log_odds", "prediction", "neg_loss")


def resolve_measurement(measurement, network, output=None):
    """The measurement that a name (or a callable) stands for on a network.

    Parameters
    ----------
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable
        ``"auto"`` is ``"log_odds"`` for classification, else ``"prediction"``. The log-odds of a sequence are the mean
        over its tokens (those that the loss counts, where targets are given) of the log-odds of each. ``"neg_loss"`` is
        minus the criterion on the row alone, as it is called: of a sequence the mean over its own tokens, or their sum
        for ``reduction="sum"``. A callable is ``f(output, target) -> (B,)``, torch, differentiable, every row by
        itself; an attribute ``needs_y = True`` on it says that it needs the query's targets.
    network : Network
    output : int or tuple of int, optional
        For ``"prediction"``: which element of a row's output, where it has several.

    Returns
    -------
    Measurement

    Raises
    ------
    ValueError
        An unknown name, one that this network cannot have, or ``output`` with another measurement.
    """
    if isinstance(measurement, Measurement):
        return measurement
    if not callable(measurement) and not (isinstance(measurement, str) and measurement in _NAMES):
        raise ValueError(f"expected measurement to be one of {list(_NAMES)} or a callable, got {measurement!r}")
    if isinstance(measurement, str) and measurement == "auto":
        measurement = "log_odds" if network.is_classification else "prediction"
    if measurement == "log_odds":
        if not network.is_classification:
            raise ValueError(
                'measurement="log_odds" needs a classifier, but this network is a regressor: use "prediction"'
            )
        if network.predictive == "unknown":
            raise ValueError(
                'measurement="log_odds" needs a criterion that says what the outputs are (CrossEntropyLoss, NLLLoss, '
                "BCEWithLogitsLoss); for another one pass a callable f(output, target) -> (batch,)"
            )
    if output is not None and measurement != "prediction":
        raise ValueError(f'output={output!r} chooses what "prediction" reads; it has no meaning for {measurement!r}')
    return Measurement(measurement, network, output)


class Measurement:
    """One number per row from the network's output; more is better, or plainly the output.

    Parameters
    ----------
    kind : {"log_odds", "prediction", "neg_loss"} or callable
    network : Network
    output : int or tuple of int, optional

    Attributes
    ----------
    name : str
    needs_y : bool
        Whether it cannot be had without the query's targets.
    output : tuple of int or None
        As given.
    """

    def __init__(self, kind, network, output=None):
        self._kind, self._network = kind, network
        self.output = None if output is None else tuple(map(operator.index, _as_tuple(output)))
        self.name = kind if isinstance(kind, str) else getattr(kind, "__name__", type(kind).__name__)
        if callable(kind):
            self.needs_y = bool(getattr(kind, "needs_y", False))
        else:
            self.needs_y = kind == "neg_loss" and (network.is_sequence or not network.is_classification)

    def target(self, output, y=None, x=None):
        """The targets a call needs: ``y`` where given, else the predicted classes of a classifier, else None.

        For the log-odds of sequences these are labels at every position, -1 where none counts.

        Parameters
        ----------
        output : Tensor (B, ...)
        y : optional
        x : optional
            The batch, for a ``get_loss`` that reads ``X``.

        Raises
        ------
        ValueError
            When the measurement needs targets and there are none, or labels do not fit the outputs.
        """
        if self._kind == "prediction":
            return y
        if y is None:
            if self.needs_y:
                raise ValueError(
                    f"measurement {self.name!r} needs the targets of the query rows, but y is None: pass y, or use "
                    f'measurement="{"log_odds" if self._network.is_sequence else "prediction"}"'
                )
            return self._predicted(output) if self._network.is_classification else None
        if self._kind != "log_odds":
            return y
        if output.ndim > 2 and self._network.predictive != "bernoulli":
            return self._asked(output, y, x)
        self._check_labels(output, y)
        return y

    def _asked(self, output, y, x):
        labels = self._network.asked_labels(output, y, x)
        empty = torch.nonzero((labels < 0).flatten(1).all(1)).flatten()
        if len(empty):
            raise ValueError(
                f"log_odds is a mean over the tokens that count, but in row {int(empty[0])} of a batch none does: "
                "leave out sequences whose targets are all ignored"
            )
        return labels

    def _check_labels(self, output, y):
        if y.is_floating_point() and self._network.predictive != "bernoulli":
            raise ValueError(
                "log_odds needs one integer class label per row, got floating-point targets: leave y out to take the "
                "predicted class, or pass a callable measurement"
            )
        n_classes = 2 if self._network.predictive == "bernoulli" else output.shape[1]
        if y.numel() != len(output):
            raise ValueError(f"log_odds needs one label per row: {len(output)} rows, y of shape {tuple(y.shape)}")
        if y.numel() and (y.min() < 0 or y.max() >= n_classes or (y.is_floating_point() and (y != y.round()).any())):
            raise ValueError(
                f"expected labels in 0..{n_classes - 1}, got {float(y.min()):g} to {float(y.max()):g}: encode them as "
                "in training"
            )

    def _predicted(self, output):
        output = output.detach()
        if self._network.predictive == "bernoulli":
            return (output.sigmoid() > self._network.threshold).to(output.dtype)
        if output.ndim == 1 or output.shape[1] == 1:
            raise ValueError(
                f"measurement {self.name!r} without y needs a predicted class, which an output of shape "
                f"{tuple(output.shape)} does not tell: pass y"
            )
        return output.argmax(self._network.class_axis)

    def __call__(self, output, target=None, x=None):
        """Measure a batch.

        Parameters
        ----------
        output : Tensor (B, ...)
        target : Tensor, optional
            From :meth:`target`.
        x : optional
            The batch, for a ``get_loss`` that reads ``X``.

        Returns
        -------
        Tensor (B,)
            Differentiable in ``output``.
        """
        if self._kind == "prediction":
            return self._prediction(output)
        if self._kind == "log_odds":
            return self._log_odds(output, target)
        if self._kind == "neg_loss":
            return -self._network.own_losses(output, target, x)
        value = self._kind(output, target)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != (len(output),):
            came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"expected measurement {self.name!r} to return a tensor of shape (batch,), got {came}")
        return value

    def _prediction(self, output):
        rows = output.shape[1:]
        if self.output is None:
            if self._network.is_sequence:
                raise ValueError(
                    f'"prediction" reads one number, but the outputs, of shape {tuple(rows)} per row, are classes at '
                    'several positions: use "log_odds", "neg_loss" or a callable f(output, target) -> (batch,)'
                )
            if rows.numel() != 1:
                raise ValueError(
                    f"the network has outputs of shape {tuple(rows)} per row: name the one to attribute, output=0 say"
                )
            return output.reshape(len(output))
        if len(self.output) != len(rows) or any(not -n <= i < n for i, n in zip(self.output, rows)):
            index = self.output[0] if len(self.output) == 1 else self.output
            raise ValueError(f"expected output= to index a row's outputs of shape {tuple(rows)}, got {index}")
        return output[(slice(None), *self.output)]

    def _log_odds(self, output, target):
        if self._network.predictive == "bernoulli":
            if output.shape[1:].numel() != 1:
                raise ValueError(
                    f"log_odds needs one output per row, got shape {tuple(output.shape[1:])} (multi-label): pass a "
                    "callable measurement"
                )
            z = output.reshape(len(output))
            return torch.where(target.reshape(len(output)) > 0.5, z, -z)
        axis = self._network.class_axis
        if output.ndim < 2 or output.shape[axis] < 2:
            raise ValueError(
                f"log_odds needs outputs of shape (batch, n_classes >= 2), got {tuple(output.shape)}: pass a callable "
                "measurement"
            )
        target = target.reshape(output.select(axis, 0).shape)
        counts = (target >= 0).reshape(len(output), -1)
        odds = self._odds_of(output, target.clamp(min=0).unsqueeze(axis), axis).reshape(counts.shape).where(counts, 0)
        return odds.sum(1) / counts.sum(1)

    def _odds_of(self, output, label, axis):
        """Log-odds of one class at every position."""
        own = output.gather(axis, label).squeeze(axis)
        if self._network.predictive == "categorical_probs":
            # 1 - p_y as the sum of the others: it keeps its digits where p_y is near one.
            tiny = torch.finfo(output.dtype).tiny
            rest = output.scatter(axis, label, 0.0).sum(axis)
            return own.clamp(min=tiny).log() - rest.clamp(min=tiny).log()
        return own - output.scatter(axis, label, -torch.inf).logsumexp(axis)


def _as_tuple(output):
    return tuple(output) if isinstance(output, (tuple, list)) else (output,)
