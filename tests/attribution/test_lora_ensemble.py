"""Members of a LoRA ensemble: they begin as the network, only adapters are trained and scored, seeds decide."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, LoRAEnsemble, SourceAttribution, TracIn
from sklearn_source.attribution.ensemble._adapters import Adapter, freeze, with_adapters
from sklearn_source.base import flat_gradients
from sklearn_source.network import Network
from sklearn_source.trajectory import Trajectory
from sklearn_source.utils.estimator_checks import parametrize_with_attribution_checks
from sklearn_source.utils.estimator_checks._net_fingerprint import changed, fingerprint
from tests.attribution._ensemble_nets import Dense, Embedded, Maps, Plain, Recurrent, Signals, Tokens, trained

KINDS = [Dense, Maps, Signals, Embedded, Tokens]
ESTIMATORS = [SourceAttribution(n_segments=1), InfluenceFunctions(), TracIn()]


def lora(estimator=None, n_members=2, **options):
    return LoRAEnsemble(
        estimator or GradientSimilarity(), n_members, **{"rank": 2, "n_steps": 7, "random_state": 0, **options}
    )


# --- what is trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_begins_as_the_network_and_moves_adapters_alone(kind):
    net, X, y = trained(kind)
    member = lora(n_members=1).fit(net, X, y).members_[0]
    names = [name for name, _ in member.net_.module_.named_parameters()]
    assert names
    assert all("adapter." in name for name in names)
    first, *_, last = Trajectory.from_net(member.net_).checkpoints
    assert all(not value.any() for name, value in first.parameters.items() if ".up." in name)
    assert all(
        not torch.equal(value, first.parameters[name]) for name, value in last.parameters.items() if ".up." in name
    )
    member._network.load(first.parameters, first.buffers)
    with torch.no_grad():
        begins, network = member._network.forward(torch.as_tensor(X)), Network.from_net(net).forward(torch.as_tensor(X))
    if kind is Tokens:  # the three maps into attention are one product there
        torch.testing.assert_close(begins, network)
    else:
        assert torch.equal(begins, network)


def merged(module):
    """A copy of a network with each product of adapters added to the weight that it stands beside."""
    base = {name: layer for name, layer in module.named_modules() if hasattr(layer, "frozen")}
    weights = {}
    for name, layer in base.items():
        for key in ("adapter", "q_adapter", "k_adapter", "v_adapter"):
            adapter = getattr(layer, key, None)
            if adapter is None:
                continue
            up, down = adapter.up.weight.detach(), adapter.down.weight.detach()
            if isinstance(layer, nn.Embedding):
                product = (down @ up.T).index_fill(0, torch.tensor([layer.padding_idx]), 0)
            else:
                product = torch.tensordot(up.flatten(1), down, dims=1)
            weights.setdefault(name, []).append(adapter.scale * product)
    return {name: torch.cat(parts) for name, parts in weights.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_low_rank_changes_of_the_weights(kind):
    net, X, y = trained(kind)
    member = lora(n_members=1, alpha=3.0).fit(net, X, y).members_[0]
    changes = merged(member._network.module)
    whole = copy.deepcopy(net.module_).eval()
    buffers = dict(member._network.module.named_buffers())
    with torch.no_grad():
        for name, layer in whole.named_modules():
            if name in changes:
                weight = layer.in_proj_weight if isinstance(layer, nn.MultiheadAttention) else layer.weight
                weight += changes[name]
        for name, buffer in whole.named_buffers():
            buffer.copy_(buffers[name])
        expected = whole(torch.as_tensor(X))
        torch.testing.assert_close(member._network.forward(torch.as_tensor(X)), expected)
        assert float((expected - net.module_.eval()(torch.as_tensor(X))).abs().max()) > 1e-4


def test_the_training_is_that_of_the_net_for_so_many_steps():
    net, X, y = trained(Plain)
    ensemble = lora(n_members=1, n_steps=8).fit(net, X, y)  # three batches an epoch
    (stage,) = Trajectory.from_net(ensemble.members_[0].net_).stages
    assert (stage.end, stage.optimizer) == (8, "SGD")
    assert set(stage.hyper["lr"].ravel()) == {0.1}
    assert set(stage.hyper["momentum"].ravel()) == {0.5}
    ensemble = lora(n_members=1, n_steps=2, lr=0.01, optimizer=torch.optim.AdamW).fit(net, X, y)
    (stage,) = Trajectory.from_net(ensemble.members_[0].net_).stages
    assert (stage.end, stage.optimizer) == (2, "AdamW")
    assert set(stage.hyper["lr"].ravel()) == {0.01}


def test_it_is_the_descent_of_the_adapters_on_the_loss():
    net, X, y = trained(Plain)
    member = lora(n_members=1, n_steps=2, lr=0.2, optimizer=torch.optim.SGD).fit(net, X, y).members_[0]
    first, *_, last = Trajectory.from_net(member.net_).checkpoints
    module = member._network.module
    member._network.load({name: value.clone() for name, value in first.parameters.items()})
    for start in (0, 6):
        loss = nn.functional.cross_entropy(
            module(torch.as_tensor(X[start : start + 6])), torch.as_tensor(y[start : start + 6])
        )
        with torch.no_grad():
            for p, g in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters()))):
                p -= 0.2 * g
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach(), last.parameters[name])


# --- what is scored -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_row_gradients_are_those_of_autograd_and_are_factored(kind):
    net, X, y = trained(kind)
    member = lora(n_members=1).fit(net, X, y).members_[0]
    module, gradients = member._network.module, member._gradients
    names = [name for block in gradients.blocks for name in block.parameters]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())
    formed = gradients.of_loss(torch.as_tensor(X), torch.as_tensor(y))
    assert all(gradient.has_factors for gradient in formed)
    parameters = dict(module.named_parameters())
    expected = []
    for x, target in zip(torch.as_tensor(X), torch.as_tensor(y)):
        loss = nn.functional.cross_entropy(module(x[None]), target[None])
        by_name = dict(zip(names, torch.autograd.grad(loss, [parameters[name] for name in names])))
        expected.append(torch.cat([matrix.flatten() for matrix in gradients.matrices(by_name)]))
    torch.testing.assert_close(flat_gradients(formed), torch.stack(expected))


def test_scores_are_those_of_a_dense_solve_over_the_adapters():
    net, X, y = trained(Plain, regression=True)
    estimator = InfluenceFunctions(curvature="exact", damping=0.1)
    ensemble = lora(estimator, n_members=2).fit(net, X, y)
    parts = []
    for member in ensemble.members_:
        module = member._network.module
        outputs = module(torch.as_tensor(X))[:, 0]
        J = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(o, list(module.parameters()), retain_graph=True)])
                for o in outputs
            ]
        )
        H = 2 * J.T @ J / len(X) + 0.1 * torch.eye(J.shape[1], dtype=J.dtype)
        losses = 2 * (outputs.detach() - torch.as_tensor(y)[:, 0])[:, None] * J
        parts.append(-(torch.linalg.solve(H, J.T).T @ losses.T) / len(X))
    np.testing.assert_allclose(ensemble.transform(X), torch.stack(parts).mean(0), rtol=1e-5, atol=1e-8)


def test_scores_of_source_are_effects_of_weights_of_rows_on_the_training_of_the_adapters():
    """Finite differences of the descent itself: full batches, so that few steps are a flow."""
    net, X, y = trained(Plain, regression=True)
    full = copy.deepcopy(net).set_params(batch_size=-1)
    estimator = SourceAttribution(n_segments=1, curvature="exact")
    ensemble = LoRAEnsemble(estimator, 1, 2, n_steps=200, lr=0.05, optimizer=torch.optim.SGD, random_state=0).fit(
        full, X, y
    )
    member = ensemble.members_[0]
    first = Trajectory.from_net(member.net_).checkpoints[0]
    module, x, target = member._network.module, torch.as_tensor(X), torch.as_tensor(y)

    def outputs(weights):
        member._network.load({name: value.clone() for name, value in first.parameters.items()})
        for _ in range(200):
            loss = (weights * (module(x) - target)[:, 0] ** 2).mean()
            with torch.no_grad():
                for p, g in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters()))):
                    p -= 0.05 * g
        return module(x).detach()[:, 0]

    effects = []
    for row in range(3):
        more, less = torch.ones(len(X), dtype=x.dtype), torch.ones(len(X), dtype=x.dtype)
        more[row], less[row] = 1 + 1e-4, 1 - 1e-4
        effects.append((outputs(more) - outputs(less)) / 2e-4)
    effects = torch.stack(effects, 1).numpy().ravel()
    member._network.load(
        *[dict(part) for part in (member._gradients.trained.parameters, member._gradients.trained.buffers)]
    )
    scores = ensemble.transform(X)[:, :3].ravel()
    assert np.corrcoef(scores, effects)[0, 1] > 0.99
    assert 0.95 < np.dot(scores, effects) / np.dot(scores, scores) < 1.1


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", [Dense, Maps, Embedded])
def test_methods_work_on_members_without_a_word(kind, estimator):
    net, X, y = trained(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensemble = lora(estimator, n_members=1).fit(net, X, y)
    scores = ensemble.transform(X[:4])
    assert np.isfinite(scores).all()
    assert scores.any()
    np.testing.assert_allclose(pickle.loads(pickle.dumps(ensemble)).transform(X[:4]), scores, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_members_in_processes_are_the_same():
    net, X, y = trained(Plain)
    one, two = (lora(n_jobs=n_jobs).fit(net, X, y).transform(X) for n_jobs in (None, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9)


@parametrize_with_attribution_checks(
    [lora(InfluenceFunctions())],
    tasks=["classification"],
    expected_failed_checks=lambda estimator: {"check_attribution_permuted_rows": "adapters see rows in their order"},
)
def test_common_checks(estimator, check):
    check(estimator)


# --- seeds, and the user's network -----------------------------------------------------------------------------


def test_seeds_decide_and_first_members_stay():
    net, X, y = trained(Dense)  # with dropout, which is drawn from the seed too

    def weights(n_members, seed, torch_seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(torch_seed)
            ensemble = lora(n_members=n_members, random_state=seed).fit(net, X, y)
        return [
            torch.cat([p.detach().flatten() for p in member.net_.module_.parameters()]).tolist()
            for member in ensemble.members_
        ]

    three = weights(3, 0)
    assert len(set(map(tuple, three))) == 3
    assert weights(2, 0, torch_seed=1) == three[:2]
    assert weights(1, 1) != three[:1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_network_and_all_generators_are_untouched(kind):
    net, X, y = trained(kind)
    net.module_.train()
    before = fingerprint(net)
    lora(SourceAttribution(n_segments=1)).fit(net, X, y).transform(X)
    assert changed(before, fingerprint(net)) == []


def test_members_share_the_weights_of_the_network_and_space_is_told():
    net, X, y = trained(Dense)
    ensemble = lora(n_members=2).fit(net, X, y)
    tensors = [member._network.module.first.weight for member in ensemble.members_]
    assert tensors[0].data_ptr() == tensors[1].data_ptr() != net.module_.first.weight.data_ptr()
    assert ensemble.n_parameters_ == 2 * (4 + 8) + 2 * (8 + 6) + 2 * (6 + 3)
    assert ensemble.n_base_parameters_ == 5 * 8 + 9 * 6 + 7 * 3
    assert ensemble.n_base_bytes_ == 8 * ensemble.n_base_parameters_
    n_checkpoints = len(Trajectory.from_net(ensemble.members_[0].net_).checkpoints)
    assert ensemble.n_bytes_ == n_checkpoints * 8 * ensemble.n_parameters_


def test_a_module_instance_will_do():
    torch.manual_seed(0)
    X = np.random.RandomState(0).normal(size=(20, 4)).astype(np.float32)
    net = NeuralNetRegressor(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), train_split=None, verbose=0)
    net.fit(X, X[:, :1])
    assert lora().fit(net, X, X[:, :1]).transform(X[:2]).shape == (2, 20)


# --- layers ---------------------------------------------------------------------------------------------------


def adapted(net, X, y, **options):
    module = lora(n_members=1, **options).fit(net, X, y).members_[0].net_.module_
    return [name for name, layer in module.named_modules() if isinstance(layer, Adapter)]


def test_layers_choose():
    net, X, y = trained(Tokens)
    attention = [f"layer.self_attn.{part}" for part in ("out_proj.adapter", "q_adapter", "k_adapter", "v_adapter")]
    linear = ["layer.linear1.adapter", "layer.linear2.adapter"]
    assert adapted(net, X, y) == ["table.adapter", *attention, *linear, "last.adapter"]
    assert adapted(net, X, y, layers="layer.self_attn") == attention
    assert adapted(net, X, y, layers=["layer", "last"]) == [*attention, *linear, "last.adapter"]


def test_what_the_user_froze_gets_no_adapter_unless_named():
    net, X, y = trained(Dense)
    net = copy.deepcopy(net)
    net.module_.first.requires_grad_(False)
    assert adapted(net, X, y) == ["second.adapter", "last.adapter"]
    assert adapted(net, X, y, layers=["first"]) == ["first.adapter"]


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (Recurrent, {"layers": ["layers"]}, "there is no adapter for 'layers', a GRU: expected trainable nn.Linear"),
        (Dense, {"layers": ["third"]}, "to name modules of the network, got 'third': it has 'first'"),
        (Dense, {"rank": 0}, "rank.* must be"),
        (Dense, {"n_steps": 0}, "n_steps.* must be"),
    ],
)
def test_what_is_wrong_is_said(kind, options, message):
    net, X, y = trained(kind)
    with pytest.raises(ValueError, match=message):
        lora(**options).fit(net, X, y)


def test_the_rank_is_at_most_that_of_the_layer():
    module = nn.Sequential(nn.Linear(5, 3), nn.Conv1d(4, 2, 3), nn.Embedding(7, 4))
    freeze(module)
    shapes = [tuple(p.shape) for p in with_adapters(module, 8, 1.0).parameters()]
    assert shapes == [(3, 5), (3, 3), (2, 4, 3), (2, 2, 1), (7, 4), (4, 4)]
