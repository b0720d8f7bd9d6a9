"""A net's own loss, of a batch or of its rows one at a time."""

from __future__ import annotations

import contextlib
import copy

import torch
from skorch import NeuralNet, NeuralNetClassifier

from ..utils._compat_skorch import criterion_names
from ..utils._compat_torch import quiet_vmap
from ..utils._tree import map_tensors, take
from ._weighted_mean import FAILURES


class BatchLoss:
    """The net's own ``get_loss``, with its criterion and with an unreduced copy of it.

    Parameters
    ----------
    private_net : PrivateNet

    Attributes
    ----------
    private_net : PrivateNet
    criterion : object
    takes_labels : bool
        Whether the criterion takes class labels.
    overridden : bool
        Whether ``get_loss`` is not skorch's own.
    is_torchs : bool
        Whether the loss is one of torch's criteria as skorch calls it.
    has_elements : bool
        Whether the criterion has a ``reduction`` that can be left out, see :meth:`elements`.
    n_further_outputs : int or None
        How many outputs the module returns besides the first, which stand as None in what ``get_loss`` takes; None
        where it returns no tuple. What calibration saw: no forward pass changes it.
    """

    def __init__(self, private_net):
        net = private_net.net
        own = (NeuralNet.get_loss, NeuralNetClassifier.get_loss)
        self.overridden = type(net).get_loss not in own or "get_loss" in vars(net)
        self.criterion = getattr(net, "criterion_", None)
        self.takes_labels = isinstance(self.criterion, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss))
        forward = getattr(type(self.criterion), "forward", None)
        self.is_torchs = not self.overridden and getattr(forward, "__module__", None) == "torch.nn.modules.loss"
        self.n_further_outputs = None
        self.private_net, self._unreduced = private_net, None
        if len(criterion_names(net)) == 1 and isinstance(getattr(self.criterion, "reduction", None), str):
            # A reduction that is a read-only property leaves the loss of rows alone.
            with contextlib.suppress(AttributeError):
                unreduced = copy.copy(self.criterion)
                unreduced.reduction = "none"
                self._unreduced = private_net.with_criterion(unreduced)
        self._one_by_one = False

    @property
    def has_elements(self):
        return self._unreduced is not None

    def __call__(self, output, y, x):
        """What the net's ``get_loss`` gives for a batch: a scalar, as a rule."""
        return self._get_loss(self.private_net, output, y, x)

    def elements(self, output, y, x):
        """The same with ``reduction="none"``: (B, ...), as a rule."""
        return self._get_loss(self._unreduced, output, y, x)

    def rows_alone(self, output, y, x):
        """``get_loss`` of every row as a batch of one: (B,)."""

        def one(o, t, rest):
            return self(o.unsqueeze(0), _unsqueeze(t), _unsqueeze(rest)).reshape(())

        if not self._one_by_one:
            with contextlib.suppress(*FAILURES):
                return quiet_vmap(one, in_dims=_dims(output, y, x))(output, y, x)
        losses = [self(o, t, rest).reshape(()) for o, t, rest in _rows(output, y, x)]
        self._one_by_one = True  # a criterion that looks at values (if loss > 0:) cannot be vectorised
        return torch.stack(losses)

    def second_derivatives(self, losses, output, y, x):
        """Hessian of ``losses(output, y, x)``, a row at a time: (B, *row, *row)."""

        def one(o, t, rest):
            return losses(o.unsqueeze(0), _unsqueeze(t), _unsqueeze(rest)).squeeze(0)

        if not self._one_by_one:
            try:
                second = torch.func.jacrev(torch.func.grad(one))  # the reverse way: few losses have a forward one
                return quiet_vmap(second, in_dims=_dims(output, y, x))(output, y, x).detach()
            except FAILURES:
                self._one_by_one = True
        with torch.enable_grad():
            return torch.stack(
                [
                    torch.autograd.functional.hessian(lambda o, t=t, rest=rest: losses(o[None], t, rest)[0], row[0])
                    for row, t, rest in _rows(output, y, x)
                ]
            )

    def _get_loss(self, private_net, output, y, x):
        n_further = self.n_further_outputs
        y_pred = output if n_further is None else (output, *[None] * n_further)
        try:
            with self._parameters_constant():
                return private_net.net.get_loss(y_pred, y, X=x, training=True)
        except KeyError as error:
            raise ValueError(
                f"the net's get_loss reads {error} of X, which these rows do not have: pass rows with all that it "
                "reads, as in training"
            ) from error
        except (TypeError, AttributeError) as error:
            if not self.overridden or (n_further is None and x is not None):
                raise
            raise ValueError(
                "the net's get_loss failed without "
                + (
                    "X: pass the batch x"
                    if n_further is None
                    else "the further outputs of its module: only a loss of the first output can be attributed"
                )
                + f" ({type(error).__name__}: {error})"
            ) from error

    @contextlib.contextmanager
    def _parameters_constant(self):
        """Cut what an overridden ``get_loss`` adds from the parameters themselves: a penalty belongs to no row."""
        module = self.private_net.net.module_
        trainable = [p for p in module.parameters() if p.requires_grad] if self.overridden else []
        for p in trainable:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in trainable:
                p.requires_grad_(True)


def _dims(output, y, x):
    return 0, None if y is None else 0, None if x is None else 0


def _unsqueeze(tree):
    return map_tensors(lambda tensor: tensor.unsqueeze(0), tree)


def _rows(output, y, x):
    """Every row as a batch of one."""
    return [tuple(take(tree, slice(i, i + 1)) for tree in (output, y, x)) for i in range(len(output))]
