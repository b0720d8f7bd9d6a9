"""What the next step of a net's optimizer would be, for trainings that nobody recorded."""

from __future__ import annotations

from ._checkpoint import snapshot
from ._optimizer_kind import inner_optimizer
from ._stage_log import StageLog
from ._trajectory import Trajectory

__all__ = ["present_step"]


def present_step(net):
    """One step of unit rate by the net's optimizer as it stands, as if a recorder had seen it.

    Its weight decay, and the preconditioner of its state, are what a training that converged ends with; of how far the
    training moved the weights it says nothing.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not modified.

    Returns
    -------
    trajectory : Trajectory or None
        None where the optimizer has no weight decay.
    """
    optimizer = inner_optimizer(net.optimizer_)
    decays = [float(group.get("weight_decay", 0.0)) for group in optimizer.param_groups]
    if not any(decays):
        return None
    names = {id(value): name for name, value in net.module_.named_parameters()}
    for group in optimizer.param_groups:
        for value in group["params"]:  # of the criterion, say: of no concern here
            names.setdefault(id(value), f"outside of the module: {id(value)}")
    log = StageLog(0, 0, n_rows=0, row_hashes=None)
    # A schedule may have brought the rate to zero, and momentum changes no fixed point.
    log.record_step(optimizer, names, [value for decay in decays for value in (1.0, 0.0, 0.0, decay)])
    return Trajectory([snapshot(net.module_, 1, 0, optimizer)], [log.to_stage(1)])
