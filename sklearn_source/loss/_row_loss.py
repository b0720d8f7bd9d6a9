"""The loss of every row by itself, scaled so that its batch mean is what training minimised."""

from __future__ import annotations

from itertools import islice

import torch

from ..utils._tree import take
from ._batch_loss import AskedLoss
from ._recognition import find_structure
from ._reduction import find_rule
from ._row_weights import COUPLED, RowWeights
from ._targets import check_labels, check_targets, fits_labels, holds, label_weights
from ._weighted_mean import live_rows

_TRIES = 64  # batches of four training rows looked at for some that have a loss


class RowLoss(AskedLoss):
    """Row losses of a net, by its own ``get_loss``.

    Where the criterion has a ``reduction``, a copy with ``reduction="none"`` gives the elements of every row, and one
    of four rules turns their sums into row losses: ``"mean"`` (over elements), ``"batchmean"``, ``"sum"`` (times the
    batch size), ``"weighted"`` (over the mean of the weights that the criterion divides by). Else ``get_loss`` is asked
    for one row at a time (``"row"``, ``"row_sum"`` if it adds rows up, ``"row_weighted"`` if it divides by a weight of
    the batch: tokens counted over a flattened batch, samples weighed; see :class:`RowWeights`). Which rule holds is
    found out by comparing with ``get_loss`` on a few rows; that no row's loss depends on another row, by changing the
    others.

    Parameters
    ----------
    shell : NetShell

    Attributes
    ----------
    structures : dict of int to Structure or None
        By number of axes of the outputs: what :meth:`Network.calibrate` found of their Hessian.
    """

    def __init__(self, shell):
        super().__init__(shell)
        self._rules = {}
        self._mean_weight = self._n_rows = None
        self._row_weights, self.structures = RowWeights(), {}

    # --- values -------------------------------------------------------------------------------------------------

    def __call__(self, output, y, x=None):
        """Row losses (B,), differentiable in ``output``."""
        return self.of_output(output, y, x)(output)

    def of_output(self, output, y, x=None):
        """Row losses as a function of the outputs, of the form of ``output``; targets, weights and rows are fixed."""
        rule = self.rule(output, y, x)
        if rule.startswith("row"):
            return self._of_rows(rule, output, y, x)

        def losses(output):
            elements = self.get_loss(self.unreduced, output, y, x)
            n_elements = elements.shape[1:].numel()
            return elements.reshape(len(output), -1).sum(1) * self._coefficient(rule, n_elements, y)

        return losses

    def _of_rows(self, rule, output, y, x):
        if rule != "row_weighted":
            factor = self._batch_size() if rule == "row_sum" else 1.0
            return lambda output: self.rows_alone(output, y, x) * factor
        weights = self._row_weights(self, output, y, x)
        live = torch.nonzero(weights).flatten()
        if len(live) == len(weights):
            return lambda output: self.rows_alone(output, y, x) * weights.to(output.dtype)
        # The own loss of a row without weight may be 0 / 0: it is not asked for.
        y, x = take(y, live), take(x, live)

        def losses(output):
            zeros = 0 * output.reshape(len(output), -1).sum(1)
            if not len(live):
                return zeros
            return zeros.index_add(0, live, self.rows_alone(output[live], y, x) * weights[live].to(output.dtype))

        return losses

    def alone(self, output, y, x=None):
        """The criterion on every row as a batch of one (B,), as it is called; 0 for rows in which nothing counts."""
        rule = self.rule(output, y, x)
        if rule in ("mean", "batchmean"):
            return self(output, y, x)
        if rule == "sum":
            return self(output, y, x) / self._batch_size()
        if rule == "weighted":
            elements = self.get_loss(self.unreduced, output, y, x).reshape(len(output), -1).sum(1)
            weight = label_weights(self.criterion, y).reshape(len(output), -1).sum(1).to(elements.dtype)
            return elements / torch.where(weight > 0, weight, 1.0)
        return torch.nan_to_num(self.rows_alone(output, y, x))  # a mean over no tokens is 0 / 0

    def rule(self, output, y, x=None):
        """Check the targets, and find the rule for outputs and targets of this form (see the class)."""
        check_targets(self, output, y)
        key = _form(output, y)
        if key not in self._rules:
            self.verify(output, y, x)
        return self._rules[key]

    def element_scale(self, output, y):
        """What multiplies the textbook Hessian of every element: reduction, class weights, smoothing, ignored labels.

        Returns
        -------
        Tensor (B, *positions) for categorical outputs, else like ``output``
        """
        criterion, rule = self.criterion, self.rule(output, y)
        if not self.labels:
            scale = torch.ones_like(output)
            if self.kind == "bernoulli":
                if criterion.pos_weight is not None:
                    scale = scale * (1 + (criterion.pos_weight - 1) * y)
                if criterion.weight is not None:
                    scale = scale * criterion.weight
            return scale * self._coefficient(rule, output.shape[1:].numel(), y)
        smoothing = getattr(criterion, "label_smoothing", 0.0)
        n_classes = output.shape[1]
        weight = torch.ones(n_classes, device=output.device) if criterion.weight is None else criterion.weight
        weight = weight.to(output.dtype)
        if y.is_floating_point():
            smooth = (1 - smoothing) * y + smoothing / n_classes
            scale = (smooth * weight.reshape(1, -1, *[1] * (y.ndim - 2))).sum(1)
        else:
            valid = y != criterion.ignore_index
            scale = ((1 - smoothing) * weight[y.where(valid, 0)] + smoothing * weight.mean()) * valid
        return scale * self._coefficient(rule, output.shape[2:].numel(), y)

    def hessians(self, output, y, x=None):
        """Hessian of every row's loss in its output by automatic differentiation: (B, *row, *row)."""
        if self.rule(output, y, x) == "row_weighted":
            factors = self._row_weights(self, output, y, x).to(output.dtype)
            losses, live = self.rows_alone, torch.nonzero(factors).flatten()
        else:
            losses, factors, live = self, torch.ones(len(output)).to(output), torch.arange(len(output))
        second = output.new_zeros((len(output), *output.shape[1:], *output.shape[1:]))
        if len(live):
            found = self.second_derivatives(losses, *(take(tree, live) for tree in (output, y, x)))
            second[live] = found * factors[live].reshape(-1, *[1] * (found.ndim - 1))
        return second

    def asked_labels(self, output, y, x=None):
        """The class that the loss asks for at every position, -1 where none counts: (B, *positions) of int64.

        Read from the loss itself where it is not one of torch's: whatever it shifts, flattens or masks.
        """
        structure = self.structures.get(output.ndim)
        if structure is not None and structure.kind.startswith("categorical"):
            return structure.labels(self.of_output(output, y, x), output.detach())
        check_targets(self, output, y)
        return y.where(y != self.criterion.ignore_index, -1)

    # --- what the training rows fix -----------------------------------------------------------------------------

    def calibrate(self, rows, indices, forward):
        """See :meth:`Network.calibrate`; returns outputs of some rows."""
        self._n_rows, self._mean_weight = len(indices), None
        self._row_weights, self.structures = RowWeights(), {}
        where, x, y, output = probe = self._rows_with_loss(rows, indices, forward)
        self.verify(output, y, x)
        key = _form(output, y)
        if self.labels and fits_labels(output, y):
            self._weigh_labels((rows.targets(part) for part in _parts(indices, 1024)), output)
        by_rows = self._rules[key].startswith("row")
        if not self.closed or by_rows:
            losses = (lambda o: self.rows_alone(o, y, x)) if by_rows else self.of_output(output, y, x)
            laplace = isinstance(self.criterion, torch.nn.L1Loss)
            self.structures[output.ndim] = find_structure(losses, output, laplace=laplace)
        if not self.known and self._rules[key] in ("mean", "batchmean", "row", "row_weighted"):
            # A few rows may weigh the same by chance: all training rows are looked at.
            structure = self.structures.get(output.ndim)
            uneven = self._row_weights.calibrate(self, structure, rows, indices, forward, probe)
            if uneven is None and self._rules[key] == "row_weighted":
                raise ValueError(COUPLED)
            if uneven:
                self._rules[key] = "row_weighted"
        return output

    def _rows_with_loss(self, rows, indices, forward):
        """Up to four training rows that have a loss: those before may have nothing but masked tokens."""
        first = found = None
        for part in islice(_parts(indices, 4), _TRIES):
            x, y = rows.batch(part)
            with torch.no_grad():
                output = forward(x).detach()
            check_targets(self, output, y)
            if self.known:
                return part, x, y, output
            live, first = live_rows(self, output, y, x), first or (part, x, y, output)
            if len(live):
                found = part[live.cpu().numpy()], *(take(tree, live) for tree in (x, y, output))
            if len(live) > 1:
                return found
        if found is None and torch.isfinite(first[3]).all() and not self._is_finite(*first[1:]):
            raise ValueError(
                f"no training row has a loss (of the first {4 * _TRIES}): all their targets are ignored or masked, and "
                "the criterion gives no number"
            )
        return first if found is None else found

    @torch.no_grad()
    def _is_finite(self, x, y, output):
        return bool(torch.isfinite(torch.as_tensor(self.get_loss(self.shell, output, y, x))).all())

    def _weigh_labels(self, target_batches, output):
        """Take the mean weight per row from the training labels, and check them against ``output``."""
        total = 0.0
        for y in target_batches:
            if not isinstance(y, torch.Tensor) or y.is_floating_point():
                return  # class probabilities: the criterion divides by the number of rows
            check_labels(self, y, output.shape[1])
            total += float(label_weights(self.criterion, y).sum())
        if not total > 0:
            raise ValueError("every training label is ignored or has class weight zero: there is no loss to attribute")
        self._mean_weight = total / self._n_rows

    @property
    def calibration(self):
        """What training fixes in the row losses: mean weights per row, number of rows, batch size."""
        net = self.shell.net
        size = net.get_params_for("iterator_train").get("batch_size", net.batch_size)
        return self._mean_weight, self._row_weights.mean, self._n_rows, size

    def _coefficient(self, rule, n_elements, y):
        if rule == "mean":
            return 1 / n_elements
        if rule == "sum":
            return self._batch_size()
        if rule == "batchmean":
            return 1.0
        if self._mean_weight is not None:
            return 1 / self._mean_weight
        if self.criterion.weight is not None or holds((y == self.criterion.ignore_index).any()):
            raise ValueError(
                "the criterion divides by the weights of the labels (weight=, ignore_index=), whose mean the training "
                "rows give: call calibrate with them first"
            )
        return 1 / n_elements

    def _batch_size(self):
        """Mean number of rows in a training batch, which a criterion with reduction="sum" adds up."""
        net = self.shell.net
        params = net.get_params_for("iterator_train")
        size, n = params.get("batch_size", net.batch_size), self._n_rows
        if size == -1:
            if n is None:
                raise ValueError('reduction="sum" with batch_size=-1 needs the number of training rows: call calibrate')
            return float(n)
        # The last batch is smaller, unless dropped.
        return float(size) if n is None or (params.get("drop_last") and n >= size) else n / -(-n // size)

    def verify(self, output, y, x=None):
        """Find and keep the rule for this form of outputs and targets, see :func:`find_rule`."""
        check_targets(self, output, y)
        self._rules[_form(output, y)] = find_rule(self, output, y, x)


def _form(output, y):
    """What decides how a criterion treats rows: known forms need no second check."""
    if not isinstance(y, torch.Tensor):
        return output.ndim, type(y)
    return output.ndim, y.ndim, y.is_floating_point(), output.shape[1:] == y.shape[1:]


def _parts(indices, size):
    return (indices[start : start + size] for start in range(0, len(indices), size))
