"""Training the members of an ensemble against training one network, on Concrete: both with a recorder, in one run.

    python benchmarks/ensemble_training.py --n-members 10

The ratio is of the times of skorch and of the members measured in turn, the least of each.
"""

from __future__ import annotations

import argparse

from _common import N_THREADS, Clock, timed
from _lds_problems import concrete

from sklearn_source import TrajectoryRecorder
from sklearn_source.network import train_clone
from sklearn_source.retraining import train_networks


def least(clocks: list[Clock]) -> Clock:
    """Return the least wall and the least processor time."""
    return Clock(min(clock.wall for clock in clocks), min(clock.cpu for clock in clocks))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-members", type=int, default=10)
    parser.add_argument("--n-runs", type=int, default=5)
    args = parser.parse_args()
    for adaptive in (False, True):
        problem = concrete(adaptive)
        net, rows = problem.make_net(None), (problem.X_train, problem.y_train)
        one, many = [], []
        for run in range(args.n_runs + 1):
            seeds = range(args.n_members * run, args.n_members * (run + 1))
            _, clock = timed(train_clone, net, *rows, seed=seeds[0], recorder=TrajectoryRecorder())
            _, clocks = timed(train_networks, net, *rows, seeds, recorder=TrajectoryRecorder())
            if run > 0:  # the first is a warm-up
                one.append(clock)
                many.append(clocks)
        skorch, members = least(one), least(many)
        print(
            f"{problem.name}, {N_THREADS} threads: one network {skorch.wall:.2f} s wall, {skorch.cpu:.2f} s CPU; "
            f"{args.n_members} members {members.wall:.2f} s, {members.cpu:.2f} s; "
            f"ratio {members.wall / skorch.wall:.2f}, of CPU {members.cpu / skorch.cpu:.2f}"
        )


if __name__ == "__main__":
    main()
