"""Everything about a net and the global state that attribution must leave as it is."""

from __future__ import annotations

import random

import numpy as np
import torch

from .._digest import digest


def fingerprint(net):
    """Aspect -> value, to be compared before and after."""
    aspects = {
        "torch's random state": digest(torch.get_rng_state()),
        "NumPy's random state": digest(np.random.get_state()),
        "Python's random state": hash(random.getstate()),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "the attributes of the net": {key: id(value) for key, value in vars(net).items()},
        "the net's history": repr(net.history) if hasattr(net, "history_") else None,
    }
    for name, callback in getattr(net, "callbacks_", ()):
        aspects[f"the attributes of the net's callback {name!r}"] = {k: id(v) for k, v in vars(callback).items()}
    if not getattr(net, "initialized_", False):
        return aspects
    aspects["the optimizer's state"] = digest(net.optimizer_.state_dict())
    for part, root in (("module", net.module_), ("criterion", net.criterion_)):
        for name, module in root.named_modules():
            where = f"of {part}_{'.' + name if name else ''}"
            aspects[f"the training mode {where}"] = module.training
            aspects[f"the attributes {where}"] = sorted(vars(module))
            aspects[f"the hooks {where}"] = {
                key: [id(hook) for hook in value.values()]
                for key, value in vars(module).items()
                if key.endswith("hooks") and value
            }
    for name, parameter in net.module_.named_parameters():
        aspects[f"the values of parameter {name}"] = digest(parameter)
        aspects[f"requires_grad of parameter {name}"] = parameter.requires_grad
        aspects[f"the gradient of parameter {name}"] = digest(parameter.grad)
        aspects[f"the memory of parameter {name}"] = parameter.data_ptr()
    for name, buffer in net.module_.named_buffers():
        aspects[f"the values of buffer {name}"] = digest(buffer)
    return aspects


def changed(before, after):
    """Names of the aspects that differ."""
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]
