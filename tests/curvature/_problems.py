"""Small networks with two checkpoints, seen by the package and by the dense reference."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from sklearn_source.curvature import CURVATURES, FisherStream
from sklearn_source.gradients import GradientEngine, from_matrices, to_matrices
from sklearn_source.network import Network
from tests.reference import bernoulli_columns, empirical_columns, make_layout, mse_columns, softmax_columns


class Tokens(nn.Module):
    """A layer called twice over tokens, another with positions."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x))))).mean(1)


class Tied(nn.Module):
    """Tied weights, and a bare matrix that nothing but autograd can take apart."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(4, 4), nn.Linear(4, 4)
        self.up.weight = self.down.weight
        self.mix = nn.Parameter(torch.zeros(4, 3))

    def forward(self, x):
        return torch.tensordot(self.up(torch.tanh(self.down(x))), self.mix, 1)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3))


def conv():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Conv2d(4, 6, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


# name: (module, row shape, criterion, reference columns of the exact Fisher, reference loss of one row)
SETTINGS = {
    "mlp": (mlp, (4,), nn.CrossEntropyLoss, softmax_columns, nn.functional.cross_entropy),
    "conv": (conv, (2, 6, 5), nn.CrossEntropyLoss, softmax_columns, nn.functional.cross_entropy),
    "tokens": (Tokens, (5, 3), nn.MSELoss, mse_columns, nn.functional.mse_loss),
    "tied": (Tied, (4,), nn.BCEWithLogitsLoss, bernoulli_columns, nn.functional.binary_cross_entropy_with_logits),
}
WEIGHTS = (0.25, 0.75)


class Problem:
    """One network, its rows, its checkpoints; every method gives the package's and the reference's view of them."""

    def __init__(self, name, dtype, n_rows=9):
        make, shape, criterion, self.exact_columns, self.loss_fn = SETTINGS[name]
        rng = torch.Generator().manual_seed(0)

        def normal(*size):
            return torch.randn(size, generator=rng, dtype=torch.float64)

        module = make().double()
        X = normal(n_rows, *shape).to(dtype)
        n_out = module.eval()(X.double()).shape[1]
        if criterion is nn.CrossEntropyLoss:
            y = torch.randint(n_out, (n_rows,), generator=rng)
        elif criterion is nn.BCEWithLogitsLoss:
            y = (normal(n_rows, n_out) > 0).to(dtype)
        else:
            y = normal(n_rows, n_out).to(dtype)
        classifier = criterion is nn.CrossEntropyLoss
        module = module.to(dtype)
        net = (NeuralNetClassifier if classifier else NeuralNet)(
            module, criterion=criterion, train_split=None, verbose=0
        ).initialize()  # fmt: skip
        self.checkpoints = []
        for step in (3, 8):
            parameters = {k: (0.6 * normal(*p.shape)).to(dtype) for k, p in module.named_parameters()}
            buffers = {
                k: (normal(*b.shape).square() + 0.3).to(dtype) if b.is_floating_point() else b.clone()
                for k, b in module.named_buffers()
            }
            self.checkpoints.append(
                SimpleNamespace(step=step, parameters=parameters, buffers=buffers, digest=str(step))
            )
        self.network = Network.from_net(net)
        self.rows = self.network.prepare(X, y)
        self.network.calibrate(self.rows)
        self.dtype, self.n_rows = dtype, n_rows
        self.module64 = make().double().eval()
        self.X, self.y = X.double(), y.double() if y.is_floating_point() else y
        self.use(self.checkpoints[-1])
        self.engine = GradientEngine(self.network.module, self.network.forward)
        self.engine.verify(self.rows.batch(slice(0, 4))[0])
        self.names = self.engine.names

    def use(self, checkpoint):
        self.network.load(checkpoint.parameters, checkpoint.buffers)

    def stream(
        self, fisher="exact", *, which=(0, 1), batch_size=4, cache_bytes=2**30, keys=None, seed=11, index=None, **kw
    ):
        weights = np.array(WEIGHTS) if len(which) == 2 else np.ones(1)
        index = np.arange(self.n_rows) if index is None else index
        keys = np.arange(100, 100 + self.n_rows, dtype=np.uint64) if keys is None else keys
        return FisherStream(
            self.network, self.engine, self.rows, index, [self.checkpoints[c] for c in which], weights, fisher=fisher,
            keys=keys, seed=seed, batch_size=batch_size, cache_bytes=cache_bytes, **kw,
        )  # fmt: skip

    def fit(self, kind, fisher="exact", **kw):
        return CURVATURES[kind]().fit(self.stream(fisher, **kw))

    # the reference's side ---------------------------------------------------------------------------------------

    def params64(self, c):
        point = self.checkpoints[c]
        return {k: v.double() if v.is_floating_point() else v for k, v in {**point.parameters, **point.buffers}.items()}

    def weighted(self, which=(0, 1)):
        weights = WEIGHTS if len(which) == 2 else (1.0,)
        return [(self.params64(c), w) for c, w in zip(which, weights)]

    def columns(self, fisher):
        return empirical_columns(self.loss_fn) if fisher == "empirical" else self.exact_columns

    @property
    def layout(self):
        return make_layout(self.module64, self.params64(0), self.names)

    def to_blocks(self, V):
        """(n, P) in the reference's flat order -> per block (n, groups, out, in)."""
        layout = self.layout
        values = {k: V[:, layout.slices[k]].reshape(-1, *layout.shapes[k]) for k in layout.names}
        return [to_matrices(b, values).to(self.dtype) for b in self.engine.blocks]

    def from_blocks(self, vectors):
        values = {}
        for block, v in zip(self.engine.blocks, vectors):
            values.update(from_matrices(block, v))
        return torch.cat([values[k].flatten(1) for k in self.layout.names], dim=1).double()

    def dense(self, curvature, phi=None):
        """(P, P) phi(H) of the package, column by column."""
        function = (lambda values, block: values) if phi is None else (lambda values, block: phi(values))
        eye = torch.eye(self.layout.size, dtype=torch.float64)
        return self.from_blocks(curvature.apply(function, self.to_blocks(eye)))


def matrix_of(p, stream):
    """(P, P) ``sum_c w_c 1/N sum_n sum_columns g g^T``, in the reference's order of coordinates."""
    H = 0
    for c, weight in enumerate(stream.weights):
        for batch in stream.columns(c):
            for column in zip(*batch):
                g = p.from_blocks([gradient.matrix() for gradient in column])
                H = H + weight / stream.n_rows * g.T @ g
    return H


def relative(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


PHIS = {
    "identity": lambda s: s,
    "inverse": lambda s: 1 / (s + 0.05),
    "propagate": lambda s: torch.exp(-3.0 * s),
    "integrate": lambda s: -torch.expm1(-3.0 * (s + 0.01)) / (s + 0.01),
}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
