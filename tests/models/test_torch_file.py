"""Weights in files of PyTorch: read without it, and nothing else of a file is."""

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from cxrkeras.errors import InputError
from cxrkeras.models import torch_reader
from cxrkeras.models.torch_file import read_torch_file
from tests.support.torch_files import Storage, Tensor, encode_legacy, encode_zip, fake_torch, save_state

REFERENCES = Path(__file__).parents[1] / "references"
FORMATS = {"zip": encode_zip, "legacy": encode_legacy}


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_pickled_module_of_torchxrayvision_is_read(name):
    """Both files were written by PyTorch with torchxrayvision's own class, a small DenseNet."""
    arrays, left_out = read_torch_file(REFERENCES / f"torchxrayvision_{name}.pt")
    with np.load(REFERENCES / "torchxrayvision_state.npz") as expected:
        assert set(arrays) == set(expected)
        for key, array in expected.items():
            np.testing.assert_array_equal(arrays[key], array, strict=True)
    assert left_out == []


@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_checkpoint_gives_its_state_dict_and_names_the_rest(tmp_path, is_legacy):
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.float32([1.5])}
    save_state(tmp_path / "a.pt", arrays, is_legacy=is_legacy, prefix="module.", epoch=3, arch="x")
    found, left_out = read_torch_file(tmp_path / "a.pt")
    assert left_out == ["epoch", "arch"]
    assert set(found) == {"module.a.weight", "module.a.bias"}
    np.testing.assert_array_equal(found["module.a.weight"], arrays["a.weight"])


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hide_in(kind, call, tensor):
    return {
        "alone": call,
        "in a list": [[{"x": call}]],
        "in a checkpoint": {"state_dict": OrderedDict(a=tensor), "x": call},
        "in a state dict": OrderedDict(a=tensor, b=call),
        "as a key": {("k", call): tensor},
    }[kind]


@pytest.mark.parametrize("encode", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", ["alone", "in a list", "in a checkpoint", "in a state dict", "as a key"])
def test_a_file_that_would_run_code_is_refused_by_name_and_runs_nothing(tmp_path, encode, kind):
    trace = tmp_path / "trace"
    with fake_torch():
        tensor = Tensor("0", [1, 2])
        content = encode(hide_in(kind, Calls(os.system, f"touch {trace}"), tensor), [tensor])
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"it holds (posix|nt)\.system, which is neither a tensor nor a layer"):
        read_torch_file(tmp_path / "a.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (eval, ("1",), "eval"),
        (getattr, (str, "format"), "getattr"),
        (open, ("/etc/passwd",), "open"),
        (subprocess.Popen, (["true"],), "Popen"),
    ],
)
def test_functions_of_python_are_refused(tmp_path, function, arguments, name):
    (tmp_path / "a.pt").write_bytes(encode_zip(Calls(function, *arguments), []))
    with pytest.raises(InputError, match=name):
        read_torch_file(tmp_path / "a.pt")


def test_what_slips_through_the_reader_is_refused_by_the_process(tmp_path):
    """The second line of defence alone: a reader that knows every name, in the guarded process."""
    code = (
        "import builtins, importlib.util, os, subprocess, sys\n"
        f"spec = importlib.util.spec_from_file_location('torch_reader', {torch_reader.__file__!r})\n"
        "reader = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(reader)\n"
        "reader.Unpickler.find_class = lambda self, module, name: getattr(\n"
        "    sys.modules[{'__builtin__': 'builtins', 'commands': 'subprocess'}.get(module, module)], name)\n"
        "sys.exit(reader.main(*sys.argv[1:]))"
    )
    for number, call in enumerate(
        [Calls(os.system, f"touch {tmp_path}/trace"), Calls(open, str(tmp_path / "trace"), "w"),
         Calls(subprocess.call, ["touch", str(tmp_path / "trace")]), Calls(os.mkdir, str(tmp_path / "trace"))]
    ):  # fmt: skip
        path = tmp_path / f"{number}.pt"
        path.write_bytes(encode_zip(call, []))
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(tmp_path / "out")], capture_output=True, text=True
        )
        assert done.returncode == torch_reader.REFUSED, done.stderr
        assert "an attempt at" in done.stdout
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: setattr(tensor, "array", tensor.array[:1]), "truncated|storage of"),
        (lambda tensor: setattr(tensor, "__class__", _Bomb), "a tensor of shape"),
        (lambda tensor: setattr(tensor, "__class__", _Backwards), "impossible shape"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path, change, message):
    with fake_torch():
        tensor = Tensor("0", [1, 2, 3])
        pickled = OrderedDict(a=tensor)
        if message.startswith("truncated"):
            content = encode_zip(pickled, [Tensor("0", [1])])
        else:
            change(tensor)
            content = encode_zip(pickled, [tensor])
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_torch_file(tmp_path / "a.pt")


class _Bomb(Tensor):
    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage("0", 3), 0, (10**6, 10**6), (0, 0), False, OrderedDict())


class _Backwards(Tensor):
    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage("0", 3), 2, (3,), (-1,), False, OrderedDict())


@pytest.mark.parametrize("content", [b"", b"x" * 100, pickle.dumps({"a": 1}), b"PK\x03\x04" + b"\0" * 50])
def test_other_files_are_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError, match="is refused: wanted weights of PyTorch and nothing else"):
        read_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("encode", FORMATS.values(), ids=FORMATS)
def test_truncated_files_are_refused(tmp_path, encode):
    with fake_torch():
        tensor = Tensor("0", np.zeros(100))
        content = encode(OrderedDict(a=tensor), [tensor])
    for length in range(10, len(content) - 1, len(content) // 6):
        (tmp_path / "a.pt").write_bytes(content[:length])
        with pytest.raises(InputError, match="is refused"):
            read_torch_file(tmp_path / "a.pt")
