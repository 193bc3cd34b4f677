"""Reads the arrays in a file of PyTorch without PyTorch. A script, run in a process of its own by `torch_file`.

A file of PyTorch is a pickle, which can call anything by name. Here only the names below are known, and they stand for
inert values; whatever else a file names ends the reading. Should a name slip through, the process has no way to the
network, to other processes or to other files: an audit hook refuses them. Imports nothing of the package.
"""

import collections
import encodings.cp437  # noqa: F401 # of names in zip archives; once the guard is up, nothing can be imported
import io
import json
import math
import os
import pickle
import struct
import sys
import zipfile
from typing import Any

import numpy as np
import safetensors.numpy

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the legacy format
LARGEST = 4 << 30  # bytes of a file
MOST_TENSORS, DEEPEST = 20_000, 40
REFUSED = 3  # exit code
_DTYPES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "Long": np.int64, "Int": np.int32,
    "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_, "BFloat16": np.uint16,
}  # fmt: skip
_LAYERS = {
    "torch.nn.modules.activation": ("ReLU", "Sigmoid"),
    "torch.nn.modules.batchnorm": ("BatchNorm2d",),
    "torch.nn.modules.container": ("Sequential",),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.dropout": ("Dropout",),
    "torch.nn.modules.linear": ("Linear",),
    "torch.nn.modules.pooling": ("AdaptiveAvgPool2d", "AvgPool2d", "MaxPool2d"),
    "torch.nn.parallel.data_parallel": ("DataParallel",),
    "torchvision.models.densenet": ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition"),
    "torchvision.models.resnet": ("BasicBlock", "Bottleneck", "ResNet"),
    "torchxrayvision.models": ("DenseNet", "ResNet", "_DenseBlock", "_DenseLayer", "_Transition"),
}
_HARMLESS_EVENTS = ("open", "pickle.find_class", "os.fspath", "os.stat", "sys._getframe", "code.__new__")


class Refused(Exception):
    """The file holds something other than weights."""


class Storage:
    """The type of a block of numbers, or with a key the block itself."""

    __slots__ = ("key", "kind", "num")

    def __init__(self, kind: str, key: str = "", num: int = 0):
        self.kind, self.key, self.num = kind, key, num


class Tensor:
    """A view of a storage."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any):
        ints = [offset, *shape, *strides]
        if not isinstance(storage, Storage) or not all(type(value) is int and value >= 0 for value in ints):
            raise Refused("a tensor without a storage, or of an impossible shape")
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)
        last = offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) > storage.num or (0 not in self.shape and last >= storage.num):
            raise Refused(f"a tensor of shape {self.shape} in a storage of {storage.num} numbers")


class Module:
    """Stands for a layer: keeps its state and does nothing."""

    __slots__ = ("state",)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Call:
    """Stands for a function of PyTorch that makes a tensor of its arguments."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        if self.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return Tensor(*arguments[:4])
        if self.name == "_rebuild_parameter":
            return arguments[0]
        return None  # a backend, or the set of buffers that are not saved

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"a state for the function {self.name}")


class Unpickler(pickle.Unpickler):
    """Knows tensors and the layers of the networks that are adopted."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if name in _LAYERS.get(module, ()):
            return Module
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
            return Call(name)
        if (module, name) == ("torch.nn.backends.thnn", "_get_thnn_function_backend"):
            return Call(name)
        if module in ("__builtin__", "builtins") and name == "set":
            return Call(name)
        if module in ("torch", "torch.cuda") and name.removesuffix("Storage") in _DTYPES:
            return Storage(name.removesuffix("Storage"))
        raise Refused(f"{module}.{name}, which is neither a tensor nor a layer that is known")

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) >= 2):
            raise Refused("a reference of an unknown kind")
        if pid[0] == "module":  # the legacy format keeps the source code of layers, which is not read
            return pid[1]
        view = pid[5] if len(pid) > 5 else None
        if pid[0] != "storage" or len(pid) < 5 or not isinstance(pid[1], Storage) or view is not None:
            raise Refused("a reference of an unknown kind")
        if type(pid[4]) is not int or pid[4] < 0:
            raise Refused("a storage of an impossible size")
        return Storage(pid[1].kind, str(pid[2]), pid[4])


def read_file(path: str) -> tuple[Any, dict[str, bytes]]:
    """Read the value that a file holds, and the bytes of its storages by key, little-endian."""
    with open(path, "rb") as file:
        content = file.read()
    return read_zip(content) if zipfile.is_zipfile(io.BytesIO(content)) else read_legacy(content)


def read_zip(content: bytes) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in entries):
            raise Refused("an archive that is not a file of `torch.save`: TorchScript or something else")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise Refused("a compressed archive, which `torch.save` does not write")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise Refused("big-endian numbers")
        value = Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        start = f"{root}data/"
        return value, {name.removeprefix(start): archive.read(name) for name in entries if name.startswith(start)}


def read_legacy(content: bytes) -> tuple[Any, dict[str, bytes]]:
    file = io.BytesIO(content)
    if Unpickler(file).load() != MAGIC or Unpickler(file).load() != PROTOCOL:
        raise Refused("something else than a file of `torch.save`")
    system = Unpickler(file).load()
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise Refused("big-endian numbers")
    seen: dict[str, Storage] = {}

    class Noting(Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            found = super().persistent_load(pid)
            if isinstance(found, Storage):
                seen[found.key] = found
            return found

    value, storages = Noting(file).load(), {}
    for key in map(str, Unpickler(file).load()):
        (num,) = struct.unpack("<q", file.read(8))
        if key not in seen or num != seen[key].num:
            raise Refused("a storage that no tensor has, or of another size")
        storages[key] = file.read(num * np.dtype(_DTYPES[seen[key].kind]).itemsize)
    return value, storages


def list_tensors(value: Any, prefix: str = "", depth: int = 0) -> tuple[dict[str, Tensor], list[str]]:
    """List the tensors of a module, a state dict or a checkpoint with one, by name, and the keys that are left out."""
    if depth > DEEPEST:
        raise Refused(f"more than {DEEPEST} layers in each other")
    if isinstance(value, Module):
        state = value.state if isinstance(value.state, dict) else {}
        found = {}
        for group in ("_parameters", "_buffers"):
            items = (state.get(group) or {}).items()
            found |= {f"{prefix}{name}": tensor for name, tensor in items if isinstance(tensor, Tensor)}
        for name, layer in (state.get("_modules") or {}).items():
            if layer is not None:
                found |= list_tensors(layer, f"{prefix}{name}.", depth + 1)[0]
        return found, []
    if isinstance(value, dict) and value and all(isinstance(tensor, Tensor) for tensor in value.values()):
        return {str(name): tensor for name, tensor in value.items()}, []
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(value, dict) and key in value:
            return list_tensors(value[key], prefix, depth + 1)[0], [str(other) for other in value if other != key]
    raise Refused(f"a value of type {type(value).__name__}, in which there are no weights")


def read_array(tensor: Tensor, storages: dict[str, bytes]) -> np.ndarray:
    """Read a tensor; numbers with a point as float32."""
    dtype = np.dtype(_DTYPES[tensor.storage.kind])
    content = storages.get(tensor.storage.key, b"")
    if len(content) < tensor.storage.num * dtype.itemsize:
        raise Refused(f"{len(content)} bytes for {tensor.storage.num} numbers: the file is truncated")
    numbers = np.frombuffer(content, dtype, tensor.storage.num)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    if tensor.storage.kind == "BFloat16":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return np.array(view, np.float32 if dtype.kind == "f" else dtype, order="C")


def guard(source: str, target: str) -> None:
    """Limit memory and time where the system can, and refuse the network, processes, imports and other files."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LARGEST * 4, LARGEST * 4))
        resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
    except (ImportError, ValueError, OSError):  # Windows, or a lower limit than this
        pass
    allowed = {os.path.abspath(source), os.path.abspath(target)}

    def refuse(event: str, arguments: tuple) -> None:
        is_known = event != "open" or os.path.abspath(str(arguments[0])) in allowed
        if event not in _HARMLESS_EVENTS or not is_known:
            raise Refused(f"an attempt at {event} {str(arguments[0])[:80] if arguments else ''}".rstrip())

    sys.addaudithook(refuse)


def main(source: str, target: str) -> int:
    """Write the arrays of the file `source` to `target`, a .safetensors file; print a JSON object."""
    if os.path.getsize(source) > LARGEST:
        print(json.dumps({"refused": f"more than {LARGEST >> 30} GB"}))
        return REFUSED
    guard(source, target)
    try:
        value, storages = read_file(source)
        tensors, left_out = list_tensors(value)
        if len(tensors) > MOST_TENSORS:
            raise Refused(f"{len(tensors):,} tensors")
        safetensors.numpy.save_file({name: read_array(tensor, storages) for name, tensor in tensors.items()}, target)
    except Refused as error:
        print(json.dumps({"refused": str(error)}))
        return REFUSED
    except (Exception, MemoryError, RecursionError) as error:  # a damaged pickle raises anything
        print(json.dumps({"refused": f"something that cannot be read ({type(error).__name__}: {str(error)[:200]})"}))
        return REFUSED
    print(json.dumps({"left_out": left_out}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
