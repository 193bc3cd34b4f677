"""Who is who: patients compared whatever the spelling of their ids, and known by salted hashes."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cxrkeras.text import num_of

NIH = "nih"  # the namespace of all sets that are made of NIH images
ROUNDS = 2000  # of PBKDF2: 30,000 patients take 16 s on one core
HASH_BYTES = 16
_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")
_UNKNOWN = {"nan", "na", "n/a", "none", "null", "unknown", "unk", "anonymous", "anon", "-", "?"}


def normalise_id(text: str) -> str:
    """An id as ids are compared: Unicode NFC, single blanks, no case, numbers without leading zeros or `.0`.

    `7`, `007` and `7.0` are one, and so are `AB7` and ` ab7`.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split()).casefold()
    number = _NUMBER.fullmatch(text)
    return number[1] if number else text


def unify_patients(patient_ids: pd.Series) -> tuple[pd.Series, list[str]]:
    """Give each patient one spelling, the first that occurs; and notes on what was several ways to write one.

    Many images of one patient whose name says that it is not known are noted with their number.
    """
    stripped = patient_ids.str.strip()
    spellings = pd.DataFrame({"given": stripped.unique()})
    spellings["key"] = spellings["given"].map(normalise_id)
    first = spellings.groupby("key", sort=False)["given"].transform("first")
    unified = stripped.map(dict(zip(spellings["given"], first, strict=True)))
    notes = []
    several = spellings.groupby("key", sort=False)["given"].agg(list)
    several = several[several.map(len) > 1]
    if len(several):
        shown = " and ".join(map(repr, several.iloc[0][:3]))
        notes.append(
            f"{num_of(len(several), 'patient', 'is')} written in more than one way and taken as one (first: {shown})"
        )
    for key, given in zip(spellings["key"], spellings["given"], strict=True):
        count = int((unified == given).sum()) if key in _UNKNOWN else 0
        if count > 1:
            notes.append(
                f"{num_of(count, 'image', 'has')} the patient {given!r} and are taken as one person: if these are "
                "unknown "
                "patients, give each of them a name of its own"
            )
    return unified, notes


def hash_patients(
    namespace: str,
    patient_ids: Iterable[str],
    salt: bytes,
    rounds: int = ROUNDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Salted hashes of patients, bytes (N,) of 16 each: PBKDF2 with SHA-256 (RFC 8018) of `<namespace>:<id>`.

    Spellings of one patient have one hash. They are pseudonyms, not anonymous: whoever has a list of ids can test which
    of them are among the hashes.
    """

    def derive(patient: str) -> bytes:
        text = f"{namespace}:{normalise_id(patient)}".encode("utf-8", "surrogatepass")
        return hashlib.pbkdf2_hmac("sha256", text, salt, rounds, HASH_BYTES)

    patients = list(patient_ids)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the derivation lets go of Python's lock
        hashes = []
        for derived in pool.map(derive, patients):
            hashes.append(derived)
            progress(len(hashes), len(patients))
    return np.frombuffer(b"".join(hashes), f"V{HASH_BYTES}")


def choose_salt(namespace: str, fingerprint: str) -> bytes:
    """The salt of a data set's patients, 16 bytes: other data have another one, whatever the size of the records."""
    return hashlib.sha256(f"salt:{namespace}:{fingerprint}".encode()).digest()[:HASH_BYTES]


def draw_shares(namespace: str, patient_ids: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """A number from 0 to 1 for each patient, float64 (N,), that depends on patient, seed and purpose alone."""
    texts = (f"{purpose}:{seed}:{namespace}:{normalise_id(patient)}" for patient in patient_ids)
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    return np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
