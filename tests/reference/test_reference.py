"""Gradients, layers, factors and phi(H) v of the reference against autograd and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from . import (
    Block,
    apply_phi,
    bernoulli_columns,
    block_factors,
    blocks_matrix,
    column_gradients,
    empirical_columns,
    ggn,
    ggn_from_columns,
    hessian_columns,
    layer_gradient_matrices,
    loss_hessian,
    make_layout,
    mean_hessian,
    mse_columns,
    phi_dense,
    probability_columns,
    row_gradients,
    softmax_columns,
    unfold,
)
from ._cases import CASES, block_diagonal_checkpoints, build, conv_case, cross_entropy, labels, mlp_case, mse, random


def test_row_gradients_average_to_the_batch_gradient():
    module, params, X, y = conv_case()
    rows, layout = row_gradients(module, params, cross_entropy, X, y)
    cross_entropy(module(X), y).backward()
    batch = layout.flatten({name: p.grad for name, p in module.named_parameters()})
    torch.testing.assert_close(rows.mean(0), batch)


def test_ggn_of_a_linear_model_is_two_over_n_times_the_gram_matrix():
    module, params = build(nn.Linear(3, 1))
    X, y = random(7, 3), random(7, 1, seed=1)
    design = torch.cat([X, torch.ones(7, 1)], dim=1)
    expected = 2 / 7 * design.T @ design
    torch.testing.assert_close(ggn(module, params, mse, X, y), expected)
    torch.testing.assert_close(mean_hessian(module, params, mse, X, y), expected)


def test_closed_form_columns_are_roots_of_the_criterion_hessian():
    def root_square(columns):
        return sum(torch.outer(b.reshape(-1), b.reshape(-1)) for b in columns)

    z, bce = random(1, 4), nn.functional.binary_cross_entropy_with_logits
    for columns, loss_fn, y in (
        (softmax_columns, cross_entropy, labels(1, 4)),
        (mse_columns, mse, random(1, 4, seed=3)),
        (bernoulli_columns, bce, torch.tensor([[0.0, 1.0, 1.0, 0.0]], dtype=torch.float64)),
        (hessian_columns(cross_entropy), cross_entropy, labels(1, 4)),
    ):
        torch.testing.assert_close(root_square(columns(z, y)), loss_hessian(loss_fn, z, y))


def test_fisher_on_probabilities_equals_the_ggn_on_logits():
    module, params, X, y = mlp_case()
    with_softmax = nn.Sequential(*module, nn.Softmax(dim=-1)).eval()
    expected = ggn(module, params, cross_entropy, X, y)
    torch.testing.assert_close(ggn_from_columns(with_softmax, params, probability_columns(), X), expected)
    torch.testing.assert_close(ggn_from_columns(module, params, softmax_columns, X), expected)


def test_empirical_columns_give_the_row_gradients():
    module, params, X, y = mlp_case()
    columns, _ = column_gradients(module, params, empirical_columns(cross_entropy), X, y)
    torch.testing.assert_close(torch.cat(columns), row_gradients(module, params, cross_entropy, X, y)[0])


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2), (2, 9)),
        (nn.Conv1d(2, 4, 2, padding="same", groups=2, padding_mode="circular"), (2, 5)),
        (nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (2, 6, 5)),
        (nn.Conv2d(3, 2, 3, padding=2, padding_mode="reflect"), (3, 4, 4)),
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate", bias=False), (1, 4, 3)),
        (nn.Conv3d(2, 2, (1, 2, 2), stride=(1, 2, 1), padding=(0, 1, 1), padding_mode="zeros"), (2, 2, 3, 3)),
        (nn.Conv3d(3, 3, 2, groups=3, padding="valid"), (3, 3, 2, 3)),
    ],
    ids=lambda value: str(value),
)
def test_unfolding_times_weight_is_the_convolution(conv, shape):
    conv = conv.double()
    x = random(1, *shape)
    width = conv.out_channels // conv.groups
    parts = []
    for group in range(conv.groups):
        weight = conv.weight[group * width : (group + 1) * width].reshape(width, -1)
        parts.append(weight @ unfold(conv, x, group).T)
    output = torch.cat(parts)
    if conv.bias is not None:
        output = output + conv.bias[:, None]
    torch.testing.assert_close(output, conv(x)[0].reshape(conv.out_channels, -1))


@pytest.mark.parametrize("case", CASES)
def test_sum_of_outer_products_is_the_autograd_gradient(case):
    module, params, X, y = CASES[case]()
    gradients, _ = row_gradients(module, params, cross_entropy, X, y)
    layers = [name for name, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(layers) >= 2
    for layer in layers:
        for group in layer_gradient_matrices(module, params, layer, empirical_columns(cross_entropy), X, y):
            for n in range(len(X)):
                torch.testing.assert_close(group.matrices[n][0], gradients[n][group.index])


@pytest.mark.parametrize("case", CASES)
def test_ekfac_eigenvalues_are_the_ggn_diagonal_in_the_eigenbasis(case):
    module, checkpoints, X, y = block_diagonal_checkpoints(case)
    H = sum(w * ggn(module, params, cross_entropy, X, y) for params, w in checkpoints)
    blocks = block_factors(module, checkpoints, softmax_columns, X)
    assert sum(block.index.numel() for block in blocks) == len(H)
    for block in blocks:
        where = block.index.reshape(-1)
        within = H[where][:, where]
        rotated = block.rotation().T @ within @ block.rotation()
        torch.testing.assert_close(block.eigenvalues.reshape(-1), torch.diagonal(rotated))
        torch.testing.assert_close(block.eigenvalues.sum(), torch.trace(within))  # the trace is preserved
        if block.index.shape[1] == 1:  # a vector's block is exact
            torch.testing.assert_close(block.matrix(), within)
    diagonal = block_factors(module, checkpoints, softmax_columns, X, kind="diagonal")
    torch.testing.assert_close(torch.diagonal(blocks_matrix(diagonal)), torch.diagonal(H))


def test_kfac_is_the_kronecker_product_of_its_covariances():
    module, checkpoints, X, _ = block_diagonal_checkpoints("conv")
    dense_names = make_layout(module, checkpoints[0][0]).names
    for block in block_factors(module, checkpoints, softmax_columns, X, kind="kfac"):
        scale = torch.trace(block.A) if block.label in dense_names else 1.0
        torch.testing.assert_close(block.matrix(), torch.kron(block.S, block.A) / scale)
    dense = block_factors(module, checkpoints, softmax_columns, X, kind="kfac", dense=dense_names)
    H = sum(w * ggn_from_columns(module, params, softmax_columns, X) for params, w in checkpoints)
    for block in dense:
        where = block.index.reshape(-1)
        torch.testing.assert_close(block.eigenvalues.sum(), torch.diagonal(H)[where].sum())


@pytest.mark.parametrize("shape", [(), (4,)], ids=["rows", "tokens"])
def test_kfac_and_ekfac_are_exact_for_linear_regression(shape):
    """With one linear layer and a separate target per token, A (mean over tokens) kron S (sum over tokens) is H."""
    module, params = build(nn.Linear(3, 2))
    X = random(9, *shape, 3)
    H = ggn(module, params, mse, X, random(9, *shape, 2, seed=1))
    for kind in ("kfac", "ekfac"):
        torch.testing.assert_close(blocks_matrix(block_factors(module, [(params, 1.0)], mse_columns, X, kind=kind)), H)


def test_names_select_parameters_and_a_frozen_bias_leaves_no_column():
    module, params, X, y = mlp_case()
    (block,) = block_factors(module, [(params, 1.0)], softmax_columns, X, names=["0.weight"])
    assert block.index.shape == (4, 3)
    full = row_gradients(module, params, cross_entropy, X, y)
    part = row_gradients(module, params, cross_entropy, X, y, names=["0.weight"])[0]
    torch.testing.assert_close(part, full[0][:, full[1].slices["0.weight"]])


def test_tied_weights_fall_to_a_dense_block_with_the_whole_gradient():
    module, _ = build(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    module[2].weight = module[0].weight
    params = {name: p.detach() for name, p in module.named_parameters()}
    X, y = random(4, 3), labels(4, 3)
    assert list(params) == ["0.weight"]
    (block,) = block_factors(module, [(params, 1.0)], softmax_columns, X)
    torch.testing.assert_close(block.eigenvalues.sum(), torch.trace(ggn(module, params, cross_entropy, X, y)))


def test_phi_identities():
    module, checkpoints, X, y = block_diagonal_checkpoints("conv")
    blocks = block_factors(module, checkpoints, softmax_columns, X)
    H = blocks_matrix(blocks)
    V = random(3, len(H))
    torch.testing.assert_close(H, H.T)
    torch.testing.assert_close(apply_phi(blocks, lambda s: s, V), V @ H)
    torch.testing.assert_close(apply_phi(blocks, torch.ones_like, V), V)
    inverse = apply_phi(blocks, lambda s: 1 / (s + 0.1), V)
    torch.testing.assert_close(inverse @ (H + 0.1 * torch.eye(len(H))), V)
    torch.testing.assert_close(phi_dense(H, lambda s: torch.exp(-3 * s)), torch.linalg.matrix_exp(-3 * H))
    torch.testing.assert_close(blocks_matrix(blocks, lambda s: torch.exp(-3 * s)), torch.linalg.matrix_exp(-3 * H))
    with pytest.raises(ValueError, match="exactly once"):
        blocks_matrix(blocks[:-2] + blocks[-1:])


def test_apply_phi_uses_row_major_matrices():
    Q = torch.linalg.qr(random(2, 2)).Q
    block = Block("b", torch.tensor([[0, 2, 4], [1, 3, 5]]), None, None, torch.eye(3).double(), Q, random(2, 3, seed=1))
    v = random(1, 6)
    matrix = v[0][block.index]
    expected = torch.empty(6, dtype=torch.float64)
    expected[block.index] = Q @ (block.eigenvalues**2 * (Q.T @ matrix))
    torch.testing.assert_close(apply_phi([block], torch.square, v)[0], expected)
