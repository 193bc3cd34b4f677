"""Fetches ImageNet weights into the cache folder of Keras: from its server, Hugging Face, torchvision or a package.

The result is a `.h5` file of Keras or a state dict with the names of PyTorch as `.safetensors`.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from cxrkeras.data.download import check_digest, download_file
from cxrkeras.errors import InputError
from cxrkeras.files import replacing
from cxrkeras.models.registry import HubFile, KerasFile, PackagedFile, TorchFile, find_network
from cxrkeras.models.torch_file import read_torch_file
from cxrkeras.progress import SILENT, Progress

TIMEOUT = 3.0  # seconds for Hugging Face's first answer
SHA256_DIGITS = 64


def fetch_imagenet(name: str, progress: Progress = SILENT) -> Path:
    """Return the path of a network's ImageNet file in the cache; downloaded, verified and converted if missing.

    Raises InputError, within seconds, if the file is not available.
    """
    source = find_network(name).imagenet
    if source is None:
        raise InputError(f"there are no ImageNet weights for {name}: set model.weights to none or a file")
    cache = find_cache()
    if isinstance(source, KerasFile):
        path = cache / source.url.rpartition("/")[2]
    else:
        path = cache / f"{name}-imagenet.safetensors"
    if path.is_file():
        return path
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
            "Or set model.weights to none or to the .keras file of a run"
        ) from None
    return path


def find_cache() -> Path:
    """Return the folder of fetched weights, which is made if it is missing. Raises InputError if it cannot be."""
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot store weights in {cache} ({error.strerror}): set KERAS_HOME to another folder"
        ) from None
    return cache


def fetch_file_from_hub(repository: str, suffix: str, cache: Path, progress: Progress = SILENT) -> Path:
    """Fetch the only file of a repository on Hugging Face whose name ends with `suffix`, as it is now.

    Raises InputError if there is none or several, or it cannot be fetched.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        names = huggingface_hub.HfApi(endpoint=endpoint).model_info(repository, timeout=TIMEOUT).siblings or []
    except HFValidationError as error:
        raise InputError(f"{repository!r} is not a repository: wanted hf://owner/name ({error})") from None
    except HfHubHTTPError as error:
        raise InputError(f"Hugging Face has no {repository} for you: {str(error).splitlines()[0]}") from None
    except Exception as error:  # the HTTP library behind huggingface_hub varies
        raise InputError(f"cannot reach Hugging Face ({error}). Is this machine online?") from None
    found = [name.rfilename for name in names if name.rfilename.endswith(suffix)]
    if len(found) != 1:
        raise InputError(f"wanted one file *{suffix} in {repository}; it has {', '.join(found) or 'none'}")
    path = cache / f"{repository.replace('/', '-')}-{Path(found[0]).name}"
    path.unlink(missing_ok=True)
    _fetch_from_hub(HubFile(repository, found[0]), path, progress)
    return path


def _fetch_from_hub(source: HubFile, path: Path, progress: Progress) -> None:
    import huggingface_hub
    import tqdm
    from huggingface_hub.errors import HfHubHTTPError

    class Bar(tqdm.tqdm):
        """Forwards the progress of the download."""

        def __init__(self, *args, **options):
            super().__init__(*args, **{**options, "disable": True})
            self.advance = progress.start(path.stem, self.total or 0)
            self.advance(options.get("initial", 0))

        def update(self, n=1):
            self.advance(n)

    endpoint = os.environ.get("HF_ENDPOINT")
    where = huggingface_hub.hf_hub_url(source.repository, source.file, endpoint=endpoint)
    half = path.with_suffix(".part")  # a folder in which Hugging Face keeps a partial file for the next attempt
    try:
        # A separate first request, because the download itself retries for half a minute without a network.
        expected = huggingface_hub.get_hf_file_metadata(where, timeout=TIMEOUT, endpoint=endpoint).etag
        got = Path(
            huggingface_hub.hf_hub_download(
                source.repository, source.file, local_dir=half, endpoint=endpoint, tqdm_class=Bar
            )
        )
    except HfHubHTTPError as error:
        raise InputError(f"{where} answered: {str(error).splitlines()[0]}.") from None
    except Exception as error:  # the HTTP library behind huggingface_hub varies
        hint = "Is this machine online?" if endpoint is None else "HF_ENDPOINT is set: is it correct?"
        raise InputError(f"cannot fetch {where} ({error}). {hint}") from None
    if expected and len(expected) == SHA256_DIGITS:
        try:
            check_digest(got, expected, where)
        except InputError as error:
            shutil.rmtree(half)
            raise InputError(f"{error}. The file was deleted: try again.") from None
    got.replace(path)
    shutil.rmtree(half)


def _find_torch_file(source: TorchFile | PackagedFile, cache: Path, progress: Progress) -> Path:
    if isinstance(source, TorchFile):
        path = cache / source.url.rpartition("/")[2]
        return download_file(source.url, path, digest=_digest_in_name(path), progress=progress)
    package = importlib.util.find_spec(source.package)
    if package is None or not package.submodule_search_locations:
        name = source.package.replace("_", "-")
        raise InputError(f"they come in a package: `pip install {name}`, then run the same command again.")
    path = Path(package.submodule_search_locations[0]) / source.file
    check_digest(path, _digest_in_name(path), source.package)
    return path


def _digest_in_name(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _convert(source: Path, path: Path) -> None:
    """Convert a state dict from PyTorch format to safetensors; nothing in the file is executed."""
    import safetensors.numpy

    arrays, _ = read_torch_file(source)
    with replacing(path) as draft:
        safetensors.numpy.save_file(arrays, draft)
