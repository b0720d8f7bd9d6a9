"""Losses over tokens that a criterion flattens: row losses, curvature and measurements from their definitions."""

from __future__ import annotations

import pickle
from itertools import combinations

import numpy as np
import pytest
import torch
from skorch import NeuralNet
from torch import nn
from torch.nn.functional import cross_entropy

from sklearn_source.curvature import choose_fisher
from sklearn_source.loss import Categorical, resolve_measurement
from sklearn_source.network import Network
from tests.loss._token_losses import LOSSES, PLAIN, Flattened, T, V, definition, token_losses, weight

N = 9


class Tokens(nn.Module):
    def forward(self, z):
        return z.reshape(len(z), T, V)


def make_rows(seed=0, n=N, first_even=False):
    """Inputs, tokens of which some are ignored, and the same as a mask; the first four rows may be whole."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 5)), rng.integers(0, V, (n, T))
    lengths = rng.integers(2, T + 1, n)
    lengths[-1] = 2
    if first_even:
        lengths[:4] = T
    mask = (np.arange(T) < lengths[:, None]).astype(float)
    return x, y, mask


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


@pytest.fixture
def build(make_net):
    def build(name, first_even=False, **options):
        cls, criterion, params, _, _ = LOSSES[name]
        params = {f"criterion__{k}": v for k, v in params.items()}
        net = make_net(cls, criterion, n_out=T * V, head=Tokens(), **{"batch_size": 4, **params, **options})
        network = Network.from_net(net)
        x, y, mask = make_rows(first_even=first_even)
        X = {"x": x, "mask": mask} if "mask" in name else x
        rows = network.prepare(X, y if "mask" in name else np.where(mask > 0, y, -100))
        network.calibrate(rows)
        return net, network, rows, torch.from_numpy(mask)

    return build


@pytest.mark.parametrize("first_even", [False, True])
def test_row_losses_are_what_rows_bring_to_the_training(build, name, first_even):
    """sum of token losses over the mean weight of the training rows (times the batch for a sum)."""
    net, network, rows, mask = build(name, first_even)
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    sums, totals = definition(name, output, y, mask)
    kind = LOSSES[name][4]
    # Nine rows in batches of four: three batches, three rows each in the mean.
    expected = {"mean": sums / totals.mean(), "rows": sums, "sum": 3 * sums}[kind]
    found = network.row_loss(output, y, x)
    torch.testing.assert_close(found, expected)
    for index in ([5], [7, 2, 7], list(range(N))[::-1]):  # a row's loss does not depend on its batch
        x1, y1 = rows.batch(index)
        torch.testing.assert_close(network.row_loss(network.forward(x1), y1, x1), expected[index])
    leaf = output.detach().requires_grad_()
    got = torch.autograd.grad(network.row_loss(leaf, y, x).sum(), leaf)[0]
    again = output.detach().requires_grad_()
    sums = definition(name, again, y, mask)[0]
    want = torch.autograd.grad({"mean": sums / totals.mean(), "rows": sums, "sum": 3 * sums}[kind].sum(), again)[0]
    torch.testing.assert_close(got, want)


def test_the_batch_loss_is_the_weighted_mean_that_the_definition_says(build, name):
    """The definition itself against the net's get_loss, so that the test above tests the right thing."""
    net, network, rows, mask = build(name)
    x, y = rows.batch([1, 4, 6])
    output = network.forward(x)
    sums, totals = definition(name, output, y, mask[[1, 4, 6]])
    expected = sums.sum() if LOSSES[name][4] == "sum" else sums.sum() / totals.sum()
    torch.testing.assert_close(net.get_loss(output, y, X=x), expected)


@pytest.mark.parametrize("which", ["module", "mask"])
def test_rows_scaled_so_are_the_derivative_of_training(build, which):
    """d(mean over all batches of six rows of the batch loss) / d(row weight in the numerator).

    What is left is that a mean of quotients is not the quotient of means.
    """
    _, network, rows, mask = build(which)
    x, y = rows.batch(slice(None))
    output = network.forward(x).detach()
    sums, totals = definition(which, output, y, mask)
    derivative, batches = torch.zeros(N, dtype=torch.float64), list(combinations(range(N), 6))
    for batch in map(list, batches):
        derivative[batch] += sums[batch] / totals[batch].sum() / len(batches)
    # Each of N rows is in 6 of 9 batches, as a row is in a batch of an epoch: 1 / N of the mean in the end.
    found = network.row_loss(output, y, x) / N
    torch.testing.assert_close(found, derivative, rtol=0.04, atol=0)
    unscaled = network.row_loss.own_losses(output, y, x) / N
    assert (unscaled / derivative - 1).abs().max() > 0.3


def test_own_losses_are_the_criterion_on_the_row(build, name):
    net, network, rows, mask = build(name)
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    found = network.row_loss.own_losses(output, y, x)
    for i in range(N):
        xi, yi = rows.batch([i])
        torch.testing.assert_close(found[i], net.get_loss(output[i : i + 1], yi, X=xi))


def dense_hessians(name, output, y, mask, kind, mean):
    blocks = []
    for i in range(len(output)):

        def loss(o, i=i):
            sums, _ = definition(name, o.reshape(1, T, V), y[i : i + 1], mask[i : i + 1])
            return {"mean": sums / mean, "rows": sums, "sum": 3 * sums}[kind][0]

        blocks.append(torch.autograd.functional.hessian(loss, output[i].detach().reshape(-1)))
    return torch.stack(blocks)


def test_roots_square_to_the_hessian(build, name):
    _, network, rows, mask = build(name)
    x, y = rows.batch(slice(None))
    output = network.forward(x).detach()
    assert (network.predictive, network.is_classification, network.is_sequence) == (Categorical(2), True, True)
    roots = torch.stack(list(network.row_loss.output_hessian(output, y, x).columns())).reshape(T * V, N, T * V)
    mean = definition(name, output, y, mask)[1].mean()
    expected = dense_hessians(name, output, y, mask, LOSSES[name][4], mean)
    torch.testing.assert_close(torch.einsum("cbi,cbj->bij", roots, roots), expected, rtol=1e-7, atol=1e-9)
    v = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = network.row_loss.output_hessian(output, y, x).product(v).reshape(N, -1, 1)
    torch.testing.assert_close(product, expected @ v.reshape(N, -1, 1), rtol=1e-7, atol=1e-9)


def test_draws_are_of_tokens_and_average_to_the_hessian(build, name):
    _, network, rows, mask = build(name)
    x, y = rows.batch(slice(None))
    output = network.forward(x).detach()
    n = 2000
    uniforms = torch.rand((n, N, T), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hessian = network.row_loss.output_hessian(output, y, x)
    assert hessian.uniforms_shape == (T,)
    b = torch.stack([hessian.draw(u) for u in uniforms]).reshape(n, N, -1)
    square = torch.einsum("nbi,nbj->nbij", b, b)
    mean = definition(name, output, y, mask)[1].mean()
    expected = dense_hessians(name, output, y, mask, LOSSES[name][4], mean)
    error = (square.mean(0) - expected).abs()
    assert (error <= 5.5 * square.std(0) / n**0.5 + 1e-8).all()


def test_auto_fisher_of_a_language_model_is_sampled(build, name):
    _, network, rows, _ = build(name)
    assert choose_fisher("auto", network, T * V) == "sampled"
    assert choose_fisher("auto", network, 50_000 * 1024) == "sampled"


def test_log_odds_are_the_mean_over_the_tokens_that_count(build, name):
    _, network, rows, mask = build(name)
    measure = resolve_measurement("auto", network)
    assert (measure.name, measure.needs_y) == ("log_odds", False)
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    p = output.softmax(-1)
    counts = (LOSSES[name][3](y, mask) > 0).double()
    labels = y[:, 1:] if name == "shifted" else y
    kept = p[:, :-1] if name == "shifted" else p
    own = kept.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = ((own / (1 - own)).log() * counts).sum(1) / counts.sum(1)
    torch.testing.assert_close(measure(output, measure.target(output, y, x), x), expected)
    best = p.amax(-1)
    predicted = (best / (1 - best)).log().mean(1)
    torch.testing.assert_close(measure(output, measure.target(output), x), predicted)
    leaf = output.detach()[:2].requires_grad_()
    target = measure.target(output[:2], y[:2], {k: v[:2] for k, v in x.items()} if isinstance(x, dict) else x[:2])
    assert torch.autograd.gradcheck(lambda o: measure(o, target), leaf)


def test_other_measurements_of_sequences(build, name):
    net, network, rows, _ = build(name)
    x, y = rows.batch(slice(None))
    output = network.forward(x)
    measure = resolve_measurement("neg_loss", network)
    assert measure.needs_y
    torch.testing.assert_close(
        measure(output, measure.target(output, y, x), x), -network.row_loss.own_losses(output, y, x)
    )
    with pytest.raises(ValueError, match=r'pass y, or use measurement="log_odds"'):
        measure.target(output)
    with pytest.raises(ValueError, match=r'classes at several positions: use "log_odds", "neg_loss" or a callable'):
        resolve_measurement("prediction", network)(output)


def test_classes_on_the_second_axis(make_net):
    """torch's own layout, no override: the mean over tokens of all training rows, log-odds over counted tokens."""

    class ClassesFirst(nn.Module):
        def forward(self, z):
            return z.reshape(len(z), V, T)

    network = Network.from_net(make_net(NeuralNet, nn.CrossEntropyLoss, n_out=V * T, head=ClassesFirst()))
    x, y, mask = make_rows()
    rows = network.prepare(x, np.where(mask > 0, y, -100))
    network.calibrate(rows)
    bx, by = rows.batch(slice(None))
    output = network.forward(bx)
    counts = torch.from_numpy(mask)
    losses = token_losses(output.movedim(1, -1), by) * counts
    torch.testing.assert_close(network.row_loss(output, by), losses.sum(1) / counts.sum(1).mean())
    torch.testing.assert_close(network.row_loss.own_losses(output, by), losses.sum(1) / counts.sum(1))
    measure = resolve_measurement("auto", network)
    own = (-token_losses(output.movedim(1, -1), by)).exp()
    expected = ((own / (1 - own)).log() * counts).sum(1) / counts.sum(1)
    torch.testing.assert_close(measure(output, measure.target(output, by)), expected)
    assert choose_fisher("auto", network, T * V) == "sampled"
    by[3] = -100
    with pytest.raises(ValueError, match="leave out sequences whose targets are all ignored"):
        measure.target(output, by)


def test_the_classes_last_without_a_criterion_that_moves_them(make_net):
    network = Network.from_net(make_net(NeuralNet, nn.CrossEntropyLoss, n_out=V * T, head=Tokens()))
    x, y, _ = make_rows()
    with pytest.raises(ValueError, match=r"expected labels of shape \(n, 4\).*output.movedim\(-1, 1\)"):
        network.calibrate(network.prepare(x, y))


def test_rows_without_a_token_score_nothing(build, make_net):
    net = make_net(NeuralNet, Flattened, n_out=T * V, head=Tokens())
    network = Network.from_net(net)
    x, y, mask = make_rows()
    y = np.where(mask > 0, y, -100)
    y[:5] = -100  # not one token in the rows that are looked at first
    rows = network.prepare(x, y)
    network.calibrate(rows)
    bx, by = rows.batch(slice(None))
    leaf = network.forward(bx).detach().requires_grad_()
    losses = network.row_loss(leaf, by)
    counts = (by != -100).sum(1)
    torch.testing.assert_close(losses, (token_losses(leaf, by) * (by != -100)).sum(1) / counts.double().mean())
    grad = torch.autograd.grad(losses.sum(), leaf)[0]
    assert torch.isfinite(grad).all()
    assert not grad[:5].any()
    assert not network.row_loss(leaf[:2], by[:2]).any()
    roots = torch.stack(list(network.row_loss.output_hessian(leaf, by).columns()))
    assert torch.isfinite(roots).all()
    assert not roots[:, :5].any()
    assert not network.row_loss.own_losses(leaf, by)[:5].any()


def test_nothing_but_ignored_tokens(make_net):
    network = Network.from_net(make_net(NeuralNet, Flattened, n_out=T * V, head=Tokens()))
    x, _, _ = make_rows()
    with pytest.raises(ValueError, match="no training row has a loss"):
        network.calibrate(network.prepare(x, np.full((N, T), -100)))


def test_sequences_of_any_length(make_net):
    """Padded by a collate function to the longest row of the batch: the weight of a row is its count all the same."""

    class Each(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, V, dtype=torch.float64)

        def forward(self, x):
            return self.layer(x)

    class Ragged(torch.utils.data.Dataset):
        def __init__(self):
            rng = np.random.default_rng(0)
            self.lengths = rng.integers(1, 9, 40)
            self.rows = [(rng.normal(size=(n, 2)), rng.integers(0, V, n)) for n in self.lengths]

        def __len__(self):
            return 40

        def __getitem__(self, i):
            return self.rows[i]

    def pad(items):
        longest = max(len(t) for _, t in items)
        x, y = torch.zeros(len(items), longest, 2, dtype=torch.float64), torch.full((len(items), longest), -100)
        for i, (a, t) in enumerate(items):
            x[i, : len(t)], y[i, : len(t)] = torch.from_numpy(a), torch.from_numpy(t)
        return x, y

    data = Ragged()
    net = NeuralNet(Each, criterion=Flattened, train_split=None, iterator_train__collate_fn=pad).initialize()
    network = Network.from_net(net)
    rows = network.prepare(data)
    network.calibrate(rows)
    for index in ([3], [0, 7, 21], range(40)):
        index = list(index)
        x, y = rows.batch(index)
        output = network.forward(x)
        expected = [cross_entropy(network.module(torch.from_numpy(data.rows[i][0])), torch.from_numpy(data.rows[i][1]),
                                  reduction="sum") / data.lengths.mean() for i in index]  # fmt: skip
        torch.testing.assert_close(network.row_loss(output, y), torch.stack(expected))


def test_class_weights_need_one_length(make_net, build):
    _, network, rows, _ = build("subclass weight")
    x, y = rows.batch([0, 1])
    output = network.forward(x)
    with pytest.raises(ValueError, match="Pad all rows to one length"):
        network.row_loss(output[:, :3], y[:, :3])


def test_before_calibration(make_net):
    network = Network.from_net(make_net(NeuralNet, Flattened, n_out=T * V, head=Tokens()))
    x, y, mask = make_rows()
    bx, by = network.prepare(x, np.where(mask > 0, y, -100)).batch(slice(None))
    with pytest.raises(ValueError, match="call calibrate"):
        network.row_loss(network.forward(bx), by)


@pytest.mark.parametrize("which", ["module", "subclass weight", "mask"])
def test_what_calibration_found_travels(build, which):
    _, network, rows, _ = build(which)
    again = pickle.loads(pickle.dumps(network))
    x, y = rows.batch([2, 5])
    output = network.forward(x)
    torch.testing.assert_close(again.row_loss(output, y, x), network.row_loss(output, y, x))
    assert (again.predictive, again.is_sequence) == (Categorical(2), True)
    assert again.row_loss.output_hessian(output, y, x).uniforms_shape == (T,)


@pytest.mark.parametrize("which", PLAIN)
@pytest.mark.parametrize("seed", range(3))
def test_in_float32(make_net, which, seed):
    cls, criterion, params, _, kind = LOSSES[which]
    params = {f"criterion__{k}": v for k, v in params.items()}
    net = make_net(cls, criterion, n_out=T * V, head=Tokens(), dtype=torch.float32, seed=seed, batch_size=N, **params)
    network = Network.from_net(net)
    x, y, mask = make_rows(seed)
    rows = network.prepare(4 * x, np.where(mask > 0, y, -100))
    network.calibrate(rows)
    assert network.predictive.name == "categorical"
    bx, by = rows.batch(slice(None))
    output = network.forward(bx)
    sums, totals = definition(which, output.double(), by, torch.from_numpy(mask))
    expected = N * sums if kind == "sum" else sums / totals.mean()
    torch.testing.assert_close(network.row_loss(output, by).double(), expected, rtol=1e-4, atol=1e-4)


class Sampled(nn.Module):
    """A loss with weights of its classes that no other code knows."""

    def forward(self, output, y):
        losses = cross_entropy(output.reshape(-1, V), y.reshape(-1), reduction="none")
        weights = weight.to(output.dtype)[y.reshape(-1)] ** 2
        return (losses * weights).sum() / weights.sum()


def test_weights_of_the_users_own(make_net):
    network = Network.from_net(make_net(NeuralNet, Sampled, n_out=T * V, head=Tokens()))
    x, y, _ = make_rows()
    rows = network.prepare(x, y)
    network.calibrate(rows)
    bx, by = rows.batch(slice(None))
    output = network.forward(bx)
    weights = weight[by] ** 2
    expected = (token_losses(output, by) * weights).sum(1) / weights.sum(1).mean()
    torch.testing.assert_close(network.row_loss(output, by), expected)
    assert network.predictive.name == "categorical"


class Recurrent(nn.Module):
    """A language model that hands back its hidden state, as many do."""

    def __init__(self):
        super().__init__()
        self.embed, self.gru, self.out = nn.Embedding(V, 3), nn.GRU(3, 4, batch_first=True), nn.Linear(4, V)

    def forward(self, tokens, lengths):
        hidden, last = self.gru(self.embed(tokens))
        return self.out(hidden), last


class RecurrentNet(NeuralNet):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        output, _ = y_pred
        mask = torch.arange(T) < X["lengths"][:, None]
        losses = cross_entropy(output.movedim(-1, 1), y_true, reduction="none")
        return (losses * mask).sum() / mask.sum()


def test_a_module_with_a_hidden_state_and_lengths_in_x():
    rng = np.random.default_rng(0)
    net = RecurrentNet(Recurrent, criterion=nn.MSELoss, train_split=None).initialize()
    net.module_.double()
    network = Network.from_net(net)
    X = {"tokens": rng.integers(0, V, (N, T)), "lengths": rng.integers(1, T + 1, N)}
    y = rng.integers(0, V, (N, T))
    rows = network.prepare(X, y)
    network.calibrate(rows)
    x, t = rows.batch(slice(None))
    output = network.forward(x)
    assert output.shape == (N, T, V)
    mask = torch.arange(T) < x["lengths"][:, None]
    losses = (token_losses(output, t) * mask).sum(1)
    lengths = x["lengths"].double()
    torch.testing.assert_close(network.row_loss(output, t, x), losses / lengths.mean())
    torch.testing.assert_close(network.row_loss.own_losses(output, t, x), losses / lengths)
    assert network.predictive.name == "categorical"
    measure = resolve_measurement("auto", network)
    own = (-token_losses(output, t)).exp()
    odds = ((own / (1 - own)).log() * mask).sum(1) / lengths
    torch.testing.assert_close(measure(output, measure.target(output, t, x), x), odds)
