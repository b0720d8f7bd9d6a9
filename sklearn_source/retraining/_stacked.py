"""Many networks of one kind trained at once: their parameters stacked, the net's own optimizer on the stacks."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.base import clone
from skorch import callbacks
from skorch.history import History
from torch.func import functional_call, vmap

from ..network import TURN
from ..stochastic import draws_examples, stacked_examples, step_examples
from ..utils._compat_skorch import set_training
from ..utils._compat_torch import tree_flatten, tree_unflatten
from ..utils._random import seeded
from ..utils._tree import map_tensors, take
from ._clones import initialize, initialized
from ._replay import replay
from ._training_state import changed, training_state

_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)


class StackedTrainer:
    """Trains networks that share an architecture, a recipe and the number of steps.

    Parameters
    ----------
    template : skorch.NeuralNet
        From :func:`~._clones.template_of`.
    network : Network
        Of an initialized clone, calibrated: the loss of a row, where batches lost rows.
    x, y : trees of Tensor
        All training rows, on the device.
    renormalize : bool
        As in :func:`~._clones.train`.
    name : str, optional
        Of what all these trainings do alike, by which steps are recorded and replayed; None: every step is computed
        as it comes.
    """

    def __init__(self, template, network, x, y, *, renormalize=True, name=None):
        self.network, self.x, self.y, self.renormalize, self.name = network, x, y, renormalize, name
        self.net = initialized(template)  # once: a clone costs as much as training a small network
        self.schedules = [c for _, c in self.net.callbacks_ if isinstance(c, callbacks.LRScheduler)]
        self.net.callbacks = "disable"

    def train(self, units, plan):
        """Train a network for each unit.

        Parameters
        ----------
        units : list of Unit
            With equally many rows.
        plan : BatchPlan

        Returns
        -------
        states : list of (parameters, buffers)
            Mappings from name to Tensor, in the order of `units`.
        """
        _keep_freed_memory()
        stacks = self._initial_stack(units)
        gradients = _Gradients(self.net, self.network, stacks, self.name)
        optimizer = self._optimizer(list(stacks.leaves.items()))
        trained = [leaf for leaf in stacks.leaves.values() if leaf.requires_grad]
        steps = _ScheduledOptimizer(optimizer, self.schedules)
        self.net.history = steps.net.history  # where a get_loss of the user's own may look for the epoch
        set_training(self.net, True)
        for epoch in range(plan.n_epochs):
            steps.begin_epoch()
            dealt = [plan.batches(unit, epoch) for unit in units]
            batches = _padded_batches(dealt, self.renormalize) if plan.keep_places else _equal_batches(dealt)
            for index, weights in batches:
                steps.begin_batch()
                batch = self._examples(self._pick(self.x, index), self._pick(self.y, index))
                if weights is not None:
                    batch = *batch, weights.to(self.network.device, self.network.dtype)
                for leaf, gradient in zip(trained, gradients(batch)):
                    # Fused optimizers misread gradients that were expanded (the gradient of a sum, say).
                    leaf.grad = None if gradient is None else gradient.contiguous()
                steps.step()
            steps.end_epoch()
        return stacks.split()

    def _initial_stack(self, units):
        """Weights drawn as a skorch clone of each unit draws them, stacked."""
        states = []
        few, targets = (map_tensors(lambda leaf: leaf[:2], tree) for tree in (self.x, self.y))
        few, _ = step_examples(self.net, (few, targets)) if draws_examples(self.net) else (few, None)
        self._draw_seeds = []
        for unit in units:
            with TURN, seeded(unit.seed, self.net.device):
                initialize(self.net, few)
            states.append(_copied_state(self.net.module_))
            self._draw_seeds.append(getattr(self.net, "draw_seed_", None))
        return _StackedParameters(self.net.module_, states)

    def _optimizer(self, named):
        """The net's optimizer on (name, stack) pairs, fused where torch can."""
        args, options = self.net.get_params_for_optimizer("optimizer", named)
        if self.net.optimizer in _FUSED and not {"foreach", "fused", "capturable", "differentiable"} & set(options):
            try:
                return self.net.optimizer(*args, **options, fused=True)  # one pass over memory, the same numbers
            except (RuntimeError, TypeError):  # an older torch, or numbers that its fused optimizers do not take
                pass
        return self.net.optimizer(*args, **options)

    def _examples(self, x, y):
        """What the losses are of, the network as first axis: the rows, or what each network's draws make of its own."""
        if not draws_examples(self.net):
            return x, y
        draws = []
        for seed in self._draw_seeds:
            self.net.draw_seed_ = seed
            draws.append(self.net.training_draw(len(self.net.history)))
        return stacked_examples(self.net, draws, x, y)

    def _pick(self, tree, index):
        """Rows of a tree of tensors, of as many axes as ``index`` has in front."""
        index = index.to(self.network.device)
        return take(tree, index)


class _Gradients:
    """Gradients of the losses of all networks at their batches, by parameter."""

    def __init__(self, net, network, stacks, name):
        self.net, self.stacks, self.name, self.stepped = net, stacks, name, False
        self.loss = vmap(functools.partial(functional_call, _BatchLoss(stacks.module, net, network)))

    def __call__(self, batch):
        """Gradients of the stacks that are trained, None where a loss does not depend on one, at (x, y[, weights])."""
        tensors, form = tree_flatten((self.stacks.leaves, self.stacks.buffers, batch))

        def compute(*tensors):
            leaves, buffers, batch = tree_unflatten(tensors, form)
            trained = [leaf for leaf in leaves.values() if leaf.requires_grad]
            with torch.enable_grad():
                total = self.loss(self.stacks.state(leaves, buffers), batch).sum()
                return torch.autograd.grad(total, trained, allow_unused=True)

        if self.name is None:
            return compute(*tensors)
        if self.stepped:
            return replay(self.name, compute, tensors)
        # What notes something down in a step (a counter, say) may do something else in the next.
        before = training_state(self.net)
        gradients = compute(*tensors)
        self.stepped, self.name = True, self.name if changed(before, training_state(self.net)) is None else None
        return gradients


class _BatchLoss(torch.nn.Module):
    """The loss of one network on its batch: all of ``get_loss`` sees it, penalties too."""

    def __init__(self, module, net, network):
        super().__init__()
        self.module, self.net, self.network = module, net, network

    def forward(self, x, y, weights=None):
        output = self.net.infer(x)
        if weights is None:
            return self.net.get_loss(output, y, X=x, training=True)
        output = output[0] if isinstance(output, tuple) else output
        if self.network.draws_examples:  # one of each row
            output, y, x = (map_tensors(lambda leaf: leaf.unsqueeze(1), tree) for tree in (output, y, x))
        return (self.network.row_loss(output, y, x) * weights).sum()


class _StackedParameters:
    """Parameters and buffers of many networks, the network as first axis.

    Weights of linear layers lie transposed in memory: their gradients then come out of the batched product in the same
    layout, and the optimizer need not copy them.
    """

    def __init__(self, module, states):
        self.module, self.n = module, len(states)
        self.leaves, self.transposed = {}, set(_transposed_weights(module))
        for name, p in module.named_parameters():
            stack = torch.stack(
                [parameters[name].mT if name in self.transposed else parameters[name] for parameters, _ in states]
            )
            self.leaves[name] = stack.contiguous().requires_grad_(p.requires_grad)
        self.buffers = {n: torch.stack([buffers[n] for _, buffers in states]) for n, _ in module.named_buffers()}

    def _parameters(self, leaves):
        """The stacks in the layout of the module's parameters, by name."""
        return {name: leaf.mT if name in self.transposed else leaf for name, leaf in leaves.items()}

    def state(self, leaves, buffers):
        """What the module of :class:`_BatchLoss` calls its parameters and buffers."""
        return {f"module.{name}": value for name, value in {**self._parameters(leaves), **buffers}.items()}

    def split(self):
        """(parameters, buffers) of each network, by name."""
        parameters = {name: value.detach() for name, value in self._parameters(self.leaves).items()}
        return [
            ({n: v[i].contiguous() for n, v in parameters.items()}, {n: v[i].clone() for n, v in self.buffers.items()})
            for i in range(self.n)
        ]


def _transposed_weights(module):
    """Names of the weights of linear layers, which are stacked transposed."""
    for name, part in module.named_modules():
        # A single output's weights are a vector: transposed, it would take the slow path of the batched product.
        if type(part) is torch.nn.Linear and part.out_features > 1:
            yield f"{name}.weight" if name else "weight"


class _ScheduledOptimizer:
    """Takes the optimizer's steps and lets skorch's schedulers see them, as a fit would."""

    def __init__(self, optimizer, schedules):
        # A scheduler reads nothing else of a net.
        self.net = SimpleNamespace(optimizer_=optimizer, history=History())
        self.schedules = [clone(schedule).initialize() for schedule in schedules]
        for schedule in self.schedules:
            schedule.on_train_begin(self.net)

    def begin_epoch(self):
        self.net.history.new_epoch()
        self.net.history.record("epoch", len(self.net.history))
        self.n_steps = 0

    def begin_batch(self):
        self.net.history.new_batch()

    def step(self):
        self.net.optimizer_.step()
        self.n_steps += 1
        for schedule in self.schedules:
            schedule.on_batch_end(self.net, training=True)

    def end_epoch(self):
        self.net.history.record("train_batch_count", self.n_steps)
        for schedule in self.schedules:
            schedule.on_epoch_end(self.net)


def _keep_freed_memory():
    """Let the C library keep what is freed for the next step, instead of asking the system for fresh pages every time.

    glibc returns free memory at the top of its heap above twice the largest block that was ever freed to the system,
    which it counts up to 32 MiB. Elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _copied_state(module):
    """Copies of (parameters, buffers) by name."""
    return (
        {name: p.detach().clone() for name, p in module.named_parameters()},
        {name: b.detach().clone() for name, b in module.named_buffers()},
    )


def _equal_batches(dealt):
    """Batches of equally many rows: (index, None) for each step, with the network as the first axis of the index."""
    sizes = [len(rows) for rows, _ in dealt[0]]
    order = torch.from_numpy(np.stack([np.concatenate([rows for rows, _ in batches]) for batches in dealt]))
    return [(index, None) for index in order.split(sizes, dim=1)]


def _padded_batches(dealt, renormalize):
    """Batches of unequal length as one index, with a weight for each row: 0 for those that fill up."""
    for batches in zip(*dealt, strict=True):
        length = max(len(rows) for rows, _ in batches)
        index = np.zeros((len(batches), length), dtype=np.int64)
        weights = np.zeros((len(batches), length))
        for i, (rows, n_dealt) in enumerate(batches):
            index[i, : len(rows)], index[i, len(rows) :] = rows, rows[0]
            weights[i, : len(rows)] = 1 / (len(rows) if renormalize else n_dealt)
        yield torch.from_numpy(index), torch.from_numpy(weights)
