"""Peak memory of ``top_influences`` on 1,000 queries x 100,000 training rows of a small MLP.

Prints the resident set above that of the process with its libraries, data and fitted estimator; the target is 1 GB. The
whole score matrix alone would take 400 MB more.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
import warnings

import numpy as np
import torch
from skorch import NeuralNetRegressor

from sklearn_source import SourceAttribution, TrajectoryRecorder
from sklearn_source.modules import MLP

_MB = 2**20


def resident():
    """Bytes of memory that the process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Peak:
    """The largest resident set while the context lasts, looked at every 20 ms."""

    def __enter__(self):
        self.base, self.peak, self._go = resident(), 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while self._go:
            self.peak = max(self.peak, resident() - self.base)
            time.sleep(0.02)

    def __exit__(self, *exc):
        self._go = False
        self._thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1_000)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(args.rows, 8)).astype(np.float32)
    y = (np.sin(X[:, :1]) + X[:, 1:2] * X[:, 2:3]).astype(np.float32)
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        MLP, module__hidden=(128, 128, 128), optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.01,
        batch_size=256, max_epochs=1, train_split=None, verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    ).fit(X, y)  # fmt: skip
    with Peak() as fit:
        start = time.perf_counter()
        est = SourceAttribution(n_segments=3).fit(net, X, y)
        fitted = time.perf_counter()
    with Peak() as top:
        est.top_influences(X[: args.queries], k=10)
        done = time.perf_counter()
    print(f"fit             {fit.peak / _MB:7.0f} MB above the process  {fitted - start:6.1f} s")
    print(f"top_influences  {top.peak / _MB:7.0f} MB above the process  {done - fitted:6.1f} s")


if __name__ == "__main__":
    main()
