"""What methods know of their training rows: by which fingerprints, and when the recorded training had them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows import (
    as_arrays,
    cast_like_training,
    collate_of_net,
    draw_weights,
    exact_row_hashes,
    match_stage_rows,
    open_rows,
    require_same_rows,
    row_hashes,
    warn_unused_rows,
)
from ..trajectory import verify_stages
from ..utils._warnings import warn
from ._net_argument import require_all_rows, trajectory_of


class RecognisesRows:
    """The part of :class:`NetworkAttribution` that holds its rows against the record; stands left of the rest."""

    def _recorded_trajectory(self: Any) -> Any:
        """What a recorder among the net's callbacks recorded.

        Returns
        -------
        trajectory : Trajectory or None
            None where there is none, or the net's weights are none that it saw.
        """
        return trajectory_of(self.net_, needed=False)

    def _verify_training(self):
        """Hold the recorded steps against the loss: what is known of them is corrected, what is not is said."""
        trajectory = self.trajectory_
        verification = verify_stages(self._network, trajectory.stages, trajectory.observations)
        self.trajectory_ = trajectory.corrected(verification)
        if verification.remarks:
            warn(f"the record of the training shows that {'; '.join(verification.remarks)}")

    def _row_weights(self, position, start, end):
        """How much each of the rows ``_credited[position]`` weighed in some steps of a stage; None for alike."""
        recorded, index = self.trajectory_.stages[position], self._credited[position]
        return draw_weights(recorded, start, end, index, self.row_hashes_, self._network.row_loss.is_sum)

    def _credit(self, X, y, as_is, stage):
        """Recognise the rows: which stage of the training used which of them. The record of the training, or None."""
        trajectory = trajectory_of(self.net_, needed=self._needs_trajectory, given=getattr(self, "trajectory", None))
        if trajectory is None and as_is:
            require_all_rows(self.net_, self.n_train_)
        if self._needs_trajectory:
            self.trajectory_ = trajectory
        collate = collate_of_net(self.net_)
        hashes = row_hashes(X, y, collate=collate)
        known = row_hashes(X, y, sample=True, collate=collate) if hashes is None else hashes
        exact = None if hashes is None else exact_row_hashes(X, y)
        with self._front.recognising(recorded=trajectory is not None):
            self._credited = match_stage_rows(
                trajectory, known, self.n_train_, stage, every_stage=self._needs_trajectory, exact=exact
            )
        if self.has_unit:
            warn_unused_rows(self._credited, self.n_train_)
        elif not self._needs_trajectory:
            self._credited = [np.arange(self.n_train_)]
        self._identified = hashes is not None
        self._keys = np.arange(self.n_train_, dtype=np.uint64) if hashes is None else hashes
        self._exact_keys = exact
        return trajectory

    @property
    def row_hashes_(self: Any) -> NDArray[np.uint64] | None:
        """Fingerprints of the training rows in the order of :meth:`fit`, None where they have none."""
        return self._keys if self._identified else None

    def _require_fit_rows(self, X, y):
        """The training rows as ``fit`` read them, given once more.

        Raises
        ------
        ValueError
            If they are others, or stand in another order.
        """
        X, y = as_arrays(self.net_, open_rows(self.net_, self._front.transform(X), y), y)
        X, y = cast_like_training(X, y, self._form, self._y_shape)
        rows, hashes = self._network.prepare(X, y), row_hashes(X, y, collate=collate_of_net(self.net_))
        if len(rows) != self.n_train_ or (self._reads_loss and rows.has_y != self._rows.has_y):
            raise ValueError(
                f"expected the {self.n_train_} training rows given to fit and their targets y, got {len(rows)}"
                + ("" if rows.has_y else " without targets")
            )
        if self._identified:
            if hashes is None:
                raise ValueError("expected the training rows given to fit, got some that cannot be compared with them")
            exact, own = exact_row_hashes(X, y), getattr(self, "_exact_keys", None)
            require_same_rows(*((hashes, self._keys) if exact is None or own is None else (exact, own)))
        return X, y
