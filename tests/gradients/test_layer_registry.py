"""A kind of layer is a rule, a reader and a spec: one that the package does not know is added, as a stranger would."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklearn_source.gradients import GradientEngine, layers
from sklearn_source.gradients.layers import (
    READERS,
    SPECIFICATIONS,
    SUBSTITUTES,
    Arguments,
    ParameterRule,
    ParameterSpec,
    RowLayout,
    VectorRule,
    reads,
    specifies,
    specs_of,
)


@pytest.fixture
def registry():
    """The registries may be filled, and are as before afterwards."""
    registries = (READERS, SPECIFICATIONS)
    before = [dict(registered) for registered in registries]
    yield
    for registered, entries in zip(registries, before):
        registered.clear()
        registered.update(entries)


@dataclass(frozen=True)
class Slope(VectorRule):
    """What multiplies the negative part of every channel."""

    def of_use(self, use, grad, layout):
        grad = grad * use.x.clamp_max(0)
        return layout.split(grad.reshape(*grad.shape[:2], -1).sum(2)).sum(1)


def test_a_new_kind_of_layer_is_a_rule_a_reader_and_a_spec(registry, per_row):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.PReLU(3), nn.Flatten(), nn.Linear(9, 2)).double().eval()
    x = torch.randn(5, 2, 4).double()
    assert [block.kind for block in per_row(module, x)[2].blocks] == ["factored", "layer", "factored"]

    @reads(F.prelu)
    def prelu(input, weight):
        return Arguments(Slope, input, weight)

    @specifies(nn.PReLU)
    def prelu_layer(module):
        return [ParameterSpec(Slope, "weight")]

    engine = GradientEngine(module, module)
    assert isinstance(engine.blocks[1].rule, Slope)  # before any row was seen
    actual, expected, engine = per_row(module, x)
    assert [block.kind for block in engine.blocks] == ["factored", "affine", "factored"]
    assert engine.demoted == []
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-10, atol=1e-12)


def test_a_rule_that_is_wrong_is_noticed_and_the_layer_goes_another_way(registry, per_row):
    @dataclass(frozen=True)
    class Wrong(Slope):
        def of_use(self, use, grad, layout):
            return 2 * super().of_use(use, grad, layout)

    @reads(F.prelu)
    def prelu(input, weight):
        return Arguments(Wrong, input, weight)

    module, x = nn.PReLU(3).double(), torch.randn(5, 3).double()
    actual, expected, engine = per_row(module, x)
    assert [block.kind for block in engine.blocks] == ["layer"]
    torch.testing.assert_close(actual["weight"], expected["weight"])


def test_a_subclass_is_as_the_nearest_base_that_is_registered(registry):
    class Own(nn.Linear):
        pass

    class Further(Own):
        pass

    assert specs_of(Further(2, 3)) == specs_of(nn.Linear(2, 3)) != []
    specifies(Own)(lambda module: [])
    assert specs_of(Further(2, 3)) == []
    assert specs_of(nn.ReLU()) == []


def rules(of=ParameterRule):
    return [of, *(rule for sub in of.__subclasses__() for rule in rules(sub))]


def concrete_rules():
    return [rule for rule in rules() if not rule.__abstractmethods__ and rule.__module__.startswith(layers.__name__)]


@pytest.mark.parametrize("rule", concrete_rules(), ids=lambda rule: rule.__name__)
def test_every_rule_says_how_its_parameter_is_a_matrix(rule):
    of_three_axes = ("Contraction", "Convolution", "TransposedConvolution")
    one = rule((4,) if rule.__name__ == "Bias" else (4, 6, 2) if rule.__name__ in of_three_axes else (4, 6))
    value = torch.randn(3, *one.parameter)
    matrix = one.to_matrix(value)
    assert matrix.shape == (3, *one.shape)
    assert torch.equal(one.from_matrix(matrix), value)
    assert rule.form in ("factored", "indexed", "mixed", "affine", "layer", "dense")
    if rule.by_uses:
        bias = "bias" if rule.joins_bias else None
        zero = one.zero_gradient(5, bias, value)
        assert zero.has_factors == rule.has_factors
        assert zero.shape == (*one.shape[:2], one.shape[2] + rule.joins_bias)
        assert not zero.matrix().any()
        assert len(zero) == 5


def test_no_function_is_both_read_and_replaced():
    assert not set(READERS) & set(SUBSTITUTES)


def test_positions_that_do_not_divide_by_the_rows_are_refused():
    x = torch.arange(6)
    assert RowLayout(2).split(x).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert RowLayout(2, rows_first=False).split(x).tolist() == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(ValueError, match="a batch of 4 rows has 6 positions here"):
        RowLayout(4).split(x)
