"""Where a recorder keeps what it records: in memory, or in a directory for as long as that can be written to."""

from __future__ import annotations

from safetensors import SafetensorError

from ..utils._warnings import warn
from ._store import TrajectoryDirectory

__all__ = ["KeptRecord"]


class KeptRecord:
    """Checkpoints, observations and index of one recorder. No training ends because its record cannot be written.

    What a directory refuses (a full disk, a folder that is read-only or gone) is kept in memory from there on, and that
    is said.

    Parameters
    ----------
    dirname : path-like or None
        None: in memory.
    overwrite : bool
        Replace a trajectory that the directory holds.

    Raises
    ------
    ValueError
        As of :class:`.TrajectoryDirectory`.
    """

    def __init__(self, dirname, overwrite):
        self.given = dirname
        self.directory = None
        if dirname is not None:
            self.directory = self._tried(lambda: TrajectoryDirectory(dirname, overwrite))

    def _tried(self, act, otherwise=None):
        try:
            return act()
        except (OSError, SafetensorError) as error:
            where = self.given if self.directory is None else self.directory.path
            self.directory = None
            warn(
                f"the training cannot be recorded in {where} ({error}): it goes on, and its record is kept in memory. "
                "Save it after the training where there is room, Trajectory.from_net(net).save(another_path)"
            )
            return otherwise

    def check_current(self):
        """Refuse to continue in a directory that another training has written to since."""
        if self.directory is not None:
            self.directory.check_current()

    def write(self, checkpoint):
        """A checkpoint as it is kept."""
        return (
            checkpoint if self.directory is None else self._tried(lambda: self.directory.write(checkpoint), checkpoint)
        )

    def write_observation(self, observation):
        """An observation as it is kept; None where it cannot be."""
        if self.directory is None:
            return observation
        return self._tried(lambda: self.directory.write_observation(observation), observation)

    def remove(self, kept):
        """Give up checkpoints or observations that were thinned out."""
        for one in kept:
            if self.directory is not None:
                self._tried(lambda one=one: self.directory.remove(one))

    def write_index(self, logs, ended=True):
        """Make the directory loadable, with the stages so far.

        While a training goes on that is done where it takes no time to speak of, and where no older trajectory would be
        lost for it.
        """
        if self.directory is None or not logs or not all(log.held for log in logs):
            return
        if not ended and not self.directory.may_show_beginning():
            return
        points = [point for log in logs for point in ([log.initial] if log.initial else []) + log.held]
        # Where a callback restored earlier weights, the later steps led nowhere.
        stages = [log.to_stage(log.held[-1].step) for log in logs]
        seen = [kept for log in logs for kept in log.observations if kept.step <= stages[-1].end]
        if any(one.path is None for one in (*points, *seen)):
            return  # some are in memory: the directory was given up for a while
        self._tried(lambda: self.directory.write_index(stages, points, seen, ended=ended))
