"""A net's loss, asked for a batch or for its rows one at a time."""

from __future__ import annotations

import contextlib
import copy

import torch
from skorch import NeuralNet, NeuralNetClassifier

from ..utils._compat_skorch import criterion_names
from ..utils._tree import map_tensors, take
from ._weighted_mean import FAILURES


class AskedLoss:
    """The net's own ``get_loss``, with its criterion and with an unreduced copy of it.

    Parameters
    ----------
    shell : NetShell

    Attributes
    ----------
    shell, unreduced : NetShell
        The net, and the same with ``reduction="none"`` (None where the criterion has no ``reduction``).
    kind : str
        :attr:`Network.predictive`.
    closed : bool
        Whether its Hessian is known in closed form from the kind.
    labels : bool
        Whether the criterion takes class labels.
    overridden : bool
        Whether ``get_loss`` is not skorch's own.
    known : bool
        Whether the loss is one of torch's criteria as skorch calls it.
    n_extra : int or None
        How many outputs besides the first the module returned; None where it returned no tuple.
    """

    def __init__(self, shell):
        net = shell.net
        own = (NeuralNet.get_loss, NeuralNetClassifier.get_loss)
        self.overridden = type(net).get_loss not in own or "get_loss" in vars(net)
        self.criterion = getattr(net, "criterion_", None)
        self.labels = isinstance(self.criterion, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss))
        forward = getattr(type(self.criterion), "forward", None)
        self.known = not self.overridden and getattr(forward, "__module__", None) == "torch.nn.modules.loss"
        self.kind, self.closed, self.n_extra = "unknown", False, None
        self.shell, self.unreduced = shell, None
        if len(criterion_names(net)) == 1 and isinstance(getattr(self.criterion, "reduction", None), str):
            # A reduction that is a read-only property leaves the rows-alone way.
            with contextlib.suppress(AttributeError):
                unreduced = copy.copy(self.criterion)
                unreduced.reduction = "none"
                self.unreduced = shell.with_criterion(unreduced)
        self._loop = False

    def rows_alone(self, output, y, x):
        """``get_loss`` of every row as a batch of one: (B,)."""

        def one(o, t, rest):
            value = self.get_loss(self.shell, o.unsqueeze(0), _unsqueeze(t), _unsqueeze(rest))
            return value.reshape(())

        if not self._loop:
            with contextlib.suppress(*FAILURES):
                return torch.func.vmap(one, in_dims=_dims(output, y, x))(output, y, x)
        rows = [(o, take(y, slice(i, i + 1)), take(x, slice(i, i + 1))) for i, o in enumerate(output)]
        losses = [self.get_loss(self.shell, o[None], t, r).reshape(()) for o, t, r in rows]
        self._loop = True  # a criterion that looks at values (if loss > 0:) cannot be vectorised
        return torch.stack(losses)

    def get_loss(self, shell, output, y, x):
        """What the net's own ``get_loss`` gives for a batch, by ``shell`` or ``unreduced``."""
        handed = output if self.n_extra is None else (output, *[None] * self.n_extra)
        try:
            with self._parameters_constant():
                return shell.net.get_loss(handed, y, X=x, training=True)
        except KeyError as error:
            raise ValueError(
                f"the net's get_loss reads {error} of X, which these rows do not have: pass rows with all that it "
                "reads, as in training"
            ) from error
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

    def second_derivatives(self, losses, output, y, x):
        """Hessian of ``losses(output, y, x)``, a row at a time: (B, *row, *row)."""

        def one(o, t, rest):
            return losses(o.unsqueeze(0), _unsqueeze(t), _unsqueeze(rest)).squeeze(0)

        if not self._loop:
            try:
                second = torch.func.jacrev(torch.func.grad(one))  # the reverse way: few losses have a forward one
                return torch.func.vmap(second, in_dims=_dims(output, y, x))(output, y, x).detach()
            except FAILURES:
                self._loop = True
        rows = [(o, take(y, slice(i, i + 1)), take(x, slice(i, i + 1))) for i, o in enumerate(output)]
        with torch.enable_grad():
            return torch.stack(
                [torch.autograd.functional.hessian(lambda o, t=t, r=r: losses(o[None], t, r)[0], o) for o, t, r in rows]
            )


def _dims(output, y, x):
    return 0, None if y is None else 0, None if x is None else 0


def _unsqueeze(tree):
    return map_tensors(lambda tensor: tensor.unsqueeze(0), tree)
