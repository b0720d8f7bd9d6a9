"""Per-row gradients of every kind of layer against autograd, one row at a time, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sklearn_source.gradients import GradientEngine, from_matrices, to_matrices
from tests.gradients._layers import CASES, N_ROWS, make

pytestmark = [
    pytest.mark.filterwarnings("ignore:no quick way of per-row gradients"),
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even"),
]


@pytest.mark.parametrize("name", CASES)
def test_per_row_gradients_are_those_of_autograd(name, per_row):
    module, x, kinds = make(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    actual, expected, engine = per_row(module, x)
    assert set(actual) == set(expected)
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-10, atol=1e-12)
    if name != "unused":
        assert all(bool(value.any()) for value in expected.values())  # nothing is compared with zeros alone
    said = [(block.name, block.kind) for block in engine.blocks]
    assert sorted(kind for _, kind in said) == sorted(kinds), (
        f"expected blocks treated as {kinds}, got {said}: either no reader is registered for the function that "
        f"the layer calls, or its rule disagrees with autograd (sent the slow way: {engine.demoted})"
    )
    assert engine.n_parameters == sum(p.numel() for p in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(m._forward_hooks for m in module.modules())


@pytest.mark.parametrize("name", ["conv-net", "linear-tokens", "attention"])
def test_float32_agrees_with_float64(name, per_row):
    module, x, _ = make(name)
    _, expected, _ = per_row(module, x)
    low = copy.deepcopy(module).float()
    actual, _, engine = per_row(low, x.float())
    assert engine.demoted == per_row(module, x)[2].demoted  # rounding alone demotes no layer
    for key in expected:
        assert actual[key].dtype == torch.float32
        error = (actual[key].double() - expected[key]).norm() / expected[key].norm()
        assert error < 1e-5


@pytest.mark.parametrize(
    ("frozen", "kinds"),
    [
        (["0.weight"], {"0.bias": (1, 4, 1), "3": (1, 2, 17)}),
        (["0.bias"], {"0.weight": (1, 4, 27), "3": (1, 2, 17)}),
        (["0.weight", "0.bias"], {"3": (1, 2, 17)}),
        (["3.weight"], {"0": (1, 4, 28), "3.bias": (1, 2, 1)}),
    ],
    ids=str,
)
def test_frozen_parameters_are_left_out(frozen, kinds, per_row):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2)).double().eval()
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    actual, expected, engine = per_row(module, torch.randn(N_ROWS, 3, 4, 4).double())
    assert {block.name: block.shape for block in engine.blocks} == kinds
    assert {block.kind for block in engine.blocks} == {"factored"}
    assert engine.demoted == []
    assert set(actual) == {name for name, _ in module.named_parameters()} - set(frozen)
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-10, atol=1e-12)
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == frozen


@pytest.mark.parametrize("name", ["linear-tokens", "linear-twice", "conv2d-groups", "conv3d"])
def test_a_weight_and_a_bias_treated_differently_are_two_blocks(name, per_row):
    module, x, _ = make(name)
    treatment = {key: key.endswith("bias") for key, _ in module.named_parameters()}
    actual, expected, engine = per_row(module, x, treatment=treatment)
    assert all(len(block.parameters) == 1 and block.kind == "factored" for block in engine.blocks)
    assert engine.demoted == []
    assert all(b.shape[::2] == (1, 1) for b in engine.blocks if b.name.endswith("bias"))  # a vector, whatever the layer
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-10, atol=1e-12)
    together = per_row(module, x, treatment=dict.fromkeys(treatment, "same"))[2]
    assert all(len(block.parameters) == 2 for block in together.blocks)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("0", ["0.weight", "0.bias"]),
        (["5", "4.bias"], ["4.bias", "5.weight", "5.bias"]),
        (["9.weight"], ["9.weight"]),
        ("", None),
        (["4", "4.weight"], ["4.weight", "4.bias"]),
    ],
    ids=str,
)
def test_layers_choose_parameters(layers, names, per_row):
    module, x, _ = make("conv-net")
    module[0].bias = nn.Parameter(torch.randn(4).double())
    actual, expected, engine = per_row(module, x, layers=layers)
    assert engine.names == (names if names is not None else [name for name, _ in module.named_parameters()])
    assert set(actual) == set(engine.names)
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-10, atol=1e-12)
    assert all(p.requires_grad for p in module.parameters())


def test_bad_choices_of_layers():
    module, _, _ = make("conv-net")
    with pytest.raises(ValueError, match="no layer or parameter 'conv'"):
        GradientEngine(module, module, "conv")
    with pytest.raises(ValueError, match="'3' has no trainable parameter"):
        GradientEngine(module, module, ["0", "3"])
    module.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to attribute to"):
        GradientEngine(module, module)


def test_verify_finds_a_weight_used_outside_its_layer(per_row):
    module, x, _ = make("outside-forward")
    actual, expected, engine = per_row(module, x, verify=False)
    assert (actual["fc.weight"] - expected["fc.weight"]).norm() > 0.1 * expected["fc.weight"].norm()
    assert engine.verify(x) == ["fc"]
    assert engine.verify(x) == []  # and is done with it


def test_rows_that_depend_on_each_other_are_refused():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            output = self.fc(x)
            return output - output.mean(0)

    module = Centred().double().eval()
    engine = GradientEngine(module, module)
    with pytest.raises(ValueError, match="depend on other rows"):
        engine.verify(torch.randn(4, 3).double())


@pytest.mark.parametrize("name", ["conv-net", "linear-twice", "attention", "lstm", "tied-embedding"])
def test_pulls_of_one_capture_are_independent_and_linear(name):
    module, x, _ = make(name)
    engine = GradientEngine(module, module)
    engine.verify(x)
    with engine.attached():
        capture = engine.capture(x)
        u, v = torch.randn(2, *capture.output.shape).double()
        first, second, both = capture.pull(u), capture.pull(v), capture.pull(2 * u - v)
        again = capture.pull(u)
    for a, b, c, d in zip(first, second, both, again):
        assert not a.matrix().requires_grad  # kept gradients keep no graph
        torch.testing.assert_close(c.matrix(), 2 * a.matrix() - b.matrix())
        assert torch.equal(a.matrix(), d.matrix())
    half = GradientEngine(module, module)
    half.verify(x)
    with half.attached():
        part = half.capture(x[3:]).pull(u[3:])
    for a, b in zip(first, part):
        torch.testing.assert_close(a.matrix()[3:], b.matrix(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["conv-net", "conv3d", "attention", "bare-parameters", "conv2d-depthwise", "conv1d"])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
def test_matrices_and_parameters_go_back_and_forth(name, lead):
    module, x, _ = make(name)
    engine = GradientEngine(module, module)
    values = {key: torch.randn((*lead, *p.shape)).double() for key, p in module.named_parameters()}
    back = {}
    for block in engine.blocks:
        matrices = to_matrices(block, values)
        assert matrices.shape == (*lead, *block.shape)
        back.update(from_matrices(block, matrices))
        torch.testing.assert_close(to_matrices(block, from_matrices(block, matrices)), matrices)
    assert set(back) == set(values)
    for key in values:
        assert torch.equal(back[key], values[key])
