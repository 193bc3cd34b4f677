"""The manifest of a records folder: its content and how it was made. Needs no TensorFlow."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic

from cxrkeras.data.folds import GROUPED
from cxrkeras.data.nih_tables import LABEL_FILES
from cxrkeras.data.preparation import Preparation
from cxrkeras.errors import InputError
from cxrkeras.files import write_json
from cxrkeras.labels import NIH, LabelSet
from cxrkeras.records.find_records import MANIFEST

SCHEMA_VERSION = 2
NO_FOLD = -1  # of images of the test set


class Shard(pydantic.BaseModel, frozen=True):
    file: str
    split: str
    fold: int
    count: int
    sha256: str


class Source(pydantic.BaseModel, frozen=True):
    """A data set that the images come from: the name of its folder, its reader with settings, its split, and in joined
    records the namespace of its patients."""

    name: str
    kind: str
    settings: dict[str, object] = {}
    label_file: str
    split_name: str
    namespace: str = ""


class Manifest(pydantic.BaseModel, frozen=True):
    """The content of a records folder; written last, so that a folder with a manifest is complete."""

    schema_version: int
    labels: tuple[str, ...]
    no_finding: str | None
    sources: tuple[Source, ...]
    preparation: Preparation
    size: int
    split_name: str
    list_checksums: dict[str, str]
    num_folds: int
    fold_seed: int
    fold_rule: str = GROUPED  # one of SPLIT_RULES
    is_synthetic: bool
    fingerprint: str
    overlap: str | None = None  # what was done about patients whom the lists of joined sets put on two sides
    namespace: str = ""  # the set that the patient ids belong to; blank, like the next two, in early records
    patient_salt: str = ""  # of the hashes in patients.csv, hex
    patient_rounds: int = 0
    num_listed: int  # rows of the label file, whether or not their images are on disk
    num_skipped: int  # images that could not be read
    num_dropped: int = 0  # duplicates of another patient's image on another side of a split
    table_checksums: dict[str, str]  # SHA-256 of index.csv, boxes.csv, skipped.csv and patients.csv
    shards: tuple[Shard, ...]

    @cached_property
    def label_set(self) -> LabelSet:
        return LabelSet(self.labels, self.no_finding)

    @property
    def num_records(self) -> int:
        return sum(shard.count for shard in self.shards)

    @property
    def is_partial(self) -> bool:
        """Whether images in the label file are missing from the records."""
        return self.num_listed > self.num_records

    @property
    def label_files(self) -> str:
        return ", ".join(dict.fromkeys(source.label_file for source in self.sources))


def upgrade_content(content: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of a manifest from schema 1 to 2: NIH labels, one source, the default preparation."""
    kind = "nih" if content["label_file"] in LABEL_FILES else "table"
    source = {"name": content["source"], "kind": "phantoms" if content["is_synthetic"] else kind}
    source |= {key: content[key] for key in ("label_file", "split_name")}
    kept = {key: value for key, value in content.items() if key not in ("source", "label_file")}
    added = {"no_finding": NIH.no_finding, "sources": [source], "preparation": Preparation().model_dump()}
    return kept | added | {"schema_version": SCHEMA_VERSION}


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with its checksum."""
    save_content(folder, manifest.model_dump(mode="json"))


def save_content(folder: Path, content: dict[str, Any]) -> None:
    """Write the plain values of a manifest with their checksum."""
    write_json(folder / MANIFEST, content | {"checksum": _digest(content)})


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_manifest(folder: Path) -> Manifest:
    """Load and verify the manifest. Raises InputError if its schema is unknown or it was changed after writing."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} has no {MANIFEST}: restore or recreate the records")
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {str(content)[:20]!r}")
        checksum = content.pop("checksum", None)
        version = content["schema_version"]
        if version not in (1, SCHEMA_VERSION):
            raise InputError(
                f"{path} has schema version {version}; expected 1 or {SCHEMA_VERSION}: recreate the records"
            )
        manifest = Manifest(**(upgrade_content(content) if version == 1 else content))
        if version == 1 and manifest.labels != NIH.names:
            raise InputError(f"{path} has the labels {', '.join(manifest.labels)}; schema 1 requires {NIH.describe()}")
        LabelSet(manifest.labels, manifest.no_finding)
    except InputError:
        raise
    except pydantic.ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: {field}: {error.errors()[0]['msg']}; recreate the records") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a manifest of records ({error}): recreate the records") from error
    if checksum != _digest(content):
        raise InputError(f"{path} differs from its own checksum: restore it, or recreate the records")
    return manifest


def check_settings(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Check the settings of existing records. Raises InputError for the first that differs from `wanted`."""
    wanted = json.loads(json.dumps(wanted))
    found = json.loads(json.dumps(found))
    for key, value in wanted.items():
        if found.get(key) != value:
            if key == "fingerprint":
                raise InputError(
                    f"{folder} holds records, finished or not, of other data: images, labels, patients or splits have "
                    "changed since; choose another name, or delete the folder"
                )
            name, there, now = _find_difference(key, found.get(key), value)
            raise InputError(
                f"{folder} holds records with other settings: {name} is {there!r} there and {now!r} now; choose "
                "another name, or delete the folder"
            )


def _find_difference(name: str, there: Any, now: Any) -> tuple[str, Any, Any]:
    """Find the innermost value of plain nested values that differs; its name and both values."""
    if isinstance(there, list) and isinstance(now, list) and len(there) == len(now):
        pairs = list(zip(map(str, range(1, len(now) + 1)), there, now, strict=True))
    elif isinstance(there, dict) and isinstance(now, dict):
        pairs = [(key, there.get(key), now.get(key)) for key in dict.fromkeys([*there, *now])]
    else:
        return name, there, now
    key, there, now = next(pair for pair in pairs if pair[1] != pair[2])
    return _find_difference(f"{name}, {key}", there, now)
