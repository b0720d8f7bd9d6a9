"""An action on training rows, tried: networks trained with it and without, and what they are asked."""

from __future__ import annotations

import numpy as np
import torch

from ..retraining import retrain_on_subsets, retrain_without
from ..rows import take_rows
from ._outcomes import losses_at


def retrained_changes(effect, **options):
    """What changes for each held-out row in networks trained with an action.

    Parameters
    ----------
    effect : ActionEffect
        Of which the action, and what is asked.
    **options : dict
        As :func:`~sklearn_source.retraining.retrain_on_subsets` takes them.

    Returns
    -------
    changes : dict of str to ndarray (n_repeats, n_val)
        By the name of the quantity; of ``"errors"`` times the number of rows, so that the mean is how many.
    """
    reader = _Reader(effect)
    options |= {"measurement": reader.measurement, "output": reader.output}
    whole, acted = (reader.read(outputs) for outputs in _retrain(effect, reader, options))
    return {name: factor * (acted[name] - whole[name]) for name, factor in reader.factors(acted).items()}


def _retrain(effect, reader, options):
    """Outputs (n_repeats, n_asked) of networks trained on the rows as they were, and with the action."""
    estimator = effect.asked.estimator
    X, y, stage = estimator._given
    if stage is not None:
        raise ValueError("expected a network trained in one stage to be trained again, got stages of rows")
    if effect.action == "reweight" and (effect.weight != round(effect.weight) or effect.weight < 1):
        raise ValueError(
            f"expected a whole number as the weight to be confirmed, by copies of the rows, got {effect.weight}"
        )
    net, queries = effect.asked.net, (reader.X, reader.y)
    if effect.action == "remove":
        found = retrain_without(net, X, y, *queries, removed=[effect.rows], **options)
        return found.outputs[0], found.outputs[1]
    n_train = estimator.n_train_
    whole = retrain_on_subsets(net, X, y, *queries, subsets=np.ones((1, n_train), dtype=bool), **options).outputs[0]
    if effect.action == "relabel":
        y = np.array(y)
        y[effect.rows] = effect.labels
    else:
        copies = np.ones(n_train, dtype=int)
        copies[effect.rows] = int(effect.weight)
        index = np.repeat(np.arange(n_train), copies)
        X, y = take_rows(X, index), take_rows(y, index)
    n_rows = n_train if effect.action == "relabel" else len(index)
    subsets = np.ones((1, n_rows), dtype=bool)
    return whole, retrain_on_subsets(net, X, y, *queries, subsets=subsets, **options).outputs[0]


class _Reader:
    """What retrained networks are asked, and how it is read."""

    def __init__(self, effect):
        self._effect, self._asked = effect, effect.asked
        self.measurement, self.output = self._asked.measurement, self._asked.output
        self.X, self.y = self._asked.X_val, self._asked.y_val
        self._n = effect.changes.shape[1]
        knows_classes = bool(effect.before) and effect.before[0].wrong is not None
        self._in_two = effect.measurement == "log_odds" and knows_classes
        if self._in_two:  # every row twice: for its log-odds, and for whether it is wrong
            asks = log_odds_and_errors_of_probabilities if self._asked.probabilities else log_odds_and_errors
            self.measurement, self.output = asks, None
            self.X = take_rows(self.X, np.concatenate([np.arange(self._n)] * 2))
            y = np.asarray(self.y).reshape(-1).astype(np.int64)
            self.y = np.concatenate([y, -1 - y])

    def read(self, outputs):
        """Quantities by name, each (n_repeats, n_val), of outputs (n_repeats, n_asked)."""
        found = {"measurement": outputs[:, : self._n]}
        if self._effect.measurement == "neg_loss":
            found["loss"] = -found["measurement"]
        elif self._effect.measurement == "prediction" and self._asked.y_val is not None:
            net, X, y = self._asked.net, self._asked.X_val, self._asked.y_val
            found["loss"] = np.array([losses_at(net, X, y, own) for own in found["measurement"]])
        if self._in_two:
            found["errors"] = outputs[:, self._n :]
            if self._asked.loss_is_log:
                found["loss"] = np.logaddexp(0.0, -found["measurement"])
        return found

    def factors(self, found):
        return {name: float(self._n) if name == "errors" else 1.0 for name in found}


def log_odds_and_errors(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Log-odds of the class where ``target`` is one, and for -1 less the class 1 where another is predicted, else 0.

    Parameters
    ----------
    output : Tensor (n, n_classes) or (n,) or (n, 1)
        Logits, or log-probabilities.
    target : Tensor (n,)

    Returns
    -------
    values : Tensor (n,)
    """
    label = torch.where(target < 0, -1 - target, target).long()
    if output.ndim == 1 or output.shape[1] == 1:
        odds = output.reshape(len(output)) * (2 * label - 1)
        return torch.where(target < 0, (odds < 0).to(output), odds)
    own = output.gather(1, label[:, None])[:, 0]
    others = output.scatter(1, label[:, None], -torch.inf)
    return torch.where(target < 0, (others.amax(1) > own).to(output), own - others.logsumexp(1))


def log_odds_and_errors_of_probabilities(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """:func:`log_odds_and_errors` of outputs that are probabilities.

    Parameters
    ----------
    output : Tensor (n, n_classes) or (n,) or (n, 1)
    target : Tensor (n,)

    Returns
    -------
    values : Tensor (n,)
    """
    binary = output.ndim == 1 or output.shape[1] == 1
    return log_odds_and_errors(torch.logit(output) if binary else output.log(), target)
