"""The small transformers of the examples: a classifier of token sequences and a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _TransformerBlocks(nn.Module):
    """Token and position embeddings, blocks with the norm before each sublayer, a norm after the last."""

    def __init__(self, n_tokens, max_length, width, n_heads, n_blocks, hidden, dropout):
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width is shared out among the heads: expected a multiple of {n_heads}, got {width}.")
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

    def forward(self, X: Tensor, **masks) -> Tensor:
        """(n_rows, length) of tokens to (n_rows, length, width)."""
        length = X.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"expected sequences of at most max_length={self.max_length} tokens, got {length}: cut them, or "
                "make the network with a larger max_length."
            )
        state = self.tokens(X) + self.positions(torch.arange(length, device=X.device))
        for block in self.blocks:
            state = block(state, **masks)
        return self.norm(state)


class TextClassifier(nn.Module):
    """Transformer that reads a padded sequence of tokens and names its class, to be handed to a skorch net.

    Embeddings of tokens and positions are added, pass blocks of self-attention and a feed-forward layer
    (:class:`torch.nn.TransformerEncoderLayer`, norm first, GELU), are normalised and averaged over the tokens of the
    row, and mapped linearly to one logit per class. Padding is neither attended to nor averaged: a row's logits do not
    depend on how far it is padded. A row that is all padding has the logits of the bias alone.

    Read more in the :ref:`User Guide <example_networks>`.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary, padding included: tokens are `0 .. n_tokens - 1`.
    n_classes : int
        Number of logits.
    max_length : int, default=32
        Longest sequence: there is one position embedding for each place.
    width : int, default=64
        Width of embeddings and blocks, a multiple of `n_heads`.
    n_heads : int, default=4
        Attention heads per block.
    n_blocks : int, default=2
        Number of blocks.
    hidden : int, default=None
        Width of the feed-forward layer. `None` is `4 * width`.
    dropout : float, default=0.0
        Dropped share of activations and attention while training. Attribution measures the network without.
    padding : int, default=0
        The token that fills up short rows.

    Raises
    ------
    ValueError
        If `width` is not a multiple of `n_heads`; by `forward`, if a sequence is longer than `max_length`.

    See Also
    --------
    CharTransformer : The same blocks as a language model.
    TextEncoder : Makes the padded sequences.

    Examples
    --------
    >>> import torch
    >>> from sklearn_source.modules import TextClassifier
    >>> TextClassifier(n_tokens=100, n_classes=6)(torch.tensor([[5, 17, 3, 0], [8, 2, 0, 0]])).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        n_tokens: int,
        n_classes: int,
        max_length: int = 32,
        width: int = 64,
        n_heads: int = 4,
        n_blocks: int = 2,
        hidden: int | None = None,
        dropout: float = 0.0,
        padding: int = 0,
    ):
        super().__init__()
        self.padding = padding
        self.body = _TransformerBlocks(n_tokens, max_length, width, n_heads, n_blocks, hidden, dropout)
        self.head = nn.Linear(width, n_classes)

    def forward(self, X: Tensor) -> Tensor:
        """Logits of a batch: `(n_rows, length)` of integer tokens to `(n_rows, n_classes)`."""
        empty = X == self.padding
        # With nothing to attend to, a softmax is 0/0: a row of padding attends to its first place, and is not averaged.
        blocked = empty & (torch.arange(X.shape[1], device=X.device) > 0)
        state = self.body(X, src_key_padding_mask=blocked)
        weight = (~empty).unsqueeze(2).to(state.dtype)
        return self.head((state * weight).sum(1) / weight.sum(1).clamp(min=1))


class CharTransformer(nn.Module):
    """Causal transformer that predicts the next token at every place of a sequence, to be handed to a skorch net.

    The blocks of :class:`TextClassifier` with a causal mask, and a linear map to one logit per token. The logit at
    place `t` depends on the tokens up to and including `t`: padding at the end of a row changes nothing before it,
    and its targets are to be ignored by the criterion.

    Read more in the :ref:`User Guide <example_networks>`.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary, padding included.
    max_length : int, default=128
        Longest sequence.
    width : int, default=64
        Width of embeddings and blocks, a multiple of `n_heads`.
    n_heads : int, default=4
        Attention heads per block.
    n_blocks : int, default=2
        Number of blocks.
    hidden : int, default=None
        Width of the feed-forward layer. `None` is `4 * width`.
    dropout : float, default=0.0
        Dropped share of activations and attention while training. Attribution measures the network without.

    Raises
    ------
    ValueError
        If `width` is not a multiple of `n_heads`; by `forward`, if a sequence is longer than `max_length`.

    See Also
    --------
    TextEncoder : Makes the sequences.
    next_tokens : Cuts them into inputs and targets.

    Examples
    --------
    >>> import torch
    >>> from sklearn_source.modules import CharTransformer
    >>> CharTransformer(n_tokens=60)(torch.tensor([[5, 17, 3, 0], [8, 2, 0, 0]])).shape
    torch.Size([2, 60, 4])
    """

    def __init__(
        self,
        n_tokens: int,
        max_length: int = 128,
        width: int = 64,
        n_heads: int = 4,
        n_blocks: int = 2,
        hidden: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.body = _TransformerBlocks(n_tokens, max_length, width, n_heads, n_blocks, hidden, dropout)
        self.head = nn.Linear(width, n_tokens)

    def forward(self, X: Tensor) -> Tensor:
        """Logits of a batch: `(n_rows, length)` of integer tokens to `(n_rows, n_tokens, length)`.

        Classes come second, as :class:`torch.nn.CrossEntropyLoss` takes them.
        """
        length = X.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=X.device).triu(1)
        return self.head(self.body(X, src_mask=later, is_causal=True)).transpose(1, 2)
