"""The one home of what is private to skorch."""

from __future__ import annotations

from functools import partial

# Methods of a net that say what a training step is; get_loss and infer may be overridden.
TRAINING_STEP = (
    "fit_loop", "run_single_epoch", "train_step", "train_step_single", "get_train_step_accumulator", "partial_fit",
    "initialize_module", "initialize_criterion", "initialize_optimizer", "initialize", "get_iterator", "get_dataset",
    "get_split_datasets", "get_all_learnable_params", "on_train_begin", "on_train_end", "on_epoch_begin",
    "on_epoch_end", "on_batch_begin", "on_batch_end", "on_grad_computed", "notify", "get_params_for_optimizer",
    "_step_optimizer", "_zero_grad_optimizer", "_set_training",
)  # fmt: skip

# What skorch notes down in a net, and a net whose loss draws, which each training begins anew, and what only watches or
# feeds a training.
OWN_NOTES = (
    "history_", "callbacks", "callbacks_", "optimizer_", "train_split", "virtual_params_", "init_context_", "dataset",
    "max_epochs", "verbose", "initialized_", "classes_inferred_", "_params_to_validate", "_modules", "_criteria",
    "_optimizers", "_kwargs", "prefixes_", "cuda_dependent_attributes_",
    "draw_seed_", "sample_shape_", "ema_",
)  # fmt: skip


def module_names(net):
    """The modules of an initialized net, as its parameters are called: "module" -> ``net.module_``."""
    return list(net._modules)


def criterion_names(net):
    """Its criteria, likewise."""
    return list(net._criteria)


def optimizer_names(net):
    """Its optimizers, likewise; None where the net keeps no list."""
    names = getattr(net, "_optimizers", None)
    return None if names is None else list(names)


def set_training(net, training):
    """Switch the modules and criteria of an initialized net between training and evaluation."""
    net._set_training(training)


def is_predefined_split(split):
    """Whether a ``train_split`` is skorch's ``predefined_split``: validation rows of its own, none taken away."""
    return isinstance(split, partial) and getattr(split.func, "__name__", "") == "_make_split"
