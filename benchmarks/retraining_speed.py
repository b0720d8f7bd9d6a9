"""Retraining on Concrete: many networks at once against the loop over skorch nets that a user would write.

Both train the same networks (MLP 128-128-128, 448 rows, 20 epochs, batch 32). The loop is timed on a few of them.

    python benchmarks/retraining_speed.py --n-subsets 100 --n-repeats 10
"""

from __future__ import annotations

import argparse

from _common import N_THREADS, timed
from _lds_problems import concrete

from sklearn_source.datasets import load_concrete_split
from sklearn_source.retraining import Retraining, retrain_on_subsets

N_LOOP = 20


def loop(recipe: str, truth: Retraining, device: str) -> None:
    """Train on the first subsets, one net after the other."""
    split = load_concrete_split()
    for mask in truth.masks[:N_LOOP]:
        net = concrete(adaptive=recipe == "adamw").make_net(None).set_params(device=device)
        net.fit(split.X_train[mask], split.y_train[mask]).predict(split.X_query)


def retrain(recipe: str, n_subsets: int, n_repeats: int, n_jobs: int | None, device: str) -> Retraining:
    """Train all networks."""
    split = load_concrete_split()
    return retrain_on_subsets(
        concrete(adaptive=recipe == "adamw").make_net(None).set_params(device=device),
        split.X_train, split.y_train, split.X_query,
        n_subsets=n_subsets, n_repeats=n_repeats,
        random_state=0, n_jobs=n_jobs, engine="vectorized",
    )  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-subsets", type=int, default=100)
    parser.add_argument("--n-repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    n = args.n_subsets * args.n_repeats
    for recipe in ("sgd", "adamw"):
        print(f"{recipe}: {n} networks, {N_THREADS} threads")
        truth, _ = timed(retrain, recipe, max(N_LOOP, 2), 1, None, args.device)  # warm-up, and the subsets of the loop
        _, one = timed(loop, recipe, truth, args.device)
        print(f"  skorch loop   {one.wall / N_LOOP * n:7.1f} s wall, {one.cpu / N_LOOP * n:7.1f} s CPU (from {N_LOOP})")
        for n_jobs in (None, N_THREADS):
            _, all_ = timed(retrain, recipe, args.n_subsets, args.n_repeats, n_jobs, args.device)
            _, again = timed(loop, recipe, truth, args.device)  # before and after: the machine may be shared
            ratio = (one.wall + again.wall) / 2 / N_LOOP * n / all_.wall
            one = again
            print(f"  n_jobs={n_jobs!s:5}  {all_.wall:7.1f} s wall, {all_.cpu:7.1f} s CPU, {ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
