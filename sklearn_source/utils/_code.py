"""What a function does, as text, and what it refers to."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import sysconfig
from types import CodeType, ModuleType

# In one order: a set of texts has another in every process, and what this package's own code names is described too.
_INSTALLED = tuple(sorted({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}))
_VERSIONLESS = ("builtins", "numpy", "sklearn", "skorch", "torch")  # another release of these trains the same networks
OWN_ROOT = __package__.split(".")[0]


def text_of(function):
    """The source of a function; its bytecode where there is none, and where a line may hold several functions."""
    return _text(function.__code__, function.__name__ == "<lambda>")


@functools.lru_cache(maxsize=10_000)  # the text of code that runs does not change, whatever becomes of its file
def _text(code, is_lambda):
    if not is_lambda:
        try:
            return inspect.getsource(code)
        except (OSError, TypeError):
            pass
    return _bytecode(code)


def _bytecode(code):
    return [code.co_code.hex(), list(map(_constant, code.co_consts)), list(code.co_names), list(code.co_varnames)]


def _constant(value):
    if isinstance(value, frozenset):
        return sorted(map(repr, value))  # their order is that of a process
    return _bytecode(value) if isinstance(value, CodeType) else repr(value)


def enclosed_by(function):
    """Variables that a function encloses: dict."""
    cells = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not given a value yet
            continue
    return cells


def named_by(function):
    """What the code of a function may name: variables of its module, and of the modules of the user among these."""
    names, loaded = _names_in(function.__code__), _loaded_in(function.__code__)
    named = {name: function.__globals__[name] for name in loaded if name in function.__globals__}
    modules = {name: value for name, value in named.items() if is_users_module(value)}
    while modules:  # config.rate, pkg.config.rate
        prefix, module = modules.popitem()
        for name in names:
            path = f"{prefix}.{name}"
            if name in vars(module) and path not in named and path.count(".") < 5:
                named[path] = vars(module)[name]
                if is_users_module(named[path]):
                    modules[path] = named[path]
    return named


@functools.lru_cache(maxsize=10_000)
def _names_in(code):
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return frozenset(names)


@functools.lru_cache(maxsize=10_000)
def _loaded_in(code):
    """Names of variables: ``self.start`` is none of the module's ``start``."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _loaded_in(constant)
    return frozenset(names)


def is_users_module(value):
    """Whether it is a module, and of no package that is installed, nor of this one."""
    if not isinstance(value, ModuleType) or value.__name__.split(".")[0] == OWN_ROOT:
        return False
    return not _is_installed_module(value.__name__)


def is_installed(thing):
    """Whether a class or function belongs to Python or to a package, not to the user's own code."""
    return _is_installed_module(thing.__module__ or "builtins")


def _is_installed_module(name):
    if name == "__main__" or name not in sys.modules:
        return False
    file = getattr(sys.modules[name], "__file__", None)
    return file is None or file.startswith(_INSTALLED)


def root_of(thing):
    """The package that a class or function is defined in."""
    return (getattr(thing, "__module__", None) or "builtins").split(".")[0]


def version_of(root):
    """Of a package, None where it does not matter or is not known."""
    return None if root in _VERSIONLESS else getattr(sys.modules.get(root), "__version__", None)
