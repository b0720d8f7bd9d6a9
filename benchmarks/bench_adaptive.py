"""What the metric of an adaptive optimizer costs: SOURCE on an AdamW run, in its metric and as if it were SGD.

    python benchmarks/bench_adaptive.py --task c --repeats 3

trains the network of task ``c`` (a transformer classifier) or ``a`` (an MLP) with AdamW, and times ``fit`` and
``transform`` of `SourceAttribution` on that trajectory as it is, and on the same one described as of SGD: the
same checkpoints, rows and segments. The scores of the second are wrong for this training; only its time is of interest.
Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics

import torch
from _common import Clock, timed
from _tasks import Task, make_task
from skorch import NeuralNetClassifier

from sklearn_source import SourceAttribution, Trajectory, TrajectoryRecorder
from sklearn_source.curvature import EKFAC


def train(task: Task, n_epochs: int) -> NeuralNetClassifier:
    """Train with AdamW, recorded."""
    torch.manual_seed(0)
    return NeuralNetClassifier(
        task.build,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-3,
        batch_size=task.batch_size,
        iterator_train__shuffle=True,
        max_epochs=n_epochs,
        train_split=None,
        verbose=0,
        callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    ).fit(task.X_train, task.y_train)


def run(task: Task, net: NeuralNetClassifier, trajectory: Trajectory, fisher: str) -> tuple[Clock, Clock]:
    """Clocks of ``fit`` and ``transform``."""
    curvature = EKFAC(fisher=fisher, coupling=None)
    est = SourceAttribution(n_segments=3, curvature=curvature, trajectory=trajectory, random_state=0)
    _, fit = timed(est.fit, net, task.X_train, task.y_train)
    _, transform = timed(est.transform, task.X_query, task.y_query)
    return fit, transform


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of the metric form against the form for SGD.")
    parser.add_argument("--task", choices=("a", "c"), default="c")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="training rows (all by default)")
    parser.add_argument("--fisher", default="empirical", choices=("exact", "sampled", "empirical"))
    arguments = parser.parse_args()
    task = make_task(arguments.task)
    if arguments.rows:
        task = task.head(arguments.rows, len(task.X_query))
    net = train(task, n_epochs=3)
    adaptive = Trajectory.from_net(net)
    plain = Trajectory(adaptive.checkpoints, [dataclasses.replace(s, optimizer="SGD") for s in adaptive.stages])
    clocks: dict[str, list[tuple[Clock, Clock]]] = {"metric": [], "SGD": []}
    for _ in range(arguments.repeats):
        for name, trajectory in (("SGD", plain), ("metric", adaptive)):
            clocks[name].append(run(task, net, trajectory, arguments.fisher))
    print(f"task {arguments.task}, {len(task.X_train)} x {len(task.X_query)}, {arguments.fisher} Fisher, medians")
    print("| phase | SGD form | metric form | wall ratio | CPU ratio |\n|---|---|---|---|---|")
    for phase, pick in (
        ("fit", lambda pair: pair[0]),
        ("transform", lambda pair: pair[1]),
        ("together", lambda pair: pair[0] + pair[1]),
    ):
        wall = {name: statistics.median(pick(pair).wall for pair in pairs) for name, pairs in clocks.items()}
        cpu = {name: statistics.median(pick(pair).cpu for pair in pairs) for name, pairs in clocks.items()}
        cells = f"{wall['SGD']:.2f} s | {wall['metric']:.2f} s"
        print(f"| {phase} | {cells} | {wall['metric'] / wall['SGD']:.1f}x | {cpu['metric'] / cpu['SGD']:.1f}x |")


if __name__ == "__main__":
    main()
