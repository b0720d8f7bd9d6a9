"""Bad arguments of the estimators: (entry, argument, value's name, a function that passes it)."""

from __future__ import annotations

import functools
from functools import partial

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    DiffusionReTrac,
    DiffusionTracIn,
    DropoutEnsemble,
    EmpiricalInfluence,
    GradientSimilarity,
    InfluenceFunctions,
    LoRAEnsemble,
    RepresentationSimilarity,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
)
from sklearn_source.retraining import Retraining
from sklearn_source.utils._random import seeded
from tests._diffusion_nets import rows, small_net
from tests._nets import make_net
from tests.robustness import _bad_values as bad
from tests.robustness._bad_cells import Cell, but

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
LABELS = np.digitize(y[:, 0], [-1.0, 0.0]).astype(np.int64)
X_query, y_query, query_labels = X[:4] + 0.1, y[:4] + 0.1, LABELS[:4]
TRUTH = Retraining(
    masks=_RNG.random((9, 24)) < 0.5, outputs=_RNG.normal(size=(9, 2, 4)).astype(np.float32), measurement="prediction",
    seeds=np.arange(18).reshape(9, 2), X_query=X_query,
)  # fmt: skip


@functools.cache
def net(kind="numbers"):
    """A trained net; of tests, which leave it as it is."""
    with seeded(0):
        if kind == "numbers":
            return make_net(module__hidden=(4,), module__n_features=3).fit(X, y)
        if kind == "noise":
            return small_net(rows(24, 3), module__n_features=3)
        options = {"module__n_outputs": 3, "criterion": torch.nn.CrossEntropyLoss, "module__hidden": (4,)}
        return make_net(NeuralNetClassifier, **options, module__n_features=3).fit(X, LABELS)


METHODS = {
    "SourceAttribution": SourceAttribution(n_segments=2),
    "InfluenceFunctions": InfluenceFunctions(),
    "SnapshotInfluence": SnapshotInfluence(),
    "TracIn": TracIn(),
    "GradientSimilarity": GradientSimilarity(),
    "RepresentationSimilarity": RepresentationSimilarity(),
    "TRAK": TRAK(n_components=8),
    "DropoutEnsemble": DropoutEnsemble(TracIn(), n_masks=2, p=0.1),
    "AttributionEnsemble": AttributionEnsemble(TracIn(), members="snapshots", n_members=2),
    "LoRAEnsemble": LoRAEnsemble(TracIn(), n_members=2, n_steps=2, rank=1),
    "EmpiricalInfluence": EmpiricalInfluence(TRUTH, X_query=X_query),
}
UNITS = ("SourceAttribution", "InfluenceFunctions", "TracIn", "AttributionEnsemble")


@functools.cache
def fitted(name, kind="numbers"):
    if kind == "noise":
        return {"ReTrac": DiffusionReTrac, "TracIn": DiffusionTracIn}[name]().fit(net("noise"), rows(24, 3))
    return clone(METHODS[name]).fit(net(kind), X, y if kind == "numbers" else LABELS)


def cells_of(entry, argument, values, call, without=()):
    """Cells of a function that takes the bad value alone."""
    return [Cell(entry, argument, name, partial(call, value)) for name, value in but(values, *without).items()]


PARAMETERS = {
    "n_segments": bad.COUNT_NOT_NONE, "n_snapshots": bad.COUNT, "n_checkpoints": bad.COUNT, "n_components": bad.COUNT,
    "block_size": bad.COUNT_NOT_NONE, "n_masks": bad.COUNT_NOT_NONE, "n_members": bad.COUNT,
    "rank": bad.COUNT_NOT_NONE,
    "n_steps": bad.COUNT_NOT_NONE, "batch_size": bad.COUNT, "n_draws": bad.COUNT, "averaging": bad.CHOICE,
    "quadrature": bad.CHOICE, "adam": bad.CHOICE, "metric": bad.CHOICE, "projection": bad.CHOICE,
    "members": bad.CHOICE,
    "measurement": bad.MEASUREMENT, "output": bad.OUTPUT, "layers": bad.LAYERS, "layer": bad.LAYERS,
    "curvature": bad.CURVATURE, "tol": bad.NOT_NEGATIVE, "random_state": bad.SEED, "lr": bad.POSITIVE,
    "damping": {**bad.NOT_NEGATIVE, "None": None, "nonsense": "nonsense"}, "alpha": bad.POSITIVE,
    "regularization": {**bad.NOT_NEGATIVE, "None": None}, "forward_only": bad.SWITCH, "cache": bad.FOLDER,
    "p": {name: value for name, value in bad.FRACTION.items() if name not in ("None", "0")},
    "verbose": {repr(one): one for one in (-1, "loud", 1.5, None)}, "optimizer": {"a text": "SGD", "5": 5,
    "a class": dict},
    "n_jobs": {repr(one): one for one in (0, 1.5, "two", True)},
    "trajectory": {"5": 5, "a list": [], "no such place": "no/such/place", "a zero byte": "a\0b", "True": True},
    "estimator": {"a text": "TracIn", "5": 5, "a class": TracIn, "a list": [TracIn()]},
    "nets": {"5": 5, "texts": ["a", "b"], "an empty list": [], "one": [None], "a text": "nets"},
    "truth": bad.truths(TRUTH), "X_query": but(bad.tables(X_query), "None", "beyond float32", "three axes"),
}  # fmt: skip


def parameter_cells():
    """Parameters of the methods, in ``fit``."""
    found = []
    for name, method in METHODS.items():
        for parameter in method.get_params(deep=False):
            if parameter == "net" or parameter not in PARAMETERS:
                continue

            def call(value, method=method, parameter=parameter):
                model = clone(method).set_params(**{parameter: value})
                if parameter == "members":
                    model.set_params(n_members=2)
                model.fit(net(), X, y)
                return model.transform(X_query, y_query) if callable(value) else model  # where functions are called

            found += cells_of(f"{name}.fit", parameter, PARAMETERS[parameter], call)
    return found


def row_cells():
    """Rows, targets, nets and stages, in ``fit``."""
    found = []
    for name, method in METHODS.items():
        if name == "EmpiricalInfluence":
            continue
        fit = clone(method).fit
        found += cells_of(f"{name}.fit", "net", bad.NET, lambda net, fit=fit: fit(X, y, net=net))
        found += cells_of(f"{name}.fit", "stage", bad.STAGE, lambda stage, fit=fit: fit(net(), X, y, stage=stage))
        found += cells_of(f"{name}.fit", "X", bad.tables(X), lambda X, fit=fit: fit(net(), X, y))
        if name != "RepresentationSimilarity":  # has no use for them
            found += cells_of(f"{name}.fit", "y", bad.numbers(y), lambda y, fit=fit: fit(net(), X, y))
            found += cells_of(f"{name}.fit", "labels", bad.labels(LABELS), lambda y, fit=fit: fit(net("labels"), X, y))
    return found


def bare_cells():
    """A bare net in the constructor, which ``fit`` trains."""
    found = []
    for name in ("TracIn", "InfluenceFunctions"):

        def fit(X, y, kind, name=name):
            model = clone(METHODS[name]).set_params(random_state=0)
            return model.set_params(net=clone(net(kind))).fit(X, y)

        found += cells_of(
            f"{name}(bare net).fit",
            "X",
            bad.tables(X),
            lambda X, fit=fit: fit(X, y, "numbers"),
            ("too wide", "too narrow"),
        )
        found += cells_of(
            f"{name}(bare net).fit", "y", bad.numbers(y), lambda y, fit=fit: fit(X, y, "numbers"), ("two columns",)
        )
        found += cells_of(f"{name}(bare net).fit", "labels", bad.labels(LABELS), lambda y, fit=fit: fit(X, y, "labels"))
    frozen = lambda value: TracIn(FrozenEstimator(value)).fit(X, y)  # noqa: E731
    return found + cells_of("TracIn(frozen).fit", "net", bad.NET, frozen)


def query_cells(folder):
    """What is asked of fitted methods."""
    found = []
    file = folder / "a file"
    file.write_text("text")
    outs = {
        "5": 5, "a folder": folder, "a path in a file": file / "scores.npy", "other content": file, "a list": [[0.0]],
        "too small": np.zeros((4, 3), np.float32), "read-only": _read_only((4, 24)),
        "whole numbers": np.zeros((4, 24), int),
        "texts": np.full((4, 24), "a"), "one axis": np.zeros(96, np.float32), "None inside": np.full((4, 24), None),
        "a zero byte": "a\0b", "no such folder": folder / "none" / "scores.npy", "bools": np.zeros((4, 24), bool),
        "True": True,
    }  # fmt: skip
    orders = {**bad.CHOICE, "None": None}
    for name in METHODS:

        def ask(X_query, y_query=None, *, name=name, how="transform", kind="numbers", **options):  # fmt: skip
            return getattr(fitted(name, kind), how)(X_query, y_query, **options)

        found += cells_of(f"{name}.transform", "X", bad.tables(X_query), lambda X, ask=ask: ask(X))
        found += cells_of(
            f"{name}.top_influences", "X", bad.tables(X_query), lambda X, ask=ask: ask(X, how="top_influences")
        )
        found += cells_of(
            f"{name}.top_influences", "k", bad.LIMITED, lambda k, ask=ask: ask(X_query, how="top_influences", k=k)
        )
        found += cells_of(
            f"{name}.top_influences", "order", orders, lambda o, ask=ask: ask(X_query, how="top_influences", order=o)
        )
        found += cells_of(f"{name}.transform", "out", outs, lambda out, ask=ask: ask(X_query, out=out))
    for name in (*UNITS, "GradientSimilarity"):

        def ask_loss(X_query, y_query, how, name=name, kind="numbers", **options):  # fmt: skip
            return getattr(_of_losses(name, kind), how)(X_query, y_query, **options)

        for how in ("transform", "top_influences"):
            found += cells_of(
                f"{name}.{how}",
                "y",
                {**bad.numbers(y_query), "None": None},
                lambda y, a=ask_loss, h=how: a(X_query, y, h),
            )
            # Without targets a classifier is asked for the class it predicts.
            found += cells_of(
                f"{name}.{how}",
                "labels",
                bad.labels(query_labels),
                lambda y, a=ask_loss, h=how: a(X_query, y, h, kind="labels"),
            )
    return found + what_if_cells()


def _read_only(shape):
    array = np.zeros(shape, np.float32)
    array.flags.writeable = False
    return array


@functools.cache
def _of_losses(name, kind):
    method = clone(METHODS[name])
    parameter = "estimator__measurement" if "Ensemble" in name else "measurement"
    return method.set_params(**{parameter: "neg_loss"}).fit(net(kind), X, y if kind == "numbers" else LABELS)


def what_if_cells():
    """Other weights and targets of the training rows."""
    found = []
    weights = {
        "too short": np.ones(3), "negative": -np.ones(24), "NaN": np.full(24, np.nan), "texts": ["a"] * 24,
        "all zero": np.zeros(24),
        "three axes": np.ones((1, 1, 24)), "None": None, "complex": np.ones(24) + 0j,
        "objects": np.full(24, None), "a number": 1.0,
        "a text": "weights", "inf": np.full(24, np.inf), "ragged": [[1.0], [1.0, 2.0]], "a set": {1.0},
        "a dict": {"a": np.ones(24)}, "no groups": np.ones((0, 24)),
    }  # fmt: skip
    changed, some = (y + 1.0).astype(np.float32), {"a": [0, 1]}
    for name in UNITS:

        def reweigh(name=name, **options):  # fmt: skip
            return fitted(name).predict_reweighting(X_query, **options)

        def relabel(y_train, groups=None, name=name, kind="numbers", **options):
            return fitted(name, kind).predict_relabeling(X_query, y_train=y_train, groups=groups, **options)

        entry = f"{name}.predict_reweighting"
        found += cells_of(entry, "groups", bad.groups(24), lambda groups, r=reweigh: r(groups=groups))
        found += cells_of(entry, "weights", weights, lambda weights, r=reweigh: r(weights=weights))
        found += cells_of(entry, "renormalize", bad.SWITCH, lambda value, r=reweigh: r(groups=some, renormalize=value))
        steps = {**bad.CHOICE, "None": None}
        found += cells_of(entry, "step", steps, lambda step, r=reweigh: r(groups=some, step=step))
        entry = f"{name}.predict_relabeling"
        found += cells_of(entry, "step", steps, lambda step, r=relabel: r(changed, step=step))
        found += cells_of(entry, "groups", bad.given(bad.groups(24)), lambda groups, r=relabel: r(changed, groups))
        found += cells_of(
            entry, "y_train", {**bad.numbers(changed), "None": None, "the same": y}, lambda y, r=relabel: r(y)
        )
        other = (LABELS + 1) % 3
        found += cells_of(entry, "labels", bad.labels(other), lambda y, r=relabel: r(y, kind="labels"))
    return found


def cells(folder):
    return parameter_cells() + row_cells() + bare_cells() + query_cells(folder)
