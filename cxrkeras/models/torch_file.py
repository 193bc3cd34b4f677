"""Weights in files of PyTorch, read without PyTorch and without running anything of them."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy

from cxrkeras.errors import InputError
from cxrkeras.models import torch_reader

SECONDS = 300
_KEPT = ("SYSTEMROOT", "LD_LIBRARY_PATH", "TMPDIR", "TEMP")  # environment variables that a process needs to start


def read_torch_file(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the arrays of a file of `torch.save`, by name, and the keys of a checkpoint that are left out.

    The file may hold a state dict, a checkpoint with one, or a pickled module, in the zip or the legacy format; numbers
    with a point become float32. Read in a process of its own that knows tensors and layers alone: raises InputError
    that names the first other thing in the file, and for one that is damaged.
    """
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "weights.safetensors")
        command = [sys.executable, "-I", torch_reader.__file__, str(path), str(target)]
        try:
            done = subprocess.run(
                command,
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},
                capture_output=True,
                timeout=SECONDS,
                check=False,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{path} is not read after {SECONDS} seconds, and is refused") from None
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise InputError(f"{path} cannot be read as a file of PyTorch ({reason[0]})") from None
        if "refused" in answer:
            raise InputError(
                f"{path} is refused: wanted weights of PyTorch and nothing else; it holds {answer['refused']}"
            )
        return safetensors.numpy.load_file(target), answer["left_out"]
