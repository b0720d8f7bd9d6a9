"""What ``fit`` costs, in training epochs, on networks with parts that have no layer of torch's own.

    python benchmarks/fallback_cost.py mixtral mamba mobilenet --repeats 3

Mixtral's fused experts, Mamba's scan and MobileNetV2's depthwise convolutions (pip install transformers torchvision),
small and untrained but for the recorded epochs, on one thread. An epoch is ``partial_fit`` of the same net on the same
rows in batches of ``--batch-size``; the unit is the processor time of its median. Printed with the kinds of blocks that
the parameters fell into, and how many of them.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections import Counter
from typing import Any

import torch
from _common import timed
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution, TrajectoryRecorder

N_TOKENS = 64


class LanguageModel(nn.Module):
    """A causal language model of ``transformers`` as skorch wants it: tokens to (rows, tokens, length) logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at every place, the classes second."""
        return self.model(input_ids=X, use_cache=False).logits.transpose(1, 2)


def mixtral() -> nn.Module:
    """Two blocks of eight experts, two of them for every token."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    return LanguageModel(MixtralForCausalLM(MixtralConfig(
        vocab_size=N_TOKENS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=64,
    )))  # fmt: skip


def mamba() -> nn.Module:
    """Two blocks, 16 numbers of state per channel."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    return LanguageModel(MambaForCausalLM(MambaConfig(
        vocab_size=N_TOKENS, hidden_size=64, state_size=16, num_hidden_layers=2,
    )))  # fmt: skip


def mobilenet() -> nn.Module:
    """A quarter of the width, ten classes, statistics of the norms frozen."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    return FrozenNorms(mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0))


class FrozenNorms(nn.Module):
    """A network whose batch norms keep their statistics, as in fine-tuning."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> FrozenNorms:
        """Put all but the norms into training mode."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.model(X)


def sequences(n_rows: int, length: int = 32) -> tuple[Any, Any]:
    """Tokens and the ones after them."""
    tokens = torch.randint(0, N_TOKENS, (n_rows, length + 1), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1].numpy(), tokens[:, 1:].numpy()


def images(n_rows: int, size: int = 32) -> tuple[Any, Any]:
    """Noise and labels."""
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(n_rows, 3, size, size, generator=generator)
    return X.numpy(), torch.randint(0, 10, (n_rows,), generator=generator).numpy()


NETWORKS = {"mixtral": (mixtral, sequences), "mamba": (mamba, sequences), "mobilenet": (mobilenet, images)}
METHODS = {
    "influence functions": InfluenceFunctions,
    "SOURCE, 6 checkpoints": SourceAttribution,
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="The cost of fit in training epochs.")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.networks:
        build, rows = NETWORKS[name]
        X, y = rows(arguments.rows)
        net = NeuralNetClassifier(
            build, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.01, train_split=None, verbose=0,
            batch_size=arguments.batch_size, max_epochs=2, callbacks=[TrajectoryRecorder(n_checkpoints=6)],
            callbacks__valid_acc=None, callbacks__print_log=None,
        ).fit(X, y)  # fmt: skip
        plain = NeuralNetClassifier(
            build, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=0.01, train_split=None, verbose=0,
            batch_size=arguments.batch_size, max_epochs=1, callbacks__valid_acc=None, callbacks__print_log=None,
        ).initialize()  # fmt: skip
        plain.partial_fit(X, y)
        epoch = statistics.median(timed(plain.partial_fit, X, y)[1].cpu for _ in range(5))
        print(f"{name}: an epoch of {len(X)} rows takes {epoch:.3f} s", flush=True)
        for label in arguments.methods:
            seconds = []
            for _ in range(arguments.repeats):
                est = METHODS[label](random_state=0)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    seconds.append(timed(est.fit, net, X, y)[1].cpu)
            kinds = Counter(block.kind for block in est._gradients.blocks)
            slow = [str(w.message)[:160] for w in caught if "whole network" in str(w.message)]
            print(
                f"  {label}: {statistics.median(seconds) / epoch:.1f} epochs ({statistics.median(seconds):.2f} s; "
                f"{min(seconds) / epoch:.1f}-{max(seconds) / epoch:.1f}), blocks {dict(kinds)} {slow}",
                flush=True,
            )


if __name__ == "__main__":
    main()
