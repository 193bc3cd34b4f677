"""What describes a records folder: manifest, index, boxes. It needs no TensorFlow."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic

from cxrkeras import labels
from cxrkeras.data.folds import GROUPED
from cxrkeras.data.identity import HASH_BYTES, hash_patients
from cxrkeras.errors import InputError
from cxrkeras.files import write_json
from cxrkeras.records.find_records import BOXES, INDEX, MANIFEST, PATIENTS

SCHEMA_VERSION = 1
NO_FOLD = -1  # of images of the test set


class Shard(pydantic.BaseModel, frozen=True):
    file: str
    split: str
    fold: int
    count: int
    sha256: str


class Manifest(pydantic.BaseModel, frozen=True):
    """What a records folder holds; written last, so that a folder with a manifest is complete."""

    schema_version: int
    labels: tuple[str, ...]
    size: int
    split_name: str
    list_checksums: dict[str, str]
    num_folds: int
    fold_seed: int
    fold_rule: str = GROUPED  # one of SPLIT_RULES
    label_file: str
    is_synthetic: bool
    source: str
    fingerprint: str
    namespace: str = ""  # whose patients these are; with the next two blank in records written before there was one
    patient_salt: str = ""  # of the hashes in patients.csv, hex
    patient_rounds: int = 0
    num_listed: int  # rows of the label file, whether or not their images were on disk
    num_skipped: int  # images that could not be read
    num_dropped: int = 0  # images that another patient has on another side of a split
    table_checksums: dict[str, str]  # SHA-256 of index.csv, boxes.csv, skipped.csv and patients.csv
    shards: tuple[Shard, ...]


def save_manifest(folder: Path, manifest: Manifest) -> None:
    save_content(folder, manifest.model_dump(mode="json"))


def save_content(folder: Path, content: dict) -> None:
    """Write the plain values of a manifest with their checksum."""
    write_json(folder / MANIFEST, content | {"checksum": _digest(content)})


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest; InputError for another schema, other labels, or one changed after it was written."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no records, {MANIFEST} is gone: bring them back, or make them anew")
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {str(content)[:20]!r}")
        checksum = content.pop("checksum", None)
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema version {version}, this cxrkeras reads {SCHEMA_VERSION}: make the records anew"
            )
        manifest = Manifest(**content)
    except InputError:
        raise
    except pydantic.ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: {field}: {error.errors()[0]['msg']}; make the records anew") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a manifest of records ({error}): make them anew") from error
    if checksum != _digest(content):
        raise InputError(f"{path} differs from its own checksum: bring back the file, or make the records anew")
    if manifest.labels != labels.LABELS:
        raise InputError(f"{path} has the labels {', '.join(manifest.labels)}; wanted {', '.join(labels.LABELS)}")
    return manifest


def check_settings(folder: Path, found: dict, wanted: dict) -> None:
    """InputError that names the first of the `wanted` settings which records in `folder` were made without."""
    wanted = json.loads(json.dumps(wanted))
    found = json.loads(json.dumps(found))
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder} holds records with other settings: {key} is {found.get(key)!r} there and {value!r} now; "
                "give another NAME=, or delete the folder"
            )


def load_index(folder: Path) -> pd.DataFrame:
    """Read index.csv, in the order of the shards: image_id, patient_id, split, fold, age, sex, view, the 15 labels.

    Raises InputError for one that is gone or was changed, as `read_table` does.
    """
    content = read_table(folder, INDEX)
    return pd.read_csv(
        content, dtype={"image_id": str, "patient_id": str}, keep_default_na=False, na_values={"age": [""]}
    )


def load_boxes(folder: Path) -> pd.DataFrame:
    """Read boxes.csv: image_id, label, x, y, width, height as fractions of the image. Raises as `load_index`."""
    return pd.read_csv(
        read_table(folder, BOXES), dtype={"image_id": str, "label": str}, keep_default_na=False, na_values={}
    )


def load_patient_hashes(folder: Path) -> pd.Series:
    """Read patients.csv: the salted hash of each patient, hex, by patient_id. Raises as `load_index`."""
    table = pd.read_csv(read_table(folder, PATIENTS), dtype=str, keep_default_na=False)
    return table.set_index("patient_id")["hash"]


def build_hasher(folder: Path, manifest: Manifest) -> Callable[[list[str], bytes, int], np.ndarray]:
    """A function of patients, a salt and a number of rounds that gives the patients' hashes, bytes (N,) of 16 each.

    With the salt of the records those that are kept with them are looked up.
    """
    kept = load_patient_hashes(folder)

    def hash_ids(patient_ids: list[str], salt: bytes, rounds: int) -> np.ndarray:
        if (salt.hex(), rounds) == (manifest.patient_salt, manifest.patient_rounds):
            return np.frombuffer(bytes.fromhex("".join(kept[patient_ids])), f"V{HASH_BYTES}")
        return hash_patients(manifest.namespace, patient_ids, salt, rounds)

    return hash_ids


def read_table(folder: Path, name: str) -> io.BytesIO:
    """The content of a table of records; InputError unless its checksum is that in the manifest."""
    path, checksum = folder / name, load_manifest(folder).table_checksums[name]
    if not path.is_file():
        raise InputError(f"{path} is gone: make the records anew")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{path} was changed after the records were written: make them anew, or bring back the file")
    return io.BytesIO(content)
