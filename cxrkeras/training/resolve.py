"""Resolves an experiment: settings that fit records and device, the labels to learn, the name of the run."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras.config import LOSSES, REGISTERED_LOSSES, Experiment, Labels, dump_experiment
from cxrkeras.data.dataset import TRAIN_VAL
from cxrkeras.data.folds import HASHED
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet, known_truth
from cxrkeras.models.public_table import load_public_networks
from cxrkeras.models.registry import find_network
from cxrkeras.records.batches import Targets, build_targets
from cxrkeras.records.folder import Records, open_records
from cxrkeras.scoring.run import open_fold
from cxrkeras.scoring.run_files import MODEL
from cxrkeras.text import num_of
from cxrkeras.training.losses import TargetCounts

TENSOR_CORES_WITH_BFLOAT16 = (8, 0)  # compute capability
_COUNTS_AS = {"positive": 1.0, "negative": 0.0, "ignore": np.nan}


@dataclass(frozen=True)
class Setup:
    """A training before it starts: the resolved experiment, the records, the labels to learn."""

    experiment: Experiment
    records: Records
    labels: LabelSet
    targets: Targets

    @property
    def fold(self) -> int:
        """The fold held out for validation."""
        return self.experiment.data.fold

    @cached_property
    def training_values(self) -> np.ndarray:
        """Values of the labels in the training folds, int8 (N, L), in the order of the index."""
        return self.records.training_rows(self.fold)[list(self.labels)].to_numpy(np.int8)

    @cached_property
    def training_sources(self) -> np.ndarray:
        """The source of each image in the training folds, (N,), in the order of the index."""
        return self.records.training_rows(self.fold)["source"].to_numpy(object)

    @cached_property
    def counts(self) -> TargetCounts:
        """Counts of the labels in the training folds."""
        truth, columns = known_truth(self.training_values), np.arange(len(self.labels))
        targets = Targets(columns, self.targets.table).encode(self.training_values)
        return TargetCounts(
            len(truth),
            (truth == 1).sum(axis=0),
            np.isfinite(truth).sum(axis=0),
            float(np.isfinite(targets).sum(axis=1).mean()),
        )

    def name_run(self, name: str) -> str:
        """Name the run `<name>-<8 hex digits>`, hashed from settings (but not the fold), records and start weights."""
        settings = dump_experiment(self.experiment)
        del settings["data"], settings["training"]["keep_state"]
        if self.experiment.labels == Labels():  # the names of runs from before this section existed stay valid
            del settings["labels"]
        if self.experiment.sampling.sources == "given":
            del settings["sampling"]["sources"]
        if (path := Path(self.experiment.model.weights)).is_file():
            settings["model"]["weights"] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest = self.records.manifest
        folds = [manifest.fold_seed, manifest.num_folds, *[HASHED] * (manifest.fold_rule == HASHED)]
        content = json.dumps([settings, manifest.fingerprint, *folds], sort_keys=True)
        return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def choose_precision(precision: str) -> str:
    """Resolve `auto`: mixed bfloat16 or float16 on a GPU, depending on its generation, float32 on a CPU."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return "mixed_bfloat16" if capability >= TENSOR_CORES_WITH_BFLOAT16 else "mixed_float16"


def resolve_experiment(experiment: Experiment) -> Setup:
    """Fill in the settings that depend on the records and the device, and check that they fit.

    Raises InputError for an unknown network, and for a size, a fold, labels or weights that do not fit the records.
    """
    row = find_network(experiment.model.name)
    records = open_records(experiment.data.records)
    manifest = records.manifest
    size = experiment.model.size or manifest.size
    if size != manifest.size:
        raise InputError(
            f"model.size is {size}, but the images of {records.folder} have {manifest.size}: leave model.size out, or "
            "choose records of that size"
        )
    if experiment.data.fold >= manifest.num_folds:
        raise InputError(
            f"data.fold is {experiment.data.fold}, but {records.folder} has folds 0 to {manifest.num_folds - 1}"
        )
    labels, uncertain = _choose_labels(experiment.labels, records)
    _check_lengths(experiment, labels)
    _check_loss(experiment)
    resolved = experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update={"records": str(records.folder)}),
            "model": experiment.model.model_copy(
                update={"size": size, "weights": _find_weights(experiment.model.weights)}
            ),
            "training": experiment.training.model_copy(
                update={
                    "epochs": sum(phase.epochs for phase in experiment.phases),
                    "precision": choose_precision(experiment.training.precision),
                    "batch_size": experiment.training.batch_size or row.batch,
                }
            ),
        }
    )
    setup = Setup(resolved, records, labels, build_targets(labels, records.labels, uncertain))
    _check_known(setup)
    return setup


WANTED = (
    ": wanted imagenet, none, a .keras, .weights.h5 or .safetensors file, or the name of a run or an adopted network"
)


def _find_weights(weights: str) -> str:
    """Return the start weights as they are, or for the name of a run or an adopted network the path of its file."""
    if weights in ("none", "imagenet") or Path(weights).suffix or Path(weights).is_file():
        return weights
    try:
        fold = open_fold(weights, with_network=True)
    except InputError:
        hint = f": `cxrkeras adopt {weights}` brings it" if weights in load_public_networks() else ""
        raise InputError(
            f"no weights {weights!r}{hint or WANTED}",
            option="weights",
        ) from None
    fold.require(MODEL)
    return str(fold.folder / MODEL)


def _check_known(setup: Setup) -> None:
    """Raise InputError if there is nothing to learn, or nothing to choose an epoch by."""
    where = f"of {setup.records.folder} with fold {setup.fold} held out"
    if not setup.counts.targets_per_image:
        raise InputError(f"no label of the training set {where} is known: there is nothing to learn")
    validation = setup.records.rows(TRAIN_VAL, setup.fold)[list(setup.labels)].to_numpy(np.int8)
    if not np.isfinite(known_truth(validation)).any():
        raise InputError(
            f"no label of the validation set {where} is known: no epoch can be chosen; hold out another data.fold"
        )


def _choose_labels(settings: Labels, records: Records) -> tuple[LabelSet, dict[str, float]]:
    """Choose the labels to learn, and the target of an uncertain value of each."""
    try:
        labels = records.labels if settings.use is None else records.labels.choose(settings.use)
        by_label: dict[str, str] = {}
        for name, choice in settings.uncertain_by_label.items():
            if by_label.setdefault(label := labels.require(name), choice) != choice:
                raise InputError(f"uncertain_by_label has {label} as {by_label[label]} and as {choice}")
    except InputError as error:
        raise InputError(f"[labels] does not fit the records {records.folder}: {error}") from None
    return labels, {label: _COUNTS_AS[by_label.get(label, settings.uncertain)] for label in labels}


def _check_loss(experiment: Experiment) -> None:
    """Raise InputError for a custom loss that is not registered in this process."""
    if (name := experiment.loss.name) not in (*LOSSES, *REGISTERED_LOSSES):
        raise InputError(
            f"unknown loss {name!r}: register it in this process with cxrkeras.register_loss({name!r}, ...)"
        )


def _check_lengths(experiment: Experiment, labels: LabelSet) -> None:
    """Raise InputError for per-label settings whose length is not the number of labels."""
    loss = experiment.loss
    for key, values in (("weights", loss.weights), ("alpha", loss.alpha)):
        if isinstance(values, list) and len(values) != len(labels):
            raise InputError(
                f"loss.{key} has {num_of(len(values), 'number')}, but there are {num_of(len(labels), 'label')}: "
                f"{labels.describe()}"
            )


def describe_run(setup: Setup, name: str | None, *, is_past_known: bool = True) -> dict:
    """Describe a run for config.json: settings, data and versions, as plain JSON values."""
    manifest, labels = setup.records.manifest, setup.labels
    return {
        "experiment": dump_experiment(setup.experiment),
        "name": name or setup.experiment.model.name,
        "records_fingerprint": manifest.fingerprint,
        "folds": {"count": manifest.num_folds, "seed": manifest.fold_seed, "rule": manifest.fold_rule},
        "split_name": manifest.split_name,
        "is_synthetic": manifest.is_synthetic,
        "namespace": manifest.namespace,
        "sources": [source.model_dump() for source in manifest.sources],
        "is_past_known": is_past_known,
        "labels": labels.names,
        "no_finding": labels.no_finding,
        "preparation": manifest.preparation.model_dump(),
        "parts": {name: _count_rows(rows, labels) for name, rows in setup.records.set_rows(setup.fold).items()},
        "versions": {package: version(package) for package in ("cxrkeras", "keras", "numpy")}
        | {"tensorflow": tf.__version__},
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def _count_rows(rows: pd.DataFrame, labels: LabelSet) -> dict:
    truth = known_truth(rows[list(labels)].to_numpy(np.int8))
    counts = {"positives": (truth == 1).sum(axis=0), "known": np.isfinite(truth).sum(axis=0)}
    by_label = {kind: dict(zip(labels, values.tolist(), strict=True)) for kind, values in counts.items()}
    return {"images": len(rows), "patients": rows["patient_id"].nunique(), **by_label}
