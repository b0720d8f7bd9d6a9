"""What the parametrised test over all layers cannot say: batches of one, chunks, refusals, flags put back."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from sklearn_source.gradients import GradientEngine
from sklearn_source.utils._config import DEFAULT_BYTES
from tests.gradients._layers import CASES, make
from tests.gradients.conftest import autograd_rows, block_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:no quick way of per-row gradients"),
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even"),
]


def pulled(engine, x, seed=0):
    with engine.attached():
        capture = engine.capture(x)
        generator = torch.Generator().manual_seed(seed)
        cotangent = torch.randn(capture.output.shape, generator=generator, dtype=torch.float64)
        return block_rows(engine, capture.pull(cotangent)), cotangent


@pytest.mark.parametrize("n_rows", [1, 2, 4])
@pytest.mark.parametrize("name", CASES)
def test_other_numbers_of_rows_than_were_checked(name, n_rows):
    """Lengths of axes may coincide: four rows of four tokens; one row leaves open what is broadcast."""
    module, x, _ = make(name)
    engine = GradientEngine(module, module)
    engine.verify(x)
    x = torch.cat([x, x])[1 : 1 + n_rows]
    actual, cotangent = pulled(engine, x)
    for key, expected in autograd_rows(module, x, cotangent, engine.names).items():
        torch.testing.assert_close(actual[key], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["sequence-first", "attention", "position-ids", "position-table"])
def test_one_row_is_enough_to_check_with(name):
    module, x, _ = make(name)
    engine = GradientEngine(module, module)
    engine.verify(x[:1])
    actual, cotangent = pulled(engine, x)
    for key, expected in autograd_rows(module, x, cotangent, engine.names).items():
        torch.testing.assert_close(actual[key], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["bare-parameters", "custom", "lstm", "rnn-packed", "outside-forward"])
def test_chunks_of_rows_change_nothing(name, monkeypatch):
    module, x, _ = make(name)
    engine = GradientEngine(module, module)
    engine.verify(x)
    whole, cotangent = pulled(engine, x)
    names = [name for name, _ in module.named_parameters()]
    dense = engine.dense_gradients(x, cotangent, names)
    monkeypatch.setitem(DEFAULT_BYTES, "functional_gradients", 1)
    for key, value in pulled(engine, x)[0].items():
        torch.testing.assert_close(value, whole[key], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(dense[key], whole[key], rtol=1e-10, atol=1e-12)


def test_the_fast_path_of_attention_is_off_and_put_back(monkeypatch):
    module, x, _ = make("encoder")
    engine = GradientEngine(module, module)
    seen = []
    module.register_forward_pre_hook(lambda *_: seen.append(torch.backends.mha.get_fastpath_enabled()))
    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            engine.verify(x)
            pulled(engine, x)
            engine.dense_gradients(x, torch.ones(len(x), 2).double(), ["head.weight"])
            assert torch.backends.mha.get_fastpath_enabled() == enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert len(seen) > 6
    assert not any(seen)


def test_frequencies_in_the_batch_belong_to_no_row():
    module = nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="'0.weight' was trained with scale_grad_by_freq=True"):
        GradientEngine(module, module)
    assert GradientEngine(module, module, "1").names == ["1.weight", "1.bias"]


def test_what_is_left_out_is_named_in_one_warning():
    module = nn.Sequential(nn.Linear(3, 2))
    module.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    module.turn = nn.Parameter(torch.zeros(1, dtype=torch.complex64))
    with pytest.warns(UserWarning, match=r"left out.*\['phase', 'turn'\]") as record:
        engine = GradientEngine(module, module)
    assert len(record) == 1
    assert engine.names == ["0.weight", "0.bias"]


def test_compiled_modules_keep_their_names_and_may_be_chosen_without_the_prefix():
    module = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), backend="eager")
    assert GradientEngine(module, module, "1").names == ["_orig_mod.1.weight", "_orig_mod.1.bias"]
    assert GradientEngine(module, module, "_orig_mod.1.bias").names == ["_orig_mod.1.bias"]


class Experts(nn.Module):
    """Each token goes to one of three layers, by its first number."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        h = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mine = x[..., 0].clamp(-1, 1).round() == i - 1
            if mine.any():
                h[mine] = torch.tanh(expert(x[mine]))
        return self.head(h).mean(1)


def test_layers_that_only_some_rows_use():
    torch.manual_seed(0)
    module = Experts().double().eval()
    x = torch.randn(8, 4, 3).double()
    x[:, :, 0] = 1.0  # the last expert
    x[:3, 0, 0] = 0.0  # one token of each row that is checked: its layer's quick way seems right
    x[5, :, 0] = -1.0  # a layer that no row that is checked uses
    engine = GradientEngine(module, module)
    engine.verify(x[:4])
    engine.capture(x[:4])
    late = pulled(engine, x)[0]
    engine = GradientEngine(module, module)
    assert engine.verify(x) == []
    actual, cotangent = pulled(engine, x)
    for key, expected in autograd_rows(module, x, cotangent, engine.names).items():
        torch.testing.assert_close(actual[key], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(late[key], expected, rtol=1e-10, atol=1e-12)


class OfKeys(nn.Module):
    """Softmax does not see what is added to all keys alike: but for rounding, their bias has no gradient."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        shares = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), dim=-1)
        return self.head((shares @ self.v(x)).mean(1))


@pytest.mark.parametrize("seed", range(3))
def test_a_gradient_that_is_nothing_but_rounding_is_no_disagreement(seed):
    torch.manual_seed(seed)
    module = OfKeys().eval()
    treatment = {name: name.endswith("bias") for name, _ in module.named_parameters()}
    engine = GradientEngine(module, module, None, treatment)
    assert engine.verify(3 * torch.randn(5, 50, 8)) == []
    assert {(block.kind, block.rows) for block in engine.blocks} == {("factored", "first")}


class Elsewhere(nn.Module):
    """Expansions that are not along the rows, and one that is."""

    def __init__(self):
        super().__init__()
        self.table, self.first = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(4))
        self.long = nn.Parameter(torch.zeros(8, 4))

    def forward(self, x):
        x = x + self.table.expand(-1, x.shape[1], -1)
        first = self.first.expand(len(x), 1, -1)
        x = torch.cat([first, x], 1) * self.long[None, 2 : 3 + x.shape[1]]
        return (torch.tanh(x) - self.long.T[:, 1]).mean(1)


@pytest.mark.parametrize("n_rows", [1, 3, 4, 5])
def test_views_and_expansions_of_bare_parameters(n_rows):
    torch.manual_seed(0)
    module = Elsewhere().double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    engine = GradientEngine(module, module)
    assert engine.verify(torch.randn(5, 4, 4).double()) == []
    assert {block.kind for block in engine.blocks} == {"affine"}
    x = torch.randn(n_rows, 4, 4).double()
    actual, cotangent = pulled(engine, x)
    for key, expected in autograd_rows(module, x, cotangent, engine.names).items():
        torch.testing.assert_close(actual[key], expected, rtol=1e-10, atol=1e-12)


def test_a_shared_parameter_is_chosen_by_any_of_its_layers():
    module = make("tied-embedding")[0]
    assert GradientEngine(module, module, "head").names == ["embed.weight", "head.bias"]
    assert GradientEngine(module, module, "head.weight").names == ["embed.weight"]


@pytest.mark.parametrize("name", ["encoder", "position-table", "custom", "lstm"])
def test_an_engine_that_was_pickled_sees_its_own_parameters(name):
    module, x, _ = make(name)
    engine = GradientEngine(module, module)
    engine.verify(x)
    other = pickle.loads(pickle.dumps(engine))
    expected, actual = pulled(engine, x)[0], pulled(other, x)[0]
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key])


def test_low_rank_adapters():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = copy.deepcopy(make("encoder")[0])
    config = peft.LoraConfig(r=2, target_modules=["linear1", "out_proj", "head", "embed"], init_lora_weights=False)
    module = peft.get_peft_model(base, config).double().eval()
    x = make("encoder")[1]
    engine = GradientEngine(module, module)
    engine.verify(x)
    assert len(engine.names) == 12  # frozen weights are left out: two matrices per adapter
    assert all(".lora_" in name for name in engine.names)
    actual, cotangent = pulled(engine, x)
    for key, expected in autograd_rows(module, x, cotangent, engine.names).items():
        torch.testing.assert_close(actual[key], expected, rtol=1e-10, atol=1e-12)
    assert sorted({block.kind for block in engine.blocks}) == ["factored", "indexed"]
