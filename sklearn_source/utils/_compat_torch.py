"""The one home of what is private to torch. Needs torch alone, as the rooms of the gradients do."""

from __future__ import annotations

import contextlib
import functools
import platform
import warnings

import torch
import torch.utils.checkpoint
from torch import nn
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.conv import _ConvNd as Convolution
from torch.nn.modules.dropout import _DropoutNd as Dropout
from torch.nn.modules.instancenorm import _InstanceNorm as InstanceNorm
from torch.storage import TypedStorage
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ._locks import Switch

__all__ = [
    "BatchNorm",
    "Convolution",
    "Dropout",
    "HOOKS",
    "MODULE_ATTRIBUTES",
    "OF_EVERY_MODULE",
    "TypedStorage",
    "autocast_off",
    "bytes_of",
    "grouped_mm",
    "has_quick_bfloat16",
    "checkpointing_off",
    "InstanceNorm",
    "is_compiled",
    "is_plain",
    "original_of",
    "quiet_vmap",
    "recorded",
    "schema_of",
    "storage_and_name",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "typed_storage",
    "unsafe_view",
    "version_of",
    "view_base",
]

# Where a module keeps hooks that change what its forward or backward pass does, and what is noted of them.
HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
# What torch keeps in every module: parameters, buffers, parts, hooks, the mode.
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
# What torch itself keeps among the attributes of a module that are numbers.
MODULE_ATTRIBUTES = {"training", "_is_full_backward_hook", "call_super_init", "dump_patches", "_version"}
# What torch.nn.functional.grouped_mm calls; None in versions before it.
grouped_mm = getattr(torch, "_grouped_mm", None)
unsafe_view = torch.ops.aten._unsafe_view.default


def view_base(tensor):
    """The tensor that another is a view of; None where it is none."""
    return tensor._base


def has_quick_bfloat16(device):
    """Whether products of bfloat16 have instructions on a device; where that is not known, they are taken to have."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(supported is not None and supported() for supported in known)


def is_plain(value):
    """Whether a value is a tensor with strides: neither sparse nor nested."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_nested


def quiet_vmap(function, **options):
    """``torch.func.vmap`` without its warning of functions that have no batching rule, which no user can mend."""
    mapped = torch.func.vmap(function, **options)

    def quietly(*args):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return mapped(*args)

    return quietly


def recorded(function, *args):
    """What ``make_fx(function)`` makes of a call.

    It notes the form of every tensor in a mode for such notes. Here there is one for all of them; left to itself, it
    makes a new one for each, which notes the stack of calls too: half of the time that recording takes.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*args)


def version_of(value):
    """How often a tensor was written to; None for anything else."""
    return getattr(value, "_version", None)


def schema_of(operation):
    """What an overload of ``torch.ops`` declares of its arguments and results; None for anything else."""
    return getattr(operation, "_schema", None)


def original_of(module):
    """The module that ``torch.compile`` made another of; None for one that is not compiled."""
    if not type(module).__module__.startswith("torch._dynamo"):
        return None
    return dict(nn.Module.named_children(module)).get("_orig_mod")


def is_compiled(module):
    """Whether a module is what ``torch.compile`` made of another."""
    return original_of(module) is not None


class _Plain:
    """In the place of reentrant checkpointing: what it runs, run once, with its graph kept."""

    @staticmethod
    def apply(function, preserve_rng_state, *args):
        return function(*args)


_CHECKPOINTING = Switch(
    lambda: torch.utils.checkpoint.CheckpointFunction,
    functools.partial(setattr, torch.utils.checkpoint, "CheckpointFunction"),
    _Plain,
)


def checkpointing_off():
    """Let reentrant checkpointing keep its graph for as long as the context lasts, in any thread.

    It hides the parameters that it uses from ``torch.autograd.grad``, whose gradients of them would be zero.
    """
    return _CHECKPOINTING


_KINDS_OF_ATTENTION = ("flash", "mem_efficient", "cudnn")
_FUSED_ATTENTION = Switch(
    lambda: [getattr(torch.backends.cuda, f"{kind}_sdp_enabled", bool)() for kind in _KINDS_OF_ATTENTION],
    lambda flags: [
        getattr(torch.backends.cuda, f"enable_{kind}_sdp", lambda flag: None)(flag)
        for kind, flag in zip(_KINDS_OF_ATTENTION, flags)
    ],
    [False] * len(_KINDS_OF_ATTENTION),
)


def fused_attention_off(device):
    """Let attention be plain products on a GPU for as long as the context lasts, in any thread.

    The fused kernels' backward passes do not take what ``vmap`` makes of their intermediate results ("LSE is not
    correctly aligned").
    """
    return _FUSED_ATTENTION if device.type == "cuda" else contextlib.nullcontext()


_CUDNN = Switch(
    lambda: torch.backends.cudnn.enabled, functools.partial(setattr, torch.backends.cudnn, "enabled"), False
)


def recurrent_backward_in_evaluation(module, device):
    """Let recurrent layers on a GPU have a backward pass in evaluation mode: cuDNN's have none."""
    recurrent = device.type == "cuda" and any(isinstance(part, torch.nn.RNNBase) for part in module.modules())
    return _CUDNN if recurrent else contextlib.nullcontext()


def in_tensor_float(output):
    """Whether an output may have been formed by products that a GPU rounds to TF32, as torch lets convolutions be."""
    return (
        output.is_cuda
        and output.dtype is torch.float32
        and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    )


@contextlib.contextmanager
def autocast_off():
    """Let no ``torch.autocast`` around the caller reach what is computed as long as the context lasts."""
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def storage_and_name(typed):
    """The memory behind what a tensor is pickled with, and a number that is the same for the same memory."""
    storage = typed._untyped_storage
    return storage, storage._cdata


def typed_storage(storage, dtype):
    """What a tensor of some memory is unpickled from."""
    return TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def bytes_of(storage):
    """The bytes of a tensor's memory as an array, without a copy where they are on the CPU."""
    return torch.empty(0, dtype=torch.uint8).set_(storage.cpu()).numpy()
