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


def stack_trees(trees, dim):
    """Batches of one form, side by side in a new axis."""
    first = trees[0]
    if isinstance(first, torch.Tensor):
        return torch.stack(trees, dim)
    if isinstance(first, Mapping):
        return {key: stack_trees([tree[key] for tree in trees], dim) for key in first}
    if isinstance(first, (list, tuple)):
        return [stack_trees(list(parts), dim) for parts in zip(*trees)]
    return first
