"""Bad input: one clear error each, which says what was expected, what came and what to do; nothing is changed by it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklearn_source import (
    GradientSimilarity,
    InfluenceFunctions,
    RepresentationSimilarity,
    SourceAttribution,
    TracIn,
    Trajectory,
    TrajectoryRecorder,
)
from sklearn_source.curvature import EKFAC, KFAC, Diagonal, ExactGaussNewton
from sklearn_source.modules import MLP
from sklearn_source.utils.estimator_checks._net_fingerprint import changed, fingerprint
from tests._methods import GRADIENT_METHODS, METHODS, RECORDED
from tests._nets import make_net

GRADIENT = GRADIENT_METHODS

RNG = np.random.RandomState(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = (X[:, :1] - X[:, 1:2] + 0.1 * RNG.normal(size=(20, 1))).astype(np.float32)
LABELS = (Y[:, 0] > 0).astype(np.int64)
QUERIES = RNG.normal(size=(5, 4)).astype(np.float32)

every_method = pytest.mark.parametrize("method", METHODS)
recorded_methods = pytest.mark.parametrize("method", RECORDED)
gradient_methods = pytest.mark.parametrize("method", GRADIENT)


def trained(net, X=X, y=Y):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return net.fit(X, y)


def classifier(**options):
    options = {"module__n_outputs": 2, "criterion": nn.CrossEntropyLoss, **options}
    return make_net(NeuralNetClassifier, **options)


@pytest.fixture(scope="module")
def net():
    return trained(make_net())


@pytest.fixture(scope="module")
def labelled():
    return trained(classifier(), X, LABELS)


@pytest.fixture(autouse=True)
def nets_stay_as_they_are(request, net, labelled):
    """Every test here hands bad input along with one of these nets."""
    before = [fingerprint(net), fingerprint(labelled)]
    yield
    for known, used in zip(before, (net, labelled)):
        # Nets of the tests' own are initialized with global random numbers.
        assert not [aspect for aspect in changed(known, fingerprint(used)) if "random state" not in aspect]


def spoiled(array, value, index=(2, 0)):
    array = array.copy()
    array[index] = value
    return array


# --- the network ----------------------------------------------------------------------------------------------------


@every_method
def test_an_untrained_net(method):
    with pytest.raises(NotFittedError, match=r"NeuralNetRegressor is not trained: call net.fit\(X, y\) first"):
        method().fit(make_net(), X, Y)
    with pytest.raises(NotFittedError, match="is not trained"):
        method(FrozenEstimator(make_net())).fit(X, Y)


@recorded_methods
def test_no_recorder(method):
    net = trained(make_net(recorded=False))
    with pytest.raises(ValueError, match=r"has none. Add callbacks=\[TrajectoryRecorder\(\)\] to the net and fit it"):
        method().fit(net, X, Y)


@recorded_methods
def test_a_recorder_that_saw_nothing(method):
    with pytest.raises(ValueError, match="saw no training step. Call net.fit"):
        method().fit(make_net(module__n_features=4).initialize(), X, Y)


@recorded_methods
def test_weights_that_the_recorder_did_not_see(method):
    net = trained(make_net())
    with torch.no_grad():
        net.module_.layers[0].weight.add_(1)
    with pytest.raises(ValueError, match="weights that its TrajectoryRecorder saw.*Fit again"):
        method().fit(net, X, Y)
    assert InfluenceFunctions().fit(net, X, Y).transform(QUERIES).any()  # needs no record


@every_method
def test_not_a_skorch_net(method):
    for wrong, named in [(LinearRegression(), "a LinearRegression"), (MLP(4), "a MLP"), (make_net, "a function")]:
        with pytest.raises(
            TypeError,
            match=f"expected the network, .* or a pipeline that ends in one, got {named}: wrap",
        ):
            method(wrong).fit(X, Y)
        with pytest.raises(TypeError, match=f"got {named}"):
            method().fit(X, Y, net=wrong)
    with pytest.raises(TypeError, match="got the class NeuralNetRegressor"):
        method(NeuralNetRegressor).fit(X, Y)
    with pytest.raises(ValueError, match="no network: pass a trained skorch net"):
        method().fit(X, Y)


class Mine(torch.optim.Adam):
    """A user's own optimizer: nothing is known of its steps."""

    def step(self, closure=None):
        return super().step(closure)


@recorded_methods
@pytest.mark.parametrize("optimizer", [torch.optim.Rprop, Mine])
def test_optimizers_that_are_not_covered(method, optimizer):
    net = trained(make_net(optimizer=optimizer, lr=0.01))
    with pytest.raises(
        ValueError, match=rf"with (\S+\.)?{optimizer.__name__}, whose steps are not known.*Covered: SGD, Adam"
    ):
        method().fit(net, X, Y)
    assert InfluenceFunctions().fit(net, X, Y).transform(QUERIES).any()


@recorded_methods
def test_an_adaptive_optimizer_without_its_state(method):
    recorder = TrajectoryRecorder(optimizer_state=False)
    net = trained(make_net(optimizer=torch.optim.AdamW, lr=0.01, callbacks=[recorder]))
    with pytest.raises(ValueError, match="AdamW, whose steps depend on a state that was not recorded.*optimizer_state"):
        method().fit(net, X, Y)


@recorded_methods
def test_the_state_of_another_optimizer(method):
    net = trained(make_net(optimizer=torch.optim.AdamW, lr=0.01))
    trajectory = Trajectory.from_net(net)
    wrong = Trajectory(trajectory.checkpoints, [dataclasses.replace(s, optimizer="RMSprop") for s in trajectory.stages])
    with pytest.raises(ValueError, match=r"lacks \['square_avg'\], which RMSprop keeps"):
        method(trajectory=wrong).fit(net, X, Y)


def test_too_few_checkpoints(net):
    message = "at least 9 checkpoints.*has 6 there. Lower n_segments to 6 or less, or record more: TrajectoryRecorder"
    with pytest.raises(ValueError, match=message):
        SourceAttribution(n_segments=9).fit(net, X, Y)


@gradient_methods
def test_nothing_trainable(method):
    net = trained(make_net())
    net.module_.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter with requires_grad=True: there is nothing to attribute to"):
        method().fit(net, X, Y)
    net.module_.layers[2].requires_grad_(True)
    assert method().fit(net, X, Y).transform(QUERIES).any()  # frozen layers are left out, not refused
    assert not net.module_.layers[0].weight.requires_grad
    with pytest.raises(ValueError, match="layers: 'layers.0' has no trainable parameter"):
        method(layers="layers.0").fit(net, X, Y)


class Coupled(nn.Module):
    """A criterion whose rows meet."""

    def forward(self, output, y):
        return (output - output.mean()).square().mean() + (output - y).square().mean()


class Centred(nn.Module):
    """A module whose rows meet."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, X):
        return self.linear(X - X.mean(0)).tanh()


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, X):
        return self.linear(X + torch.randn(X.shape, generator=torch.Generator().manual_seed(len(X))))


@every_method
def test_rows_that_meet(method):
    net = trained(make_net(criterion=Coupled))
    if method is RepresentationSimilarity:  # asks for no loss
        assert method().fit(net, X, Y).transform(QUERIES).any()
    else:
        with pytest.raises(ValueError, match="the criterion couples rows: the loss of a row changes with the other"):
            method().fit(net, X, Y)
    for module in (Centred, Noisy):
        with pytest.raises(ValueError, match="output for a row changes with the other rows of its batch, or from call"):
            method().fit(trained(make_net(module=module)), X, Y)


@every_method
def test_targets_that_broadcast(method):
    net = make_net(NeuralNet, criterion=nn.MSELoss)
    with pytest.warns(UserWarning, match="target size"):
        trained(net, X, Y[:, 0])
    if method is RepresentationSimilarity:  # asks for no targets
        assert method().fit(net, X, Y[:, 0]).transform(QUERIES).any()
        return
    with pytest.raises(ValueError, match=r"\(4, 1\) and y of shape \(4,\).*Reshape y with y.reshape\(-1, 1\)"):
        method().fit(net, X, Y[:, 0])


@every_method
def test_weights_that_are_not_finite(method):
    net = trained(make_net(recorded=False))
    with torch.no_grad():
        net.module_.layers[0].weight[0, 0] = torch.nan
    if method in RECORDED:
        net = make_net(lr=1e12, max_epochs=30)
        trained(net)
    match = "(outputs|activations of layer 'layers.2') are not finite on a batch of rows: its training diverged"
    with pytest.raises(ValueError, match=match):
        method().fit(net, X, Y)


# --- the training rows ----------------------------------------------------------------------------------------------


@every_method
def test_rows_that_are_not_those_trained_on(method, net):
    unknown = "not the rows that the network was trained on"
    for rows, counts in [
        ((X + 1, Y), "of the 20 given, 20 were not among them"),
        ((spoiled(X, 9), Y), "of the 20 given, 1 were not among them, and 1 that it trained on are missing"),
        ((X, spoiled(Y, 9)), "of the 20 given, 1 were not among them"),
        ((X[:9], Y[:9]), "of the 9 given, 0 were not among them, and 11 that it trained on are missing"),
        ((np.r_[X, QUERIES], np.r_[Y, Y[:5]]), "of the 25 given, 5 were not among them"),
        ((np.r_[X, X[:1]], np.r_[Y, Y[:1]]), "of the 21 given, 1 were not among them"),
        ((np.c_[X, X], Y), "of the 20 given, 20 were not among them"),
    ]:
        with pytest.raises(ValueError, match=f"{unknown}.*{counts}.*Pass the X and y given to net.fit"):
            method().fit(net, *rows)


def test_fewer_rows_than_an_unrecorded_net_was_trained_on():
    net = trained(make_net(recorded=False))
    with pytest.raises(ValueError, match="trained on 20 rows, fit got 9: pass all the rows given to net.fit"):
        InfluenceFunctions().fit(net, X[:9], Y[:9])


@every_method
@pytest.mark.parametrize("value, named", [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("container", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_rows_that_are_not_finite(method, net, value, named, container):
    with pytest.raises(ValueError, match=f"Input X contains {named}"):
        method().fit(net, container(spoiled(X, value)), container(Y))
    with pytest.raises(ValueError, match=f"Input y contains {named}"):
        method().fit(net, container(X), container(spoiled(Y, value)))
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(spoiled(X, value)), torch.from_numpy(Y))
    with pytest.raises(ValueError, match=f"Input X contains {named}"):
        method().fit(net, dataset)


@every_method
def test_rows_that_the_network_cannot_read(method):
    net = trained(make_net(recorded=False))
    if method in RECORDED:
        return  # not the rows trained on, which is said before
    with pytest.raises(ValueError, match=r"cannot read X, floats of shape \(8,\) per row: pass the X given to net.fit"):
        method().fit(net, np.c_[X, X], Y)


@every_method
def test_targets_missing_short_or_strings(method, net, labelled):
    for container in (np.asarray, torch.from_numpy):
        # Rows recorded with targets are recognised with them, whether a method looks at them or not.
        with pytest.raises(ValueError, match="requires y|not the rows.*Pass the X and y given to net.fit"):
            method().fit(net, container(X))
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[20, 5\]|20 rows and y with 5"):
            method().fit(net, container(X), container(Y[:5]))
    for kind in (str, object):
        names = np.array(["no", "yes"], dtype=kind)[LABELS]
        with pytest.raises(ValueError, match="Unknown label type.*'yes'.*encode labels as integers 0 to n_classes - 1"):
            method().fit(labelled, X, names)
        with pytest.raises(ValueError, match="Unknown label type"):
            method(classifier()).fit(X, names)
    with pytest.raises(ValueError, match="not the rows|labels in 0..1"):
        method().fit(labelled, X, LABELS + 5)
    with pytest.raises(ValueError, match="class labels 0 to 1, as the network has 2 outputs, got 5 to 6: encode them"):
        method(classifier()).fit(X, LABELS + 5)
    with pytest.raises(ValueError, match="got fractions in y"):
        method().fit(labelled, X, LABELS + 0.5)


@recorded_methods
def test_stages_that_were_not(method, net):
    with pytest.raises(ValueError, match=r"stage names \[1\], but the training had the stages \[0\]"):
        method().fit(net, X, Y, stage=np.ones(20, dtype=int))
    with pytest.raises(ValueError, match=r"one integer per row, shape \(20,\); got int64 of shape \(1,\)"):
        method().fit(net, X, Y, stage=[0])
    with pytest.raises(ValueError, match="one integer per row.*float64"):
        method().fit(net, X, Y, stage=np.zeros(20))


# --- the queries ----------------------------------------------------------------------------------------------------


@every_method
def test_before_fit(method):
    for ask in ("transform", "top_influences"):
        with pytest.raises(NotFittedError, match=f"This {method.__name__} instance is not fitted yet"):
            getattr(method(), ask)(QUERIES)
    for ask in ("self_influence", "get_feature_names_out"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(method(), ask)()


@every_method
def test_queries_that_cannot_be_read(method, net):
    est = method().fit(net, X, Y)
    for ask in (est.transform, est.top_influences):
        for container in (np.asarray, torch.from_numpy):
            for value, named in [(np.nan, "NaN"), (np.inf, "infinity")]:
                with pytest.raises(ValueError, match=f"Input X contains {named}"):
                    ask(container(spoiled(QUERIES, value)))
            with pytest.raises(ValueError, match="X has 3 features, but .* is expecting 4 features"):
                ask(container(QUERIES[:, :3]))
            with pytest.raises(
                ValueError, match=r"shape \(4,\), got floats of shape \(1, 4\) \(another number of axes"
            ):
                ask(container(QUERIES[:, None]))
            with pytest.raises(ValueError, match=r"0 sample\(s\)|at least one row"):
                ask(container(QUERIES[:0]))
        with pytest.raises(ValueError, match="infinity or a value too large for"):
            ask(spoiled(QUERIES.astype(np.float64), 1e300))
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            ask(QUERIES[0])
        with pytest.raises(ValueError):
            ask(None)
    assert np.isfinite(est.transform(QUERIES)).all()


@every_method
def test_number_of_rows_wanted(method, net):
    est = method().fit(net, X, Y)
    for k in (0, -1, 21, 2.0, True, "3", None):
        with pytest.raises(
            ValueError, match=f"expected k to be an integer from 1 to 20, the number of training rows, got {k!r}"
        ):
            est.top_influences(QUERIES, k=k)
    with pytest.raises(ValueError, match="expected order to be one of .'supporting', 'opposing'., got 'best'"):
        est.top_influences(QUERIES, k=1, order="best")


# --- the measurement and the layers ---------------------------------------------------------------------------------


@gradient_methods
def test_measurements_that_cannot_be(method, net, labelled):
    est = method(measurement="neg_loss").fit(net, X, Y)
    for ask in (est.transform, est.top_influences):
        with pytest.raises(ValueError, match=r"compares the prediction with a target: pass y of the queries"):
            ask(QUERIES)
        with pytest.raises(ValueError, match="Input y contains NaN"):
            ask(QUERIES, np.full((5, 1), np.nan))
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[5, 2\]"):
            ask(QUERIES, Y[:2])
    with pytest.raises(ValueError, match='"log_odds" needs a classifier, but this network is a regressor'):
        method(measurement="log_odds").fit(net, X, Y)
    several = trained(make_net(module__n_outputs=3), X, X[:, :3])
    with pytest.raises(ValueError, match=r"outputs of shape \(3,\) per row: name the one to attribute, output=0"):
        method().fit(several, X, X[:, :3])
    with pytest.raises(ValueError, match=r"to index a row's outputs of shape \(3,\), got 5"):
        method(output=5).fit(several, X, X[:, :3])
    with pytest.raises(ValueError, match="has no meaning for 'log_odds'"):
        method(output=0).fit(labelled, X, LABELS)
    with pytest.raises(ValueError, match=r"return a tensor of shape \(batch,\), got \(\)"):
        method(measurement=lambda output, target: output.sum()).fit(net, X, Y).transform(QUERIES)
    with pytest.raises(ValueError, match="'measurement' parameter"):
        method(measurement="accuracy").fit(net, X, Y)


def test_a_similarity_of_representations_needs_no_output():
    several = trained(make_net(module__n_outputs=3), X, X[:, :3])
    assert RepresentationSimilarity().fit(several, X, X[:, :3]).transform(QUERIES).any()


@gradient_methods
def test_labels_of_queries(method, labelled):
    est = method().fit(labelled, X, LABELS)
    with pytest.raises(ValueError, match="labels in 0..1, got 7 to 7: encode them as in training"):
        est.transform(QUERIES, np.full(5, 7))
    with pytest.raises(ValueError, match="Unknown label type.*'a'"):
        est.transform(QUERIES, np.array(["a"] * 5))
    with pytest.raises(ValueError, match="got fractions in y"):
        est.transform(QUERIES, np.full(5, 0.5))


@gradient_methods
def test_layers_that_do_not_exist(method, net):
    with pytest.raises(ValueError, match=r"no layer or parameter 'layer.2'; did you mean one of \['layers.2'"):
        method(layers=["layers.0", "layer.2"]).fit(net, X, Y)
    with pytest.raises(ValueError, match="'layers.1' has no trainable parameter"):
        method(layers="layers.1").fit(net, X, Y)
    with pytest.raises(ValueError, match="an empty list chooses no parameter; None stands for all"):
        method(layers=[]).fit(net, X, Y)


def test_a_representation_that_does_not_exist(net):
    with pytest.raises(ValueError, match=r"has no layer 'layers.9'; did you mean one of \['layers.2'"):
        RepresentationSimilarity(layer="layers.9").fit(net, X, Y)


# --- checkpoints and files ------------------------------------------------------------------------------------------


def from_checkpoints(net, spoil=lambda i, state: state, **options):
    points = Trajectory.from_net(net).checkpoints
    states = [spoil(i, {k: v.clone() for k, v in {**p.parameters, **p.buffers}.items()}) for i, p in enumerate(points)]
    options = {"module": net.module_, "n_rows": len(X), "X": X, "y": Y, **options}
    return Trajectory.from_checkpoints(states, [p.step for p in points], 0.05, **options)


@recorded_methods
def test_a_checkpoint_that_is_not_finite(method, net):
    """Training went through infinity and came back: the error names where."""

    def spoil(i, state):
        if i == 3:
            state["layers.0.weight"][1, 2] = torch.inf
        return state

    trajectory = from_checkpoints(net, spoil)
    step = trajectory.checkpoints[3].step
    for options in [{}, {"curvature": "exact"}] if method is SourceAttribution else [{}]:
        with pytest.raises(ValueError, match=f"layer 'layers.[02]' at (step|the checkpoint of step) {step}"):
            method(trajectory=trajectory, **options).fit(net, X, Y).transform(QUERIES)
    assert method(trajectory=from_checkpoints(net)).fit(net, X, Y).transform(QUERIES).any()


@pytest.mark.parametrize("curvature", ["ekfac", "kfac", "diagonal"])
def test_a_factor_that_is_not_finite(net, curvature):
    def spoil(i, state):
        if i == 2:
            state["layers.2.weight"] *= 1e25
        return state

    trajectory = from_checkpoints(net, spoil)
    step = trajectory.checkpoints[2].step
    with pytest.raises(ValueError, match=f"layer 'layers.0' at step {step} is not finite.*Look at this checkpoint"):
        SourceAttribution(trajectory=trajectory, curvature=curvature).fit(net, X, Y)


@recorded_methods
def test_a_trajectory_of_another_training(method, net):
    other = trained(make_net(lr=0.01))
    with pytest.raises(
        ValueError, match=r"ends at other weights than the net's \(layers.0.weight.*pass the trajectory"
    ):
        method(trajectory=Trajectory.from_net(other)).fit(net, X, Y)


@recorded_methods
def test_files_that_are_missing_truncated_or_foreign(method, net, tmp_path):
    path = tmp_path / "kept"
    Trajectory.from_net(net).save(path)
    files = sorted(path.glob("*.safetensors"))
    checkpoint = next(file for file in files if not file.name.startswith("arrays"))
    whole = checkpoint.read_bytes()

    def spoil(name, content=None):
        copy = tmp_path / name
        shutil.copytree(path, copy)
        target = copy / checkpoint.name
        target.unlink()
        if content is not None:
            target.write_bytes(content)
        return copy

    for copy in (
        spoil("missing"),
        spoil("truncated", whole[: len(whole) // 2]),
        spoil("empty", b""),
        spoil("foreign", b"PK\x03\x04 not one of ours"),
        spoil("other", next(f for f in files if f not in (checkpoint, files[-1])).read_bytes()),
    ):
        before = contents(copy)
        with pytest.raises(
            ValueError, match=f"{checkpoint.name}: expected .*(?s:.)*(restore it|record the trajectory)"
        ):
            method(trajectory=copy).fit(net, X, Y)
        assert contents(copy) == before
    with pytest.raises(ValueError, match="Give the directory that Trajectory.save or TrajectoryRecorder"):
        method(trajectory=tmp_path / "nowhere").fit(net, X, Y)
    assert method(trajectory=path).fit(net, X, Y).transform(QUERIES).any()
    assert method(trajectory=str(path)).fit(net, X, Y).transform(QUERIES).any()


@recorded_methods
def test_recorded_files_stay_as_they_are(method, tmp_path):
    net = trained(make_net(callbacks=[TrajectoryRecorder(n_checkpoints=4, dirname=tmp_path / "run")]))
    before = contents(tmp_path)
    est = method().fit(net, X, Y)
    est.transform(QUERIES)
    with pytest.raises(ValueError):
        method().fit(net, X[:5], Y[:5])
    assert contents(tmp_path) == before
    # The last checkpoint: the first weights are not read by every method.
    spoiled_file = [f for f in sorted((tmp_path / "run").glob("*.safetensors")) if "arrays" not in f.name][-1]
    spoiled_file.write_bytes(spoiled_file.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{spoiled_file.name}: expected a complete safetensors file"):
        method().fit(net, X, Y)


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "est, named",
    [
        (SourceAttribution(n_segments=0), "n_segments"),
        (SourceAttribution(curvature="hessian"), "curvature"),
        (SourceAttribution(curvature=EKFAC), "curvature"),
        (InfluenceFunctions(curvature=None), "curvature"),
        (SourceAttribution(trajectory=3), "trajectory"),
        (InfluenceFunctions(damping=-1), "damping"),
        (TracIn(quadrature="left"), "quadrature"),
        (GradientSimilarity(metric="l1"), "metric"),
        (RepresentationSimilarity(layer=0), "layer"),
        (TracIn(batch_size=0), "batch_size"),
        (InfluenceFunctions(random_state="seed"), "random_state"),
        (SourceAttribution(output=-1), "output"),
    ],
)
def test_parameters_out_of_range(est, named, net):
    with pytest.raises(ValueError, match=f"'{named}' parameter of {type(est).__name__} must be"):
        est.fit(net, X, Y)


@pytest.mark.parametrize(
    "curvature, named",
    [
        (EKFAC(basis="eigen"), "basis"),
        (KFAC(basis=None), "basis"),
        (EKFAC(fisher=1), "fisher"),
        (Diagonal(fisher="true"), "fisher"),
        (ExactGaussNewton(n_samples=0), "n_samples"),
        (EKFAC(cache_size=-1), "cache_size"),
        (KFAC(memory=3), "memory"),
    ],
)
@pytest.mark.parametrize("method", [SourceAttribution, InfluenceFunctions])
def test_parameters_of_a_curvature_out_of_range(method, curvature, named):
    """Said before a network is trained."""
    net = make_net(max_epochs=10**9)
    with pytest.raises(ValueError, match=f"'{named}' parameter of {type(curvature).__name__} must be"):
        method(net, curvature=curvature).fit(X, Y)


@pytest.mark.parametrize("method", [SourceAttribution, InfluenceFunctions])
@pytest.mark.parametrize("name", ["basis", "fisher", "n_samples", "cache_size", "memory"])
def test_parameters_of_a_curvature_are_not_the_methods(method, name):
    with pytest.raises(TypeError, match=name):
        method(**{name: 1})
    with pytest.raises(ValueError, match=f"Invalid parameter '{name}'"):
        method().set_params(**{name: 1})


def test_parameters_of_a_curvature_that_is_none():
    for curvature, error in (("hessian", ValueError), (None, TypeError), (3, TypeError)):
        with pytest.raises(error, match=f"expected curvature= to be one of 'ekfac', .* got {curvature!r}"):
            SourceAttribution(curvature=curvature).set_params(curvature__basis="kfac")
    with pytest.raises(TypeError, match="write it with parentheses"):
        SourceAttribution(curvature=EKFAC).set_params(curvature__basis="kfac")
    with pytest.raises(ValueError, match="Invalid parameter 'basis' for estimator Diagonal"):
        SourceAttribution(curvature="diagonal").set_params(curvature__basis="kfac")


def test_a_similarity_of_representations_asks_nothing_of_the_criterion():
    net = trained(classifier(criterion=nn.MultiMarginLoss), X, LABELS)
    assert RepresentationSimilarity().fit(net, X, LABELS).transform(QUERIES).any()
    with pytest.raises(ValueError, match='"log_odds" needs a criterion that says what the outputs are'):
        GradientSimilarity().fit(net, X, LABELS)


def test_a_column_of_labels_is_told_what_to_be():
    labels = np.arange(len(X)) % 2
    net = make_net(NeuralNetClassifier, criterion=nn.CrossEntropyLoss, module__n_outputs=2).fit(X, labels)
    with pytest.raises(ValueError, match=r"shape \(n,\) for outputs of shape \(n, 2\), got \(n, 1\).*ravel.*iloc"):
        InfluenceFunctions().fit(net, X, labels[:, None])
