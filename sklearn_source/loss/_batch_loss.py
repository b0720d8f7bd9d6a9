"""A net's own loss, of a batch or of its rows one at a time."""

from __future__ import annotations

import contextlib
import copy

import torch
from skorch import NeuralNet, NeuralNetClassifier

from ..stochastic import draws_examples, join_draws
from ..utils._compat_skorch import criterion_names
from ..utils._compat_torch import quiet_vmap
from ..utils._tree import map_tensors, take
from ._criterion_state import criterion_unchanged
from ._outputs import Outputs, copied, find_outputs
from ._weighted_mean import FAILURES


def needs_targets(net):
    """Whether a net's loss cannot do without targets, whatever the module returns: it is torch's, as skorch asks it.

    One that draws may make targets of the rows themselves.

    Parameters
    ----------
    net : skorch.NeuralNet
        Trained or not.
    """
    criterion = getattr(net, "criterion_", None)
    criterion = net.criterion if criterion is None else criterion
    return not draws_examples(net) and not _overrides(net) and _is_torchs(criterion)


def _overrides(net):
    """Whether ``get_loss`` is not skorch's own."""
    own = (NeuralNet.get_loss, NeuralNetClassifier.get_loss)
    return type(net).get_loss not in own or "get_loss" in vars(net)


def _is_torchs(criterion):
    """Whether a criterion, or a class of them, computes what one of torch's does."""
    cls = criterion if isinstance(criterion, type) else type(criterion)
    return getattr(getattr(cls, "forward", None), "__module__", None) == "torch.nn.modules.loss"


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
    draws_examples : bool
        Whether rows come as examples, (B, n_draws, ...): outputs and targets have the axis too. Torch's own losses take
        it for one of positions, any other is asked for the examples flattened.
    takes_no_targets : bool
        Whether rows come without targets, as those that the net was trained on: an autoencoder's ``get_loss`` compares
        with X. Set by who has seen that, see :meth:`reads_targets`.
    outputs : Outputs
        What of all that the module returns stands in ``output``: what calibration saw, no forward pass changes it.
    """

    def __init__(self, private_net):
        net = private_net.net
        self.overridden = _overrides(net)
        self.criterion = getattr(net, "criterion_", None)
        self.takes_labels = isinstance(self.criterion, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss))
        self.is_torchs = not self.overridden and _is_torchs(self.criterion)
        self.draws_examples = draws_examples(net)
        self.outputs, self.takes_no_targets, self._reference = Outputs(), False, None
        self.private_net, self._unreduced = private_net, None
        if len(criterion_names(net)) == 1 and isinstance(getattr(self.criterion, "reduction", None), str):
            # A reduction that is a read-only property leaves the loss of rows alone.
            with contextlib.suppress(AttributeError):
                unreduced = copy.copy(self.criterion)
                unreduced.reduction = "none"
                self._unreduced = private_net.with_criterion(unreduced)
        self._one_by_one = False

    @property
    def nets(self):
        """The private nets that are asked: with the criterion, and with its unreduced copy where there is one."""
        return [part.net for part in (self.private_net, self._unreduced) if part is not None]

    @property
    def has_elements(self):
        return self._unreduced is not None

    def __call__(self, output, y, x):
        """What the net's ``get_loss`` gives for a batch: a scalar, as a rule."""
        return self._get_loss(self.private_net, output, y, x)

    def elements(self, output, y, x):
        """The same with ``reduction="none"``: (B, ...), as a rule."""
        return self._get_loss(self._unreduced, output, y, x)

    def with_parameters(self, returned, y, x):
        """The same for all that the module returned, also differentiable in parameters that are read directly."""
        y, x = self._placeholders(y, returned), map_tensors(torch.clone, x)
        with self._unchanged(self.private_net):
            return self._ask(self.private_net.net, copied(returned), y, x)

    @torch.no_grad()
    def reads_targets(self, returned, x):
        """Whether the loss of a batch, for which the module returned that, depends on targets, or fails without.

        A net trained without any was given a 0 for every row, as skorch does.
        """
        values: list[torch.Tensor] = []
        n, device = _rows_and_device(returned)
        for target in (0.0, 1.0):
            with contextlib.suppress(*FAILURES, AttributeError, LookupError):
                y = torch.full((n, 1), target, device=device)
                values.append(torch.as_tensor(self.with_parameters(returned, y, x)))
        return len(values) < 2 or not torch.equal(*values)

    def see_outputs(self, returned, y, x):
        """Take from what the module returned for some training rows which of it the loss reads."""
        n_axes = 2 if self.draws_examples else 1
        self.outputs = find_outputs(lambda leaves: self.with_parameters(leaves, y, x), returned, n_axes)

    def remember(self, output, y, x):
        """Keep a row of the training, at whose fixed outputs a penalty is seen to change with the weights."""
        self._reference = None
        if self.is_torchs:
            return
        output, y, x = (map_tensors(lambda tensor: tensor[:1].detach().clone(), tree) for tree in (output, y, x))
        with torch.enable_grad():
            value = self.with_parameters(self.outputs.returned(output), y, x)
        if value.requires_grad:
            self._reference = output, y, x, value.detach().sum()

    @torch.no_grad()
    def penalty_change(self):
        """What a penalty on the parameters changed by since :meth:`remember`: a number that belongs to no row."""
        if self._reference is None:
            return 0.0
        output, y, x, before = self._reference
        return self.with_parameters(self.outputs.returned(output), y, x).sum() - before

    def _placeholders(self, y, returned):
        """A copy of the targets, or what skorch gives in the place of them."""
        if y is None and self.takes_no_targets:
            n, device = _rows_and_device(returned)
            return torch.zeros((n, 1), device=device)
        return map_tensors(torch.clone, y)

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
        returned = self.outputs.returned(output)
        if not self.is_torchs:  # a criterion that works in place works on copies
            returned, y = copied(returned), self._placeholders(y, output)
            x = map_tensors(torch.clone, x) if self.overridden else x
        try:
            with self._parameters_constant(), self._unchanged(private_net):
                return self._ask(private_net.net, returned, y, x)
        except KeyError as error:
            raise ValueError(
                f"the net's get_loss reads {error} of X, which these rows do not have: pass rows with all that it "
                "reads, as in training"
            ) from error
        except (TypeError, AttributeError) as error:
            if not self.overridden or (not isinstance(returned, tuple) and x is not None):
                raise
            raise ValueError(
                "the net's get_loss failed without "
                + (
                    "outputs of its module that it has no gradient in, which are not handed over: do without them"
                    if isinstance(returned, tuple)
                    else "X: pass the batch x"
                )
                + f" ({type(error).__name__}: {error})"
            ) from error

    def _ask(self, net, returned, y, x):
        """The net's ``get_loss``, of examples as of a batch of so many rows."""
        if self.is_torchs or not self.draws_examples:
            return net.get_loss(returned, y, X=x, training=True)
        first = next(part for part in (returned if isinstance(returned, tuple) else (returned,)) if part is not None)
        loss = net.get_loss(join_draws(returned), join_draws(y), X=join_draws(x), training=True)
        flat = loss.ndim and len(loss) == first.shape[:2].numel()
        return loss.unflatten(0, first.shape[:2]) if flat else loss

    def evaluate_criterion(self):
        """Put the criterion into evaluation mode; False where it is in none other."""
        criteria = [getattr(net, "criterion_", None) for net in self.nets]
        parts = [part for c in criteria if isinstance(c, torch.nn.Module) for part in c.modules() if part.training]
        for part in parts:
            part.training = False
        return bool(parts)

    def _unchanged(self, private_net):
        """A criterion of the user's may count its calls in training."""
        if self.is_torchs:
            return contextlib.nullcontext()
        return criterion_unchanged(getattr(private_net.net, "criterion_", None))

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


def _rows_and_device(returned):
    first = returned[0] if isinstance(returned, tuple) else returned
    return len(first), first.device


def _dims(output, y, x):
    return 0, None if y is None else 0, None if x is None else 0


def _unsqueeze(tree):
    return map_tensors(lambda tensor: tensor.unsqueeze(0), tree)


def _rows(output, y, x):
    """Every row as a batch of one."""
    return [tuple(take(tree, slice(i, i + 1)) for tree in (output, y, x)) for i in range(len(output))]
