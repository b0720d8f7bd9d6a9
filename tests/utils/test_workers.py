"""Blocks of rows by several workers: what reaches them, what comes back, and what happens where they are lost."""

from __future__ import annotations

import threading

import joblib
import numpy as np
import pytest
import torch

from sklearn_source import config_context, get_config
from sklearn_source.utils import _workers
from sklearn_source.utils._clusters import _as_finished
from sklearn_source.utils._parcel import Parcel
from sklearn_source.utils._workers import in_blocks, n_workers, row_blocks


class TerminatedWorkerError(Exception):
    """What joblib raises, by name."""


def square(content, block):
    return content["factor"] * block**2


def refuse(content, block):
    if block == 2:
        raise ValueError(f"expected another block, got {block}")
    return block


def settings(content, block):
    denormal = float(torch.full((1,), 2e-39) * 0.5)
    return get_config()["memory_budget"], torch.is_autocast_enabled("cpu"), denormal == 0


def threads(function, content, blocks, n_jobs=2):
    with joblib.parallel_config("threading"):
        return list(in_blocks(function, content, blocks, n_jobs=n_jobs))


def test_results_come_in_the_order_of_the_blocks():
    assert threads(square, {"factor": 3}, list(range(20))) == [3 * i**2 for i in range(20)]


def test_n_jobs_as_joblib_counts_and_none_within_a_worker():
    assert (n_workers(None), n_workers(1)) == (1, 1)
    with joblib.parallel_config("threading", n_jobs=3):
        assert (n_workers(None), n_workers(2)) == (3, 2)
        assert joblib.Parallel()(joblib.delayed(n_workers)(2) for _ in range(2)) == [1, 1]


@pytest.mark.parametrize(("n_rows", "batch", "workers"), [(1000, 10, 2), (30, 64, 4), (100, 100, 3), (5, 1, 2)])
def test_blocks_are_all_rows_once_in_whole_batches(n_rows, batch, workers):
    blocks = row_blocks(n_rows, batch, workers, max_rows=50)
    rows = [row for block in blocks for some in block for row in range(some.start, some.stop)]
    assert rows == list(range(n_rows))
    assert all(some.stop - some.start <= batch for block in blocks for some in block)
    if n_rows == 1000:  # batches are those of one worker, and a block has at most so many rows
        assert {some.stop - some.start for block in blocks for some in block} == {10}
        assert max(block[-1].stop - block[0].start for block in blocks) <= 50


def test_an_exception_of_a_block_is_that_of_the_call_and_says_where_it_came_from():
    with pytest.raises(ValueError, match="expected another block, got 2") as caught:
        threads(refuse, None, [0, 1, 2, 3])
    assert "in refuse" in str(caught.value.__cause__)


def test_workers_have_the_settings_of_the_callers_thread():
    with config_context(memory_budget=12345), torch.autocast("cpu"):
        assert threads(settings, None, [0, 1]) == [(12345, False, False)] * 2
        assert get_config()["memory_budget"] == 12345
    if torch.set_flush_denormal(True):
        try:
            assert threads(settings, None, [0, 1])[0][2]
        finally:
            torch.set_flush_denormal(False)


def losing(monkeypatch, n_times, after):
    """Let an engine lose its workers ``n_times``, each time after some blocks; returns the blocks that were run."""
    original, run, left = _workers._outcomes, [], [n_times]

    def outcomes(parcel, function, settings, blocks, n_jobs):
        for count, (number, outcome) in enumerate(original(parcel, function, settings, blocks, n_jobs)):
            if left[0] and count == after:
                left[0] -= 1
                raise TerminatedWorkerError("A worker process was unexpectedly terminated")
            run.append(number)
            yield number, outcome

    monkeypatch.setattr(_workers, "_outcomes", outcomes)
    return run


def test_lost_workers_cost_their_blocks_alone(monkeypatch):
    run = losing(monkeypatch, 2, after=3)
    with pytest.warns(UserWarning, match=r"workers were lost .*of 10 blocks of work are done anew"):
        found = threads(square, {"factor": 1}, list(range(10)))
    assert found == [i**2 for i in range(10)]
    assert sorted(run) == list(range(10))


def test_workers_lost_again_and_again_end_the_call(monkeypatch):
    losing(monkeypatch, 99, after=0)
    with pytest.warns(UserWarning, match="were lost"), pytest.raises(RuntimeError, match="3 times in a row .*memory"):
        threads(square, {"factor": 1}, [0, 1])


def test_what_cannot_be_sent_is_said_before_the_work():
    with pytest.raises(TypeError, match=r"pickling them failed .*use n_jobs=1"):
        threads(square, {"factor": threading.Lock()}, [0, 1])


def test_a_parcel_holds_what_was_put_in():
    weights, numbers = torch.randn(300, 1200), np.arange(3000.0)
    tied = torch.nn.Linear(4, 4)
    other = torch.nn.Linear(4, 4)
    other.weight = tied.weight
    content = {
        "weights": weights, "view": weights[:10].T, "numbers": numbers, "again": numbers,
        "net": torch.nn.Sequential(tied, other), "half": torch.arange(3, dtype=torch.bfloat16),
        "none": torch.empty(0), "fortran": np.asfortranarray(np.random.default_rng(0).random((40, 60))),
        "lambda": lambda x: x + 1,
    }  # fmt: skip
    parcel = Parcel(content)
    opened = parcel.open()
    for name in ("weights", "view", "half", "none"):
        assert torch.equal(opened[name], content[name])
        assert opened[name].stride() == content[name].stride()
    assert opened["view"].untyped_storage().data_ptr() == opened["weights"].untyped_storage().data_ptr()
    assert opened["again"] is opened["numbers"]
    np.testing.assert_array_equal(opened["numbers"], numbers)
    np.testing.assert_array_equal(opened["fortran"], content["fortran"])
    assert opened["net"][0].weight is opened["net"][1].weight
    assert opened["lambda"](1) == 2
    # Once each: views, and arrays that are there twice, cost nothing. dask and ray ask for the size.
    assert weights.nbytes + numbers.nbytes < parcel.nbytes < 1.1 * (weights.nbytes + numbers.nbytes) + 40_000
    assert parcel.__sizeof__() >= parcel.nbytes


def test_what_is_opened_is_nobody_elses():
    tensor = torch.zeros(50)
    parcel = Parcel({"small": tensor})
    parcel.open()["small"].add_(1)
    assert not tensor.any()
    assert not parcel.open()["small"].any()


class Cluster:
    """An engine whose workers are lost with some of the calls; the first of those on their way is done first."""

    def __init__(self, lost):
        self.lost, self.sent, self.cancelled = lost, [], None

    def outcomes(self, n_calls, n_ahead):
        return _as_finished(
            iter(range(n_calls)), n_ahead, self.submit, lambda running: running[0], self.result, self.cancel
        )

    def submit(self, call):
        self.sent.append(call)
        return call

    def result(self, call):
        if call in self.lost:
            raise TerminatedWorkerError(f"with call {call}")
        return -call

    def cancel(self, running):
        self.cancelled = list(running)


def test_a_lost_call_costs_itself():
    """It is said at the end, when the others have come; and the room that it left is filled."""
    cluster = Cluster({1, 4})
    outcomes = cluster.outcomes(9, 3)
    assert [-next(outcomes) for _ in range(3)] == [0, 2, 3]
    assert cluster.sent == [0, 1, 2, 3, 4, 5]  # three on their way: the last one given has not been made up for
    assert [-next(outcomes) for _ in range(4)] == [5, 6, 7, 8]
    with pytest.raises(TerminatedWorkerError, match="call 4"):
        next(outcomes)
    assert cluster.cancelled == []


def test_where_all_calls_lose_their_workers_no_more_than_those_on_their_way_are_sent():
    cluster = Cluster(range(100))
    with pytest.raises(TerminatedWorkerError):
        list(cluster.outcomes(100, 3))
    assert cluster.sent == [0, 1, 2]


def test_what_nobody_waits_for_is_cancelled():
    cluster = Cluster(())
    outcomes = cluster.outcomes(9, 3)
    assert next(outcomes) == 0
    outcomes.close()
    assert cluster.cancelled == [1, 2]
