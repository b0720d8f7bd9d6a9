"""Training all networks of a retraining, wherever joblib sends them, and keeping what is finished."""

from __future__ import annotations

from ..utils._progress import counter
from ..utils._workers import finished_blocks, n_workers


def run(engine, units, *, n_jobs, cache, verbose):
    """What an engine makes of every unit: outputs, or networks.

    Parameters
    ----------
    engine : callable
        From :func:`~._engines.choose`, or of :func:`~._networks.train_networks`.
    units : list of Unit
    n_jobs : int or None
    cache : UnitCache, NetworkCache or None
    verbose : int

    Returns
    -------
    outputs : dict from key to what the engine makes of a unit
    n_cached : int
        How many of them an earlier run had finished.
    """
    keys = {unit.key for unit in units}
    outputs = {} if cache is None else cache.read(keys)
    n_cached = len(outputs)
    pending = [[unit for unit in chunk if unit.key not in outputs] for chunk in _chunks(units, engine)]
    pending = [chunk for chunk in pending if chunk]
    with counter(len(keys), done=n_cached, verbose=verbose > 0, desc="retraining", unit="net") as bar:
        for names, values in _finished_chunks(engine, pending, n_jobs):
            if cache is not None:
                cache.write(names, values)
            outputs.update(zip(names, values, strict=True))
            bar.update(len(names))
    return outputs, n_cached


def _chunks(units, engine):
    """Networks trained together, each once: of equally many rows, or all dealt the same batches.

    The same in every run, so that a run that goes on after an interruption trains them in the same company.
    """
    groups, seen = {}, set()
    for unit in units:
        if unit.key not in seen:
            seen.add(unit.key)
            groups.setdefault(0 if engine.pads else len(unit.rows), []).append(unit)
    size = engine.chunk_size
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def _finished_chunks(engine, chunks, n_jobs):
    """Yield (keys, outputs) of the chunks, as they are finished."""
    if n_workers(n_jobs) == 1:
        yield from (_train_chunk(engine, chunk) for chunk in chunks)
        return
    for _, finished in finished_blocks(_train_chunk, engine, chunks, n_jobs=n_jobs):
        yield finished


def _train_chunk(engine, units):
    """Keys of the units and what the engine makes of them: two lists."""
    try:
        return [unit.key for unit in units], engine(units)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "expected batches of two rows or more, as batch normalisation has no statistics of one, got "
            f"{len(units[0].rows)} rows, of which a batch of a single one is left ({error}): give the net another "
            "batch_size, iterator_train__drop_last=True, or other subsets"
        ) from error
