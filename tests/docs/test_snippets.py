"""The code of README.md and of the documentation's pages runs as it stands, on a small problem."""

from __future__ import annotations

import functools
import re
import textwrap

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import Bunch
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor

import sklearn_source
from sklearn_source import (
    curvature,
    datasets,
    diffusion,
    inspection,
    metrics,
    model_selection,
    modules,
    retraining,
    stochastic,
)
from tests.docs._reference import DOCS, ROOT

PAGES = sorted(
    page
    for page in [ROOT / "README.md", DOCS / "index.rst", *(DOCS / "user_guide").glob("*.rst")]
    if re.search(r"```python|code-block:: python", page.read_text(encoding="utf-8"))
)


def snippets(page):
    """The blocks of Python of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", text + "\n", flags=re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def fewer(function, **settings):
    """``function`` with settings that a test can afford in the place of the page's."""

    @functools.wraps(function)
    def affordable(*args, **kwargs):
        return function(*args, **{**kwargs, **{k: v for k, v in settings.items() if k in kwargs}})

    return affordable


def small_split(load=datasets.load_concrete_split):
    """Few of the rows that pages load."""
    data = load()
    return Bunch(
        X_train=data.X_train[:120], y_train=data.y_train[:120], X_query=data.X_query[:4], y_query=data.y_query[:4]
    )


def namespace():
    """What a reader has at hand: imports, data, and a trained net."""
    names = {"np": np, "torch": torch, "FrozenEstimator": FrozenEstimator, "GridSearchCV": GridSearchCV}
    names.update(make_pipeline=make_pipeline, StandardScaler=StandardScaler, FunctionTransformer=FunctionTransformer)
    names.update(NeuralNet=NeuralNet, NeuralNetClassifier=NeuralNetClassifier, NeuralNetRegressor=NeuralNetRegressor)
    rooms = (curvature, datasets, diffusion, inspection, metrics, model_selection, modules, retraining, stochastic)
    for room in (sklearn_source, *rooms):
        names.update({name: getattr(room, name) for name in room.__all__})
    for name in ("retrain_on_subsets", "retrain_without"):
        names[name] = fewer(names[name], n_subsets=8, n_repeats=2)
    names["top_k_removals"] = fewer(names["top_k_removals"], k=[2, 5])
    data = small_split()
    names.update(X_train=data.X_train, y_train=data.y_train, X_query=data.X_query, y_query=data.y_query)
    names.update(X=names["X_train"], y=names["y_train"])
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        functools.partial(modules.MLP, hidden=(8,)),
        optimizer=torch.optim.SGD,
        lr=0.03,
        batch_size=30,
        max_epochs=3,
        train_split=None,
        verbose=0,
        callbacks=[sklearn_source.TrajectoryRecorder(n_checkpoints=6)],
    )
    net.fit(names["X"], names["y"])
    names["net"] = net
    names["est"] = sklearn_source.SourceAttribution(n_segments=2).fit(net, names["X"], names["y"])
    return names


def _stages(names):
    """Two halves for two stages."""
    names.update(X_first=names["X"][:60], y_first=names["y"][:60], X_second=names["X"][60:], y_second=names["y"][60:])


def _without_recorder(names):
    """What a training without the recorder leaves behind: state dicts, the last of them the net's."""
    final = names["net"].module_.state_dict()
    states = [{key: scale * value for key, value in final.items()} for scale in (0.5, 0.9, 1.0)]
    names.update(initial=states[0], epoch_10=states[1], epoch_20=states[2], rates=0.03)


def _truth(names):
    names["truth"] = names["retrain_on_subsets"](
        names["net"], names["X"], names["y"], names["X_query"], n_subsets=8, n_repeats=2, random_state=0
    )


def _metrics(names):
    names["is_mislabelled"] = np.arange(120) % 10 == 0


def _losses(names):
    """Rows of eight tokens and the next ones, some of them padding."""
    names["X"], names["y"] = datasets.next_tokens(np.random.default_rng(0).integers(0, 20, size=(12, 9)))


def _images(names):
    """A few, and a model of few epochs and timesteps."""
    names["X"] = np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)
    names["DiffusionNet"] = fewer(diffusion.DiffusionNet, max_epochs=2, n_timesteps=20, module__channels=(4, 8))
    names["DenoisingLoss"] = fewer(diffusion.DenoisingLoss, timesteps=5, n_timesteps=5)


# Page and block: what is at hand from there on.
PREPARE = {
    ("curvature.rst", 0): _truth,
    ("diffusion.rst", 0): _images,
    ("losses.rst", 0): _losses,
    ("metrics.rst", 0): _metrics,
    ("recording.rst", 3): _stages,
    ("recording.rst", 4): _without_recorder,
}


def test_pages_are_read():
    assert {"README.md", "index.rst", "recording.rst", "ground_truth.rst", "metrics.rst"} <= {p.name for p in PAGES}
    assert [len(snippets(ROOT / "README.md")), len(snippets(DOCS / "user_guide" / "metrics.rst"))] == [1, 3]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore")
def test_code_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)  # some write files
    if page.name in ("README.md", "index.rst"):
        monkeypatch.setattr(datasets, "load_concrete_split", small_split)
    names = namespace()
    for number, code in enumerate(snippets(page)):
        PREPARE.get((page.name, number), lambda names: None)(names)
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)  # noqa: S102
    pyplot.close("all")
