"""Whether the quick ways to per-row gradients are right for a network: compared with autograd on some rows."""

from __future__ import annotations

import contextlib
from collections import defaultdict

import torch

from ..utils._compat_torch import tree_leaves, tree_map
from ..utils._warnings import warn
from ._blocks import ROWS, to_matrices
from ._cotangent import random_cotangent

# Rows of the check that the quick ways agree with autograd: three, which divides few position counts.
_CHECK_ROWS = 3


class Verification:
    """See :meth:`GradientEngine.verify`; settles the ``levels`` of the engine's blocks and what rows ``seen`` use."""

    def __init__(self, engine, x):
        self._engine, self._x = engine, x
        # Fewer rows come again: one row alone would not tell rows from positions.
        self._few = _rows_of(x, lambda leaf: leaf[torch.arange(_CHECK_ROWS) % len(leaf)])
        self._n_rows = max(len(leaf) for leaf in tree_leaves(x) if isinstance(leaf, torch.Tensor) and leaf.ndim)
        self._tried = set()

    def __call__(self):
        """The owners of what goes the dense way in the end, sorted."""
        checked = self._find_routes()
        wrong = self._send_what_disagrees(checked)
        if wrong:
            raise ValueError(
                f"per-row gradients of {[b.name for b in wrong]} cannot be taken apart by rows: the network's "
                "output for one row seems to depend on other rows of the batch. Use layers= to leave these "
                "parameters out"
            )
        slow = [name for block in self._engine.blocks if block.by_network for name in block.parameters]
        if slow:
            shown = ", ".join(slow[:6]) + (f" and {len(slow) - 6} more" if len(slow) > 6 else "")
            warn(
                f"no quick way of per-row gradients fits how the network uses {shown}: they go through the whole "
                "network row by row, which may take many times longer. Leave them out with layers= if it does"
            )
        return sorted({owner for owner, name in self._tried if name in self._engine.dense_names})

    def _find_routes(self):
        """Find what only some rows use, or as many positions of each by chance; returns what the first few rows use."""
        engine = self._engine
        samples = [self._few, self._x]
        if self._n_rows > 1:
            samples.append(_rows_of(self._x, lambda leaf: leaf[1:]))
        first, *others = [self._observe(rows) for rows in samples]
        engine.seen = seen = set(first).union(*others)
        routed = {name for name in seen if any(other.get(name) != first.get(name) for other in others)}
        routed |= {name for name, counts in first.items() if any(n % 1 or not n for n in counts)}
        late = [b for b in engine.blocks if b.by_layer and engine.traces(b) & (seen - first.keys())]
        self._send(late, len(ROWS))
        # What no row has used yet may be of that kind.
        routed = [b for b in engine.blocks if engine.traces(b) & routed or not engine.traces(b) & first.keys()]
        for block in routed:
            if block.by_uses and not block.rule.is_broadcast:
                self._send([block], ROWS.index("routed") - engine.levels.get(block.module, 0))
        return first.keys()

    def _send_what_disagrees(self, checked):
        """Send blocks on until they are right; returns those that are wrong even the dense way."""
        while True:
            wrong = self._disagreeing(self._few, range(2))
            if not wrong and self._engine.seen - checked:
                wrong = self._disagreeing(self._x, range(self._n_rows))
            quick = [block for block in wrong if not block.by_network]
            if not quick:
                return wrong
            self._send(quick, 1)

    def _send(self, blocks, levels):
        """Send blocks so many levels on; past the last of :data:`ROWS` is the dense way."""
        self._tried.update((block.module, name) for block in blocks for name in block.parameters)
        for owner in {block.module for block in blocks}:
            self._engine.levels[owner] = self._engine.levels.get(owner, 0) + levels
        self._engine.plan()

    def _observe(self, x):
        """Plan by what functions use the parameters on some rows.

        Returns, by the names of what was used, how many positions per row each use saw.
        """
        engine = self._engine
        with _failing_clearly():
            output, uses, calls = engine.run_loosely(x)
        if not output.requires_grad:
            raise ValueError(
                f"the network's output depends on none of {engine.names[:6]}: its forward detaches them, or runs them "
                "under no_grad. Choose other parameters with layers="
            )
        seen, members = {name: [] for name in calls}, defaultdict(set)
        for use in uses:
            for name in use.names:
                seen.setdefault(name, []).append(use.n_positions_seen() / len(output))
            if use.is_of_member:
                members[use.weight[0]].add(use.weight[1])
        for name, used in members.items():
            if len(used) < len(engine.module.get_parameter(name)):
                seen[name].append(0)  # some matrix of the stack saw nothing
        engine.plan(uses)
        return seen

    def _disagreeing(self, x, rows):
        """The blocks whose gradients of some ``rows`` of ``x`` are not those of autograd."""
        engine = self._engine
        with engine.attached():
            with _failing_clearly():
                capture = engine.first_capture(x)
            cotangent = random_cotangent(capture.output)
            try:
                gradients = capture.pull(cotangent)
            except Exception:  # a layer that no rule fits (its shapes, its arguments): let each be judged alone
                gradients = [capture.pull_or_none(cotangent, block) for block in engine.blocks]
            wrong = []
            for row in rows:
                masked = torch.zeros_like(cotangent)
                masked[row] = cotangent[row]
                exact = capture.exact(masked, engine.names)
                largest = max(float(e.abs().max()) for e in exact.values())
                for block, gradient in zip(engine.blocks, gradients):
                    if block in wrong:
                        continue
                    target = to_matrices(block, exact)
                    own = None if gradient is None else gradient[row : row + 1].matrix()[0]
                    # Where large summands cancel, what is left is their rounding.
                    if own is None or not (
                        is_close(own, target, largest) or is_close(own, target, capture.largest_summand(masked, block))
                    ):
                        wrong.append(block)
        return wrong


def is_close(value, expected, largest):
    """Up to rounding: of the block itself, or of the largest gradient, of which a vanishing one may be a difference."""
    tolerance = 1e-8 if expected.dtype == torch.float64 else 2e-3
    rounding = 40 * torch.finfo(expected.dtype).eps * largest + 1e-12
    return bool((value - expected).abs().max() <= tolerance * float(expected.abs().max()) + rounding)


def _rows_of(x, take):
    return tree_map(lambda leaf: take(leaf) if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf, x)


@contextlib.contextmanager
def _failing_clearly():
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"the network failed on a batch of training rows: {error}") from error
