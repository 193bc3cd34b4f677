"""The past of a network: salted hashes of the patients that it and its initial weights were trained on.

They are stored inside the file of the network, so that they stay with it. They are pseudonymous, not anonymous: anyone
with a list of patient ids can test which of them are among the hashes.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrkeras.data.identity import HASH_BYTES
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, write_json
from cxrkeras.models.network_file import add_member, read_member

MEMBER = "cxrkeras_trained_on.json"  # of the zip archive that a `.keras` file is; ignored by Keras
Hasher = Callable[[list[str], bytes, int], np.ndarray]  # hashes patients with a salt and a number of rounds
_VERSION = 1


@dataclass(frozen=True)
class Patients:
    """Patients of one data set: sorted hashes, (N,) of 16 bytes each, with their salt and number of rounds."""

    salt: bytes
    rounds: int
    hashes: np.ndarray


@dataclass(frozen=True)
class Past:
    """All patients that a network was trained on; `is_known` is false if some of its weights have an unknown past."""

    is_known: bool
    patients: tuple[Patients, ...] = ()

    def join(self, *others: "Past") -> "Past":
        """Return the union of several pasts; each patient of a data set is contained once."""
        by_salt: dict[tuple[bytes, int], list[np.ndarray]] = {}
        for past in (self, *others):
            for patients in past.patients:
                by_salt.setdefault((patients.salt, patients.rounds), []).append(patients.hashes)
        joined = [Patients(*key, np.unique(np.concatenate(hashes))) for key, hashes in by_salt.items()]
        return Past(all(past.is_known for past in (self, *others)), tuple(joined))

    def find(self, patient_ids: Iterable[str], hash_ids: Hasher) -> set[str]:
        """Find which of the given patients the network was trained on."""
        ids = list(dict.fromkeys(patient_ids))
        known = set()
        for patients in self.patients:
            found = np.isin(hash_ids(ids, patients.salt, patients.rounds), patients.hashes)
            known |= {patient for patient, is_in in zip(ids, found, strict=True) if is_in}
        return known


UNKNOWN = Past(is_known=False)
NOBODY = Past(is_known=True)


def encode_past(past: Past) -> dict[str, Any]:
    """Encode a past as plain JSON values."""
    return {
        "version": _VERSION,
        "is_known": past.is_known,
        "patients": [
            {
                "salt": patients.salt.hex(),
                "rounds": patients.rounds,
                "hashes": base64.b64encode(patients.hashes.tobytes()).decode(),
            }
            for patients in past.patients
        ],
    }


def parse_past(content: Any, source: Path) -> Past:
    """Parse the JSON value of `encode_past`. Raises InputError that names `source` for any other value."""
    try:
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}, expected {_VERSION}")
        patients = []
        for encoded in content["patients"]:
            hashes = np.frombuffer(base64.b64decode(encoded["hashes"], validate=True), f"V{HASH_BYTES}")
            if not 1 <= int(encoded["rounds"]) <= 1_000_000:
                raise ValueError(f"{encoded['rounds']} rounds")
            patients.append(Patients(bytes.fromhex(encoded["salt"]), int(encoded["rounds"]), np.unique(hashes)))
        return Past(bool(content["is_known"]), tuple(patients))
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise InputError(f"{source}: its record of the patients it was trained on is damaged ({error})") from None


def write_past(path: Path, past: Past) -> None:
    """Write a past into a `.keras` file that has none yet."""
    add_member(path, MEMBER, encode_past(past))


def read_past(path: Path) -> Past:
    """Read the past in a file of weights; UNKNOWN if it has none."""
    try:
        content = read_member(path, MEMBER)
    except ValueError as error:
        raise InputError(f"{path}: its record of the patients it was trained on is damaged ({error})") from None
    return UNKNOWN if content is None else parse_past(content, path)


def load_past(path: Path) -> Past:
    """Load the file of `save_past`; UNKNOWN if it does not exist, as in early runs."""
    if not path.is_file():
        return UNKNOWN
    return parse_past(load_json(path), path)


def save_past(path: Path, past: Past) -> None:
    """Save a past to a separate file, as in a run folder."""
    write_json(path, encode_past(past))
