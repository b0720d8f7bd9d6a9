"""Criteria that keep something of every call: asked, and left as they were."""

from __future__ import annotations

import contextlib

import torch


@contextlib.contextmanager
def criterion_unchanged(criterion):
    """Put a criterion's attributes and buffers back after it was asked: counters, running means, what it last saw."""
    parts = list(criterion.modules()) if isinstance(criterion, torch.nn.Module) else [criterion]
    parts = [part for part in parts if hasattr(part, "__dict__") and not isinstance(part, type)]
    attributes = [dict(vars(part)) for part in parts]
    buffers = [
        {name: value.clone() for name, value in part.named_buffers(recurse=False)}
        if isinstance(part, torch.nn.Module)
        else {}
        for part in parts
    ]
    try:
        yield
    finally:
        for part, saved, values in zip(parts, attributes, buffers):
            vars(part).clear()
            vars(part).update(saved)
            for name, value in values.items():
                setattr(part, name, value)
