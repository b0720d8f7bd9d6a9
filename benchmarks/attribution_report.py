"""What a report of 100,000 training rows and 500 held-out rows of a small MLP costs beside one ``top_influences``.

Prints seconds, the resident set above that of the process with its libraries, data and fitted estimator, and the size
of the page; where chromium is on the path, also how long it takes to open the page from a file.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from memory_top_influences import Peak
from skorch import NeuralNetClassifier

from sklearn_source import InfluenceFunctions
from sklearn_source.inspection import attribution_report
from sklearn_source.modules import MLP

_MB = 2**20
# Read by a page that is loaded: milliseconds from the start of the navigation.
_TIMES = (
    "<script>addEventListener('load', () => setTimeout(() => { const t = performance.getEntriesByType('navigation')[0];"
    "document.title = `loaded ${Math.round(t.domContentLoadedEventEnd)} ${Math.round(t.loadEventEnd)}`; }))</script>"
)


def problem(n_rows, n_queries):
    """Three classes with one label in fifty wrong, and held-out rows of the same kind with true labels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows + n_queries, 8)).astype(np.float32)
    y = (X[:, 0] + np.sin(2 * X[:, 1]) > 0).astype(np.int64) + (X[:, 2] * X[:, 3] > 0.3)
    y_train = y[:n_rows].copy()
    wrong = rng.random(n_rows) < 0.02
    y_train[wrong] = (y_train[wrong] + rng.integers(1, 3, size=wrong.sum())) % 3
    return X[:n_rows], y_train, X[n_rows:], y[n_rows:]


def opening_times(page, repeats):
    """Milliseconds until the page is parsed, and until it is loaded: medians of some openings, a new browser each."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(page.replace("</body>", f"{_TIMES}</body>"), encoding="utf-8")
        for _ in range(repeats):
            command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
            shown = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
            found.append([int(part) for part in shown.stdout.split("<title>loaded ")[1].split("<")[0].split()])
    return np.median(found, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore")
    X, y, X_query, y_query = problem(args.rows, args.queries)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        MLP, module__hidden=(32, 32), module__n_outputs=3, criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.05, batch_size=256, max_epochs=args.epochs,
        train_split=None, verbose=0,
    ).fit(X, y)  # fmt: skip
    start = time.perf_counter()
    est = InfluenceFunctions(random_state=0).fit(net, X, y)
    print(f"fit             {time.perf_counter() - start:6.1f} s", flush=True)
    with Peak() as top:
        start = time.perf_counter()
        est.top_influences(X_query, y_query, k=10)
        asked = time.perf_counter() - start
    print(f"top_influences  {asked:6.1f} s  {top.peak / _MB:7.0f} MB above the process", flush=True)
    with Peak() as built:
        start, used = time.perf_counter(), time.process_time()
        report = attribution_report(est, X_query, y_query)
        took, used = time.perf_counter() - start, time.process_time() - used
    print(
        f"report          {took:6.1f} s  {built.peak / _MB:7.0f} MB  ({took / asked:.1f} top_influences), "
        f"{used:.1f} s of processors, {len(report.actions_)} actions", flush=True,
    )  # fmt: skip
    start = time.perf_counter()
    page = report.to_html()
    written, size = time.perf_counter() - start, len(page.encode("utf-8")) / _MB
    print(f"page            {written:6.2f} s  {size:7.2f} MB  {page.count('<tr') + page.count('<li')} lines and cards")
    print(report)
    if shutil.which("chromium"):
        parsed, loaded = opening_times(page, repeats=3)
        print(f"opening         {parsed:6.0f} ms parsed, {loaded:.0f} ms loaded")


if __name__ == "__main__":
    main()
