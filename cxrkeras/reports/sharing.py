"""Gives a network to others: as a pack, and on Hugging Face."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrkeras.config import CONFIG
from cxrkeras.data.identity import hash_patients
from cxrkeras.errors import InputError
from cxrkeras.files import make_folder
from cxrkeras.models.past import Past, Patients, encode_past, load_past
from cxrkeras.progress import SILENT, Progress
from cxrkeras.reports.report import write_report
from cxrkeras.scoring.evaluation import MEAN
from cxrkeras.scoring.packs import SUFFIX, forget_patients, write_pack
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import (
    ADOPTED,
    CALIBRATED_ON,
    CALIBRATION,
    MODEL,
    MODEL_CARD,
    OOD_CHECK,
    REPORT,
    THRESHOLDS,
    TRAINED_ON,
    VALIDATION,
    Adoption,
    Config,
    PublishedScore,
)
from cxrkeras.text import num_of

HASHED = "hashed"
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class Pack:
    """A written pack, the name that it is adopted under, its card and its scores."""

    path: Path
    name: str
    sha256: str
    card: str
    config: Config
    notes: list[str] = field(default_factory=list)


def pack_run(
    fold: Fold,
    out: Path | None = None,
    *,
    licence: str = UNKNOWN_LICENCE,
    patients: str | None = None,
    progress: Progress = SILENT,
) -> Pack:
    """Write a fold or an adopted network as a pack; of a trained one, with the model card and scores of its report.

    out: the file, by default `<run>-<fold>.cxr.zip` in the working folder; licence: an SPDX name, of a run of one's
    own; patients: `hashed` adds the hashes of patients of its training and validation. Raises InputError for an
    ensemble, for a file that exists, and for hashes that the run does not have.
    """
    fold.require(MODEL, CALIBRATION, THRESHOLDS)
    if patients not in (None, HASHED):
        raise InputError(f"patients must be {HASHED}; got {patients!r}", option="patients")
    run = fold.folder.resolve().parent.name
    name = run if fold.kind == ADOPTED else f"{run}-{fold.folder.resolve().name}"
    out = out or Path(f"{name}{SUFFIX}")
    if not out.name.endswith(SUFFIX):
        raise InputError(f"the name of a pack ends with {SUFFIX}; got {out}", option="out")
    if out.exists():
        raise InputError(f"{out} exists already: remove it, or choose another name", option="out")
    make_folder(out.parent)
    notes: list[str] = []
    if fold.kind == ADOPTED:
        config, card = fold.config, (fold.folder / MODEL_CARD).read_text("utf-8")
        if licence != UNKNOWN_LICENCE:
            raise InputError(f"{fold.name} has the licence of its authors, which stays", option="licence")
    else:
        _, notes = write_report(fold, progress=progress)
        card = (fold.folder / REPORT / MODEL_CARD).read_text("utf-8") + f"\n## Licence\n{licence}\n"
        config = _describe(fold, name, licence)
    if config.adopted and config.adopted.licence == UNKNOWN_LICENCE:
        notes.append("without a licence nobody else may use it")
    progress.start("packing")
    files = {
        CONFIG: _encode(config.model_dump(mode="json", exclude_none=True, exclude_defaults=True)),
        MODEL: forget_patients((fold.folder / MODEL).read_bytes()),
        MODEL_CARD: card.encode(),
    }
    for other in (CALIBRATION, THRESHOLDS, OOD_CHECK):
        if (fold.folder / other).is_file():
            files[other] = (fold.folder / other).read_bytes()
    if patients:
        files |= _describe_patients(fold)
    return Pack(out, name, write_pack(out, name, files), card, config, notes)


def _encode(content: dict) -> bytes:
    return json.dumps(content, indent=1).encode()


def _describe(fold: Fold, name: str, licence: str) -> Config:
    """Describe a trained fold as a network to be adopted, with the scores of its report."""
    scores = pd.read_csv(fold.folder / REPORT / "scores.csv")
    published = []
    for row in scores[scores["auc"].notna()].to_dict("records"):
        kind = "synthetic phantoms, " if row["is_synthetic"] else ""
        images = (
            f"{kind}{row['part']} set of split {row['split_name']}: {num_of(int(row['images']), 'image')} of "
            f"{num_of(int(row['patients']), 'patient')}"
        )
        what = "mean AUC of the findings" if row["label"] == MEAN else f"AUC of {row['label']}"
        bounds = [None if pd.isna(row[key]) else row[key] for key in ("auc_low", "auc_high")]
        published.append(PublishedScore(score=what, value=row["auc"], low=bounds[0], high=bounds[1], images=images))
    config = fold.config
    adoption = Adoption(
        network=fold.network_name,
        size=fold.size,
        source=f"a pack of {fold.name}",
        sha256=hashlib.sha256((fold.folder / MODEL).read_bytes()).hexdigest(),
        licence=licence,
        trained_on=fold.trained_on,
        split=f"split {config.split_name}, fold {fold.metrics.fold} held out",
        run=fold.name,
        epoch=fold.epoch,
        published=published,
    )
    return Config(
        name=name,
        is_synthetic=config.is_synthetic,
        labels=config.labels,
        no_finding=config.no_finding,
        preparation=config.preparation,
        versions=config.versions,
        parts=config.parts,
        namespace=config.namespace,
        adopted=adoption,
    )


def _describe_patients(fold: Fold) -> dict[str, bytes]:
    """Encode the hashes of the patients that a network was trained on, and of those its thresholds were chosen on."""
    if fold.kind == ADOPTED:
        past, chosen_on = fold.past, load_past(fold.folder / CALIBRATED_ON)
    else:
        past, chosen_on = fold.past, Past(False)
        if past.patients and fold.config.namespace:
            ids = list(dict.fromkeys(fold.predictions[VALIDATION].patient_ids))
            first = past.patients[0]
            hashes = hash_patients(fold.config.namespace, ids, first.salt, first.rounds)
            chosen_on = Past(True, (Patients(first.salt, first.rounds, hashes),)).join()
    if not past.patients:
        raise InputError(f"{fold.name} does not have the hashes of its training patients", option="patients")
    return {TRAINED_ON: _encode(encode_past(past)), CALIBRATED_ON: _encode(encode_past(chosen_on))}
