"""Small networks of every kind of layer, in float64."""

from __future__ import annotations

import torch
from torch import nn

N_ROWS = 5


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
        return self.head(torch.tanh(self.fc(x)) @ self.fc.weight)


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


class TiedEmbedding(nn.Module):
    """A language model's two ends."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.mix = nn.Linear(4, 4)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.embed(x))))


class Pairs(nn.Module):
    """A layer of two inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 2)
        self.meet = nn.Bilinear(4, 2, 3)

    def forward(self, x):
        return self.meet(torch.tanh(self.left(x)), self.right(x))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


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


class OfPositionIds(nn.Module):
    """Token and position embeddings, as in GPT: the positions are the same for all rows."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(7, 4), nn.Embedding(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.tokens(x) + self.positions(torch.arange(x.shape[1])))).mean(1)


class PositionTable(nn.Module):
    """A bare table of positions, a token put before all others, a learned scale: as in ViT."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, 1, 4))
        self.table = nn.Parameter(torch.zeros(1, 5, 4))
        self.scale = nn.Parameter(torch.zeros(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.table
        return self.head(torch.tanh(x) * self.scale).mean(1)


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


class CrossAttention(nn.Module):
    """Queries from one end, keys and values from another; the fused weight is used in parts."""

    def __init__(self, batch_first=True, **options):
        super().__init__()
        self.first = batch_first
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first, **options)
        self.context = nn.Linear(4, self.attention.kdim)
        self.value = nn.Linear(4, self.attention.vdim) if self.attention.vdim != 4 else None

    def forward(self, x):
        mask = torch.zeros(x.shape[:2], dtype=torch.bool)
        mask[:, -1] = True
        context = self.context(x)
        value = context if self.value is None else self.value(x)
        x = x[:, :2]
        if not self.first:
            x, context, value = (t.transpose(0, 1) for t in (x, context, value))
        y = self.attention(x, context, value, key_padding_mask=mask)[0]
        return y if self.first else y.transpose(0, 1)


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=0)
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.cat([torch.ones_like(x[:, :1]), x], 1)  # no row is all padding
        h = self.encoder(self.embed(x), src_key_padding_mask=x == 0)
        return self.head(h[:, 0])


class SeveralCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(3, 4), nn.GRUCell(4, 3), nn.RNNCell(3, 4, nonlinearity="relu")

    def forward(self, x):
        state, h = None, None
        for t in range(x.shape[1]):
            state = self.lstm(x[:, t], state)
            h = self.gru(state[0], h)
        return self.rnn(h, state[1])


class States(nn.Module):
    """Every output of a recurrent layer is used, and it is told where to start."""

    def __init__(self, kind, **options):
        super().__init__()
        self.first = options.get("batch_first", False)
        self.rnn = kind(3, 4, **options)
        directions = 2 if self.rnn.bidirectional else 1
        self.start = nn.Linear(3, 4)
        self.n = self.rnn.num_layers * directions

    def forward(self, x):
        h = torch.tanh(self.start(x.mean(1))).expand(self.n, -1, -1).contiguous()
        start = (h[..., : self.rnn.proj_size or None], h) if isinstance(self.rnn, nn.LSTM) else h
        if isinstance(start, tuple):
            start = tuple(s.contiguous() for s in start)
        y, state = self.rnn(x if self.first else x.transpose(0, 1), start)
        y = y if self.first else y.transpose(0, 1)
        states = state if isinstance(state, tuple) else (state,)
        return torch.cat([y.flatten(1), *(s.transpose(0, 1).flatten(1) for s in states)], 1)


class Packed(nn.Module):
    """Rows of different lengths, packed: torch's own kernel, row by row."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(7, 3), nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        lengths = 1 + (x > 2).sum(1).clamp_max(3)
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        return self.rnn(packed)[1][0]


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


class TakesSequences(nn.Module):
    """(T, B, d) inside, for a layer of no known kind and a bag of words."""

    def __init__(self):
        super().__init__()
        self.embed, self.act, self.bag = nn.Embedding(7, 3), nn.PReLU(1), nn.EmbeddingBag(7, 3, mode="sum")

    def forward(self, x):
        h = self.act(self.embed(x.T))
        return h.transpose(0, 1).flatten(1) + self.bag(x).repeat(1, x.shape[1])


class Weighted(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.bag = nn.EmbeddingBag(7, 3, mode=mode, padding_idx=2 if mode == "mean" else None)
        self.mode = mode

    def forward(self, x):
        weights = (x + 1) / 3.0 if self.mode == "sum" else None
        return self.bag(x, per_sample_weights=None if weights is None else weights.to(self.bag.weight))


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


# name: (factory, shape of one row or number of classes for integer rows, kinds of the blocks)
CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,), ["factored"] * 2),
    "linear-no-bias": (lambda: nn.Linear(3, 2, bias=False), (3,), ["factored"]),
    "linear-tokens": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (6, 3), ["factored"] * 2),
    "linear-two-axes-of-tokens": (lambda: nn.Linear(3, 2), (2, 4, 3), ["factored"]),
    "linear-flattened": (Flattened, (4, 3), ["factored"] * 2),
    "linear-twice": (Twice, (4, 3), ["factored"] * 2),
    "conv1d": (conv(nn.Conv1d, 2, 3, 3, stride=2, padding=1, dilation=2), (2, 9), ["factored"]),
    "conv1d-same": (conv(nn.Conv1d, 2, 3, 4, padding="same", dilation=2), (2, 7), ["factored"]),
    "conv1d-valid": (conv(nn.Conv1d, 2, 3, 3, padding="valid", bias=False), (2, 7), ["factored"]),
    "conv1d-circular": (conv(nn.Conv1d, 2, 3, 3, padding=2, padding_mode="circular"), (2, 5), ["factored"]),
    "conv1d-same-reflect": (conv(nn.Conv1d, 2, 2, 4, padding="same", padding_mode="reflect"), (2, 6), ["factored"]),
    "conv2d": (conv(nn.Conv2d, 3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (3, 6, 7), ["factored"]),
    "conv2d-reflect": (conv(nn.Conv2d, 2, 3, 3, padding=(2, 1), padding_mode="reflect"), (2, 4, 5), ["factored"]),
    "conv2d-replicate": (conv(nn.Conv2d, 2, 3, 3, padding=2, padding_mode="replicate"), (2, 4, 5), ["factored"]),
    "conv2d-same-even": (conv(nn.Conv2d, 2, 3, (2, 4), padding="same"), (2, 4, 5), ["factored"]),
    "conv2d-groups": (conv(nn.Conv2d, 4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 5), ["factored"]),
    "conv2d-depthwise": (conv(nn.Conv2d, 3, 6, 3, groups=3, bias=False), (3, 5, 4), ["factored"]),
    "conv2d-1x1": (conv(nn.Conv2d, 3, 2, 1), (3, 3, 3), ["factored"]),
    "conv2d-whole": (conv(nn.Conv2d, 2, 3, 4), (2, 4, 4), ["factored"]),
    "conv3d": (
        conv(nn.Conv3d, 2, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 2), groups=2), (2, 2, 4, 3), ["factored"],
    ),
    "conv3d-same-circular": (
        conv(nn.Conv3d, 1, 2, (2, 3, 2), padding="same", padding_mode="circular"), (1, 3, 4, 3), ["factored"],
    ),
    "conv-net": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), batch_norm(nn.BatchNorm2d, 4), nn.ReLU(inplace=True),
            nn.Dropout(0.5), nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.GroupNorm(2, 4), nn.SiLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(4, 3),
        ),
        (2, 6, 6), ["factored"] * 3 + ["affine"] * 4,
    ),
    "layer-norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), (3,), ["factored"] + ["affine"] * 2),
    "layer-norm-tokens": (lambda: nn.LayerNorm((4, 3)), (2, 4, 3), ["affine"] * 2),
    "layer-norm-no-bias": (lambda: nn.LayerNorm(3, bias=False), (3,), ["affine"]),
    "rms-norm": (lambda: nn.Sequential(nn.RMSNorm(3), nn.Linear(3, 2)), (4, 3), ["affine"] + ["factored"]),
    "instance-norm": (lambda: nn.InstanceNorm1d(3, affine=True), (3, 5), ["affine"] * 2),
    "batch-norm-1d": (lambda: batch_norm(nn.BatchNorm1d, 3), (3,), ["affine"] * 2),
    "batch-norm-1d-positions": (lambda: batch_norm(nn.BatchNorm1d, 3), (3, 5), ["affine"] * 2),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)), (3,), ["factored", "leaf"]),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 2)), 7, ["indexed"] + ["factored"]),
    "embedding-padding": (lambda: nn.Embedding(3, 4, padding_idx=1), 3, ["indexed"]),
    "bilinear": (Pairs, (3,), ["factored"] * 3),
    "conv-transpose2d": (
        conv(nn.ConvTranspose2d, 2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 3, 3), ["factored"] * 2,
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), (4, 3), ["factored"] * 3),
    "gru": (lambda: Recurrent(nn.GRU), (4, 3), ["factored"] * 3),
    "attention": (Attention, (4, 4), ["factored"] * 3 + ["affine"] * 2),
    "bare-parameters": (BareParameters, (3,), ["affine"] + ["dense"] + ["factored"]),
    "tied-linear": (TiedLinear, (3,), ["factored"] * 3),
    "tied-embedding": (TiedEmbedding, 7, ["dense", "factored", "factored"]),
    "weight-norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)),
        (3,), ["factored"] * 2 + ["leaf"] * 2,
    ),
    "outside-forward": (OutsideForward, (3,), ["dense", "dense", "factored"]),
    "sequence-first": (SequenceFirst, (4, 3), ["factored"] * 2 + ["affine"] * 2),
    "of-positions": (OfPositions, (4, 3), ["dense"] + ["factored"] * 2),
    "in-place-add": (InPlaceAdd, (3,), ["factored"] * 3),
    "unused": (Unused, (3,), ["factored"] * 2 + ["affine"] * 2),
    "sparse-embedding": (lambda: nn.Embedding(7, 4, sparse=True), 7, ["indexed"]),
    "bag-weighted": (lambda: Weighted("sum"), 7, ["indexed"]),
    "bag-mean": (lambda: Weighted("mean"), 7, ["indexed"]),
    "bag-max": (lambda: nn.EmbeddingBag(7, 3, mode="max"), 7, ["dense"]),
    "sequence-first-layers": (TakesSequences, 7, ["indexed"] * 2 + ["leaf"]),
    "position-ids": (OfPositionIds, 7, ["indexed"] * 2 + ["factored"]),
    "position-table": (PositionTable, (4, 4), ["affine"] * 3 + ["factored"]),
    "own-norm": (OwnNorm, (4, 3), ["affine"] + ["factored"]),
    "own-linear": (OwnLinear, (4, 3), ["factored"] * 2),
    "decodes-by-hand": (DecodesByHand, (4, 3), ["factored"]),
    "custom": (UsesCustom, (3,), ["factored"] + ["leaf"] + ["affine"]),
    "cross-attention": (CrossAttention, (4, 4), ["factored"] * 3),
    "cross-attention-sequence-first": (lambda: CrossAttention(batch_first=False), (3, 4), ["factored"] * 3),
    "attention-kdim-vdim": (lambda: CrossAttention(kdim=3, vdim=5), (4, 4), ["factored"] * 7),
    "attention-bias-kv": (lambda: CrossAttention(add_bias_kv=True), (4, 4), ["factored"] * 3 + ["affine"] * 2),
    "encoder": (Encoder, 7, ["indexed"] + ["factored"] * 9 + ["affine"] * 8),
    "encoder-norm-first": (
        lambda: Encoder(norm_first=True, activation="gelu"), 7, ["indexed"] + ["factored"] * 9 + ["affine"] * 8
    ),
    "lstm-deep": (lambda: States(nn.LSTM, num_layers=2, bidirectional=True, proj_size=2), (4, 3), ["factored"] * 13),
    "lstm-no-bias": (lambda: States(nn.LSTM, batch_first=True, bias=False), (4, 3), ["factored"] * 3),
    "gru-deep": (lambda: States(nn.GRU, num_layers=2, batch_first=True, bidirectional=True), (4, 3), ["factored"] * 9),
    "rnn-relu": (lambda: States(nn.RNN, nonlinearity="relu", num_layers=2), (4, 3), ["factored"] * 5),
    "rnn-packed": (Packed, 7, ["indexed"] + ["dense"] * 4),
    "cells": (SeveralCells, (3, 3), ["factored"] * 6),
    "conv-transpose1d": (
        conv(nn.ConvTranspose1d, 4, 4, 3, stride=2, padding=1, dilation=2, groups=2), (4, 5), ["factored"] * 2,
    ),
    "conv-transpose3d": (conv(nn.ConvTranspose3d, 2, 1, 2, stride=2, output_padding=1), (2, 2, 2, 1), ["factored"] * 2),
    "per-frame": (PerFrame, (3, 2, 4), ["factored"] * 3 + ["affine"] * 2),
    "frames-first": (lambda: PerFrame(True), (3, 2, 4), ["factored"] * 3 + ["affine"] * 2),
    "parametrised": (parametrised, (3,), ["factored"] * 2 + ["leaf"] * 2),
    "spectral-norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), (3,), ["factored"] + ["leaf"]),
    "old-weight-norm": (old_weight_norm, (3, 3), ["factored"] * 2 + ["leaf"] * 4),
}  # fmt: skip


def make(name, dtype=torch.float64):
    factory, shape, kinds = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = factory().to(dtype).eval()
        with torch.no_grad():
            for p in module.parameters():  # norms start at ones and zeros, which would hide mistakes
                p.copy_(torch.randn_like(p))
        if isinstance(shape, int):
            x = torch.randint(shape, (N_ROWS, 4))
        else:
            x = torch.randn(N_ROWS, *shape, dtype=dtype)
    return module, x, kinds
