"""Who trained a network: salted hashes of the patients whose images it and its start weights have learned from.

They are kept inside the network's own file, so that they go wherever it goes. They are pseudonyms, not anonymous:
whoever has a list of patient ids can test which of them are among the hashes.
"""

import base64
import binascii
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrkeras.data.identity import HASH_BYTES
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, write_json

MEMBER = "cxrkeras_trained_on.json"  # of a `.keras` file, which is a zip; Keras leaves it alone when it reads one
Hasher = Callable[[list[str], bytes, int], np.ndarray]  # of patients, with a salt and a number of rounds
_VERSION = 1
_LARGEST = 100_000_000  # bytes of that member, unpacked


@dataclass(frozen=True)
class Patients:
    """Patients of one data set: hashes, bytes (N,) of 16 each, sorted, that were made with this salt and rounds."""

    salt: bytes
    rounds: int
    hashes: np.ndarray


@dataclass(frozen=True)
class Past:
    """All patients that trained a network; `is_known` is false if some of its weights came from who knows where."""

    is_known: bool
    patients: tuple[Patients, ...] = ()

    def join(self, *others: "Past") -> "Past":
        """The past of a network that several pasts went into; patients of one data set stand once."""
        by_salt: dict[tuple[bytes, int], list[np.ndarray]] = {}
        for past in (self, *others):
            for each in past.patients:
                by_salt.setdefault((each.salt, each.rounds), []).append(each.hashes)
        joined = [Patients(*key, np.unique(np.concatenate(hashes))) for key, hashes in by_salt.items()]
        return Past(all(past.is_known for past in (self, *others)), tuple(joined))

    def find(self, patient_ids: Iterable[str], hash_ids: Hasher) -> set[str]:
        """Those of some patients who trained the network."""
        ids = list(dict.fromkeys(patient_ids))
        known = set()
        for each in self.patients:
            found = np.isin(hash_ids(ids, each.salt, each.rounds), each.hashes)
            known |= {patient for patient, is_in in zip(ids, found, strict=True) if is_in}
        return known


UNKNOWN = Past(is_known=False)
NOBODY = Past(is_known=True)


def encode_past(past: Past) -> dict:
    """A past as plain JSON values."""
    return {
        "version": _VERSION,
        "is_known": past.is_known,
        "patients": [
            {"salt": each.salt.hex(), "rounds": each.rounds, "hashes": base64.b64encode(each.hashes.tobytes()).decode()}
            for each in past.patients
        ],
    }


def parse_past(content: object, source: Path) -> Past:
    """The inverse of `encode_past`; InputError that names `source` for anything else."""
    try:
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}, wanted {_VERSION}")
        patients = []
        for each in content["patients"]:
            hashes = np.frombuffer(base64.b64decode(each["hashes"], validate=True), f"V{HASH_BYTES}")
            if not 1 <= int(each["rounds"]) <= 1_000_000:
                raise ValueError(f"{each['rounds']} rounds")
            patients.append(Patients(bytes.fromhex(each["salt"]), int(each["rounds"]), np.unique(hashes)))
        return Past(bool(content["is_known"]), tuple(patients))
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise InputError(f"{source}: what it says of the patients that trained it is damaged ({error})") from None


def write_past(path: Path, past: Past) -> None:
    """Add a past to a `.keras` file that has none yet."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, json.dumps(encode_past(past)))


def read_past(path: Path) -> Past:
    """The past that a file of weights carries; UNKNOWN for one that carries none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                return UNKNOWN
            if archive.getinfo(MEMBER).file_size > _LARGEST:
                raise InputError(f"{path}: what it says of the patients that trained it is too large")
            content = json.loads(archive.read(MEMBER))
    except (zipfile.BadZipFile, OSError):
        return UNKNOWN  # not a `.keras` file; whether it can be read at all is asked elsewhere
    except ValueError:
        content = None
    return parse_past(content, path)


def load_past(path: Path) -> Past:
    """Read what `save_past` wrote; UNKNOWN where there is none, as in runs from before there were any."""
    if not path.is_file():
        return UNKNOWN
    return parse_past(load_json(path), path)


def save_past(path: Path, past: Past) -> None:
    """Write a past as a file of its own, as it lies in a run."""
    write_json(path, encode_past(past))
