"""Row-by-row autograd, the oracle of the tests of per-row gradients."""

from __future__ import annotations

import pytest
import torch

from sklearn_source.gradients import GradientEngine, from_matrices


def autograd_rows(module, x, cotangent, names):
    """dict name -> (B, *shape): ``grad <cotangent_n, module(x_n)>`` for one row at a time, nothing but autograd."""
    parameters = {name: module.get_parameter(name) for name in names}
    flags = {name: p.requires_grad for name, p in parameters.items()}
    rows = {name: [] for name in names}
    for n in range(len(cotangent)):
        for p in parameters.values():
            p.requires_grad_(True)
        value = (module(x[n : n + 1]) * cotangent[n : n + 1]).sum()
        grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for (name, p), g in zip(parameters.items(), grads):
            rows[name].append(torch.zeros_like(p) if g is None else g.to_dense())
    for name, p in parameters.items():
        p.requires_grad_(flags[name])
    return {name: torch.stack(of_row) for name, of_row in rows.items()}


def block_rows(engine, gradients):
    """dict name -> (B, *shape) from the blocks of one pull."""
    values = {}
    for block, gradient in zip(engine.blocks, gradients):
        assert gradient.shape == block.shape
        for name, value in from_matrices(block, gradient.matrix()).items():
            assert name not in values, f"{name} is in two blocks"
            values[name] = value
    return values


@pytest.fixture
def per_row():
    """``per_row(module, x, ...)``: verify, capture and pull; returns (actual, expected, engine)."""

    def run(module, x, *, layers=None, treatment=None, forward=None, seed=0, verify=True):
        engine = GradientEngine(module, forward or module, layers, treatment)
        engine.demoted = engine.verify(x) if verify else []
        with engine.attached():
            capture = engine.capture(x)
            generator = torch.Generator().manual_seed(seed)
            cotangent = torch.randn(capture.output.shape, generator=generator).to(capture.output)
            actual = block_rows(engine, capture.pull(cotangent))
        expected = autograd_rows(module, x, cotangent, engine.names)
        return actual, expected, engine

    return run
