"""One recorded state of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..utils._digest import tensor_digest

__all__ = ["Checkpoint", "snapshot", "with_buffers_of"]


class Checkpoint:
    """The state of a network after one training step.

    Read more in the :ref:`User Guide <recording>`.

    Parameters
    ----------
    step : int
        Steps taken since training began, over all stages; 0 is before the first.
    stage : int
        Index of the stage.
    parameters, buffers : mapping of str to Tensor
        CPU tensors by their names in ``module.named_parameters()`` / ``named_buffers()``; tied parameters once, under
        their first name. Treat them as read-only.
    optimizer_state : mapping of str to dict, optional
        For each parameter what the optimizer kept for it (``exp_avg_sq``, ``step``, ...).
    outside : mapping, optional
        What the loss depended on besides, see :func:`outside_state`.
    digest : str, optional
        Hash of the parameters, computed when it is first asked for where it is left out.

    Notes
    -----
    A checkpoint that lives on disk reads its file at each access of ``parameters``, ``buffers`` or ``optimizer_state``
    (only that part) and keeps nothing in memory: keep the result at hand rather than ask twice.
    """

    def __init__(
        self,
        step: int,
        stage: int,
        parameters: Mapping[str, torch.Tensor],
        buffers: Mapping[str, torch.Tensor],
        optimizer_state: dict[str, dict] | None = None,
        outside: Mapping[str, Any] | None = None,
        *,
        digest: str | None = None,
    ):
        self.step = int(step)
        self.stage = int(stage)
        self._parameters = dict(parameters)
        self._buffers = dict(buffers)
        self._optimizer_state = optimizer_state
        self._outside = outside
        self._file: Any = None
        self._digest = digest

    @classmethod
    def from_file(cls, step: int, stage: int, digest: str, file: Any) -> Checkpoint:
        """Make a checkpoint that reads its tensors from a file when asked.

        Parameters
        ----------
        step : int
            Steps taken since training began, over all stages.
        stage : int
            Index of the stage.
        digest : str
            Hash of the parameters, which the file must hold.
        file : CheckpointFile
            Where the tensors are.

        Returns
        -------
        checkpoint : Checkpoint
            That keeps nothing in memory.
        """
        checkpoint = cls(step, stage, {}, {}, digest=digest)
        checkpoint._file = file
        return checkpoint

    @property
    def digest(self) -> str:
        """Hash of the parameters."""
        if self._digest is None:  # most checkpoints are thinned out before anybody asks
            self._digest = tensor_digest(self._parameters)
        return self._digest

    @property
    def path(self) -> Path | None:
        """Path of the file that holds the tensors, None for a checkpoint in memory."""
        return None if self._file is None else self._file.path

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters; raises ValueError naming the file when it is missing, truncated or not the recorded one."""
        if self._file is None:
            return self._parameters
        parameters = self._file.parameters()
        if tensor_digest(parameters) != self.digest:
            raise ValueError(
                f"{self.path}: expected the parameters recorded after step {self.step} but the file holds others: it "
                "is damaged or was replaced. Restore it, or record the trajectory again"
            )
        return parameters

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """The buffers (running means and the like)."""
        return self._buffers if self._file is None else self._file.buffers()

    @property
    def optimizer_state(self) -> dict[str, dict] | None:
        """What the optimizer kept per parameter, or None when it was not recorded."""
        return self._optimizer_state if self._file is None else self._file.optimizer_state()

    @property
    def outside(self) -> Mapping[str, Any] | None:
        """What the loss depended on besides parameters and buffers; None when it was not recorded."""
        return self._outside if self._file is None else self._file.outside()

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, without reading tensors from disk."""
        if self._file is not None:
            return self._file.parameter_shapes()
        return {name: tuple(value.shape) for name, value in self._parameters.items()}

    def __repr__(self):
        where = "" if self.path is None else f", {self.path}"
        return f"<Checkpoint after step {self.step}, stage {self.stage}{where}>"


def snapshot(
    module: torch.nn.Module,
    step: int,
    stage: int,
    optimizer: torch.optim.Optimizer | None = None,
    outside: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Copy the present state of `module` (and of `optimizer`, when given) to CPU tensors.

    Parameters
    ----------
    module : torch.nn.Module
    step, stage : int
    optimizer : torch.optim.Optimizer, optional
        Its state is copied too: tensors and numbers, for the parameters of `module`.
    outside : mapping, optional
        Of :func:`outside_state`.

    Returns
    -------
    checkpoint : Checkpoint
    """
    parameters = dict(module.named_parameters())  # a tied parameter comes once, under its first name
    state = None
    if optimizer is not None:
        kept = {
            name: _copy_state(optimizer.state[value]) for name, value in parameters.items() if value in optimizer.state
        }
        state = {name: entries for name, entries in kept.items() if entries} or None
    copies = {name: _copy(value) for name, value in parameters.items()}
    buffers = {name: _copy(value) for name, value in module.named_buffers()}
    return Checkpoint(step, stage, copies, buffers, state, outside)


def with_buffers_of(checkpoint: Checkpoint, module: torch.nn.Module) -> Checkpoint:
    """Give a checkpoint the present buffers of `module`, whose parameters it has.

    They differ when a forward pass in training mode came after the last step: an interrupted one, or one that estimated
    the statistics of batch norm again.
    """
    buffers = dict(module.named_buffers())
    recorded = checkpoint.buffers
    if buffers.keys() == recorded.keys() and tensor_digest(buffers) == tensor_digest(
        {name: recorded[name] for name in buffers}
    ):
        return checkpoint
    copies = {name: _copy(value) for name, value in buffers.items()}
    state = checkpoint.optimizer_state
    return Checkpoint(
        checkpoint.step,
        checkpoint.stage,
        checkpoint.parameters,
        copies,
        state,
        checkpoint.outside,
        digest=checkpoint._digest,
    )


def _copy(value):
    return value.detach().to("cpu", copy=True)


def _copy_state(entries):
    copied = {}
    for key, value in entries.items():
        if isinstance(value, torch.Tensor):
            copied[key] = _copy(value)
        elif isinstance(value, (bool, int, float)):
            copied[key] = value
    return copied
