"""Small networks of every kind of layer, in float64."""

from __future__ import annotations

import torch
from torch import nn

from tests.gradients._networks import (
    BareParameters,
    BothSides,
    DecodesByHand,
    Flattened,
    InPlaceAdd,
    OfPositions,
    OutsideForward,
    OwnLinear,
    OwnMatmul,
    OwnNorm,
    Pairs,
    PerFrame,
    SequenceFirst,
    StateSpace,
    TiedLinear,
    Twice,
    Unused,
    UsesCustom,
    batch_norm,
    conv,
    old_weight_norm,
    parametrised,
)
from tests.gradients._sequences import (
    Attention,
    CrossAttention,
    Encoder,
    LowRankTable,
    OfPositionIds,
    Packed,
    PositionTable,
    Recurrent,
    SeveralCells,
    States,
    TakesSequences,
    TiedEmbedding,
    Weighted,
)

N_ROWS = 5

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
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)), (3,), ["factored", "layer"]),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 2)), 7, ["indexed"] + ["factored"]),
    "embedding-padding": (lambda: nn.Embedding(3, 4, padding_idx=1), 3, ["indexed"]),
    "bilinear": (Pairs, (3,), ["factored"] * 3),
    "conv-transpose2d": (
        conv(nn.ConvTranspose2d, 2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 3, 3), ["factored"] * 2,
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), (4, 3), ["factored"] * 3),
    "gru": (lambda: Recurrent(nn.GRU), (4, 3), ["factored"] * 3),
    "attention": (Attention, (4, 4), ["factored"] * 3 + ["affine"] * 2),
    "state-space": (StateSpace, (5, 3), ["affine"] * 2 + ["factored", "affine", "factored"]),
    "bare-parameters": (BareParameters, (3,), ["affine"] + ["dense"] + ["factored"]),
    "tied-linear": (TiedLinear, (3,), ["factored"] * 3),
    "tied-embedding": (TiedEmbedding, 7, ["mixed", "factored", "factored"]),
    "weight-norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)),
        (3,), ["factored"] * 2 + ["layer"] * 2,
    ),
    "both-sides": (BothSides, (4, 3), ["mixed", "factored"]),
    "outside-forward": (OutsideForward, (3,), ["dense", "dense", "factored"]),
    "sequence-first": (SequenceFirst, (4, 3), ["factored"] * 2 + ["affine"] * 2),
    "of-positions": (OfPositions, (4, 3), ["dense"] + ["factored"] * 2),
    "in-place-add": (InPlaceAdd, (3,), ["factored"] * 3),
    "unused": (Unused, (3,), ["factored"] * 2 + ["affine"] * 2),
    "sparse-embedding": (lambda: nn.Embedding(7, 4, sparse=True), 7, ["indexed"]),
    "bag-weighted": (lambda: Weighted("sum"), 7, ["indexed"]),
    "bag-mean": (lambda: Weighted("mean"), 7, ["indexed"]),
    "bag-max": (lambda: nn.EmbeddingBag(7, 3, mode="max"), 7, ["dense"]),
    "sequence-first-layers": (TakesSequences, 7, ["indexed"] * 2 + ["layer"]),
    "position-ids": (OfPositionIds, 7, ["indexed"] * 2 + ["factored"]),
    "position-table": (PositionTable, (4, 4), ["affine"] * 3 + ["factored"]),
    "own-norm": (OwnNorm, (4, 3), ["affine"] + ["factored"]),
    "own-linear": (OwnLinear, (4, 3), ["factored"] * 2),
    "own-matmul": (OwnMatmul, (4, 3), ["factored"] * 2 + ["affine"]),
    "low-rank-table": (LowRankTable, 7, ["indexed", "factored"]),
    "decodes-by-hand": (DecodesByHand, (4, 3), ["factored"]),
    "custom": (UsesCustom, (3,), ["factored"] + ["layer"] + ["affine"]),
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
    "parametrised": (parametrised, (3,), ["factored"] * 2 + ["layer"] * 2),
    "spectral-norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), (3,), ["factored"] + ["layer"]),
    "old-weight-norm": (old_weight_norm, (3, 3), ["factored"] * 2 + ["layer"] * 4),
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
