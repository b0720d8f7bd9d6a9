"""The transformer of the examples that classifies sequences of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._transformer_blocks import TransformerBlocks


class TextClassifier(nn.Module):
    """Transformer that reads a padded sequence of tokens and names its class, to be given to a skorch net.

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
        self.body = TransformerBlocks(n_tokens, max_length, width, n_heads, n_blocks, hidden, dropout)
        self.head = nn.Linear(width, n_classes)

    def forward(self, X: Tensor) -> Tensor:
        """Compute the outputs of a batch.

        Parameters
        ----------
        X : Tensor of int of shape (n_rows, length)
            Tokens, padded at the end.

        Returns
        -------
        logits : Tensor of shape (n_rows, n_classes)
            Of the classes.

        Raises
        ------
        ValueError
            If sequences are longer than `max_length`.
        """
        empty = X == self.padding
        # With nothing to attend to, a softmax is 0/0: a row of padding attends to its first place, and is not averaged.
        blocked = empty & (torch.arange(X.shape[1], device=X.device) > 0)
        state = self.body(X, src_key_padding_mask=blocked)
        weight = (~empty).unsqueeze(2).to(state.dtype)
        return self.head((state * weight).sum(1) / weight.sum(1).clamp(min=1))
