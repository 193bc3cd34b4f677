"""What a training will be: settings that fit records and device, the name of its run, and what is noted of it."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.config import Experiment, dump_experiment
from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.data.folds import HASHED
from cxrkeras.errors import InputError
from cxrkeras.models.registry import find_network
from cxrkeras.records.find_records import find_records
from cxrkeras.records.manifest import Manifest, load_manifest

TENSOR_CORES_WITH_BFLOAT16 = (8, 0)  # compute capability


def choose_precision(wanted: str) -> str:
    """Resolve `auto`: mixed bfloat16 or float16 on a GPU, by its generation, and float32 on a CPU."""
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
    return "mixed_bfloat16" if capability >= TENSOR_CORES_WITH_BFLOAT16 else "mixed_float16"


def resolve_experiment(experiment: Experiment) -> tuple[Experiment, Path, Manifest]:
    """Fill in what the records and the device decide, and check the one against the other."""
    row = find_network(experiment.model.name)
    records = find_records(experiment.data.records)
    manifest = load_manifest(records)
    size = experiment.model.size or manifest.size
    if size != manifest.size:
        raise InputError(
            f"model.size is {size} and the records {records} have {manifest.size}: make records of that size"
        )
    if experiment.data.fold >= manifest.num_folds:
        raise InputError(f"data.fold is {experiment.data.fold} and {records} has folds 0 to {manifest.num_folds - 1}")
    resolved = experiment.model_copy(
        update={
            "data": experiment.data.model_copy(update={"records": str(records)}),
            "model": experiment.model.model_copy(update={"size": size}),
            "training": experiment.training.model_copy(
                update={
                    "epochs": sum(phase.epochs for phase in experiment.phases),
                    "precision": choose_precision(experiment.training.precision),
                    "batch_size": experiment.training.batch_size or row.batch,
                }
            ),
        }
    )
    return resolved, records, manifest


def name_run(name: str, resolved: Experiment, manifest: Manifest) -> str:
    """`<name>-<8 hex digits>` of the settings without the fold, and of the content of records and start weights."""
    settings = dump_experiment(resolved)
    del settings["data"], settings["training"]["keep_state"]
    if (path := Path(resolved.model.weights)).is_file():
        settings["model"]["weights"] = hashlib.sha256(path.read_bytes()).hexdigest()
    folds = [manifest.fold_seed, manifest.num_folds, *[HASHED] * (manifest.fold_rule == HASHED)]
    content = json.dumps([settings, manifest.fingerprint, *folds], sort_keys=True)
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _describe_folds(manifest: Manifest) -> dict:
    return {"count": manifest.num_folds, "seed": manifest.fold_seed, "rule": manifest.fold_rule}


def describe_run(
    resolved: Experiment, name: str | None, index: pd.DataFrame, manifest: Manifest, *, is_past_known: bool = True
) -> dict:
    """What config.json holds: the settings, the data and the versions behind a run, as plain JSON values."""
    parts = {
        "training": index[(index["split"] == TRAIN_VAL) & (index["fold"] != resolved.data.fold)],
        "validation": index[(index["split"] == TRAIN_VAL) & (index["fold"] == resolved.data.fold)],
        "test": index[index["split"] == TEST],
    }
    return {
        "experiment": dump_experiment(resolved),
        "name": name or resolved.model.name,
        "records_fingerprint": manifest.fingerprint,
        "folds": _describe_folds(manifest),
        "split_name": manifest.split_name,
        "is_synthetic": manifest.is_synthetic,
        "namespace": manifest.namespace,
        "is_past_known": is_past_known,
        "labels": labels.LABELS,
        "parts": {part: _count_part(rows) for part, rows in parts.items()},
        "versions": {package: version(package) for package in ("cxrkeras", "keras", "numpy")}
        | {"tensorflow": tf.__version__},
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def _count_part(rows: pd.DataFrame) -> dict:
    positives = {label: int(rows[label].sum()) for label in labels.LABELS}
    return {"images": len(rows), "patients": rows["patient_id"].nunique(), "positives": positives}
