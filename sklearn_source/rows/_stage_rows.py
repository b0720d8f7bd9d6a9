"""Which of the given rows each stage of the training really used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..utils._warnings import warn
from ._matching import match_rows

_PASS_ALL_ROWS = (
    "Pass the X and y given to net.fit, scaled as then, all of them; any order will do. Inside cross-validation a "
    "frozen net meets subsets of its rows: keep all rows in every fold (cv=FullTrainingSet(); in a halving search, a "
    "parameter as resource), or pass the net unfrozen to have it retrained"
)


def match_stage_rows(
    trajectory: Any,
    hashes: np.ndarray | None,
    n_rows: int,
    stage: ArrayLike | None = None,
    *,
    every_stage: bool = True,
    exact: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Per stage of the trajectory, the positions (in the given data) of the rows it trained on.

    Parameters
    ----------
    trajectory : Trajectory or None
        None: nothing is known, every row belongs to one stage.
    hashes : ndarray of uint64 (n_rows,) or None
        Fingerprints of the rows given to ``fit``; 0 for rows that were not looked at.
    n_rows : int
    stage : array-like of int (n_rows,), optional
        The stage each row is credited in.
    every_stage : bool, default=True
        False: the rows of a stage may be missing altogether, as long as those of another are there. Methods that look
        at the last weights alone need no more.
    exact : ndarray of uint64 (n_rows,) or None
        From :func:`exact_row_hashes`: fingerprints of every bit. They count where the record has such too. Where one of
        the two held float32, or numbers that float32 holds, rows are alike if they are when rounded to it.

    Returns
    -------
    index : list of int64 arrays, one per stage

    Raises
    ------
    ValueError
        When rows are missing or foreign.
    """
    labels = None if stage is None else _check_stage(stage, n_rows, trajectory)
    if trajectory is None:
        return [np.arange(n_rows)]
    credited, known = [], np.zeros(n_rows, dtype=bool)
    for recorded in trajectory.stages:
        positions = np.arange(n_rows) if labels is None else np.flatnonzero(labels == recorded.index)
        if recorded.row_hashes is None or hashes is None or not (recorded.row_hashes.all() and hashes.all()):
            _compare_in_place(recorded, None if hashes is None else hashes[positions], len(positions))
            rows, foreign = positions[np.asarray(recorded.rows)], np.zeros(len(positions), dtype=bool)
        else:
            known_hashes, own = _comparable(recorded, hashes, exact)
            rows, foreign = _match_one_stage(recorded, known_hashes, own[positions], positions, every_stage)
        known[positions[~foreign]] = True
        credited.append(rows)
    if not known.all() or not any(map(len, credited)):
        sizes = ", ".join(str(recorded.n_rows) for recorded in trajectory.stages)
        raise ValueError(
            f"these are not the rows that the network was trained on ({sizes} rows): of the {n_rows} given, "
            f"{int((~known).sum())} were not among them. {_PASS_ALL_ROWS}"
        )
    return credited


def rows_of_stages(credited: list[np.ndarray]) -> np.ndarray:
    """All rows that some stage trained on: sorted ndarray of int64, of a single stage often its own.

    Parameters
    ----------
    credited : from :func:`match_stage_rows`
    """
    first = credited[0]
    if len(credited) == 1 and (first[1:] > first[:-1]).all():
        return first
    met = np.zeros(1 + max((int(rows.max()) for rows in credited if len(rows)), default=-1), dtype=bool)
    for rows in credited:
        met[rows] = True
    return np.flatnonzero(met)


def warn_unused_rows(credited: list[np.ndarray], n_rows: int) -> None:
    """Say how many of the given rows no stage trained on.

    Parameters
    ----------
    credited : from :func:`match_stage_rows`
    n_rows : int

    Warns
    -----
    UserWarning
        If there are any.
    """
    unused = n_rows - len(rows_of_stages(credited))
    if unused:
        warn(
            f"{unused} of the {n_rows} rows were held out by the net's train_split and never trained on: their scores "
            "are 0",
        )


def _check_stage(stage, n_rows, trajectory):
    stage = np.asarray(stage)
    if stage.shape != (n_rows,) or stage.dtype.kind not in "iu":
        raise ValueError(
            f"expected stage to hold one integer per row, shape ({n_rows},); got {stage.dtype} of shape {stage.shape}"
        )
    known = [0] if trajectory is None else [recorded.index for recorded in trajectory.stages]
    foreign = sorted(set(stage.tolist()) - set(known))
    if foreign and trajectory is not None:
        raise ValueError(f"stage names {foreign}, but the training had the stages {known}: number them as they ran")
    return stage


def _compare_in_place(recorded, hashes, n_rows):
    """Refuse another number of rows than ``recorded`` had, or others in the places that both know."""
    if n_rows != recorded.n_rows:
        raise ValueError(
            f"stage {recorded.index} of the training had {recorded.n_rows} rows, but fit got {n_rows} for it. Pass the "
            "data given to net.fit, all of it and in the same order"
        )
    if hashes is None or recorded.row_hashes is None:
        return
    looked_at = (hashes != 0) & (recorded.row_hashes != 0)
    n_others = int((looked_at & (hashes != recorded.row_hashes)).sum())
    if n_others:
        raise ValueError(
            f"these are not the rows that the network was trained on (stage {recorded.index}), or not in their order: "
            f"of {int(looked_at.sum())} looked at, {n_others} are others. Pass the Dataset given to net.fit"
        )


def _comparable(recorded, hashes, exact):
    """Fingerprints of the record's rows and of those given, of every bit where both have such."""
    if recorded.exact_hashes is None:
        return recorded.row_hashes, hashes
    if exact is not None:
        return recorded.exact_hashes, exact
    warn(
        "the network was trained on float64 that float32 cannot hold, and fit got rows that it can (stage "
        f"{recorded.index}): they are compared, and scored, as they are when rounded. Pass the X and y given to "
        "net.fit in the precision that they had"
    )
    return recorded.row_hashes, hashes


def _of_every_bit(recorded, known):
    """What is to be said of the numbers' precision."""
    if known is recorded.row_hashes:
        return ""
    return " Numbers are compared in every bit, as the record and fit have float64 beyond float32."


def _match_one_stage(recorded, known, hashes, positions, required):
    """Positions of the rows that ``recorded`` trained on (k-th duplicate to k-th duplicate), and which are foreign."""
    trained = np.zeros(recorded.n_rows, dtype=bool)
    trained[np.asarray(recorded.rows)] = True
    if np.array_equal(hashes, known):  # as they mostly are; nothing of their size is made
        return positions if trained.all() else positions[trained], np.zeros(len(hashes), dtype=bool)
    places = match_rows(hashes, known, first=trained)
    foreign = places < 0
    met = np.zeros(recorded.n_rows, dtype=bool)
    met[places[~foreign]] = True
    missing = int((trained & ~met).sum())  # held-out rows may be left away
    if missing and (required or not foreign.all()):
        raise ValueError(
            f"these are not the rows that the network was trained on (stage {recorded.index}, {recorded.n_rows} rows): "
            f"of the {len(hashes)} given, {int(foreign.sum())} were not among them, and {missing} that it trained on "
            f"are missing.{_of_every_bit(recorded, known)} {_PASS_ALL_ROWS}"
        )
    return positions[~foreign & trained[np.maximum(places, 0)]], foreign
