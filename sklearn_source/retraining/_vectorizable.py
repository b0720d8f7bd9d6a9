"""Whether many networks of a kind can be trained at once, and if not, why."""

from __future__ import annotations

import torch
from skorch import callbacks
from skorch.callbacks.scoring import ScoringBase
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from ..rows import ArrayRows
from ..utils._compat_skorch import TRAINING_STEP
from ..utils._compat_torch import Convolution, Dropout
from ._clones import DROPPED_CALLBACKS

# They update every number from its own gradient and state alone: stacked parameters as each network by itself.
ELEMENTWISE = tuple(
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop")
)
_MAX_PARAMETERS = 500_000
_PACKAGE = __name__.split(".")[0]
_REPORTING = (*DROPPED_CALLBACKS, callbacks.EpochTimer, callbacks.PassthroughScoring, ScoringBase)


def why_not_vectorized(template, network, rows):
    """The reason why the networks have to be trained one by one; None where none is known.

    Parameters
    ----------
    template : skorch.NeuralNet
        An initialized clone.
    network : Network
        Of the same.
    rows : Rows
        The training rows.

    Returns
    -------
    reason : str or None
    """
    kind = type(template)
    own = next((name for name in TRAINING_STEP if _is_overridden(kind, name)), None)
    if own:
        return f"{kind.__name__} has a {own} of its own"
    if template.optimizer not in ELEMENTWISE:
        name = getattr(template.optimizer, "__name__", repr(template.optimizer))
        return f"{name} is not known to update every parameter by itself"
    for _, callback in getattr(template, "callbacks_", ()):
        if isinstance(callback, callbacks.LRScheduler):
            if callback.policy_ is ReduceLROnPlateau:
                return "ReduceLROnPlateau looks at the losses of each network"
        elif not isinstance(callback, _REPORTING):
            return f"the callback {type(callback).__name__} may change the training of each network"
    if getattr(template, "compile", False):
        return "the net compiles its module"
    if template.iterator_train is not DataLoader or template.get_params_for("iterator_train").get("collate_fn"):
        return "the net makes its batches in a way of its own"
    if not isinstance(rows.given, ArrayRows):
        return "the rows come from a dataset of the user's, which may give other values at each reading"
    if not rows.has_y:
        return "the rows have no targets"
    criterion = template.criterion_
    if isinstance(criterion, torch.nn.Module) and any(True for _ in criterion.parameters()):
        return "the criterion has parameters of its own"
    random = _random_module(network.module)
    return f"{random} draws random numbers in training" if random else None


def why_not_faster(network):
    """The reason why stacking gains nothing, though it could be done; None where it gains.

    On a processor, stacking saves the overhead of small operations (ten times as fast with 34,000 parameters). One
    network of half a million parameters fills a core by itself, and stacked convolutions are slower than single ones.
    """
    if network.device.type != "cpu":
        return None
    if any(isinstance(part, Convolution) for part in network.module.modules()):
        return "convolutions of many networks at once are no faster on a processor"
    n_parameters = sum(p.numel() for p in network.module.parameters())
    if n_parameters > _MAX_PARAMETERS:
        return f"networks of {n_parameters:,} parameters are no faster at once on a processor"
    return None


def replayable(template):
    """Whether all steps of a net do the same: a loss of the user's own may change with the epoch."""
    return not any(_is_overridden(type(template), name) for name in ("get_loss", "infer"))


def _is_overridden(kind, name):
    """Whether a class of the user's, not skorch or this package, has the method."""
    home = next((c for c in kind.__mro__ if name in vars(c)), None)
    return home is not None and home.__module__.split(".")[0] not in ("skorch", _PACKAGE)


def _random_module(module):
    """The name of the class of a part that draws random numbers in training; None where none does."""
    for part in module.modules():
        if isinstance(part, Dropout) and part.p > 0:
            return type(part).__name__
        if isinstance(getattr(part, "dropout", None), float) and part.dropout > 0:  # recurrent layers, attention
            return type(part).__name__
    return None
