"""What the package knows of each kind of layer, one file a kind.

To add a kind, write one file like ``_linear.py``: every file of this folder is imported, nothing else asks which kinds
there are. It has

1. a *rule*: a subclass of :class:`ParameterRule` that turns the uses of a parameter by one of torch's functions into
   its per-row gradients. :class:`FactoredRule` suits weights that multiply inputs: it wants ``shape``, (groups, out,
   in), ``inputs``, ``a`` (B, groups, T, in), ``outputs``, ``g`` (B, groups, T, out), and where these are not plain
   reshapes ``to_matrix`` and ``from_matrix``. :class:`VectorRule` suits what is added to positions or multiplies them:
   it wants ``of_use``, (B, *parameter). The attributes of a rule say what else may be done with it (``joins_bias``,
   ``adds_up``, ``may_lack_rows``, ...);
2. a *reader* under ``@reads(torch_function)``: the function's signature, returning :class:`Arguments`: the rule, the
   input, the weight, the bias and what else the rule needs of the call; None for a call that it has no rule for;
3. a *spec* under ``@specifies(nn_module)``: which parameters such a module owns and by which rule they are used, as
   :class:`ParameterSpec`, so that a weight and its bias become one block before any row was seen. Without it uses
   are found as they happen, under the parameter's name;
4. where torch hides the uses in one kernel, a *substitute* under ``@substitutes(torch_function)``: the same values by
   functions that have readers (``_recurrent.py``, ``_attention.py``).

A rule need not be right for every network: :meth:`GradientEngine.verify` compares it with autograd on some rows and
sends what disagrees through ``torch.func``. ``tests/gradients/test_layer_registry.py`` adds a kind in twenty lines.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ._broadcasting import ELEMENTWISE, EXPANSIONS, IN_PLACE, BroadcastParameter, Derived, broadcast_of
from ._contraction import member_of
from ._embedding import refuse_frequencies
from ._factored_rule import FactoredRule
from ._layer_registry import (
    READERS,
    SPECIFICATIONS,
    SUBSTITUTES,
    Arguments,
    ParameterSpec,
    reads,
    specifies,
    specs_of,
    substitutes,
)
from ._mixed import Mixed
from ._parameter_rule import ParameterRule
from ._routed_layout import RoutedLayout
from ._row_layout import RowLayout
from ._torch_func import WholeLayer, WholeNetwork
from ._vector_rule import VectorRule

for _file in iter_modules(__path__):  # each kind registers itself by being imported
    import_module(f"{__name__}.{_file.name}")

__all__ = [
    "Arguments",
    "BroadcastParameter",
    "Derived",
    "ELEMENTWISE",
    "EXPANSIONS",
    "FactoredRule",
    "IN_PLACE",
    "Mixed",
    "ParameterRule",
    "ParameterSpec",
    "READERS",
    "RoutedLayout",
    "RowLayout",
    "SPECIFICATIONS",
    "SUBSTITUTES",
    "VectorRule",
    "WholeLayer",
    "WholeNetwork",
    "broadcast_of",
    "member_of",
    "reads",
    "refuse_frequencies",
    "specifies",
    "specs_of",
    "substitutes",
]
