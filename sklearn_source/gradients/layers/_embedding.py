"""Tables that indices are looked up in, and bags of what was looked up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...utils._compat_torch import view_base
from ..algebra import Indexed
from ._layer_registry import Arguments, ParameterSpec, reads, specifies
from ._parameter_rule import ParameterRule


@dataclass(frozen=True)
class TransposedEmbedding(ParameterRule):
    """A table (d, V) of which the columns are looked up, as low-rank adapters of embeddings do.

    Its matrix is (1, d, V), and its input a one-hot vector never formed.
    """

    form = "indexed"
    has_factors = True
    has_diagonal_input = True
    adds_up = True

    def row_gradient(self, pairs, bias, layout, shared):
        g = [self.outputs(use, grad, layout.of(use)) for use, grad in pairs]
        g = g[0] if len(g) == 1 else torch.cat(g, dim=1)
        if type(self) not in shared:
            shared[type(self)] = torch.cat([_tokens(use, layout.of(use)) for use, _ in pairs], dim=1)
        return Indexed(shared[type(self)], g, self.shape[2])

    def zero_gradient(self, n_rows, bias, like):
        _, width, table = self.shape
        return Indexed(like.new_zeros((n_rows, 1), dtype=torch.long), like.new_zeros((n_rows, 1, width)), table)

    def outputs(self, use, grad, layout):
        """(B, T, d) gradients of what was looked up; zero at the padding index, as torch has it."""
        padding, share = use.settings
        if share is not None:  # a bag's output is a sum of its members, each with its share
            grad = grad.unsqueeze(1) * share.unsqueeze(-1)
        g = layout.split(grad.reshape(-1, self.shape[1]))
        if padding is not None:
            g = g.masked_fill((_tokens(use, layout) == padding).unsqueeze(-1), 0)
        return g

    @classmethod
    def n_positions_seen(cls, x):
        return x.numel()


@dataclass(frozen=True)
class Embedding(TransposedEmbedding):
    """A table (V, d) of which the lines are looked up; its matrix is (1, d, V) all the same."""

    may_lack_rows = True

    @property
    def shape(self):
        return (1, self.parameter[1], self.parameter[0])

    def to_matrix(self, value):
        return value.transpose(-1, -2).unsqueeze(-3)

    def from_matrix(self, matrix):
        return matrix.squeeze(-3).transpose(-1, -2)


def _tokens(use, layout):
    """(B, T) indices."""
    return layout.split(use.x.reshape(-1))


@specifies(nn.Embedding, nn.EmbeddingBag)
def _embedding_layer(module):
    return [ParameterSpec(Embedding, "weight")]


@reads(F.embedding)
def _embedding(input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    settings = (None if padding_idx is None else padding_idx % len(weight), None)
    if weight.dim() == 2 and view_base(weight) is not None:
        return Arguments(TransposedEmbedding, input, weight.t(), settings=settings)
    return Arguments(Embedding, input, weight, settings=settings)


@reads(F.embedding_bag)
def _embedding_bag(
    input, weight, offsets=None, max_norm=None, norm_type=2, scale_grad_by_freq=False, mode="mean", sparse=False,
    per_sample_weights=None, include_last_offset=False, padding_idx=None,
):  # fmt: skip
    if input.dim() != 2 or mode not in ("sum", "mean"):
        return None
    padding_idx = None if padding_idx is None else padding_idx % len(weight)
    share = weight.new_ones(input.shape) if per_sample_weights is None else per_sample_weights.detach()
    if mode == "mean":
        kept = torch.ones_like(input) if padding_idx is None else (input != padding_idx)
        share = share * kept / kept.sum(1, keepdim=True).clamp_min(1)
    return Arguments(Embedding, input, weight, settings=(padding_idx, share))


def refuse_frequencies(module, names):
    """An embedding that divides gradients by frequencies in the batch follows no row's loss."""
    for owner, layer in module.named_modules():
        name = f"{owner}.weight" if owner else "weight"
        if name in names and getattr(layer, "scale_grad_by_freq", False):
            raise ValueError(
                f"{name!r} was trained with scale_grad_by_freq=True: its steps divided the gradient of a token by how "
                "often it occurs in the batch, so that they belong to no row's loss. Train with "
                "scale_grad_by_freq=False, or leave it out with layers="
            )
