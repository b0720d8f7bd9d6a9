"""Values that an argument of a kind must refuse, by a name for each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

from sklearn_source.curvature import EKFAC
from sklearn_source.modules import MLP


def _whole(value):
    """Not a whole number, or one that nothing can have as its count."""
    return {repr(one): one for one in (0, -1, 1.5, float("nan"), "3", True, 3 + 0j)} | {
        "a list": [value], "an array": np.array([value]), "a type": int, "-2**70": -(2**70),
    }  # fmt: skip


COUNT = _whole(3)
COUNT_NOT_NONE = {**COUNT, "None": None}
LIMITED = {**COUNT_NOT_NONE, "too many": 25, "10**12": 10**12}
FRACTION = {repr(one): one for one in (-0.1, 1.5, float("nan"), float("inf"), "0.5", None, True, 1j)} | {
    "a list": [0.5], "0": 0, "1": 1.0,
}  # fmt: skip
NOT_NEGATIVE = {repr(one): one for one in (-0.1, float("nan"), float("inf"), "0.5", 1j)} | {"a list": [0.5]}
POSITIVE = {**NOT_NEGATIVE, "0": 0.0}
CHOICE = {repr(one): one for one in ("nonsense", 3, b"auto", "", 0.5)} | {
    "a list": ["auto"], "an array": np.array(["auto", "auto"]), "a dict": {"auto": 1},
}  # fmt: skip
SWITCH = {repr(one): one for one in ("yes", "False", 2, 0.5)} | {"a list": [True], "an array": np.array([True, False])}
SEED = {repr(one): one for one in ("0", -1, 1.5, 2**40)} | {"a list": ["a"], "a tensor": torch.tensor([0.5])}
NET = {
    "a text": "net", "5": 5, "a class": MLP, "a module": MLP(n_features=3), "of scikit-learn": LinearRegression(),
    "a list": [], "a namespace": SimpleNamespace(module_=nn.Linear(3, 1)),
}  # fmt: skip
FITTED = {**NET, "None": None, "not fitted": EKFAC()}
FOLDER = {"5": 5, "a list": ["folder"], "1.5": 1.5, "a zero byte": "a\0b", "True": True}
OUTPUT = {repr(one): one for one in (-1, 5, "0", 1.5, (0, 5), (-1,), ("a",), ())} | {"a list": [0], "True": True}
MEASUREMENT = {
    "'nonsense'": "nonsense", "5": 5, "None": None, "a list": ["prediction"], "b''": b"prediction",
    "a sum": lambda output, target: output.sum(), "numbers of Python": lambda output, target: [0.0] * len(output),
    "nothing": lambda output, target: None, "arrays": lambda output, target: output.detach().numpy()[:, 0],
    "a row short": lambda output, target: output[1:, 0],
    "whole numbers": lambda output, target: (output[:, 0] > 0).long(),
    "a constant": lambda output, target: torch.zeros(len(output)),
    "without a graph": lambda output, target: output[:, 0].detach(),
    "NaN": lambda output, target: output[:, 0] * float("nan"),
}  # fmt: skip
LAYERS = {repr(one): one for one in ("no layer", 5, ("no layer",), 1.5, True, (), b"layers")} | {
    "numbers": [0, 1], "a dict": {"a": 1}, "an empty list": [], "an unclosed bracket": "layers.[0",
}  # fmt: skip
STAGE = {
    "too short": np.zeros(3, int), "fractions": np.full(24, 0.5), "texts": ["a"] * 24, "negative": np.full(24, -1),
    "beyond": np.full(24, 5), "a table": np.zeros((24, 2), int), "5": 5, "a text": "0", "NaN": np.full(24, np.nan),
    "objects": np.full(24, None),
}  # fmt: skip
CURVATURE = {
    "'nonsense'": "nonsense", "5": 5, "None": None, "a class": EKFAC, "a list": ["ekfac"],
    "fisher": EKFAC(fisher="nonsense"), "n_samples": EKFAC(n_samples=0), "coupling": EKFAC(coupling="nonsense"),
    "n_iter": EKFAC(n_iter=-1), "max_rows": EKFAC(max_rows=0), "basis": EKFAC(basis=3),
    "cache_size": EKFAC(cache_size="1"),
    "memory": EKFAC(memory=5), "a flag for n_iter": EKFAC(n_iter=True),
}  # fmt: skip


def tables(good):
    """In the place of rows of numbers (n, 3)."""
    n = len(good)
    spoiled = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf, "beyond float32": 1e300}
    return {
        "texts": np.full((n, 3), "a"), "objects": np.full((n, 3), None), "dicts": np.full((n, 3), {}),
        "complex": good.astype(complex), "dates": np.zeros((n, 3), "datetime64[s]"),
        "too wide": np.hstack([good, good]),
        "too narrow": good[:, :1], "one axis": np.zeros(n, np.float32), "one row": good[0], "a number": 5.0,
        "three axes": good[:, :, None], "no rows": good[:0], "no columns": good[:, :0], "None": None,
        "a text": "rows",
        "ragged": [[1.0, 2.0, 3.0], [1.0]] + good[2:].tolist(), "a set": {1, 2}, "a function": len,
        "a generator": (row for row in good), "structured": np.zeros(n, [("a", "f4"), ("b", "f4"), ("c", "f4")]),
        "a dict": {"rows": good}, "texts in a list": [["a", "b", "c"]] * n, "a type": np.ndarray,
        **{name: _with(good.astype(np.float64), value) for name, value in spoiled.items()},
    }  # fmt: skip


def _with(array, value):
    array = np.array(array)
    array.flat[1] = value
    return array


def numbers(good):
    """In the place of targets that are numbers (n, 1)."""
    n = len(good)
    return {
        "texts": np.full(n, "a"), "objects": np.full(n, None), "complex": good.astype(complex),
        "too short": good[:-1],
        "too long": np.vstack([good, good]), "two columns": np.hstack([good, good]), "no columns": good[:, :0],
        "no rows": good[:0], "a number": 5.0, "a text": "targets", "ragged": [[1.0], [1.0, 2.0]] + [[1.0]] * (n - 2),
        "dates": np.zeros(n, "datetime64[s]"), "NaN": _with(good, np.nan), "inf": _with(good, np.inf),
        "a set": {1.0}, "a dict": {"y": good}, "texts in a list": ["a"] * n,
        "beyond float32": _with(good.astype(float), 1e300),
    }  # fmt: skip


def labels(good):
    """In the place of labels of three classes (n,)."""
    n = len(good)
    return {
        "beyond": _with(good, 99), "negative": _with(good, -1), "fractions": good + 0.5, "texts": np.full(n, "a"),
        "NaN": _with(good.astype(float), np.nan), "too short": good[:-1], "too long": np.hstack([good, good]),
        "two columns": np.stack([good, good], 1), "complex": good + 0j, "a number": 1, "a text": "labels",
        "objects": np.full(n, None), "ragged": [[0], [0, 1]] + [[0]] * (n - 2),
        "mixed": ["a", 1] * (n // 2) + [0] * (n % 2),
        "no rows": good[:0], "inf": _with(good.astype(float), np.inf),
    }  # fmt: skip


def rows(n):
    """In the place of indices below ``n``, or a mask."""
    return {
        "beyond": [0, n], "negative": [-1], "fractions": [0.5], "texts": ["a"], "a table": [[0, 1]],
        "a short mask": [True] * 3,
        "None": None, "a number": n + 5, "a text": "rows", "twice": [1, 1], "NaN": [float("nan")], "none": [],
        "objects": [None, None], "a dict": {"a": 1}, "beyond int64": [2**63], "complex": [1j],
        "no row of a mask": np.zeros(n, bool),
        "a set": {1, 2}, "a generator": (i for i in range(2)),
    }  # fmt: skip


def groups(n):
    """In the place of groups of ``n`` rows."""
    named = {f"{name}, named": {"a": value} for name, value in rows(n).items() if name not in ("a generator", "a dict")}
    return {
        **named, "no groups": {}, "an empty list": [], "too few labels": ["a"] * 3, "a number": 5, "a text": "groups",
        "mixed labels": ["a", 1] * (n // 2), "labels in a column": (np.arange(n) % 3)[:, None],
        "None among labels": [None, "a"] * (n // 2),
        "NaN among labels": np.where(np.arange(n) % 2, np.nan, 1.0),
    }  # fmt: skip


def score_tables(good):
    """In the place of scores (n_query, n_train)."""
    return {
        "texts": np.full(good.shape, "a"), "objects": np.full(good.shape, None), "complex": good + 0j,
        "NaN": _with(good, np.nan),
        "inf": _with(good, np.inf), "one axis": good[0], "three axes": good[None], "empty": good[:0], "None": None,
        "a text": "scores", "a number": 1.0, "ragged": [[1.0], [1.0, 2.0]], "a function": len,
        "a dict": {"scores": good},
        "no columns": good[:, :0], "dates": np.zeros(good.shape, "datetime64[s]"),
    }  # fmt: skip


def truths(good):
    """In the place of a retraining."""
    masks, outputs = good.masks, good.outputs

    def other(**changed):
        return SimpleNamespace(**{"masks": masks, "outputs": outputs, **changed})

    return {
        "None": None, "a text": "truth", "5": 5, "a dict": {"masks": masks, "outputs": outputs},
        "no outputs": SimpleNamespace(masks=masks),
        "masks as numbers": other(masks=masks.astype(int)), "masks of one axis": other(masks=masks[0]),
        "fewer outputs": other(outputs=outputs[:-1]), "outputs of two axes": other(outputs=outputs[:, 0]),
        "NaN": other(outputs=_with(outputs, np.nan)), "texts": other(outputs=np.full(outputs.shape, "a")),
        "complex": other(outputs=outputs + 0j), "no queries": other(outputs=outputs[:, :, :0]),
        "no subsets": other(masks=masks[:0], outputs=outputs[:0]),
        "no rows": other(masks=masks[:, :0]), "None inside": other(masks=None),
    }  # fmt: skip


def given(table):
    """Values of a table that are something: None leaves the argument out."""
    return {name: value for name, value in table.items() if name != "None"}


def not_rows(good):
    """What cannot be as many rows as others, whatever rows are."""
    names = "one row", "a number", "no rows", "a text", "a set", "a function", "a generator", "a type"
    return {name: tables(good)[name] for name in names}
