"""Trains one fold and fills its run folder."""

import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.config import CONFIG, Experiment
from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_gradcam
from cxrkeras.files import load_json, locked, replacing, write_json, write_text
from cxrkeras.models.classifier import FEATURES
from cxrkeras.models.compiled import compile_live, compile_network
from cxrkeras.models.past import Past, read_past, save_past, write_past
from cxrkeras.models.sources import fetch_imagenet
from cxrkeras.records.batches import build_evaluation_batches, build_training_batches
from cxrkeras.records.manifest import Manifest, load_index
from cxrkeras.records.verify import verify_records
from cxrkeras.scoring.find_runs import (
    BACKUP,
    HISTORY,
    INPUT_CHECK,
    METRICS,
    MODEL,
    RUNS_ROOT,
    TENSORBOARD,
    TRAINED_ON,
    predictions_file,
)
from cxrkeras.scoring.ood_check import fit_input_check
from cxrkeras.scoring.operating_points import describe_part, fit_operating_points, save_operating_points
from cxrkeras.scoring.predictions import Predictions, predict_batches, save_predictions
from cxrkeras.scoring.scores import describe_scores, explain_collapse, format_mean, mean_auc, score_predictions
from cxrkeras.text import num_of
from cxrkeras.training.backup import Progress, find_backup, load_backup, read_progress, save_backup
from cxrkeras.training.board import GRID, Board
from cxrkeras.training.callback import Steps
from cxrkeras.training.continuation import continue_shorter, explain_longer
from cxrkeras.training.input_timing import time_waiting
from cxrkeras.training.resolve import describe_run, name_run, resolve_experiment
from cxrkeras.training.sampling import draw_copies, expect_copies, split_passes
from cxrkeras.training.schedules import learning_rate
from cxrkeras.training.signals import Interruption
from cxrkeras.training.start import check_start, describe_patients, refuse_shared
from cxrkeras.training.training_state import Trainer

PASSES = 4  # through the data in a balanced epoch, so that the copies of an image stand apart


@dataclass
class Monitor:
    """What a training tells while it runs: steps within a phase, sentences, and how many epochs are done."""

    start: Callable[[str, int], None] = lambda phase, total: None
    advance: Callable[[int], None] = lambda count: None
    say: Callable[[str], None] = lambda sentence: None
    epoch: Callable[[int], None] = lambda done: None


@dataclass(frozen=True)
class Result:
    """A finished fold: its folder, the scores of both parts, and whether it was trained just now."""

    folder: Path
    metrics: dict
    is_new: bool


def train_fold(
    experiment: Experiment, *, name: str | None = None, root: Path = RUNS_ROOT, monitor: Monitor | None = None
) -> Result:
    """Train a network with one fold held out, and fill `<root>/<run>/fold<k>/`.

    The epoch with the best mean validation AUC is kept. An unfinished run of the same settings resumes where its
    state was saved last: after each epoch, every ten minutes, and on SIGINT and SIGTERM, which end as a
    KeyboardInterrupt. Of a finished one the scores are returned. `name` is the experiment's, by default the
    network's. Raises InputError for settings that do not fit the records, for a loss that is not finite, for too
    little memory, and where another process is at work on the same.
    """
    monitor = monitor or Monitor()
    resolved, records, manifest = resolve_experiment(experiment)
    folder = root / name_run(name or resolved.model.name, resolved, manifest) / f"fold{resolved.data.fold}"
    if (folder / METRICS).is_file():
        monitor.say(f"already done: {folder}. {explain_longer(resolved)}")
        return Result(folder, load_json(folder / METRICS, ("validation", "test")), is_new=False)
    index = load_index(records)
    start = check_start(resolved, records, manifest, index, monitor.say)
    past = start.join(describe_patients(resolved.data.fold, records, manifest, index))
    if resolved.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    imagenet_file = None
    if resolved.model.weights == "imagenet":
        show = _show_progress(monitor, f"fetching ImageNet weights of {resolved.model.name}")
        imagenet_file = fetch_imagenet(resolved.model.name, show)
    monitor.say(f"training on {records}, fold {resolved.data.fold} held out for validation")
    verify_records(records, _show_progress(monitor, f"verifying {records}"))
    keras.utils.set_random_seed(resolved.training.seed)
    config = describe_run(resolved, name, index, manifest, is_past_known=start.is_known)
    interruption = Interruption()
    with _claim(folder), interruption.watch(monitor.say), _explain_memory(resolved):
        trainer = Trainer(resolved, imagenet_file, config["parts"]["training"])
        write_json(folder / CONFIG, config)
        save_past(folder / TRAINED_ON, past)
        continue_shorter(folder, resolved, manifest, monitor.say)
        progress = _Loop(trainer, records, index, config, past, folder, monitor, interruption).run()
        refuse_shared(
            read_past(folder / MODEL), str(folder / MODEL), resolved.data.fold, records, manifest, index
        )  # which may have been copied there
        metrics = _finish(resolved, records, manifest, folder, progress, monitor, interruption)
    return Result(folder, metrics, is_new=True)


@contextmanager
def _claim(folder: Path) -> Iterator[None]:
    """Hold the folder of a fold for this process; if the start fails and nothing is in it, it goes again."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = folder.parents[1] / f".{folder.parent.name}-{folder.name}.lock"
        with locked(lock, f"another process is training in {folder}: wait for it, or stop it"):
            yield
    finally:
        with suppress(OSError):  # which says that something is in them
            folder.rmdir()
            folder.parent.rmdir()


@contextmanager
def _explain_memory(resolved: Experiment) -> Iterator[None]:
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError):
        batch_size = resolved.training.batch_size
        raise InputError(
            f'out of memory with training.batch_size {batch_size}: try SET="training.batch_size={batch_size // 2}"'
            if batch_size > 1
            else "out of memory with a single image in a batch: take a smaller network or smaller images"
        ) from None


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


class _Loop:
    """The epochs of one training."""

    def __init__(
        self,
        trainer: Trainer,
        records: Path,
        index: pd.DataFrame,
        config: dict,
        past: Past,
        folder: Path,
        monitor: Monitor,
        interruption: Interruption,
    ):
        self.trainer, self.records, self.past, self.folder = trainer, records, past, folder
        self.monitor, self.interruption = monitor, interruption
        self.resolved = trainer.resolved
        self.fold, self.training = self.resolved.data.fold, self.resolved.training
        self.expected = None
        if self.resolved.sampling.name == "balanced":
            rows = index[(index["split"] == TRAIN_VAL) & (index["fold"] != self.fold)]
            self.expected = expect_copies(rows[list(labels.LABELS)].to_numpy(float), self.resolved.sampling)
        self.predictor = compile_live(trainer.network)
        self.num_images = config["parts"]["training"]["images"]
        self.has_curves = (folder / TENSORBOARD).is_dir()
        self.board = Board(folder, self.resolved, is_synthetic=config["is_synthetic"])
        self.progress = Progress()

    def run(self) -> Progress:
        """Train to the end and return how it went."""
        self._resume()
        progress, phases = self.progress, self.resolved.phases
        while True:
            while progress.phase < len(phases) and progress.is_phase_over(
                phases[progress.phase].epochs, self.training.early_stopping
            ):
                self._end_phase()
            if progress.phase == len(phases):
                break
            if progress.phase != self.trainer.phase:
                self.trainer.start_phase(progress.phase)
            epoch = progress.epochs_done
            if epoch == 0 and not progress.steps_done:
                self._show_inputs()
            row = self._train_epoch(epoch)
            self._score_epoch(epoch, row)
            if self.interruption.is_wanted:
                raise KeyboardInterrupt
        return progress

    def _end_phase(self) -> None:
        progress, phases = self.progress, self.resolved.phases
        number, epochs = progress.phase + 1, phases[progress.phase].epochs
        if progress.end_phase(epochs):
            name = "the training" if len(phases) == 1 else f"phase {number} of {len(phases)}"
            self.monitor.say(
                f"{name} ends early, after epoch {progress.epochs_done}: no better validation AUC in "
                f"{num_of(self.training.early_stopping, 'epoch')}"
            )

    def _resume(self) -> None:
        progress = read_progress(self.folder)
        if not (progress.epochs_done or progress.steps_done):
            return
        steps = f" and {progress.steps_done} steps of the next" if progress.steps_done else ""
        self.monitor.say(f"going on after epoch {progress.epochs_done}{steps} of {self.folder}")
        if progress.epochs_done and not zipfile.is_zipfile(self.folder / MODEL):
            raise InputError(
                f"{self.folder / MODEL}, the best epoch so far, is gone or damaged: delete {self.folder} and train anew"
            )
        self.trainer.start_phase(progress.phase)  # the state is that of the phase in which it was saved
        self.progress = load_backup(self.folder, self.trainer.variables)
        if not self.has_curves:  # but those of a shorter run, in its folder
            for row in progress.history:
                self.board.write_epoch(row["epoch"], row)

    def _build_batches(self, epoch: int) -> tf.data.Dataset:
        copies = None
        if self.expected is not None:
            rng = np.random.default_rng([self.training.seed, epoch, 1])
            copies = split_passes(draw_copies(self.expected, rng), PASSES, rng)
        return build_training_batches(
            self.records,
            self.fold,
            batch_size=self.training.batch_size,
            seed=self.training.seed,
            epoch=epoch,
            copies=copies,
        )

    def _show_inputs(self) -> None:
        self.trainer.augmentation.start_epoch(0)
        images = next(iter(self._build_batches(0)))[0][: GRID * GRID]
        self.board.write_inputs(keras.ops.convert_to_numpy(self.trainer.augmentation(images, training=True)))

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train to the end of an epoch; its columns of the history that are known without validation."""
        progress, model, batch_size = self.progress, self.trainer.model, self.training.batch_size
        batches = self._build_batches(epoch)
        num_steps, first = len(batches), progress.steps_done
        if not first:
            self.trainer.augmentation.start_epoch(epoch)
        waited = None
        # Several devices divide the batches anew, and clocks are not deterministic.
        if not (self.trainer.is_distributed or self.training.deterministic):
            batches, waited = time_waiting(batches)
        number, began = progress.phase, progress.phase_began
        phase = self.resolved.phases[number]
        losses = [row["loss/validation"] for row in progress.history[began:]]
        seconds_before, loss_before, started = progress.seconds, progress.loss, time.monotonic()

        def rate(step: int) -> float:
            passed = epoch - began + step / num_steps
            return learning_rate(
                self.resolved.schedule, phase.learning_rate, passed, phase.epochs, losses, 1 / num_steps
            )

        def note() -> None:
            """Bring the progress up to the step that was just done."""
            before, seen = (min(done * batch_size, self.num_images) for done in (first, steps.done))
            progress.steps_done = steps.done
            progress.loss = (loss_before * before + float(model.get_metrics_result()["loss"]) * (seen - before)) / seen
            progress.seconds = seconds_before + time.monotonic() - started

        def save() -> None:
            note()
            save_backup(self.folder, self.trainer.variables, progress)

        steps = Steps(
            first=first,
            rate=rate,
            save=save,
            interruption=self.interruption,
            average=self.trainer.average,
            advance=self.monitor.advance,
        )
        self.monitor.start(f"epoch {epoch + 1}/{self.training.epochs}", num_steps)
        self.monitor.advance(first)
        try:
            model.fit(batches.skip(first), epochs=1, verbose=0, shuffle=False, callbacks=[steps])
        except InputError as error:
            raise InputError(
                f"epoch {epoch + 1}: {error}: try a smaller optimiser.learning_rate, or training.precision=float32. "
                f"The epochs before it are kept in {self.folder}"
            ) from None
        note()
        if steps.done < num_steps:
            save_backup(self.folder, self.trainer.variables, progress)
            raise KeyboardInterrupt
        row = {
            "epoch": epoch + 1,
            "phase": number + 1,
            "loss/train": progress.loss,
            "learning rate": rate(num_steps - 1),
            "images per second": self.num_images / progress.seconds,
        }
        if waited is not None:
            row["waiting for input"] = float(waited) / (time.monotonic() - started)
        progress.steps_done, progress.loss, progress.seconds = 0, 0.0, 0.0
        return row

    def _score_epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Score the epoch on validation, keep its network if it is the best, and save the state."""
        trainer, progress, folder = self.trainer, self.progress, self.folder
        learned = trainer.network.get_weights()
        trainer.network.set_weights(trainer.get_weights())
        predictions = _predict(
            self.predictor, self.records, TRAIN_VAL, self.fold, self.training.batch_size, self.monitor
        )
        scores = score_predictions(predictions)
        auc, count = mean_auc(scores)
        loss = np.mean(self.trainer.loss(predictions.truth, tf.constant(predictions.logits)))
        row |= {
            "loss/validation": float(loss),
            "auc/mean": auc,
            **{f"auc/{label}": scores["auc"][label] for label in labels.LABELS},
        }
        if self.training.gradcam:
            self._show_gradcam(epoch + 1)
        quality = auc if count else -row["loss/validation"]
        is_best = progress.note_epoch(quality)
        if is_best:
            trainer.saved.set_weights(trainer.get_weights())
            with replacing(folder / MODEL) as draft:
                trainer.saved.save(draft)
                write_past(draft, self.past)
        trainer.network.set_weights(learned)
        progress.history.append(row)
        write_text(folder / HISTORY, pd.DataFrame(progress.history).to_csv(index=False))
        save_backup(folder, trainer.variables, progress)
        self.board.write_epoch(epoch + 1, row)
        self.monitor.epoch(epoch + 1)
        self.monitor.say(
            f"epoch {epoch + 1}/{self.training.epochs}: loss {row['loss/train']:.4f}, "
            f"validation {row['loss/validation']:.4f}, mean validation AUC {format_mean(scores)}"
            f"{' (best so far)' if is_best else ''}, {row['images per second']:.0f} images/s"
        )

    def _show_gradcam(self, epoch: int) -> None:
        batches = build_evaluation_batches(self.records, TRAIN_VAL, fold=self.fold, batch_size=self.training.gradcam)
        images = next(iter(batches))[0].numpy()
        logits, maps = build_gradcam(self.trainer.network, FEATURES)(images)
        self.board.write_gradcam(epoch, images, logits, maps)


def _finish(
    resolved: Experiment,
    records: Path,
    manifest: Manifest,
    folder: Path,
    progress: Progress,
    monitor: Monitor,
    interruption: Interruption,
) -> dict:
    """Score the kept network on both parts, fit the input check, and return the content of metrics.json."""

    def advance(count: int) -> None:
        if interruption.is_wanted:
            raise KeyboardInterrupt
        tell(count)

    tell, monitor = monitor.advance, replace(monitor, advance=advance)
    network = keras.models.load_model(folder / MODEL, compile=False)
    fold, batch_size = resolved.data.fold, resolved.training.batch_size
    predictor = compile_network(network)
    metrics = {
        "run": folder.parent.name,
        "fold": fold,
        "best_epoch": progress.best_epoch,
        "stopped_early": progress.stopped,
        "records": str(records),
        "split_name": manifest.split_name,
        "is_partial": manifest.num_listed > sum(shard.count for shard in manifest.shards),
        "is_synthetic": manifest.is_synthetic,
    }
    for part, split, held_out in (("validation", TRAIN_VAL, fold), ("test", TEST, -1)):
        predictions = _predict(predictor, records, split, held_out, batch_size, monitor)
        predictions = save_predictions(folder / predictions_file(part), predictions)
        if sentence := explain_collapse(predictions.collapsed):
            monitor.say(f"{part}: {sentence}")
        metrics[part] = describe_scores(predictions)
        if part == "validation":
            fitted_on = describe_part(predictions, metrics, part)
            save_operating_points(folder, *fit_operating_points(predictions, fitted_on))
    folds = [other for other in range(manifest.num_folds) if other != fold]
    batches = [build_evaluation_batches(records, TRAIN_VAL, fold=other, batch_size=batch_size) for other in folds]
    held_out = build_evaluation_batches(records, TRAIN_VAL, fold=fold, batch_size=batch_size)
    monitor.start("fitting the input check", sum(map(len, batches)) + len(held_out))
    with replacing(folder / INPUT_CHECK) as draft:
        np.savez(draft, **fit_input_check(network, batches, held_out, advance))
    metrics["peak_memory_mb"] = _read_peak_memory()
    write_json(folder / METRICS, metrics)
    if resolved.training.keep_state:
        kept = find_backup(folder)
        monitor.say(f"the last state is kept in {kept}, {kept.stat().st_size / 1e6:,.0f} MB")
        return metrics
    for path in (folder / BACKUP).glob("*"):
        path.unlink()
    (folder / BACKUP).rmdir()
    return metrics


def _read_peak_memory() -> int | None:
    """Most memory that this process has used, in MB; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    (line,) = [line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def _predict(predictor, records: Path, split: str, fold: int, batch_size: int, monitor: Monitor) -> Predictions:
    batches = build_evaluation_batches(records, split, fold=fold, batch_size=batch_size)
    monitor.start(f"scoring {'test' if split == TEST else 'validation'}", len(batches))
    return predict_batches(predictor, batches, monitor.advance)
