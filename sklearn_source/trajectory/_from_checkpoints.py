"""A trajectory from state dicts, for a training that no recorder watched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral

import numpy as np
import torch

from ..rows import count_rows, exact_row_hashes, row_hashes
from ..utils._warnings import warn
from ._checkpoint import Checkpoint
from ._files import read_tensors
from ._stage import Stage

__all__ = ["record_from_checkpoints"]


def record_from_checkpoints(
    state_dicts,
    steps,
    learning_rates,
    *,
    module,
    optimizer,
    hyper,
    options,
    n_rows,
    rows,
    X,
    y,
    optimizer_states,
    groups,
):
    """Check what the user gives, see ``Trajectory.from_checkpoints``, and return the checkpoints and the one stage."""
    if isinstance(state_dicts, (str, Mapping)) or not np.iterable(state_dicts):
        raise ValueError(
            f"expected state_dicts as a list, one for each of the steps, got a {type(state_dicts).__name__}"
        )
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"expected module as the network, a torch.nn.Module, got {module!r}")
    state_dicts, steps = list(state_dicts), _check_steps(steps)
    if len(state_dicts) != len(steps):
        raise ValueError(f"expected one step number per state dict, got {len(steps)} for {len(state_dicts)}")
    states = [None] * len(steps) if optimizer_states is None else list(optimizer_states)
    if len(states) != len(steps):
        raise ValueError(f"expected one optimizer state (or None) per state dict, got {len(states)} for {len(steps)}")
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    members = _check_groups(groups, list(shapes))
    described = [{"params": names, **_options_of(states, number)} for number, names in enumerate(members)]
    described = tuple({**group, **options} for group in described)

    _check_memory(state_dicts, steps)
    checkpoints = []
    for step, given, state in zip(steps, state_dicts, states):
        where = f"the state dict of step {step}"
        parameters, buffers = _split_state(given, module, where)
        checkpoints.append(Checkpoint(step, 0, parameters, buffers, _named_state(state, members, shapes, step)))

    table = {"lr": learning_rates, **hyper}
    table = {name: _per_step(name, values, steps[-1], len(members)) for name, values in table.items()}
    n_rows, rows = _check_rows(n_rows, rows)
    if X is not None and (n_given := count_rows(X)) != n_rows:
        raise ValueError(f"expected X with n_rows={n_rows} rows, got {n_given}")
    hashes = None if X is None else row_hashes(X, y, as_skorch=True, sample=True)
    if X is not None and hashes is None:
        warn("X has rows that no fingerprint can be taken of: other rows than these will not be told from them")
    if not isinstance(optimizer, str) and not (
        isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)
    ):
        raise ValueError(f"expected optimizer as a class of optimizers or the name of one, got {optimizer!r}")
    name = optimizer if isinstance(optimizer, str) else optimizer.__name__
    exact = None if hashes is None else exact_row_hashes(X, y, as_skorch=True)
    return checkpoints, [Stage(0, 0, steps[-1], name, described, table, n_rows, rows, hashes, exact_hashes=exact)]


# Steps whose rates, one number of each kind for every step, take 1.6 GB.
_MOST_STEPS = 50_000_000
# By name: the smallest value, and what the values are below.
_BOUNDS = {"lr": (0.0, np.inf), "momentum": (0.0, 1.0), "weight_decay": (0.0, np.inf)}


def _check_steps(steps):
    steps = list(steps) if np.iterable(steps) else [steps]
    whole = all(isinstance(step, Integral) and not isinstance(step, bool) for step in steps)
    if not steps or not whole or steps[0] < 0 or steps[-1] < 1 or np.any(np.diff(steps) <= 0):
        raise ValueError(
            "expected the number of steps taken before each state dict was saved: whole, increasing, the first 0 (the "
            f"initial weights) and the last at least 1. Got {steps}"
        )
    if steps[-1] > _MOST_STEPS:
        raise ValueError(
            f"expected steps up to {_MOST_STEPS:,}, as every step has its rates in memory, got {steps[-1]:,}: count "
            "optimizer steps, not rows or tokens"
        )
    return [int(step) for step in steps]


def _check_groups(groups, names):
    if groups is None:
        return [names]
    if not np.iterable(groups) or any(isinstance(group, str) or not np.iterable(group) for group in groups):
        raise ValueError(f"expected groups as lists of parameter names, one for each group, got {groups!r}")
    members = [list(group) for group in groups]
    flat = [name for group in members for name in group]
    unknown = sorted(set(flat) - set(names))
    if unknown or len(set(flat)) != len(flat) or not members:
        raise ValueError(
            f"expected groups of parameter names, each in one group at most; unknown: {unknown}, repeated: "
            f"{sorted({name for name in flat if flat.count(name) > 1})}. The module has {names}"
        )
    return members


def _check_rows(n_rows, rows):
    if not isinstance(n_rows, Integral) or isinstance(n_rows, bool) or n_rows < 1:
        raise ValueError(f"expected n_rows to be the number of training rows, a whole number >= 1, got {n_rows!r}")
    rows = np.arange(n_rows) if rows is None else _array_of(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= n_rows:
        raise ValueError(f"expected rows to be indices, from 0 to {n_rows - 1}, of the rows trained on. Got {rows!r}")
    if len(np.unique(rows)) < len(rows):
        raise ValueError("expected every index once in rows, those trained on, got some more than once")
    return int(n_rows), rows.astype(np.int64)


def _array_of(rows):
    try:
        return np.asarray(rows)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected rows to be indices, got a {type(rows).__name__} ({error})") from error


def _per_step(name, values, n_steps, n_groups):
    """Values as a table (steps, groups)."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf" and array.dtype != object:
            raise ValueError(f"its values are {array.dtype}")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected {name} as numbers, got a {type(values).__name__} ({error})") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim not in (0, 2) or (array.ndim == 2 and (len(array) != n_steps or array.shape[1] not in (1, n_groups))):
        raise ValueError(
            f"expected {name} as a number, one per step ({n_steps},), or one per step and parameter group "
            f"({n_steps}, {n_groups}), up to the last checkpoint at step {n_steps}; got shape {np.shape(values)}. A "
            "gap cannot be filled in: give the value of every single step"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite values of {name}, got NaN or infinity")
    smallest, below = _BOUNDS.get(name, (-np.inf, np.inf))
    if array.size and not (smallest <= array.min() and array.max() < below):
        raise ValueError(
            f"expected {name} from {smallest:g} up"
            + (f", below {below:g}" if below < np.inf else "")
            + f", got values from {array.min():g} to {array.max():g}: give what the optimizer was run with"
        )
    return np.array(np.broadcast_to(array, (n_steps, n_groups)))


def _check_memory(state_dicts, steps):
    """Refuse state dicts that were saved without a copy: all of them show the last weights."""
    owners = {}
    for step, given in zip(steps, state_dicts):
        if isinstance(given, Mapping):
            for name, value in given.items():
                if isinstance(value, torch.Tensor) and value.numel():
                    other = owners.setdefault((value.device, value.data_ptr()), step)
                    if other != step:
                        raise ValueError(
                            f"expected separate state dicts, but {name!r} of steps {other} and {step} is the same "
                            "memory, "
                            "so both show the later weights. Save copy.deepcopy(module.state_dict()) while training"
                        )


def _split_state(given, module, where):
    """Parameters and buffers, copied to the CPU, of a state dict or a safetensors file."""
    if isinstance(given, (str, os.PathLike)):
        where = os.fspath(given)
        if where.endswith((".pt", ".pth", ".bin", ".pkl")):
            raise ValueError(
                f"{where}: expected a safetensors file. Load others yourself, torch.load(path, weights_only=True), and "
                "give the state dict"
            )
        given, _ = read_tensors(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"expected {where} as a dict of tensors or a safetensors path, got {type(given).__name__}")
    known = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    saved = module.state_dict()
    unknown = sorted(set(given) - set(known) - set(saved))
    missing = sorted(name for name, _ in module.named_parameters() if name not in given)
    # A buffer that state_dict() leaves out (persistent=False) is as the module has it.
    missing += sorted(name for name, _ in module.named_buffers() if name not in given and name in saved)
    if unknown or missing:
        raise ValueError(f"{where} does not fit the module: missing {missing}, unknown {unknown}")

    def copy(name, value):
        recorded = given.get(name, value)
        if not isinstance(recorded, torch.Tensor):
            raise ValueError(f"{where}: expected {name!r} as a tensor, got a {type(recorded).__name__}")
        if tuple(recorded.shape) != tuple(value.shape):
            raise ValueError(f"{where}: expected {name!r} of shape {tuple(value.shape)}, got {tuple(recorded.shape)}")
        return recorded.detach().to("cpu", copy=True)

    parameters = {name: copy(name, value) for name, value in module.named_parameters()}
    return parameters, {name: copy(name, value) for name, value in module.named_buffers()}


def _is_state_dict(state):
    return isinstance(state, Mapping) and set(state) == {"state", "param_groups"}


def _options_of(states, number):
    """What stayed the same in one group, from the last ``optimizer.state_dict()``."""
    groups = next((state["param_groups"] for state in reversed(states) if _is_state_dict(state)), [])
    moving = ("params", "param_names", "lr", "momentum", "dampening", "weight_decay")
    plain = (bool, int, float, str, tuple, type(None))
    group = groups[number] if number < len(groups) else {}
    return {key: value for key, value in group.items() if key not in moving and isinstance(value, plain)}


def _named_state(state, members, shapes, step):
    """Optimizer state by parameter name; ``optimizer.state_dict()`` counts parameters through its groups."""
    if state is None:
        return None
    if not isinstance(state, Mapping):
        raise ValueError(
            f"expected the optimizer state of step {step} as optimizer.state_dict(), a dict by parameter name or None, "
            f"got a {type(state).__name__}"
        )
    if _is_state_dict(state):
        names = [name for group in members for name in group]
        counted = [index for group in state["param_groups"] for index in group["params"]]
        if len(counted) != len(names):
            raise ValueError(
                f"expected the optimizer state of step {step} to hold {len(names)} parameters, got {len(counted)}. "
                "Give groups= as the optimizer had them"
            )
        state = {name: state["state"].get(index, {}) for name, index in zip(names, counted)}
    unknown = sorted(set(state) - set(shapes))
    if unknown:
        raise ValueError(f"The optimizer state of step {step} has parameters that the module has not: {unknown}")
    named = {}
    for name, entries in state.items():
        if not isinstance(entries, Mapping):
            raise ValueError(
                f"The optimizer state of step {step}: expected a dict of what it kept for {name!r}, got a "
                f"{type(entries).__name__}"
            )
        kept = {key: value for key, value in entries.items() if isinstance(value, (torch.Tensor, bool, int, float))}
        for key, value in kept.items():
            if isinstance(value, torch.Tensor):
                if value.ndim and tuple(value.shape) != shapes[name]:
                    raise ValueError(
                        f"The optimizer state of step {step}: expected {key!r} of {name!r} with shape {shapes[name]}, "
                        f"got {tuple(value.shape)}. Give groups= in the order of the optimizer's parameters"
                    )
                kept[key] = value.detach().to("cpu", copy=True)
        named[name] = kept
    return named
