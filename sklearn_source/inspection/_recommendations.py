"""From numbers about training rows to what might be done with them."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def advise(columns, read, neighbours, high):
    """What to make of the columns of an audit.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (n,)
        As :func:`audit_training_rows` names them.
    read : Bunch
        From :func:`read_rows`.
    neighbours : Bunch or None
        From :func:`compare_with_neighbours`.
    high : float
        Share of rows that count as high.

    Returns
    -------
    advice : dict of str to ndarray of shape (n,)
        ``suggestion``, ``suggested_label`` (of classes), ``reason`` and ``suspicion``.
    """
    n = len(read.loss)
    loss = "loss_without" if "loss_without" in columns else "loss"
    criteria = [
        name for name in ("self_influence", loss, "neighbour_disagreement", "opposed_queries") if name in columns
    ]
    suspicion = np.mean([(rankdata(columns[name]) - 0.5) / n for name in criteria], axis=0)
    is_high = {name: _high(columns[name], high) for name in criteria}
    twin = columns.get("near_duplicate", np.full(n, -1))
    doubted, expected = _expected(columns, read, neighbours, is_high["self_influence"])
    many = is_high.get("opposed_queries", np.zeros(n, dtype=bool))
    others = np.any([is_high[name] for name in criteria if name != "opposed_queries"], axis=0)
    relabel = np.zeros(n, dtype=bool) if expected is None else expected != read.target
    # Of two rows that contradict each other, the one to drop is the one that something else speaks against too.
    against = others | doubted
    drop = ~relabel & against & ((twin >= 0) | many)
    look = ~relabel & ~drop & (against | many | (twin >= 0))
    suggestion = np.select([relabel, drop, look], ["relabel", "drop", "inspect"], "keep").astype(object)
    found = {"suggestion": suggestion}
    if expected is not None:
        found["suggested_label"] = expected
    found["reason"] = np.array(
        [_reason(i, columns, is_high, loss, doubted, twin, neighbours, read) for i in range(n)], dtype=object
    )
    found["suspicion"] = suspicion
    return found


def _high(values, share):
    """The highest share of the values; none of those that equal the median or are not above 0."""
    return (values >= np.quantile(values, 1 - share)) & (values > np.median(values)) & (values > 0)


def _expected(columns, read, neighbours, owes):
    """Whether the network doubts each label, and the class that it and the neighbours agree on (else the label)."""
    n = len(read.loss)
    if not read.is_classification:
        return np.zeros(n, dtype=bool), None
    doubted, would_doubt = read.predicted != read.target, owes
    if "probability_without" in columns:
        unlikely = columns["probability_without"] < 0.5
        # Methods that overstate find half of the rows unlikely: alone, that counts only where it stands out.
        doubted, would_doubt = doubted | (owes & unlikely), owes | unlikely
    if neighbours is None:
        return doubted, read.target.copy()
    # A network that learned the label by heart names no other class: the neighbours then do.
    named = np.where(read.predicted != read.target, read.predicted, neighbours.majority)
    agree = (doubted | would_doubt) & (named == neighbours.majority) & (neighbours.disagreement > 0.5)
    return doubted, np.where(agree, named, read.target)


def _reason(i, columns, is_high, loss, doubted, twin, neighbours, read):
    words = []
    if doubted[i]:
        if read.predicted[i] != read.target[i]:
            words.append(f"the network predicts {read.predicted[i]}")
        else:
            words.append("the network would doubt the label had it not seen the row")
    if twin[i] >= 0:
        words.append(f"nearly the same as row {twin[i]}, which has label {read.target[twin[i]]}")
    if "neighbour_disagreement" in columns:
        share = neighbours.disagreement[i]
        if read.is_classification and share > 0.5:
            words.append(f"{share:.0%} of its neighbours have another label, most often {neighbours.majority[i]}")
        elif not read.is_classification and is_high["neighbour_disagreement"][i]:
            words.append(f"{share:.1f} standard deviations from the mean of its neighbours")
    if is_high["self_influence"][i]:
        words.append("high self-influence")
    if is_high[loss][i]:
        words.append("high loss" if loss == "loss" else "high loss without it")
    if "opposed_queries" in columns and is_high["opposed_queries"][i]:
        words.append(f"opposes {columns['opposed_queries'][i]} queries")
    return "; ".join(words)
