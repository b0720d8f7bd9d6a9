"""Other weights or targets of the training rows, as users ask for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows import Rows, cast_real, group_masks
from ..utils._argument_checks import check_switch
from ..utils._compat_torch import tree_leaves
from ..utils._warnings import warn

STEPS = ("damped", "full")
# Times the training's damping: next to nothing of the curvature is left in a step that is damped so much.
MUCH_DAMPED = 64


@dataclass(frozen=True)
class ChangedRows:
    """The trainings that are asked about, by what is other in them.

    Parameters
    ----------
    weights : ndarray (n_groups, n_train)
        What each row weighs in the curvature, 1 as it was.
    pulls : list of (Rows, ndarray (n_groups, n_train))
        How many of each row's losses come in, or leave where negative.
    step : {"damped", "full"}
        How far is gone towards the solution of the linearised network.
    damping : ndarray (n_groups,)
        The most, over checkpoints, of what a damped step was damped by, relative to the training's own.
    """

    weights: NDArray[np.float64]
    pulls: list[tuple[Rows, NDArray[np.float64]]]
    step: str = "full"
    damping: NDArray[np.float64] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "damping", np.ones(len(self.weights)))

    def note(self, groups: slice, damping: NDArray[np.float64]) -> None:
        """Keep what the steps of some groups were damped by at a checkpoint."""
        self.damping[groups] = np.maximum(self.damping[groups], damping)

    def warn_of_much_damping(self) -> None:
        """Say which changes are beyond what any linearisation of the network foretells."""
        groups = np.flatnonzero(self.damping >= MUCH_DAMPED)
        if len(groups):
            warn(
                f"the network does not follow its linearisation as far as {_counted(groups, len(self.weights))} would "
                f"move it: steps were damped up to {self.damping.max():.0f} times as much as the training does. Take "
                "the order of changes rather than their size, and train again to know"
            )


def _counted(groups, n_groups):
    shown = ", ".join(map(str, groups[:5])) + (", ..." if len(groups) > 5 else "")
    return "the change asked about" if n_groups == 1 else f"{len(groups)} of {n_groups} changes (number {shown})"


def reweighted(rows: Rows, weights: NDArray[np.float64], step: str) -> ChangedRows:
    """Rows that weigh otherwise: ``weights`` (n_groups, n_train), 1 as they were."""
    return ChangedRows(weights, [(rows, weights - 1.0)], step)


def relabelled(rows: Rows, changed: Rows, groups: Any, batch_size: int, step: str) -> ChangedRows:
    """The same rows with other targets, those of a group together.

    The curvature of squared errors and of likelihoods of exponential families does not depend on targets.

    Parameters
    ----------
    rows, changed : Rows
        With the targets as they were, and as they are asked about.
    groups : see :func:`~sklearn_source.inspection.group_influence`, or None
        Rows whose targets change together; None: all whose targets are other ones.
    batch_size : int
        Rows compared at a time.
    step : see :class:`ChangedRows`

    Raises
    ------
    ValueError
        If the targets have another shape, or all of a group's are what they were.
    """
    differs = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), batch_size):
        some = slice(start, start + batch_size)
        before, after = (tree_leaves(one.given.targets(some)) for one in (rows, changed))
        for old, new in zip(before, after, strict=True):
            if old.shape != new.shape:
                raise ValueError(f"expected targets of shape {tuple(old.shape[1:])} each, got {tuple(new.shape[1:])}")
            differs[some] |= (old != new).reshape(len(old), -1).any(dim=1).cpu().numpy()
    names, masks = (["all"], differs[None]) if groups is None else group_masks(groups, len(rows))
    masks = masks & differs
    if not masks.any(axis=1).all():
        which = "any row" if groups is None else f"a row of group {names[int(masks.any(axis=1).argmin())]!r}"
        raise ValueError(f"expected y_train with another target than that of fit for {which}, got the same ones")
    moved = masks.astype(np.float64)
    return ChangedRows(np.ones(masks.shape), [(rows, -moved), (changed, moved)], step)


# Of a row. What is left of the others beside it is rounding error from about 1e16 on.
LARGEST_WEIGHT = 1e12


def row_weights_asked(groups: Any, weights: Any, n_train: int, renormalize: bool) -> NDArray[np.float64]:
    """Weights of the rows in each training asked about, 1 as they were: (n_groups, n_train).

    Parameters
    ----------
    groups : see :func:`~sklearn_source.inspection.group_influence`, or None
        Removed.
    weights : array-like of shape (n_groups, n_train) or (n_train,), or None
        In place of groups.
    n_train : int
    renormalize : bool
        Whether the loss is a weighted mean, in which the weights of all rows have mean one.

    Raises
    ------
    ValueError
        If both or neither are given, weights are negative, not finite or above 1e12, or leave nothing to train on.
    """
    check_switch("renormalize", renormalize)
    if (groups is None) == (weights is None):
        given = "both" if groups is not None else "neither"
        raise ValueError(f"expected either groups, to be removed, or weights of all rows, got {given}")
    if groups is not None:
        asked = 1.0 - group_masks(groups, n_train)[1]
    else:
        try:
            asked = np.atleast_2d(cast_real(np.asarray(weights), np.float64, "weights"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected weights as real numbers, got a {type(weights).__name__} ({error})") from error
        if asked.ndim != 2 or asked.shape[1] != n_train:
            raise ValueError(
                f"expected weights of shape (n_groups, n_train) = (n_groups, {n_train}), got {np.shape(weights)}"
            )
        if not len(asked):
            raise ValueError("expected weights of at least one training, got none")
        if not np.isfinite(asked).all() or (asked < 0).any():
            raise ValueError("expected weights that are finite and not negative: 1 as in training, 0 for a row removed")
        if asked.max() > LARGEST_WEIGHT:
            raise ValueError(
                f"expected weights up to {LARGEST_WEIGHT:g}, beside which the other rows count for something, got "
                f"{asked.max():g}: a row at {LARGEST_WEIGHT:g} decides alone already"
            )
    totals = asked.sum(axis=1)
    if not (totals > 0).all():
        raise ValueError(f"expected rows that are left to train on, got none for group {int(totals.argmin())}")
    return asked * (n_train / totals)[:, None] if renormalize else asked
