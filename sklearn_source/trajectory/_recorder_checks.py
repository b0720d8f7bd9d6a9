"""What a recorder checks before it records, and what it asks a net about."""

from __future__ import annotations

from numbers import Integral

import torch

from ..utils._argument_checks import check_path, check_switch
from ..utils._compat_skorch import optimizer_names

__all__ = ["check_optimizer", "check_parameters", "lengths_of_epoch"]


def check_parameters(recorder):
    """ValueError for parameters of a recorder that are none."""
    n = recorder.n_checkpoints
    if n is not None and (not isinstance(n, Integral) or isinstance(n, bool) or n < 1):
        raise ValueError(f"expected n_checkpoints to be a whole number >= 1, or None to keep every step, got {n!r}")
    if not isinstance(recorder.optimizer_state, bool) and not (
        isinstance(recorder.optimizer_state, str) and recorder.optimizer_state == "auto"
    ):
        raise ValueError(f"expected optimizer_state to be True, False or 'auto', got {recorder.optimizer_state!r}")
    if recorder.dirname is not None:
        check_path("dirname", recorder.dirname)
    check_switch("overwrite", recorder.overwrite)


def check_optimizer(net):
    """ValueError for a net that has not one torch optimizer."""
    names = optimizer_names(net) or ["optimizer"]
    optimizer = getattr(net, "optimizer_", None)
    if names != ["optimizer"] or not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"TrajectoryRecorder needs a net with one torch optimizer, named optimizer_, but this one has "
            f"{', '.join(name + '_' for name in names) or 'none'}"
            f"{'' if optimizer is None else f' (optimizer_ is a {type(optimizer).__name__})'}. Train all "
            "parameters with a single optimizer (parameter groups may differ), or leave the recorder out"
        )


def lengths_of_epoch(net, log):
    """How many batches an epoch may have; a sampler may make it another number."""
    n_rows = log.n_rows if log.rows is None else len(log.rows)
    size = net.get_params_for("iterator_train").get("batch_size", net.batch_size)
    if not n_rows or not isinstance(size, Integral) or size < 1:
        return {1}
    return {n_rows // int(size), -(-n_rows // int(size))}
