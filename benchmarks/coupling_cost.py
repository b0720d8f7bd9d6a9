"""What coupling layers costs: ``fit`` and ``transform`` of SOURCE and influence functions, coupled and not.

    python benchmarks/coupling_cost.py --task a --repeats 3

trains the network of task ``a`` (an MLP) or ``c`` (a transformer classifier) by SGD with six checkpoints, and times one
after the other, in turn: seconds of processor time, printed as they are measured, medians and ratios at the end.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from _common import timed
from _tasks import Task, make_task
from skorch import NeuralNetClassifier

from sklearn_source import InfluenceFunctions, SourceAttribution, TrajectoryRecorder
from sklearn_source.curvature import EKFAC, ExactGaussNewton

FORMS = {
    "uncoupled": EKFAC(coupling=None),
    "layers": EKFAC(),
    "krylov, 10 rounds": EKFAC(coupling="krylov"),
    "krylov, 10 rounds, 1024 columns": EKFAC(coupling="krylov", max_rows=1024),
    "exact, 4096 columns": ExactGaussNewton(max_rows=4096),
}


def train(task: Task) -> NeuralNetClassifier:
    """Train for three epochs, recorded."""
    torch.manual_seed(0)
    return NeuralNetClassifier(
        task.build, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9,
        lr=0.03, batch_size=task.batch_size, iterator_train__shuffle=True, max_epochs=3, train_split=None,
        verbose=0, callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    ).fit(task.X_train, task.y_train)  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="The cost of coupling layers.")
    parser.add_argument("--task", choices=("a", "c"), default="a")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="training rows (all by default)")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    task = make_task(arguments.task)
    torch.set_num_threads(arguments.threads)  # after the task, which sets it too
    if arguments.rows:
        task = task.head(arguments.rows, len(task.X_query))
    net = train(task)
    for method in (InfluenceFunctions, SourceAttribution):
        seconds: dict[str, list[float]] = {name: [] for name in arguments.forms}
        for _ in range(arguments.repeats):
            for name in arguments.forms:
                est = method(curvature=FORMS[name], random_state=0)
                _, fit = timed(est.fit, net, task.X_train, task.y_train)
                _, transform = timed(est.transform, task.X_query, task.y_query)
                seconds[name].append(fit.cpu + transform.cpu)
                print(f"{method.__name__}, {name}: fit {fit.cpu:.2f} s, transform {transform.cpu:.2f} s", flush=True)
        for name, found in seconds.items():
            own, base = statistics.median(found), statistics.median(seconds[arguments.forms[0]])
            print(f"{method.__name__}, {name}, median: {own:.2f} s, {own / base:.2f}x", flush=True)


if __name__ == "__main__":
    main()
