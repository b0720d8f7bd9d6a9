"""What would removing, relabelling or reweighting rows do?"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ..base import keep_refits, net_with_steps
from ..rows import row_indices
from ..trajectory import recorder_in
from ..utils._argument_checks import check_choice
from ._action_effect import ActionEffect
from ._audit import audit_training_rows
from ._outcomes import has_probabilities, outcomes
from ._predictions import predict_rows
from ._score_chunks import check_attribution, score_chunks

_ACTIONS, _STEPS = ("remove", "relabel", "reweight"), ("damped", "full")
# Shares of the training rows, and changes of log-odds, beyond which an expansion around the network is not to be
# trusted in size.
_LARGE_SHARE, _LARGE_CHANGE = 0.1, 1.0


def predict_action(
    estimator: BaseEstimator,
    action: str,
    rows: ArrayLike,
    X_val: Any,
    y_val: Any = None,
    *,
    labels: ArrayLike | str = "suggested",
    weight: float = 2.0,
    step: Literal["damped", "full"] = "damped",
) -> ActionEffect:
    """Predict what an action on training rows does to held-out rows, before anything is trained again.

    Read more in the :ref:`User Guide <decisions>`.

    Parameters
    ----------
    estimator : fitted attribution method
        With a unit. Methods with ``predict_reweighting`` and ``predict_relabeling`` (the gradient methods, and
        ensembles of them) are asked for what the rows do together; of others scores are summed, and they know no
        relabelling.
    action : {"remove", "relabel", "reweight"}
        What is done with the rows.
    rows : array-like of int, or mask of shape (n_train,)
        The training rows.
    X_val : array-like of shape (n_val, ...)
        Held-out rows.
    y_val : array-like of shape (n_val, ...), optional
        Their true targets. Without them only the measurement is predicted.
    labels : array-like of shape (n_rows, ...) or "suggested", default="suggested"
        Targets that the rows get by ``"relabel"``. ``"suggested"``: of classes, the ``suggested_label`` of
        :func:`audit_training_rows`, and where that is the row's own the class that the network predicts; rows that then
        keep their label are left out.
    weight : float, default=2.0
        What the rows weigh by ``"reweight"``, 1 as in training: 2 for a second copy of each, 0.5 for half.
    step : {"damped", "full"}, default="damped"
        As ``predict_reweighting`` takes it: how far to go towards the solution of the linearised network.

    Returns
    -------
    effect : ActionEffect
        ``effect.change`` of the measurement of each held-out row, ``effect.table()`` of its mean, the loss and the
        number of errors, ``effect.cautions``, and ``effect.confirm()``, which trains with the action and without.

    Raises
    ------
    ValueError
        If the method has no unit, the action or the step is unknown, the action cannot be predicted by the method, or
        rows are none, all, or none that change.
    TypeError
        If the estimator is no attribution method.

    See Also
    --------
    audit_training_rows : Rows on which to act.
    group_influence : What groups of rows did.

    Notes
    -----
    Errors and losses after the action are those of the network's outputs with the predicted change: the logit of a
    row's class moved against all others, or the output of a regression. A change of the loss itself
    (``measurement="neg_loss"``) says nothing of errors. Sizes hold for small groups and small changes: ``cautions``
    tells where they are not. Costs one ``predict_reweighting`` or ``predict_relabeling`` of all held-out rows for each
    network, and with ``labels="suggested"`` an audit.

    References
    ----------
    .. [1] E. Nguyen, J. Bertram, E. Kortukov, J. Y. Song, S. J. Oh, "Towards User-Focused Research in Training Data
       Attribution for Human-Centered Explainable AI", 2024, arXiv:2409.16978.

    Examples
    --------
    >>> effect = predict_action(est, "remove", [3, 14, 15], X_val, y_val)  # doctest: +SKIP
    >>> effect.table()  # doctest: +SKIP
    >>> effect.confirm(n_repeats=5, random_state=1).table  # doctest: +SKIP
    """
    check_attribution(estimator)
    check_choice("action", action, _ACTIONS)
    check_choice("step", step, _STEPS)
    if not getattr(estimator, "has_unit", False):
        raise ValueError(
            f"expected a method whose scores have a unit, got {type(estimator).__name__}, whose scores are an order: "
            "use SourceAttribution, SnapshotInfluence or InfluenceFunctions"
        )
    acted: np.ndarray = row_indices(rows, estimator.n_train_, "rows")
    if not len(acted):
        raise ValueError("expected at least one row to act on, got none")
    new_targets, new_weight = None, _checked_weight(weight) if action == "reweight" else None
    if action == "relabel":
        acted, new_targets = _new_targets(estimator, acted, labels)
    asked = Bunch(action=action, rows=acted, labels=new_targets, weight=new_weight)
    return predict_actions(estimator, [asked], X_val, y_val, step)[0]


def predict_actions(estimator, actions, X_val, y_val, step="damped"):
    """The :class:`ActionEffect` of each of several actions; what they have in common is computed once.

    Parameters
    ----------
    estimator : fitted attribution method
        With a unit.
    actions : list of Bunch
        ``action``; ``rows``, ndarray of int; ``labels``, their new targets, or None; ``weight``, what they weigh, or
        None.
    X_val, y_val
        Held-out rows and their targets, or None.
    step : {"damped", "full"}, default="damped"

    Returns
    -------
    effects : list of ActionEffect
        In the order of the actions.
    """
    members = list(getattr(estimator, "members_", [estimator]))
    changes = np.stack([_changes(member, actions, X_val, y_val, step) for member in members], axis=1)
    name = getattr(getattr(members[0], "_measure", None), "name", None)
    with_targets = y_val is not None and hasattr(members[0], "net_")
    nets, net = [net_with_steps(member) for member in members], net_with_steps(estimator)
    before = [outcomes(own, X_val, y_val) for own in nets] if with_targets else []
    asked = Bunch(
        net=net, estimator=members[0], X_val=X_val, y_val=y_val,
        loss_is_log=with_targets and predict_rows(net, X_val, y_val).loss_is_log,
        probabilities=with_targets and has_probabilities(net, X_val, y_val),
        measurement=getattr(members[0], "measurement", "auto"), output=getattr(members[0], "output", None),
    )  # fmt: skip
    effects = []
    for action, own in zip(actions, changes):
        after = [outcomes(one, X_val, y_val, name, change) for one, change in zip(nets, own)] if before else []
        cautions = _cautions(estimator, members, action.action, action.rows, own, name)
        effects.append(
            ActionEffect(
                action=action.action, rows=action.rows, labels=action.labels, weight=action.weight, changes=own,
                before=before, after=after, measurement=name, cautions=cautions, asked=asked,
            )
        )  # fmt: skip
    return effects


def _changes(member, actions, X_val, y_val, step):
    """Predicted of each action by one fitted method: (n_actions, n_val)."""
    with keep_refits():
        return _predicted(member, actions, X_val, y_val, step)


def _predicted(member, actions, X_val, y_val, step):
    found, others = [None] * len(actions), [i for i, asked in enumerate(actions) if asked.action != "relabel"]
    for places in _together([None if i in others else asked.rows for i, asked in enumerate(actions)]):
        changes = _relabelled(member, [actions[i] for i in places], X_val, y_val, step)
        for i, change in zip(places, changes.T):
            found[i] = change
    if others:
        weights = np.ones((len(others), member.n_train_))
        for own, i in zip(weights, others):
            own[actions[i].rows] = 0.0 if actions[i].action == "remove" else actions[i].weight
        for i, change in zip(others, _reweighted(member, weights, X_val, y_val, step).T):
            found[i] = change
    return np.stack(found)


def _together(rows):
    """Lists of places in ``rows``, a list of ndarray or None, of which no two have a row in common."""
    packs = []
    for place, own in enumerate(rows):
        if own is None:
            continue
        for pack in packs:
            if not any(np.isin(own, rows[other]).any() for other in pack):
                pack.append(place)
                break
        else:
            packs.append([place])
    return packs


def _relabelled(member, actions, X_val, y_val, step):
    """Predicted of sets of rows with other targets, no two of which have a row in common: (n_val, n_actions)."""
    if not hasattr(member, "predict_relabeling"):
        raise ValueError(
            f"expected a method that predicts other targets, got {type(member).__name__}: use a gradient method"
        )
    if member._given[1] is None:
        raise ValueError("expected targets of the training rows, got none, or a dataset with targets inside")
    y_train = np.array(member._given[1])
    for asked in actions:
        y_train[asked.rows] = asked.labels
    groups = [asked.rows for asked in actions]
    return member.predict_relabeling(X_val, y_val, y_train=y_train, groups=groups, step=step)


def _reweighted(member, weights, X_val, y_val, step):
    """Predicted of weights (n_actions, n_train) of the rows: (n_val, n_actions)."""
    if hasattr(member, "predict_reweighting"):
        return member.predict_reweighting(X_val, y_val, weights=weights, step=step)
    totals = weights.sum(axis=1, keepdims=True)
    if not (totals > 0).all():
        raise ValueError("expected rows that are left to train on, got an action on all rows that leaves none")
    normalized = weights * weights.shape[1] / totals
    return np.concatenate([scores @ (normalized - 1.0).T for _, scores in score_chunks(member, X_val, y_val)])


def _new_targets(estimator, rows, labels):
    """The rows whose target is to be another one, and these targets."""
    given = getattr(getattr(estimator, "members_", [estimator])[0], "_given", None)
    if given is None or given[1] is None:
        raise ValueError(
            "expected a method whose targets of the training rows are known, as those of gradient methods are that "
            "were fitted on arrays, not on a dataset or a stream"
        )
    X, y, _ = given
    if isinstance(labels, str):
        if labels != "suggested":
            raise ValueError(f"expected labels to be targets of the rows or 'suggested', got {labels!r}")
        table = audit_training_rows(getattr(estimator, "members_", [estimator])[0], X, y, as_frame=False)
        if "suggested_label" not in table.dtype.names:
            raise ValueError("expected classes where labels are to be suggested, got a regression: pass labels")
        labels, place = np.empty(len(table), dtype=np.int64), np.asarray(table["row"])
        own = np.asarray(table["label"])
        labels[place] = np.where(table["suggested_label"] != own, table["suggested_label"], table["predicted"])
        labels = labels[rows]
        other = labels != np.asarray(y).reshape(-1)[rows]
        if not other.any():
            raise ValueError("expected rows for which another label can be suggested, got none: pass labels")
        return rows[other], labels[other]
    try:
        labels = np.asarray(labels)
    except ValueError as error:
        raise ValueError(f"expected labels, one target for each of {len(rows)} rows ({error})") from error
    if labels.dtype.kind not in "biuf" or not np.array_equal(labels, labels.astype(np.asarray(y).dtype)):
        kind = "whole numbers" if np.asarray(y).dtype.kind in "iu" else "finite numbers"
        raise ValueError(f"expected labels as {kind}, like the targets of fit, got {labels!r}")
    if labels.ndim == 0 or len(labels) != len(rows):
        raise ValueError(f"expected labels, one target for each of {len(rows)} rows, got shape {labels.shape}")
    shape = (len(rows), *np.shape(y)[1:])
    if labels.size != int(np.prod(shape)):
        raise ValueError(f"expected labels of shape {shape}, got {labels.shape}")
    return rows, labels.reshape(shape)


def _checked_weight(weight):
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < np.inf or weight == 1:
        raise ValueError(f"expected weight to be a number that is not negative, and not 1, got {weight!r}")
    return float(weight)


def _cautions(estimator, members, action, rows, changes, name):
    """What speaks against taking sizes as they are, in words."""
    found, share = [], len(rows) / estimator.n_train_
    if share > _LARGE_SHARE:
        found.append(f"{share:.0%} of the training rows: expect the order of actions rather than the size")
    typical = float(np.abs(changes.mean(axis=0)).mean())
    if name == "log_odds" and typical > _LARGE_CHANGE:
        found.append(
            f"log-odds move by {typical:.1f} on average, where networks saturate: the direction holds better than the "
            "size"
        )
    damping = getattr(members[0], "damping", None)
    if damping == "mean_eigenvalue" or (damping == "auto" and recorder_in(members[0].net_) is None):
        found.append(
            "no record of the training: how far it came, which sets the size of effects, is not known; confirm before "
            "acting, or train with a TrajectoryRecorder"
        )
    if action != "relabel" and not hasattr(members[0], "predict_reweighting"):
        found.append("a sum of scores: what the rows do together is not in it")
    if len(members) == 1:
        found.append("one network: the chance of its training is in no standard error; an ensemble has it")
    return found
