"""What a training did, in the form that every attribution method reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from skorch import NeuralNet

from ..network import Network
from ..utils._argument_checks import check_path, check_switch
from ._checkpoint import Checkpoint
from ._from_checkpoints import record_from_checkpoints
from ._from_net import record_from_net
from ._rates import Rates
from ._record_verification import Verification, verify_stages
from ._stage import Stage, with_velocities
from ._store import TrajectoryDirectory
from ._stored import load_directory
from ._summary import summarize

__all__ = ["Checkpoint", "Stage", "Trajectory"]


class Trajectory(Rates):
    """The recorded training of a network: checkpoints, and learning rates of every step.

    Make one with :meth:`from_net`, :meth:`load` or :meth:`from_checkpoints`.

    Read more in the :ref:`User Guide <recording>`.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
        In order of their steps; a stage that began at the last weights of the stage before has no initial checkpoint of
        its own.
    stages : sequence of Stage
        Consecutive, from step 0 on.
    observations : sequence of Observation, default=()
        Steps that the recorder saw from close by, for :meth:`verify`.

    Attributes
    ----------
    checkpoints : tuple of Checkpoint
    stages : tuple of Stage
    observations : tuple of Observation
    n_steps : int
        Steps taken over all stages.
    parameter_names : tuple of str
        The parameters of the trained network.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], stages: Sequence[Stage], observations: Sequence[Any] = ()):
        self.checkpoints = tuple(checkpoints)
        self.observations = tuple(observations)
        if not stages or not self.checkpoints:
            raise ValueError("A trajectory needs at least one stage and one checkpoint")
        super().__init__(with_velocities(tuple(stages)), tuple(self.checkpoints[-1].parameter_shapes))
        starts = [0, *(stage.end for stage in self.stages)]
        if [stage.start for stage in self.stages] != starts[:-1]:
            raise ValueError("expected stages that follow each other from step 0 on")

    @classmethod
    def from_net(cls, net: NeuralNet) -> Trajectory:
        """Read what the :class:`TrajectoryRecorder` of a trained skorch net recorded.

        The trajectory ends at the weights that the net has now: when early stopping or a checkpoint callback restored
        those of an earlier epoch, the steps after it are left out, and the last checkpoint may lack optimizer state.

        Parameters
        ----------
        net : skorch.NeuralNet
            Not modified.

        Returns
        -------
        trajectory : Trajectory

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the net is not initialized.
        TypeError
            If it is no skorch net.
        ValueError
            If it has no recorder, the recorder saw no step, or the present weights are none that it saw.
        """
        return cls(*record_from_net(net))

    @classmethod
    def from_checkpoints(
        cls,
        state_dicts: Sequence[Mapping[str, torch.Tensor] | str | os.PathLike],
        steps: Sequence[int],
        learning_rates: ArrayLike,
        *,
        module: torch.nn.Module,
        optimizer: str | type[torch.optim.Optimizer] = "SGD",
        momentum: ArrayLike = 0.0,
        dampening: ArrayLike = 0.0,
        nesterov: bool = False,
        weight_decay: ArrayLike = 0.0,
        n_rows: int,
        rows: ArrayLike | None = None,
        X: Any = None,
        y: Any = None,
        optimizer_states: Sequence[Mapping | None] | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        groups: Sequence[Sequence[str]] | None = None,
    ) -> Trajectory:
        """Describe a training that no recorder watched: nothing of its steps can be verified (:meth:`verify`).

        Parameters
        ----------
        state_dicts : sequence of dict or path
            ``module.state_dict()`` (copied at the time) or a safetensors file of it, in order.
        steps : sequence of int
            Steps taken when each was saved. 0 is the initial network; without it only ``quadrature="right"`` works.
        learning_rates : float, array (T,) or (T, n_groups)
            The rate of every step up to the last checkpoint, ``T = steps[-1]``.
        module : torch.nn.Module
            The network: tells parameters from buffers, and their shapes. Not modified.
        optimizer : str or type, default="SGD"
            Class, or name of the class.
        momentum : float, array (T,) or (T, n_groups), default=0.0
            As the optimizer used it, at every step or throughout.
        dampening : float, array (T,) or (T, n_groups), default=0.0
            The same of the gradient's dampening in the momentum.
        nesterov : bool, default=False
            Whether the momentum is Nesterov's.
        weight_decay : float, array (T,) or (T, n_groups), default=0.0
            The same of the weight decay.
        n_rows : int
            Number of training rows.
        rows : array of int, optional
            Indices of those really trained on. Default: all.
        X : array-like of shape (n_rows, ...), optional
            The training rows; their fingerprints are kept, so that other rows are refused later.
        y : array-like of shape (n_rows, ...), optional
            Their targets.
        optimizer_states : sequence of dict, optional
            For each checkpoint ``optimizer.state_dict()``, or a dict of parameter name to state, or None.
        optimizer_options : dict, optional
            Hyper-parameters that stayed the same: ``{"betas": (0.9, 0.999), "eps": 1e-8}``. Taken from
            ``optimizer_states`` where these have them.
        groups : list of list of str, optional
            The names of the parameters in each group, in the optimizer's order. Default: one group of all.

        Returns
        -------
        trajectory : Trajectory

        Raises
        ------
        ValueError
            On a learning rate missing for any step, names or shapes that differ from the module's, state dicts that
            share memory (saved without a copy), or a file that cannot be read.
        """
        return cls(
            *record_from_checkpoints(
                state_dicts,
                steps,
                learning_rates,
                module=module,
                optimizer=optimizer,
                hyper={"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay},
                options={"nesterov": check_switch("nesterov", nesterov), **(optimizer_options or {})},
                n_rows=n_rows,
                rows=rows,
                X=X,
                y=y,
                optimizer_states=optimizer_states,
                groups=groups,
            )
        )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the trajectory to a directory: safetensors and JSON.

        Parameters
        ----------
        path : path-like
            A directory, created when missing.
        overwrite : bool, default=False
            Replace a trajectory that is there. Other files are never touched.

        Raises
        ------
        ValueError
            If the directory holds a trajectory and `overwrite` is False, or if it is the one this trajectory lives in.
        """
        check_switch("overwrite", overwrite)
        path = check_path("path", path).resolve()
        if any(checkpoint.path is not None and checkpoint.path.parent == path for checkpoint in self.checkpoints):
            raise ValueError(f"{path}: this trajectory already lives in this directory. Choose another one")
        directory = TrajectoryDirectory(path, overwrite)
        checkpoints = [directory.write(checkpoint) for checkpoint in self.checkpoints]
        observations = [directory.write_observation(observation.load()) for observation in self.observations]
        directory.write_index(self.stages, checkpoints, [kept for kept in observations if kept is not None])

    @classmethod
    def load(cls, path: str | os.PathLike) -> Trajectory:
        """Open a trajectory that :meth:`save` or ``TrajectoryRecorder(dirname=...)`` wrote.

        Parameters
        ----------
        path : path-like
            The directory. Runs no code from it. The tensors stay on disk and are read when asked for.

        Returns
        -------
        trajectory : Trajectory

        Raises
        ------
        ValueError
            Naming the file that is missing, truncated, foreign or of a later version.
        """
        return cls(*load_directory(check_path("path", path)))

    def stage_checkpoints(self, stage: int | Stage) -> list[Checkpoint]:
        """List the checkpoints of one stage, from its start (inclusive) to its end.

        Parameters
        ----------
        stage : int or Stage

        Returns
        -------
        checkpoints : list of Checkpoint
            The first is at the start of the stage, where the initial weights were recorded: the stage's own, or the
            last of the stage before.
        """
        index = stage.index if isinstance(stage, Stage) else range(len(self.stages))[stage]
        own = [checkpoint for checkpoint in self.checkpoints if checkpoint.stage == index]
        start = self.stages[index].start
        if own[0].step > start:
            own = [point for point in self.checkpoints if point.stage < index and point.step == start][-1:] + own
        return own

    def verify(self, net: NeuralNet, X: Any, y: Any = None) -> Verification:
        """Compare the recorded steps with the net's own loss.

        For the steps that the recorder saw from close by, the gradient that the optimizer got is held against the one
        that the net's ``get_loss`` gives for the same batches at the same weights, with the same random draws. Factors
        that stay the same, and elements that never get a gradient, are taken into account by the methods that read the
        trajectory (their ``fit`` verifies it); what else differs is said.

        Read more in the :ref:`User Guide <verification>`.

        Parameters
        ----------
        net : skorch.NeuralNet
            The trained net. Not modified.
        X : array-like, dict of arrays or Dataset
            The rows given to ``net.fit``.
        y : array-like, optional
            Their targets.

        Returns
        -------
        verification : Verification
            One line per stage: ratio, cosine, verdict.

        Notes
        -----
        Costs two forward and backward passes of one step's batches for up to three steps per stage.
        """
        network = Network.from_net(net)
        network.calibrate(network.prepare(X, y))
        return verify_stages(network, self.stages, self.observations)

    def corrected(self, verification: Verification) -> Trajectory:
        """The trajectory with the factors and masks that a verification found; itself where there are none.

        Parameters
        ----------
        verification : Verification

        Returns
        -------
        trajectory : Trajectory
        """
        found = {stage.stage: stage for stage in verification.stages if stage.factors or stage.masks}
        if not found:
            return self
        stages = [
            replace(stage, factors=found[stage.index].factors, masks=found[stage.index].masks)
            if stage.index in found
            else stage
            for stage in self.stages
        ]
        return Trajectory(self.checkpoints, stages, self.observations)

    def __sklearn_clone__(self):
        # A record of what happened has nothing to unlearn: clones of an estimator share it.
        return self

    def __repr__(self):
        return summarize(self)
