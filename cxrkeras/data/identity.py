"""Patient identity: ids compared regardless of spelling, and salted hashes of them."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from cxrkeras.progress import Advance
from cxrkeras.text import num_of

NIH_PATIENTS = "nih"  # the namespace of all data sets of NIH images
JOINED = "joined"  # the namespace of joined sets, whose patients are spelled `<namespace>:<id>`
ROUNDS = 2000  # of PBKDF2: 30,000 patients take 16 s on one core
HASH_BYTES = 16
_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")
_UNKNOWN = {"nan", "na", "n/a", "none", "null", "unknown", "unk", "anonymous", "anon", "-", "?"}


def normalise_id(text: str) -> str:
    """Normalise an id for comparison: Unicode NFC, single spaces, case folded, numbers without leading zeros or `.0`.

    `7`, `007` and `7.0` are equal, and so are `AB7` and ` ab7`.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split()).casefold()
    number = _NUMBER.fullmatch(text)
    return number[1] if number else text


def name_patient(namespace: str, patient_id: str) -> str:
    """Return `<namespace>:<id>`, the same for all spellings of a patient."""
    if namespace == JOINED:
        namespace, _, patient_id = patient_id.partition(":")
    return f"{namespace}:{normalise_id(patient_id)}"


def unify_patients(patient_ids: pd.Series) -> tuple[pd.Series, list[str]]:
    """Unify the spellings of each patient to the first that occurs; and notes about patients with several.

    A note also reports a patient with several images whose id means unknown.
    """
    codes, given = pd.factorize(patient_ids.str.strip())
    spellings = pd.DataFrame({"given": np.asarray(given, object)})
    spellings["key"] = spellings["given"].map(normalise_id)
    first = spellings.groupby("key", sort=False)["given"].transform("first")
    unified = pd.Series(first.to_numpy()[codes], patient_ids.index)
    notes = []
    several = spellings.groupby("key", sort=False)["given"].agg(list)
    several = several[several.map(len) > 1]
    if len(several):
        shown = " and ".join(map(repr, several.iloc[0][:3]))
        notes.append(
            f"{num_of(len(several), 'patient', 'is')} written in more than one way and treated as one (first: {shown})"
        )
    for key, given in zip(spellings["key"], spellings["given"], strict=True):
        count = int((unified == given).sum()) if key in _UNKNOWN else 0
        if count > 1:
            notes.append(
                f"{num_of(count, 'image', 'has')} the patient {given!r} and are treated as one patient: if these "
                "are unknown patients, give each of them a unique id"
            )
    return unified, notes


def hash_patients(
    namespace: str,
    patient_ids: Iterable[str],
    salt: bytes,
    rounds: int = ROUNDS,
    advance: Advance = lambda count=1: None,
) -> np.ndarray:
    """Compute salted hashes of patients, bytes (N,) of 16 each: PBKDF2-SHA-256 (RFC 8018) of `<namespace>:<id>`.

    All spellings of a patient have the same hash. Hashes are pseudonymous, not anonymous: anyone with a list of ids can
    test which of them are among the hashes.
    """

    def derive(patient: str) -> bytes:
        text = name_patient(namespace, patient).encode("utf-8", "surrogatepass")
        return hashlib.pbkdf2_hmac("sha256", text, salt, rounds, HASH_BYTES)

    patients = list(patient_ids)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib releases the GIL
        hashes = []
        for derived in pool.map(derive, patients):
            hashes.append(derived)
            advance()
    return np.frombuffer(b"".join(hashes), f"V{HASH_BYTES}")


def choose_salt(namespace: str, fingerprint: str) -> bytes:
    """Derive the salt of a data set's patients, 16 bytes, from its content; independent of the size of the records."""
    return hashlib.sha256(f"salt:{namespace}:{fingerprint}".encode()).digest()[:HASH_BYTES]


def draw_shares(namespace: str, patient_ids: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """Draw a number from 0 to 1 per patient, float64 (N,), that depends only on patient, seed and purpose."""
    texts = (f"{purpose}:{seed}:{name_patient(namespace, patient)}" for patient in patient_ids)
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    return np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
