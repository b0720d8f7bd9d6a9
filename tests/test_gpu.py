"""On a CUDA device everything gives the scores of the CPU. Run with ``pytest -m gpu`` on a machine that has one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import (
    TRAK,
    AttributionEnsemble,
    DiffusionReTrac,
    DropoutEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    LoRAEnsemble,
    RepresentationSimilarity,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
    TrajectoryRecorder,
)
from sklearn_source.curvature import EKFAC, ExactGaussNewton
from sklearn_source.inspection import predict_action
from sklearn_source.modules import MLP, CharTransformer, TextClassifier, UNet
from sklearn_source.network import train_clone
from sklearn_source.retraining import retrain_on_subsets, train_networks
from tests._diffusion_nets import rows as diffusion_rows
from tests._diffusion_nets import small_net as diffusion_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, X):
        return self.out(self.lstm(X)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, X):
        return self.out(self.layer(X).mean(1))


def _convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def _batch_norm():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 2),
        nn.Flatten(),
        nn.Linear(2 * 9, 3),
    )


def _images(rng):
    return rng.normal(size=(48, 2, 6, 6))


def _sequences(rng):
    return rng.normal(size=(48, 5, 4))


def _tokens(rng):
    return rng.integers(1, 10, size=(48, 7))


NETWORKS = {
    "convolutions": (_convolutions, _images),
    "batch norm": (_batch_norm, _images),
    "recurrent": (Recurrent, _sequences),
    "attention": (Attention, _sequences),
    "tokens": (lambda: TextClassifier(10, 3, width=8, n_heads=2, n_blocks=1), _tokens),
}
SGD = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.02}
ADAMW = {"optimizer": torch.optim.AdamW, "optimizer__weight_decay": 0.1, "lr": 0.005}


def _trained(device, optimizer, network="convolutions"):
    """The same training on either device: float64, so that both end at the same weights."""
    rng = np.random.default_rng(0)
    make_module, make_rows = NETWORKS[network]
    X, y = make_rows(rng), rng.integers(3, size=48)
    torch.manual_seed(0)
    initial = {
        name: value.double() if value.is_floating_point() else value
        for name, value in make_module().state_dict().items()
    }

    def build():
        module = make_module().double()
        module.load_state_dict(initial)
        return module

    net = NeuralNetClassifier(
        build,
        criterion=nn.CrossEntropyLoss,
        batch_size=16,
        max_epochs=6,
        iterator_train__shuffle=False,
        train_split=None,
        verbose=0,
        device=device,
        callbacks=[TrajectoryRecorder(n_checkpoints=4)],
        **optimizer,
    )
    return net.fit(X, y), X, y


def _assert_same_on_both(make_estimator, **training):
    scores = {}
    for device in ("cpu", "cuda"):
        net, X, y = _trained(device, **training)
        est = make_estimator().fit(net, X, y)
        assert next(iter(net.module_.parameters())).device.type == device
        scores[device] = [est.transform(X[:5]), est.self_influence()]
        if hasattr(est, "top_influences"):
            scores[device].append(est.top_influences(X[:5], k=3).scores)
    for on_cpu, on_cuda in zip(scores["cpu"], scores["cuda"]):
        np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-4, atol=1e-6 * np.abs(on_cpu).max())


METHODS = {
    "source": lambda: SourceAttribution(n_segments=2),
    "exact": lambda: SourceAttribution(n_segments=1, curvature="exact"),
    "paper": lambda: SourceAttribution(n_segments=2, adam="paper", curvature=EKFAC(basis="shampoo")),
    "sampled": lambda: SourceAttribution(
        n_segments=2, curvature=EKFAC(fisher="sampled"), random_state=0, averaging="parameters"
    ),
    "kfac": lambda: InfluenceFunctions(curvature="kfac"),
    "diagonal": lambda: SourceAttribution(n_segments=1, curvature="diagonal"),
    "identity": lambda: SourceAttribution(n_segments=1, curvature="identity"),
    "influence": lambda: InfluenceFunctions(),
    "krylov": lambda: InfluenceFunctions(curvature=EKFAC(coupling="krylov")),
    "columns": lambda: InfluenceFunctions(curvature=ExactGaussNewton(max_rows=96), random_state=0),
    "snapshots": lambda: SnapshotInfluence(n_snapshots=3, random_state=0),
    "snapshots of TRAK": lambda: AttributionEnsemble(
        TRAK(n_components=16, random_state=0), members="snapshots", n_members=2
    ),
    "tracin": lambda: TracIn(),
    "gradient": lambda: GradientSimilarity(),
    "representation": lambda: RepresentationSimilarity(),
    "trak": lambda: TRAK(n_components=64, random_state=0),
}


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("method", METHODS)
def test_same_scores_as_on_the_cpu(method, optimizer):
    _assert_same_on_both(METHODS[method], optimizer=optimizer)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "convolutions"])
@pytest.mark.parametrize("method", ["source", "exact", "influence", "tracin", "representation"])
def test_every_layer_gives_the_scores_of_the_cpu(method, network):
    if network == "batch norm" and method == "exact":
        pytest.skip("on a flat direction behind a norm, rounding differs between devices")
    _assert_same_on_both(METHODS[method], optimizer=SGD, network=network)


def test_language_model_on_tokens():
    tokens = torch.as_tensor(np.random.default_rng(0).integers(1, 9, size=(24, 8)))
    X, y = tokens[:, :-1], tokens[:, 1:]
    torch.manual_seed(0)
    initial = CharTransformer(9, 8, width=8, n_heads=2, n_blocks=1).state_dict()

    def build():
        module = CharTransformer(9, 8, width=8, n_heads=2, n_blocks=1)
        module.load_state_dict(initial)
        return module.double()

    scores = {}
    for device in ("cpu", "cuda"):
        net = NeuralNetClassifier(
            build,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            lr=0.1,
            batch_size=8,
            max_epochs=3,
            iterator_train__shuffle=False,
            train_split=None,
            verbose=0,
            device=device,
            callbacks=[TrajectoryRecorder(n_checkpoints=2)],
        ).fit(X, y)
        est = SourceAttribution(n_segments=1, measurement="neg_loss", random_state=0).fit(net, X, y)
        scores[device] = est.transform(X[:3], y[:3])
    np.testing.assert_allclose(scores["cuda"], scores["cpu"], rtol=1e-4, atol=1e-6 * np.abs(scores["cpu"]).max())


def test_pickled_on_the_device_read_anywhere(tmp_path):
    rng = np.random.default_rng(0)
    X, y = _images(rng).astype(np.float32), rng.integers(3, size=48)
    net = NeuralNetClassifier(  # a function of this module: pickle finds it again
        _convolutions,
        criterion=nn.CrossEntropyLoss,
        batch_size=16,
        max_epochs=3,
        train_split=None,
        verbose=0,
        device="cuda",
        callbacks=[TrajectoryRecorder(n_checkpoints=2)],
        **SGD,
    ).fit(X, y)
    est = SourceAttribution(n_segments=1, curvature=EKFAC(memory=str(tmp_path))).fit(net, X, y)
    again = SourceAttribution(n_segments=1, curvature=EKFAC(memory=str(tmp_path))).fit(net, X, y)
    expected = est.transform(X[:4])
    np.testing.assert_allclose(pickle.loads(pickle.dumps(est)).transform(X[:4]), expected, rtol=1e-6)
    np.testing.assert_allclose(again.transform(X[:4]), expected, rtol=1e-6)


def test_rows_that_lie_on_the_device():
    net, X, y = _trained("cuda", SGD)
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    expected = InfluenceFunctions().fit(net, X, y).transform(X[:4])
    actual = InfluenceFunctions().fit(net, X.cuda(), y.cuda()).transform(X[:4].cuda())
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("engine", ["vectorized", "joblib"])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_retraining_on_the_device(engine, optimizer):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(48, 4)).astype(np.float32)
    y = X[:, :1] ** 2
    actual = {}
    for device in ("cpu", "cuda"):
        net = NeuralNetRegressor(
            MLP,
            module__n_features=4,  # a lazy layer would draw its weights on the device
            module__hidden=(6,),
            batch_size=16,
            max_epochs=4,
            train_split=None,
            verbose=0,
            device=device,
            **optimizer,
        )
        retraining = retrain_on_subsets(
            net, X, y, X[:5], n_subsets=4, n_repeats=2, random_state=0, engine=engine if device == "cuda" else "joblib"
        )
        actual[device] = retraining.outputs
    np.testing.assert_allclose(actual["cuda"], actual["cpu"], rtol=1e-3, atol=1e-4)


def test_single_precision():
    net, X, y = _trained("cuda", SGD)
    expected = InfluenceFunctions(damping=0.1).fit(net, X, y).transform(X[:4])
    net.module_.float()
    X32 = X.astype(np.float32)
    actual = InfluenceFunctions(damping=0.1).fit(net, X32, y).transform(X32[:4])
    np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_convolutions_that_torch_rounds_are_rows_of_their_own():
    X = np.random.default_rng(0).normal(size=(256, 3, 32, 32)).astype(np.float32)
    y = np.arange(256) % 10
    net = NeuralNetClassifier(
        lambda: nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        ),
        criterion=nn.CrossEntropyLoss, batch_size=64, max_epochs=2, train_split=None, verbose=0, device="cuda",
        callbacks=[TrajectoryRecorder(n_checkpoints=2)], **SGD,
    ).fit(X, y)  # fmt: skip
    assert torch.backends.cudnn.allow_tf32
    rounded = SourceAttribution(random_state=0).fit(net, X, y).transform(X[:5])
    torch.backends.cudnn.allow_tf32 = False
    try:
        whole = SourceAttribution(random_state=0).fit(net, X, y).transform(X[:5])
    finally:
        torch.backends.cudnn.allow_tf32 = True
    assert np.linalg.norm(rounded - whole) < 1e-2 * np.linalg.norm(whole)


def test_attention_is_trained_at_once():
    rng = np.random.default_rng(0)
    X, y = rng.integers(1, 10, size=(40, 7)), rng.integers(3, size=40)
    net = NeuralNetClassifier(
        TextClassifier, module__n_tokens=10, module__n_classes=3, module__width=8, module__n_heads=2, batch_size=16,
        criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0, device="cuda", **SGD,
    )  # fmt: skip
    truth = retrain_on_subsets(net, X, y, X[:4], y[:4], n_subsets=3, n_repeats=2, random_state=0)
    assert truth.settings["engine"] == "vectorized"


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_predictions_of_other_weights_and_labels(optimizer):
    found = {}
    for device in ("cpu", "cuda"):
        net, X, y = _trained(device, optimizer)
        est = SourceAttribution(random_state=0).fit(net, X, y)
        other = y.copy()
        other[:6] = (other[:6] + 1) % 3
        found[device] = [
            est.predict_reweighting(X[:4], groups=np.arange(48) % 5),
            est.predict_relabeling(X[:4], y_train=other),
            np.asarray(predict_action(est, "remove", np.arange(5), X[:8], y[:8]).change),
        ]
    for on_cpu, on_cuda in zip(found["cpu"], found["cuda"]):
        np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-4, atol=1e-6 * np.abs(on_cpu).max())


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_members_trained_at_once_are_those_of_skorch(optimizer):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(48, 4)).astype(np.float32)
    y = X[:, :1] ** 2
    net = NeuralNetRegressor(
        MLP, module__n_features=4, module__hidden=(6,), batch_size=16, max_epochs=3, train_split=None, verbose=0,
        device="cuda", iterator_train__shuffle=True, **optimizer,
    )  # fmt: skip
    members, _, _ = train_networks(net, X, y, [1, 2], recorder=TrajectoryRecorder(3))
    for seed, member in zip((1, 2), members, strict=True):
        alone, _, _ = train_clone(net, X, y, seed=seed, recorder=TrajectoryRecorder(3))
        for expected, value in zip(alone.module_.state_dict().values(), member.module_.state_dict().values()):
            assert value.device.type == "cuda"
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5)
    ensemble = AttributionEnsemble(InfluenceFunctions(), nets=members[1:]).fit(members[0], X, y)
    each = [InfluenceFunctions().fit(member, X, y).transform(X[:3]) for member in members]
    np.testing.assert_allclose(ensemble.transform(X[:3]), np.mean(each, axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["dropout", "dropout, forward only", "adapters"])
def test_members_of_one_network_on_the_device(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(48, 4)).astype(np.float32), rng.integers(3, size=48)
    net = NeuralNetClassifier(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)),
        criterion=nn.CrossEntropyLoss, batch_size=16, max_epochs=3, train_split=None, verbose=0, device="cuda", **SGD,
    ).fit(X, y)  # fmt: skip
    if kind == "adapters":
        est = LoRAEnsemble(GradientSimilarity(), n_members=2, rank=2, n_steps=5, random_state=0)
    else:
        est = DropoutEnsemble(TRAK(n_components=16), n_masks=3, forward_only=kind.endswith("only"), random_state=0)
    scores, again = (est.fit(net, X, y).transform(X[:4]) for _ in range(2))
    np.testing.assert_allclose(scores, again, rtol=1e-3, atol=1e-4 * np.abs(scores).max())
    assert np.isfinite(scores).all()
    assert scores.std() > 0


@pytest.mark.parametrize("method", ["source", "snapshots", "retrac", "trak"])
def test_draws_of_a_diffusion_model(method):
    make = {
        "source": lambda: SourceAttribution(n_draws=3, random_state=0),
        "snapshots": lambda: SnapshotInfluence(n_draws=3, random_state=0),
        "retrac": DiffusionReTrac,
        "trak": lambda: TRAK(n_components=16, random_state=0),
    }[method]
    X, queries, scores = diffusion_rows(), diffusion_rows(3, seed=1), {}
    for device in ("cpu", "cuda"):
        net = diffusion_net(X, device=device)
        scores[device] = make().fit(net, X).transform(queries)
    np.testing.assert_allclose(scores["cuda"], scores["cpu"], rtol=1e-2, atol=1e-3 * np.abs(scores["cpu"]).max())


def test_diffusion_models_of_images_retrain_and_sample_on_the_device():
    X = np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)
    net = diffusion_net(X, module=UNet, module__channels=(4,), device="cuda")
    assert net.sample(3, random_state=0).shape == (3, 1, 4, 4)
    truth = retrain_on_subsets(net, X, None, X[:2], n_subsets=2, n_repeats=1, random_state=0)
    again = retrain_on_subsets(
        diffusion_net(module=UNet, module__channels=(4,)), X, None, X[:2], n_subsets=2, n_repeats=1, random_state=0
    )
    np.testing.assert_allclose(truth.outputs, again.outputs, rtol=1e-2)
