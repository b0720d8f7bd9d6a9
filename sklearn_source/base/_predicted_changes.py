"""What gradient methods say of a training with other rows, weights or targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..utils._argument_checks import check_choice
from ._other_targets import require_losses, with_targets
from ._queries import Queries
from ._reweighting import STEPS, ChangedRows, relabelled, reweighted, row_weights_asked


class PredictsChanges:
    """The part of :class:`GradientAttribution` that predicts refits; stands left of the rest."""

    def predict_reweighting(
        self: Any,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        weights: Any = None,
        renormalize: bool = True,
        step: Literal["damped", "full"] = "damped",
    ) -> NDArray[np.float64]:
        """How far measurements go where groups of rows are removed, or rows weigh otherwise, and training is redone.

        Scores are derivatives, and sums of them leave out what rows of a group do together: those that support a query
        support each other, so that removing them together does more than the sum says. Methods with a curvature
        (:class:`~sklearn_source.SourceAttribution`, :class:`~sklearn_source.InfluenceFunctions`) solve for the new
        weights, with the curvature that the rows take along; others sum their scores
        (:func:`~sklearn_source.metrics.first_order_change`).

        Read more in the :ref:`User Guide <removal>`.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        groups : dict of str to array-like, array-like of shape (n_train,), or list of array-like, optional
            Rows to remove, a group at a time: as :func:`~sklearn_source.inspection.group_influence` takes them.
        weights : array-like of shape (n_groups, n_train) or (n_train,), optional
            In place of groups: what every row weighs, 1 as in training, 0 for a row that is away.
        renormalize : bool, default=True
            Whether the loss is a mean over the rows by their weights, as of a training on the rows left. False: the
            rows left keep their weight 1/N.
        step : {"damped", "full"}, default="damped"
            Where the curvature is solved with: ``"full"``, the solution of the network as it is linear at a checkpoint;
            ``"damped"``, no further towards it than the network follows. Without a curvature of no consequence.

        Returns
        -------
        change : ndarray of shape (n_query, n_groups), float64
            The measurement after, minus before, in its unit: negative where it falls. Transposed, it is ``predicted``
            of :func:`~sklearn_source.metrics.group_effect_score`.

        Raises
        ------
        ValueError
            If both or neither of groups and weights are given, or leave no rows to train on, or ``step`` is unknown.

        Notes
        -----
        At a checkpoint with weights ``theta``, ``D`` what the training adds to H there, ``w`` the new weights of the
        rows and ``v = (1/N) sum_m (w_m - 1) grad l_m`` the pull of the change, the step is
        ``d = -(H_w + k D)^-1 v``, and ``< grad f_q, d >`` is predicted: Levenberg-Marquardt [1]_, with k the least of
        1, 2, 4, ... with which the proximal Bregman objective ([2]_)

            F(d) = (1/N) sum_m ( w_m l_m(o_m) - < grad l_m(o_m(theta)), o_m > ) + d^T D d / 2,  o_m = o_m(theta + d)

        changes as its quadratic model says, give or take three quarters; ``"full"`` is k = 1. Both are the same, and
        the exact refit, where outputs are linear in the weights and the loss is squared. Cost of ``"damped"`` beside
        ``"full"``: for each checkpoint and k that is tried a forward pass over the rows that change and 1,024 of those
        that weigh alike, and one more for each group that tries it (streamed rows are read once for all of them); for
        each checkpoint a Cholesky factor of the Fisher columns for each k, ten at the most. A step that is damped 64
        times and more is a warning.

        References
        ----------
        .. [1] Marquardt (1963), "An Algorithm for Least-Squares Estimation of Nonlinear Parameters", SIAM Journal on
           Applied Mathematics 11.
        .. [2] Bae, Ng, Lo, Ghassemi, Grosse (2022), "If Influence Functions are the Answer, Then What is the
           Question?", NeurIPS.
        """
        check_choice("step", step, STEPS)
        with self._exclusive():
            asked = row_weights_asked(groups, weights, self.n_train_, renormalize)
            return self._predicted_changes(X, y, reweighted(self._rows, asked, step))

    def predict_relabeling(
        self: Any,
        X: Any,
        y: Any = None,
        *,
        y_train: Any,
        groups: Any = None,
        step: Literal["damped", "full"] = "damped",
    ) -> NDArray[np.float64]:
        """How far measurements go where training rows get other targets, and training is redone.

        The loss with the new target comes in for that with the old one. Methods with a curvature solve for that as for
        :meth:`predict_reweighting`; others sum the differences of scores. The curvature is taken not to depend on
        targets, as that of squared errors and cross-entropy does not.

        Read more in the :ref:`User Guide <removal>`.

        Parameters
        ----------
        X : array-like of shape (n_query, ...)
            The queries.
        y : array-like, optional
            Their targets, where the measurement needs them.
        y_train : array-like of shape (n_train,) or (n_train, n_outputs)
            The targets of all training rows as they would be, in the order of ``fit``; those that are as they were
            change nothing.
        groups : dict of str to array-like, array-like of shape (n_train,), or list of array-like, optional
            Rows that change together, a group at a time: as :func:`~sklearn_source.inspection.group_influence` takes
            them. None: one group, of all rows with another target.
        step : {"damped", "full"}, default="damped"
            As for :meth:`predict_reweighting`.

        Returns
        -------
        change : ndarray of shape (n_query, n_groups), float64
            The measurement after, minus before, in its unit: negative where it falls.

        Raises
        ------
        ValueError
            If the targets do not fit the rows or the network, nothing changes in a group, or ``step`` is unknown.
        TypeError
            If the training rows were a dataset, which has its targets inside.
        """
        check_choice("step", step, STEPS)
        with self._exclusive():
            changed = with_targets(self, y_train)
            asked = relabelled(self._rows, changed, groups, self._gradients.batch_size, step)
            require_losses(self._network, changed)
            return self._predicted_changes(X, y, asked)

    def _predicted_changes(self: Any, X: Any, y: Any, asked: ChangedRows) -> NDArray[np.float64]:
        n_query, batches = self._in_parts(X, y, self._queries)
        predict = self._changes(asked)
        change = np.zeros((n_query, len(asked.weights)))
        for chunk, queries in batches:
            change[chunk] = predict(queries).cpu().numpy()
        asked.warn_of_much_damping()
        return change

    def _changes(self: Any, asked: ChangedRows) -> Callable[[Queries], torch.Tensor]:
        """A function of :class:`Queries` to their changes (n_query, n_groups) by :class:`ChangedRows`."""

        def first_order(queries: Queries) -> torch.Tensor:
            terms, total = self._terms(queries), torch.zeros(len(queries), len(asked.weights), dtype=torch.float64)
            for rows, counts in asked.pulls:
                for columns, scores in self._spread_batches(terms, len(queries), rows):
                    total += torch.as_tensor(scores).double().cpu() @ torch.as_tensor(counts[:, columns]).T
            return total

        return first_order
