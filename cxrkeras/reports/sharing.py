"""Gives a network to others: as a pack, and on Hugging Face."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Publication:
    """What goes to a repository on Hugging Face: the pack, and README.md, the card with what the hub reads of it."""

    repository: str
    pack: Pack
    readme: str

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each file by its name in the repository."""
        return {"README.md": len(self.readme.encode()), self.pack.path.name: self.pack.path.stat().st_size}


def prepare_publication(
    fold: Fold, repository: str, folder: Path, *, licence: str = UNKNOWN_LICENCE, progress: Progress = SILENT
) -> Publication:
    """Pack a run into a folder, and write its card with metadata; nothing is sent.

    Raises InputError as `pack_run`, and for a name that is not `owner/name`.
    """
    import yaml
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository!r} is not a repository: {error}", option="repo") from None
    if repository.count("/") != 1:
        raise InputError(f"a repository is owner/name; got {repository!r}", option="repo")
    pack = pack_run(fold, folder / f"{repository.partition('/')[2]}{SUFFIX}", licence=licence, progress=progress)
    metadata = yaml.safe_dump(_describe_for_hub(fold, pack), sort_keys=False, allow_unicode=True)
    use = (
        f"## Use\n`pip install cxrkeras[cpu,app]`, then `cxrkeras adopt hf://{repository}` and "
        f"`cxrkeras app --run {pack.name}`.\n"
    )
    return Publication(repository, pack, f"---\n{metadata}---\n{pack.card.rstrip()}\n\n{use}")


def _describe_for_hub(fold: Fold, pack: Pack) -> dict[str, Any]:
    """Describe a network in the terms of a model card's metadata on Hugging Face."""
    adopted = pack.config.adopted
    assert adopted is not None
    kinds = list(dict.fromkeys(source["kind"] for source in fold.config.sources))
    dataset = {"type": "-".join(kinds) or "chest-x-ray", "name": " and ".join(kinds) or adopted.trained_on}
    results: list[dict[str, Any]] = []
    for score in adopted.published:
        interval = "" if score.low is None or score.high is None else f", 95 % {score.low:.3f} to {score.high:.3f}"
        results.append(
            {
                "task": {"type": "image-classification", "name": "multi-label classification of chest radiographs"},
                "dataset": {**dataset, "split": score.images},
                "metrics": [{"type": "roc_auc", "value": round(score.value, 4), "name": f"{score.score}{interval}"}],
            }
        )
    described: dict[str, Any] = {
        "license": adopted.licence.lower(),
        "library_name": "cxrkeras",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "radiology", "multi-label", "keras", *["synthetic"] * fold.config.is_synthetic],
        "datasets": kinds,
        "model-index": [{"name": pack.name, "results": results}] if results else [],
    }
    return {key: value for key, value in described.items() if value}


def send(publication: Publication, *, is_private: bool = False) -> str:
    """Send the files to the repository, which is made if it is missing; return its address.

    Raises InputError if Hugging Face cannot be reached, or refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    pack = publication.pack.path
    try:
        hub.create_repo(publication.repository, private=is_private or None, exist_ok=True)
        done = hub.create_commit(
            publication.repository,
            [
                huggingface_hub.CommitOperationAdd("README.md", publication.readme.encode()),
                huggingface_hub.CommitOperationAdd(pack.name, pack),
            ],
            commit_message=f"{publication.pack.name}, packed by cxrkeras",
        )
    except LocalTokenNotFoundError:
        raise InputError("Hugging Face does not know who you are: `hf auth login`, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        is_unknown = error.response is not None and error.response.status_code in (401, 403)
        hint = ": log in with `hf auth login`, or set HF_TOKEN, as somebody who may write there" if is_unknown else ""
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"Hugging Face refused ({reason}), and nothing was published{hint}") from None
    except Exception as error:  # the HTTP library behind huggingface_hub varies
        cause = error.__cause__ or error
        raise InputError(f"cannot reach Hugging Face ({cause}). Is this machine online?") from None
    return str(done.commit_url)
