"""Locks among processes: one owner, none after its end, and none where there can be none."""

from __future__ import annotations

import os
import threading

import pytest

from sklearn_source.utils._file_lock import FileLock


def test_one_owner_at_a_time(tmp_path):
    path = tmp_path / "scores.npy"
    first, second = FileLock(path), FileLock(path)
    assert first.take()
    assert first.take()  # its own
    assert not second.take()
    assert second.owner().startswith("process ")
    first.release()
    first.release()
    with second:
        assert second.take()
        assert not first.take()
    assert not list(tmp_path.iterdir())


def test_waiting(tmp_path):
    first, second, told = FileLock(tmp_path / "a"), FileLock(tmp_path / "a"), []
    assert first.take()
    threading.Timer(0.05, first.release).start()
    second.wait(told.append)
    assert len(told) == 1
    second.release()
    second.wait(told.append)
    assert len(told) == 1
    second.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_no_lock_outlives_its_process(tmp_path):
    path = tmp_path / "a"
    pid = os.fork()
    if not pid:
        os._exit(0 if FileLock(path).take() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert [file.name for file in tmp_path.iterdir()] == [".a.lock"]
    with FileLock(path) as lock:
        assert lock.take()
    assert not list(tmp_path.iterdir())


def test_many_threads_that_make_and_remove_it(tmp_path):
    inside, most, turns = [0], [0], []

    def turn():
        for _ in range(20):
            with FileLock(tmp_path / "a") as lock:
                lock.wait(lambda owner: None)
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                turns.append(1)
                inside[0] -= 1

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert len(turns) == 80


def test_where_there_can_be_no_lock(tmp_path):
    with FileLock(tmp_path / "missing" / "a") as lock:
        assert lock.take()
