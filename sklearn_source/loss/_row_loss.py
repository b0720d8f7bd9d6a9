"""The loss of every row by itself, scaled so that its batch mean is what training minimised."""

from __future__ import annotations

import torch
from sklearn.base import ClassifierMixin

from ..utils._tree import take
from ..utils._warnings import warn
from ._batch_loss import BatchLoss
from ._calibration import batch_size_of, mean_batch_size, mean_label_weight, probe_rows
from ._criterion_weights import criterion_weights
from ._output_hessian import DenseHessian, require_dense
from ._predictive import Categorical
from ._recognition import predictive_of_criterion, recognise_binary, recognise_predictive
from ._reduction import Reduction, find_reduction
from ._row_weights import COUPLED, RowWeights
from ._targets import TargetError, check_targets, fits_labels, holds, label_weights

_SMALL = 512  # outputs of a row whose general Hessian costs little beside a gradient


class RowLoss:
    """Row losses of a net, by its own ``get_loss``, and what follows from them.

    Where the criterion has a ``reduction``, a copy with ``reduction="none"`` gives the elements of every row, and a
    :class:`.Reduction` turns their sums into row losses; else ``get_loss`` is asked for one row at a time. Which
    reduction holds is seen once for every form of outputs and targets.

    ``output, y, x`` are the network's outputs (B, ...) for a batch, its targets, and the batch itself for a
    ``get_loss`` that reads ``X``, throughout.

    Parameters
    ----------
    private_net : PrivateNet
    dtype, device
        Of the module's parameters.

    Attributes
    ----------
    batch_loss : BatchLoss
    predictive : Predictive
        What the outputs parametrise: of the criterion, or as calibration recognised it.
    recognised : dict of int to Predictive or None
        By number of axes of the outputs: what calibration saw where the criterion's type tells too little.
    is_sum : bool
        Whether a batch's loss is a sum over its rows, and no mean.
    is_sequence : bool
        Whether every row has classes at several positions (tokens, pixels).
    """

    def __init__(self, private_net, dtype, device):
        self.batch_loss = BatchLoss(private_net)
        net, overridden = private_net.net, self.batch_loss.overridden
        self.predictive, self._closed_form = predictive_of_criterion(net, overridden, dtype, device)
        self.recognised, self.is_sequence, self.is_sum = {}, False, False
        self._reductions, self._row_weights = {}, RowWeights()
        self._mean_label_weight = self._n_rows = None

    # --- values -------------------------------------------------------------------------------------------------

    def __call__(self, output, y, x=None):
        """Differentiable loss of every row, scaled so that the batch mean is what training minimised.

        A term of an overridden ``get_loss`` that reaches parameters directly (a penalty) is in the value but not in
        the gradient: it is no row's.

        Returns
        -------
        Tensor (B,)

        Raises
        ------
        ValueError
            Targets missing or not fitting the outputs; class weights without :meth:`calibrate`; a criterion that
            couples rows (checked once for every form of outputs and targets).
        """
        return self.of_outputs(output, y, x)(output)

    def of_outputs(self, output, y, x=None):
        """Row losses as a function of the outputs, of the form of ``output``; targets, weights and rows are fixed."""
        reduction = self.reduction(output, y, x)
        if reduction.asks_rows_alone:
            return self._of_rows_alone(reduction, output, y, x)

        def losses(output):
            elements = self.batch_loss.elements(output, y, x)
            n_elements = elements.shape[1:].numel()
            return elements.reshape(len(output), -1).sum(1) * self._coefficient(reduction, n_elements, y)

        return losses

    def _of_rows_alone(self, reduction, output, y, x):
        rows_alone = self.batch_loss.rows_alone
        if reduction is not Reduction.ROW_WEIGHTED:
            factor = self._mean_batch_size() if reduction is Reduction.ROW_SUM else 1.0
            return lambda output: rows_alone(output, y, x) * factor
        weights = self._row_weights(self.batch_loss, output, y, x)
        live = torch.nonzero(weights).flatten()
        if len(live) == len(weights):
            return lambda output: rows_alone(output, y, x) * weights.to(output.dtype)
        # The own loss of a row without weight may be 0 / 0: it is not asked for.
        y, x = take(y, live), take(x, live)

        def losses(output):
            zeros = 0 * output.reshape(len(output), -1).sum(1)
            if not len(live):
                return zeros
            return zeros.index_add(0, live, rows_alone(output[live], y, x) * weights[live].to(output.dtype))

        return losses

    def own_losses(self, output, y, x=None):
        """The criterion on every row alone, as it is called: a mean over the row's own tokens, or their sum.

        Not scaled by what the training batches divided by. 0 where nothing counts. A penalty on the parameters is in
        it with its value at the weights of :meth:`calibrate`: no row changes it.

        Returns
        -------
        Tensor (B,)
        """
        return self._own_losses(output, y, x) - self.batch_loss.penalty_change()

    def _own_losses(self, output, y, x):
        reduction = self.reduction(output, y, x)
        if reduction in (Reduction.MEAN, Reduction.BATCHMEAN):
            return self(output, y, x)
        if reduction is Reduction.SUM:
            return self(output, y, x) / self._mean_batch_size()
        if reduction is Reduction.WEIGHTED:
            elements = self.batch_loss.elements(output, y, x).reshape(len(output), -1).sum(1)
            weight = label_weights(self.batch_loss.criterion, y).reshape(len(output), -1).sum(1).to(elements.dtype)
            return elements / torch.where(weight > 0, weight, 1.0)
        return torch.nan_to_num(self.batch_loss.rows_alone(output, y, x))  # a mean over no tokens is 0 / 0

    def labels(self, output, y, x=None):
        """The class that the loss takes for the true one at every position, -1 where none counts.

        Read from the loss itself where it is not one of torch's: whatever it shifts, flattens or masks.

        Returns
        -------
        Tensor (B, *positions) of int64
        """
        recognised = self.recognised.get(output.ndim)
        if isinstance(recognised, Categorical):
            return recognised.labels(self.of_outputs(output, y, x), output.detach())
        check_targets(self.batch_loss, output, y)
        return y.where(y != self.batch_loss.criterion.ignore_index, -1)

    def reduction(self, output, y, x=None):
        """Check the targets, and find the reduction for outputs and targets of this form."""
        check_targets(self.batch_loss, output, y)
        form = _form(output, y)
        if form not in self._reductions:
            self._reductions[form] = find_reduction(self.batch_loss, output, y, x)
        return self._reductions[form]

    def _coefficient(self, reduction, n_elements, y):
        """What a row's sum over its elements is multiplied by."""
        if reduction is Reduction.MEAN:
            return 1 / n_elements
        if reduction is Reduction.SUM:
            return self._mean_batch_size()
        if reduction is Reduction.BATCHMEAN:
            return 1.0
        if self._mean_label_weight is not None:
            return 1 / self._mean_label_weight
        criterion = self.batch_loss.criterion
        if criterion.weight is not None or holds((y == criterion.ignore_index).any()):
            raise ValueError(
                "the criterion divides by the weights of the labels (weight=, ignore_index=), whose mean the training "
                "rows give: call calibrate with them first"
            )
        return 1 / n_elements

    def _mean_batch_size(self):
        return mean_batch_size(self.batch_loss.private_net.net, self._n_rows)

    # --- the Hessian in the outputs -----------------------------------------------------------------------------

    def output_hessian(self, output, y, x=None):
        """The Hessian of every row's loss in that row's output, at fixed outputs.

        For NLLLoss the matrix whose pull-back to the logits is the logits' Hessian, for L1Loss the Fisher of the
        Laplace distribution. Criteria of no known form go through automatic differentiation and ``eigh``, negative
        eigenvalues set to zero.

        Returns
        -------
        SoftmaxHessian, DiagonalHessian or DenseHessian
            With ``columns()`` of a root, as many as a row has outputs; ``draw(uniforms)`` of a random column with the
            same expectation, for uniforms (B, *uniforms_shape) of float64 in [0, 1), the only source of randomness;
            and ``product(vector)`` for vectors like ``output``. Categorical outputs draw a class from the predictive
            distribution; all others draw signs, which have less variance than draws from the distribution.

        Raises
        ------
        ValueError
            As of the losses themselves; too many outputs for a matrix of no known form.
        """
        output = output.detach()
        recognised = self.recognised.get(output.ndim)
        if recognised is not None:
            scale = recognised.scale(self.of_outputs(output, y, x), output)
            return recognised.hessian(output, scale.clamp(min=0))
        reduction, categorical = self.reduction(output, y, x), isinstance(self.predictive, Categorical)
        # Targets that broadcast against the outputs: no closed form is worth its own case.
        if not self._closed_form or reduction.asks_rows_alone or not (categorical or y.shape == output.shape):
            require_dense(output)
            return DenseHessian.from_matrices(self._hessians(output, y, x), output)
        weights = criterion_weights(self.batch_loss.criterion, output, y)
        coefficient = self._coefficient(reduction, output.shape[2 if categorical else 1 :].numel(), y)
        return self.predictive.hessian(output, weights * coefficient)

    def can_draw(self, n_outputs):
        """bool: whether a draw is what the loss implies, at about the cost of its gradient, for rows so large."""
        small = self.predictive.name != "unknown" and n_outputs <= _SMALL
        return self._closed_form or any(self.recognised.values()) or small

    def _hessians(self, output, y, x):
        """Hessian of every row's loss in its output by automatic differentiation: (B, *row, *row)."""
        if self.reduction(output, y, x) is Reduction.ROW_WEIGHTED:
            factors = self._row_weights(self.batch_loss, output, y, x).to(output.dtype)
            losses, live = self.batch_loss.rows_alone, torch.nonzero(factors).flatten()
        else:
            losses, factors, live = self, torch.ones(len(output)).to(output), torch.arange(len(output))
        hessians = output.new_zeros((len(output), *output.shape[1:], *output.shape[1:]))
        if len(live):
            second = self.batch_loss.second_derivatives(losses, *(take(tree, live) for tree in (output, y, x)))
            hessians[live] = second * factors[live].reshape(-1, *[1] * (second.ndim - 1))
        return hessians

    # --- what the training rows fix -----------------------------------------------------------------------------

    def calibrate(self, rows, indices, infer):
        """Take from the training rows what row losses need, see :meth:`Network.calibrate`.

        Parameters
        ----------
        rows : Rows
        indices : ndarray of int
            Those trained on.
        infer : callable
            From a batch to all that the module returns.
        """
        self._n_rows, self._mean_label_weight = len(indices), None
        self._row_weights, self.recognised = RowWeights(), {}
        batch_loss = self.batch_loss
        x, y = rows.batch(indices[:4])
        with torch.no_grad():
            returned = infer(x)
        batch_loss.see_outputs(returned, y, x)

        def forward(x):
            return batch_loss.outputs.join(infer(x))

        _, x, y, output = probe = probe_rows(batch_loss, rows, indices, forward)
        check_targets(batch_loss, output, y)
        reduction = self._reduction_as_trained(output, y, x)
        batch_loss.remember(output, y, x)
        self._reductions[_form(output, y)] = reduction
        self.is_sum = reduction in (Reduction.SUM, Reduction.ROW_SUM)
        if batch_loss.takes_labels and fits_labels(output, y):
            self._mean_label_weight = mean_label_weight(batch_loss.criterion, rows, indices, output.shape[1])
        recognised = None
        if not self._closed_form or reduction.asks_rows_alone:
            alone = reduction.asks_rows_alone
            losses = (lambda o: batch_loss.rows_alone(o, y, x)) if alone else self.of_outputs(output, y, x)
            absolute_error = isinstance(batch_loss.criterion, torch.nn.L1Loss)
            recognised = recognise_predictive(losses, output, absolute_error=absolute_error)
            self.recognised[output.ndim] = recognised
        if not batch_loss.is_torchs and reduction.may_hide_weights:
            # A few rows may weigh the same by chance: all training rows are looked at.
            uneven = self._row_weights.calibrate(batch_loss, recognised, rows, indices, forward, probe)
            if uneven is None and reduction is Reduction.ROW_WEIGHTED:
                raise ValueError(COUPLED)
            if uneven:
                self._reductions[_form(output, y)] = Reduction.ROW_WEIGHTED
        if isinstance(recognised, Categorical):
            self.predictive = recognised
        elif self.predictive.name == "unknown" and isinstance(batch_loss.private_net.net, ClassifierMixin):
            self.predictive = recognise_binary(batch_loss, *rows.batch(indices[:64]), forward) or self.predictive
        self.is_sequence = isinstance(self.predictive, Categorical) and output.ndim > 2

    @property
    def calibration(self):
        """What training fixes in the row losses: mean weights per row, number of rows, batch size."""
        size = batch_size_of(self.batch_loss.private_net.net)
        return self._mean_label_weight, self._row_weights.mean, self._n_rows, size

    def _reduction_as_trained(self, output, y, x):
        """The reduction; of a criterion that couples rows in training mode alone that of its evaluation mode."""
        batch_loss = self.batch_loss
        try:
            return find_reduction(batch_loss, output, y, x)
        except TargetError:
            raise
        except ValueError:
            if batch_loss.is_torchs or not batch_loss.evaluate_criterion():
                raise
        reduction = find_reduction(batch_loss, output, y, x)
        warn(
            f"in training mode the criterion ({type(batch_loss.criterion).__name__}) couples the rows of a batch, by a "
            "statistic over them say: row losses are those of its evaluation mode"
        )
        return reduction


def _form(output, y):
    """What decides how a criterion treats rows: known forms need no second check."""
    if not isinstance(y, torch.Tensor):
        return output.ndim, type(y)
    return output.ndim, y.ndim, y.is_floating_point(), output.shape[1:] == y.shape[1:]
