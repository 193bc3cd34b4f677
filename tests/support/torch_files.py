"""Writes files as `torch.save` does, without PyTorch: what such a pickle names is put in place meanwhile."""

import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Tensor:
    """An array that is pickled as a tensor of PyTorch."""

    def __init__(self, key, array):
        self.key, self.array = key, np.ascontiguousarray(array, np.float32)

    def __reduce__(self):
        strides = tuple(stride // 4 for stride in self.array.strides)
        storage = Storage(self.key, self.array.size)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (storage, 0, self.array.shape, strides, False, OrderedDict())


class Storage:
    def __init__(self, key, num):
        self.key, self.num = key, num


class _Pickler(pickle.Pickler):
    is_legacy = False

    def persistent_id(self, value):
        if isinstance(value, Storage):
            pid = ("storage", sys.modules["torch"].FloatStorage, value.key, "cpu", value.num)
            return (*pid, None) if self.is_legacy else pid
        return None


@contextlib.contextmanager
def fake_torch(**others):
    """Put modules with the globals of PyTorch in place, and others, each a class or function by `module.name`."""

    def _rebuild_tensor_v2():
        raise AssertionError("called")

    names = {"torch.FloatStorage": type("FloatStorage", (), {}), "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2}
    before = dict(sys.modules)
    try:
        for path, value in (names | others).items():
            module, _, name = path.rpartition(".")
            for part in ("torch", module):
                sys.modules.setdefault(part, types.ModuleType(part))
            value.__module__, value.__qualname__ = module, name
            setattr(sys.modules[module], name, value)
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def encode_zip(value, tensors):
    """The bytes of a file in the zip format that holds `value`, with the storages of these tensors."""
    pickled, out = io.BytesIO(), io.BytesIO()
    _Pickler(pickled, 2).dump(value)
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", "little")
        for tensor in tensors:
            archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())
    return out.getvalue()


def encode_legacy(value, tensors):
    """The bytes of a file in the legacy format."""
    out = io.BytesIO()
    for part in (MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}):
        pickle.dump(part, out, 2)
    pickler = _Pickler(out, 2)
    pickler.is_legacy = True
    pickler.dump(value)
    pickle.dump([tensor.key for tensor in tensors], out, 2)
    for tensor in tensors:
        out.write(struct.pack("<q", tensor.array.size) + tensor.array.tobytes())
    return out.getvalue()


def save_state(path, arrays, *, is_legacy=False, prefix="", **others):
    """Write a state dict, or with `others` a checkpoint that has one."""
    with fake_torch():
        tensors = {f"{prefix}{name}": Tensor(str(number), array) for number, (name, array) in enumerate(arrays.items())}
        value = {"state_dict": OrderedDict(tensors), **others} if others else OrderedDict(tensors)
        encode = encode_legacy if is_legacy else encode_zip
        path.write_bytes(encode(value, tensors.values()))
