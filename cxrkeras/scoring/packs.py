"""Packs: a network with all that it needs to answer in one file, verified before anything of it is loaded.

A pack is a zip archive, `<name>.cxr.zip`, of the files of an adopted network's folder and `pack.json`, which has the
SHA-256 of each. Of the network only layers that ship with Keras are accepted, so that nothing of a pack is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from cxrkeras.config import CONFIG
from cxrkeras.data.download import check_digest, download_file
from cxrkeras.errors import InputError
from cxrkeras.files import make_folder, replacing
from cxrkeras.models.network_file import check_labels, check_links
from cxrkeras.models.past import MEMBER as PAST_MEMBER
from cxrkeras.models.past import load_past
from cxrkeras.models.sources import fetch_file_from_hub, find_cache
from cxrkeras.progress import SILENT, Progress
from cxrkeras.scoring.operating_points import load_operating_points
from cxrkeras.scoring.run_files import (
    CALIBRATED_ON,
    CALIBRATION,
    MODEL,
    MODEL_CARD,
    OOD_CHECK,
    RUNS_ROOT,
    THRESHOLDS,
    TRAINED_ON,
    Config,
)
from cxrkeras.text import clean

SUFFIX, HUB = ".cxr.zip", "hf://"
CONTENTS = "pack.json"
VERSION = 1
REQUIRED = (CONFIG, MODEL, CALIBRATION, THRESHOLDS, MODEL_CARD)
OPTIONAL = (OOD_CHECK, TRAINED_ON, CALIBRATED_ON)
FOLD = "fold0"  # the folder of the network in its run folder
LARGEST = 4 << 30  # bytes of an unpacked file
# Classes that a network may name: layers, then models, policies and initialisers
_ALLOWED = frozenset(
    """Activation Add AveragePooling2D BatchNormalization Concatenate Conv2D Dense DepthwiseConv2D Dropout
    GlobalAveragePooling2D GlobalMaxPooling2D InputLayer LayerNormalization LayerScale MaxPooling2D Multiply
    Normalization ReLU Rescaling Reshape ZeroPadding2D
    DTypePolicy Functional Sequential GlorotNormal GlorotUniform HeNormal HeUniform L1 L1L2 L2 Ones RandomNormal
    RandomUniform TruncatedNormal VarianceScaling Zeros __keras_tensor__""".split()  # noqa: SIM905
)
_REGISTERED = (None, "Functional", "LayerScale", "Add", "Multiply")  # names that Keras registers for its own


class _Contents(pydantic.BaseModel):
    """The content of pack.json."""

    format: str
    version: int
    name: str
    files: dict[str, str]  # SHA-256 by name


def is_pack(name: str) -> bool:
    """Whether a name is that of a pack: a file, an address, or a repository on Hugging Face."""
    return name.endswith(SUFFIX) or name.startswith((HUB, "http://", "https://"))


def fetch_pack(name: str, sha256: str | None = None, progress: Progress = SILENT) -> Path:
    """Find a pack, or fetch it from an address or from `hf://owner/name`, where it is the only `.cxr.zip`.

    Raises InputError if it cannot be fetched or has another SHA-256.
    """
    if name.startswith(HUB):
        path = fetch_file_from_hub(name.removeprefix(HUB), SUFFIX, find_cache(), progress)
    elif name.startswith(("http://", "https://")):
        key = hashlib.sha256(name.encode()).hexdigest()[:8]
        path = find_cache() / f"{key}-{name.rpartition('/')[2]}"
        path.unlink(missing_ok=True)  # what is at an address may change
        download_file(name, path, digest=sha256, progress=progress)
    else:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"no pack {path}")
    if sha256:
        check_digest(path, sha256.lower(), str(path))
    return path


def write_pack(path: Path, name: str, files: dict[str, bytes]) -> str:
    """Write a pack of these files, and return its SHA-256. The same files give the same bytes."""
    contents = {"format": "cxrkeras pack", "version": VERSION, "name": name, "files": {
        key: hashlib.sha256(content).hexdigest() for key, content in files.items()}}  # fmt: skip
    with replacing(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for key, content in {CONTENTS: json.dumps(contents, indent=1).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(key), content)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forget_patients(model: bytes) -> bytes:
    """Copy a `.keras` file without the hashes of its training patients."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            if entry.filename != PAST_MEMBER:
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    return out.getvalue()


def install_pack(path: Path, progress: Progress = SILENT, *, root: Path = RUNS_ROOT) -> tuple[Path, bool]:
    """Verify a pack and install it as `<root>/<its name>/fold0`; return the folder, and whether it is new.

    Raises InputError, before anything of it is loaded, for anything but a whole pack whose network has only layers that
    ship with Keras, and if another run has its name.
    """
    progress.start(f"verifying {clean(path.name)}")
    try:
        contents, files = _read_pack(path)
        _check_network(files[MODEL])
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        pydantic.ValidationError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} is not a pack, or is damaged ({reason}): get it again from where it is from"
        ) from None
    folder = root / contents.name / FOLD
    if folder.parent.exists():
        if (folder / CONTENTS).is_file() and (folder / CONTENTS).read_bytes() == files[CONTENTS]:
            return folder, False
        raise InputError(f"there is another run {folder.parent}: rename or remove it, then adopt {path} again")
    draft = folder.parent.with_name(f".draft-{contents.name}")
    shutil.rmtree(draft, ignore_errors=True)
    make_folder(draft / FOLD)
    try:
        for name, content in files.items():
            (draft / FOLD / name).write_bytes(content)
        config = Config.model_validate_json(files[CONFIG])
        if config.adopted is None:
            raise InputError(f"{path} is not a pack: its {CONFIG} does not say where the network is from")
        load_operating_points(draft / FOLD, config)
        check_labels(draft / FOLD / MODEL, config.label_set)
        for name in (TRAINED_ON, CALIBRATED_ON):
            load_past(draft / FOLD / name)
        draft.replace(folder.parent)
    except (pydantic.ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: its {CONFIG} is invalid ({str(error).splitlines()[0]})") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder, True


def _read_pack(path: Path) -> tuple[_Contents, dict[str, bytes]]:
    """Read the files of a pack, with `pack.json`, and compare their checksums."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names) or CONTENTS not in names:
            raise InputError(f"{path} is not a pack: it has no {CONTENTS}, or a file twice")
        if others := sorted(set(names) - {CONTENTS, *REQUIRED, *OPTIONAL}):
            raise InputError(f"{path} is refused: a pack does not hold {clean(others[0])!r}")
        if missing := [name for name in REQUIRED if name not in names]:
            raise InputError(f"{path} is not a whole pack: it lacks {', '.join(missing)}")
        if any(archive.getinfo(name).file_size > LARGEST for name in names):
            raise InputError(f"{path} is refused: a file in it has more than {LARGEST >> 30} GB")
        contents = _Contents.model_validate_json(archive.read(CONTENTS))
        if contents.format != "cxrkeras pack" or contents.version != VERSION:
            raise InputError(f"{path} is a pack of version {contents.version}; expected {VERSION}: update cxrkeras")
        plain = contents.name.replace("-", "").replace("_", "").replace(".", "")
        if not plain.isalnum() or contents.name != os.path.basename(contents.name) or contents.name.startswith("."):
            raise InputError(f"{path} is refused: {clean(contents.name)!r} is not the name of a run")
        files = {name: archive.read(name) for name in names}
    if set(contents.files) != set(names) - {CONTENTS}:
        raise InputError(f"{path} is refused: {CONTENTS} lists other files than it holds")
    for name, digest in contents.files.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != digest:
            raise InputError(f"{path} was changed: {name} has the SHA-256 sum {found}; expected {digest}")
    return contents, files


def _check_network(model: bytes) -> None:
    """Raise InputError for a `.keras` file with anything but layers that ship with Keras, or links to other files."""
    import h5py

    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        try:
            described = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
        except (KeyError, ValueError) as error:
            raise InputError(f"the network of the pack is not a .keras file ({error})") from None
    for module, name in _list_classes(described):
        if name not in _ALLOWED or not (module or "keras").startswith("keras"):
            raise InputError(
                f"the network of the pack is refused: it has a {clean(str(name))} of {clean(str(module))}; only layers "
                "that ship with Keras, and not Lambda, are loaded"
            )
    try:
        with h5py.File(io.BytesIO(weights)) as file:
            check_links(file)
    except OSError as error:
        raise InputError(f"the weights of the pack are damaged ({error})") from None


def _list_classes(value: Any) -> Iterator[tuple[Any, Any]]:
    """List module and name of every class and function in a serialised network."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value.get("module"), value["class_name"]
        if value.get("registered_name") not in _REGISTERED:
            yield "registered", value["registered_name"]
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _list_classes(entry)
