"""The multilayer perceptron of the examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Multilayer perceptron, to be given to a skorch net.

    Read more in the :ref:`User Guide <example_networks>`.

    Parameters
    ----------
    n_features : int, default=None
        Width of the input. `None` reads it from the first batch, so that one net definition fits any table; until then
        the first layer has no weights.
    hidden : sequence of int, default=(128, 128, 128)
        Widths of the hidden layers. Empty: a linear model.
    n_outputs : int, default=1
        Number of outputs: targets of a regression, classes of a classification.
    activation : callable, default=torch.nn.ReLU
        Makes the module between two layers, called without arguments.
    softmax : bool, default=False
        Return probabilities, as skorch's `NeuralNetClassifier` with its default criterion expects, instead of logits.
    squeeze : bool, default=False
        Return the single output as `(n_rows,)` instead of `(n_rows, 1)`, for one-dimensional regression targets.

    Raises
    ------
    ValueError
        If `squeeze` is asked of several outputs, or `softmax` of one.

    See Also
    --------
    TextClassifier : A network for texts.

    Examples
    --------
    >>> import torch
    >>> from sklearn_source.modules import MLP
    >>> MLP(hidden=(16,), n_outputs=3)(torch.zeros(5, 8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        n_features: int | None = None,
        hidden: Sequence[int] = (128, 128, 128),
        n_outputs: int = 1,
        activation: Callable[[], nn.Module] = nn.ReLU,
        softmax: bool = False,
        squeeze: bool = False,
    ):
        super().__init__()
        if squeeze and n_outputs != 1:
            raise ValueError(f"expected one output for squeeze=True, got n_outputs={n_outputs}: leave squeeze=False")
        if softmax and n_outputs < 2:
            raise ValueError(f"expected an output per class, at least 2, for softmax=True, got n_outputs={n_outputs}")
        layers: list[nn.Module] = []
        width = n_features
        for next_width in hidden:
            layers += [_linear(width, next_width), activation()]
            width = next_width
        layers.append(_linear(width, n_outputs))
        if softmax:
            layers.append(nn.Softmax(dim=-1))
        self.layers = nn.Sequential(*layers)
        self.squeeze = squeeze

    def forward(self, X: Tensor) -> Tensor:
        """Compute the outputs of a batch.

        Parameters
        ----------
        X : Tensor of shape (n_rows, n_features)
            Rows of a table.

        Returns
        -------
        output : Tensor of shape (n_rows, n_outputs), or (n_rows,) with `squeeze`
            Logits or probabilities of classes, or predictions.
        """
        output = self.layers(X)
        return output.squeeze(-1) if self.squeeze else output


def _linear(n_in: int | None, n_out: int) -> nn.Module:
    """A linear layer, one that waits for its first batch where the width of the input is None."""
    return nn.LazyLinear(n_out) if n_in is None else nn.Linear(n_in, n_out)
