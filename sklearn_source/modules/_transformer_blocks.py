"""What the small transformers of the examples share: embeddings and blocks of self-attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TransformerBlocks(nn.Module):
    """Token and position embeddings, blocks with the norm before each sublayer, a norm after the last.

    Parameters are those of :class:`TextClassifier` of the same names; ``forward`` takes tokens and the masks of
    :class:`torch.nn.TransformerEncoderLayer`.
    """

    def __init__(self, n_tokens, max_length, width, n_heads, n_blocks, hidden, dropout):
        super().__init__()
        if width % n_heads:
            raise ValueError(f"expected width to be a multiple of n_heads={n_heads}, which share it out, got {width}")
        self.max_length = max_length
        self.tokens = nn.Embedding(n_tokens, width)
        self.positions = nn.Embedding(max_length, width)
        # torch draws embeddings from N(0, 1), far larger than what a block adds to them.
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.1)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                n_heads,
                4 * width if hidden is None else hidden,
                dropout,
                "gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, X: Tensor, **masks: Any) -> Tensor:
        """Tokens (n_rows, length) to states (n_rows, length, width); a ValueError for sequences that are too long."""
        length = X.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"expected sequences of at most max_length={self.max_length} tokens, got {length}: cut them, or "
                "make the network with a larger max_length"
            )
        state = self.tokens(X) + self.positions(torch.arange(length, device=X.device))
        for block in self.blocks:
            state = block(state, **masks)
        return self.norm(state)
