"""A ResNet-9 and rows shaped like CIFAR's on an accelerator: seconds, TFLOP/s and share of the card's rate.

    python benchmarks/resnet9_gpu.py                                    # 50,000 rows, 1,000 queries, 6 checkpoints
    python benchmarks/resnet9_gpu.py --device cpu --rows 200 --queries 10

``fit`` and ``transform`` of SOURCE, layers coupled (the default) or not, the empirical Fisher. Operations are those of
matrix products and convolutions as torch counts them, on two smaller runs and continued in a straight line; the card's
rate is that of a plain product of float32 matrices here and now.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from _common import timed
from _tasks import TASKS, Task, make_task
from skorch import NeuralNetClassifier
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sklearn_source import SourceAttribution, TrajectoryRecorder, config_context
from sklearn_source.curvature import EKFAC


class Operations(TorchDispatchMode):
    """Counts the operations of products and convolutions (torch's own counter follows modules too, and stumbles)."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def larger(n_rows: int, n_queries: int) -> Task:
    """Return task (b) with so many rows."""
    TASKS["b-large"] = replace(TASKS["b"], n_train=n_rows, n_query=n_queries)
    return make_task("b-large")


def train(task: Task, device: str, n_steps: int) -> NeuralNetClassifier:
    """Train for so many steps or one epoch, the longer, recorded at the start and six times later."""
    torch.manual_seed(0)
    return NeuralNetClassifier(
        task.build, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9,
        lr=task.learning_rate, batch_size=max(task.batch_size, len(task.X_train) // n_steps),
        iterator_train__shuffle=True, max_epochs=1, train_split=None, verbose=0, device=device,
        callbacks=[TrajectoryRecorder(n_checkpoints=6)],
    ).fit(task.X_train, task.y_train)  # fmt: skip


def gemm_rate(device: str, size: int) -> float:
    """Return the FLOP/s of a product of two square float32 matrices, the best of five."""
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    left @ right
    return 2 * size**3 / min(timed(torch.mm, left, right)[1].wall for _ in range(5))


def explain(task: Task, net: NeuralNetClassifier, coupling: str | None, count: bool = False) -> list[tuple[float, int]]:
    """Return (seconds, operations if counted) of ``fit`` and of ``transform``."""
    est = SourceAttribution(curvature=EKFAC(fisher="empirical", coupling=coupling), random_state=0)
    found = []
    for method, rows in ((est.fit, (net, task.X_train, task.y_train)), (est.transform, (task.X_query, task.y_query))):
        if count:
            with Operations() as counter:
                _, clock = timed(method, *rows)
            found.append((clock.wall, counter.total))
        else:
            found.append((timed(method, *rows)[1].wall, 0))
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--budget", type=int, default=24, help="memory_budget in GiB")
    parser.add_argument("--forms", nargs="+", default=["uncoupled", "layers"], choices=["uncoupled", "layers"])
    args = parser.parse_args()
    rate = gemm_rate(args.device, 8192 if args.device == "cuda" else 1024)
    print(f"torch {torch.__version__}; a plain float32 product: {rate * 1e-12:.2f} TFLOP/s", flush=True)
    task = larger(args.rows, args.queries)
    net, clock = timed(train, task, args.device, 250)
    print(
        f"{args.rows} rows, {args.queries} queries, {task.n_params} parameters; trained in {clock.wall:.1f} s",
        flush=True,
    )
    with config_context(memory_budget=args.budget * 2**30):
        for form in args.forms:
            coupling = None if form == "uncoupled" else form
            few = [args.rows // 50, args.rows // 25]
            small = [task.head(n, args.queries) for n in few]
            nets = [train(part, args.device, 10) for part in small]
            one, two = (explain(part, own, coupling, count=True) for part, own in zip(small, nets))
            seconds = explain(task, net, coupling)
            for name, (wall, _), (_, first), (_, second) in zip(("fit", "transform"), seconds, one, two):
                flops = first + (second - first) * (args.rows - few[0]) / (few[1] - few[0])
                print(
                    f"{form}, {name}: {wall:.1f} s, {flops * 1e-12:.0f} TFLOP, {flops / wall * 1e-12:.2f} TFLOP/s, "
                    f"{flops / wall / rate:.0%} of a plain product",
                    flush=True,
                )
    if args.device == "cuda":
        print(f"{torch.cuda.get_device_name()}: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at the most")


if __name__ == "__main__":
    main()
