"""The training loop over epochs."""

import time
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras.config import Phase, Schedule
from cxrkeras.data.dataset import TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_gradcam
from cxrkeras.files import replacing, write_text
from cxrkeras.labels import PRESENT
from cxrkeras.models.classifier import FEATURES
from cxrkeras.models.compiled import compile_live
from cxrkeras.models.network_file import write_labels
from cxrkeras.models.past import Past, write_past
from cxrkeras.progress import Progress
from cxrkeras.scoring.predictions import predict_batches
from cxrkeras.scoring.run_files import HISTORY, MODEL, TENSORBOARD
from cxrkeras.scoring.scores import format_mean, mean_auc, score_predictions
from cxrkeras.text import num_of
from cxrkeras.training.backup import Position, load_backup, read_position, save_backup
from cxrkeras.training.board import GRID, Board
from cxrkeras.training.callback import StepCallback
from cxrkeras.training.input_timing import time_waiting
from cxrkeras.training.losses import mean_loss
from cxrkeras.training.resolve import Setup
from cxrkeras.training.sampling import expect_copies, is_weighted, sample_copies, split_passes
from cxrkeras.training.schedules import learning_rate
from cxrkeras.training.signals import Interruption
from cxrkeras.training.training_state import TrainingState

PASSES = 4  # over the data in a balanced epoch, so that the copies of an image are spread apart


@dataclass(frozen=True)
class EpochRate:
    """The learning rate within an epoch, as a function of the steps done."""

    schedule: Schedule
    phase: Phase
    epochs_before: int  # of the phase
    num_steps: int
    losses: list[float]  # validation losses of the epochs before

    def __call__(self, step: int) -> float:
        passed = self.epochs_before + step / self.num_steps
        rate, epochs = self.phase.resolved_learning_rate, self.phase.epochs
        return learning_rate(self.schedule, rate, passed, epochs, self.losses, 1 / self.num_steps)


class EpochMeter:
    """Updates a position with the steps done in an epoch: their number, mean loss and seconds."""

    def __init__(self, position: Position, model: keras.Model, batch_size: int, num_images: int):
        self.position, self.model, self.batch_size, self.num_images = position, model, batch_size, num_images
        self.images_before = self._count_images(position.steps_done)
        self.loss_before, self.seconds_before = position.loss, position.seconds
        self.started = time.monotonic()

    def _count_images(self, steps: int) -> int:
        return min(steps * self.batch_size, self.num_images)

    @property
    def elapsed(self) -> float:
        """Seconds since this process started or resumed the epoch."""
        return time.monotonic() - self.started

    def note(self, done: int) -> None:
        """Update the position after so many steps of the epoch."""
        num_images, loss = self._count_images(done), float(self.model.get_metrics_result()["loss"])
        before, new = self.loss_before * self.images_before, loss * (num_images - self.images_before)
        self.position.steps_done, self.position.loss = done, (before + new) / num_images
        self.position.seconds = self.seconds_before + self.elapsed


class EpochLoop:
    """Trains epoch by epoch, scores each on validation, and saves the best network and the state in a folder."""

    def __init__(
        self,
        setup: Setup,
        state: TrainingState,
        past: Past,
        folder: Path,
        progress: Progress,
        interruption: Interruption,
    ):
        self.setup, self.state, self.past, self.folder = setup, state, past, folder
        self.progress, self.interruption = progress, interruption
        self.experiment, self.training = setup.experiment, setup.experiment.training
        self.num_images = setup.counts.images
        self.expected_copies = None
        if is_weighted(sampling := self.experiment.sampling):
            is_positive = setup.training_values == PRESENT
            self.expected_copies = expect_copies(is_positive, sampling, setup.training_sources)
        self.predict = compile_live(state.network)
        self.has_curves = (folder / TENSORBOARD).is_dir()
        is_synthetic = setup.records.manifest.is_synthetic
        self.board = Board(folder, self.experiment, setup.labels, is_synthetic=is_synthetic)
        self.position = Position()

    def run(self) -> Position:
        """Train to the end and return the position. On an interruption, raises KeyboardInterrupt after saving."""
        self._resume()
        phases = self.experiment.phases
        while self._find_phase() < len(phases):
            if self.position.phase != self.state.phase:
                self.state.start_phase(self.position.phase)
            epoch = self.position.epochs_done
            if epoch == 0 and not self.position.steps_done:
                self._show_inputs()
            row = self._train_epoch(epoch)
            self._score_epoch(epoch, row)
            if self.interruption.is_wanted:
                raise KeyboardInterrupt
        return self.position

    def _find_phase(self) -> int:
        """End the phases that are over; return the number of the current one, counted from 0."""
        phases, patience = self.experiment.phases, self.training.early_stopping
        while self.position.phase < len(phases):
            number, epochs = self.position.phase, phases[self.position.phase].epochs
            if not self.position.is_phase_over(epochs, patience):
                break
            if self.position.end_phase(epochs):
                name = "the training" if len(phases) == 1 else f"phase {number + 1} of {len(phases)}"
                self.progress.say(
                    f"{name} ends early, after epoch {self.position.epochs_done}: no better validation AUC in "
                    f"{num_of(patience, 'epoch')}"
                )
        return self.position.phase

    def _resume(self) -> None:
        """Restore the state of an interrupted training of the same folder, if there is one."""
        position = read_position(self.folder)
        if not (position.epochs_done or position.steps_done):
            return
        steps = f" and {position.steps_done} steps of the next" if position.steps_done else ""
        self.progress.say(f"resuming after epoch {position.epochs_done}{steps} of {self.folder}")
        if position.epochs_done and not zipfile.is_zipfile(self.folder / MODEL):
            raise InputError(
                f"{self.folder / MODEL}, the best epoch so far, is missing or damaged: delete {self.folder} and train "
                "again"
            )
        self.state.start_phase(position.phase)  # the state is that of the phase in which it was saved
        self.position = load_backup(self.folder, self.state.variables)
        if not self.has_curves:  # a shorter run has them in its own folder
            for row in position.history:
                self.board.write_epoch(row["epoch"], row)

    def _build_batches(self, epoch: int) -> tf.data.Dataset:
        copies = None
        if self.expected_copies is not None:
            rng = np.random.default_rng([self.training.seed, epoch, 1])
            copies = split_passes(sample_copies(self.expected_copies, rng), PASSES, rng)
        return self.setup.records.training_batches(
            self.setup.fold,
            self.setup.targets,
            batch_size=self.training.resolved_batch_size,
            seed=self.training.seed,
            epoch=epoch,
            copies=copies,
        )

    def _show_inputs(self) -> None:
        self.state.augmentation.start_epoch(0)
        images = next(iter(self._build_batches(0)))[0][: GRID * GRID]
        self.board.write_inputs(keras.ops.convert_to_numpy(self.state.augmentation(images, training=True)))

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train to the end of an epoch; return the columns of its history that do not need validation."""
        position, model = self.position, self.state.model
        batches = self._build_batches(epoch)
        num_steps, first = len(batches), position.steps_done
        if not first:
            self.state.augmentation.start_epoch(epoch)
        waited = None
        # Several devices split the batches again, and timing is not deterministic.
        if not (self.state.is_distributed or self.training.deterministic):
            batches, waited = time_waiting(batches)
        began = position.phase_began
        losses = [row["loss/validation"] for row in position.history[began:]]
        phase = self.experiment.phases[position.phase]
        rate = EpochRate(self.experiment.schedule, phase, epoch - began, num_steps, losses)
        meter = EpochMeter(position, model, self.training.resolved_batch_size, self.num_images)
        advance = self.progress.start(f"epoch {epoch + 1}/{self.training.epochs}", num_steps)
        advance(first)
        callback = StepCallback(
            first,
            rate=rate,
            save=partial(self._save, meter),
            interruption=self.interruption,
            average=self.state.average,
            advance=advance,
        )
        try:
            model.fit(batches.skip(first), epochs=1, verbose=0, shuffle=False, callbacks=[callback])
        except InputError as error:
            raise InputError(
                f"epoch {epoch + 1}: {error}: try a smaller optimiser.learning_rate, or training.precision=float32. "
                f"The epochs before are kept in {self.folder}"
            ) from None
        if callback.done < num_steps:
            self._save(meter, callback.done)
            raise KeyboardInterrupt
        meter.note(callback.done)
        row = {
            "epoch": epoch + 1,
            "phase": position.phase + 1,
            "loss/train": position.loss,
            "learning rate": rate(num_steps - 1),
            "images per second": self.num_images / position.seconds,
        }
        if waited is not None:
            row["waiting for input"] = float(waited) / meter.elapsed
        position.steps_done, position.loss, position.seconds = 0, 0.0, 0.0
        return row

    def _save(self, meter: EpochMeter, done: int) -> None:
        meter.note(done)
        save_backup(self.folder, self.state.variables, self.position)

    def _score_epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Score the epoch on validation, save its network if it is the best, and save the state."""
        state, position, labels = self.state, self.position, self.setup.labels
        learned = state.network.get_weights()
        state.network.set_weights(state.get_weights())
        batches = self.setup.records.evaluation_batches(
            TRAIN_VAL, fold=self.setup.fold, batch_size=self.training.resolved_batch_size, labels=labels
        )
        advance = self.progress.start("scoring validation", len(batches))
        predictions = predict_batches(self.predict, batches, labels, advance)
        scores = score_predictions(predictions)
        auc, count = mean_auc(scores, labels)
        row |= {
            "loss/validation": mean_loss(state.elements, predictions.truth.astype(np.float32), predictions.logits),
            "auc/mean": auc,
            **{f"auc/{label}": scores["auc"][label] for label in labels},
        }
        if self.training.gradcam:
            self._show_gradcam(epoch + 1)
        is_best = position.note_epoch(auc if count else -row["loss/validation"])
        if is_best:
            self._keep_network()
        state.network.set_weights(learned)
        position.history.append(row)
        write_text(self.folder / HISTORY, pd.DataFrame(position.history).to_csv(index=False))
        save_backup(self.folder, state.variables, position)
        self.board.write_epoch(epoch + 1, row)
        self.progress.end_epoch(epoch + 1)
        self.progress.say(
            f"epoch {epoch + 1}/{self.training.epochs}: loss {row['loss/train']:.4f}, "
            f"validation {row['loss/validation']:.4f}, mean validation AUC {format_mean(scores, labels)}"
            f"{' (best so far)' if is_best else ''}, {row['images per second']:.0f} images/s"
        )

    def _keep_network(self) -> None:
        """Save the current network, with its labels and the patients who trained it."""
        self.state.saved.set_weights(self.state.get_weights())
        with replacing(self.folder / MODEL) as draft:
            self.state.saved.save(draft)
            write_labels(draft, self.setup.labels)
            write_past(draft, self.past)

    def _show_gradcam(self, epoch: int) -> None:
        batches = self.setup.records.evaluation_batches(
            TRAIN_VAL, fold=self.setup.fold, batch_size=self.training.gradcam
        )
        images = next(iter(batches))[0].numpy()
        logits, maps = build_gradcam(self.state.network, FEATURES)(images)
        self.board.write_gradcam(epoch, images, logits, maps)
