"""Which of the given rows each stage of the training really used."""

from __future__ import annotations

import warnings

import numpy as np


def credited_rows(trajectory, hashes, n_rows, stage=None):
    """Per stage of the trajectory, the positions (in the given data) of the rows it trained on.

    Parameters
    ----------
    trajectory : Trajectory or None
        None: every row belongs to one stage.
    hashes : ndarray of uint64 (n_rows,) or None
        Fingerprints of the rows given to ``fit``.
    n_rows : int
    stage : array-like of int (n_rows,), optional
        The stage each row is credited in.

    Returns
    -------
    index : list of int64 arrays, one per stage
    """
    if trajectory is None:
        return [np.arange(n_rows)]
    if stage is not None:
        return _by_labels(trajectory, hashes, n_rows, stage)
    found = []
    for recorded in trajectory.stages:
        if recorded.row_hashes is None or hashes is None:
            if recorded.n_rows != n_rows:
                raise ValueError(
                    f"the network was trained on {recorded.n_rows} rows (stage {recorded.index}), fit got {n_rows}: pass the "
                    "rows given to net.fit, all of them and in the same order"
                )
            found.append(np.asarray(recorded.rows))
        else:
            found.append(_match(recorded, hashes, np.arange(n_rows), several=len(trajectory.stages) > 1))
    used = np.zeros(n_rows, dtype=bool)
    for index in found:
        used[index] = True
    _tell_unused(used, trajectory, hashes)
    return found


def _by_labels(trajectory, hashes, n_rows, stage):
    stage = np.asarray(stage)
    if stage.shape != (n_rows,) or stage.dtype.kind not in "iu":
        raise ValueError(
            f"stage must hold one integer per row, shape ({n_rows},); got {stage.dtype} of shape {stage.shape}"
        )
    known = [recorded.index for recorded in trajectory.stages]
    foreign = sorted(set(stage.tolist()) - set(known))
    if foreign:
        raise ValueError(f"stage names {foreign}, but the trajectory has stages {known}")
    found = []
    for recorded in trajectory.stages:
        rows = np.flatnonzero(stage == recorded.index)
        if recorded.row_hashes is None or hashes is None:
            if len(rows) != recorded.n_rows:
                raise ValueError(
                    f"stage {recorded.index} trained on {recorded.n_rows} rows, but stage= gives it {len(rows)}: pass all rows of "
                    "every stage"
                )
            found.append(rows[np.asarray(recorded.rows)])
        else:
            found.append(_match(recorded, hashes[rows], rows, several=False))
    return found


def _match(recorded, hashes, positions, several):
    """Positions of the rows that ``recorded`` trained on; k-th duplicate to k-th duplicate."""
    given = np.asarray(hashes)
    trained = np.zeros(recorded.n_rows, dtype=bool)
    trained[np.asarray(recorded.rows)] = True
    if len(given) == recorded.n_rows and np.array_equal(given, recorded.row_hashes):
        return positions[trained]
    order_given = np.argsort(given, kind="stable")
    order_known = np.argsort(recorded.row_hashes, kind="stable")
    a, b = given[order_given], recorded.row_hashes[order_known]
    rank_a = np.arange(len(a)) - np.searchsorted(a, a)
    rank_b = np.arange(len(b)) - np.searchsorted(b, b)
    known = {(h, r): j for h, r, j in zip(b.tolist(), rank_b.tolist(), order_known.tolist())}
    partner = np.array([known.get((h, r), -1) for h, r in zip(a.tolist(), rank_a.tolist())], dtype=np.int64)
    unknown = int((partner < 0).sum())
    seen = np.zeros(recorded.n_rows, dtype=bool)
    seen[partner[partner >= 0]] = True
    missing = int((trained & ~seen).sum())
    if missing or (unknown and not several):
        raise ValueError(
            f"these are not the rows that the network was trained on (stage {recorded.index}, {recorded.n_rows} rows): of the "
            f"{len(given)} given, {unknown} were not among them, and {missing} that it trained on are missing. Pass the X and y "
            "given to net.fit, scaled as then; any order will do. Inside cross-validation a frozen net meets subsets of "
            "its rows: keep all rows in every fold, or pass the net unfrozen to have it retrained"
        )
    result = np.zeros(len(given), dtype=bool)
    result[order_given] = (partner >= 0) & trained[np.maximum(partner, 0)]
    return positions[result]


def _tell_unused(used, trajectory, hashes):
    unused = int((~used).sum())
    if not unused:
        return
    known = None
    if hashes is not None and all(s.row_hashes is not None for s in trajectory.stages):
        known = np.isin(hashes, np.concatenate([s.row_hashes for s in trajectory.stages]))
    foreign = 0 if known is None else int((~known & ~used).sum())
    if foreign:
        raise ValueError(
            f"{foreign} of the {len(used)} rows were in no stage of the network's training: pass only rows given to net.fit or "
            "net.partial_fit, scaled as then"
        )
    warnings.warn(
        f"{unused} of the {len(used)} rows were held out by the net's train_split and never trained on: their scores are 0",
        UserWarning,
        stacklevel=5,
    )
