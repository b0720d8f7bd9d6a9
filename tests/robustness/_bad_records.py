"""Bad arguments of recorders, trajectories, retraining, files, data and diffusion models."""

from __future__ import annotations

import copy

import numpy as np
import torch
from skorch import NeuralNetClassifier

from sklearn_source import DiffusionTracIn, Trajectory, TrajectoryRecorder
from sklearn_source.datasets import (
    TextEncoder,
    load_concrete,
    load_concrete_split,
    load_plays,
    load_questions,
    next_tokens,
)
from sklearn_source.diffusion import DenoisingLoss
from sklearn_source.inspection import attribution_report
from sklearn_source.modules import MLP
from sklearn_source.retraining import Retraining, leave_one_out, retrain_on_subsets, retrain_without
from tests._diffusion_nets import rows as noise_rows
from tests._diffusion_nets import small_net
from tests._nets import make_net
from tests.robustness import _bad_values as bad
from tests.robustness._bad_cells import but, of
from tests.robustness._bad_methods import LABELS, TRUTH, X_query, fitted, net, query_labels, y_query
from tests.robustness._bad_methods import X as X_train
from tests.robustness._bad_methods import y as y_train
from tests.robustness._bad_metrics import loo_truth

JOBS = {repr(one): one for one in (0, 1.5, "two", True)}
VERBOSE = {repr(one): one for one in (-1, "loud", 1.5, None)}
SIZE = {"module__hidden": (4,), "module__n_features": 3, "max_epochs": 1}


def cells(folder):
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("text")
    parts = (recorder_cells, checkpoint_cells, data_cells, diffusion_cells)
    return [cell for part in parts for cell in part()] + retraining_cells(folder) + stored_cells(folder)


def recorder_cells():
    def record(**options):
        return make_net(**SIZE, callbacks=[TrajectoryRecorder(**options)]).fit(X_train, y_train)

    kinds = {"optimizer_state": {**bad.CHOICE, "None": None}, "overwrite": {**bad.SWITCH, "None": None}}
    found = of("TrajectoryRecorder", record, {}, n_checkpoints=bad.COUNT, dirname=bad.FOLDER, **kinds)
    trajectory, span = Trajectory.from_net(net()), {"start": 0, "end": 3}
    bounds = {"negative": -1, "beyond": 99, "fractions": 1.5, "a text": "0", "None": None, "True": True}
    for name in ("integrated_learning_rate", "mean_weight_decay", "second_order"):
        sums = getattr(trajectory, name)
        found += of(f"Trajectory.{name}", sums, span, start=bounds, end={**bounds, "before the start": -2})
    rows = {"X": bad.tables(X_train), "y": but(bad.numbers(y_train), "two columns"), "net": bad.NET}
    found += of("Trajectory.verify", trajectory.verify, {"net": net(), "X": X_train, "y": y_train}, **rows)
    nets = {**bad.NET, "no recorder": make_net(recorded=False).initialize()}
    return found + of("Trajectory.from_net", Trajectory.from_net, {}, net=nets)


def checkpoint_cells():
    module = MLP(n_features=3, hidden=(4,))
    states = [copy.deepcopy(module.state_dict()) for _ in range(2)]
    good = {"state_dicts": states, "steps": [0, 6], "learning_rates": 0.1, "module": module, "n_rows": 24}
    rate = {**but(bad.NOT_NEGATIVE, "a list"), "too many": np.ones(9), "None": None, "objects": np.full(6, None)}
    rate["a dict"] = {"lr": 0.1}
    given = {
        "None": None, "5": 5, "one": states[:1], "lists": [[], []], "no tensors": [{}, {}], "texts": ["no/file"] * 2,
        "numbers": [dict.fromkeys(states[0], 1.0)] * 2, "other shapes": [{n: v[:1] for n, v in states[0].items()}] * 2,
        "a text": "no/file",
    }  # fmt: skip
    steps = {
        "None": None, "5": 5, "one": [0], "falling": [6, 0], "negative": [-1, 6], "fractions": [0, 1.5],
        "texts": ["0", "6"], "bools": [False, True], "beyond memory": [0, 10**12], "equal": [3, 3],
    }  # fmt: skip
    groups = {"5": 5, "texts": ["a"], "unknown": [["no parameter"]], "twice": [list(states[0])] * 2, "none": []}
    kinds = {"optimizer": {"5": 5, "a class": dict, "None": None}, "nesterov": bad.SWITCH, "groups": groups}
    modules = {"None": None, "5": 5, "a class": MLP, "a text": "MLP"}
    rates = {"learning_rates": rate, "momentum": {**rate, "2": 2.0}, "weight_decay": rate}
    rates["dampening"] = but(rate, "-0.1")
    rows = {"n_rows": bad.COUNT_NOT_NONE, "rows": bad.given(bad.rows(24)), "X": bad.not_rows(X_train)}
    bads = {"state_dicts": given, "steps": steps, "module": modules, **kinds, **rates, **rows}
    return of("Trajectory.from_checkpoints", Trajectory.from_checkpoints, good, **bads)


def retraining_cells(folder):
    bare = make_net(recorded=False, **SIZE)
    good = {"net": bare, "X_train": X_train, "y_train": y_train, "X_query": X_query, "n_repeats": 1, "random_state": 0}
    cache = {**bad.FOLDER, "a file": folder / "file", "in a file": folder / "file" / "cache"}
    subsets = {
        "whole numbers": TRUTH.masks.astype(int), "too narrow": TRUTH.masks[:, :3], "one axis": TRUTH.masks[0],
        "texts": np.full((9, 24), "a"), "an empty one": np.zeros((2, 24), bool), "ragged": [[True], [True, False]],
        "5": 5, "a text": "subsets", "no subsets": np.zeros((0, 24), bool), "NaN": np.full((2, 24), np.nan),
    }  # fmt: skip
    # Values are all that is asked for here, no derivatives.
    measured = but(bad.MEASUREMENT, "a constant", "without a graph", "arrays")
    few = {
        "net": {**bad.NET, "None": None}, "X_query": bad.tables(X_query), "n_repeats": bad.COUNT_NOT_NONE,
        "engine": {**bad.CHOICE, "None": None}, "cache": cache, "measurement": measured,
    }  # fmt: skip
    rest = {
        "X_train": bad.tables(X_train), "y_train": but(bad.numbers(y_train), "two columns"), "output": bad.OUTPUT,
        "n_jobs": JOBS, "chunk_size": bad.COUNT, "verbose": VERBOSE, "subsets": subsets,
        "random_state": but(bad.SEED, repr(2**40)),
    }  # fmt: skip
    sizes = {repr(one): one for one in (-0.1, 1.5, 0, 24, float("nan"), "0.5", None, True, 1j)} | {"a list": [0.5]}
    drawn = {"n_subsets": bad.COUNT_NOT_NONE, "subset_size": sizes}
    two = {**good, "n_subsets": 2}
    found = of("retrain_on_subsets", retrain_on_subsets, two, **drawn, **few, **rest)
    rows = {"rows": bad.given(bad.rows(24)), "renormalize": bad.SWITCH}
    found += of("leave_one_out", leave_one_out, {**good, "rows": [0]}, **rows, **few)
    groups = {"removed": but(bad.groups(24), "labels in a column"), "renormalize": bad.SWITCH}
    found += of("retrain_without", retrain_without, {**good, "removed": {"a": [0]}}, **groups, **few)
    options = {"module__n_outputs": 3, "criterion": torch.nn.CrossEntropyLoss, "recorded": False}
    labelled = {"net": make_net(NeuralNetClassifier, **options, **SIZE), "y_train": LABELS, "y_query": query_labels}
    asked = {**two, **labelled, "measurement": "neg_loss"}
    labels = {"y_train": bad.labels(LABELS), "y_query": bad.labels(query_labels)}
    found += of("retrain_on_subsets(classifier)", retrain_on_subsets, asked, **labels)
    asked = {**two, "measurement": "neg_loss", "y_query": y_query}
    targets = {**bad.numbers(y_query), "None": None}
    found += of("retrain_on_subsets(neg_loss)", retrain_on_subsets, asked, y_query=targets)
    return found + result_cells(subsets)


def result_cells(subsets):
    good = {"masks": TRUTH.masks, "outputs": TRUTH.outputs, "measurement": "prediction", "seeds": TRUTH.seeds}
    seeds = {
        "negative": -TRUTH.seeds.astype(int) - 1, "fractions": TRUTH.seeds + 0.5, "too few": TRUTH.seeds[:2],
        "None": None, "texts": np.full((9, 2), "a"),
    }  # fmt: skip
    said = {"measurement": {"5": 5, "None": None, "a list": ["a"]}, "settings": {"5": 5, "a text": "a", "a list": [1]}}
    said["names"] = {"5": 5, "too few": ["a"], "a text": "abc"}
    said["row_hashes"] = {"too few": np.zeros(3, np.uint64), "floats": np.zeros(24), "texts": ["a"] * 24}
    outputs = but(bad.score_tables(TRUTH.outputs), "NaN", "inf", "three axes", "one axis", "no columns", "empty")
    arrays = {"masks": but(subsets, "too narrow", "an empty one"), "outputs": outputs, "seeds": seeds}
    found = of("Retraining", Retraining, good, **arrays, **said, X_query=bad.not_rows(X_query))
    others = {**bad.truths(TRUTH), "of other rows": loo_truth()}
    return found + of("Retraining.merge", TRUTH.merge, {}, other=others)


def stored_cells(folder):
    """Files and folders that are something else."""
    made = folder / "made"
    made.mkdir(exist_ok=True)
    (made / "trajectory.json").write_text("{}")
    read = {
        **bad.FOLDER, "None": None, "no such place": folder / "none", "a file": folder / "file", "a folder": folder,
        "an empty index": made, "in a file": folder / "file" / "t",
    }  # fmt: skip
    written = {**bad.FOLDER, "None": None, "in a file": folder / "file" / "t"}
    trajectory = Trajectory.from_net(net())
    found = of("Trajectory.load", Trajectory.load, {}, path=read)
    found += of("Retraining.load", Retraining.load, {}, path=read)
    found += of("Trajectory.save", trajectory.save, {}, path={**written, "a file": folder / "file"})
    found += of("Trajectory.save", trajectory.save, {"path": folder / "saved"}, overwrite=bad.SWITCH)
    found += of("Retraining.save", TRUTH.save, {}, path=written)
    shown = {"queries": [0, 1], "X_train": X_train, "y_train": LABELS, "n_shown": 2, "k": 2}
    report = attribution_report(fitted("TracIn", "labels"), X_query, query_labels, **shown)
    pages = {**written, "a folder": folder, "no such folder": folder / "none" / "page.html"}
    return found + of("AttributionReport.save", report.save, {}, path=pages)


def data_cells():
    texts = ["What is an atom ?", "What is it ?"]
    encoder = TextEncoder().fit(texts)
    none = {
        "a text": "text", "None": None, "5": 5, "numbers": [1, 2], "None inside": ["a", None], "bytes": [b"a"],
        "lists": [["a"]], "an array of numbers": np.zeros(3), "a table": np.full((2, 2), "a"),
    }  # fmt: skip
    tokens = {
        "negative": [[-1, 3]], "fractions": [[1.5, 3]], "texts": [["a", "b"]], "one axis": [3, 4], "None": None,
        "ragged": [[3], [3, 4]], "complex": [[3j, 1]], "NaN": [[float("nan"), 3]], "a number": 3,
    }  # fmt: skip
    found = of("TextEncoder.fit", encoder.fit, {}, X={**none, "no texts": []})
    found += of("TextEncoder.transform", encoder.transform, {}, X=none)
    found += of("TextEncoder.inverse_transform", encoder.inverse_transform, {}, X={**tokens, "beyond": [[99]]})
    found += of("next_tokens", next_tokens, {}, tokens={**tokens, "one token": [[3]]})

    def make(**options):
        return TextEncoder(**options).fit(texts)

    switches = dict.fromkeys(("lowercase", "shapes", "edges"), bad.SWITCH)
    sizes = {"max_length": bad.COUNT, "min_count": bad.COUNT_NOT_NONE}
    found += of("TextEncoder", make, {}, level=bad.CHOICE, **sizes, **switches)
    subsets = {**bad.CHOICE, "None": None}
    found += of("load_questions", load_questions, {}, subset=subsets, return_X_y=bad.SWITCH)
    found += of("load_concrete", load_concrete, {}, return_X_y=bad.SWITCH, as_frame=bad.SWITCH)
    found += of("load_plays", load_plays, {}, max_length=bad.COUNT)
    return found + of("load_concrete_split", load_concrete_split, {}, random_state=bad.SEED)


def diffusion_cells():
    model, data = net("noise"), noise_rows(24, 3)
    counts = {"n_timesteps": bad.COUNT_NOT_NONE, "n_noise": bad.COUNT_NOT_NONE}
    kinds = {"rows": {**bad.CHOICE, "None": None}, "measurement": {"5": 5, "a text": "log_odds", "None": None}}
    kinds |= dict.fromkeys(counts, bad.COUNT)

    def fit(net=model, **options):
        return DiffusionTracIn(**options).fit(net, data)

    found = of("DiffusionTracIn.fit", fit, {"rows": "grid"}, **kinds)
    found += of("DiffusionTracIn.fit", fit, {}, net={"a regression": net(), "a text": "net", "5": 5})
    times = {
        "negative": -1, "a list": [1, 2], "a text": "all", "fractions": 1.5, "a falling range": (5, 2), "True": True,
        "three": (1, 2, 3),
    }  # fmt: skip
    seeds = {"text": "0", "negative": -1, "None": None, "fractions": 1.5}
    found += of("DenoisingLoss", DenoisingLoss, {}, **counts, timesteps=times, loss=bad.CHOICE, seed=seeds)
    clips = {"5": 5, "texts": ("a", "b"), "falling": (1.0, -1.0), "one": (1.0,), "NaN": (float("nan"), 1.0)}
    numbers = {"n": bad.COUNT_NOT_NONE, "n_steps": {**bad.COUNT, "beyond": 99}, "random_state": bad.SEED}
    found += of("DiffusionNet.sample", model.sample, {"n": 1, "n_steps": 2}, **numbers, method=bad.CHOICE, clip=clips)

    def start(**options):
        return small_net(**options).initialize()

    names = {**bad.CHOICE, "None": None}
    kinds = {"schedule": names, "target": names, "conditional": bad.SWITCH, "n_timesteps": bad.COUNT_NOT_NONE}
    found += of("DiffusionNet", start, {}, **kinds, ema_decay=but(bad.FRACTION, "None"))
    queries = but(bad.tables(noise_rows(4, 3)), "three axes")
    return found + of("DiffusionTracIn.transform", fitted("TracIn", "noise").transform, {}, X=queries)
