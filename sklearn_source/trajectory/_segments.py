"""Cutting a trajectory into segments, with the weight of each checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ._checkpoint import Checkpoint

__all__ = ["Segment", "nearest_to_equal_split", "split_segments"]


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive steps of one stage over which gradients and curvature are averaged.

    Parameters
    ----------
    stage : int
        Index of the stage.
    start, end : int
        The steps ``start + 1, ..., end``, counted over all stages.
    checkpoints : tuple of Checkpoint
        Those averaged, in order.
    weights : ndarray, shape (n_checkpoints,)
        Their weights; they sum to 1.
    """

    stage: int
    start: int
    end: int
    checkpoints: tuple[Checkpoint, ...]
    weights: np.ndarray


# Segments per stage where none are asked for: more gain next to nothing, fewer cost order (the guide has the numbers).
AUTO_SEGMENTS = 3


def split_segments(trajectory: Any, n_segments: int | str, quadrature: str = "trapezoid") -> list[Segment]:
    """Cut every stage of a trajectory into segments of nearly equal step counts.

    Boundaries are the recorded checkpoints nearest to the equal split, such that every segment has a checkpoint of its
    own in ``(start, end]``.

    Parameters
    ----------
    trajectory : Trajectory
    n_segments : int or "auto"
        Segments per stage; ``"auto"``: three, or as many as the stage has checkpoints after its start, if fewer.
    quadrature : {"trapezoid", "right"}
        ``"trapezoid"``: the checkpoints in ``[start, end]``, weighted as the trapezoid rule weights their steps (the
        mean of the piecewise linear interpolation). ``"right"``: those in ``(start, end]``, equally weighted, as in
        [1]_.

    Returns
    -------
    segments : list of Segment
        In order, those of a stage one after the other.

    Raises
    ------
    ValueError
        With fewer checkpoints than segments, or, for ``"trapezoid"``, without the initial weights.

    References
    ----------
    .. [1] Bae, Lin, Lorraine, Grosse, "Training Data Attribution via Approximate Unrolled Differentiation", 2024,
       section 3.
    """
    counted = isinstance(n_segments, Integral) and not isinstance(n_segments, bool) and n_segments >= 1
    if not counted and n_segments != "auto":
        raise ValueError(f"expected n_segments to be a whole number >= 1 or 'auto', got {n_segments!r}")
    if quadrature not in ("trapezoid", "right"):
        raise ValueError(f"expected quadrature to be 'trapezoid' or 'right', got {quadrature!r}")
    segments = []
    for stage in trajectory.stages:
        checkpoints = trajectory.stage_checkpoints(stage)
        own = [checkpoint for checkpoint in checkpoints if checkpoint.step > stage.start]
        n = max(1, min(AUTO_SEGMENTS, len(own))) if n_segments == "auto" else int(n_segments)
        if len(own) < n:
            raise ValueError(
                f"expected at least {n} checkpoints after the start of stage {stage.index}, one for each "
                f"segment, but the trajectory has {len(own)} there. Lower n_segments to {len(own)} or less, or record "
                f"more: TrajectoryRecorder(n_checkpoints={n}) on at least {n} training steps"
            )
        if quadrature == "trapezoid" and checkpoints[0].step != stage.start:
            raise ValueError(
                f"quadrature='trapezoid' needs the initial weights of stage {stage.index} (a checkpoint at step "
                f"{stage.start}), but its first checkpoint is at step {checkpoints[0].step}. Give the initial state "
                "dict, or use quadrature='right'"
            )
        steps = np.array([checkpoint.step for checkpoint in own])
        ends = steps[nearest_to_equal_split(steps, n, stage.start)].tolist()
        for start, end in zip([stage.start, *ends[:-1]], ends):
            segments.append(_segment(stage.index, start, end, checkpoints, quadrature))
    return segments


def nearest_to_equal_split(steps: np.ndarray, n: int, start: int) -> np.ndarray:
    """Choose n of the recorded steps nearest to an equal split of ``(start, steps[-1]]``.

    Parameters
    ----------
    steps : ndarray of int, shape (m,), increasing
    n : int
        At most m.
    start : int

    Returns
    -------
    indices : ndarray, shape (n,)
        Increasing positions in `steps`; the last one is always m - 1.
    """
    targets = start + (steps[-1] - start) * np.arange(1, n + 1) / n
    right = np.searchsorted(steps, targets).clip(max=len(steps) - 1)
    left = (right - 1).clip(min=0)
    nearest = np.where(targets - steps[left] <= steps[right] - targets, left, right)
    # Two targets may share their nearest step. Shift to the right until all differ, then back where the end is passed:
    # the smaller of two increasing sequences is increasing.
    rank = np.arange(n)
    distinct = np.maximum.accumulate(nearest - rank) + rank
    return np.minimum(distinct, len(steps) - n + rank)


def _segment(stage, start, end, checkpoints, quadrature):
    if quadrature == "right":
        inside = tuple(checkpoint for checkpoint in checkpoints if start < checkpoint.step <= end)
        weights = np.full(len(inside), 1.0 / len(inside))
    else:
        inside = tuple(checkpoint for checkpoint in checkpoints if start <= checkpoint.step <= end)
        gaps = np.diff([checkpoint.step for checkpoint in inside]).astype(np.float64)
        weights = (np.append(gaps, 0.0) + np.append(0.0, gaps)) / (2.0 * (end - start))
    return Segment(stage, start, end, inside, weights)
