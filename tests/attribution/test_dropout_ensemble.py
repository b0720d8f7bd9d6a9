"""Every member of a dropout ensemble is one sub-network, made by hand here; the user's network stays as it is."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch import nn

from sklearn_source import (
    TRAK,
    DropoutEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    LoRAEnsemble,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.attribution.ensemble._fixed_mask import FixedMask, MaskedAttention
from sklearn_source.base import flat_gradients
from sklearn_source.trajectory import Trajectory
from sklearn_source.utils.estimator_checks import parametrize_with_attribution_checks
from sklearn_source.utils.estimator_checks._net_fingerprint import changed, fingerprint
from tests.attribution._ensemble_nets import (
    Alias,
    Alpha,
    Dense,
    Functional,
    Maps,
    Plain,
    Recurrent,
    Signals,
    Tokens,
    rows,
    trained,
)

KINDS = [Dense, Alias, Alpha, Plain, Maps, Signals, Tokens]


def masks_of(member):
    """name -> what multiplies the units."""
    module = member.net_.module_
    return {
        name: layer.scale if isinstance(layer, FixedMask) else layer.head_scale
        for name, layer in module.named_modules()
        if isinstance(layer, (FixedMask, MaskedAttention))
    }


def by_autograd(member, X, y):
    """Per-row gradients of the member's loss, one row at a time."""
    module = member._network.module
    names = [name for block in member._gradients.blocks for name in block.parameters]
    parameters = dict(module.named_parameters())
    result = []
    for x, target in zip(torch.as_tensor(X), torch.as_tensor(y)):
        loss = nn.functional.cross_entropy(module(x[None]), target[None])
        grads = torch.autograd.grad(loss, [parameters[name] for name in names])
        result.append(dict(zip(names, grads)))
    return result


def as_blocks(member, gradient):
    """By-name gradients of a row in the order of ``flat_gradients``."""
    return torch.cat([matrix.flatten() for matrix in member._gradients.matrices(gradient)])


# --- a member is one sub-network -------------------------------------------------------------------------------


def without_units(net, masks, x):
    """The regressor ``Dense`` with the units that are left out removed from its weight matrices."""
    p = dict(net.module_.named_parameters())
    first, second = masks["drop"] != 0, masks["again"] != 0
    hidden = torch.selu(x @ p["first.weight"][first].T + p["first.bias"][first]) / 0.7
    hidden = torch.tanh(hidden @ p["second.weight"][second][:, first].T + p["second.bias"][second]) / 0.5
    return (hidden @ p["last.weight"][:, second].T + p["last.bias"])[:, 0]


def test_scores_are_those_of_the_network_without_the_units():
    net, X, y = trained(Dense, regression=True)
    estimator = InfluenceFunctions(curvature="exact", damping=0.1)
    ensemble = DropoutEnsemble(estimator, n_masks=3, random_state=0).fit(net, X, y)
    x, parameters = torch.as_tensor(X), list(net.module_.parameters())
    parts = []
    for member in ensemble.members_:
        outputs = without_units(net, masks_of(member), x)
        J = torch.stack(
            [torch.cat([g.flatten() for g in torch.autograd.grad(o, parameters, retain_graph=True)]) for o in outputs]
        )
        H = 2 * J.T @ J / len(X) + 0.1 * torch.eye(J.shape[1], dtype=J.dtype)
        losses = 2 * (outputs - torch.as_tensor(y)[:, 0]).detach()[:, None] * J
        parts.append(-(torch.linalg.solve(H, J.T).T @ losses.T) / len(X))
        np.testing.assert_allclose(member.transform(X), parts[-1], rtol=1e-5, atol=1e-7)
    parts = torch.stack(parts)
    assert float((parts[0] - parts[1]).abs().max()) > 1e-3
    np.testing.assert_allclose(ensemble.transform(X), parts.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ensemble.score_error(X), parts.std(0) / 3**0.5, rtol=1e-3, atol=1e-6)


def by_hand(module, name, masks, x):
    """The outputs of a network with explicit multiplications."""
    p = module
    if name in ("Dense", "Alpha"):
        hidden = torch.selu(p.first(x))
        if name == "Dense":
            hidden = hidden * masks["drop"]
            return p.last(torch.tanh(p.second(hidden)) * masks["again"])

        def alpha(value, mask, q):  # the mean and variance of SELU's own stay
            low = -1.7580993408473766
            a = ((1 - q) * (1 + q * low**2)) ** -0.5
            return a * torch.where(mask != 0, value, torch.full_like(value, low)) - a * low * q

        hidden = alpha(hidden, masks["drop"], 0.3)
        return p.last(alpha(torch.tanh(p.second(hidden)), masks["again"], 0.5))
    if name == "Alias":
        return p.last(torch.tanh(p.block[0](p.first(x) * masks["drop"])) * masks["drop"][:6])
    if name == "Plain":
        mask = masks["act.fixed_mask"]
        return p.last(torch.tanh(p.second(torch.tanh(p.first(x)) * mask)) * mask[:6])
    if name == "Maps":
        maps = torch.relu(p.norm(p.conv(x))) * masks["drop"][:, None, None]
        return p.last(torch.relu(p.deep(maps)).flatten(1) * masks["flat"])
    if name == "Signals":
        return p.last((torch.tanh(p.conv(x)) * masks["drop"][:, None]).mean(-1))
    layer, attention = p.layer, p.layer.self_attn
    tokens = p.table(x)
    q, k, v = nn.functional.linear(tokens, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (4, 2)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(2, 3) / 2**0.5).masked_fill((x == 0)[:, None, None], -torch.inf).softmax(-1)
    heads = (weights @ v) * masks["layer.self_attn"][:, None, None]
    attended = attention.out_proj(heads.transpose(1, 2).flatten(2))
    tokens = layer.norm1(tokens + attended * masks["layer.dropout1"])
    inner = torch.relu(layer.linear1(tokens)) * masks["layer.dropout"]
    tokens = layer.norm2(tokens + layer.linear2(inner) * masks["layer.dropout2"])
    return p.last(tokens.mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_is_the_network_with_units_multiplied_by_its_masks(kind):
    net, X, y = trained(kind)
    p = None if kind is Alpha else 0.4
    member = DropoutEnsemble(GradientSimilarity(), n_masks=1, p=p, random_state=1).fit(net, X, y).members_[0]
    masks, x = masks_of(member), torch.as_tensor(X)
    assert any((mask == 0).any() for mask in masks.values())
    assert p is None or set(torch.cat(list(masks.values())).tolist()) == {0.0, 1 / 0.6}
    with torch.no_grad():
        expected = by_hand(net.module_.eval(), kind.__name__, masks, x)
        torch.testing.assert_close(member._network.forward(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_row_gradients_of_members_are_those_of_autograd(kind):
    net, X, y = trained(kind)
    for member in DropoutEnsemble(GradientSimilarity(), n_masks=2, random_state=0).fit(net, X, y).members_:
        formed = flat_gradients(member._gradients.of_loss(torch.as_tensor(X), torch.as_tensor(y)))
        expected = torch.stack([as_blocks(member, gradient) for gradient in by_autograd(member, X, y)])
        torch.testing.assert_close(formed, expected)


def test_positions_of_sequences_share_a_mask_and_may_be_more_than_in_training():
    net, X, y = trained(Signals)
    ensemble = DropoutEnsemble(GradientSimilarity(), n_masks=2, random_state=0).fit(net, X, y)
    longer = np.concatenate([X, X], axis=2)[:4]
    assert ensemble.transform(longer).shape == (4, len(X))


def test_rows_may_stand_along_the_second_axis():
    net, X, y = trained(Tokens)
    other, _, _ = trained(Tokens, module__batch_first=False)
    other = DropoutEnsemble(GradientSimilarity(), n_masks=1, random_state=0).fit(other, X, y).members_[0]
    member = DropoutEnsemble(GradientSimilarity(), n_masks=1, random_state=0).fit(net, X, y).members_[0]
    assert all(torch.equal(mask, masks_of(other)[name]) for name, mask in masks_of(member).items())
    with torch.no_grad():
        both = other._network.forward(torch.as_tensor(X)), other._network.forward(torch.as_tensor(X[:1]))
    torch.testing.assert_close(both[0][:1], both[1])


# --- masks stay ------------------------------------------------------------------------------------------------


def test_masks_depend_on_the_seed_the_member_and_the_layer_alone():
    net, X, y = trained(Dense)

    def masks(n_masks, seed, torch_seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(torch_seed)
            ensemble = DropoutEnsemble(GradientSimilarity(), n_masks, p=0.5, random_state=seed).fit(net, X, y)
        return [torch.cat(list(masks_of(member).values())).tolist() for member in ensemble.members_]

    four = masks(4, 0)
    assert len(set(map(tuple, four))) == 4
    assert masks(2, 0, torch_seed=1) == four[:2]
    assert masks(2, 1) != four[:2]


@pytest.mark.parametrize("estimator", [SourceAttribution(n_segments=1), InfluenceFunctions(), TracIn()])
def test_scores_stay_over_calls_batches_and_pickles(estimator):
    net, X, y = trained(Dense)
    ensemble = DropoutEnsemble(estimator, n_masks=2, random_state=0).fit(net, X, y)
    scores = ensemble.transform(X)
    np.testing.assert_array_equal(ensemble.transform(X), scores)
    np.testing.assert_allclose(ensemble.transform(X[3:4]), scores[3:4], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(ensemble)).transform(X), scores, rtol=1e-6)
    small = type(estimator)(**{**estimator.get_params(deep=False), "batch_size": 5})
    small = DropoutEnsemble(small, n_masks=2, random_state=0).fit(net, X, y)
    np.testing.assert_allclose(small.transform(X), scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [SourceAttribution(n_segments=1), InfluenceFunctions(), TracIn(), GradientSimilarity(), RepresentationSimilarity()],
)
def test_without_masks_it_is_the_method_itself(estimator):
    net, X, y = trained(Dense)
    ensemble = DropoutEnsemble(estimator, n_masks=2, p=0.0, random_state=0).fit(net, X, y)
    np.testing.assert_allclose(ensemble.transform(X), estimator.fit(net, X, y).transform(X), rtol=1e-5, atol=1e-7)


# --- the record of the training, and the user's network ---------------------------------------------------------


@pytest.mark.parametrize("kind", [Dense, Plain, Maps, Tokens])
@pytest.mark.parametrize("estimator", [SourceAttribution(n_segments=1), InfluenceFunctions(damping="trajectory")])
def test_the_record_of_the_training_is_verified_without_masks(kind, estimator):
    net, X, y = trained(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensemble = DropoutEnsemble(estimator, n_masks=1, p=0.4, random_state=0).fit(net, X, y)
    assert np.isfinite(ensemble.transform(X)).all()


class DoubledGradients(Callback):
    def on_grad_computed(self, net, named_parameters, **kwargs):
        for _, parameter in named_parameters:
            parameter.grad.mul_(1 + (net.history[-1]["epoch"] % 2))


def test_what_the_record_shows_of_the_network_is_said_of_members():
    net, X, y = trained(Dense)
    other = clone(net).set_params(callbacks=[TrajectoryRecorder(), DoubledGradients()]).fit(X, y)
    with pytest.warns(UserWarning, match="scaled by factors that changed"):
        DropoutEnsemble(SourceAttribution(n_segments=1), n_masks=1, random_state=0).fit(other, X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_network_and_all_generators_are_untouched(kind):
    net, X, y = trained(kind)
    net.module_.train()
    before = fingerprint(net)
    DropoutEnsemble(TracIn(), n_masks=2, random_state=0).fit(net, X, y).transform(X)
    assert changed(before, fingerprint(net)) == []


def test_members_share_the_weights_of_the_network():
    net, X, y = trained(Dense)
    member = DropoutEnsemble(TracIn(), n_masks=1, random_state=0).fit(net, X, y).members_[0]
    own = dict(net.module_.named_parameters())
    assert all(parameter is own[name] for name, parameter in member.net_.module_.named_parameters())


def test_the_class_measured_is_that_of_the_whole_network():
    net, X, y = trained(Dense)
    ensemble = DropoutEnsemble(GradientSimilarity(metric="dot"), n_masks=3, p=0.6, random_state=0).fit(net, X, y)
    queries, _ = rows(Dense, n=40, seed=3)
    predicted = net.predict(queries)
    others = [member._network.forward(torch.as_tensor(queries)).argmax(1).numpy() for member in ensemble.members_]
    assert all((other != predicted).any() for other in others)
    np.testing.assert_array_equal(ensemble.transform(queries), ensemble.transform(queries, predicted))


@parametrize_with_attribution_checks(
    [DropoutEnsemble(n_masks=2, p=0.2, random_state=0)],
    tasks=["regression"],
    expected_failed_checks=lambda estimator: {"check_attribution_unit": "a linear model has no hidden units"},
)
def test_common_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("ensemble", [DropoutEnsemble(n_masks=2), LoRAEnsemble(n_members=2, rank=1, n_steps=3)])
def test_rows_may_come_as_a_dataset(ensemble):
    net, X, y = trained(Dense)
    scores = ensemble.set_params(random_state=0).fit(net, X, y).transform(X[:4])
    rows, queries = Dataset(X, y), Dataset(X[:4], y[:4])
    other = clone(ensemble).fit(net, rows)
    np.testing.assert_allclose(other.members_[0].transform(X[:4]), ensemble.members_[0].transform(X[:4]), rtol=1e-5)
    np.testing.assert_allclose(other.transform(queries, None), ensemble.transform(X[:4], y[:4]), rtol=1e-5, atol=1e-8)
    assert scores.shape == other.transform(X[:4]).shape


# --- where masks are put ---------------------------------------------------------------------------------------


def places_of(net, X, y, **options):
    return sorted(
        masks_of(DropoutEnsemble(GradientSimilarity(), 1, random_state=0, **options).fit(net, X, y).members_[0])
    )


def test_masks_stand_in_the_place_of_dropout_else_behind_hidden_activations():
    assert places_of(*trained(Dense)) == ["again", "drop"]
    assert places_of(*trained(Plain)) == ["act.fixed_mask"]
    assert places_of(*trained(Tokens, module__dropout=0.0)) == ["layer.linear1.fixed_mask", "layer.linear2.fixed_mask"]
    assert places_of(*trained(Dense), layers=["first"]) == ["first.fixed_mask"]
    assert places_of(*trained(Alias), layers="block") == ["block.3"]
    net, X, y = trained(Maps)
    member = DropoutEnsemble(GradientSimilarity(), 1, layers="conv", random_state=0).fit(net, X, y).members_[0]
    assert masks_of(member)["conv.fixed_mask"].shape == (4,)


def test_the_probability_is_that_of_the_dropout_unless_given():
    net, X, y = trained(Dense)
    member = DropoutEnsemble(GradientSimilarity(), 1, random_state=0).fit(net, X, y).members_[0]
    assert set(masks_of(member)["drop"].tolist()) <= {0.0, 1 / 0.7}
    assert set(masks_of(member)["again"].tolist()) <= {0.0, 2.0}
    net, X, y = trained(Plain)
    member = DropoutEnsemble(GradientSimilarity(), 1, random_state=0).fit(net, X, y).members_[0]
    assert set(masks_of(member)["act.fixed_mask"].tolist()) <= {0.0, 1 / 0.9}


@pytest.mark.parametrize(
    "kind, message",
    [(Functional, "the dropout of dropout in the module has no module of its own"), (Recurrent, "GRU between its lay")],
)
def test_dropout_that_cannot_be_fixed_is_refused_unless_layers_are_named(kind, message):
    net, X, y = trained(kind)
    with pytest.raises(ValueError, match=message):
        DropoutEnsemble(GradientSimilarity(), 1, random_state=0).fit(net, X, y)
    name = {Functional: "first", Recurrent: "layers"}[kind]
    ensemble = DropoutEnsemble(GradientSimilarity(), 1, layers=[name], random_state=0).fit(net, X, y)
    assert list(masks_of(ensemble.members_[0])) == [f"{name}.fixed_mask"]
    assert np.isfinite(ensemble.transform(X)).all()


def test_what_is_wrong_with_layers_is_said():
    net, X, y = trained(Dense)
    with pytest.raises(ValueError, match="to name modules of the network, got 'third': it has 'first'"):
        DropoutEnsemble(layers=["third"]).fit(net, X, y)
    with pytest.raises(ValueError, match="p.* must be"):
        DropoutEnsemble(p=1.0).fit(net, X, y)


@pytest.mark.parametrize("n_checkpoints", [1, 2])
@pytest.mark.parametrize("kind", [Dense, Tokens])
def test_forward_only_averages_the_residuals_of_sub_networks(kind, n_checkpoints):
    """Against a mean by hand: factors of the whole network, ``1 - p`` of networks with units left out."""
    net, X, y = trained(kind)
    method = TRAK(n_components=None, regularization=0.1, n_checkpoints=n_checkpoints)
    ensemble = DropoutEnsemble(method, n_masks=4, random_state=0, forward_only=True).fit(net, X, y)
    masked = DropoutEnsemble(RepresentationSimilarity(), n_masks=4, random_state=0).fit(net, X, y)
    steps = Trajectory.from_net(net).checkpoints
    points = [steps[-1]] if n_checkpoints == 1 else [steps[-1], steps[len(steps[1:]) // 2]]
    Q = []
    for member in masked.members_:  # sub-networks of the same masks
        module = member._network.module
        for point in points:
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(point.parameters[name])
            own = module(torch.from_numpy(X)).softmax(1)  # with gradients: else transformers take a way past the masks
            Q.append(1 - own.detach().numpy()[np.arange(len(y)), y])
    Q = np.reshape(Q, (4, len(points), -1)).mean(axis=1)
    np.testing.assert_allclose(ensemble.residuals_, Q, rtol=1e-6)
    whole = clone(method).set_params(random_state=0).fit(net, X, y)
    factor = whole.transform(X[:5]).astype(np.float64) / whole.residuals_
    np.testing.assert_allclose(ensemble.transform(X[:5]), factor * Q.mean(axis=0), rtol=1e-4, atol=1e-7)
    error = np.abs(factor) * Q.std(axis=0, ddof=1) / 2
    np.testing.assert_allclose(ensemble.score_error(X[:5]), error, rtol=1e-4, atol=1e-7)
    found = ensemble.stable_influences(X[:5])
    np.testing.assert_allclose(found.scores, ensemble.transform(X[:5]), rtol=1e-5, atol=1e-8)
    assert len(ensemble.members_) == 1
    assert not np.allclose(Q.mean(axis=0), whole.residuals_, rtol=1e-2)
    assert not hasattr(ensemble.set_params(forward_only=False).fit(net, X, y), "residuals_")


def test_forward_only_is_for_trak():
    net, X, y = trained()
    for other in (None, GradientSimilarity()):
        with pytest.raises(ValueError, match=r"expected estimator=TRAK\(\), which forward_only=True is for, got "):
            DropoutEnsemble(other, forward_only=True).fit(net, X, y)
