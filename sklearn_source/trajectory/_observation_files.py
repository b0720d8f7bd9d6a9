"""Observations in a trajectory's directory: a safetensors file each, and nothing that would have to be unpickled."""

from __future__ import annotations

import json

import numpy as np
import torch

from ._files import FORMAT, CheckpointFile, read_tensors, write_tensors
from ._observation import Observation

__all__ = ["StoredObservation", "write_observation"]


class StoredObservation:
    """Where an :class:`Observation` is; reads it when asked.

    Parameters
    ----------
    step, stage : int
    path : Path
    identity : dict of str to str
        What the file's metadata must say.
    """

    def __init__(self, step, stage, path, identity, seal=None):
        self.step, self.stage, self.path = step, stage, path
        self._file = CheckpointFile(path, identity, seal)

    @property
    def seal(self):
        """What was noted down of the file when it was written."""
        return self._file.seal

    def load(self):
        """The observation."""
        tensors, metadata = read_tensors(self.path, seal=self.seal)
        self._file.check(metadata)
        described = json.loads(metadata["observation"])

        def named(prefix):
            return {name[2:]: value for name, value in tensors.items() if name.startswith(prefix)}

        return Observation(
            self.step,
            self.stage,
            {name: tensors[f"p:{name}"] for name in described["parameters"]},
            named("b:"),
            named("g:"),
            [(_restored(batch, tensors), _random_states(states, tensors)) for batch, states in described["batches"]],
            _restored(described["outside"], tensors),
        )


def write_observation(path, observation, identity):
    """Write an observation; returns the file's seal, None where it takes pickling the user's objects."""
    tensors = {f"p:{name}": value for name, value in observation.parameters.items()}
    tensors |= {f"b:{name}": value for name, value in observation.buffers.items()}
    tensors |= {f"g:{name}": value for name, value in observation.gradients.items()}
    try:
        batches = []
        for batch, states in observation.batches:
            kind, keys, *rest = states["numpy"]
            plain = {"numpy": torch.from_numpy(keys.astype(np.int64)), "kind": kind, "rest": rest}
            plain |= {name: state for name, state in states.items() if name != "numpy"}
            batches.append((_described(batch, tensors), _described(plain, tensors)))
        described = {
            "parameters": list(observation.parameters),
            "batches": batches,
            "outside": _described(observation.outside, tensors),
        }
    except TypeError:
        return None
    return write_tensors(path, tensors, {"format": FORMAT, **identity, "observation": json.dumps(described)})


def _described(tree, tensors):
    """A tree as JSON, its tensors moved into ``tensors``; TypeError where there are other objects."""
    if isinstance(tree, torch.Tensor) and tree.layout is torch.strided and not tree.is_quantized:
        name = f"t:{len(tensors)}"
        tensors[name] = tree.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(tree, np.generic):
        return tree.item()
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _described(value, tensors) for key, value in tree.items()}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_described(value, tensors) for value in tree]}
    raise TypeError(type(tree).__name__)


def _restored(tree, tensors):
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restored(value, tensors) for key, value in content.items()}
    items = [_restored(value, tensors) for value in content]
    return tuple(items) if kind == "tuple" else items


def _random_states(tree, tensors):
    states = _restored(tree, tensors)
    keys = states.pop("numpy").numpy().astype(np.uint32)
    return {**states, "numpy": (states.pop("kind"), keys, *states.pop("rest"))}
