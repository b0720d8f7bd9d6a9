"""What sets a group of rows apart, in words."""

from __future__ import annotations

from collections import Counter

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from ..network import Network
from ..utils._argument_checks import check_names

_N_WORDS = 3
_MAX_FEATURES = 1000
_OFTEN = 0.5  # share of the rows or errors from which a class names them


def describe_rows(rows, *, labels=None, readable=None, feature_names=None, class_names=None):
    """Name rows by their class, their words or the range of their features.

    Parameters
    ----------
    rows : ndarray of int
        The group.
    labels : ndarray of shape (n_train,), optional
        Classes of all rows.
    readable : array-like of n_train rows, optional
        Texts, a frame or a matrix.
    feature_names, class_names : list, optional

    Returns
    -------
    words : str
    """
    parts, others = [f"{len(rows)} rows"], None
    if labels is not None:
        label, count = Counter(labels[rows].tolist()).most_common(1)[0]
        if count >= _OFTEN * len(rows):
            parts[0] += f" labelled {class_name(label, class_names)}" + (
                f" ({count / len(rows):.0%})" if count < len(rows) else ""
            )
            others = np.setdiff1d(np.flatnonzero(labels == label), rows)
    n_train = len(readable) if readable is not None else 0
    if readable is not None:
        if others is None or len(others) < 2:
            others = np.setdiff1d(np.arange(n_train), rows)
        told = (
            key_words(readable, rows, others) if _is_text(readable) else _range(readable, rows, others, feature_names)
        )
        if told:
            parts.append(told)
    return ", ".join(parts)


def class_labels(estimator, y_train):
    """The classes of an estimator's training rows (n_train,), None where they have not one each."""
    net = getattr(estimator, "net_", None)
    if y_train is None or (net is not None and not Network.from_net(net).is_classification):
        return None
    labels = np.asarray(y_train)
    if labels.size != len(labels) or labels.dtype.kind not in "iubf":
        return None
    labels = labels.reshape(-1)
    return labels.astype(np.int64) if np.array_equal(labels, np.round(labels)) else None


def is_readable(rows):
    """Whether rows can be told apart by words or columns."""
    if rows is None or hasattr(rows, "columns"):
        return rows is not None
    if isinstance(rows, list) or hasattr(rows, "iloc"):
        return True
    return isinstance(rows, np.ndarray) and ((rows.ndim == 2 and rows.dtype.kind == "f") or rows.dtype.kind in "OU")


def check_feature_names(readable, feature_names):
    """ValueError where these are not the names of the columns of ``readable``; nothing is asked of texts and None."""
    shape = np.shape(readable) if feature_names is not None and readable is not None else ()
    if len(shape) > 1 and len(feature_names) != int(np.prod(shape[1:])):
        raise ValueError(
            f"expected feature_names for each of {int(np.prod(shape[1:]))} columns, got {len(feature_names)}"
        )


def describe_errors(true, predicted, class_names=None):
    """Name errors by the classes that are taken for each other, both (n_errors,)."""
    (right, given), count = Counter(zip(true.tolist(), predicted.tolist())).most_common(1)[0]
    if count >= _OFTEN * len(true):
        return f"{class_name(right, class_names)} taken for {class_name(given, class_names)}"
    for values, words in ((predicted, "{} answered in error"), (true, "{} not recognised")):
        value, count = Counter(values.tolist()).most_common(1)[0]
        if count >= _OFTEN * len(values):
            return words.format(class_name(value, class_names))
    return ""


def class_name(label, class_names):
    """The name of a class in quotes, its number where it has none."""
    if class_names is None or not 0 <= int(label) < len(class_names):
        return str(label)
    return f"'{class_names[int(label)]}'"


def key_words(texts, rows, others):
    """The words that rows have and others lack: by the ratio of smoothed odds, weighed by how many rows have them."""
    texts = list(texts)
    inside = Counter(word for i in rows for word in set(str(texts[i]).lower().split()))
    outside = Counter(word for i in others for word in set(str(texts[i]).lower().split()))

    def odds(count, n):
        return np.log((count + 0.5) / (n - count + 0.5))

    merit = {
        word: count * (odds(count, len(rows)) - odds(outside[word], len(others)))
        for word, count in inside.items()
        if count >= max(2, 0.1 * len(rows)) and any(map(str.isalnum, word))
    }
    best = [word for word in sorted(merit, key=lambda word: (-merit[word], word)) if merit[word] > 0][:_N_WORDS]
    return "words " + ", ".join(f"'{word}'" for word in best) if best else ""


def _range(table, rows, others, feature_names):
    """Where a shallow tree finds most of the rows, "" where it does not tell them apart."""
    if feature_names is None:
        feature_names = getattr(table, "columns", None)
    try:
        values = table.to_numpy() if hasattr(table, "iloc") else np.asarray(table)
    except ValueError as error:
        raise ValueError(f"expected the training rows as a table, texts or arrays of one shape ({error})") from error
    if values.dtype.kind not in "fiub" or values.ndim < 2 or not len(others):
        return ""
    values = values.reshape(len(values), -1)
    if values.shape[1] > _MAX_FEATURES or (values.shape[1] > 100 and feature_names is None):
        return ""  # the number of a pixel tells nobody anything
    check_names("feature_names", feature_names)
    names = [f"x{i}" for i in range(values.shape[1])] if feature_names is None else list(feature_names)
    check_feature_names(values, names)
    index = np.concatenate([rows, others])
    target = np.repeat([1, 0], [len(rows), len(others)])
    tree = DecisionTreeClassifier(
        max_depth=2, class_weight="balanced", min_samples_leaf=max(1, len(rows) // 3), random_state=0
    ).fit(values[index], target)
    leaf = tree.apply(values[index])
    best, most = None, 0.0
    for node in np.unique(leaf[target == 1]):
        recall, false = (leaf[target == 1] == node).mean(), (leaf[target == 0] == node).mean()
        if recall - false > most:
            best, most = node, recall - false
    if most < 0.3:
        return ""
    return _path(tree.tree_, best, names)


def _path(tree, leaf, names):
    """The conditions on the way to a leaf, of one feature the last in either direction."""
    parent = {}
    for node in range(tree.node_count):
        for child, side in ((tree.children_left[node], "<="), (tree.children_right[node], ">")):
            if child >= 0:
                parent[child] = (node, side)
    found = {}
    while leaf in parent:
        leaf, side = parent[leaf]
        found.setdefault((names[tree.feature[leaf]], side), tree.threshold[leaf])
    words = [f"{name} {side} {value:.3g}" for (name, side), value in reversed(found.items())]
    return " and ".join(words)


def _is_text(readable):
    first = readable.iloc[0] if hasattr(readable, "iloc") and not hasattr(readable, "columns") else None
    if first is None and not hasattr(readable, "iloc"):
        first = readable[0]
    return isinstance(first, str)
