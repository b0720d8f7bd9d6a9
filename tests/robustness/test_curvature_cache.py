"""What memory= keeps between fits: numbers alone, and only as they were written."""

from __future__ import annotations

import os
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from sklearn_source import InfluenceFunctions, SourceAttribution
from sklearn_source.curvature import EKFAC, KFAC, Diagonal, ExactGaussNewton
from sklearn_source.curvature._entries import Entries
from sklearn_source.modules import MLP
from sklearn_source.utils._random import seeded
from tests._nets import make_net

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(20, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
RAN = []


class Planted:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return RAN.append, ("code from the folder ran",)


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net(module__hidden=(4,)).fit(X, y)


def scores(net, memory, kind=EKFAC, method=SourceAttribution):
    options = {"n_segments": 2} if method is SourceAttribution else {}
    return method(curvature=kind(memory=memory), **options).fit(net, X, y).transform(X[:3])


@pytest.mark.parametrize("kind", [EKFAC, KFAC, Diagonal, ExactGaussNewton])
@pytest.mark.parametrize("method", [SourceAttribution, InfluenceFunctions])
def test_what_is_read_gives_the_same_bits(net, kind, method, tmp_path, monkeypatch):
    expected = scores(net, None, kind, method)
    np.testing.assert_array_equal(scores(net, tmp_path, kind, method), expected)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    monkeypatch.setattr(kind, "_fit", None)  # nothing is fitted again
    for memory in (tmp_path, str(tmp_path), joblib.Memory(tmp_path, verbose=0)):
        np.testing.assert_array_equal(scores(net, memory, kind, method), expected)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == written


def test_planted_code_does_not_run(net, tmp_path):
    expected = scores(net, tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(pickle.dumps(Planted()))
    for path in ("func_code.py", "output.pkl"):
        (tmp_path / path).write_bytes(pickle.dumps(Planted()))
    with pytest.warns(UserWarning, match="not as it was written"):
        np.testing.assert_array_equal(scores(net, tmp_path), expected)
    assert not RAN
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # written again
        np.testing.assert_array_equal(scores(net, tmp_path), expected)


def test_an_entry_under_another_name_is_none(net, tmp_path):
    expected = scores(net, tmp_path)
    contents = [(path, path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    for (path, _), (_, content) in zip(contents, contents[1:] + contents[:1]):
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="not as it was written"):
        np.testing.assert_array_equal(scores(net, tmp_path), expected)


def damaged(content, rng):
    """A flipped bit, or a part cut off, added or overwritten."""
    content, way = bytearray(content), rng.integers(5)
    place = int(rng.integers(len(content)))
    if way < 3:  # in the header half of the time
        place = int(rng.integers(8 + int.from_bytes(content[:8], "little"))) if rng.random() < 0.5 else place
        content[place] ^= 1 << int(rng.integers(8))
    elif way == 3:
        del content[place:]
    else:
        content[place : place + 20] = rng.bytes(20)
    return bytes(content)


def campaign(n_trials, tmp_path):
    """Damage an entry again and again: it is read as none, or as it was."""
    rng, entries = np.random.default_rng(0), Entries(tmp_path)
    given = {"a0": torch.randn(5, 4).mT, "s0": torch.randn(3), "empty": torch.zeros(0, 2, dtype=torch.float64)}
    entries.write("key", given, {"n_blocks": 1})
    (path,) = tmp_path.iterdir()
    whole, same = path.read_bytes(), 0
    for _ in range(n_trials):
        path.write_bytes(damaged(whole, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = entries.read("key", "cpu")
        if found is not None:
            same += 1
            assert found[1] == {"n_blocks": 1}
            assert list(found[0]) == list(given)
            for name, value in given.items():
                assert torch.equal(found[0][name], value)
                assert found[0][name].stride() == value.stride()
                assert found[0][name].dtype == value.dtype
    assert same < n_trials / 20  # white space of the header


def test_flips_and_truncations(tmp_path):
    campaign(200, tmp_path)


@pytest.mark.slow
def test_many_flips_and_truncations(tmp_path):
    campaign(5000, tmp_path)


def test_no_file_is_followed_after_it_was_read(net, tmp_path):
    scores(net, tmp_path)
    estimator = SourceAttribution(n_segments=2, curvature=EKFAC(memory=tmp_path)).fit(net, X, y)
    before = estimator.transform(X[:3])
    for path in tmp_path.iterdir():
        with open(path, "r+b") as file:
            file.write(b"\x3f" * path.stat().st_size)
        os.truncate(path, 0)
    np.testing.assert_array_equal(estimator.transform(X[:3]), before)


def test_a_folder_that_cannot_be_written_ends_no_fit(net, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="memory= cannot be used.* is a file: name a folder") as told:
        np.testing.assert_array_equal(scores(net, tmp_path / "file"), scores(net, None))
    assert len(told) == 1


def test_an_object_that_only_looks_like_a_memory(net):
    class Cache:
        def cache(self, function, **options):
            return function

    with pytest.raises(ValueError, match="memory"):
        scores(net, Cache())


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.mlp = nn.Embedding(7, 3), MLP(n_features=3, hidden=(4,))

    def forward(self, X):
        return self.mlp(self.embedding(X[:, 0].long()))


def test_blocks_with_one_side_alone(tmp_path):
    codes = np.arange(20, dtype=np.int64)[:, None] % 7
    with seeded(0):
        net = make_net(module=Embedded).fit(codes, y)
    found = [
        SourceAttribution(n_segments=1, curvature=EKFAC(memory=m)).fit(net, codes, y).transform(codes[:3])
        for m in (None, tmp_path, tmp_path)
    ]
    for some in found[1:]:
        np.testing.assert_array_equal(some, found[0])
