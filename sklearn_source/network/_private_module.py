"""A private module without what would change weights in a forward pass, or hide from torch's functions what it does."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ..utils._compat_torch import original_of


class Uncompiled(nn.Module):
    """In the place of ``torch.compile(module)``: the same parameter names, Python's own forward."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)


def skip_compilation(modules, memo):
    """Make the deep copy of compiled modules one of what they compiled.

    Parameters
    ----------
    modules : list of Module
    memo : dict
        Of ``copy.deepcopy``; written to.
    """
    for module in reversed(modules):  # those inside others first
        original = original_of(module)
        if original is not None:
            memo[id(module)] = Uncompiled(copy.deepcopy(original, memo))


class RenormalisedEmbedding(nn.Embedding):
    """``nn.Embedding(max_norm=...)`` that leaves its weights alone.

    torch shortens the lines of the table that are looked up, in place and apart from the gradient; here what was
    looked up is shortened, with the same gradient.
    """

    def forward(self, input):
        lines = F.embedding(input, self.weight, self.padding_idx)
        return lines + (_shortened(lines, self.max_norm, self.norm_type) - lines).detach()


class RenormalisedEmbeddingBag(nn.EmbeddingBag):
    """``nn.EmbeddingBag(max_norm=...)`` that leaves its weights alone."""

    def forward(self, input, offsets=None, per_sample_weights=None):
        short = self.weight + (_shortened(self.weight, self.max_norm, self.norm_type) - self.weight).detach()
        return F.embedding_bag(
            input, short, offsets, mode=self.mode, per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset, padding_idx=self.padding_idx,
        )  # fmt: skip


def _shortened(lines, max_norm, norm_type):
    """Lines (..., D) cut to at most that norm, as torch does it."""
    norms = torch.linalg.vector_norm(lines, norm_type, dim=-1, keepdim=True)
    return torch.where(norms > max_norm, lines * (max_norm / (norms + 1e-7)), lines)


def keep_weights(module):
    """Let no embedding below ``module`` write to its weights, or give a sparse gradient; in place."""
    kinds = {nn.Embedding: RenormalisedEmbedding, nn.EmbeddingBag: RenormalisedEmbeddingBag}
    for name, layer in module.named_modules():
        if not isinstance(layer, tuple(kinds)):
            continue
        layer.sparse = False
        if layer.max_norm is None or type(layer) in kinds.values():
            continue
        if type(layer) not in kinds:
            raise ValueError(
                f"{name!r} is a {type(layer).__name__} with max_norm={layer.max_norm}, whose forward changes its own "
                "weights: expected nn.Embedding or nn.EmbeddingBag itself, or max_norm=None"
            )
        layer.__class__ = kinds[type(layer)]


def widen(module):
    """Turn bfloat16 and float16 into float32, in place; returns the names of the types that there were."""
    halves = set()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype in (torch.bfloat16, torch.float16):
            halves.add(str(tensor.dtype).removeprefix("torch."))
            tensor.data = tensor.data.float()
    return halves
