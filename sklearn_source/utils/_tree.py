"""Batches as trees: tensors in dicts, lists and tuples."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def map_tensors(function, tree):
    """Apply a function to every tensor in dicts, lists and tuples; leave all else as it is."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [map_tensors(function, value) for value in tree]
    return tree


def take(tree, index):
    """Some rows of a batch."""
    return map_tensors(lambda tensor: tensor[index], tree)
