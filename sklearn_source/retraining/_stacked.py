"""Many networks of one kind trained at once: their parameters stacked, the net's own optimizer on the stacks."""

from __future__ import annotations

import functools

import numpy as np
import torch
from sklearn.base import clone
from skorch import callbacks
from torch.func import functional_call, vmap

from ..network import net_with_changed_module, replace_tensors
from ..stochastic import draws_examples, stacked_examples, step_examples
from ..trajectory import Trajectory, with_tensors
from ..utils._compat_skorch import set_training
from ..utils._compat_torch import fused_attention_off, tree_flatten, tree_map, tree_unflatten
from ..utils._random import seeded
from ..utils._tree import map_tensors, take
from ._clones import initialized, materialize
from ._notified_optimizer import NotifiedOptimizer
from ._optimizer_state import read_optimizer
from ._recorded_training import RecordedTraining
from ._replay import replay
from ._stacked_parameters import StackedParameters
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
        return self._train(units, plan, {})[0].split()

    def record(self, units, plan, recorder=None, **given):
        """Train a network for each unit, as :meth:`train`, with a record of each.

        Parameters
        ----------
        units : list of Unit
        plan : BatchPlan or LoaderPlan
        recorder : TrajectoryRecorder, optional
            Not yet used. It watches the stacks as the parameters of one network, and is parted into networks.
        **given : ``X``, ``y`` and ``dataset_train``
            What the training is said to be of.

        Returns
        -------
        trainings : list of RecordedTraining
        """
        stacks, net, losses = self._train(units, plan, given, recorder)
        whole = None if recorder is None else Trajectory.from_net(net)
        history, trainings = net.history.to_list(), []
        state, groups = read_optimizer(net)
        losses = [(torch.stack(values).cpu().numpy(), sizes) for values, sizes in losses]
        for i, (parameters, buffers) in enumerate(stacks.split()):
            record = None
            if whole is not None:
                own = functools.partial(stacks.of, i)
                record = with_tensors(whole, own, lambda rows, i=i: tree_map(lambda leaf: leaf[i].clone(), list(rows)))
            kept = {name: {key: stacks.of(i, name, v) for key, v in own.items()} for name, own in state.items()}
            noted = _history(history, losses, i)
            trainings.append(RecordedTraining(parameters, buffers, (kept, groups), noted, record))
        return trainings

    def _train(self, units, plan, given, recorder=None):
        """Stacks at their end, the net that has them as its parameters, and (losses, sizes) of each epoch's batches."""
        with fused_attention_off(self.network.device):
            return self._train_all(units, plan, given, recorder)

    def _train_all(self, units, plan, given, recorder):
        _keep_freed_memory()
        stacks, deals = self._begin(units, plan)
        gradients = _Gradients(self.net, self.network, stacks, self.name)
        trained = [leaf for leaf in stacks.leaves.values() if leaf.requires_grad]
        steps = NotifiedOptimizer(self._net_of(stacks), [*map(clone, self.schedules), recorder], given)
        self.net.history = steps.net.history  # where a get_loss of the user's own may look for the epoch
        set_training(self.net, True)
        losses = []
        for dealt in zip(*deals):
            steps.begin_epoch()
            losses.append(([], [n_dealt for _, n_dealt in dealt[0]]))
            batches = _padded_batches(dealt, self.renormalize) if plan.keep_places else _equal_batches(dealt)
            for index, weights in batches:
                rows = self._pick(self.x, index), self._pick(self.y, index)
                steps.begin_batch(rows)
                batch = self._examples(*rows)
                if weights is not None:
                    batch = *batch, weights.to(self.network.device, self.network.dtype)
                loss, *found = gradients(batch)
                for leaf, gradient in zip(trained, found, strict=True):
                    # Fused optimizers misread gradients that were expanded (the gradient of a sum, say).
                    leaf.grad = None if gradient is None else gradient.contiguous()
                losses[-1][0].append(loss.detach())
                steps.step()
            steps.end_epoch()
        steps.end()
        return stacks, steps.net, losses

    def _begin(self, units, plan):
        """Weights drawn as a skorch clone of each unit draws them, stacked; and the batches that each is dealt."""
        states, deals = [], []
        few, targets = (map_tensors(lambda leaf: leaf[:2], tree) for tree in (self.x, self.y))
        few, _ = step_examples(self.net, (few, targets)) if draws_examples(self.net) else (few, None)
        self._draw_seeds = []
        for unit in units:
            with seeded(unit.seed, self.net.device):
                self.net.initialize()
                deals.append(plan.deal(unit, lambda: materialize(self.net, few)))
            states.append(_copied_state(self.net.module_))
            self._draw_seeds.append(getattr(self.net, "draw_seed_", None))
        return StackedParameters(self.net.module_, states), deals

    def _net_of(self, stacks):
        """A net whose module has the stacks as its parameters and buffers, with the optimizer of these."""
        tensors = {**stacks.leaves, **stacks.buffers}
        net = net_with_changed_module(self.net, lambda module: replace_tensors(module, tensors))
        vars(net)["optimizer_"] = self._optimizer(list(stacks.leaves.items()))
        return net

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
        """Losses (n,), then gradients of the stacks that are trained, None where a loss does not depend on one.

        ``batch`` is (x, y[, weights]).
        """
        tensors, form = tree_flatten((self.stacks.leaves, self.stacks.buffers, batch))

        def compute(*tensors):
            leaves, buffers, batch = tree_unflatten(tensors, form)
            trained = [leaf for leaf in leaves.values() if leaf.requires_grad]
            with torch.enable_grad():
                losses = self.loss(self.stacks.state(leaves, buffers), batch)
                return [losses.detach(), *torch.autograd.grad(losses.sum(), trained, allow_unused=True)]

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


def _history(shared, losses, i):
    """The history of network ``i``: what all have noted alike, and its own losses."""
    history = []
    for epoch, (values, sizes) in zip(shared, losses, strict=True):
        own = [float(value) for value in values[:, i]]
        batches = [{"train_loss": loss, "train_batch_size": n} for loss, n in zip(own, sizes, strict=True)]
        history.append({**epoch, "batches": batches, "train_loss": float(np.average(own, weights=sizes))})
    return history
