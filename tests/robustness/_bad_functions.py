"""Bad arguments of functions, of the recorder and of stored things: cells as in ``_bad_methods``."""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from sklearn.utils import Bunch

from sklearn_source import (
    DiffusionTracIn,
    TracIn,
    Trajectory,
    TrajectoryRecorder,
    config_context,
    set_config,
)
from sklearn_source import metrics as m
from sklearn_source.datasets import TextEncoder, load_concrete_split, load_plays, load_questions, next_tokens
from sklearn_source.diffusion import DenoisingLoss
from sklearn_source.inspection import (
    attribution_report,
    audit_training_rows,
    behaviour_groups,
    group_influence,
    predict_action,
    segment_scores,
    under_sampled_regions,
)
from sklearn_source.model_selection import FullTrainingSet, held_out_score, make_lds_scorer
from sklearn_source.modules import MLP
from sklearn_source.retraining import Retraining, leave_one_out, retrain_on_subsets, retrain_without
from tests._diffusion_nets import rows as noise_rows
from tests._diffusion_nets import small_net
from tests._nets import make_net
from tests.robustness import _bad_values as bad
from tests.robustness._bad_methods import (
    LABELS,
    TRUTH,
    X_query,
    cells_of,
    fitted,
    net,
    query_labels,
    without_none,
    y_query,
)
from tests.robustness._bad_methods import X as X_train
from tests.robustness._bad_methods import y as y_train

SCORES = np.random.default_rng(1).normal(size=(4, 24))
NAMES = {"5": 5, "too few": ["a"], "a text": "abc", "numbers": [1, 2, 3]}
FRAME = {name: value for name, value in bad.CHOICE.items() if name != "'auto'"}
RANDOM_SEED = {"texts": "0", "fractions": 1.5, "negative": -1, "a list of texts": ["a"]}
CALLABLE = {"5": 5, "a text": "function", "a list": []}


def of(entry, function, good, **arguments):
    """Cells of a function that is called with good arguments but for one."""
    found = []
    for argument, values in arguments.items():
        call = functools.partial(_with_one, function, good, argument)
        found += cells_of(entry, argument, values, call)
    return found


def _with_one(function, good, argument, value):
    return function(**{**good, argument: value})


def cells(folder):
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("text")
    parts = (metric_cells, inspection_cells, report_cells, recorder_cells, data_cells, diffusion_cells)
    return [cell for part in parts for cell in part()] + retraining_cells(folder) + stored_cells(folder)


def metric_cells():
    scores, truths = bad.score_tables(SCORES), bad.truths(TRUTH)
    other = {**scores, "other queries": SCORES[:2], "other rows": SCORES[:, :5]}
    level, count = without_none(bad.FRACTION) | {"None": None}, bad.COUNT_NOT_NONE
    predicted = {**without_none(bad.score_tables(np.zeros((9, 4)))), "other queries": np.zeros((9, 3))}
    mislabelled = {
        "too short": [True], "numbers": np.arange(24) * 1.0, "texts": ["a"] * 24, "none": np.zeros(24, bool), "all": np.ones(24, bool),
        "None": None, "a table": np.zeros((24, 1), bool), "a number": 5, "beyond": [30], "complex": np.ones(24) + 0j, "NaN": np.full(24, np.nan),
    }  # fmt: skip
    masks = {
        "whole numbers": TRUTH.masks.astype(int), "too narrow": TRUTH.masks[:, :3], "one axis": TRUTH.masks[0], "None": None, "texts": np.full((9, 24), "a"),
        "ragged": [[True], [True, False]], "no row left": np.zeros((2, 24), bool),
    }  # fmt: skip
    removals = Bunch(scores=SCORES)
    lds = {"scores": SCORES, "truth": TRUTH, "n_bootstrap": 20}
    found = of("linear_datamodeling_score", m.linear_datamodeling_score, lds, scores=other, truth=truths, predicted=predicted,
               confidence=level, n_bootstrap=count, random_state=RANDOM_SEED)  # fmt: skip
    found += of("linear_datamodeling_difference", m.linear_datamodeling_difference, {**lds, "others": SCORES}, scores=without_none(other),
                others=other, truth=truths, confidence=level, n_bootstrap=count, random_state=RANDOM_SEED)  # fmt: skip
    found += of("group_effect_score", m.group_effect_score, {"scores": SCORES, "truth": TRUTH}, scores=other, truth=truths,
                predicted=predicted, queries=without_none(bad.rows(4)), confidence=level)  # fmt: skip
    found += of("leave_one_out_correlation", m.leave_one_out_correlation, {"scores": SCORES, "truth": loo_truth()}, scores=other,
                truth=truths, confidence=level)  # fmt: skip
    found += of("class_detection_score", m.class_detection_score, {"scores": SCORES, "y_query": query_labels, "y_train": LABELS},
                scores=other, y_query=class_labels(query_labels), y_train=class_labels(LABELS), k=bad.LIMITED, confidence=level)  # fmt: skip
    found += of("first_order_change", m.first_order_change, {"scores": SCORES, "masks": TRUTH.masks}, scores=scores, masks=masks,
                renormalize=bad.SWITCH)  # fmt: skip
    found += of("generally_influential_share", m.generally_influential_share, {"scores": SCORES}, scores=scores, k=bad.LIMITED,
                share=level, confidence=level)  # fmt: skip
    found += of("mislabel_detection_score", m.mislabel_detection_score, {"scores": SCORES[0], "is_mislabelled": LABELS == 1},
                scores={n: v for n, v in scores.items() if n != "one axis"}, is_mislabelled=mislabelled, confidence=level)  # fmt: skip
    found += of("model_randomization_score", m.model_randomization_score, {"scores": SCORES, "randomized": SCORES[::-1]}, scores=other,
                randomized=other, confidence=level)  # fmt: skip
    found += of("top_k_overlap", m.top_k_overlap, {"scores": SCORES, "other": SCORES[::-1]}, scores=other, other=without_none(other),
                k=bad.LIMITED, confidence=level)  # fmt: skip
    ks = {
        **bad.LIMITED,
        "negative among them": [3, -1],
        "none": [],
        "texts": ["3"],
        "fractions": [1.5],
        "twice": [3, 3],
    }
    ks.pop("a list"), ks.pop("an array")
    found += of("top_k_removals", m.top_k_removals, {"scores": removals.scores, "k": 3}, scores=scores, k=ks, n_random=bad.COUNT_NOT_NONE | {"0": -3},
                random_state=RANDOM_SEED)  # fmt: skip
    return found + of("subset_removal_score", m.subset_removal_score, {"truth": removal_truth()}, truth=truths,
                      queries=without_none(bad.rows(4)), threshold={"text": "half", "NaN": float("nan"), "a list": [0.5], "1j": 1j},
                      confidence=level)  # fmt: skip


def class_labels(good):
    """Classes are of any kind, so that fewer values are bad ones."""
    few = (
        "NaN",
        "too short",
        "too long",
        "two columns",
        "complex",
        "a number",
        "a text",
        "objects",
        "ragged",
        "mixed",
        "no rows",
        "inf",
    )
    return {name: value for name, value in bad.labels(good).items() if name in few}


@functools.cache
def loo_truth():
    masks = np.vstack([np.ones(24, bool), ~np.eye(24, dtype=bool)[:5]])
    outputs = np.random.default_rng(2).normal(size=(6, 2, 4)).astype(np.float32)
    return Retraining(
        masks=masks,
        outputs=outputs,
        measurement="prediction",
        seeds=np.arange(12).reshape(6, 2),
        names=["all", *"01234"],
    )


@functools.cache
def removal_truth():
    removed = m.top_k_removals(SCORES, [3], n_random=2)
    masks = np.vstack([np.ones(24, bool), *(~np.isin(np.arange(24), rows)[None] for rows in removed.values())])
    outputs = np.random.default_rng(2).normal(size=(len(masks), 2, 4)).astype(np.float32)
    return Retraining(
        masks=masks,
        outputs=outputs,
        measurement="log_odds",
        seeds=np.arange(2 * len(masks)).reshape(-1, 2),
        names=["all", *removed],
    )


def asked(kind="numbers"):
    return {"estimator": fitted("TracIn", kind), "X_query": X_query}


def inspection_cells():
    classes = {"X": X_train, "y": LABELS, "estimator": fitted("TracIn", "labels")}
    names, level = {**NAMES, "a set": {"a"}}, bad.FRACTION
    found = of("group_influence", group_influence, {**asked(), "groups": {"a": [0, 1]}}, estimator=bad.FITTED, X_query=bad.tables(X_query),
               groups=bad.groups(24), uncertainty=bad.CHOICE, confidence=level, refit=bad.SWITCH)  # fmt: skip
    tables = {
        "one axis": np.zeros(24),
        "a row short": np.zeros((23, 2)),
        "NaN": np.full((24, 2), np.nan),
        "texts": np.full((24, 2), "a"),
        "5": 5,
        "a text": "rows",
        "ragged": [[1.0], [1.0, 2.0]] * 12,
    }
    found += of("audit_training_rows", audit_training_rows, classes, estimator=bad.FITTED, X=bad.tables(X_train), y=bad.labels(LABELS),
                X_query=without_none(bad.tables(X_query)), representation=tables, n_neighbors=bad.LIMITED, k=bad.LIMITED, high=level,
                target_names=names, as_frame=FRAME)  # fmt: skip
    good = {"est": fitted("TracIn"), "X_query": X_query, "y_query": y_query, "n_groups": 2, "random_state": 0}
    found += of("behaviour_groups", behaviour_groups, {**good, "X_train": X_train}, est=bad.FITTED, X_query=bad.tables(X_query), y_query=bad.numbers(y_query), n_groups=bad.COUNT_NOT_NONE,
                X_train=without_none(bad.tables(X_train)), feature_names=names, class_names=names, random_state=RANDOM_SEED)  # fmt: skip
    act = {"estimator": fitted("TracIn"), "action": "remove", "rows": [0, 1], "X_val": X_query, "y_val": y_query}
    found += of("predict_action", predict_action, act, estimator=bad.FITTED, action={**bad.CHOICE, "None": None}, rows=bad.rows(24),
                X_val=bad.tables(X_query), y_val=bad.numbers(y_query))  # fmt: skip
    relabel = {
        **act,
        "estimator": fitted("TracIn", "labels"),
        "y_val": query_labels,
        "action": "relabel",
        "labels": [0, 0],
    }
    few = {
        "too few": [0],
        "beyond": [0, 9],
        "texts": ["a", "b"],
        "nonsense": "nonsense",
        "NaN": [0, np.nan],
        "a table": [[0], [1]],
        "None": None,
        "a number": 5,
    }
    found += of("predict_action(relabel)", predict_action, relabel, labels=few, y_val=bad.labels(query_labels))
    heavier = {**act, "action": "reweight"}
    weights = {**without_none(bad.POSITIVE), "1": 1.0, "None": None}
    weights.pop("0"), weights.pop("1")
    found += of("predict_action(reweight)", predict_action, heavier, weight=weights)
    source = {"estimator": fitted("SourceAttribution"), "X": X_query}
    found += of(
        "segment_scores",
        segment_scores,
        source,
        estimator={**bad.FITTED, "of another method": fitted("TracIn")},
        X=bad.tables(X_query),
    )
    regions = {
        "estimator": fitted("TracIn"),
        "X_query": X_query,
        "y_query": y_query,
        "k": 3,
        "n_random": 3,
        "random_state": 0,
    }
    return found + of("under_sampled_regions", under_sampled_regions, regions, estimator=bad.FITTED, X_query=bad.tables(X_query),
                      y_query=bad.numbers(y_query), k=bad.LIMITED, share=without_none(level), n_random=bad.COUNT_NOT_NONE,
                      weight=bad.POSITIVE, feature_names=names, random_state=RANDOM_SEED, as_frame=FRAME)  # fmt: skip


def report_cells():
    good = {
        "estimator": fitted("TracIn", "labels"),
        "X_query": X_query,
        "y_query": query_labels,
        "queries": [0, 1],
        "X_train": X_train,
        "y_train": LABELS,
        "n_shown": 2,
        "k": 2,
    }
    names = {**NAMES, "a set": {"a"}}
    predictions = {
        "too short": [0],
        "texts": ["a"] * 4,
        "beyond": [9] * 4,
        "NaN": [np.nan] * 4,
        "a number": 5,
        "a table": np.zeros((4, 2)),
    }
    found = of("attribution_report", attribution_report, good, estimator=bad.FITTED, X_query=bad.tables(X_query), y_query=bad.labels(query_labels),
               queries=bad.rows(4), y_pred=predictions, X_train=without_none(bad.tables(X_train)), y_train=without_none(bad.labels(LABELS)),
               kind=bad.CHOICE, inverse_transform=CALLABLE, inverse_transform_y=CALLABLE, feature_names=names, target_names=names,
               scale={**bad.POSITIVE, "None": None}, unit={"5": 5, "a list": ["MPa"]}, n_shown=bad.COUNT_NOT_NONE, k=bad.LIMITED, confidence=bad.FRACTION,
               title={"5": 5, "None": None})  # fmt: skip
    return found


def recorder_cells():
    def record(**options):
        return make_net(
            module__hidden=(4,), module__n_features=3, max_epochs=1, callbacks=[TrajectoryRecorder(**options)]
        ).fit(X_train, y_train)

    found = of(
        "TrajectoryRecorder",
        record,
        {},
        n_checkpoints=bad.COUNT,
        dirname=bad.FOLDER,
        optimizer_state={**bad.CHOICE, "None": None},
        overwrite=bad.SWITCH | {"None": None},
    )
    module = MLP(n_features=3, hidden=(4,))
    states = [copy.deepcopy(module.state_dict()) for _ in range(2)]
    good = {"state_dicts": states, "steps": [0, 6], "learning_rates": 0.1, "module": module, "n_rows": 24}
    per_step = {
        **bad.NOT_NEGATIVE,
        "too many": np.ones(9),
        "None": None,
        "objects": np.full(6, None),
        "a dict": {"lr": 0.1},
    }
    per_step.pop("a list")
    found += of("Trajectory.from_checkpoints", Trajectory.from_checkpoints, good,
        state_dicts={"None": None, "5": 5, "one": states[:1], "lists": [[], []], "no tensors": [{}, {}], "texts": ["no/file", "no/file"], "numbers": [dict.fromkeys(states[0], 1.0)] * 2, "other shapes": [{n: v[:1] for n, v in states[0].items()}] * 2, "NaN": [{n: v * float("nan") for n, v in states[0].items()}] * 2},
        steps={"None": None, "5": 5, "one": [0], "falling": [6, 0], "negative": [-1, 6], "fractions": [0, 1.5], "texts": ["0", "6"], "bools": [False, True], "beyond memory": [0, 10**12], "equal": [3, 3]},
        learning_rates=per_step, momentum={**per_step, "2": 2.0}, weight_decay=per_step, dampening={**per_step}, optimizer={"nonsense": "nonsense", "5": 5, "a class": dict, "None": None},
        n_rows=bad.COUNT_NOT_NONE, rows=without_none(bad.rows(24)), module={"None": None, "5": 5, "a class": MLP, "a text": "MLP"}, nesterov=bad.SWITCH,
        groups={"5": 5, "texts": ["a"], "unknown": [["no parameter"]], "twice": [[n for n in states[0]]] * 2, "an empty list": []}, X=without_none(bad.tables(X_train)))  # fmt: skip
    trajectory = Trajectory.from_net(net())
    bounds = {"negative": -1, "beyond": 99, "fractions": 1.5, "a text": "0", "None": None, "True": True}
    for name in ("integrated_learning_rate", "mean_weight_decay", "second_order"):
        found += of(
            f"Trajectory.{name}",
            getattr(trajectory, name),
            {"start": 0, "end": 3},
            start=bounds,
            end={**bounds, "before the start": -2},
        )
    found += of(
        "Trajectory.verify",
        trajectory.verify,
        {"net": net(), "X": X_train, "y": y_train},
        net=bad.NET,
        X=bad.tables(X_train),
        y=bad.numbers(y_train),
    )
    found += of(
        "Trajectory.from_net",
        Trajectory.from_net,
        {},
        net={**bad.NET, "no recorder": make_net(recorded=False).initialize()},
    )
    return found


def retraining_cells(folder):
    bare = make_net(recorded=False, module__hidden=(4,), module__n_features=3, max_epochs=1)
    good = {"net": bare, "X_train": X_train, "y_train": y_train, "X_query": X_query, "n_repeats": 1, "random_state": 0}
    cache = {**bad.FOLDER, "a file": folder / "file", "in a file": folder / "file" / "cache"}
    subsets = {
        "whole numbers": TRUTH.masks.astype(int), "too narrow": TRUTH.masks[:, :3], "one axis": TRUTH.masks[0], "texts": np.full((9, 24), "a"), "an empty one": np.zeros((2, 24), bool),
        "ragged": [[True], [True, False]], "5": 5, "a text": "subsets", "no subsets": np.zeros((0, 24), bool), "NaN": np.full((2, 24), np.nan),
    }  # fmt: skip
    of_all = {
        "net": bad.NET | {"None": None}, "X_train": bad.tables(X_train), "y_train": bad.numbers(y_train), "X_query": bad.tables(X_query), "n_repeats": bad.COUNT_NOT_NONE,
        "measurement": bad.MEASUREMENT, "output": bad.OUTPUT, "random_state": RANDOM_SEED, "n_jobs": {repr(one): one for one in (0, 1.5, "two", True)}, "engine": {**bad.CHOICE, "None": None}, "chunk_size": bad.COUNT, "cache": cache,
        "verbose": {repr(one): one for one in (-1, "loud", 1.5, None)},
    }  # fmt: skip
    for name in ("a constant", "whole numbers", "without a graph"):  # whose values are all that is asked for here
        of_all["measurement"] = {k: v for k, v in of_all["measurement"].items() if k != name}
    few = {name: of_all[name] for name in ("net", "X_query", "n_repeats", "engine", "cache", "measurement")}
    sizes = {repr(one): one for one in (-0.1, 1.5, 0, 24, float("nan"), "0.5", None, True, 1j)} | {"a list": [0.5]}
    found = of(
        "retrain_on_subsets",
        retrain_on_subsets,
        {**good, "n_subsets": 2},
        n_subsets=bad.COUNT_NOT_NONE,
        subset_size=sizes,
        subsets=subsets,
        **of_all,
    )
    found += of(
        "leave_one_out",
        leave_one_out,
        {**good, "rows": [0]},
        rows=without_none(bad.rows(24)),
        renormalize=bad.SWITCH,
        **few,
    )
    found += of(
        "retrain_without",
        retrain_without,
        {**good, "removed": {"a": [0]}},
        removed=bad.groups(24),
        renormalize=bad.SWITCH,
        **few,
    )
    labelled = {
        **good,
        "net": _bare_classifier(),
        "y_train": LABELS,
        "y_query": query_labels,
        "n_subsets": 2,
        "measurement": "neg_loss",
    }
    found += of(
        "retrain_on_subsets(classifier)",
        retrain_on_subsets,
        labelled,
        y_train=bad.labels(LABELS),
        y_query=bad.labels(query_labels),
    )
    found += of(
        "retrain_on_subsets(neg_loss)",
        retrain_on_subsets,
        {**good, "n_subsets": 2, "measurement": "neg_loss", "y_query": y_query},
        y_query=bad.numbers(y_query) | {"None": None},
    )
    one = {"masks": TRUTH.masks, "outputs": TRUTH.outputs, "measurement": "prediction", "seeds": TRUTH.seeds}
    found += of("Retraining", Retraining, one, masks=subsets, outputs=bad.score_tables(TRUTH.outputs), measurement={"5": 5, "None": None, "a list": ["a"]},
                seeds={"negative": -TRUTH.seeds - 1, "fractions": TRUTH.seeds + 0.5, "too few": TRUTH.seeds[:2], "None": None, "texts": np.full((9, 2), "a")},
                settings={"5": 5, "a text": "fast", "a list": [1]}, names=NAMES, row_hashes={"too few": np.zeros(3, np.uint64), "floats": np.zeros(24), "texts": ["a"] * 24},
                X_query=without_none(bad.tables(X_query)))  # fmt: skip
    return found + of("Retraining.merge", TRUTH.merge, {}, other={**bad.truths(TRUTH), "of other rows": loo_truth()})


def _bare_classifier():
    from skorch import NeuralNetClassifier

    return make_net(
        NeuralNetClassifier,
        recorded=False,
        module__hidden=(4,),
        module__n_features=3,
        module__n_outputs=3,
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=1,
    )


def stored_cells(folder):
    """Files and folders that are something else."""
    made = folder / "made"
    made.mkdir(exist_ok=True)
    (made / "trajectory.json").write_text("{}")
    read = {
        **bad.FOLDER,
        "None": None,
        "no such place": folder / "none",
        "a file": folder / "file",
        "another folder": folder,
        "an empty index": made,
        "in a file": folder / "file" / "t",
    }
    written = {
        **bad.FOLDER,
        "None": None,
        "a file": folder / "file",
        "in a file": folder / "file" / "t",
        "a folder of others": folder,
    }
    written.pop("True")
    trajectory = Trajectory.from_net(net())
    found = of("Trajectory.load", Trajectory.load, {}, path=read) + of(
        "Trajectory.save", trajectory.save, {}, path=written
    )
    found += of("Trajectory.save", trajectory.save, {"path": folder / "saved"}, overwrite=bad.SWITCH)
    written = {**bad.FOLDER, "None": None, "a folder": folder, "in a file": folder / "file" / "t"}
    found += of("Retraining.load", Retraining.load, {}, path=read) + of("Retraining.save", TRUTH.save, {}, path=written)
    report = attribution_report(
        fitted("TracIn", "labels"),
        X_query,
        query_labels,
        queries=[0, 1],
        X_train=X_train,
        y_train=LABELS,
        n_shown=2,
        k=2,
    )
    return found + of("AttributionReport.save", report.save, {}, path=written)


def data_cells():
    texts = ["What is an atom ?", "What is it ?"]
    encoder = TextEncoder().fit(texts)
    no_texts = {
        "a text": "text",
        "None": None,
        "5": 5,
        "numbers": [1, 2],
        "None inside": ["a", None],
        "bytes": [b"a"],
        "lists": [["a"]],
        "no texts": [],
        "an array of numbers": np.zeros(3),
        "a table": np.full((2, 2), "a"),
    }
    tokens = {
        "beyond": [[99]],
        "negative": [[-1]],
        "fractions": [[1.5]],
        "texts": [["a"]],
        "one axis": [3, 4],
        "None": None,
        "ragged": [[3], [3, 4]],
        "complex": [[3j]],
        "NaN": [[float("nan")]],
        "a number": 3,
    }
    found = of("TextEncoder.fit", encoder.fit, {}, X=no_texts)
    found += of(
        "TextEncoder.transform", encoder.transform, {}, X={k: v for k, v in no_texts.items() if k != "no texts"}
    )
    found += of("TextEncoder.inverse_transform", encoder.inverse_transform, {}, X=tokens)
    longer = {name: value for name, value in tokens.items() if name != "beyond"}
    found += of("next_tokens", next_tokens, {}, tokens=longer | {"one token": [[3]]})

    def make(**options):
        return TextEncoder(**options).fit(texts)

    switches = dict.fromkeys(("lowercase", "shapes", "edges"), bad.SWITCH)
    found += of(
        "TextEncoder", make, {}, level=bad.CHOICE, max_length=bad.COUNT, min_count=bad.COUNT_NOT_NONE, **switches
    )
    found += of("load_questions", load_questions, {}, subset={**bad.CHOICE, "None": None}, return_X_y=bad.SWITCH)
    found += of("load_plays", load_plays, {}, max_length=bad.COUNT)
    found += of("load_concrete_split", load_concrete_split, {}, random_state=RANDOM_SEED)
    found += of("FullTrainingSet", FullTrainingSet, {}, n_splits=bad.COUNT_NOT_NONE)
    found += of("make_lds_scorer", make_lds_scorer, {"truth": TRUTH, "X_query": X_query}, truth=bad.truths(TRUTH), X_query={"too few": X_query[:2], "5": 5, "a text": "rows", "ragged": [[1.0], [1.0, 2.0]] * 2, "a set": {1}},
                queries=without_none(bad.rows(4)), metric=CALLABLE, random_state=RANDOM_SEED)  # fmt: skip
    found += of(
        "held_out_score",
        held_out_score,
        {},
        search={"None": None, "5": 5, "an estimator": fitted("TracIn"), "a class": TracIn},
    )
    for name, function in (("set_config", set_config), ("config_context", _entered)):
        found += of(name, function, {}, memory_budget=bad.COUNT)
    return found


def _entered(**options):
    with config_context(**options):
        return "entered"


def diffusion_cells():
    data = noise_rows(24, 4)
    method = {
        "n_timesteps": bad.COUNT,
        "n_noise": bad.COUNT,
        "rows": {**bad.CHOICE, "None": None},
        "measurement": {"5": 5, "a text": "log_odds", "None": None},
    }
    fit = {k: {n: v for n, v in table.items()} for k, table in method.items()}
    found = of(
        "DiffusionTracIn.fit", lambda **o: DiffusionTracIn(**o).fit(net("noise"), data_like()), {"rows": "grid"}, **fit
    )
    found += of(
        "DiffusionTracIn.fit",
        lambda net: DiffusionTracIn().fit(net, data_like()),
        {},
        net={"a regression": net(), "a text": "net", "5": 5},
    )
    loss = {
        "timesteps": {
            "negative": -1,
            "a list": [1, 2],
            "a text": "all",
            "fractions": 1.5,
            "a falling range": (5, 2),
            "three": (1, 2, 3),
            "True": True,
        },
        "loss": bad.CHOICE,
        "seed": {"text": "0", "negative": -1, "None": None, "fractions": 1.5},
    }
    found += of("DenoisingLoss", DenoisingLoss, {}, n_timesteps=bad.COUNT_NOT_NONE, n_noise=bad.COUNT_NOT_NONE, **loss)
    model = net("noise")
    found += of(
        "DiffusionNet.sample",
        model.sample,
        {"n": 1, "n_steps": 2},
        n=bad.COUNT_NOT_NONE,
        method=bad.CHOICE,
        n_steps=bad.COUNT | {"beyond": 99},
        random_state=RANDOM_SEED,
        clip={"5": 5, "texts": ("a", "b"), "falling": (1.0, -1.0), "one": (1.0,), "NaN": (float("nan"), 1.0)},
    )

    def start(**options):
        return small_net(**options).initialize()

    found += of(
        "DiffusionNet",
        start,
        {},
        n_timesteps=bad.COUNT_NOT_NONE,
        schedule={**bad.CHOICE, "None": None},
        target={**bad.CHOICE, "None": None},
        ema_decay={n: v for n, v in bad.FRACTION.items() if n not in ("None", "0")},
        conditional=bad.SWITCH,
    )
    return found + of(
        "DiffusionTracIn.transform", fitted("TracIn", "noise").transform, {}, X=_four_wide(bad.tables(data[:4, :3]))
    )


def data_like():
    return noise_rows(24, 3)


def _four_wide(tables):
    return {name: value for name, value in tables.items() if name not in ("too wide", "three axes")}
