"""Small networks of embeddings, attention and recurrent layers."""

from __future__ import annotations

import torch
from torch import nn


class TiedEmbedding(nn.Module):
    """A language model's two ends."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.mix = nn.Linear(4, 4)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.embed(x))))


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


class LowRankTable(nn.Module):
    """An embedding as a product of two matrices, the first looked up by its columns."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Tanh()
        self.low, self.up = nn.Parameter(torch.zeros(2, 7)), nn.Parameter(torch.zeros(3, 2))

    def forward(self, x):
        return self.inner(nn.functional.embedding(x, self.low.T, padding_idx=3) @ self.up.T)


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
