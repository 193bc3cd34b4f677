"""Trains one fold and fills its run folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.config import CONFIG, Experiment
from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.files import locked, replacing, write_json
from cxrkeras.models.compiled import compile_network, load_network
from cxrkeras.models.past import read_past, save_past
from cxrkeras.models.sources import fetch_imagenet
from cxrkeras.progress import SILENT, Advance, Progress
from cxrkeras.scoring.ood_check import fit_ood_check
from cxrkeras.scoring.operating_points import build_origin, fit_operating_points, save_operating_points
from cxrkeras.scoring.predictions import Predictions, predict_batches, save_predictions
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import (
    BACKUP,
    METRICS,
    MODEL,
    OOD_CHECK,
    RUNS_ROOT,
    TEST_SET,
    TRAINED_ON,
    VALIDATION,
    predictions_file,
)
from cxrkeras.scoring.scores import describe_scores, explain_collapse
from cxrkeras.training.backup import Position, find_backup
from cxrkeras.training.continuation import continue_shorter, explain_longer
from cxrkeras.training.loop import EpochLoop
from cxrkeras.training.resolve import Setup, describe_run, resolve_experiment
from cxrkeras.training.signals import Interruption
from cxrkeras.training.start import check_start, describe_patients, refuse_shared
from cxrkeras.training.training_state import TrainingState


@dataclass(frozen=True)
class Result:
    """A finished fold, and whether it was trained just now."""

    fold: Fold
    is_new: bool


def train_fold(
    experiment: Experiment, *, name: str | None = None, root: str | Path = RUNS_ROOT, progress: Progress = SILENT
) -> Result:
    """Train a network with one fold held out, and fill `<root>/<run>/fold<k>/`.

    Keeps the network of the epoch with the best mean validation AUC. An interrupted run with the same settings resumes
    from its last saved state; it is saved after each epoch, every ten minutes, and on SIGINT and SIGTERM, which raise
    KeyboardInterrupt. A finished fold is returned without training. `name` is the experiment's, by default the
    network's. Raises InputError for settings that do not fit the records, for a loss that is not finite, for too little
    memory, and if another process is training the same fold.
    """
    setup = resolve_experiment(experiment)
    resolved, records = setup.experiment, setup.records
    folder = Path(root) / setup.name_run(name or resolved.model.name) / f"fold{setup.fold}"
    if (folder / METRICS).is_file():
        progress.say(f"already done: {folder}. {explain_longer(resolved)}")
        return Result(Fold(folder), is_new=False)
    start = check_start(setup, progress)
    past = start.join(describe_patients(setup.fold, records))
    if resolved.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    imagenet_file = None
    if resolved.model.weights == "imagenet":
        imagenet_file = fetch_imagenet(resolved.model.name, progress)
    progress.say(f"training on {records.folder}, fold {setup.fold} held out for validation")
    records.verify(progress)
    if unlearned := [label for label, known in zip(setup.labels, setup.counts.known, strict=True) if not known]:
        progress.say(f"labels that no training image has for sure, 1 or 0: {', '.join(unlearned)}")
    keras.utils.set_random_seed(resolved.training.seed)
    interruption = Interruption()
    with _claim(folder), interruption.watch(progress.say), _explain_memory(resolved):
        state = TrainingState(resolved, setup.labels, setup.counts, imagenet_file)
        if state.remark:
            progress.say(state.remark)
        write_json(folder / CONFIG, describe_run(setup, name, is_past_known=start.is_known))
        save_past(folder / TRAINED_ON, past)
        continue_shorter(folder, setup, progress)
        position = EpochLoop(setup, state, past, folder, progress, interruption).run()
        # The network may have been copied there from elsewhere.
        refuse_shared(read_past(folder / MODEL), str(folder / MODEL), setup.fold, records)
        _finish(setup, folder, position, progress, interruption)
    return Result(Fold(folder), is_new=True)


@contextmanager
def _claim(folder: Path) -> Iterator[None]:
    """Lock the folder of a fold for this process; if it is empty afterwards, it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = folder.parents[1] / f".{folder.parent.name}-{folder.name}.lock"
        with locked(lock, f"another process is training in {folder}: wait for it, or stop it"):
            yield
    finally:
        with suppress(OSError):  # raised if they are not empty
            folder.rmdir()
            folder.parent.rmdir()


@contextmanager
def _explain_memory(resolved: Experiment) -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        batch_size = resolved.training.resolved_batch_size
        raise InputError(
            f"out of memory with training.batch_size {batch_size}: try training.batch_size={batch_size // 2}"
            if batch_size > 1
            else "out of memory with a single image per batch: choose a smaller network or smaller images"
        ) from None


def _finish(setup: Setup, folder: Path, position: Position, progress: Progress, interruption: Interruption) -> None:
    """Score the best network on both sets, fit what depends on validation, and write metrics.json last."""
    network = load_network(folder / MODEL, setup.labels)
    predict, manifest = compile_network(network), setup.records.manifest
    metrics = {
        "run": folder.parent.name,
        "fold": setup.fold,
        "best_epoch": position.best_epoch,
        "stopped_early": position.stopped,
        "records": str(setup.records.folder),
        "split_name": manifest.split_name,
        "is_partial": manifest.is_partial,
        "is_synthetic": manifest.is_synthetic,
    }
    for name, batches in ((VALIDATION, _evaluation_batches(setup, TRAIN_VAL, setup.fold)),
                          (TEST_SET, _evaluation_batches(setup, TEST))):  # fmt: skip
        advance = _stop_at(interruption, progress.start(f"scoring {name}", len(batches)))
        predictions = predict_batches(predict, batches, setup.labels, advance)
        predictions = save_predictions(folder / predictions_file(name), predictions)
        if sentence := explain_collapse(predictions.collapsed):
            progress.say(f"{name}: {sentence}")
        metrics[name] = describe_scores(predictions)
        if name == VALIDATION:
            _save_operating_points(folder, predictions, setup)
    _save_ood_check(network, setup, folder, progress, interruption)
    metrics["peak_memory_mb"] = _read_peak_memory()
    write_json(folder / METRICS, metrics)
    if setup.experiment.training.keep_state:
        kept = find_backup(folder)
        progress.say(f"the last state is kept in {kept}, {kept.stat().st_size / 1e6:,.0f} MB")
        return
    for path in (folder / BACKUP).glob("*"):
        path.unlink()
    (folder / BACKUP).rmdir()


def _save_operating_points(folder: Path, validation: Predictions, setup: Setup) -> None:
    fitted_on = build_origin(validation, setup.records.manifest.split_name, setup.fold)
    unseen = [label for label, count in zip(setup.labels, setup.counts.positives, strict=True) if not count]
    save_operating_points(folder, fit_operating_points(validation, fitted_on, unseen=unseen))


def _save_ood_check(
    network: keras.Model, setup: Setup, folder: Path, progress: Progress, interruption: Interruption
) -> None:
    folds = [fold for fold in range(setup.records.manifest.num_folds) if fold != setup.fold]
    batches = [_evaluation_batches(setup, TRAIN_VAL, fold) for fold in folds]
    held_out = _evaluation_batches(setup, TRAIN_VAL, setup.fold)
    total = sum(map(len, batches)) + len(held_out)
    advance = _stop_at(interruption, progress.start("fitting the out-of-distribution check", total))
    with replacing(folder / OOD_CHECK) as draft:
        np.savez(draft, **fit_ood_check(network, batches, held_out, advance))  # type: ignore[arg-type]  # NumPy's hints


def _evaluation_batches(setup: Setup, split: str, fold: int = -1) -> tf.data.Dataset:
    batch_size = setup.experiment.training.resolved_batch_size
    return setup.records.evaluation_batches(split, fold=fold, batch_size=batch_size, labels=setup.labels)


def _stop_at(interruption: Interruption, advance: Advance) -> Advance:
    """Wrap `advance` to raise KeyboardInterrupt on an interruption."""

    def advance_or_stop(count: int = 1) -> None:
        if interruption.is_wanted:
            raise KeyboardInterrupt
        advance(count)

    return advance_or_stop


def _read_peak_memory() -> int | None:
    """Read the peak memory of this process in MB; None if the system does not report it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    (line,) = [line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
