"""Small classifiers of every kind of layer, and for those that hide their linear maps a twin that has them as layers.

The twins are written from the layers' definitions, of ``nn.Linear`` and elementwise functions alone: the reference
takes them apart without knowing how the package does.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.attribution._runs import DENSE, KINDS, TWINS
from tests.reference import softmax_columns

TOKENS, VOCABULARY, CLASSES = 4, 6, 3


class Tokens(nn.Module):
    """Token embeddings, a positional one, a table of the start: what all the rows share and what they do not."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 3, padding_idx=0)
        self.place = nn.Embedding(TOKENS, 3)
        self.scale = nn.Parameter(torch.full((3,), 0.8))
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        h = self.embed(x) * self.scale + self.place(torch.arange(TOKENS))
        return self.head(torch.tanh(h)).mean(1)


class TokensTwin(Tokens):
    def forward(self, x):
        h = self.embed(x) * self.scale + self.place(torch.arange(TOKENS).expand(len(x), -1))
        return self.head(torch.tanh(h)).mean(1)


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Embedding(VOCABULARY, 3), nn.Linear(VOCABULARY, CLASSES)

    def forward(self, x):
        return self.mix(F.linear(torch.tanh(self.embed(x)).mean(1), self.embed.weight))


class TiedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(3, 3), nn.Linear(3, 3)
        self.up.weight = self.down.weight

    def forward(self, x):
        return self.up(torch.tanh(self.down(x))).mean(1)


class Attention(nn.Module):
    """Self-attention, the weight of its three projections in one."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.attention(x, x, x)[0])).mean(1)


def attend(q, k, v, heads=2):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, heads, T, d)
    shares = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, dim=-1)
    return (shares @ v).transpose(1, 2).flatten(2)


class AttentionTwin(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.out, self.head = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.out(attend(*self.project(x).chunk(3, dim=-1))))).mean(1)


class CrossAttention(nn.Module):
    """Keys and values of other widths: three weights, one bias for all of them, sequence first."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.head(torch.tanh(self.attention(x, x[..., :3], x[..., 2:])[0])).mean(0)


class CrossAttentionTwin(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4, bias=False), nn.Linear(3, 4, bias=False), nn.Linear(2, 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(12))
        self.out, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        b_q, b_k, b_v = self.bias.chunk(3)
        y = attend(self.q(x) + b_q, self.k(x[..., :3]) + b_k, self.v(x[..., 2:]) + b_v)
        return self.head(torch.tanh(self.out(y))).mean(1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x)).mean(1)


class EncoderTwin(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.up, self.down = nn.Linear(4, 3), nn.Linear(3, 4)
        self.norm1, self.norm2, self.head = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.norm1(x + self.out(attend(*self.project(x).chunk(3, dim=-1))))
        return self.head(self.norm2(x + self.down(torch.relu(self.up(x))))).mean(1)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(2, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class RecurrentTwin(nn.Module):
    def __init__(self, gates):
        super().__init__()
        self.gates = gates
        self.of_x, self.of_h = nn.Linear(2, 3 * gates), nn.Linear(3, 3 * gates)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        parts, h, c = self.of_x(x), x.new_zeros(len(x), 3), x.new_zeros(len(x), 3)
        for t in range(x.shape[1]):
            a, b = parts[:, t].split(3, dim=-1), self.of_h(h).split(3, dim=-1)
            if self.gates == 4:  # i, f, g, o
                i, f, o = (torch.sigmoid(a[k] + b[k]) for k in (0, 1, 3))
                c = f * c + i * torch.tanh(a[2] + b[2])
                h = o * torch.tanh(c)
            elif self.gates == 3:  # r, z, n
                r, z = (torch.sigmoid(a[k] + b[k]) for k in (0, 1))
                h = (1 - z) * torch.tanh(a[2] + r * b[2]) + z * h
            else:
                h = torch.tanh(a[0] + b[0])
        return self.head(h)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.meet = nn.Bilinear(2, 2, CLASSES)

    def forward(self, x):
        return self.meet(x[:, :2], x[:, 2:])


class BilinearTwin(nn.Module):
    def __init__(self):
        super().__init__()
        self.meet = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.meet(torch.einsum("bi,bj->bij", x[:, :2], x[:, 2:]).flatten(1))


class ByHand(nn.Module):
    """A layer's weight used outside its forward too, without the bias; bare parameters in the place of a layer's."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)
        self.weight, self.shift = nn.Parameter(torch.eye(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        h = F.linear(torch.tanh(self.fc(x)), self.fc.weight)
        return F.linear(torch.tanh(h), self.weight, self.shift).mean(1)


class ByHandTwin(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.fc(torch.tanh(self.fc(x))))).mean(1)


def weight_norm():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(3, CLASSES))


def norms():
    return nn.Sequential(
        nn.Linear(4, 4), nn.RMSNorm(4), nn.Unflatten(1, (2, 2)), nn.GroupNorm(2, 2), nn.InstanceNorm1d(2, affine=True),
        nn.Flatten(), nn.PReLU(4), nn.Linear(4, CLASSES),
    )  # fmt: skip


def transposed():
    return nn.Sequential(
        nn.ConvTranspose2d(2, 4, 2, stride=2, padding=1, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES)
    )


def _attention_names(layer):
    return {
        "project.weight": f"{layer}.in_proj_weight",
        "project.bias": f"{layer}.in_proj_bias",
        "out.weight": f"{layer}.out_proj.weight",
        "out.bias": f"{layer}.out_proj.bias",
    }


_RECURRENT = {f"of_{side}.{part}": f"rnn.{part}_{side}h_l0" for side in "xh" for part in ("weight", "bias")}
_RECURRENT = {twin: name.replace("_xh_", "_ih_") for twin, name in _RECURRENT.items()}
_SEQUENCE, _IDS = (3, 4), ("tokens", VOCABULARY, TOKENS)

# name: (module, row shape, twin, {the twin's names: the net's})
LAYERS = {
    "embedding": (Tokens, _IDS, TokensTwin, {}),
    "tied-embedding": (TiedEmbedding, _IDS, None, {}),
    "tied-linear": (TiedLinear, (2, 3), None, {}),
    "attention": (Attention, _SEQUENCE, AttentionTwin, _attention_names("attention")),
    "cross-attention": (
        CrossAttention, _SEQUENCE, CrossAttentionTwin,
        {
            **{f"{k}.weight": f"attention.{k}_proj_weight" for k in "qkv"}, "bias": "attention.in_proj_bias",
            "out.weight": "attention.out_proj.weight", "out.bias": "attention.out_proj.bias",
        },
    ),
    "encoder": (
        Encoder, _SEQUENCE, EncoderTwin,
        {
            **_attention_names("layer.self_attn"),
            **{f"{a}.{k}": f"layer.linear{i}.{k}" for i, a in ((1, "up"), (2, "down")) for k in ("weight", "bias")},
            **{f"norm{i}.{k}": f"layer.norm{i}.{k}" for i in (1, 2) for k in ("weight", "bias")},
        },
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 2), lambda: RecurrentTwin(4), _RECURRENT),
    "gru": (lambda: Recurrent(nn.GRU), (3, 2), lambda: RecurrentTwin(3), _RECURRENT),
    "rnn": (lambda: Recurrent(nn.RNN), (3, 2), lambda: RecurrentTwin(1), _RECURRENT),
    "bilinear": (Bilinear, (4,), BilinearTwin, {}),
    "by-hand": (ByHand, (2, 3), ByHandTwin, {"last.weight": "weight", "last.bias": "shift"}),
    "weight-norm": (weight_norm, (4,), None, {}),
    "norms": (norms, (4,), None, {}),
    "transposed": (transposed, (2, 2, 2), None, {}),
}  # fmt: skip

for _name, (_make, _shape, _twin, _names) in LAYERS.items():
    KINDS[_name] = (_make, _shape, CLASSES, F.cross_entropy, softmax_columns)
    if _twin is not None:
        TWINS[_name] = (_twin, _names)
DENSE["tied-embedding"] = ("embed.weight",)  # one use as a table, one as a matrix: no form has both
