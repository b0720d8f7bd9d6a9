"""What a training leaves: enough to have its net again without training, in memory or in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from skorch.history import History

from ..network import seeded_clone
from ..trajectory import Trajectory, recorder_in, recorder_of, with_tensors
from ..utils._compat_skorch import optimizer_names
from ..utils._digest import tensor_digest
from ._clones import initialize
from ._optimizer_state import read_optimizer, set_optimizer
from ._reader import values_of
from ._training_state import changed, training_state

_TENSORS, _ABOUT, _RECORD = "tensors.safetensors", "about.json", "trajectory"


@dataclass
class RecordedTraining:
    """A trained network of a known recipe.

    Attributes
    ----------
    parameters, buffers : mapping of str to Tensor
    optimizer : (state by parameter's name, numbers of each group)
    history : list of dict
        Of the net.
    record : Trajectory or None
        Where it was recorded.
    """

    parameters: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    optimizer: tuple[dict[str, dict], list[dict]]
    history: list[dict[str, Any]]
    record: Trajectory | None = None

    @classmethod
    def of(cls, net):
        """What a skorch training left."""
        record = None if recorder_in(net) is None else Trajectory.from_net(net)
        return cls(*values_of(net), read_optimizer(net), net.history.to_list(), record)

    def as_net(self, template, X, y, few):
        """A clone of ``template`` as if it had been trained so on ``X, y``, of which ``few`` are a few as tensors."""
        with seeded_clone(template, 0) as own:
            initialize(own, few)
            self.put_into(own, X, y)
        return own

    def put_into(self, net, X, y):
        """Bring an initialized net to the end of this training on ``X, y``; in place."""
        net.check_data(X, y)  # where a classifier takes its classes from
        with torch.no_grad():
            for name, value in (*net.module_.named_parameters(), *net.module_.named_buffers()):
                value.copy_(self.parameters[name] if name in self.parameters else self.buffers[name])
        set_optimizer(net, *self.optimizer)
        net.history = History(self.history)
        if self.record is not None:
            recorder = recorder_in(net)
            vars(recorder).update(vars(recorder_of(self.record, recorder, len(self.history))))

    def save(self, folder):
        """Write it to a folder that exists: safetensors and JSON."""
        tensors = {f"p:{name}": value for name, value in self.parameters.items()}
        tensors |= {f"b:{name}": value for name, value in self.buffers.items()}
        state, groups = self.optimizer
        numbers = {name: {} for name in state}
        for name, kept in state.items():
            for key, value in kept.items():
                if torch.is_tensor(value):
                    tensors[f"o:{key}:{name}"] = value
                else:
                    numbers[name][key] = value
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(tensors, str(folder / _TENSORS))
        if self.record is not None:
            self.record.save(folder / _RECORD)
        about = {"tensors": _digest(tensors), "is_recorded": self.record is not None, "history": self.history}
        about |= {"state": numbers, "groups": groups}
        (folder / _ABOUT).write_text(json.dumps(about, default=float), encoding="utf-8")

    @classmethod
    def load(cls, folder):
        """Read what :meth:`save` wrote into memory; None where it is not there, or is damaged."""
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            tensors = load_file(str(folder / _TENSORS))
            if _digest(tensors) != about["tensors"]:
                return None
            record = with_tensors(Trajectory.load(folder / _RECORD)) if about["is_recorded"] else None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None
        parts = [{n[2:]: v for n, v in tensors.items() if n.startswith(kind)} for kind in ("p:", "b:", "o:")]
        for place, value in parts.pop().items():
            key, name = place.split(":", 1)
            about["state"][name][key] = value
        return cls(*parts, (about["state"], about["groups"]), about["history"], record)


def is_plain(before, net):
    """Whether a trained net is nothing but weights, the state of one optimizer, and a record.

    Parameters
    ----------
    before : dict
        :func:`training_state` before its training.
    net : skorch.NeuralNet
    """
    own = {id(p) for p in net.module_.parameters()}
    is_known = optimizer_names(net) == ["optimizer"] and all(id(p) in own for p in net.optimizer_.state)
    return is_known and changed(before, training_state(net)) is None


def _digest(tensors):
    return tensor_digest(dict(sorted(tensors.items())))
