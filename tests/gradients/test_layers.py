"""Per-row gradients of every kind of layer against autograd, one row at a time, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sklearn_source.gradients import GradientEngine, from_matrices, to_matrices

pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even"),
]
N_ROWS = 5


class Flattened(nn.Module):
    """Rows and tokens in one axis inside, as in many transformers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.out = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        flat = torch.tanh(self.fc(x.reshape(-1, x.shape[-1])))
        return self.out(flat).view(x.shape[0], x.shape[1], 2)


class Twice(nn.Module):
    """One layer called twice, on different numbers of positions."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        tokens = torch.tanh(self.fc(x))  # (B, T, 3)
        return self.head(torch.tanh(self.fc(tokens.mean(1))))


class OutsideForward(nn.Module):
    """A weight that its own layer uses, and another line of the network too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.fc(x)) @ self.fc.weight)


class SequenceFirst(nn.Module):
    """(T, B, d) inside: rows are not the first axis of what the layers see."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.fc(x.transpose(0, 1)))).mean(0))


class OfPositions(nn.Module):
    """A layer fed with something that has no rows: one position table for all of them."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 3))
        self.encode = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(x + self.encode(self.table))).mean(1)


class BareParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(()))
        self.cube = nn.Parameter(torch.randn(3, 2, 4))
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.scale * torch.einsum(
            "bi,ijk,bk->bj", torch.tanh(self.fc(x)), self.cube, torch.cat([x, x[:, :1]], 1)
        )


class TiedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(3, 3), nn.Linear(3, 3)
        self.up.weight = self.down.weight

    def forward(self, x):
        return self.up(torch.tanh(self.down(x)))


class TiedEmbedding(nn.Module):
    """A language model's two ends."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)
        self.mix = nn.Linear(4, 4)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.embed(x))))


class Pairs(nn.Module):
    """A layer of two inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 2)
        self.meet = nn.Bilinear(4, 2, 3)

    def forward(self, x):
        return self.meet(torch.tanh(self.left(x)), self.right(x))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


class InPlaceAdd(nn.Module):
    """The output of a layer is rewritten in place by its neighbour's."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x)
        h += self.b(x)
        return self.head(h.relu_())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)
        self.idle_norm = nn.LayerNorm(2)

    def forward(self, x):
        return self.fc(x)


def batch_norm(cls, channels):
    norm = cls(channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def conv(cls, *args, **kwargs):
    return lambda: nn.Sequential(cls(*args, **kwargs), nn.Tanh(), nn.Flatten())


# name: (factory, shape of one row or number of classes for integer rows, kinds of the blocks)
CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,), ["factored"] * 2),
    "linear-no-bias": (lambda: nn.Linear(3, 2, bias=False), (3,), ["factored"]),
    "linear-tokens": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (6, 3), ["factored"] * 2),
    "linear-two-axes-of-tokens": (lambda: nn.Linear(3, 2), (2, 4, 3), ["factored"]),
    "linear-flattened": (Flattened, (4, 3), ["factored"] * 2),
    "linear-twice": (Twice, (4, 3), ["factored"] * 2),
    "conv1d": (conv(nn.Conv1d, 2, 3, 3, stride=2, padding=1, dilation=2), (2, 9), ["factored"]),
    "conv1d-same": (conv(nn.Conv1d, 2, 3, 4, padding="same", dilation=2), (2, 7), ["factored"]),
    "conv1d-valid": (conv(nn.Conv1d, 2, 3, 3, padding="valid", bias=False), (2, 7), ["factored"]),
    "conv1d-circular": (conv(nn.Conv1d, 2, 3, 3, padding=2, padding_mode="circular"), (2, 5), ["factored"]),
    "conv1d-same-reflect": (conv(nn.Conv1d, 2, 2, 4, padding="same", padding_mode="reflect"), (2, 6), ["factored"]),
    "conv2d": (conv(nn.Conv2d, 3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (3, 6, 7), ["factored"]),
    "conv2d-reflect": (conv(nn.Conv2d, 2, 3, 3, padding=(2, 1), padding_mode="reflect"), (2, 4, 5), ["factored"]),
    "conv2d-replicate": (conv(nn.Conv2d, 2, 3, 3, padding=2, padding_mode="replicate"), (2, 4, 5), ["factored"]),
    "conv2d-same-even": (conv(nn.Conv2d, 2, 3, (2, 4), padding="same"), (2, 4, 5), ["factored"]),
    "conv2d-groups": (conv(nn.Conv2d, 4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 5), ["factored"]),
    "conv2d-depthwise": (conv(nn.Conv2d, 3, 6, 3, groups=3, bias=False), (3, 5, 4), ["factored"]),
    "conv2d-1x1": (conv(nn.Conv2d, 3, 2, 1), (3, 3, 3), ["factored"]),
    "conv2d-whole": (conv(nn.Conv2d, 2, 3, 4), (2, 4, 4), ["factored"]),
    "conv3d": (
        conv(nn.Conv3d, 2, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 2), groups=2), (2, 2, 4, 3), ["factored"],
    ),
    "conv3d-same-circular": (
        conv(nn.Conv3d, 1, 2, (2, 3, 2), padding="same", padding_mode="circular"), (1, 3, 4, 3), ["factored"],
    ),
    "conv-net": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), batch_norm(nn.BatchNorm2d, 4), nn.ReLU(inplace=True),
            nn.Dropout(0.5), nn.Conv2d(4, 4, 3, stride=2, groups=4), nn.GroupNorm(2, 4), nn.SiLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(4, 3),
        ),
        (2, 6, 6), ["factored", "leaf", "leaf", "factored", "leaf", "leaf", "factored"],
    ),
    "layer-norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), (3,), ["factored", "leaf", "leaf"]),
    "layer-norm-tokens": (lambda: nn.LayerNorm((4, 3)), (2, 4, 3), ["leaf", "leaf"]),
    "layer-norm-no-bias": (lambda: nn.LayerNorm(3, bias=False), (3,), ["leaf"]),
    "rms-norm": (lambda: nn.Sequential(nn.RMSNorm(3), nn.Linear(3, 2)), (4, 3), ["leaf", "factored"]),
    "instance-norm": (lambda: nn.InstanceNorm1d(3, affine=True), (3, 5), ["leaf", "leaf"]),
    "batch-norm-1d": (lambda: batch_norm(nn.BatchNorm1d, 3), (3,), ["leaf", "leaf"]),
    "batch-norm-1d-positions": (lambda: batch_norm(nn.BatchNorm1d, 3), (3, 5), ["leaf", "leaf"]),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)), (3,), ["factored", "leaf"]),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 2)), 7, ["leaf", "factored"]),
    "embedding-padding": (lambda: nn.Embedding(3, 4, padding_idx=1), 3, ["leaf"]),
    "bilinear": (Pairs, (3,), ["factored", "factored", "dense", "dense"]),
    "conv-transpose2d": (
        conv(nn.ConvTranspose2d, 2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 3, 3), ["leaf", "leaf"],
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), (4, 3), ["dense"] * 4 + ["factored"]),
    "gru": (lambda: Recurrent(nn.GRU), (4, 3), ["dense"] * 4 + ["factored"]),
    "attention": (Attention, (4, 4), ["dense"] * 4 + ["leaf", "leaf", "factored"]),
    "bare-parameters": (BareParameters, (3,), ["dense", "dense", "factored"]),
    "tied-linear": (TiedLinear, (3,), ["dense", "dense", "factored"]),
    "tied-embedding": (TiedEmbedding, 7, ["dense", "factored", "factored"]),
    "weight-norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)),
        (3,), ["factored", "dense", "dense", "factored"],
    ),
    "outside-forward": (OutsideForward, (3,), ["dense", "dense", "factored"]),
    "sequence-first": (SequenceFirst, (4, 3), ["dense"] * 4 + ["factored"]),
    "of-positions": (OfPositions, (4, 3), ["dense", "dense", "dense", "factored"]),
    "in-place-add": (InPlaceAdd, (3,), ["factored"] * 3),
    "unused": (Unused, (3,), ["factored", "factored", "leaf", "leaf"]),
}  # fmt: skip


def make(name, dtype=torch.float64):
    factory, shape, kinds = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = factory().to(dtype).eval()
        with torch.no_grad():
            for p in module.parameters():  # norms start at ones and zeros, which would hide mistakes
                p.copy_(torch.randn_like(p))
        if isinstance(shape, int):
            x = torch.randint(shape, (N_ROWS, 4))
        else:
            x = torch.randn(N_ROWS, *shape, dtype=dtype)
    return module, x, kinds


@pytest.mark.parametrize("name", CASES)
def test_per_row_gradients_are_those_of_autograd(name, per_row):
    module, x, kinds = make(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    found, expected, engine = per_row(module, x)
    assert set(found) == set(expected)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-12)
    if name != "unused":
        assert all(bool(value.any()) for value in expected.values())  # nothing is compared with zeros alone
    assert sorted(block.kind for block in engine.blocks) == sorted(kinds)
    assert engine.n_parameters == sum(p.numel() for p in module.parameters())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(m._forward_hooks for m in module.modules())


@pytest.mark.parametrize("name", ["conv-net", "linear-tokens", "attention"])
def test_float32_agrees_with_float64(name, per_row):
    module, x, _ = make(name)
    _, expected, _ = per_row(module, x)
    low = copy.deepcopy(module).float()
    found, _, engine = per_row(low, x.float())
    assert engine.demoted == per_row(module, x)[2].demoted  # rounding alone demotes no layer
    for key in expected:
        assert found[key].dtype == torch.float32
        error = (found[key].double() - expected[key]).norm() / expected[key].norm()
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
    found, expected, engine = per_row(module, torch.randn(N_ROWS, 3, 4, 4).double())
    assert {block.name: block.shape for block in engine.blocks} == kinds
    assert {block.kind for block in engine.blocks} == {"factored"}
    assert engine.demoted == []
    assert set(found) == {name for name, _ in module.named_parameters()} - set(frozen)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-12)
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == frozen


@pytest.mark.parametrize("name", ["linear-tokens", "linear-twice", "conv2d-groups", "conv3d"])
def test_a_weight_and_a_bias_treated_differently_are_two_blocks(name, per_row):
    module, x, _ = make(name)
    treatment = {key: key.endswith("bias") for key, _ in module.named_parameters()}
    found, expected, engine = per_row(module, x, treatment=treatment)
    assert all(len(block.parameters) == 1 and block.kind == "factored" for block in engine.blocks)
    assert engine.demoted == []
    assert all(b.shape[::2] == (1, 1) for b in engine.blocks if b.name.endswith("bias"))  # a vector, whatever the layer
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-12)
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
    found, expected, engine = per_row(module, x, layers=layers)
    assert engine.names == (names if names is not None else [name for name, _ in module.named_parameters()])
    assert set(found) == set(engine.names)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-12)
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
    found, expected, engine = per_row(module, x, verify=False)
    assert (found["fc.weight"] - expected["fc.weight"]).norm() > 0.1 * expected["fc.weight"].norm()
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
        matrices = to_matrices(block, module, values)
        assert matrices.shape == (*lead, *block.shape)
        back.update(from_matrices(block, module, matrices))
        torch.testing.assert_close(to_matrices(block, module, from_matrices(block, module, matrices)), matrices)
    assert set(back) == set(values)
    for key in values:
        assert torch.equal(back[key], values[key])
