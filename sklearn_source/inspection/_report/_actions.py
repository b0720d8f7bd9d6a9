"""What might be done about the findings, and what each should do to held-out rows."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from sklearn.utils import Bunch

from ...metrics import student_interval
from .._action_effect import spread
from .._group_influence import combined_error
from .._predict_action import predict_actions

_MAX_REGION_ROWS, _MOST_REGIONS, _MOST_GROUPS = 200, 2, 3
_COPIES = 2.0  # what rows of a thinly covered region weigh: as if as many more had been collected
_QUANTITIES = ("errors", "loss", "measurement")


def candidate_actions(issues, groups, regions, n_train, relabels=MappingProxyType({})):
    """Actions that the findings suggest, no two on the same rows.

    Parameters
    ----------
    issues : dict of str to ndarray
        From :func:`find_issues`.
    groups : list of Bunch
        Of training rows behind the errors, with ``rows`` and ``description``.
    regions : list of Bunch
        Of thinly covered queries, with ``rows``.
    n_train : int
    relabels : dict of int to Bunch
        From :func:`true_labels`, by the place of the group.

    Returns
    -------
    actions : list of Bunch
        ``action``, ``rows``, ``labels`` (None unless relabelled), ``weight`` (None unless reweighted), ``words``.
    """
    found = []

    def add(action, rows, words, labels=None, weight=None):
        rows = np.asarray(rows, dtype=np.int64)
        order = np.argsort(rows)
        same = any(other.action == action and np.array_equal(other.rows, rows[order]) for other in found)
        if 0 < len(rows) < n_train and not same:
            labels = None if labels is None else np.asarray(labels)[order]
            found.append(Bunch(action=action, rows=rows[order], labels=labels, weight=weight, words=words))

    for suggestion in ("relabel", "drop"):
        chosen = issues["suggestion"] == suggestion
        if suggestion == "relabel" and chosen.any():
            labels = issues["suggested_label"][chosen]
            add("relabel", issues["row"][chosen], "give the rows with a doubtful label the suggested one", labels)
            add("remove", issues["row"][chosen], "remove the rows with a doubtful label")
        elif chosen.any():
            add("remove", issues["row"][chosen], "remove the rows that contradict others, or oppose many answers")
    harmful = issues["is_harmful_issue"]
    add("remove", issues["row"][harmful], "remove the rows that push most towards the errors")
    for number, group in zip(range(_MOST_GROUPS), groups):
        other = relabels.get(number)
        if other is not None:
            words = (
                f"give the rows of group {number} labelled {other.own} the label {other.name}, the true one of most "
            )
            add("relabel", other.rows, f"{words}answers that they spoil", np.full(len(other.rows), other.label))
        add("remove", group.rows, f"remove group {number}: {group.description}")
    for number, region in enumerate(regions[:_MOST_REGIONS]):
        words = f"collect more rows like those behind region {number}: what a second copy of each would do"
        add("reweight", region.rows[:_MAX_REGION_ROWS], words, weight=_COPIES)
    return found


def predicted_effects(question, actions):
    """Predict actions on all held-out rows, those that share work together.

    Parameters
    ----------
    question : Question
    actions : list of Bunch
        From :func:`candidate_actions`.

    Returns
    -------
    effects : list of ActionEffect or None
        None where a method cannot predict one.
    reasons : list of str
        Why not, empty where it can.
    """
    effects, reasons = [None] * len(actions), [""] * len(actions)
    if not question.has_unit:
        name = type(question.estimator).__name__
        return effects, [f"scores of {name} are an order without a unit: no effect can be predicted"] * len(actions)
    places, relabels = np.arange(len(actions)), np.array([action.action == "relabel" for action in actions], bool)

    def predict(some):
        return predict_actions(question.estimator, [actions[i] for i in some], question.X, question.y)

    def by_kind():
        for some in (places[~relabels], places[relabels]):
            try:
                yield some, predict(some) if len(some) else []
            except (ValueError, TypeError) as error:  # what a method or a network cannot do: said beside the action
                for i in some:
                    reasons[i] = str(error)

    try:
        found = [(places, predict(places) if len(places) else [])]
    except (ValueError, TypeError):
        found = by_kind()
    for some, own in found:
        for i, effect in zip(some, own):
            effects[i] = effect
    return effects, reasons


def action_columns(actions, effects, reasons, n_query, confidence):
    """Columns of the table of actions, what is not predicted being NaN.

    Parameters
    ----------
    actions, effects, reasons
        From above, in the same order.
    n_query : int
        Held-out rows that the effects are of.
    confidence : float
        Of the intervals.

    Returns
    -------
    columns : dict of str to ndarray (n_actions,)
    """
    objects = {name: np.empty(len(actions), dtype=object) for name in ("description", "rows", "labels", "cautions")}
    columns = {"action": np.array([a.action for a in actions], dtype=object), "description": objects["description"]}
    columns["n_rows"] = np.array([len(a.rows) for a in actions], dtype=np.int64)
    numbers = {name: np.full((len(actions), 3), np.nan) for name in _QUANTITIES}
    for i, (action, effect, reason) in enumerate(zip(actions, effects, reasons)):
        objects["description"][i], objects["rows"][i], objects["labels"][i] = action.words, action.rows, action.labels
        objects["cautions"][i] = [reason] if effect is None else list(effect.cautions)
        for name, change in effect_intervals(effect, confidence).items():
            numbers[name][i] = change
    for name, values in numbers.items():
        if np.isfinite(values[:, 0]).any():
            columns[f"{name}_change"], columns[f"{name}_low"], columns[f"{name}_high"] = values.T
    if "errors_change" in columns:
        columns["accuracy_change"] = -columns["errors_change"] / n_query
    return {**columns, "rows": objects["rows"], "labels": objects["labels"], "cautions": objects["cautions"]}


def effect_intervals(effect, confidence):
    """Name of a quantity -> its predicted change and the ends of its interval; empty for an effect that is None.

    From how held-out rows and networks differ, with the degrees of freedom of Welch and Satterthwaite.
    """
    if effect is None:
        return {}
    found = {}
    for name, _, change, factor in effect.quantities():
        of_rows, of_networks = change.mean(axis=0), change.mean(axis=1)
        sources = [(np.array(spread(values)), len(values) - 1) for values in (of_rows, of_networks) if len(values) > 1]
        error, freedom = combined_error(sources) if sources else (np.nan, 1)
        mean = factor * change.mean()
        found[name] = (mean, *student_interval(mean, factor * error, max(1.0, float(freedom)), confidence))
    return found


def best_first(columns, effects):
    """Order of the actions: those that should mend first, then those that mend one thing at the cost of another.

    An action mends by the number of errors, or where that stays by the loss, unless the loss is predicted to rise by
    more than its standard error: fewer errors, of which others are surer, are a bargain for people to make. Of one kind
    most errors mended come first, then most loss; those without a prediction last.
    """
    by = columns.get("errors_change", columns.get("loss_change"))
    if by is None:
        return np.arange(len(columns["action"]))
    loss = columns.get("loss_change", by)
    rises = np.array([_loss_rises(effect) for effect in effects], dtype=bool)
    mends = (by < 0) | ((by == 0) & (loss < 0))
    kind = np.select([np.isnan(by), mends & ~rises, mends | (loss < 0)], [3, 0, 1], 2)
    return np.lexsort((np.nan_to_num(loss, nan=np.inf), np.nan_to_num(by, nan=np.inf), kind))


def _loss_rises(effect):
    """Whether the mean loss is predicted to rise by more than its standard error."""
    if effect is None:
        return False
    table = effect.table(as_frame=False)
    lines = zip(table["quantity"], table["change"], table["std_error"])
    return any(name == "loss" and change > np.nan_to_num(error) for name, change, error in lines)
