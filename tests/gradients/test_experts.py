"""Per-row gradients of experts, whose tokens come from some rows only, against autograd in float64."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from sklearn_source.gradients import GradientEngine
from sklearn_source.gradients.layers import RoutedLayout
from tests.gradients._experts import EXPERTS, WIDTH, ExpertsOfFixedCapacity, GroupedExperts, make_experts
from tests.gradients.conftest import autograd_rows, block_rows


def pulled(engine, module, x):
    with engine.attached():
        capture = engine.capture(x)
        generator = torch.Generator().manual_seed(1)
        cotangent = torch.randn(capture.output.shape, generator=generator, dtype=torch.float64)
        actual = block_rows(engine, capture.pull(cotangent.to(capture.output)))
    return actual, autograd_rows(module, x, cotangent.to(capture.output), engine.names)


@pytest.mark.filterwarnings("error::UserWarning")  # none goes the slow way
@pytest.mark.parametrize("name", EXPERTS)
def test_per_row_gradients_are_those_of_autograd(name):
    module, x = make_experts(name)
    engine = GradientEngine(module, module)
    assert engine.verify(x) == []
    assert {block.kind for block in engine.blocks} <= {"factored", "affine"}
    for rows in (x, x[:1], torch.randn(37, 3, WIDTH).double()):  # 37: the number of a row has two digits
        actual, expected = pulled(engine, module, rows)
        for key in expected:
            torch.testing.assert_close(actual[key], expected[key], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["list", "stack", "einsum"])
def test_single_precision_tells_many_rows_apart(name):
    module, _ = make_experts(name)
    module, x = module.float(), torch.randn(1100, 2, WIDTH)
    engine = GradientEngine(module, module)
    engine.verify(x[:16])
    with engine.attached():
        capture = engine.capture(x)
        cotangent = torch.randn(capture.output.shape)
        actual = block_rows(engine, capture.pull(cotangent))
    some = torch.arange(0, 1100, 37)
    for key, value in autograd_rows(module, x[some], cotangent[some], engine.names).items():
        torch.testing.assert_close(actual[key][some], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("n_skipped", [1, 3])
@pytest.mark.parametrize("name", ["list-skipping", "list", "stack-skipping", "stack"])
def test_experts_that_no_row_used_when_the_gradients_were_checked(name, n_skipped):
    module, x = make_experts(name, n_rows=12)
    with torch.no_grad():  # by the sign of the first number to one half of the experts
        module.router.weight.zero_()
        module.router.weight[:, 0] = torch.tensor([30.0, 29.0, -30.0, -29.0])
    x[:6, :, 0] = x[:6, :, 0].abs() + 0.1
    x[6:, :, 0] = -x[6:, :, 0].abs() - 0.1
    x[6::n_skipped, 0, 0] *= -1
    engine = GradientEngine(module, module)
    engine.verify(x[:4])
    for rows in (x[2:8], x[6:], x):
        actual, expected = pulled(engine, module, rows)
        for key in expected:
            torch.testing.assert_close(actual[key], expected[key], rtol=1e-9, atol=1e-11)


@pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="torch has no grouped products yet")
@pytest.mark.filterwarnings("error::UserWarning")
def test_fused_experts():
    """In single precision, which is all that grouped products are computed in."""
    torch.manual_seed(0)
    module, x = GroupedExperts(), torch.randn(9, 3, GroupedExperts.width)
    engine = GradientEngine(module, module)
    assert engine.verify(x) == []
    assert {block.name: block.shape for block in engine.blocks if block.kind == "factored"}["up"] == (4, 8, 4)
    for rows in (x, x[:1], torch.randn(37, 2, GroupedExperts.width)):
        with engine.attached():
            capture = engine.capture(rows)
            cotangent = torch.randn(capture.output.shape)
            actual = block_rows(engine, capture.pull(cotangent))
        expected = autograd_rows(module, rows, cotangent, engine.names)
        for key in expected:
            torch.testing.assert_close(actual[key], expected[key], rtol=1e-4, atol=1e-5)


def test_several_cotangents_share_the_inputs():
    module, x = make_experts("stack")
    engine = GradientEngine(module, module)
    engine.verify(x)
    assert any(block.is_routed for block in engine.blocks)
    with engine.attached():
        capture = engine.capture(x)
        first, second = torch.zeros(2, *capture.output.shape).double()
        first[:, 0] = second[:, 1] = 1
        pulls = [capture.pull(cotangent) for cotangent in (first, second, first + 2 * second)]
    for block, one, two, both in zip(engine.blocks, *pulls):
        torch.testing.assert_close(both.matrix(), one.matrix() + 2 * two.matrix())
        if block.has_factors:
            assert torch.equal(one.a, two.a)
    again = pickle.loads(pickle.dumps(pulls[0]))
    assert all(torch.equal(a.matrix(), b.matrix()) for a, b in zip(again, pulls[0]))


def test_a_column_of_ones_has_none_where_a_row_has_fewer_tokens():
    """The moment of the inputs counts the tokens that there are, not the places that were filled up."""
    module, x = make_experts("list")
    engine = GradientEngine(module, module)
    engine.verify(x)
    (block,) = [i for i, block in enumerate(engine.blocks) if block.name == "experts.0.0"]
    with engine.attached():
        capture = engine.capture(x)
        gradient = capture.pull(torch.ones_like(capture.output))[block]
    chosen = module.router(x.flatten(0, 1)).topk(2, dim=-1).indices
    mine = x.flatten(0, 1)[(chosen == 0).any(1)].detach()
    assert 0 < len(mine) < len(x) * gradient.n_positions
    ones = torch.cat([mine, torch.ones(len(mine), 1).double()], 1)
    torch.testing.assert_close(gradient.input_moment()[0], ones.T @ ones)


def test_tokens_that_are_of_several_rows_are_no_rows():
    def pull(factors):
        return {
            "use": (factors.double()[:, None] * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))).sum(0)
        }

    layout = RoutedLayout(5, pull).of("use")
    with pytest.raises(ValueError, match="several rows each"):
        layout.split(torch.ones(1, 3))


def test_experts_that_choose_among_all_tokens_of_the_batch_are_refused():
    torch.manual_seed(0)
    module = ExpertsOfFixedCapacity().double().eval()
    engine = GradientEngine(module, module)
    with pytest.raises(ValueError, match="depend on other rows"):
        engine.verify(torch.randn(6, 4, WIDTH).double())


def test_what_goes_the_slow_way_is_said_once():
    class Cube(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))
            self.below = nn.Linear(3, 2)

        def forward(self, x):
            return self.below(x * torch.dist(self.weight, self.weight.flip(0)))

    module = Cube().double()
    engine = GradientEngine(module, module)
    with pytest.warns(UserWarning, match=r"uses weight: .*through the whole network") as record:
        engine.verify(torch.randn(5, 3).double())
    assert len(record) == 1


def test_an_output_without_the_chosen_parameters():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.above = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.no_grad():
                x = self.below(x)
            return self.above(x)

    module = Frozen()
    with pytest.raises(ValueError, match=r"depends on none of \['below.weight', 'below.bias'\]"):
        GradientEngine(module, module, "below").verify(torch.randn(5, 3))
