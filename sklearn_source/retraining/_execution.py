"""How networks are trained, whatever rows they are trained on: from masks to a :class:`Retraining`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import skorch

from ..rows import collate_of_net, row_hashes
from ..utils._argument_checks import (
    check_choice,
    check_count,
    check_jobs,
    check_path,
    check_verbose,
    require_reproducible,
)
from ..utils._progress import tqdm
from ..utils._warnings import warn
from ._engines import choose
from ._plan import draw_seeds, make_units, root_seed
from ._retraining import Retraining
from ._run import run

_ENGINES = ("auto", "vectorized", "joblib")


@dataclass(frozen=True)
class Execution:
    """The settings that decide who trains the networks and from which seeds, as the user gave them.

    Raises
    ------
    ValueError
        If one is not what :func:`~.retrain_on_subsets` takes.
    """

    random_state: Any
    n_jobs: int | None
    engine: str
    chunk_size: int | None
    cache: Any
    verbose: int
    root: int = field(init=False)

    def __post_init__(self):
        check_choice("engine", self.engine, _ENGINES)
        check_jobs(self.n_jobs)
        check_verbose(self.verbose)
        if self.cache is not None:
            check_path("cache", self.cache)
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)
        require_reproducible(self.cache, self.random_state)
        object.__setattr__(self, "root", root_seed(self.random_state))

    def retrain(self, task, masks, n_repeats, *, names=None, X_query, y_query):
        """Train ``n_repeats`` networks on the rows of every mask, and collect their outputs for the queries."""
        plan, fewest = task.plan, masks.sum(axis=1).min()
        fewest_dealt = plan.n_rows if plan.keep_places or plan.equal_steps else fewest
        if plan.drop_last and fewest_dealt < plan.batch_size:
            raise ValueError(
                f"expected rows for at least one batch of {plan.batch_size} (iterator_train__drop_last=True), got "
                f"{fewest}, so that nothing would be trained: give the net a smaller batch_size, or take larger subsets"
            )
        seeds = draw_seeds(len(masks), n_repeats, self.root, paired=plan.keep_places)
        units = make_units(masks, seeds)
        engine, reason = choose(self.engine, task, units, self.chunk_size)
        if self.verbose > 0:
            tqdm.write(f"retraining {len(units)} networks, {engine.name} engine: {reason}", file=sys.stderr)
        cache = None if self.cache is None else task.cache(self.cache)
        by_key, n_cached = run(engine, units, n_jobs=self.n_jobs, cache=cache, verbose=self.verbose)
        outputs = np.stack([by_key[unit.key] for unit in units]).reshape(*seeds.shape, -1)
        bad = int((~np.isfinite(outputs)).any(axis=2).sum())
        if bad:
            warn(
                f"{bad} of {len(units)} networks gave NaN or infinity for some query: their training diverged",
            )
        settings = {
            **task.about,
            "engine": engine.name,
            "engine_reason": reason,
            "random_state": self.root,
            "from_cache": n_cached,
            "skorch": skorch.__version__,
        }
        return Retraining(
            masks, outputs, task.reader.measure.name, seeds, settings, names,
            X_query=X_query, y_query=y_query,
            row_hashes=row_hashes(task.X, task.y, collate=collate_of_net(task.template)),
        )  # fmt: skip
