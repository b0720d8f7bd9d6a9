"""The examples of docs/developing.rst run, and pass the checks that the page names."""

from __future__ import annotations

import doctest
import importlib.util
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils import Bunch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_source import GradientSimilarity, InfluenceFunctions, SourceAttribution, TrajectoryRecorder
from sklearn_source.curvature import Diagonal
from sklearn_source.gradients import GradientEngine
from sklearn_source.gradients.layers import READERS
from sklearn_source.trajectory import Trajectory, segment_flow
from sklearn_source.trajectory._preconditioner import FAMILIES
from sklearn_source.utils.estimator_checks import parametrize_with_attribution_checks
from tests.docs._reference import DOCS

PAGE = (DOCS / "developing.rst").read_text(encoding="utf-8")


def example(name):
    """The module docs/developing/<name>.py, once, which the page shows."""
    assert f".. literalinclude:: developing/{name}.py" in PAGE
    full = f"docs_developing_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, DOCS / "developing" / f"{name}.py")
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


def test_every_example_is_shown():
    shown = {path.stem for path in (DOCS / "developing").glob("*.py") if f"developing/{path.name}" in PAGE}
    assert shown == {path.stem for path in (DOCS / "developing").glob("*.py")}


@parametrize_with_attribution_checks(
    [example("gradient_method").GradientDot(), example("feature_method").OutputDistance()]
)
def test_methods_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_curvature_has_the_mean_eigenvalue_of_the_diagonal(optimizer):
    net, X, y = trained(optimizer)
    Isotropic = example("curvature").Isotropic
    isotropic = InfluenceFunctions(curvature=Isotropic(fisher="empirical"), damping="mean_eigenvalue").fit(net, X, y)
    diagonal = InfluenceFunctions(curvature=Diagonal(fisher="empirical"), damping="mean_eigenvalue").fit(net, X, y)
    assert isotropic.damping_ == pytest.approx(diagonal.damping_, rel=1e-5)
    assert isotropic.set_params(curvature__fisher="exact").get_params()["curvature__fisher"] == "exact"
    # With one eigenvalue everywhere scores are inner products of gradients.
    dot = GradientSimilarity(metric="dot").fit(net, X, y).transform(X[:3])
    assert np.corrcoef(isotropic.transform(X[:3]).ravel(), dot.ravel())[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.isfinite(SourceAttribution(curvature=Isotropic(), n_segments=2).fit(net, X, y).transform(X[:3])).all()


@pytest.fixture
def prelu():
    """The reader of the page, known for as long as the test runs."""
    READERS[F.prelu] = reader = example("layer")._prelu
    yield reader
    READERS.pop(F.prelu, None)


@pytest.mark.parametrize(("slopes", "kind"), [(3, "affine"), (1, "layer")])
def test_a_kind_of_layer_has_the_gradients_of_autograd(prelu, slopes, kind):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.PReLU(slopes), nn.Flatten(), nn.Linear(12, 1)).double()
    x = torch.randn(6, 2, 5, dtype=torch.float64)
    engine = GradientEngine(module, module, None, None)
    engine.verify(x)
    block = next(i for i, block in enumerate(engine.blocks) if block.parameters == ("1.weight",))
    assert engine.blocks[block].kind == kind  # "layer": by torch.func on the layer
    with engine.attached():
        capture = engine.capture(x)
        found = capture.pull(torch.ones_like(capture.output))[block].matrix()
    expected = torch.stack([torch.autograd.grad(module(row[None]).sum(), module[1].weight)[0] for row in x])
    torch.testing.assert_close(found.reshape(expected.shape), expected)


def test_metric():
    module = example("metric")
    assert doctest.testmod(module).attempted
    assert doctest.testmod(module).failed == 0
    rng = np.random.default_rng(0)
    masks = np.vstack([np.ones((1, 200), dtype=bool), ~np.eye(200, dtype=bool)])
    truth = Bunch(masks=masks, outputs=rng.standard_normal((201, 1, 5)))
    effect = truth.outputs[0, 0] - truth.outputs[1:, 0]  # (200, 5)
    assert module.sign_agreement_score(effect.T, truth).score == 1.0
    assert abs(module.sign_agreement_score(rng.standard_normal((5, 200)), truth).score - 0.5) < 0.05


@pytest.fixture
def AdaBelief():
    """The optimizer of the page; its family is known for as long as the test runs."""
    module = example("optimizer")
    name = f"{module.AdaBelief.__module__}.AdaBelief"
    FAMILIES[name] = module._AdaBelief()
    yield module.AdaBelief
    FAMILIES.pop(name, None)


def trained(optimizer):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3)).astype(np.float32)
    y = (X @ np.ones((3, 1)) + 0.1 * rng.standard_normal((40, 1))).astype(np.float32)
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        torch.nn.Linear,
        module__in_features=3,
        module__out_features=1,
        optimizer=optimizer,
        lr=0.05,
        batch_size=10,
        max_epochs=10,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=4)],
    )
    return net.fit(X, y), X, y


def test_an_optimizer_is_covered_by_its_family(AdaBelief):
    net, X, y = trained(AdaBelief)
    trajectory = Trajectory.from_net(net)
    last = trajectory.checkpoints[-1]
    flow = segment_flow(trajectory, 0, last.step, 0, [last], [1.0])
    for name, parameter in net.module_.named_parameters():
        variance = net.optimizer_.state[parameter]["exp_avg_var"] / (1 - 0.999**last.step)
        torch.testing.assert_close(flow.preconditioner[name], 1 / (variance.sqrt() + 1e-8))
    scores = SourceAttribution(n_segments=2).fit(net, X, y).transform(X[:3])
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() > 0


def test_without_its_family_it_is_refused(AdaBelief):
    del FAMILIES[f"{AdaBelief.__module__}.AdaBelief"]
    net, X, y = trained(AdaBelief)
    with pytest.raises(ValueError, match="AdaBelief, whose steps are not known"):
        SourceAttribution(n_segments=2).fit(net, X, y)
