"""A trajectory in a few lines of text."""

from __future__ import annotations

import numpy as np


def summarize(trajectory):
    """One line on the whole, and one for each stage: str."""
    n_parameters = sum(int(np.prod(shape)) for shape in trajectory.checkpoints[-1].parameter_shapes.values())
    lines = [
        f"Trajectory: {_count(trajectory.n_steps, 'step')}, {_count(len(trajectory.stages), 'stage')}, "
        f"{_count(len(trajectory.checkpoints), 'checkpoint')}, {_count(n_parameters, 'parameter')}"
    ]
    for stage in trajectory.stages:
        steps = [str(checkpoint.step) for checkpoint in trajectory.stage_checkpoints(stage)]
        if len(steps) > 8:
            steps = [*steps[:4], "...", *steps[-3:]]
        named = [(name.replace("_", " "), stage.hyper[name]) for name in ("lr", "momentum", "weight_decay")]
        hyper = ", ".join(f"{name} {_range(values)}" for name, values in named if name == "lr" or values.any())
        lines.append(
            f"  stage {stage.index}: {stage.optimizer} ({hyper}), {len(stage.rows)} of {_count(stage.n_rows, 'row')}, "
            f"checkpoints after steps {', '.join(steps)}"
        )
    return "\n".join(lines)


def _count(n, noun):
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _range(values):
    low, high = (f"{extreme:.4g}" for extreme in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
