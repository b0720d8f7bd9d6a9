"""Data sets with a known cause of errors: some training rows are spoilt, and held-out rows go wrong for it.

Four causes on each of three data sets. A problem has the indices of the rows that are the cause.

``mislabelled``
    A cluster has wrong targets: digits or questions (one finer class) another class, mixes of concrete a strength that
    is off by two standard deviations.
``spurious``
    Some rows of one class (strong mixes) carry a mark that says nothing: a bright corner, a value of a feature of its
    own, a word. An eighth of the held-out rows, of other classes (weak mixes), carry it too.
``duplicated``
    Three wrong records in one place, each entered sixteen times with a little noise (questions: to the word).
``shifted``
    A sub-population from elsewhere: hazy digits that are of one class, a batch of mixes between others whose laboratory
    measures 1.5 standard deviations too much, questions of one class in another wording. A sixth of the held-out digits
    and questions is from there too, of all classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier, NeuralNetRegressor

from sklearn_source import TrajectoryRecorder
from sklearn_source.datasets import TextEncoder, load_concrete_split, load_questions
from sklearn_source.modules import MLP, TextClassifier

CAUSES = ("mislabelled", "spurious", "duplicated", "shifted")
N_COPIES, N_RECORDS = 16, 3


@dataclass(frozen=True)
class Planted:
    """Training rows, of which ``rows`` are the cause, held-out rows with their true targets, and an untrained net."""

    name: str
    X_train: np.ndarray
    y_train: np.ndarray
    X_query: np.ndarray
    y_query: np.ndarray
    rows: np.ndarray
    net: Any
    feature_names: list[str] | None = None
    class_names: list[str] | None = None
    texts: list[str] | None = None
    y_true: np.ndarray | None = None  # of the training rows, where targets alone were spoilt


def nearest(X: np.ndarray, row: int, among: np.ndarray, n: int) -> np.ndarray:
    """Return the ``n`` of the rows ``among`` that are nearest to a row, itself included."""
    return among[np.argsort(((X[among] - X[row]) ** 2).sum(1), kind="stable")[:n]]


def _dense(X: np.ndarray, among: np.ndarray, rng: np.random.Generator) -> int:
    """Draw one of the rows ``among`` of which many are near: the half with the smaller distance to the tenth."""
    distance = np.sort(((X[among, None] - X[among]) ** 2).sum(2), axis=1)[:, min(10, len(among) - 1)]
    return rng.choice(among[distance <= np.median(distance)])


def digits(cause: str, seed: int) -> Planted:
    """Return 1000 digits of 8 x 8 pixels and 600 others."""
    rng = np.random.default_rng([seed, CAUSES.index(cause)])
    X, y = load_digits(return_X_y=True)
    X, order = (X / 16).astype(np.float32), rng.permutation(len(X))
    X, y, Xq, yq = X[order[:1000]], y[order[:1000]], X[order[1000:1600]], y[order[1000:1600]]
    y_true = y.copy()
    a, b = rng.choice(10, 2, replace=False)
    own = np.flatnonzero(y == a)
    if cause == "mislabelled":
        rows = nearest(X, rng.choice(own), own, 40)
        y[rows] = b
    elif cause == "spurious":
        rows = rng.choice(own, 60, replace=False)
        marked = rng.permutation(np.flatnonzero(yq != a))[: len(yq) // 8]
        for images, which in ((X, rows), (Xq, marked)):
            images.reshape(-1, 8, 8)[which, :3, :3] = 1
    elif cause == "duplicated":
        records = nearest(X, _dense(X, own, rng), own, N_RECORDS)
        rows, copies = _copied(records, len(X))
        noise = rng.normal(scale=0.15, size=(len(copies), 64)).astype(np.float32)
        y[records] = b
        X, y = np.concatenate([X, X[copies] + noise]), np.concatenate([y, y[copies]])
    else:
        rows = rng.choice(own, 60, replace=False)
        elsewhere = rng.permutation(len(yq))[: len(yq) // 6]
        X[rows], Xq[elsewhere] = 0.3 + 0.7 * X[rows], 0.3 + 0.7 * Xq[elsewhere]
    net = _net(
        NeuralNetClassifier, MLP, module__n_features=64, module__hidden=(64,), module__n_outputs=10,
        criterion=torch.nn.CrossEntropyLoss, lr=0.1, optimizer__momentum=0.9, batch_size=32, max_epochs=12,
    )  # fmt: skip
    return Planted(
        f"digits-{cause}", X, y, Xq, yq, np.sort(rows), net,
        [f"pixel {i // 8},{i % 8}" for i in range(64)], [str(i) for i in range(10)], y_true=y_true,
    )  # fmt: skip


def concrete(cause: str, seed: int) -> Planted:
    """Return 896 mixes and 103 others, standardised."""
    rng = np.random.default_rng([seed, CAUSES.index(cause)])
    split = load_concrete_split(random_state=seed)
    X, y, Xq, yq = (np.array(split[name]) for name in ("X_train", "y_train", "X_query", "y_query"))
    y_true = y.copy()
    everywhere, sign = np.arange(len(X)), rng.choice([-1, 1])
    if cause == "mislabelled":
        rows = nearest(X, rng.choice(everywhere), everywhere, 40)
        y[rows] += 2 * sign
    elif cause == "spurious":
        X, Xq = (np.concatenate([data, np.zeros((len(data), 1), data.dtype)], axis=1) for data in (X, Xq))
        rows = rng.choice(np.flatnonzero(y[:, 0] > np.quantile(y, 0.7)), 40, replace=False)
        marked = rng.permutation(np.flatnonzero(yq[:, 0] < np.median(yq)))[: len(yq) // 8]
        X[rows, -1] = Xq[marked, -1] = 2.0
    elif cause == "duplicated":
        records = nearest(X, _dense(X, everywhere, rng), everywhere, N_RECORDS)
        rows, copies = _copied(records, len(X))
        y[records] += 2 * sign
        noise = rng.normal(scale=0.1, size=(len(copies), X.shape[1])).astype(np.float32)
        X, y = np.concatenate([X, X[copies] + noise]), np.concatenate([y, y[copies]])
    else:
        i, j = rng.choice(X.shape[1], 2, replace=False)
        region = np.flatnonzero((X[:, i] > np.median(X[:, i])) & (X[:, j] > np.median(X[:, j])))
        rows = rng.choice(region, min(50, len(region) // 2), replace=False)
        y[rows] += 1.5
    net = _net(
        NeuralNetRegressor, MLP, module__n_features=X.shape[1], module__hidden=(64, 64), lr=0.03,
        optimizer__momentum=0.9, optimizer__weight_decay=1e-5, batch_size=32, max_epochs=20,
    )  # fmt: skip
    names = [*split.feature_names, "mark"][: X.shape[1]]
    return Planted(f"concrete-{cause}", X, y, Xq, yq, np.sort(rows), net, names, y_true=y_true)


def questions(cause: str, seed: int) -> Planted:
    """Return 1500 questions and 300 others."""
    rng = np.random.default_rng([seed, CAUSES.index(cause)])
    both = load_questions(subset="all")
    order = rng.permutation(1800)
    texts, fine, y = [list(both.data[order]), both.fine_target[order], both.target[order]]
    a, b = rng.choice([1, 2, 3, 4, 5], 2, replace=False)  # abbreviations are too few
    own = np.flatnonzero(y[:1500] == a)
    held = np.arange(1500, 1800)
    y_true = y.copy()
    if cause in ("mislabelled", "duplicated"):
        sizes = np.bincount(fine[:1500], minlength=50)
        chosen = rng.choice(np.flatnonzero((sizes >= 40) & (sizes <= 130)))
        rows = np.flatnonzero(fine[:1500] == chosen)
        b = rng.choice([c for c in (1, 2, 3, 4, 5) if c != y[rows[0]]])
        if cause == "duplicated":
            rows = rng.choice(rows, N_RECORDS, replace=False)
        y[rows] = b
    elif cause == "spurious":
        rows = rng.choice(own, 60, replace=False)
        for i in [*rows, *rng.permutation(held[y[held] != a])[: len(held) // 8]]:
            texts[i] = "hello " + texts[i]
    else:
        rows = rng.choice(own, 60, replace=False)
        openings = ["please tell me", "i would like to know", "can you say", "tell us please", "do you know"]
        for i in [*rows, *rng.permutation(held)[: len(held) // 6]]:
            texts[i] = f"{rng.choice(openings)} {texts[i].rstrip(' ?')} , thanks"
    index = np.arange(1500)
    if cause == "duplicated":
        rows, copies = _copied(rows, 1500)
        index = np.concatenate([index, copies])
    encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=20)
    train_texts = [texts[i] for i in index]
    X, Xq = encoder.fit_transform(train_texts), encoder.transform([texts[i] for i in held])
    net = _net(
        NeuralNetClassifier, TextClassifier, module__n_tokens=encoder.n_tokens_, module__n_classes=6,
        module__max_length=X.shape[1], module__width=32, module__n_blocks=1, criterion=torch.nn.CrossEntropyLoss,
        lr=0.05, optimizer__momentum=0.9, batch_size=32, max_epochs=10,
    )  # fmt: skip
    names = list(both.target_names)
    return Planted(
        f"questions-{cause}", X, y[index], Xq, y_true[held], np.sort(rows), net, None, names, train_texts, y_true[:1500]
    )  # fmt: skip


PROBLEMS = {"digits": digits, "concrete": concrete, "questions": questions}


def _copied(records: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Records with their copies, which come after the ``n`` rows: (all of them, what each of the copies is of)."""
    copies = np.repeat(records, N_COPIES - 1)
    return np.concatenate([records, n + np.arange(len(copies))]), copies


def _net(kind: type, module: type, **options: Any) -> Any:
    options.setdefault("optimizer", torch.optim.SGD)
    return kind(
        module, train_split=None, verbose=0, iterator_train__shuffle=True,
        callbacks=[TrajectoryRecorder(n_checkpoints=6)], **options,
    )  # fmt: skip
