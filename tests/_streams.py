"""Streams as other libraries give them."""

from __future__ import annotations

from torch.utils.data import default_collate


class AsDicts:
    """Rows of a stream of pairs as streams of Hugging Face's give them."""

    def __iter__(self):
        yield from ({"X": x, "y": target} for x, target in super().__iter__())


def pair(items):
    """The collate function that makes pairs of them."""
    batch = default_collate(items)
    return batch["X"], batch["y"]
