"""From numbers about training rows to what might be done with them."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def recommend_actions(columns, predictions, neighbours, high, name=str):
    """Suggest what to do with each row of an audit, and say why.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (n,)
        As :func:`audit_training_rows` names them.
    predictions : Bunch
        From :func:`predict_rows`.
    neighbours : Bunch or None
        From :func:`neighbour_disagreement`.
    high : float
        Share of rows that count as high.
    name : callable
        Of a class, as reasons call it.

    Returns
    -------
    recommendations : dict of str to ndarray of shape (n,)
        ``suggestion``, ``suggested_label`` (of classes), ``reason`` and ``suspicion``.
    """
    n = len(predictions.loss)
    loss = "loss_without" if "loss_without" in columns else "loss"
    criteria = [
        name for name in ("self_influence", loss, "neighbour_disagreement", "opposed_queries") if name in columns
    ]
    suspicion = np.mean([(rankdata(columns[name]) - 0.5) / n for name in criteria], axis=0)
    is_high = {name: _is_high(columns[name], high) for name in criteria}
    has_near_duplicate = columns.get("near_duplicate", np.full(n, -1)) >= 0
    doubted, expected = _expected_labels(columns, predictions, neighbours, is_high["self_influence"])
    opposes_many = is_high.get("opposed_queries", np.zeros(n, dtype=bool))
    # Of two rows that contradict each other, the one to drop is the one that something else speaks against too.
    otherwise_suspicious = doubted | np.any([is_high[name] for name in criteria if name != "opposed_queries"], axis=0)
    relabel = np.zeros(n, dtype=bool) if expected is None else expected != predictions.target
    drop = ~relabel & otherwise_suspicious & (has_near_duplicate | opposes_many)
    inspect = ~relabel & ~drop & (otherwise_suspicious | opposes_many | has_near_duplicate)
    suggestion = np.select([relabel, drop, inspect], ["relabel", "drop", "inspect"], "keep").astype(object)
    recommendations = {"suggestion": suggestion}
    if expected is not None:
        recommendations["suggested_label"] = expected
    reasons = [_reason(i, columns, is_high, loss, doubted[i], neighbours, predictions, name) for i in range(n)]
    recommendations["reason"] = np.array(reasons, dtype=object)
    recommendations["suspicion"] = suspicion
    return recommendations


def _is_high(values, share):
    """Mask (n,) of the highest share of values (n,); none of those that equal the median or are not above 0."""
    return (values >= np.quantile(values, 1 - share)) & (values > np.median(values)) & (values > 0)


def _expected_labels(columns, predictions, neighbours, high_self_influence):
    """Whether the network doubts each label (n,), and the class that it and the neighbours agree on, else the label.

    The classes are (n,), or None for rows that have none. Takes what :func:`recommend_actions` takes, and the mask
    (n,) of rows whose self-influence is high.
    """
    target, predicted = predictions.target, predictions.predicted
    if not predictions.is_classification:
        return np.zeros(len(predictions.loss), dtype=bool), None
    doubted, would_be_doubted = predicted != target, high_self_influence
    if "probability_without" in columns:
        unlikely = columns["probability_without"] < 0.5
        # Methods that overstate find half of the rows unlikely: alone, that counts only where it stands out.
        doubted, would_be_doubted = doubted | (high_self_influence & unlikely), high_self_influence | unlikely
    if neighbours is None:
        return doubted, target.copy()
    # A network that learned the label by heart names no other class: the neighbours then do.
    other = np.where(predicted != target, predicted, neighbours.majority)
    agree = (doubted | would_be_doubted) & (other == neighbours.majority) & (neighbours.disagreement > 0.5)
    return doubted, np.where(agree, other, target)


def _reason(i, columns, is_high, loss, doubted, neighbours, predictions, name):
    """What speaks against row ``i``, in words; empty where nothing does.

    ``is_high`` holds a mask for each criterion, ``loss`` is the name of the column of losses, and ``doubted`` tells
    whether the network doubts this row's label; ``name`` makes a word of a class.
    """
    target, predicted = predictions.target, predictions.predicted
    reasons = []
    if doubted:
        if predicted[i] != target[i]:
            reasons.append(f"the network predicts {name(predicted[i])}")
        else:
            reasons.append("the network would doubt the label had it not seen the row")
    if "near_duplicate" in columns and (duplicate := columns["near_duplicate"][i]) >= 0:
        reasons.append(f"nearly the same as row {duplicate}, which has label {name(target[duplicate])}")
    if "neighbour_disagreement" in columns:
        disagreement = neighbours.disagreement[i]
        if predictions.is_classification and disagreement > 0.5:
            reasons.append(
                f"{disagreement:.0%} of its neighbours have another label, most often {name(neighbours.majority[i])}"
            )
        elif not predictions.is_classification and is_high["neighbour_disagreement"][i]:
            reasons.append(f"{disagreement:.1f} standard deviations from the mean of its neighbours")
    if is_high["self_influence"][i]:
        reasons.append("high self-influence")
    if is_high[loss][i]:
        reasons.append("high loss" if loss == "loss" else "high loss without it")
    if "opposed_queries" in columns and is_high["opposed_queries"][i]:
        count = columns["opposed_queries"][i]
        reasons.append(f"opposes {count} {'query' if count == 1 else 'queries'}")
    return "; ".join(reasons)
