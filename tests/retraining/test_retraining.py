"""The result: saved and read, merged, and what it refuses."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from sklearn.utils import Bunch

from sklearn_source.metrics import linear_datamodeling_score
from sklearn_source.retraining import Retraining, retrain_on_subsets
from tests.retraining._problems import make_net, rows


def made_up(seed=0, n_subsets=4, n_repeats=2, **options):
    rng = np.random.default_rng(seed)
    masks = np.random.default_rng(0).random((n_subsets, 7)) < 0.5
    outputs = rng.normal(size=(n_subsets, n_repeats, 3)).astype(np.float32)
    seeds = rng.integers(2**63, size=(n_subsets, n_repeats), dtype=np.uint64)
    settings = {"fingerprint": "a", "engine": "joblib", "nested": {"list": [1, 2.5, None, "é"]}}
    return Retraining(**{"masks": masks, "outputs": outputs, "measurement": "prediction", "seeds": seeds,
                         "settings": settings, **options})  # fmt: skip


@pytest.mark.parametrize("names", [None, ["all", "a", "b", "c"]])
@pytest.mark.parametrize("name", ["truth", "truth.npz", "truth.v2"])
def test_saved_and_read_without_pickle(tmp_path, names, name):
    one = made_up(names=names, row_hashes=np.arange(7))
    path = one.save(tmp_path / "folder" / name)
    assert path.suffix == ".npz"
    two = Retraining.load(tmp_path / "folder" / name)
    for field in ("masks", "outputs", "seeds", "row_hashes"):
        mine, theirs = getattr(one, field), getattr(two, field)
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert (two.measurement, two.settings, two.names) == (one.measurement, one.settings, names)
    with zipfile.ZipFile(path) as file:  # nothing in it is a pickle: readable by anything that reads npz and JSON
        members = {info.filename: file.read(info) for info in file.infolist()}
    assert not any(b"|O" in content[:128] for content in members.values())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_real_one_is_json(tmp_path):
    X, y, X_query = rows()
    one = retrain_on_subsets(make_net(), X, y, X_query, n_subsets=3, n_repeats=2, random_state=0)
    json.dumps(one.settings)
    two = Retraining.load(one.save(tmp_path / "t"))
    np.testing.assert_array_equal(one.outputs, two.outputs)
    scores = np.random.default_rng(0).normal(size=(one.n_query, one.n_train))
    assert linear_datamodeling_score(scores, one).interval == linear_datamodeling_score(scores, two).interval
    assert (one.n_subsets, one.n_repeats, one.n_query, one.n_train) == (3, 2, len(X_query), len(X))
    assert one.outputs.dtype == np.float32


@pytest.mark.filterwarnings("error")
def test_damaged_and_foreign_files_are_named(tmp_path):
    path = made_up().save(tmp_path / "t")
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"expected a complete \.npz .* got .*t\.npz, which"):
            Retraining.load(path)
    np.savez(tmp_path / "other", masks=np.ones(3))
    with pytest.raises(ValueError, match="cannot be read"):
        Retraining.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled", **{"about.json": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="cannot be read"):
        Retraining.load(tmp_path / "pickled.npz")
    np.save(tmp_path / "array", np.ones(3))
    with pytest.raises(ValueError, match=r"array\.npy, which cannot be read"):
        Retraining.load(tmp_path / "array.npy")
    with pytest.raises(ValueError, match="nowhere"):
        Retraining.load(tmp_path / "nowhere")


def test_merge_adds_repeats():
    one, two = made_up(0), made_up(1, n_repeats=3)
    one.row_hashes = np.arange(7, dtype=np.uint64)
    merged = one.merge(two)
    assert merged.row_hashes is one.row_hashes
    assert one.n_repeats == 2
    assert (merged.n_repeats, merged.n_subsets) == (5, 4)
    np.testing.assert_array_equal(merged.outputs, np.concatenate([one.outputs, two.outputs], axis=1))
    np.testing.assert_array_equal(merged.seeds[:, 2:], two.seeds)
    np.testing.assert_allclose(merged.mean(), (2 * one.mean() + 3 * two.mean()) / 5)


def test_merge_of_real_ones_and_the_masks_that_allow_it():
    X, y, X_query = rows()
    options = {"n_repeats": 1, "n_subsets": 3}
    one = retrain_on_subsets(make_net(), X, y, X_query, random_state=0, **options)
    two = retrain_on_subsets(make_net(), X, y, X_query, random_state=1, subsets=one.masks, **options)
    assert one.merge(two).n_repeats == 2
    with pytest.raises(ValueError, match="same subsets"):
        one.merge(retrain_on_subsets(make_net(), X, y, X_query, random_state=1, **options))
    other = retrain_on_subsets(make_net(lr=0.04), X, y, X_query, random_state=1, subsets=one.masks, **options)
    with pytest.raises(ValueError, match="only repeats can be added"):
        one.merge(other)


@pytest.mark.parametrize(
    "other, message",
    [
        (lambda: made_up(0), "counted twice"),
        (lambda: made_up(1, measurement="log_odds"), "same network, rows"),
        (lambda: made_up(1, settings={"fingerprint": "b"}), "same network, rows"),
        (lambda: made_up(1, n_subsets=3), "same subsets"),
        (lambda: Bunch(), "expected a Retraining"),
    ],
)
def test_merge_refuses(other, message):
    with pytest.raises(ValueError, match=message):
        made_up().merge(other())


def test_effects_are_with_minus_without():
    masks = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0]], dtype=bool)
    outputs = np.array([[[1.0, 2.0]], [[4.0, 1.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    one = Retraining(masks, outputs, "prediction", np.zeros((4, 1)))
    np.testing.assert_array_equal(one.effects(), [[-2, 2], [2, 3]])
    with pytest.raises(ValueError, match="4 subsets that all lack some"):
        made_up().effects()


@pytest.mark.parametrize("change", [{"masks": np.ones((4, 7))}, {"outputs": np.ones((4, 3))}, {"names": ["a"]},
                                    {"row_hashes": np.ones(3)},
                                    {"seeds": np.ones((4, 3))}])  # fmt: skip
def test_shapes_must_fit(change):
    with pytest.raises(ValueError, match="expected"):
        made_up(**change)
