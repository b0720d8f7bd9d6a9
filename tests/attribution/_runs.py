"""Small recorded trainings, and what METHOD says of them, computed from the dense reference alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn

from sklearn_source import TrajectoryRecorder
from sklearn_source.trajectory import Trajectory
from tests.reference import (
    ReferenceSegment,
    block_factors,
    empirical_columns,
    ggn,
    log_odds,
    make_layout,
    mean_parameters,
    mse_columns,
    prediction,
    quadrature_weights,
    row_gradients,
    segment_rate,
    segment_second_order,
    softmax_columns,
    source_scores,
)


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))


def regressor():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


# name: (module, row shape, classes or 0, loss of one row, columns of the exact Fisher)
KINDS = {
    "mlp": (mlp, (4,), 3, nn.functional.cross_entropy, softmax_columns),
    "regressor": (regressor, (3,), 0, nn.functional.mse_loss, mse_columns),
    "conv": (conv, (1, 6, 6), 3, nn.functional.cross_entropy, softmax_columns),
}
# Networks that the reference sees through a twin built of layers it knows: name: (module, {its names: the net's}).
TWINS = {}
DENSE = {}  # name: parameters that have no factored form in it
N_ROWS, N_QUERIES, BATCH, EPOCHS = 12, 3, 4, 8
STEPS = EPOCHS * N_ROWS // BATCH


@dataclass
class Hyper:
    """What the optimizer was told; ``schedule`` multiplies the rate of step k, ``groups`` as skorch takes them."""

    lr: float = 0.05
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: object = None
    groups: dict = field(default_factory=dict)  # {pattern: {"lr": ..., "weight_decay": ...}}
    optimizer: str = "SGD"
    options: tuple = ()  # (name, value) of an adaptive optimizer's own


def make_module(kind, dtype):
    torch.manual_seed(3)
    return KINDS[kind][0]().to(dtype)


def make_rows(kind, n, dtype, seed):
    _, shape, classes, _, _ = KINDS[kind]
    rng = np.random.default_rng(seed)
    if shape[0] == "tokens":
        X = rng.integers(shape[1], size=(n, *shape[2:]))
    else:
        X = rng.normal(size=(n, *shape)).astype(dtype)
    y = rng.integers(classes, size=n) if classes else np.sin(2 * X[:, :1]) + 0.1 * rng.normal(size=(n, 1)).astype(dtype)
    return X, y.astype(np.int64) if classes else y.astype(dtype)


def make_net(kind, dtype, hyper, **settings):
    callbacks = [TrajectoryRecorder(n_checkpoints=6)]
    if hyper.schedule is not None:
        scheduler = LRScheduler("LambdaLR", lr_lambda=hyper.schedule, step_every="batch")
        callbacks.append(("scheduler", scheduler))
    cls = NeuralNetClassifier if KINDS[kind][2] else NeuralNetRegressor
    options = {
        "criterion": nn.CrossEntropyLoss if KINDS[kind][2] else nn.MSELoss,
        "optimizer": getattr(torch.optim, hyper.optimizer), "optimizer__weight_decay": hyper.weight_decay,
        "lr": hyper.lr, "batch_size": BATCH, "max_epochs": EPOCHS, "train_split": None, "verbose": 0,
        "callbacks": callbacks,
    }  # fmt: skip
    if hyper.optimizer == "SGD":
        own = {"momentum": hyper.momentum, "dampening": hyper.dampening, "nesterov": hyper.nesterov}
    else:
        own = dict(hyper.options)
    options |= {f"optimizer__{name}": value for name, value in own.items()}
    if hyper.groups:
        options["optimizer__param_groups"] = list(hyper.groups.items())
    return cls(make_module(kind, getattr(torch, dtype)), **{**options, **settings})


class Run:
    """A trained net with its rows, and the reference's view of its checkpoints."""

    def __init__(self, kind="mlp", dtype="float64", hyper=None, **settings):
        self.kind, self.dtype, self.hyper = kind, dtype, hyper or Hyper()
        self.make, _, self.classes, self.loss_fn, self.exact_columns = KINDS[kind]
        self.X, self.y = make_rows(kind, N_ROWS, dtype, 0)
        self.X_query, self.y_query = make_rows(kind, N_QUERIES, dtype, 1)
        self.net = make_net(kind, dtype, self.hyper, **settings)
        self.train()
        self.trajectory = Trajectory.from_net(self.net)
        self.at = {(c.stage, c.step): c for c in self.trajectory.checkpoints}
        self._params, self._gradients, self._blocks = {}, {}, {}
        twin, self.renamed = TWINS.get(kind, (self.make, {}))
        self.module64 = twin().double().eval()
        self.names = [name for name, _ in self.module64.named_parameters()]
        self.layout = make_layout(self.module64, self.params(self.trajectory.n_steps))

    def train(self):
        self.net.fit(self.X, self.y)

    # rows and weights in float64 ---------------------------------------------------------------------------------

    @property
    def rows(self):
        return as_double(self.X), as_double(self.y)

    def params(self, step):
        """Parameters and buffers recorded at a step; of two stages that meet there, the trained ones."""
        if step not in self._params:
            point = next(c for (_, s), c in sorted(self.at.items()) if s == step)
            values = {**point.parameters, **point.buffers}
            back = {name: twin for twin, name in self.renamed.items()}
            values = {back.get(name, name): as_double(value) for name, value in values.items()}
            own = dict(self.module64.named_parameters())
            self._params[step] = {n: v.reshape(own[n].shape) if n in own else v for n, v in values.items()}
        return self._params[step]

    def gradients(self, step):
        """(N, P) training gradients at a recorded step."""
        if step not in self._gradients:
            self._gradients[step] = row_gradients(self.module64, self.params(step), self.loss_fn, *self.rows)[0]
        return self._gradients[step]

    def measurement(self):
        return log_odds if self.classes else prediction()

    def query_target(self):
        """Predicted classes, where the measurement needs a class."""
        if not self.classes:
            return None
        with torch.no_grad():
            output = torch.func.functional_call(
                self.module64, self.params(self.trajectory.n_steps), as_double(self.X_query)
            )
        return output.argmax(1)

    def queries(self, step=None, measurement=None, y=None):
        """(n_query, P) gradients of the measurement, at the trained weights by default."""
        step = self.trajectory.n_steps if step is None else step
        y = self.query_target() if measurement is None else y
        measurement = measurement or self.measurement()
        return row_gradients(self.module64, self.params(step), measurement, as_double(self.X_query), y)[0]

    # hyper-parameters --------------------------------------------------------------------------------------------

    def flat(self, key, per_name):
        """(P,) from one number per parameter."""
        return self.layout.flatten({n: torch.full(self.layout.shapes[n], per_name(n)).double() for n in self.names})

    def option(self, key, name):
        """A hyper-parameter of one parameter: that of the first group whose pattern fits, else the default."""
        from fnmatch import fnmatch

        for pattern, options in self.hyper.groups.items():
            if fnmatch(name, pattern):
                return options.get(key, getattr(self.hyper, key))
        return getattr(self.hyper, key)

    def rate(self, name, start, end):
        return segment_rate(*self.rule(name, start, end))

    def rule(self, name, start, end):
        factor = self.hyper.schedule or (lambda step: 1.0)
        lr = [self.option("lr", name) * factor(k) for k in range(self.trajectory.n_steps)]
        return lr, start, end, self.hyper.momentum, self.hyper.dampening, self.hyper.nesterov

    def second_order(self, start, end):
        """c of a segment: the same for all, as rates of groups are multiples of each other."""
        since = max(stage.start for stage in self.trajectory.stages if stage.start <= start)
        return segment_second_order(*self.rule(self.names[0], start, end), since=since)

    def h(self, start, end):
        rates = [self.rate(name, start, end) for name in self.names]
        return rates[0] if max(rates) == min(rates) else self.flat("h", lambda n: self.rate(n, start, end))

    def rho(self):
        decays = [self.option("weight_decay", name) for name in self.names]
        return decays[0] if max(decays) == min(decays) else self.flat("rho", lambda n: self.option("weight_decay", n))

    # curvature ---------------------------------------------------------------------------------------------------

    def curvature(self, checkpoints, kind="ekfac", fisher="exact", rows=None):
        X, y = self.rows
        X, y = (X, y) if rows is None else (X[rows], y[rows])
        if kind == "exact":
            return sum(w * ggn(self.module64, params, self.loss_fn, X, y) for params, w in checkpoints)
        columns = empirical_columns(self.loss_fn) if fisher == "empirical" else self.exact_columns
        key = (kind, fisher, None if rows is None else tuple(rows.tolist()), *((id(p), w) for p, w in checkpoints))
        if key not in self._blocks:
            blocks = []
            for names in self.treated_alike():
                part = make_layout(self.module64, checkpoints[0][0], names)
                where = torch.cat([self.layout.indices(name).flatten() for name in part.names])
                for block in block_factors(
                    self.module64, checkpoints, columns, X, y, kind, names=names, dense=DENSE.get(self.kind, ())
                ):
                    blocks.append(replace(block, index=where[block.index]))
            self._blocks[key] = (checkpoints, blocks)  # the checkpoints are held, so that their ids stay theirs
        return [replace(block) for block in self._blocks[key][1]]

    def treated_alike(self):
        """Names in groups: a weight and its bias share a matrix only where the optimizer treats them alike."""
        groups = {}
        for name in self.names:
            groups.setdefault((self.option("lr", name), self.option("weight_decay", name)), []).append(name)
        return list(groups.values())

    # SOURCE ------------------------------------------------------------------------------------------------------

    def segment(
        self, start, end, *, quadrature="trapezoid", averaging="statistics", kind="ekfac", fisher="exact", rows=None
    ):
        steps = [s for s in sorted({s for _, s in self.at}) if start <= s <= end]
        weights = quadrature_weights(steps, quadrature)
        checkpoints = [(self.params(s), w) for s, w in zip(steps, weights) if w]
        if averaging == "parameters":
            mean = mean_parameters(checkpoints)
            gradients = [row_gradients(self.module64, mean, self.loss_fn, *self.rows)[0]]
            checkpoints, weights = [(mean, 1.0)], [1.0]
        else:
            gradients = [self.gradients(s) for s in steps]
        if rows is not None:
            rows = torch.as_tensor(rows)
            gradients = [g[rows] for g in gradients]
        curvature = self.curvature(checkpoints, kind, fisher, rows)
        return ReferenceSegment(
            self.h(start, end), self.rho(), weights, gradients, curvature, rows, self.second_order(start, end)
        )

    def source(self, n_segments=3, **options):
        total = self.trajectory.n_steps
        bounds = [total * i // n_segments for i in range(n_segments + 1)]
        segments = [self.segment(a, b, **options) for a, b in zip(bounds, bounds[1:])]
        return source_scores(segments, self.queries())


def as_double(values):
    tensor = torch.as_tensor(values)
    return tensor.double() if tensor.is_floating_point() else tensor


def relative(found, expected):
    """Frobenius norm of the difference over that of the expected."""
    expected = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(found, dtype=np.float64) - expected) / np.linalg.norm(expected))


TOLERANCE = {"float32": 1e-4, "float64": 1e-7}
