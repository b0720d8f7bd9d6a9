"""Small networks that use their weights in all the ways there are."""

from __future__ import annotations

import torch
from torch import nn


class Flattened(nn.Module):
    """Rows and tokens in one axis inside, as in many transformers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.out = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        flat = torch.tanh(self.fc(x.reshape(-1, x.shape[-1])))
        return self.out(flat).view(x.shape[0], x.shape[1], 2)


class Twice(nn.Module):
    """One layer called twice, on different numbers of positions."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        tokens = torch.tanh(self.fc(x))  # (B, T, 3)
        return self.head(torch.tanh(self.fc(tokens.mean(1))))


class OutsideForward(nn.Module):
    """A weight that its own layer uses, and another line of the network too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.einsum("bi,ij->bj", torch.tanh(self.fc(x)), self.fc.weight))


class BothSides(nn.Module):
    """A layer's weight that multiplies from the right, too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return torch.tanh(self.fc(x)) @ self.fc.weight


class SequenceFirst(nn.Module):
    """(T, B, d) inside: rows are not the first axis of what the layers see."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.fc(x.transpose(0, 1)))).mean(0))


class OfPositions(nn.Module):
    """A layer fed with something that has no rows: one position table for all of them."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 3))
        self.encode = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(x + self.encode(self.table))).mean(1)


class BareParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(()))
        self.cube = nn.Parameter(torch.randn(3, 2, 4))
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.scale * torch.einsum(
            "bi,ijk,bk->bj", torch.tanh(self.fc(x)), self.cube, torch.cat([x, x[:, :1]], 1)
        )


class TiedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(3, 3), nn.Linear(3, 3)
        self.up.weight = self.down.weight

    def forward(self, x):
        return self.up(torch.tanh(self.down(x)))


class Pairs(nn.Module):
    """A layer of two inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 2)
        self.meet = nn.Bilinear(4, 2, 3)

    def forward(self, x):
        return self.meet(torch.tanh(self.left(x)), self.right(x))


class InPlaceAdd(nn.Module):
    """The output of a layer is rewritten in place by its neighbour's."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x)
        h += self.b(x)
        return self.head(h.relu_())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)
        self.idle_norm = nn.LayerNorm(2)

    def forward(self, x):
        return self.fc(x)


class OwnNorm(nn.Module):
    """A norm written by hand."""

    def __init__(self):
        super().__init__()
        self.fc, self.weight = nn.Linear(3, 4), nn.Parameter(torch.zeros(4))

    def forward(self, x):
        h = self.fc(x)
        return self.weight * (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6))


class OwnLinear(nn.Module):
    """Bare parameters in a function that a layer would use, one of them twice."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Tanh()
        self.w, self.b = nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.zeros(3))
        self.out = nn.Parameter(torch.zeros(2, 3))

    def forward(self, x):
        h = self.inner(nn.functional.linear(x, self.w, self.b))
        return nn.functional.linear(h, self.w, self.b) @ self.out.T


class OwnMatmul(nn.Module):
    """Bare weights that multiply from the right, as in the layers of GPT-2."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Tanh()
        self.w, self.b = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(4))
        self.v, self.c = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(2))

    def forward(self, x):
        h = self.inner(x @ self.w + self.b)
        return torch.addmm(self.c, h.view(-1, 4), self.v).view(*x.shape[:-1], 2)


class DecodesByHand(nn.Module):
    """A layer's weight used in its forward, and outside it without the bias."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.fc(x)), self.fc.weight)


class Custom(nn.Module):
    """A layer of its own kind: two tensors in, one by keyword, two tensors out."""

    def __init__(self):
        super().__init__()
        self.cube, self.shift = nn.Parameter(torch.zeros(3, 4, 2)), nn.Parameter(torch.zeros(2))

    def forward(self, x, *, gate):
        h = torch.einsum("bi,ijk,bj->bk", x, self.cube, gate) + self.shift
        return h, torch.tanh(h)


class UsesCustom(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.meet = nn.Linear(3, 4), Custom()

    def forward(self, x):
        a, b = self.meet(x, gate=torch.sigmoid(self.gate(x)))
        return torch.cat([a, b], 1)


class ScaledBy(nn.Module):
    """A parametrisation with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.low = nn.Parameter(torch.zeros(4, 3))

    def forward(self, weight):
        return weight + torch.tanh(self.low) * weight


def parametrised():
    layer = nn.Linear(3, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", ScaledBy())
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 2))


def old_weight_norm():
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.utils.weight_norm(nn.Conv1d(3, 2, 2)))


class PerFrame(nn.Module):
    """A convolution over the frames of each row, rows and frames in one axis."""

    def __init__(self, frames_first=False):
        super().__init__()
        self.conv, self.norm, self.up = nn.Conv1d(2, 4, 2, groups=2), nn.GroupNorm(2, 4), nn.ConvTranspose1d(4, 2, 2)
        self.frames_first = frames_first

    def forward(self, x):
        frames = x.transpose(0, 1) if self.frames_first else x
        h = self.up(torch.tanh(self.norm(self.conv(frames.flatten(0, 1))))).unflatten(0, frames.shape[:2])
        return (h.transpose(0, 1) if self.frames_first else h).flatten(1)


def batch_norm(cls, channels):
    norm = cls(channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def conv(cls, *args, **kwargs):
    return lambda: nn.Sequential(cls(*args, **kwargs), nn.Tanh(), nn.Flatten())


class StateSpace(nn.Module):
    """A linear layer that but holds what ``weight @ x`` and a sum use, and decays made of their logarithms."""

    def __init__(self):
        super().__init__()
        self.step, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.logs = nn.Parameter(torch.randn(4, 2))
        self.held = nn.Parameter(torch.randn(4))

    def forward(self, x):
        steps = nn.functional.softplus(self.step.weight @ x.transpose(1, 2) + self.step.bias[..., None])  # (B, 4, T)
        decays = torch.exp(-torch.exp(self.logs)[None, :, None, :] * steps[..., None])  # (B, 4, T, 2)
        state, outputs = 0.0, []
        for t in range(x.shape[1]):
            state = decays[:, :, t] * state + steps[:, :, t, None]
            outputs.append(state.sum(-1))
        return self.head(torch.stack(outputs, -1).mean(-1) * torch.sigmoid(self.held).sqrt())
