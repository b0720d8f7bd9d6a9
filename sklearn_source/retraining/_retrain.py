"""The three questions to ask of retraining."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from skorch import NeuralNet

from ..rows import row_indices
from ..utils._argument_checks import check_count, check_switch
from ._execution import Execution
from ._masks import check_masks, draw_masks, leave_out_masks
from ._retraining import Retraining
from ._task import make_task


def retrain_on_subsets(
    net: NeuralNet | Pipeline,
    X_train: Any,
    y_train: Any,
    X_query: Any,
    y_query: Any = None,
    *,
    n_subsets: int = 100,
    subset_size: float = 0.5,
    n_repeats: int = 5,
    subsets: ArrayLike | None = None,
    equal_steps: bool = False,
    measurement: str | Callable = "auto",
    output: int | tuple[int, ...] | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    engine: str = "auto",
    chunk_size: int | None = None,
    cache: str | os.PathLike | None = None,
    verbose: int = 0,
) -> Retraining:
    """Train a network on random subsets of its rows, again and again: the truth that scores are judged by.

    Every network starts from fresh weights and meets its rows in an order of its own; see Notes for what that costs.

    Read more in the :ref:`User Guide <retraining>`.

    Parameters
    ----------
    net : skorch.NeuralNet or Pipeline
        Trained or not; only its configuration is used, and it is not modified. It must be built from a module class (or
        a factory), not from an instance. A ``TrajectoryRecorder`` and callbacks that print or save are left out. A
        ``train_split`` that takes rows away from training is left out, with a warning. Of a pipeline that ends in a
        net, the net is trained again; the steps stay as they were fitted (:ref:`pipelines`).
    X_train : array-like, dict of arrays or Dataset
        What ``net.fit`` takes.
    y_train : array-like or None
        Their targets; None for a Dataset that has targets.
    X_query : array-like, dict of arrays or Dataset
        The queries.
    y_query : array-like, optional
        Their targets. Without them, the classes that a trained `net` predicts stand for the labels; a measurement that
        compares with other targets needs them.
    n_subsets : int, default=100
    subset_size : float or int, default=0.5
        Rows of each subset: a fraction of all, or a number.
    n_repeats : int, default=5
        Networks per subset. Two or more tell the noise ceiling.
    subsets : ndarray of bool, shape (n_subsets, n_train), optional
        These subsets instead of random ones: ``first.masks`` to make repeats that :meth:`Retraining.merge` takes.
    equal_steps : bool, default=False
        Whether every network takes as many steps as one on all rows: an epoch goes through the rows of a subset again,
        until it has as many as there are in all. False: as many epochs, so that half of the rows take half of the
        steps, and the networks are those of a shorter training as well (:ref:`equal_steps`).
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        As for the attribution methods. What is attributed and what is retrained must be measured alike.
    output : int or tuple of int, optional
        Which output ``"prediction"`` reads.
    random_state : int, RandomState instance or None, default=None
        Decides subsets, initial weights, batch order and whatever else is drawn. A network depends on it, on the place
        of its subset and on its repeat alone: more subsets or repeats begin with the same ones.
    n_jobs : int or None, default=None
        Processes (of any joblib backend) among which networks are shared out. The result does not depend on it.
    engine : {"auto", "vectorized", "joblib"}, default="auto"
        ``"joblib"`` trains a clone of the net at a time, whatever it is. ``"vectorized"`` trains many at once, their
        parameters stacked: for plain nets with an elementwise ``torch.optim`` optimizer and schedules by
        ``LRScheduler``. Both give the same networks up to rounding. ``"auto"`` takes the vectorized one where it can be
        had and gains (not for large networks or convolutions on a processor), and a trial of a few steps agrees with
        skorch; ``settings["engine_reason"]`` says why.
    chunk_size : int or None, default=None
        Networks that the vectorized engine trains at once; None fits a processor's cache, or, on a
        GPU, the memory budget (:func:`~sklearn_source.config_context`).
    cache : path-like, optional
        A folder where finished networks are kept: a run that was killed goes on from there, and one that asks for more
        subsets or repeats trains only those. May be shared by several retrainings.
    verbose : int, default=0
        Above 0: which engine and why, and a bar with the time that remains.

    Returns
    -------
    retraining : Retraining

    Raises
    ------
    ValueError
        If the net cannot be retrained, rows or queries cannot be read, or the settings contradict each other.
    TypeError
        If `net` is no skorch net.

    Notes
    -----
    Costs ``n_subsets * n_repeats`` trainings, each of ``subset_size`` times the work of one on all rows; with
    `equal_steps` of the same. The vectorized engine holds about four copies of ``chunk_size`` networks. Global random
    states are left as they were.

    Examples
    --------
    >>> truth = retrain_on_subsets(net, X, y, X_query, n_subsets=100, random_state=0)  # doctest: +SKIP
    >>> linear_datamodeling_score(est.transform(X_query), truth).score  # doctest: +SKIP
    """
    check_count("n_repeats", n_repeats)
    task = make_task(
        net, X_train, y_train, X_query, y_query,
        measurement=measurement, output=output, paired=False, renormalize=True,
        equal_steps=check_switch("equal_steps", equal_steps),
    )  # fmt: skip
    execution = Execution(random_state, n_jobs, engine, chunk_size, cache, verbose)
    n_rows = task.plan.n_rows
    if subsets is None:
        check_count("n_subsets", n_subsets)
        masks = draw_masks(n_rows, n_subsets, subset_size, execution.root)
    else:
        masks = check_masks(subsets, n_rows)
    return execution.retrain(task, masks, n_repeats, X_query=X_query, y_query=y_query)


def leave_one_out(
    net: NeuralNet | Pipeline,
    X_train: Any,
    y_train: Any,
    X_query: Any,
    y_query: Any = None,
    *,
    rows: ArrayLike | None = None,
    n_repeats: int = 1,
    renormalize: bool = True,
    measurement: str | Callable = "auto",
    output: int | tuple[int, ...] | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    engine: str = "auto",
    chunk_size: int | None = None,
    cache: str | os.PathLike | None = None,
    verbose: int = 0,
) -> Retraining:
    """Train a network on all rows, and again without each of them in turn.

    Read more in the :ref:`User Guide <retraining>`.

    Parameters
    ----------
    net : skorch.NeuralNet or Pipeline
        Trained or not; only its configuration is used, and it is not modified. It must be built from a module class (or
        a factory), not from an instance. A pipeline's steps stay as they were fitted: :ref:`pipelines`.
    X_train : array-like, dict of arrays or Dataset
        What ``net.fit`` takes.
    y_train : array-like or None
        Their targets; None for a Dataset that has targets.
    X_query : array-like, dict of arrays or Dataset
        The queries.
    y_query : array-like, optional
        Their targets. Without them, the classes that a trained `net` predicts stand for the labels.
    rows : array-like of int, optional
        The rows to leave out in turn; by default every row.
    n_repeats : int, default=1
        Networks per row left out. Networks of one repeat start from the same weights and meet the same batches, the row
        left out aside: the chance of a training would otherwise drown the effect of one row.
    renormalize : bool, default=True
        Whether the loss of a batch that lost its row is the mean over the others, as in a training without the row.
        False divides by the size of the full batch: the others keep the weight 1/N that they had, which is what
        scores are the derivative of.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        As for the attribution methods. What is attributed and what is retrained must be measured alike.
    output : int or tuple of int, optional
        Which output ``"prediction"`` reads.
    random_state : int, RandomState instance or None, default=None
        Decides initial weights, batch order and whatever else is drawn.
    n_jobs : int or None, default=None
        Processes among which networks are shared out. The result does not depend on it.
    engine : {"auto", "vectorized", "joblib"}, default="auto"
        How networks are trained: one clone of the net at a time, or many at once; :func:`retrain_on_subsets` has more.
    chunk_size : int or None, default=None
        Networks that the vectorized engine trains at once; None: by cache or memory.
    cache : path-like, optional
        A folder where finished networks are kept, so that a run that was killed goes on from there.
    verbose : int, default=0
        Above 0: which engine and why, and a bar with the time that remains.

    Returns
    -------
    retraining : Retraining
        Its first subset holds all rows, named ``"all"``; one follows for each row left out, named by its index.
        :meth:`Retraining.effects` gives the effects, in the unit and with the sign of scores.

    Raises
    ------
    ValueError, TypeError
        As :func:`retrain_on_subsets`, or if `rows` are no rows, or name one twice.

    Notes
    -----
    Costs ``(1 + len(rows)) * n_repeats`` trainings.
    """
    task = _paired_task(net, X_train, y_train, X_query, y_query, measurement, output, renormalize, n_repeats)
    rows = np.arange(task.plan.n_rows) if rows is None else row_indices(rows, task.plan.n_rows, "rows")
    masks, names = leave_out_masks([str(row) for row in rows], rows[:, None], task.plan.n_rows)
    execution = Execution(random_state, n_jobs, engine, chunk_size, cache, verbose)
    return execution.retrain(task, masks, n_repeats, names=names, X_query=X_query, y_query=y_query)


def retrain_without(
    net: NeuralNet | Pipeline,
    X_train: Any,
    y_train: Any,
    X_query: Any,
    y_query: Any = None,
    *,
    removed: Mapping[Any, ArrayLike] | Iterable[ArrayLike],
    n_repeats: int = 1,
    renormalize: bool = True,
    measurement: str | Callable = "auto",
    output: int | tuple[int, ...] | None = None,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    engine: str = "auto",
    chunk_size: int | None = None,
    cache: str | os.PathLike | None = None,
    verbose: int = 0,
) -> Retraining:
    """Train a network on all rows, and again without each of several groups of them.

    Read more in the :ref:`User Guide <retraining>`.

    Parameters
    ----------
    net : skorch.NeuralNet or Pipeline
        Trained or not; only its configuration is used, and it is not modified. It must be built from a module class (or
        a factory), not from an instance. A pipeline's steps stay as they were fitted: :ref:`pipelines`.
    X_train : array-like, dict of arrays or Dataset
        What ``net.fit`` takes.
    y_train : array-like or None
        Their targets; None for a Dataset that has targets.
    X_query : array-like, dict of arrays or Dataset
        The queries.
    y_query : array-like, optional
        Their targets. Without them, the classes that a trained `net` predicts stand for the labels.
    removed : mapping, or array-like of shape (n_groups, k), or list of array-like
        The groups: a mapping from names to row indices (or masks of all rows), or indices of one group after the other.
        ``est.top_influences(X_query, k=20).indices`` removes the strongest rows of each query in turn; the effect on
        that query itself is then the diagonal of :meth:`Retraining.effects`.
    n_repeats : int, default=1
        Networks per group. Networks of one repeat start from the same weights and meet the same batches, the group left
        out aside.
    renormalize : bool, default=True
        Whether the loss of a batch that lost rows is the mean over the others, as in a training without the group.
        False divides by the size of the full batch.
    measurement : {"auto", "log_odds", "prediction", "neg_loss"} or callable, default="auto"
        As for the attribution methods. What is attributed and what is retrained must be measured alike.
    output : int or tuple of int, optional
        Which output ``"prediction"`` reads.
    random_state : int, RandomState instance or None, default=None
        Decides initial weights, batch order and whatever else is drawn.
    n_jobs : int or None, default=None
        Processes among which networks are shared out. The result does not depend on it.
    engine : {"auto", "vectorized", "joblib"}, default="auto"
        How networks are trained: one clone of the net at a time, or many at once; :func:`retrain_on_subsets` has more.
    chunk_size : int or None, default=None
        Networks that the vectorized engine trains at once; None: by cache or memory.
    cache : path-like, optional
        A folder where finished networks are kept, so that a run that was killed goes on from there.
    verbose : int, default=0
        Above 0: which engine and why, and a bar with the time that remains.

    Returns
    -------
    retraining : Retraining
        Its first subset holds all rows, named ``"all"``; one follows for each group, with its name. Networks of one
        repeat are paired as in :func:`leave_one_out`.

    Raises
    ------
    ValueError, TypeError
        As :func:`retrain_on_subsets`, or if there are no groups, two of one name, or one of no rows, or of all.

    Notes
    -----
    Costs ``(1 + n_groups) * n_repeats`` trainings.
    """
    task = _paired_task(net, X_train, y_train, X_query, y_query, measurement, output, renormalize, n_repeats)
    if not isinstance(removed, Iterable) or isinstance(removed, str):
        raise ValueError(
            "expected removed as a dict from names to rows, or the rows of one group after the other, got a "
            f"{type(removed).__name__}"
        )
    groups = dict(removed if isinstance(removed, Mapping) else enumerate(removed))
    masks, names = leave_out_masks([str(name) for name in groups], groups.values(), task.plan.n_rows)
    execution = Execution(random_state, n_jobs, engine, chunk_size, cache, verbose)
    return execution.retrain(task, masks, n_repeats, names=names, X_query=X_query, y_query=y_query)


def _paired_task(net, X, y, X_query, y_query, measurement, output, renormalize, n_repeats):
    check_count("n_repeats", n_repeats)
    return make_task(
        net,
        X,
        y,
        X_query,
        y_query,
        measurement=measurement,
        output=output,
        paired=True,
        renormalize=check_switch("renormalize", renormalize),
    )
