"""Small problems that reports are made of, and how their pages are read."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import TrajectoryRecorder


class Logits(nn.Sequential):
    def __init__(self, n_features=4, n_classes=3):
        super().__init__(nn.Flatten(), nn.Linear(n_features, 6), nn.Tanh(), nn.Linear(6, n_classes))


class Number(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


OPTIONS = {
    "lr": 0.3, "max_epochs": 20, "batch_size": 12, "train_split": None, "verbose": 0, "optimizer": torch.optim.SGD,
}  # fmt: skip


def classes(n_train=48, n_query=30, n_wrong=6, **options):
    """A trained net of three classes, its rows, and held-out rows with their true labels.

    The first rows are alike and have a wrong label, and some of the held-out rows are like them.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_train + n_query, 4)).astype(np.float32)
    X[:n_wrong] = 0.2 * X[:n_wrong] + (-1.5, -1.5, 1.0, 1.0)
    X[n_train : n_train + 6] = 0.2 * X[n_train : n_train + 6] + (-1.5, -1.5, 1.0, 1.0)
    y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)
    y_train = y[:n_train].copy()
    y_train[:n_wrong] = (y_train[:n_wrong] + 1) % 3
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Logits, criterion=nn.CrossEntropyLoss, callbacks=[TrajectoryRecorder(n_checkpoints=3)], **OPTIONS, **options
    ).fit(X[:n_train], y_train)
    return net, X[:n_train], y_train, X[n_train:], y[n_train:]


def numbers():
    """A trained regression, its rows, and held-out ones."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
    torch.manual_seed(0)
    net = NeuralNetRegressor(Number, callbacks=[TrajectoryRecorder(n_checkpoints=3)], **OPTIONS).fit(X[:40], y[:40])
    return net, X[:40], y[:40], X[40:], y[40:]


class Page(HTMLParser):
    """Elements of a page: (name, attributes) in order, the texts of headings, and all text outside style and script."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.headings, self.texts, self._open = [], [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self.texts.append(data)
            if {"h2"} & set(self._open):
                self.headings.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
