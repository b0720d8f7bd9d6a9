"""``store_gradients``: scores read from a folder, exact or within its tolerance, and what a folder is refused for."""

from __future__ import annotations

import errno
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_source import (
    AttributionEnsemble,
    GradientSimilarity,
    InfluenceFunctions,
    SnapshotInfluence,
    SourceAttribution,
    TracIn,
    config_context,
)
from sklearn_source.base import _gradient_store
from sklearn_source.curvature import Inverse
from sklearn_source.gradients import GradientEngine
from sklearn_source.gradients.algebra import _meeting
from sklearn_source.inspection import segment_scores
from sklearn_source.utils._random import seeded
from tests._methods import apart
from tests._nets import make_net
from tests.attribution._layers import LAYERS
from tests.attribution._runs import relative
from tests.attribution.test_adaptive_reference import adaptive_run
from tests.attribution.test_tol import row_norms, vectors

METHODS = {
    "source": SourceAttribution(n_segments=2, random_state=0),
    "influence": InfluenceFunctions(damping=0.05, random_state=0),
    "snapshots": SnapshotInfluence(n_snapshots=2, random_state=0),
    "tracin": TracIn(),
    "cosine": GradientSimilarity(),
}
CASES = [(kind, "source") for kind in ("mlp", "conv", "embedding", "encoder")]
CASES += [("conv", name) for name in METHODS if name != "source"] + [("embedding", "tracin"), ("mlp", "cosine")]
assert {"embedding", "encoder"} <= set(LAYERS)

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(24, 3)).astype(np.float32)
y = (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)
X_query = _RNG.normal(size=(17, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    with seeded(0):
        return make_net().fit(X, y)


@pytest.fixture
def source(net):
    return clone(METHODS["source"]).fit(net, X, y)


def small_files():
    """A budget of which a file takes some rows."""
    return config_context(memory_budget=200_000)


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def within_bound(estimator, run, tol, folder):
    """Scores read from a store against the exact ones, within what its tolerance leaves: their largest error."""
    exact = estimator.transform(run.X_query)
    (_, terms), *more = estimator._query_batches(run.X_query, None)[1]
    assert not more
    bound = np.zeros(exact.shape)
    for term in terms:
        term.blocks = estimator._gradients.blocks
        for block in range(len(term.blocks)):
            sizes = vectors(term, block).flatten(1).norm(dim=1)
            bound += (2 * tol + tol**2) * np.outer(sizes, row_norms(estimator, term, block))
    off = np.abs(estimator.store_gradients(folder, tol=tol).transform(run.X_query).astype(np.float64) - exact)
    assert (off <= bound + 1e-6 * np.abs(exact).max()).all()
    estimator.store_gradients(None)
    return off.max() / np.abs(exact).max()


@pytest.mark.parametrize("kind", ["mlp", "embedding"])
def test_exact_gradients_give_the_scores_of_the_dense_reference(kind, run, tmp_path):
    r = run(kind, momentum=0.5)
    estimator = SourceAttribution(n_segments=3, curvature=apart()).fit(r.net, r.X, r.y)
    scores = estimator.store_gradients(tmp_path / "store", tol=None).transform(r.X_query)
    assert relative(scores, r.source(n_segments=3)) < 1e-6


@pytest.mark.parametrize("kind, method", CASES)
def test_scores_of_the_training_rows_exact_and_within_what_a_tolerance_leaves(kind, method, run, tmp_path):
    r = run(kind, momentum=0.5)
    estimator = clone(METHODS[method]).fit(r.net, r.X, r.y)
    off = [within_bound(estimator, r, tol, tmp_path / f"{tol}") for tol in (0.3, 0.003)]
    assert off[1] < 0.01
    if (kind, method) == ("encoder", "source"):
        assert off[0] > 1e-4  # something was left out
    expected = estimator.transform(r.X_query)
    estimator.store_gradients(tmp_path / "exact", tol=None)
    assert relative(estimator.transform(r.X_query), expected) < 1e-6
    top, known = estimator.top_influences(r.X_query, k=3), np.sort(expected, axis=1)[:, :-4:-1]
    np.testing.assert_allclose(top.scores, known, rtol=1e-5, atol=1e-7)


def test_in_the_metric_of_adamw(tmp_path):
    r = adaptive_run("mlp", "float64", "AdamW")
    estimator = SourceAttribution(n_segments=2, random_state=0).fit(r.net, r.X, r.y)
    within_bound(estimator, r, 0.1, tmp_path / "rounded")
    exact = estimator.transform(r.X_query)
    assert relative(estimator.store_gradients(tmp_path / "exact", tol=None).transform(r.X_query), exact) < 1e-6


def test_no_training_row_passes_through_the_network(source, tmp_path, monkeypatch):
    source.store_gradients(tmp_path / "store")
    passed, capture = [], GradientEngine.capture

    def counted(self, x, *more):
        passed.append(len(x))
        return capture(self, x, *more)

    monkeypatch.setattr(GradientEngine, "capture", counted)
    source.transform(X_query)
    source.top_influences(X_query, k=2)
    assert sum(passed) == 2 * len(X_query)


def test_queries_are_met_within_the_tolerance_unless_they_have_one(source, tmp_path):
    def tolerance():
        seen = []
        original = type(source)._terms
        try:
            type(source)._terms = lambda self, queries: seen.append(queries.tol) or original(self, queries)
            source.transform(X_query)
        finally:
            type(source)._terms = original
        return seen

    assert tolerance() == [None]
    source.store_gradients(tmp_path / "store", tol=0.02)
    assert tolerance() == [0.02]
    assert source.set_params(tol=0.3) is source
    assert tolerance() == [0.3]
    source.set_params(tol=None).store_gradients(tmp_path / "exact", tol=None)
    assert tolerance() == [None]


def test_how_far_to_go_along_a_layer_is_found_within_the_tolerance(run, monkeypatch):
    """From outer products; what comes of it is near what the exact directions give."""
    monkeypatch.setattr(_meeting, "sketching_cost", lambda shape, width: -1e30)  # in every layer, however small
    r = run("mlp", momentum=0.5)
    estimator = InfluenceFunctions(damping=0.05, random_state=0).fit(r.net, r.X, r.y)
    curvature, queries = (
        estimator._step.curvature,
        estimator._queries(estimator._rows, np.arange(12), estimator._measure),
    )
    encoded = queries.encoded(estimator._gradients.trained, curvature.encode)
    phi = Inverse(estimator._step.system.shifts)
    exact, found = (c.scale(phi, encoded) for c in (curvature, curvature.within(0.05)))
    both = [torch.cat([part.flatten(1) for part in vectors], dim=1) for vectors in (found, exact)]
    off = (both[0] - both[1]).norm(dim=1) / both[1].norm(dim=1)
    assert 0 < off.max() < 0.05
    assert curvature.within(None).scale(phi, encoded)[0].equal(exact[0])


def test_the_rows_of_one_segment_are_kept_once_for_all_its_checkpoints(source, tmp_path):
    """As few outer products as their mean has."""
    for name, tol in (("exact", None), ("rounded", 0.05)):
        source.store_gradients(tmp_path / name, tol=tol)
    assert source._fitted[0].states != source._fitted[1].states
    sizes = [sum(map(len, bytes_of(tmp_path / name).values())) for name in ("exact", "rounded")]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("method", ["source", "influence", "tracin"])
def test_another_process_takes_the_folder_up(method, net, tmp_path):
    folder = tmp_path / "store"
    first = clone(METHODS[method]).fit(net, X, y)
    scores = first.store_gradients(folder).transform(X_query)
    before = bytes_of(folder)
    again = clone(METHODS[method]).fit(net, X, y).store_gradients(str(folder))
    assert bytes_of(folder) == before
    assert np.array_equal(again.transform(X_query), scores)
    restored = pickle.loads(pickle.dumps(first))
    assert restored.gradient_store_.path == folder
    assert np.array_equal(restored.transform(X_query), scores)
    assert clone(first).fit(net, X, y).gradient_store_ is None
    assert first.fit(net, X, y).gradient_store_ is None  # its rows may be others
    assert bytes_of(folder) == before


def test_what_does_not_change_the_gradients_may_differ(net, tmp_path):
    """One folder for a search over what is made of the queries."""
    InfluenceFunctions(damping=0.1).fit(net, X, y).store_gradients(tmp_path / "store", tol=None)
    other = InfluenceFunctions(damping=0.7, measurement="neg_loss", batch_size=5, curvature="kfac").fit(net, X, y)
    expected = other.transform(X_query, y[: len(X_query)])
    other.store_gradients(tmp_path / "store", tol=None)
    assert relative(other.transform(X_query, y[: len(X_query)]), expected) < 1e-6


def test_other_answers_read_the_training_rows(source, tmp_path):
    expected = source.self_influence(), source.predict_reweighting(X_query, groups=[[0, 1, 2]])
    source.store_gradients(tmp_path / "store", tol=0.3)
    assert np.array_equal(source.self_influence(), expected[0])
    np.testing.assert_allclose(source.predict_reweighting(X_query, groups=[[0, 1, 2]]), expected[1], rtol=1e-5)


def test_single_terms_are_read_too(source, tmp_path):
    expected = segment_scores(source, X_query)
    source.store_gradients(tmp_path / "store", tol=None)
    np.testing.assert_allclose(segment_scores(source, X_query), expected, rtol=1e-4, atol=1e-7)


def test_a_file_of_scores_knows_whether_they_were_read(source, tmp_path):
    source.transform(X_query, out=tmp_path / "scores.npy")
    source.store_gradients(tmp_path / "store", tol=0.3)
    with pytest.raises(FileExistsError, match="store_gradients differs"):
        source.transform(X_query, out=tmp_path / "scores.npy")
    found = source.transform(X_query, out=tmp_path / "others.npy")
    assert np.array_equal(found, source.transform(X_query))


def test_rows_that_are_not_credited_have_no_score(tmp_path):
    from skorch.dataset import ValidSplit

    with seeded(0):
        split = make_net(train_split=ValidSplit(4)).fit(X, y)
    with pytest.warns(UserWarning, match="never trained on"):
        estimator = TracIn().fit(split, X, y)
    expected = estimator.transform(X_query)
    assert (expected == 0).all(axis=0).sum() == 6
    found = estimator.store_gradients(tmp_path / "store", tol=None).transform(X_query)
    assert relative(found, expected) < 1e-6


def test_an_ensemble_keeps_a_folder_for_each_member(net, tmp_path):
    with seeded(1):
        second = make_net().fit(X, y)
    ensemble = AttributionEnsemble(TracIn(), nets=[second]).fit(net, X, y)
    expected = ensemble.transform(X_query)
    assert ensemble.store_gradients(tmp_path / "stores", tol=None) is ensemble
    assert sorted(os.listdir(tmp_path / "stores")) == ["member0", "member1"]
    assert relative(ensemble.transform(X_query), expected) < 1e-6
    ensemble.store_gradients(None)
    assert all(member.gradient_store_ is None for member in ensemble.members_)


# --- what a folder is refused for -----------------------------------------------------------------------------------


def refused(estimator, folder, match, **options):
    before = bytes_of(folder) if folder.is_dir() else None
    with pytest.raises(FileExistsError, match=match):
        estimator.store_gradients(folder, **options)
    assert estimator.gradient_store_ is None
    if before is not None:
        assert bytes_of(folder) == before


def test_gradients_of_something_else_are_refused(net, source, tmp_path):
    folder = tmp_path / "store"
    source.store_gradients(folder)
    with seeded(5):
        other = make_net().fit(X, y)
    refused(clone(source).fit(other, X, y), folder, "something else: checkpoints, net differ. Pass another path")
    refused(clone(source).fit(net, X[::-1].copy(), y[::-1].copy()), folder, "else: training rows differs")
    refused(clone(source).set_params(n_segments=1).fit(net, X, y), folder, "else: checkpoints differs")
    refused(clone(source).set_params(layers="layers.0").fit(net, X, y), folder, "else: layers differs")
    refused(clone(source).fit(net, X, y), folder, "else: tol differs", tol=0.02)


@pytest.mark.filterwarnings("ignore:the record of the net:UserWarning")
def test_another_criterion_for_the_same_weights_is_refused(net, tmp_path):
    """No digest of weights shows it; the gradients of some rows do."""
    folder = tmp_path / "store"
    GradientSimilarity().fit(net, X, y).store_gradients(folder)
    with seeded(0):
        other = make_net(criterion=torch.nn.L1Loss).fit(X, y)
    other.module_.load_state_dict(net.module_.state_dict())
    refused(GradientSimilarity().fit(other, X, y), folder, "a network that gave others")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', "\x00"])
def test_a_record_that_says_nothing_is_refused(content, source, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "store.json").write_text(content)
    refused(source, folder, "no record of training gradients")


def test_a_folder_of_other_files_and_a_file_are_refused(source, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    refused(source, folder, "has no store.json")
    refused(source, folder / "notes.txt", "got the file")
    with pytest.raises(ValueError, match="make the folder first"):
        source.store_gradients(tmp_path / "no" / "folder")


def damaged(content):
    return content[:-3] + bytes(3 * [1])


def truncated(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize("change", [damaged, truncated, lambda content: b"", lambda content: content * 2])
def test_a_file_that_was_changed_is_refused_and_written_anew(change, source, tmp_path):
    with small_files():
        source.fit(source.net_, X, y).store_gradients(tmp_path / "store")
        file = sorted((tmp_path / "store").glob("rows-*"))[1]
        content, scores = file.read_bytes(), source.transform(X_query)
        file.write_bytes(change(content))
        with pytest.raises(ValueError, match="not as this store wrote it"):
            source.transform(X_query)
        file.unlink()
        with pytest.raises(FileNotFoundError, match="call store_gradients"):
            source.transform(X_query)
        assert np.array_equal(source.store_gradients(tmp_path / "store").transform(X_query), scores)
        assert file.read_bytes() == content


def test_flipped_bits_are_seen(source, tmp_path):
    """Anywhere in a file: no score is another in silence."""
    (file,) = (source.store_gradients(tmp_path / "store").gradient_store_.path).glob("rows-*")
    content, scores, rng, seen = file.read_bytes(), source.transform(X_query), np.random.default_rng(0), 0
    for place in rng.integers(len(content), size=60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        try:
            found = source.transform(X_query)
        except ValueError as error:
            seen += "not as this store wrote it" in str(error)
        else:  # a blank between header and numbers
            assert np.array_equal(found, scores)
            seen += 1
    assert seen == 60


def test_a_file_of_another_store_is_refused(net, source, tmp_path):
    with seeded(5):
        other = make_net().fit(X, y)
    clone(source).fit(other, X, y).store_gradients(tmp_path / "other")
    source.store_gradients(tmp_path / "store")
    (name,) = (file.name for file in (tmp_path / "store").glob("rows-*"))
    (tmp_path / "store" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(ValueError, match="not as this store wrote it"):
        source.transform(X_query)
    refused(clone(source).fit(net, X, y), tmp_path / "store", "belongs to another store")


@pytest.mark.parametrize("code, match", [(errno.ENOSPC, "make room"), (errno.EACCES, "make the folder writable")])
def test_a_full_disk_leaves_what_was_written(code, match, source, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    with small_files():
        source.fit(source.net_, X, y)
        expected = bytes_of(source.store_gradients(tmp_path / "whole").gradient_store_.path)
        written, atomic_write = [], _gradient_store.atomic_write

        def limited(path):
            written.append(path)
            if len(written) > 2:
                raise OSError(code, os.strerror(code))
            return atomic_write(path)

        with monkeypatch.context() as patch:
            patch.setattr(_gradient_store, "atomic_write", limited)
            with pytest.raises(OSError, match=match) as caught:
                source.store_gradients(folder)
        assert caught.value.errno == code
        assert caught.value.filename == str(written[-1])
        assert len(bytes_of(folder)) == 2 < len(expected)
        source.store_gradients(folder)
        assert bytes_of(folder) == expected


@pytest.mark.parametrize("tol", [0, 1, -0.1, "small", True])
def test_a_tolerance_that_is_none_is_refused(tol, source, tmp_path):
    with pytest.raises(ValueError, match="between 0 and 1"):
        source.store_gradients(tmp_path / "store", tol=tol)
    assert not (tmp_path / "store").exists()


def test_gradients_that_are_not_finite_are_refused(net, tmp_path):
    estimator = GradientSimilarity().fit(net, X, y)
    overflowing = replace(estimator._gradients.trained)
    for value in overflowing.parameters.values():
        value.mul_(1e30)
    with pytest.raises(ValueError, match="non-finite gradients of training rows"):
        estimator.store_gradients(tmp_path / "store")
