"""Arrays and JSON in one file, and the folder that a retraining continues from."""

from __future__ import annotations

import json
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..utils._argument_checks import check_path
from ..utils._atomic import atomic_write, make_folder
from ..utils._digest import bytes_digest

# What zipfile and NumPy raise over a file that is damaged: sizes beyond all memory, unknown ways to pack, and so on.
_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, IndexError, OverflowError, MemoryError,
    RuntimeError, SyntaxError, UnicodeError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
_ABOUT = "about.json"  # the member that holds the JSON text, as bytes


def write_arrays(path, arrays, about):
    """Write arrays and a JSON object to an ``.npz`` file, whole or not at all."""
    path = check_path("path", path)
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    make_folder(path.parent)
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:  # np.savez would add to the name
        np.savez(file, **arrays, **{_ABOUT: text})
    return path


def read_arrays(path):
    """Arrays and JSON object of :func:`write_arrays`; nothing in the file is run.

    Raises
    ------
    ValueError
        Naming the file, when it is missing, damaged or of another kind.
    """
    path = check_path("path", path)
    if not path.exists() and path.with_name(path.name + ".npz").exists():
        path = path.with_name(path.name + ".npz")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop(_ABOUT).tobytes())
        if not isinstance(about, dict):
            raise ValueError("it says nothing of its arrays")
    except _UNREADABLE as error:
        raise ValueError(
            f"expected a complete .npz file written by this package, got {path}, which cannot be read ({error}): pass "
            "another path, or make the file again"
        ) from error
    return arrays, about


class UnitCache:
    """Finished networks of a retraining on disk: one file per group of networks trained together.

    A network is known by the rows it was trained on and its seed, the folder by everything else. So a run with more
    subsets or repeats finds those of an earlier one, and nothing can be counted twice.

    Parameters
    ----------
    folder : path-like
        From :func:`.cache_folder`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def read(self, keys):
        """Outputs of networks by key; files that were damaged from outside are as if they were not there."""
        outputs = {}
        for file in sorted(self.folder.glob("*.npz")):
            try:
                arrays, about = read_arrays(file)
                stored, values = about["units"], arrays["outputs"]
                if values.dtype.kind == "f" and values.ndim == 2 and all(isinstance(key, str) for key in stored):
                    outputs.update(zip(stored, values, strict=True))
            except (KeyError, ValueError, TypeError):
                continue
        return {key: outputs[key] for key in keys if key in outputs}

    def write(self, keys, outputs):
        """Add finished networks."""
        name = bytes_digest("\n".join(keys).encode())
        write_arrays(self.folder / f"{name}.npz", {"outputs": np.stack(outputs)}, {"units": list(keys)})
