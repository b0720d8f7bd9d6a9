"""Fine-tuning: only what trained is attributed, and only while it trained. Against exact differentiation of the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import Freezer, ParamMapper, Unfreezer
from torch import nn

from sklearn_source import (
    GradientSimilarity,
    InfluenceFunctions,
    SourceAttribution,
    TracIn,
    Trajectory,
    TrajectoryRecorder,
)

N, STEPS, N_QUERIES = 18, 100, 4


class Parts(nn.Module):
    """Linear in all its parameters, so that gradient descent is a linear system; the parts see correlated inputs."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 1, bias=False, dtype=torch.float64)
        self.head = nn.Linear(2, 1, dtype=torch.float64)

    def forward(self, x):
        return self.backbone(x[:, :3]) + self.head(x[:, 3:])


def problem(seed=0, n=N):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)) * np.array([1.5, 0.7, 0.3, 1.0, 0.4])
    X[:, 3] += 0.6 * X[:, 0]
    return X, X @ rng.normal(size=(5, 1)) + 0.4 * rng.normal(size=(n, 1))


X, Y = problem()
X2, Y2 = problem(1, 14)
QUERIES = problem(2, N_QUERIES)[0]
BACKBONE, HEAD = ["backbone.weight"], ["head.weight", "head.bias"]
ALL = BACKBONE + HEAD


def make_net(**options):
    torch.manual_seed(0)
    callbacks = [TrajectoryRecorder(n_checkpoints=10), *options.pop("callbacks", [])]
    options = {"lr": 0.01, "optimizer": torch.optim.SGD, **options}
    return NeuralNetRegressor(
        Parts(), batch_size=-1, max_epochs=STEPS, train_split=None, verbose=0, callbacks=callbacks, **options
    ).initialize()


def exact(initial, stages):
    """d f_q / d (weight of a row in a stage), by autograd through every step of the run.

    ``stages``: lists of (X, y, phases, momentum, weight decay if any); a phase is (number of steps, {name: rate}): who
    is not named does not move. Returns the trained values, and per stage (n_query, n_rows).
    """
    theta = {name: value.clone().requires_grad_() for name, value in initial.items()}
    all_weights = []
    for Xs, ys, phases, momentum, *decay in stages:
        x, y = torch.from_numpy(Xs), torch.from_numpy(ys)
        weights = torch.ones(len(x), dtype=torch.float64, requires_grad=True)
        all_weights.append(weights)
        velocity = {}
        for n_steps, rates in phases:
            for _ in range(n_steps):
                output = x[:, :3] @ theta["backbone.weight"].T + x[:, 3:] @ theta["head.weight"].T + theta["head.bias"]
                # By hand: autograd would follow the parts into how earlier steps made one depend on the other.
                pull = (2 / len(x) * weights * (output - y)[:, 0])[None]
                grads = {"backbone.weight": pull @ x[:, :3], "head.weight": pull @ x[:, 3:], "head.bias": pull.sum(1)}
                for name in rates:
                    g = grads[name] + sum(decay) * theta[name]
                    velocity[name] = momentum * velocity[name] + g if name in velocity else g
                theta = {**theta, **{name: theta[name] - rates[name] * velocity[name] for name in rates}}
    q = torch.from_numpy(QUERIES)
    f = q[:, :3] @ theta["backbone.weight"].T + q[:, 3:] @ theta["head.weight"].T + theta["head.bias"]
    rows = [torch.autograd.grad(value, all_weights, retain_graph=True) for value in f[:, 0]]
    return theta, [torch.stack(parts).numpy() for parts in zip(*rows)]


def start_of(net):
    return {name: p.detach().clone() for name, p in net.module_.named_parameters()}


def check(net, initial, stages, data, stage=None, tolerance=0.015, names=ALL, n_segments=10, **options):
    """SOURCE with the exact curvature, and TracIn's and SOURCE's choice of parameters."""
    theta, effects = exact(initial, stages)
    for name, p in net.module_.named_parameters():
        torch.testing.assert_close(p.detach(), theta[name].detach())
    truth = np.concatenate(effects, axis=1) if stage is not None else sum(effects)
    before = [p.requires_grad for p in net.module_.parameters()]
    est = SourceAttribution(n_segments=n_segments, curvature="exact", **options).fit(net, *data, stage=stage)
    scores = est.transform(QUERIES)
    error = np.linalg.norm(scores - truth) / np.linalg.norm(truth)
    assert error < tolerance
    assert est._gradients.engine.names == names
    assert TracIn().fit(net, *data, stage=stage)._gradients.engine.names == names
    assert [p.requires_grad for p in net.module_.parameters()] == before
    return scores, truth, est


def test_a_backbone_frozen_before_training():
    net = make_net()
    net.module_.backbone.requires_grad_(False)
    initial = start_of(net)
    net.partial_fit(X, Y)
    check(net, initial, [(X, Y, [(STEPS, dict.fromkeys(HEAD, 0.01))], 0)], (X, Y), names=HEAD)
    for method in (InfluenceFunctions(), GradientSimilarity()):
        assert method.fit(net, X, Y)._gradients.engine.names == HEAD


def test_a_backbone_frozen_by_a_callback():
    net = make_net(callbacks=[Freezer("backbone*")])
    initial = start_of(net)
    net.partial_fit(X, Y)
    check(net, initial, [(X, Y, [(STEPS, dict.fromkeys(HEAD, 0.01))], 0)], (X, Y), names=HEAD)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_frozen_in_the_first_stage_and_trained_in_the_second(decay):
    """The first stage's rows act on the backbone only through what the head does to its later gradients."""
    net = make_net(optimizer__weight_decay=decay)
    net.module_.backbone.requires_grad_(False)
    initial = start_of(net)
    net.partial_fit(X, Y)
    net.module_.backbone.requires_grad_(True)
    net.set_params(lr=0.004, optimizer__momentum=0.5)
    net.partial_fit(X2, Y2)
    stages = [
        (X, Y, [(STEPS, dict.fromkeys(HEAD, 0.01))], 0, decay),
        (X2, Y2, [(STEPS, dict.fromkeys(ALL, 0.004))], 0.5, decay),
    ]
    data = np.concatenate([X, X2]), np.concatenate([Y, Y2])
    stage = np.repeat([0, 1], [len(X), len(X2)])
    scores, truth, est = check(net, initial, stages, data, stage)
    assert est.segments_[0].integrated_learning_rate["backbone.weight"] == 0
    # The first stage's rows taken to have trained the backbone too would be far off.
    assert np.linalg.norm(scores[:, : len(X)] - truth[:, : len(X)]) < 0.02 * np.linalg.norm(truth[:, : len(X)])
    assert not np.allclose(truth[:, : len(X)], 0, atol=1e-3)


def test_trained_in_the_first_stage_and_frozen_in_the_second():
    """What training froze had moved before: the first stage's rows are credited for it."""
    net = make_net()
    initial = start_of(net)
    net.partial_fit(X, Y)
    net.module_.backbone.requires_grad_(False)
    net.partial_fit(X2, Y2)
    stages = [
        (X, Y, [(STEPS, dict.fromkeys(ALL, 0.01))], 0),
        (X2, Y2, [(STEPS, dict.fromkeys(HEAD, 0.01))], 0),
    ]
    data = np.concatenate([X, X2]), np.concatenate([Y, Y2])
    check(net, initial, stages, data, np.repeat([0, 1], [len(X), len(X2)]))


def test_unfrozen_on_the_way():
    net = make_net(callbacks=[Freezer("backbone*"), Unfreezer("backbone*", at=51)])
    initial = start_of(net)
    net.partial_fit(X, Y)
    phases = [(50, dict.fromkeys(HEAD, 0.01)), (50, dict.fromkeys(ALL, 0.01))]
    check(net, initial, [(X, Y, phases, 0)], (X, Y), tolerance=0.02)


def test_a_mapper_that_freezes_on_the_way():
    net = make_net(callbacks=[ParamMapper("backbone*", lambda p: p.requires_grad_(False), at=61)])
    initial = start_of(net)
    net.partial_fit(X, Y)
    phases = [(60, dict.fromkeys(ALL, 0.01)), (40, dict.fromkeys(HEAD, 0.01))]
    check(net, initial, [(X, Y, phases, 0)], (X, Y), tolerance=0.02)


def test_left_out_of_the_optimizer_for_a_stage():
    net = make_net()
    initial = start_of(net)
    net.optimizer_ = torch.optim.SGD(net.module_.head.parameters(), lr=0.01)
    net.partial_fit(X, Y)
    net.optimizer_ = torch.optim.SGD(
        [{"params": [net.module_.backbone.weight], "lr": 0.002}, {"params": net.module_.head.parameters()}], lr=0.006
    )
    net.partial_fit(X, Y)
    rates = {"backbone.weight": 0.002, "head.weight": 0.006, "head.bias": 0.006}
    stages = [(X, Y, [(STEPS, dict.fromkeys(HEAD, 0.01))], 0), (X, Y, [(STEPS, rates)], 0)]
    check(net, initial, stages, (X, Y))


def test_never_in_the_optimizer():
    net = make_net()
    initial = start_of(net)
    net.optimizer_ = torch.optim.SGD(net.module_.head.parameters(), lr=0.01)
    net.partial_fit(X, Y)
    with pytest.warns(UserWarning, match="no step of the training moved the parameters backbone.weight, which have"):
        check(net, initial, [(X, Y, [(STEPS, dict.fromkeys(HEAD, 0.01))], 0)], (X, Y), names=HEAD)
    for method in (SourceAttribution, TracIn):
        with (
            pytest.warns(UserWarning, match="they are left out"),
            pytest.raises(ValueError, match="layers: 'backbone' has no trainable parameter"),
        ):
            method(layers="backbone").fit(net, X, Y)


def test_frozen_by_the_user_after_training():
    net = make_net()
    net.partial_fit(X, Y)
    net.module_.backbone.requires_grad_(False)
    for method in (SourceAttribution(), TracIn(), InfluenceFunctions()):
        assert method.fit(net, X, Y)._gradients.engine.names == HEAD


def test_weights_of_a_pretraining_elsewhere():
    """initialize, load_state_dict, partial_fit: the trajectory starts at the loaded weights."""
    pretrained = {
        "backbone.weight": torch.tensor([[0.5, -1.0, 2.0]]).double(),
        "head.weight": torch.tensor([[1.0, 1.0]]).double(), "head.bias": torch.tensor([0.3]).double(),
    }  # fmt: skip
    net = make_net()
    net.module_.load_state_dict(pretrained)
    net.partial_fit(X, Y)
    check(net, pretrained, [(X, Y, [(STEPS, dict.fromkeys(ALL, 0.01))], 0)], (X, Y))


def test_parameter_groups_of_skorch():
    net = make_net(optimizer__param_groups=[("backbone*", {"lr": 0.001})])
    initial = start_of(net)
    net.partial_fit(X, Y)
    rates = {"backbone.weight": 0.001, "head.weight": 0.01, "head.bias": 0.01}
    check(net, initial, [(X, Y, [(STEPS, rates)], 0)], (X, Y))


def test_a_frozen_group_is_written_and_read(tmp_path):
    net = make_net(callbacks=[Freezer("backbone*")], optimizer__param_groups=[("backbone*", {"lr": 0.5})])
    net.partial_fit(X, Y)
    trajectory = Trajectory.from_net(net)
    trajectory.save(tmp_path / "run")
    rates = Trajectory.load(tmp_path / "run").integrated_learning_rate(0, STEPS)
    assert rates == trajectory.integrated_learning_rate(0, STEPS)
    assert rates == {"backbone.weight": 0.0, **dict.fromkeys(HEAD, pytest.approx(STEPS * 0.01))}
    scores = SourceAttribution(trajectory=tmp_path / "run").fit(net, X, Y).transform(QUERIES)
    np.testing.assert_array_equal(scores, SourceAttribution().fit(net, X, Y).transform(QUERIES))


def test_lora_adapters():
    """peft freezes the pretrained layers: only the adapters are attributed, with the gradients that autograd gives."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    module = peft.get_peft_model(
        base, peft.LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False, lora_dropout=0.1)
    )
    net = NeuralNetRegressor(
        module, optimizer=torch.optim.SGD, lr=0.02, batch_size=8, max_epochs=4, train_split=None, verbose=0,
        callbacks=[TrajectoryRecorder()],
    ).initialize()  # fmt: skip
    before = {name: p.detach().clone() for name, p in net.module_.named_parameters()}
    net.partial_fit(X, Y)
    adapters = [name for name in before if "lora_" in name]
    assert [n for n, p in net.module_.named_parameters() if not torch.equal(before[n], p)] == adapters
    x, y, q = (torch.from_numpy(v) for v in (X, Y, QUERIES))
    net.module_.eval()
    wanted = [net.module_.get_parameter(name) for name in adapters]

    def gradients(values):
        return torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(v, wanted)]) for v in values])

    losses = gradients([(net.module_(x[m : m + 1]) - y[m]).square().sum() for m in range(N)])
    queries = gradients([net.module_(q[i : i + 1]).sum() for i in range(N_QUERIES)])
    similarity = GradientSimilarity(metric="dot").fit(net, X, Y)
    np.testing.assert_allclose(similarity.transform(QUERIES), -(queries @ losses.T).numpy(), rtol=1e-5, atol=1e-7)
    for method in (SourceAttribution(n_segments=2), TracIn(), InfluenceFunctions(), similarity):
        est = method.fit(net, X, Y)
        assert est._gradients.engine.names == adapters
        assert np.isfinite(est.transform(QUERIES)).all()
    assert not any(kind == "dense" for kind in (block.kind for block in est._gradients.blocks))
