"""Small trained nets in float64, of the kinds that members are made of."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import TrajectoryRecorder


class Dense(nn.Module):
    def __init__(self, n_outputs=3, dropout=nn.Dropout):
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(4, 8), dropout(0.3), nn.Linear(8, 6)
        self.again, self.last = dropout(0.5), nn.Linear(6, n_outputs)
        self.double()

    def forward(self, x):
        return self.last(self.again(torch.tanh(self.second(self.drop(torch.selu(self.first(x)))))))


class Alias(nn.Module):
    """One dropout under two names, the second in a block."""

    def __init__(self):
        super().__init__()
        self.first, self.drop = nn.Linear(4, 8), nn.Dropout(0.5)
        self.block = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), self.drop)
        self.last = nn.Linear(6, 3)
        self.double()

    def forward(self, x):
        return self.last(self.block(self.drop(self.first(x))))


class Alpha(Dense):
    def __init__(self):
        super().__init__(dropout=nn.AlphaDropout)


class Plain(nn.Module):
    """No dropout; one activation used twice, at two widths."""

    def __init__(self, n_outputs=3):
        super().__init__()
        self.first, self.act = nn.Linear(4, 8), nn.Tanh()
        self.second, self.last = nn.Linear(8, 6), nn.Linear(6, n_outputs)
        self.double()

    def forward(self, x):
        return self.last(self.act(self.second(self.act(self.first(x)))))


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = (
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.Dropout2d(0.4),
        )
        self.deep, self.flat, self.last = nn.Conv2d(4, 3, 2, stride=2), nn.Dropout(0.3), nn.Linear(12, 3)
        self.double()

    def forward(self, x):
        maps = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.last(self.flat(torch.relu(self.deep(maps)).flatten(1)))


class Signals(nn.Module):
    """Dropout on (rows, channels, positions)."""

    def __init__(self):
        super().__init__()
        self.conv, self.drop, self.last = nn.Conv1d(2, 6, 3), nn.Dropout(0.4), nn.Linear(6, 3)
        self.double()

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.conv(x))).mean(-1))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(9, 6, padding_idx=0), nn.Linear(6, 3)
        self.double()

    def forward(self, tokens):
        return self.last(torch.tanh(self.table(tokens)).mean(1))


class Tokens(nn.Module):
    """An embedding and a layer of a transformer, with dropout on tokens and on attention."""

    def __init__(self, batch_first=True, dropout=0.3, norm_first=False):
        super().__init__()
        self.table = nn.Embedding(9, 8, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(8, 4, 10, dropout, batch_first=batch_first, norm_first=norm_first)
        self.last = nn.Linear(8, 3)
        self.double()

    def forward(self, tokens):
        x = self.table(tokens)
        if self.layer.self_attn.batch_first:
            return self.last(self.layer(x, src_key_padding_mask=tokens == 0).mean(1))
        return self.last(self.layer(x.transpose(0, 1), src_key_padding_mask=tokens == 0).mean(0))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.double()

    def forward(self, x):
        return self.last(F.dropout(torch.tanh(self.first(x)), 0.3, self.training))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.last = nn.GRU(2, 4, num_layers=2, dropout=0.2, batch_first=True), nn.Linear(4, 3)
        self.double()

    def forward(self, x):
        return self.last(self.layers(x)[0][:, -1])


SHAPES = {Maps: (1, 4, 4), Signals: (2, 5), Recurrent: (3, 2)}


def rows(module, n=18, seed=0):
    """X, y of a kind of module."""
    rng = np.random.RandomState(seed)
    if module in (Tokens, Embedded):
        X = rng.randint(1, 9, size=(n, 5))
        X[::3, -2:] = 0
        return X, (X.sum(1) % 3).astype(np.int64)
    X = rng.normal(size=(n, *SHAPES.get(module, (4,))))
    return X, np.digitize(X.reshape(n, -1)[:, :2].sum(1), [-0.5, 0.5])


@functools.cache
def trained(module=Dense, regression=False, **options):
    """(net, X, y): trained once, no test writes to it."""
    X, y = rows(module)
    settings = {
        "lr": 0.1, "optimizer": torch.optim.SGD, "optimizer__momentum": 0.5, "max_epochs": 6, "batch_size": 6,
        "train_split": None, "verbose": 0, "callbacks": [TrajectoryRecorder(n_checkpoints=4)],
    }  # fmt: skip
    if regression:
        y = (X[:, :1] * X[:, 1:2] + X[:, 2:3]) / 2
        net = NeuralNetRegressor(module, module__n_outputs=1, **{**settings, **options})
    else:
        net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, **{**settings, **options})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net.fit(X, y)
    return net, X, y
