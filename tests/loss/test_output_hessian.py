from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source.curvature import choose_fisher
from sklearn_source.loss import Categorical
from sklearn_source.network import Network

N, C, T = 7, 3, 2


class Quartic(nn.Module):
    """Couples the outputs of a row, not the rows."""

    def forward(self, output, y):
        return (((output - y).sum(1)) ** 4 + (output**2).sum(1)).mean()


class Positions(nn.Module):
    def forward(self, z):
        return z.reshape(len(z), C, T)


weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
ce = nn.CrossEntropyLoss
# name: (net class, criterion, its parameters, outputs, head, kind of targets)
HESSIANS = {
    "ce": (NeuralNetClassifier, ce, {}, C, None, "label"),
    "ce probs": (NeuralNet, ce, {}, C, None, "probs"),
    "ce smooth": (NeuralNet, ce, {"label_smoothing": 0.2}, C, None, "label"),
    "ce weight": (NeuralNet, ce, {"weight": weight}, C, None, "label"),
    "ce smooth weight": (NeuralNet, ce, {"label_smoothing": 0.2, "weight": weight}, C, None, "label"),
    "ce probs smooth weight": (NeuralNet, ce, {"label_smoothing": 0.2, "weight": weight}, C, None, "probs"),
    "ce sum": (NeuralNet, ce, {"reduction": "sum", "weight": weight}, C, None, "label"),
    "ce sequence": (NeuralNet, ce, {}, C * T, Positions(), "labels"),
    "ce sequence ignored": (NeuralNet, ce, {"label_smoothing": 0.1}, C * T, Positions(), "ignored"),
    "ce sequence probs": (NeuralNet, ce, {"weight": weight}, C * T, Positions(), "sequence probs"),
    "bce": (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, {}, 1, None, "binary"),
    "bce pos_weight": (NeuralNet, nn.BCEWithLogitsLoss, {"pos_weight": 2 * weight}, C, None, "multi"),
    "bce weight": (NeuralNet, nn.BCEWithLogitsLoss, {"weight": weight, "pos_weight": weight}, C, None, "multi"),
    "mse": (NeuralNetRegressor, nn.MSELoss, {}, C, None, "number"),
    "mse one": (NeuralNetRegressor, nn.MSELoss, {}, 1, None, "one"),
    "mse sum": (NeuralNetRegressor, nn.MSELoss, {"reduction": "sum"}, C, None, "number"),
    "mse broadcast": (NeuralNetRegressor, nn.MSELoss, {}, 1, None, "number"),
    "huber": (NeuralNetRegressor, nn.HuberLoss, {"delta": 0.8}, C, None, "number"),
    "smooth l1": (NeuralNetRegressor, nn.SmoothL1Loss, {"beta": 0.7}, C, None, "number"),
    "quartic": (NeuralNet, Quartic, {}, C, None, "number"),
}


def targets(kind, rng):
    if kind == "label":
        return rng.integers(0, C, N)
    if kind in ("labels", "ignored"):
        y = rng.integers(0, C, (N, T))
        if kind == "ignored":
            y[1, 0] = y[4] = -100
        return y
    if "probs" in kind:
        shape = (N, T) if kind.startswith("sequence") else N
        return np.moveaxis(rng.dirichlet(np.ones(C), shape), -1, 1)
    if kind == "binary":
        return rng.integers(0, 2, N).astype(float)
    if kind == "multi":
        return rng.integers(0, 2, (N, C)).astype(float)
    return rng.normal(size=(N, 1 if kind == "one" else C))


def build(name, cases, make_net, rng):
    cls, criterion, params, n_out, head, kind = cases[name]
    net = make_net(cls, criterion, n_out=n_out, head=head, **{f"criterion__{k}": v for k, v in params.items()})
    network = Network.from_net(net)
    rows = network.prepare(2 * rng.normal(size=(N, 5)), targets(kind, rng))
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    return network, x, y


def dense_hessians(network, output, y):
    """The independent answer: autograd on one row at a time, through the criterion itself."""
    blocks = []
    for i in range(len(output)):

        def loss(o, i=i):
            return network.row_loss(o.reshape(1, *output.shape[1:]), y[i : i + 1])[0]

        blocks.append(torch.autograd.functional.hessian(loss, output[i].detach().reshape(-1)))
    return torch.stack(blocks)


def outer(roots):
    roots = roots if isinstance(roots, torch.Tensor) else torch.stack(list(roots))
    roots = roots.reshape(len(roots), N, -1)
    return torch.einsum("cbi,cbj->bij", roots, roots)


def draws(network, output, y, n, seed=0):
    """Draws (n, N, D), all in one call: rows that repeat have uniforms of their own."""
    output, y = (t.repeat(n, *[1] * (t.ndim - 1)) for t in (output, y))
    generator = torch.Generator().manual_seed(seed)
    hessian = network.row_loss.output_hessian(output, y)
    uniforms = torch.rand((len(output), *hessian.uniforms_shape), dtype=torch.float64, generator=generator)
    return hessian.draw(uniforms).reshape(n, N, -1)


@pytest.mark.parametrize("name", HESSIANS)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_roots_square_to_the_hessian_of_the_row_loss(name, make_net, rng):
    network, x, y = build(name, HESSIANS, make_net, rng)
    output = network.forward(x)
    roots = list(network.row_loss.output_hessian(output, y).columns())
    assert len(roots) == output[0].numel()
    assert all(r.shape == output.shape and r.dtype == output.dtype and not r.requires_grad for r in roots)
    expected = dense_hessians(network, output, y)
    torch.testing.assert_close(outer(roots), expected, rtol=1e-7, atol=1e-9)
    v = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = network.row_loss.output_hessian(output, y).product(v)
    torch.testing.assert_close(product.reshape(N, -1), (expected @ v.reshape(N, -1, 1))[..., 0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", HESSIANS)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_draws_average_to_the_same_matrix(name, make_net, rng):
    network, x, y = build(name, HESSIANS, make_net, rng)
    output, n = network.forward(x).detach(), 3000
    b = draws(network, output, y, n)
    square = torch.einsum("nbi,nbj->nbij", b, b)
    expected = outer(network.row_loss.output_hessian(output, y).columns())
    error = square.std(0) / n**0.5
    # Five standard errors of each entry; the floor is for entries that no draw changes.
    assert ((square.mean(0) - expected).abs() <= 5 * error + 1e-8 * expected.abs().amax()).all()


def logits_ggn(network, x, kind):
    """Pull-back of the roots to the logits, and what cross-entropy on those logits has as Hessian."""
    logits = network.module[:-1](x).detach()
    head = network.module[-1]
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda z: head(z[None])[0], z) for z in logits])
    p = logits.softmax(1)
    return jacobian, torch.diag_embed(p) - p[:, :, None] * p[:, None]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("cls", "head"), [(NeuralNetClassifier, nn.Softmax(1)), (NeuralNet, nn.LogSoftmax(1))], ids=["probs", "logprobs"]
)
def test_nll_roots_pull_back_to_the_hessian_in_the_logits(cls, head, weighted, make_net, rng):
    params = {"weight": weight} if weighted else {}
    network, x, y = build("it", {"it": (cls, nn.NLLLoss, params, C, head, "label")}, make_net, rng)
    output = network.forward(x).detach()
    jacobian, expected = logits_ggn(network, x, network.predictive)
    if weighted:
        expected = expected * (weight[y] / weight[y].mean())[:, None, None]
    roots = torch.stack(list(network.row_loss.output_hessian(output, y).columns()))
    torch.testing.assert_close(outer(torch.einsum("cbi,bij->cbj", roots, jacobian)), expected, rtol=1e-6, atol=1e-9)
    v = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = network.row_loss.output_hessian(output, y).product(v)
    torch.testing.assert_close(product, torch.einsum("cbi,cbj,bj->bi", roots, roots, v))
    n = 3000
    b = torch.einsum("nbi,bij->nbj", draws(network, output, y, n), jacobian)
    square = torch.einsum("nbi,nbj->nbij", b, b)
    assert ((square.mean(0) - expected).abs() <= 5 * square.std(0) / n**0.5 + 1e-7).all()


def test_l1_has_the_fisher_of_the_laplace_distribution(make_net, rng):
    network, x, y = build("l1", {"l1": (NeuralNetRegressor, nn.L1Loss, {}, C, None, "number")}, make_net, rng)
    output = network.forward(x)
    # Score of the density exp(-|y - o|) / 2 in o: a sign, so the Fisher is one per output, of which the mean is taken.
    expected = torch.eye(C, dtype=torch.float64).expand(N, C, C) / C
    torch.testing.assert_close(outer(network.row_loss.output_hessian(output, y).columns()), expected)


class Hinge(nn.Module):
    def forward(self, output, y):
        return (1 - output * y).clamp(min=0).mean()


class NegativeParabola(nn.Module):
    def forward(self, output, y):
        return (output[:, 0] ** 2 - output[:, 1] ** 2 + 0 * y.sum(1)).mean()


def test_criteria_without_curvature_and_with_negative_curvature(make_net, rng):
    network, x, y = build("hinge", {"hinge": (NeuralNet, Hinge, {}, C, None, "number")}, make_net, rng)
    with pytest.warns(UserWarning, match="second derivative .* is zero"):
        assert not outer(network.row_loss.output_hessian(network.forward(x), y).columns()).any()
    case = (NeuralNet, NegativeParabola, {}, 2, None, "number")
    network, x, y = build("negative", {"negative": case}, make_net, rng)
    got = outer(network.row_loss.output_hessian(network.forward(x), y).columns())
    torch.testing.assert_close(got, torch.tensor([[2.0, 0], [0, 0]], dtype=torch.float64).expand(N, 2, 2))


class LooksAtValues(nn.Module):
    def forward(self, output, y):
        loss = ((output - y) ** 2).mean()
        return loss if loss > 1e-9 else loss * 2


def test_a_criterion_that_cannot_be_vectorised(make_net, rng):
    network, x, y = build("it", {"it": (NeuralNet, LooksAtValues, {}, C, None, "number")}, make_net, rng)
    got = outer(network.row_loss.output_hessian(network.forward(x), y).columns())
    torch.testing.assert_close(got, 2 / C * torch.eye(C, dtype=torch.float64).expand(N, C, C))


@pytest.mark.parametrize("name", ["ce sequence", "bce pos_weight", "mse", "quartic"])
def test_draws_are_a_function_of_the_uniforms_alone(name, make_net, rng):
    network, x, y = build(name, HESSIANS, make_net, rng)
    output = network.forward(x).detach()
    hessian = network.row_loss.output_hessian(output, y)
    uniforms = torch.rand((N, *hessian.uniforms_shape), dtype=torch.float64)
    state = torch.random.get_rng_state()
    first = hessian.draw(uniforms)
    torch.testing.assert_close(hessian.draw(uniforms), first, rtol=0, atol=0)
    assert torch.equal(state, torch.random.get_rng_state())
    # A row's draw follows its own uniforms, in any batch.
    half = network.row_loss.output_hessian(output[[5, 2]], y[[5, 2]]).draw(uniforms[[5, 2]])
    torch.testing.assert_close(half, first[[5, 2]])


class Blurred(nn.Module):
    """Couples neighbouring outputs of a row: neither a softmax nor a sum over elements."""

    def forward(self, output, y):
        return ((output - y) ** 2).mean() + (output[:, 1:] - output[:, :-1]).pow(2).mean()


def test_a_general_hessian_of_many_outputs_is_refused(make_net, rng):
    network = Network.from_net(make_net(NeuralNet, Blurred, n_out=5000))
    rows = network.prepare(rng.normal(size=(4, 5)), rng.normal(size=(4, 5000)))
    network.calibrate(rows)
    x, y = rows.batch(slice(None))
    assert choose_fisher("auto", network, 5000) == "empirical"
    with pytest.raises(
        ValueError, match=r'5000 x 5000 per row are too many .* use curvature=EKFAC\(fisher="empirical"\)'
    ):
        next(network.row_loss.output_hessian(network.forward(x), y).columns())


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_extreme_uniforms_never_draw_an_impossible_class(u):
    output = torch.tensor([[-torch.inf, 1.0, 2.0], [1.0, 2.0, -torch.inf]], dtype=torch.float64)
    p = output.softmax(1)
    root = Categorical().hessian(output, torch.ones(2)).draw(torch.full((2,), u, dtype=torch.float64))
    drawn = (root + p).argmax(1)
    assert p.gather(1, drawn[:, None]).gt(0).all()


def test_float32_probabilities_near_one_and_zero(make_net, rng):
    net = make_net(NeuralNetClassifier, nn.NLLLoss, head=nn.Softmax(1), dtype=torch.float32)
    network = Network.from_net(net)
    network.calibrate(network.prepare(rng.normal(size=(N, 5)), rng.integers(0, C, N)))
    output = torch.tensor([[1.0, 0.0, 0.0], [1 - 1e-7, 1e-7, 0.0]])
    roots = torch.stack(list(network.row_loss.output_hessian(output, torch.tensor([0, 1])).columns()))
    assert torch.isfinite(roots).all()
