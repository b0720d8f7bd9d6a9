"""Recurrent layers step by step, so that each use of their weights is seen: the same values as torch's own kernels."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from ._layer_registry import ParameterSpec, specifies, substitutes
from ._linear import Linear


def _lstm_step(x_gates, state, weights, project=None):
    """``x_gates`` (B, 4 h), the input's share; ``state`` (h, c)."""
    h, c = state
    i, f, g, o = (x_gates + F.linear(h, *weights)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if project is None else F.linear(h, project)), c


def _gru_step(x_gates, state, weights, project=None):
    """``x_gates`` (B, 3 h), the input's share; ``state`` (h,)."""
    (h,) = state
    x_r, x_z, x_n = x_gates.chunk(3, dim=-1)
    h_r, h_z, h_n = F.linear(h, *weights).chunk(3, dim=-1)
    z = torch.sigmoid(x_z + h_z)
    return ((1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h,)


def _rnn_step(activation):
    """``x_gates`` (B, h), the input's share; ``state`` (h,)."""

    def step(x_gates, state, weights, project=None):
        return (activation(x_gates + F.linear(state[0], *weights)),)

    return step


def _layers(step, input, hx, weights, has_biases, num_layers, dropout, training, bidirectional, batch_first):
    """Outputs (in the layout of ``input``) and the list of final states, each (layers * directions, B, h)."""
    directions = 2 if bidirectional else 1
    per_cell = len(weights) // (num_layers * directions)
    x = input if batch_first else input.transpose(0, 1)  # (B, T, d): rows first
    finals = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            cell = weights[number * per_cell : (number + 1) * per_cell]
            w_x, w_h, *rest = cell
            b_x, b_h = (rest.pop(0), rest.pop(0)) if has_biases else (None, None)
            gates = F.linear(x, w_x, b_x)
            state = tuple(part[number] for part in hx)
            steps = range(x.shape[1])
            hidden = {}
            for t in reversed(steps) if direction else steps:
                state = step(gates[:, t], state, (w_h, b_h), *rest)
                hidden[t] = state[0]
            outputs.append(torch.stack([hidden[t] for t in steps], dim=1))
            finals.append(state)
        x = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
    states = [torch.stack(parts) for parts in zip(*finals)]
    return (x if batch_first else x.transpose(0, 1)), states


def _whole(step):
    """The kernel of a whole layer, of torch's arguments: outputs and final states."""

    def run(*args):
        hx = args[1] if isinstance(args[1], (list, tuple)) else (args[1],)
        output, states = _layers(step, args[0], hx, *args[2:])
        return (output, *states)

    return run


def _cell(step):
    """The kernel of a cell, of torch's arguments: the new state."""

    def run(input, hx, w_x, w_h, b_x=None, b_h=None):
        state = hx if isinstance(hx, (list, tuple)) else (hx,)
        new = step(F.linear(input, w_x, b_x), tuple(state), (w_h, b_h))
        return new if len(new) > 1 else new[0]

    return run


def _of_whole(kernel, args, kwargs):
    """Packed sequences, which put their batch sizes second, and dropout in training are left to torch's kernels."""
    if kwargs or len(args) != 9 or isinstance(args[2], torch.Tensor):
        return None
    dropout, training = args[5:7]
    return None if training and dropout else kernel


def _of_cell(kernel, args, kwargs):
    return kernel


_STEPS = {
    "lstm": _lstm_step, "gru": _gru_step, "rnn_tanh": _rnn_step(torch.tanh), "rnn_relu": _rnn_step(torch.relu)
}  # fmt: skip
for _name, _step in _STEPS.items():
    substitutes(getattr(torch, _name))(functools.partial(_of_whole, _whole(_step)))
    substitutes(getattr(torch, f"{_name}_cell"))(functools.partial(_of_cell, _cell(_step)))


@specifies(nn.RNNBase, nn.RNNCellBase)
def _recurrent_layer(module):
    weights = [name for name, _ in module.named_parameters(recurse=False) if name.startswith("weight_")]
    return [ParameterSpec(Linear, name, name.replace("weight_", "bias_")) for name in weights]
