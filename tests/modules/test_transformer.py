"""The transformers of the examples: against the formulas, padding, causality, and life inside a skorch net."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from sklearn_source.datasets import TextEncoder, load_questions, next_tokens
from sklearn_source.modules import CharTransformer, TextClassifier


def _norm(x, layer):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def _block_by_hand(block, x, visible):
    """One block on the states (T, width) of a single row; ``visible`` (T, T): which place sees which."""
    attention, normed = block.self_attn, _norm(x, block.norm1)
    q, k, v = (normed @ w.T + b for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)))
    heads = []
    for head in zip(*(part.chunk(attention.num_heads, dim=1) for part in (q, k, v))):
        scores = (head[0] @ head[1].T / math.sqrt(head[0].shape[1])).masked_fill(~visible, -torch.inf)
        heads.append(scores.softmax(1) @ head[2])
    x = x + torch.cat(heads, dim=1) @ attention.out_proj.weight.T + attention.out_proj.bias
    inner = _norm(x, block.norm2) @ block.linear1.weight.T + block.linear1.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))  # GELU
    return x + inner @ block.linear2.weight.T + block.linear2.bias


def _states_by_hand(body, row, visible):
    x = body.tokens.weight[row] + body.positions.weight[: len(row)]
    for block in body.blocks:
        x = _block_by_hand(block, x, visible)
    return _norm(x, body.norm)


def _spread(module):
    """Weights at which no bias is zero and no norm the identity, so that none can be forgotten unseen."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    return module.double()


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return _spread(TextClassifier(n_tokens=20, n_classes=3, max_length=10, width=8, n_heads=2, n_blocks=2))


@pytest.fixture
def language_model():
    torch.manual_seed(0)
    return _spread(CharTransformer(n_tokens=12, max_length=10, width=8, n_heads=2, n_blocks=2, hidden=5))


def test_classifier_is_the_written_out_network(classifier):
    rows = torch.tensor([[3, 7, 1, 19, 0, 0], [4, 4, 2, 5, 6, 8]])
    expected = []
    for row, length in zip(rows, (4, 6)):
        visible = torch.ones(length, length, dtype=torch.bool)
        state = _states_by_hand(classifier.body, row[:length], visible)
        expected.append(classifier.head.weight @ state.mean(0) + classifier.head.bias)
    torch.testing.assert_close(classifier(rows), torch.stack(expected))


def test_language_model_is_the_written_out_network(language_model):
    rows = torch.randint(0, 12, (3, 7))
    visible = torch.ones(7, 7, dtype=torch.bool).tril()
    head = language_model.head
    expected = [(_states_by_hand(language_model.body, row, visible) @ head.weight.T + head.bias).T for row in rows]
    torch.testing.assert_close(language_model(rows), torch.stack(expected))


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_no_logit(classifier, training):
    rows = torch.tensor([[3, 7, 1], [4, 9, 0]])
    padded = torch.cat([rows, torch.zeros(2, 5, dtype=torch.long)], dim=1)
    classifier.train(training)
    with torch.no_grad():  # in evaluation torch takes its fused path here, which is to agree
        short, long = classifier(rows), classifier(padded)
    torch.testing.assert_close(short, long)
    torch.testing.assert_close(short[1:], classifier(rows[1:, :2]))


def test_another_padding_token(classifier):
    torch.manual_seed(0)
    other = _spread(TextClassifier(20, 3, max_length=10, width=8, n_heads=2, padding=19))
    torch.testing.assert_close(other(torch.tensor([[3, 0, 19, 19]])), other(torch.tensor([[3, 0]])))


def test_a_row_of_padding_has_the_logits_of_the_bias_and_finite_gradients(classifier):
    logits = classifier(torch.tensor([[0, 0, 0], [3, 4, 0]]))
    torch.testing.assert_close(logits[0], classifier.head.bias)
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in classifier.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_no_logit_depends_on_a_later_token(language_model, training):
    language_model.train(training)
    row = torch.randint(0, 12, (1, 8))
    with torch.no_grad():
        before = language_model(row)
        for t in range(8):
            changed = row.clone()
            changed[0, t] = (row[0, t] + 1) % 12
            after = language_model(changed)
            torch.testing.assert_close(after[..., :t], before[..., :t], rtol=0, atol=1e-12)
            # ... and each does depend on the tokens up to its own.
            assert ((after - before)[..., t:].abs().amax(1) > 1e-9).all()


def test_rows_do_not_see_each_other(classifier, language_model):
    rows = torch.randint(1, 12, (4, 6))
    for module in (classifier, language_model):
        torch.testing.assert_close(module(rows)[1:2], module(rows[1:2]))


@pytest.mark.parametrize("network", ["classifier", "language_model"])
def test_longer_than_max_length_is_refused(network, request):
    with pytest.raises(ValueError, match="at most max_length=10 tokens, got 11"):
        request.getfixturevalue(network)(torch.ones(1, 11, dtype=torch.long))


@pytest.mark.parametrize(
    "make", [lambda: TextClassifier(9, 2, width=10, n_heads=4), lambda: CharTransformer(9, width=6)]
)
def test_width_is_a_multiple_of_the_heads(make):
    with pytest.raises(ValueError, match="expected width to be a multiple of n_heads=4, .*, got"):
        make()


def test_dropout_is_off_in_evaluation():
    torch.manual_seed(0)
    module = TextClassifier(9, 2, width=8, dropout=0.5)
    row = torch.tensor([[3, 4, 5]])
    assert not torch.equal(module(row), module(row))
    module.eval()
    assert torch.equal(module(row), module(row))


def test_classifier_learns_questions():
    X, y = load_questions(return_X_y=True)
    encoder = TextEncoder(lowercase=True, min_count=2, shapes=True, max_length=16)
    tokens = encoder.fit_transform(X)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        TextClassifier,
        module__n_tokens=encoder.n_tokens_,
        module__n_classes=6,
        module__max_length=16,
        module__width=16,
        module__n_blocks=1,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=5e-3,
        batch_size=32,
        max_epochs=3,
        train_split=None,
        verbose=0,
    ).fit(tokens, y)
    test, labels = load_questions(subset="test", return_X_y=True)
    assert net.score(encoder.transform(test), labels) > 0.6  # the largest class has 0.28


def test_language_model_learns_what_follows_what():
    rng = np.random.default_rng(0)
    # Each row counts on from a random start, modulo 6, and ends at a random place.
    tokens = 3 + (rng.integers(0, 6, (256, 1)) + np.arange(9)) % 6
    tokens[np.arange(9) >= rng.integers(4, 10, (256, 1))] = 0
    X, y = next_tokens(tokens)
    torch.manual_seed(0)
    net = NeuralNet(
        CharTransformer,
        module__n_tokens=9,
        module__max_length=8,
        module__width=16,
        module__n_blocks=1,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-2,
        batch_size=32,
        max_epochs=8,
        train_split=None,
        verbose=0,
    ).fit(X, y)
    predicted = net.forward(X).argmax(1).numpy()
    assert (predicted == y)[y != -100].mean() > 0.99
