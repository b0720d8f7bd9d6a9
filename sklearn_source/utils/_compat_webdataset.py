"""What webdataset's pipelines make: their stages are known by name, as the package is not imported for it."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

_STAGES = {"_batched": True, "_unbatched": False, "_unlisted": False, "_listed": True}


def makes_batches(stream: Any) -> bool:
    """Whether a pipeline gives batches of rows: one of a loader (``WebLoader``), or one that ends in ``batched()``.

    Parameters
    ----------
    stream : IterableDataset
        Any; of all but webdataset's False.
    """
    batches = False
    for stage in getattr(stream, "pipeline", None) or ():
        if isinstance(stage, DataLoader):
            batches = stage.batch_size is not None or makes_batches(stage.dataset)
        else:
            function = getattr(stage, "f", None)
            batches = _STAGES.get(getattr(function, "__name__", ""), batches)
    return batches
