"""What is known of a fold, for its report and its model card."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrkeras.config import Labels
from cxrkeras.errors import InputError
from cxrkeras.reports.figures import format_interval
from cxrkeras.scoring.evaluation import MEAN, Evaluation
from cxrkeras.scoring.notes import UNVERIFIED
from cxrkeras.scoring.operating_points import OperatingPoints
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import MODEL, SCORED_SETS, TEST_SET, TRAINED, Config, Metrics, SetCounts
from cxrkeras.text import num_of


@dataclass
class Material:
    """What is there of a fold to report on; `notes` are sentences about what is not."""

    fold: Fold
    sets: dict[str, Predictions]
    points: OperatingPoints | None = None
    history: pd.DataFrame | None = None
    demographics: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> Metrics:
        return self.fold.metrics

    @property
    def config(self) -> Config:
        return self.fold.config

    def describe(self, name: str) -> str:
        """Which images of which split: what every figure and table has to say."""
        return self.fold.describe(self.sets[name], name)


def gather_material(fold: Fold) -> Material:
    """Read a finished fold. What is missing is noted; InputError if there are no predictions to be scored."""
    sets, notes = {}, []
    for name in SCORED_SETS:
        try:
            sets[name] = fold.load_predictions(name)
        except InputError as error:
            notes.append(f"Without {name} scores: {error}.")
    if not fold.shares_validation and TEST_SET not in sets:
        raise InputError(
            f"{fold.folder} has no test predictions that can be read, and its validation images, of different "
            f"networks, have no common score: `cxrkeras ensemble {' '.join(fold.config.members or [])}` builds it again"
        )
    if not sets:
        raise InputError(" ".join(notes))
    fold.check(sets)
    material = Material(fold, sets, notes=notes)
    try:
        material.points = fold.operating_points
    except InputError as error:
        notes.append(f"Without thresholds and calibration: {error}.")
    if fold.kind == TRAINED:
        curves = ("loss/train", "loss/validation", "auc/mean", *(f"auc/{label}" for label in fold.labels))
        try:
            material.history = fold.load_history(curves)
        except InputError as error:
            notes.append(f"Without curves of the training: {error}.")
    try:
        material.demographics = fold.records.index.set_index("image_id")[["age", "sex", "view", "source"]]
    except InputError as error:
        notes.append(f"Without scores by sex, age and view, and without pictures of mistakes: {error}.")
    return material


def write_warnings(fold: Fold) -> list[str]:
    """List what limits the scores of a fold, in sentences."""
    warnings = list(fold.warnings)
    if not fold.shares_validation:
        warnings.append(
            "An ensemble over folds: no image was held out by all its members. Its probabilities are the mean of their "
            f"calibrated ones and its thresholds the mean of theirs; {UNVERIFIED}. Such means are less extreme than "
            "the shares observed."
        )
    if fold.config.is_past_known is False:
        warnings.append(
            "It started from weights that do not record which patients trained them: whether some of those are held "
            "out here could not be checked."
        )
    return warnings


def write_lede(fold: Fold, main: Evaluation, source: str) -> list[str]:
    """Write the mean AUC with its interval, and its images."""
    row = main.scores.loc[MEAN]
    mean = format_interval(row["auc"], main.interval(MEAN), 3)
    network = fold.experiment.model.name if fold.kind == TRAINED else "an ensemble"
    return [f"Mean AUC {mean} over the findings ({row['note']}), {network}.", f"Source: {source}."]


def count_images(counts: SetCounts) -> str:
    """Count images and patients of a set, in words."""
    return f"{num_of(counts.images, 'image')} of {num_of(counts.patients, 'patient')}"


def list_network_facts(fold: Fold) -> dict:
    """List network, input, labels and start weights by topic."""
    labels = f"{len(fold.labels)}: {fold.labels.describe()}"
    if fold.kind != TRAINED:
        kind = fold.config.average if fold.shares_validation else "calibrated probabilities"
        return {"ensemble": f"mean {kind} of {', '.join(fold.config.members or [])}", "labels": labels}
    model = fold.experiment.model
    return {
        "network": model.name,
        "input": f"grey, {model.size} x {model.size} pixels",
        "labels": labels,
        "started from": Path(model.weights).name,
        "file": MODEL,
    }


def list_data_facts(fold: Fold) -> dict:
    """List records, split, folds, sources and sets by topic."""
    metrics, config = fold.metrics, fold.config
    facts = {
        "records": Path(metrics.records).name,
        "records fingerprint": config.records_fingerprint,
        "split": metrics.split_name,
        "folds": f"{fold.division.count}, divided by patient with seed {fold.division.seed}",
        "synthetic": "yes" if metrics.is_synthetic else "no",
        "all listed images": "no, a subset" if metrics.is_partial else "yes",
    }
    for source in config.sources:
        settings = "".join(f", {key} {value}" for key, value in source["settings"].items())
        facts[f"source {source['name']}"] = f"{source['kind']}, {source['label_file']}{settings}"
    return facts | {f"{name} set": count_images(counts) for name, counts in config.parts.items()}


def list_training_facts(fold: Fold) -> dict:
    """List the settings of the training by topic; none for an ensemble."""
    if fold.kind != TRAINED:
        return {}
    settings = fold.experiment
    facts = {
        "loss": settings.loss.name,
        "optimiser": f"{settings.optimiser.name}, learning rate {settings.optimiser.learning_rate:g}",
        "schedule": settings.schedule.name,
        "sampling": settings.sampling.name,
        "epochs": f"{settings.training.epochs}, of which epoch {fold.metrics.best_epoch} was kept",
        "batch size": settings.training.batch_size,
        "seed": settings.training.seed,
    }
    return facts | (_describe_uncertain(settings.labels) if _has_uncertain(fold) else {})


def _describe_uncertain(labels: Labels) -> dict[str, str]:
    by_label = [f"{label}: {kind}" for label, kind in labels.uncertain_by_label.items()]
    return {"uncertain labels": ", ".join([labels.uncertain, *by_label])}


def _has_uncertain(fold: Fold) -> bool:
    """Whether some labels of some training images are not known for sure."""
    counts = fold.config.parts.get("training")
    return bool(counts and any(count < counts.images for count in (counts.known or {}).values()))
