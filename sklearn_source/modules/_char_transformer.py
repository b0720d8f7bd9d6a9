"""The transformer of the examples that is a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._transformer_blocks import TransformerBlocks


class CharTransformer(nn.Module):
    """Causal transformer that predicts the next token at every place of a sequence, to be given to a skorch net.

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
        self.body = TransformerBlocks(n_tokens, max_length, width, n_heads, n_blocks, hidden, dropout)
        self.head = nn.Linear(width, n_tokens)

    def forward(self, X: Tensor) -> Tensor:
        """Compute the outputs of a batch.

        Parameters
        ----------
        X : Tensor of int of shape (n_rows, length)
            Tokens, padded at the end.

        Returns
        -------
        logits : Tensor of shape (n_rows, n_tokens, length)
            Of the next token at every place. Classes come second, as :class:`torch.nn.CrossEntropyLoss` takes them.

        Raises
        ------
        ValueError
            If sequences are longer than `max_length`.
        """
        length = X.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=X.device).triu(1)
        return self.head(self.body(X, src_mask=later, is_causal=True)).transpose(1, 2)
