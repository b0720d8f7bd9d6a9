"""Objects on their way to other processes: what is large in them apart from the rest, so that it is sent once."""

from __future__ import annotations

import io
import pickle
import uuid
from typing import Any

import numpy as np
import torch

from ._compat_joblib import Pickler
from ._compat_torch import TypedStorage, bytes_of, storage_and_name, typed_storage

# Smaller arrays go with the rest.
_APART = 1024
# Larger ones are not copied where they arrive, so that workers on one machine can share their memory.
_SHARED = 2**20
# torch and its libraries take memory for granted that is aligned as NumPy's is; what comes over a network is not.
_ALIGNMENT = 16


class Parcel:
    """An object as a description and the arrays that it is made of, which joblib, dask and ray each send in their way.

    joblib lays large arrays into shared memory, where all workers of a machine read them; dask and ray send an argument
    that several calls have in common to every worker once. Modules and classes of ``__main__``, local classes and
    lambdas go with the description. Tensors that share memory share it again where they arrive.

    Parameters
    ----------
    content : object

    Attributes
    ----------
    key : str
        Of this parcel and no other.

    Raises
    ------
    TypeError
        If something in it cannot be sent.
    """

    def __init__(self, content: Any):
        buffer, packer = io.BytesIO(), None
        try:
            packer = _Packer(buffer)
            packer.dump(content)
        except Exception as error:  # what pickling raises is anything at all
            raise TypeError(
                "expected a network and rows that can be sent to other processes, as n_jobs other than 1 asks for, but "
                f"pickling them failed ({type(error).__name__}: {error}): take locks, open files and generators out of "
                "the module, the criterion and the dataset, or use n_jobs=1"
            ) from error
        self.key = uuid.uuid4().hex
        self._arrays = [np.frombuffer(buffer.getbuffer(), dtype=np.uint8), *packer.arrays]

    def open(self) -> Any:
        """The object, new at every call. Its large arrays are shared between calls: nothing may be written into them.

        Returns
        -------
        content : object
        """
        return _Unpacker(self._arrays).load()

    @property
    def nbytes(self) -> int:
        """Bytes that are sent."""
        return sum(array.nbytes for array in self._arrays)

    def __sizeof__(self):
        """What dask and ray decide by whether an argument is sent once instead of with every call."""
        return object.__sizeof__(self) + self.nbytes


class _Packer(Pickler):
    """Pickles all but the numbers of arrays and tensors, which go into ``arrays``."""

    def __init__(self, file):
        super().__init__(file, protocol=5)
        self.arrays, self._numbers, self._kept = [], {}, []

    def persistent_id(self, obj):
        if isinstance(obj, TypedStorage):
            storage, name = storage_and_name(obj)
            if storage.device.type == "meta":
                return None
            return "storage", self._number(storage, name, bytes_of), True, obj.dtype, str(storage.device)
        if isinstance(obj, np.ndarray) and type(obj) in (np.ndarray, np.memmap):
            if obj.dtype.hasobject or obj.nbytes < _APART:
                return None
            return "array", self._number(obj, id(obj), lambda array: array), obj.flags.writeable
        return None

    def _number(self, obj, name, as_array):
        if name not in self._numbers:
            self._numbers[name] = 1 + len(self.arrays)  # the first is the description
            self._kept.append(obj)  # else another object could get its place in memory, and its name
            self.arrays.append(as_array(obj))
        return self._numbers[name]


class _Unpacker(pickle.Unpickler):
    def __init__(self, arrays):
        super().__init__(io.BytesIO(arrays[0]))
        self._arrays, self._made = arrays, {}

    def persistent_load(self, pid):
        kind, number, writeable, *how = pid
        if number not in self._made:
            array = self._array(number, writeable)
            self._made[number] = array if kind == "array" else torch.from_numpy(array).to(how[1]).untyped_storage()
        made = self._made[number]
        return made if kind == "array" else typed_storage(made, how[0])

    def _array(self, number, writeable):
        """An array as it can be given out: small ones, which a network may write into, as copies."""
        array = self._arrays[number]
        if array.nbytes < _SHARED:
            return _aligned_copy(array)
        if writeable and not array.flags.writeable:
            array = _private_pages(array)
        if array.ctypes.data % _ALIGNMENT or (writeable and not array.flags.writeable):
            array = self._arrays[number] = _aligned_copy(array)  # once, where the parcel stays with the worker
        return np.asarray(array)


def _private_pages(array):
    """What joblib laid into a file, so that what is written into it is this process's own; else the array."""
    if isinstance(array, np.memmap) and array.filename and (array.flags.c_contiguous or array.flags.f_contiguous):
        order = "C" if array.flags.c_contiguous else "F"
        return np.memmap(array.filename, array.dtype, "c", array.offset, array.shape, order)
    return array


def _aligned_copy(array):
    room = np.empty(array.nbytes + _ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
