"""What is private to torch, skorch and scikit-learn is reached through the files of compatibility alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch import nn

import sklearn_source
from sklearn_source.utils._compat_skorch import criterion_names, is_predefined_split, module_names, optimizer_names
from sklearn_source.utils._compat_torch import (
    HOOKS,
    fused_attention_off,
    is_compiled,
    original_of,
    recurrent_backward_in_evaluation,
    version_of,
    view_base,
)

PACKAGE = Path(sklearn_source.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_compat"))
LIBRARIES = ("torch", "skorch", "sklearn", "joblib", "scipy", "numpy")
# What scikit-learn asks third parties to define, and Python's own.
ALLOWED = {"_parameter_constraints", "_getframe"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def initialized_net():
    net = NeuralNet(nn.Linear, nn.MSELoss, module__in_features=1, module__out_features=1)
    return net.initialize()


def private_names_of_others():
    things = [nn.Linear(1, 1), nn.LSTM(1, 1), torch.zeros(1), torch.optim.SGD([torch.zeros(1)], 0.1), BaseEstimator()]
    return {name for thing in [*things, initialized_net()] for name in dir(thing) if is_private(name)} - ALLOWED


def names_defined_here():
    names = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return names


OTHERS, OURS = private_names_of_others(), names_defined_here() | ALLOWED


def private_uses(source):
    """Private names of other libraries in a file: imported, read as attributes, or named in a text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in LIBRARIES:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from (f"line {node.lineno}: {name}" for name in names if is_private(name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr not in OURS or (node.attr in OTHERS and owner not in ("self", "cls")):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in OTHERS:
            yield f"line {node.lineno}: {node.value!r}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_others_are_not_used(path):
    assert not list(private_uses(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "from torch.utils._pytree import tree_map",
        "from sklearn.base import _fit_context",
        "net._criteria",
        "net._set_training(True)",
        "torch._C",
        "nn.modules.conv._ConvNd",
        'vars(module)["_forward_hooks"]',
        "layer._parameters.get(name)",
    ],
)
def test_private_names_are_seen(source):
    assert len(list(private_uses(source))) == 1


def test_what_a_net_consists_of():
    net = initialized_net()
    assert (module_names(net), criterion_names(net), optimizer_names(net)) == (["module"], ["criterion"], ["optimizer"])
    assert optimizer_names(object()) is None


def test_splits_of_a_net():
    from skorch.dataset import Dataset, ValidSplit
    from skorch.helper import predefined_split

    assert is_predefined_split(predefined_split(Dataset([1.0], [1.0])))
    assert not is_predefined_split(ValidSplit(5))


def test_every_kind_of_hook_is_known():
    kinds = {name for name in vars(nn.Linear(1, 1)) if "forward" in name or "backward" in name}
    assert kinds - {"_is_full_backward_hook"} == set(HOOKS)


def test_views_and_versions():
    tensor = torch.zeros(2, 2)
    assert view_base(tensor) is None
    assert view_base(tensor.t()) is tensor
    before = version_of(tensor)
    tensor.add_(1)
    assert version_of(tensor) == before + 1
    assert version_of({"a": tensor}) is None


def test_compiled_modules():
    module = nn.Linear(1, 1)
    compiled = torch.compile(module, backend="eager")
    assert original_of(compiled) is module
    assert is_compiled(compiled)
    assert not is_compiled(module)


def test_attention_by_products_where_a_gpu_trains_many_networks():
    before = torch.backends.cuda.mem_efficient_sdp_enabled()
    with fused_attention_off(torch.device("cpu")):
        assert torch.backends.cuda.mem_efficient_sdp_enabled() == before
    with fused_attention_off(torch.device("cuda")), fused_attention_off(torch.device("cuda")):
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
        q = torch.randn(2, 3, 5, 4)
        attended = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        torch.testing.assert_close(attended, (q @ q.mT / 2).softmax(-1) @ q)
    assert torch.backends.cuda.mem_efficient_sdp_enabled() == before


def test_only_recurrent_layers_on_a_gpu_leave_cudnn():
    linear, recurrent = nn.Linear(2, 2), nn.Sequential(nn.GRU(2, 2))
    for module, kind, enabled in ((linear, "cuda", True), (recurrent, "cpu", True), (recurrent, "cuda", False)):
        with recurrent_backward_in_evaluation(module, torch.device(kind)):
            assert torch.backends.cudnn.enabled is enabled
    assert torch.backends.cudnn.enabled
