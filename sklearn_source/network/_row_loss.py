"""The loss of every row by itself, scaled so that its batch mean is what training minimised."""

from __future__ import annotations

import contextlib
import copy

import torch
from skorch import NeuralNet, NeuralNetClassifier

from ._coupling import FAILURES, find_rule
from ._targets import check_labels, check_targets, holds, label_weights, map_tensors, take


class RowLoss:
    """Row losses of a net, by its own ``get_loss``.

    Where the criterion has a ``reduction``, a copy with ``reduction="none"`` gives the elements of every row, and one
    of four rules turns their sums into row losses: ``"mean"`` (over elements), ``"batchmean"``, ``"sum"`` (times the
    batch size), ``"weighted"`` (over the mean of the weights that the criterion divides by). Else ``get_loss`` is asked
    for one row at a time (``"row"``, or ``"row_sum"`` if it adds rows up). Which rule holds is found out by comparing
    with ``get_loss`` on a few rows; that no row's loss depends on another row, by changing the others.

    Parameters
    ----------
    shell : NetShell

    Attributes
    ----------
    shell, unreduced : NetShell
        The net, and the same with ``reduction="none"`` (None where the criterion has no ``reduction``).
    kind : str
        :attr:`Network.predictive`.
    labels : bool
        Whether the criterion takes class labels.
    overridden : bool
        Whether ``get_loss`` is not skorch's own.
    n_extra : int or None
        How many outputs besides the first the module returned; None where it returned no tuple.
    """

    def __init__(self, shell):
        net = shell.net
        own = (NeuralNet.get_loss, NeuralNetClassifier.get_loss)
        self.overridden = type(net).get_loss not in own or "get_loss" in vars(net)
        self.criterion = getattr(net, "criterion_", None)
        self.labels = isinstance(self.criterion, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss))
        self.kind, self.n_extra = "unknown", None
        self.shell, self.unreduced = shell, None
        if len(net._criteria) == 1 and isinstance(getattr(self.criterion, "reduction", None), str):
            # A reduction that is a read-only property leaves the rows-alone way.
            with contextlib.suppress(AttributeError):
                unreduced = copy.copy(self.criterion)
                unreduced.reduction = "none"
                self.unreduced = shell.with_criterion(unreduced)
        self._rules, self._loop = {}, False
        self._mean_weight = self._n_rows = None

    # --- values -------------------------------------------------------------------------------------------------

    def __call__(self, output, y, x=None):
        """Row losses (B,), differentiable in ``output``."""
        rule = self.rule(output, y, x)
        if rule.startswith("row"):
            losses = self.rows_alone(output, y, x)
            return losses * self._batch_size() if rule == "row_sum" else losses
        elements = self.get_loss(self.unreduced, output, y, x)
        n_elements = elements.shape[1:].numel()
        return elements.reshape(len(output), -1).sum(1) * self._coefficient(rule, n_elements, y)

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
        self.rule(output, y, x)

        def one(o, t, rest):
            return self(o.unsqueeze(0), _unsqueeze(t), _unsqueeze(rest)).squeeze(0)

        if not self._loop:
            try:
                second = torch.func.jacrev(torch.func.grad(one))  # the reverse way: few losses have a forward one
                return torch.func.vmap(second, in_dims=_dims(output, y, x))(output, y, x).detach()
            except FAILURES:
                self._loop = True
        rows = [(o, take(y, slice(i, i + 1)), take(x, slice(i, i + 1))) for i, o in enumerate(output)]
        with torch.enable_grad():
            return torch.stack(
                [torch.autograd.functional.hessian(lambda o, t=t, r=r: self(o[None], t, r)[0], o) for o, t, r in rows]
            )

    # --- what the training rows fix -----------------------------------------------------------------------------

    def calibrate(self, target_batches, n_rows, output):
        """Take the mean weight per row from the training targets, and check their labels against ``output``."""
        self._n_rows, total = n_rows, 0.0
        self._mean_weight = None
        if not self.labels:
            return
        for y in target_batches:
            if not isinstance(y, torch.Tensor) or y.is_floating_point():
                return  # class probabilities: the criterion divides by the number of rows
            check_labels(self, y, output.shape[1])
            total += float(label_weights(self.criterion, y).sum())
        if not total > 0:
            raise ValueError("every training label is ignored or has class weight zero: there is no loss to attribute")
        self._mean_weight = total / n_rows

    @property
    def calibration(self):
        """What training fixes in the row losses: (mean weight per row, number of rows, batch size)."""
        net = self.shell.net
        return self._mean_weight, self._n_rows, net.get_params_for("iterator_train").get("batch_size", net.batch_size)

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

    # --- asking the net -----------------------------------------------------------------------------------------

    def rows_alone(self, output, y, x):
        """``get_loss`` of every row as a batch of one: (B,)."""

        def one(o, t, rest):
            value = self.get_loss(self.shell, o.unsqueeze(0), _unsqueeze(t), _unsqueeze(rest))
            return value.reshape(())

        if not self._loop:
            try:
                return torch.func.vmap(one, in_dims=_dims(output, y, x))(output, y, x)
            except FAILURES:  # a criterion that looks at values (if loss > 0:) cannot be vectorised
                self._loop = True
        rows = [(o, take(y, slice(i, i + 1)), take(x, slice(i, i + 1))) for i, o in enumerate(output)]
        return torch.stack([self.get_loss(self.shell, o[None], t, r).reshape(()) for o, t, r in rows])

    def get_loss(self, shell, output, y, x):
        """What the net's own ``get_loss`` gives for a batch, by ``shell`` or ``unreduced``."""
        handed = output if self.n_extra is None else (output, *[None] * self.n_extra)
        try:
            with self._parameters_constant():
                return shell.net.get_loss(handed, y, X=x, training=True)
        except (TypeError, AttributeError) as error:
            if not self.overridden or (self.n_extra is None and x is not None):
                raise
            raise ValueError(
                "the net's get_loss failed without "
                + (
                    "X: pass the batch x"
                    if self.n_extra is None
                    else "the further outputs of its module: only a loss of the first output can be attributed"
                )
                + f" ({type(error).__name__}: {error})"
            ) from error

    @contextlib.contextmanager
    def _parameters_constant(self):
        """Cut what an overridden ``get_loss`` adds from the parameters themselves: a penalty belongs to no row."""
        wanted = [p for p in self.shell.net.module_.parameters() if p.requires_grad] if self.overridden else []
        for p in wanted:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in wanted:
                p.requires_grad_(True)


def _form(output, y):
    """What decides how a criterion treats rows: known forms need no second check."""
    if not isinstance(y, torch.Tensor):
        return output.ndim, type(y)
    return output.ndim, y.ndim, y.is_floating_point(), output.shape[1:] == y.shape[1:]


def _dims(output, y, x):
    return 0, None if y is None else 0, None if x is None else 0


def _unsqueeze(tree):
    return map_tensors(lambda tensor: tensor.unsqueeze(0), tree)
