"""Trains one fold and fills its run folder."""

import hashlib
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.config import Experiment, dump_experiment
from cxrkeras.errors import InputError
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.fused import fuse_norms
from cxrkeras.models.registry import find_network
from cxrkeras.models.sources import fetch_imagenet
from cxrkeras.models.weights import load_weights, set_prevalence_bias
from cxrkeras.records.pipeline import build_evaluation_batches, build_training_batches
from cxrkeras.records.schema import TEST, TRAIN_VAL, Manifest, load_index, load_manifest
from cxrkeras.records.verify import verify_records
from cxrkeras.runs import (
    BACKUP,
    CONFIG,
    HISTORY,
    METRICS,
    MODEL,
    RUNS_ROOT,
    find_records,
    load_json,
    predictions_file,
    write_json,
    write_text,
)
from cxrkeras.scoring.predictions import (
    Predictions,
    build_live_predictor,
    build_predictor,
    predict_batches,
    save_predictions,
)
from cxrkeras.scoring.scores import format_mean, mean_auc, score_labels
from cxrkeras.training.augment import Augmentation
from cxrkeras.training.backup import Progress, load_backup, save_backup
from cxrkeras.training.board import GRID, Board
from cxrkeras.training.optimisers import FusedAdam
from cxrkeras.training.schedules import learning_rate

TENSOR_CORES_WITH_BFLOAT16 = (8, 0)  # compute capability


@dataclass
class Monitor:
    """What a training tells while it runs: steps within a phase, and sentences."""

    start: Callable[[str, int], None] = lambda phase, total: None
    advance: Callable[[int], None] = lambda count: None
    say: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class Result:
    """A finished fold: its folder, the scores of both parts, and whether it was trained just now."""

    folder: Path
    metrics: dict
    is_new: bool


@dataclass
class Trainer:
    """A training in memory: the network, the model around it that augments and learns, and the copy that is saved.

    That one is in float32 and of Keras' own layers, so that it can be used on any device without cxrkeras.
    """

    network: keras.Model
    saved: keras.Model
    model: keras.Model
    augmentation: Augmentation
    variables: list[keras.Variable] = field(init=False)

    def __post_init__(self):
        self.model.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.network.variables, *self.augmentation.variables, *self.model.optimizer.variables]


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
    del settings["data"]
    if (path := Path(resolved.model.weights)).is_file():
        settings["model"]["weights"] = hashlib.sha256(path.read_bytes()).hexdigest()
    content = json.dumps([settings, manifest.fingerprint, manifest.fold_seed, manifest.num_folds], sort_keys=True)
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def train_fold(
    experiment: Experiment, *, name: str | None = None, root: Path = RUNS_ROOT, monitor: Monitor | None = None
) -> Result:
    """Train a network with one fold held out, and fill `<root>/<run>/fold<k>/`.

    The epoch with the best mean validation AUC is kept. An unfinished run of the same settings is taken up at its
    last whole epoch; of a finished one the scores are returned. `name` is the experiment's, by default the
    network's. Raises InputError for settings that do not fit the records, and for a loss that is not finite.
    """
    monitor = monitor or Monitor()
    resolved, records, manifest = resolve_experiment(experiment)
    folder = root / name_run(name or resolved.model.name, resolved, manifest) / f"fold{resolved.data.fold}"
    if (folder / METRICS).is_file():
        monitor.say(f"already done: {folder}")
        return Result(folder, load_json(folder / METRICS, ("validation", "test")), is_new=False)
    _check_start(resolved, manifest)
    imagenet_file = None
    if resolved.model.weights == "imagenet":
        show = _show_progress(monitor, f"fetching ImageNet weights of {resolved.model.name}")
        imagenet_file = fetch_imagenet(resolved.model.name, show)
    monitor.say(f"training on {records}, fold {resolved.data.fold} held out for validation")
    verify_records(records, _show_progress(monitor, f"verifying {records}"))
    keras.utils.set_random_seed(resolved.training.seed)
    config = _describe(resolved, name, records, manifest)
    trainer = build_trainer(resolved, imagenet_file, config["parts"]["training"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)
    num_images = config["parts"]["training"]["images"]
    best_epoch = _run_epochs(resolved, records, folder, trainer, monitor, num_images=num_images)

    network = keras.models.load_model(folder / MODEL, compile=False)
    predictor = build_predictor(network)
    metrics = {
        "run": folder.parent.name,
        "fold": resolved.data.fold,
        "best_epoch": best_epoch,
        "records": str(records),
        "split_name": manifest.split_name,
        "is_partial": manifest.num_listed > sum(shard.count for shard in manifest.shards),
        "is_synthetic": manifest.is_synthetic,
    }
    for part, split, fold in (("validation", TRAIN_VAL, resolved.data.fold), ("test", TEST, -1)):
        predictions = _predict(predictor, records, split, fold, resolved.training.batch_size, monitor)
        save_predictions(folder / predictions_file(part), predictions)
        metrics[part] = describe_scores(predictions)
    write_json(folder / METRICS, metrics)
    for path in (folder / BACKUP).glob("*"):
        path.unlink()
    (folder / BACKUP).rmdir()
    return Result(folder, metrics, is_new=True)


def _check_start(resolved: Experiment, manifest: Manifest) -> None:
    """Refuse to start from a run that has seen the patients who are held out now."""
    weights = Path(resolved.model.weights)
    path = weights.with_name(CONFIG)
    if not (weights.is_file() and path.is_file()):
        return
    other = load_json(path, ("records_fingerprint", "folds", "experiment"))
    if other["records_fingerprint"] != manifest.fingerprint:
        return
    fold = other["experiment"]["data"]["fold"]
    if other["folds"] != _describe_folds(manifest) or fold != resolved.data.fold:
        raise InputError(
            f"{resolved.model.weights} was trained with fold {fold} of {other['folds']['count']} held out (seed "
            f"{other['folds']['seed']}), on patients who are in fold {resolved.data.fold} now: its validation would be "
            "too good. Start from a run of the same fold, or of other data"
        )


def _describe_folds(manifest: Manifest) -> dict:
    return {"count": manifest.num_folds, "seed": manifest.fold_seed}


def _show_progress(monitor: Monitor, phase: str) -> Callable[[int, int], None]:
    """A callback of units done and all that drives the monitor's steps."""
    seen = None

    def show(done: int, total: int) -> None:
        nonlocal seen
        if seen is None:
            monitor.start(phase, total)
            seen = 0
        monitor.advance(done - seen)
        seen = done

    return show


def build_trainer(resolved: Experiment, imagenet_file: Path | None = None, trained_on: dict | None = None) -> Trainer:
    """Build what learns. `trained_on` has the positives and images of the training folds, for the prevalence bias."""
    model, precision = resolved.model, resolved.training.precision
    saved = build_classifier(model.name, model.size, head=model.head)
    load_weights(saved, model.weights, imagenet_file)
    if model.head.prevalence_bias:
        set_prevalence_bias(saved, np.array(list(trained_on["positives"].values())), trained_on["images"])
    alike = saved
    if precision != "float32":
        alike = build_classifier(model.name, model.size, head=model.head, precision=precision)
        alike.set_weights(saved.get_weights())
    network = fuse_norms(alike)
    augmentation = Augmentation(
        flip=resolved.augmentation.flip, rotation=resolved.augmentation.rotation, seed=resolved.training.seed
    )
    images = keras.Input(network.input_shape[1:], dtype="float32")
    trained = keras.Model(images, network(augmentation(images)))
    trained.compile(FusedAdam(resolved.optimiser.learning_rate), keras.losses.BinaryCrossentropy(from_logits=True))
    return Trainer(network, saved, trained, augmentation)


def _describe(resolved: Experiment, name: str | None, records: Path, manifest: Manifest) -> dict:
    index = load_index(records)
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
        "labels": labels.LABELS,
        "parts": {part: _count_part(rows) for part, rows in parts.items()},
        "versions": {package: version(package) for package in ("cxrkeras", "keras", "numpy")}
        | {"tensorflow": tf.__version__},
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
    }


def _count_part(rows: pd.DataFrame) -> dict:
    positives = {label: int(rows[label].sum()) for label in labels.LABELS}
    return {"images": len(rows), "patients": rows["patient_id"].nunique(), "positives": positives}


class _StepProgress(keras.callbacks.Callback):
    def __init__(self, monitor: Monitor):
        super().__init__()
        self.monitor = monitor

    def on_train_batch_end(self, batch, logs=None):
        self.monitor.advance(1)


def _run_epochs(
    resolved: Experiment, records: Path, folder: Path, trainer: Trainer, monitor: Monitor, *, num_images: int
) -> int:
    """Train to the end and return the epoch that was kept, counted from 1."""
    training, fold = resolved.training, resolved.data.fold
    progress = load_backup(folder, trainer.variables)
    if progress.epochs_done:
        monitor.say(f"going on after epoch {progress.epochs_done} of {folder}")
        if not zipfile.is_zipfile(folder / MODEL):
            raise InputError(
                f"{folder / MODEL}, the best epoch so far, is gone or damaged: delete {folder} and train anew"
            )
    predictor = build_live_predictor(trainer.network)
    board = Board(folder, is_synthetic=load_manifest(records).is_synthetic)
    for epoch in range(progress.epochs_done, training.epochs):
        if _has_stopped(progress, training.early_stopping):
            break
        rate = learning_rate(resolved.schedule, resolved.optimiser.learning_rate, epoch)
        trainer.model.optimizer.learning_rate = rate
        trainer.augmentation.start_epoch(epoch)
        batches = build_training_batches(records, fold, batch_size=training.batch_size, seed=training.seed, epoch=epoch)
        if epoch == 0:
            images = next(iter(batches))[0][: GRID * GRID]
            board.write_inputs(keras.ops.convert_to_numpy(trainer.augmentation(images, training=True)))
            trainer.augmentation.start_epoch(epoch)
        monitor.start(f"epoch {epoch + 1}/{training.epochs}", len(batches))
        started = time.monotonic()
        logs = trainer.model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[_StepProgress(monitor)])
        seconds = time.monotonic() - started
        train_loss = float(logs.history["loss"][0])
        if not np.isfinite(train_loss):
            raise InputError(
                f"the loss of epoch {epoch + 1} is {train_loss}: try a smaller optimiser.learning_rate or "
                f"training.precision=float32. Epochs before it are kept in {folder}"
            )
        predictions = _predict(predictor, records, TRAIN_VAL, fold, training.batch_size, monitor)
        scores = score_labels(predictions.truth, predictions.logits)
        auc, count = mean_auc(scores)
        row = {
            "epoch": epoch + 1,
            "loss/train": train_loss,
            "loss/validation": cross_entropy(predictions),
            "learning rate": rate,
            "images per second": num_images / seconds,
            "auc/mean": auc,
            **{f"auc/{label}": scores["auc"][label] for label in labels.LABELS},
        }
        quality = auc if count else -row["loss/validation"]
        is_best = quality > progress.best_quality
        if is_best:
            progress.best_quality, progress.best_epoch = quality, epoch + 1
            trainer.saved.set_weights(trainer.network.get_weights())
            draft = folder / "draft.keras"
            trainer.saved.save(draft)
            draft.replace(folder / MODEL)
        progress.epochs_done = epoch + 1
        progress.history.append(row)
        write_text(folder / HISTORY, pd.DataFrame(progress.history).to_csv(index=False))
        save_backup(folder, trainer.variables, progress)
        board.write_epoch(epoch + 1, row)
        monitor.say(
            f"epoch {epoch + 1}/{training.epochs}: loss {train_loss:.4f}, validation {row['loss/validation']:.4f}, "
            f"mean validation AUC {format_mean(scores)}{' (best so far)' if is_best else ''}, "
            f"{row['images per second']:.0f} images/s"
        )
    return progress.best_epoch


def _has_stopped(progress: Progress, patience: int) -> bool:
    return bool(patience) and progress.epochs_done - progress.best_epoch >= patience


def _predict(predictor, records: Path, split: str, fold: int, batch_size: int, monitor: Monitor) -> Predictions:
    batches = build_evaluation_batches(records, split, fold=fold, batch_size=batch_size)
    monitor.start(f"scoring {'test' if split == TEST else 'validation'}", len(batches))
    return predict_batches(predictor, batches, monitor.advance)


def cross_entropy(predictions: Predictions) -> float:
    """Mean binary cross-entropy of logits, over images and labels."""
    z, y = predictions.logits.astype(np.float64), predictions.truth
    return float(np.mean(np.logaddexp(0, z) - y * z))


def describe_scores(predictions: Predictions) -> dict:
    """Scores of one part as plain JSON values; undefined ones are null with a note."""
    scores = score_labels(predictions.truth, predictions.logits)
    mean, count = mean_auc(scores)
    rows = json.loads(scores.reset_index().to_json(orient="records", double_precision=15))
    return {
        "images": len(predictions.image_ids),
        "patients": predictions.num_patients,
        "mean_auc": mean if count else None,
        "mean_auc_findings": count,
        "labels": rows,
    }
