"""The report of one fold: a page, its figures, its scores as CSV, and a model card."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrkeras import labels
from cxrkeras.config import CONFIG, Experiment, format_experiment
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.files import load_shaped, write_text
from cxrkeras.models.compiled import load_network
from cxrkeras.records.batches import read_images
from cxrkeras.records.manifest import load_index, load_manifest
from cxrkeras.reports import figures, map_figures, sections
from cxrkeras.reports.figures import format_interval, spell
from cxrkeras.reports.history import load_history
from cxrkeras.reports.page import Page, Picture, Section, Table, render, save_page
from cxrkeras.scoring.calibration import Calibration
from cxrkeras.scoring.evaluation import (
    MEAN,
    Evaluation,
    compare_prevalence,
    evaluate,
    evaluate_groups,
    find_mistakes,
)
from cxrkeras.scoring.find_runs import HISTORY, METRICS, MODEL, MODEL_CARD, REPORT, Config, Metrics, predictions_file
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.notes import UNVERIFIED
from cxrkeras.scoring.operating_points import load_operating_points
from cxrkeras.scoring.predictions import Predictions, check_parts, load_predictions
from cxrkeras.scoring.thresholds import Thresholds
from cxrkeras.text import num_of

Progress = Callable[[str, int, int], None]


@dataclass
class Fold:
    """What is there of a fold to report on; `notes` are sentences about what is not."""

    folder: Path
    config: dict
    metrics: dict
    parts: dict[str, Predictions]
    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    history: pd.DataFrame | None = None
    people: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def shares_validation(self) -> bool:
        return self.config.get("shares_validation", True)

    @property
    def records(self) -> Path:
        return Path(self.metrics["records"])

    def describe(self, part: str) -> str:
        """Which images of which split: what every figure and table has to say."""
        predictions = self.parts[part]
        kind = "synthetic phantoms, " if self.metrics["is_synthetic"] else ""
        share = ", with a part of its images" if self.metrics["is_partial"] else ""
        return (
            f"{self.name}; {kind}{part} part of split {self.metrics['split_name']}{share}: "
            f"{num_of(len(predictions.truth), 'image')} of {num_of(predictions.num_patients, 'patient')}"
        )


def load_fold(folder: Path) -> Fold:
    """Read a finished fold. What is missing is noted; InputError if there are no predictions to be scored."""
    metrics = load_shaped(folder / METRICS, Metrics)
    config = load_shaped(folder / CONFIG, Config)
    parts, notes = {}, []
    for part in ("validation", "test"):
        try:
            parts[part] = load_predictions(folder / predictions_file(part))
        except InputError as error:
            notes.append(f"Without {part} scores: {error}.")
    if not config.get("shares_validation", True) and "test" not in parts:
        members = " ".join(config["members"])
        raise InputError(
            f"{folder} has no test predictions that can be read, and its validation images, of different networks, "
            f'have no common score: `make ensemble RUNS="{members}"` builds it again'
        )
    if not parts:
        raise InputError(" ".join(notes))
    check_parts(parts, folder)
    fold = Fold(folder, config, metrics, parts, notes=notes)
    try:
        fold.calibration, fold.thresholds = load_operating_points(folder)
    except InputError as error:
        notes.append(f"Without thresholds and calibration: {error}.")
    fold.history = _load_history(folder, notes)
    fold.people = _load_people(fold, notes)
    return fold


def _load_history(folder: Path, notes: list[str]) -> pd.DataFrame | None:
    if not (folder / MODEL).is_file() and not (folder / HISTORY).is_file():
        return None  # an ensemble was not trained
    curves = ("loss/train", "loss/validation", "auc/mean", *(f"auc/{label}" for label in labels.LABELS))
    try:
        return load_history(folder, curves)
    except InputError as error:
        notes.append(f"Without curves of the training: {error}.")
        return None


def _load_people(fold: Fold, notes: list[str]) -> pd.DataFrame | None:
    try:
        if load_manifest(fold.records).fingerprint != fold.config["records_fingerprint"]:
            raise InputError(f"{fold.records} holds other data than this run was trained on")
        return load_index(fold.records).set_index("image_id")[["age", "sex", "view"]]
    except InputError as error:
        notes.append(f"Without scores by sex, age and view, and without pictures of mistakes: {error}.")
        return None


def write_report(
    folder: Path,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = lambda phase, done, total: None,
) -> tuple[Path, list[str]]:
    """Write `report/` in the folder of a fold; returns the page's path and what it is without, in sentences.

    `progress` is called with a phase, the units done and all. Raises InputError if the fold has no predictions.
    """
    fold = load_fold(folder)
    evaluations = {
        part: evaluate(
            predictions,
            calibration=fold.calibration,
            thresholds=fold.thresholds,
            replicates=replicates,
            seed=seed,
            progress=lambda done, total, part=part: progress(f"intervals of {part}", done, total),
        )
        for part, predictions in fold.parts.items()
        if part == "test" or fold.shares_validation  # images of different networks have no common score
    }
    part = "test" if "test" in evaluations else "validation"
    main, source = evaluations[part], fold.describe(part)
    fold.notes += main.notes
    out = folder / REPORT
    beside = evaluations["validation"] if part == "test" and "validation" in evaluations else None
    chapters = [sections.discrimination(main, source=source, beside=beside)]
    chapters += [sections.roc(main, source=source), sections.precision_recall(main, source=source)]
    if fold.thresholds and fold.calibration:
        chapters.append(sections.decisions(main, fold.thresholds, source=source))
        chapters.append(sections.reliability(main, fold.calibration, source=source))
    if fold.history is not None:
        chapters.append(_training(fold))
    tables = {"scores": _scores_table(fold, evaluations)}
    if fold.people is not None and main.predictions.has_patients:
        groups = evaluate_groups(
            main.predictions,
            fold.people,
            replicates=replicates,
            seed=seed,
            progress=lambda done, total: progress("scores by sex, age and view", done, total),
        )
        tables["groups"] = groups.assign(part=part, split_name=fold.metrics["split_name"])
        chapters.append(sections.groups(groups, source=source))
    if len(fold.parts) == 2:
        chapters.append(_prevalence(fold, seed))
    if fold.people is not None and fold.thresholds:
        chapters.append(_mistakes(fold, main, source, progress))
    chapters.append(_experiment(fold))
    page = Page(f"Report of {fold.name}", _lede(fold, main, source), [*_warnings(fold), *fold.notes], chapters)
    save_page(page, out / f"{REPORT}.html")
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False))
    write_text(out / MODEL_CARD, _render_card(fold, main, source, chapters[0].tables[0]))
    return out / f"{REPORT}.html", fold.notes


def _warnings(fold: Fold) -> list[str]:
    warnings = []
    if fold.metrics["is_synthetic"]:
        warnings.append("Trained and scored on synthetic phantoms. It says nothing about radiographs of patients.")
    if not fold.shares_validation:
        warnings.append(
            "An ensemble over folds: no image was held out by all its members. Its probabilities are the mean of their "
            f"calibrated ones and its thresholds the mean of theirs; {UNVERIFIED}. Such means are less extreme than "
            "the shares observed."
        )
    if fold.config.get("is_past_known") is False:
        warnings.append(
            "It started from weights that do not say which patients trained them: whether some of those are held out "
            "here could not be checked."
        )
    if fold.metrics["is_partial"]:
        warnings.append("Part of the listed images only: not comparable with scores on all of them.")
    return warnings


def _lede(fold: Fold, main: Evaluation, source: str) -> list[str]:
    row = main.scores.loc[MEAN]
    mean = format_interval(row["auc"], main.interval(MEAN), 3)
    network = fold.config["experiment"]["model"]["name"] if "members" not in fold.config else "an ensemble"
    return [
        f"Mean AUC {mean} over the findings ({row['note']}), {network}.",
        f"Source: {source}.",
    ]


def _scores_table(fold: Fold, evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    tables = []
    for part, evaluation in evaluations.items():
        facts = {
            "run": fold.folder.parent.name,
            "fold": fold.metrics["fold"],
            "part": part,
            "split_name": fold.metrics["split_name"],
            "is_synthetic": fold.metrics["is_synthetic"],
            "patients": evaluation.predictions.num_patients,
        }
        tables.append(evaluation.scores.reset_index().assign(**facts))
    return pd.concat(tables)


def _training(fold: Fold) -> Section:
    history, best = fold.history, fold.metrics["best_epoch"]
    counts = fold.config["parts"]["training"]
    source = (
        f"{fold.name}; split {fold.metrics['split_name']}, fold {fold.metrics['fold']} held out: training on "
        f"{num_of(counts['images'], 'image')} of {num_of(counts['patients'], 'patient')}, validation on "
        f"{num_of(fold.config['parts']['validation']['images'], 'image')} of "
        f"{num_of(fold.config['parts']['validation']['patients'], 'patient')}"
    )
    return Section(
        "Training",
        [f"The network of epoch {best} was kept: that with the best mean AUC on validation."],
        pictures=[
            Picture(
                "loss", figures.plot_losses(history, best, source=source), "Loss on training and validation images."
            ),
            Picture(
                "auc_epochs",
                figures.plot_auc_epochs(history, labels.LABELS, best, source=source),
                "Validation AUC of each label against the epoch, and the mean of the findings in grey.",
            ),
        ],
    )


def _prevalence(fold: Fold, seed: int) -> Section:
    validation, test = fold.parts["validation"], fold.parts["test"]
    section = Section("Prevalence of validation and test")
    if not (validation.has_patients and test.has_patients):
        section.texts.append("Images without a patient: no comparison, which needs patients.")
        return section
    table = compare_prevalence(validation, test, seed=seed)
    differing = list(table.index[table["differs"]])
    source = (
        f"{fold.name}; split {fold.metrics['split_name']}: validation {num_of(len(validation.truth), 'image')} of "
        f"{num_of(validation.num_patients, 'patient')}, test {num_of(len(test.truth), 'image')} of "
        f"{num_of(test.num_patients, 'patient')}"
    )
    if differing:
        section.warnings.append(
            f"Validation and test differ by more than chance in {', '.join(map(spell, differing))}. Precision, NPV, "
            "calibration and thresholds carry over from one prevalence to another only in part."
        )
    else:
        section.texts.append(
            "No label's prevalence differs by more than chance (95 % bootstrap interval over patients)."
        )
    figure = figures.plot_prevalence(table[["validation", "test"]], source=source, differing=differing)
    caption = "Share of images with each label" + (
        "; in bold those that differ by more than chance." if differing else "."
    )
    section.pictures.append(Picture("prevalence", figure, caption))
    return section


def _mistakes(fold: Fold, main: Evaluation, source: str, progress: Progress) -> Section:
    mistakes = find_mistakes(main, fold.thresholds)
    section = Section("The most confident mistakes")
    if not len(mistakes):
        section.texts.append("No finding is on the wrong side of its threshold.")
        return section
    section.texts.append(
        "Images whose calibrated probability of a finding lies farthest, in log odds, on the wrong side of its "
        "threshold."
    )
    if not fold.metrics["is_synthetic"]:
        section.texts.append("Labels of the release were read out of reports by a program: some may be its mistakes.")
    explain = None
    if (fold.folder / MODEL).is_file():
        explain = build_explainer(load_network(fold.folder / MODEL))
    else:
        section.texts.append(f"There is no {MODEL} here: the images are shown without heat maps.")
    try:
        images = read_images(fold.records, mistakes["image_id"])
    except InputError as error:
        section.warnings.append(f"Without pictures: {error}.")
        fold.notes.append(f"Without pictures of mistakes: {error}.")
        return section
    pairs = []
    for number, row in enumerate(mistakes.itertuples()):
        maps = explain(images[row.image_id])[1] if explain else {row.label: None}
        pairs.append((images[row.image_id], maps[row.label]))
        progress("heat maps of mistakes", number + 1, len(mistakes))
    figure = map_figures.plot_mistakes(mistakes, pairs, source=source)
    section.pictures.append(
        Picture(
            "mistakes",
            figure,
            "Left the image, right the Grad-CAM of the finding, scaled to its own maximum. A map without evidence "
            "means that no region raised the logit: the threshold, often low for rare findings, was passed by what is "
            "common to all images.",
        )
    )
    return section


def _experiment(fold: Fold) -> Section:
    facts = {**_network_facts(fold), **_data_facts(fold), **fold.config["versions"]}
    rows = [(name, str(value)) for name, value in facts.items()]
    section = Section("Experiment, data and software", tables=[Table(["what", "is"], rows)])
    if "members" not in fold.config:
        lines = format_experiment(Experiment(**fold.config["experiment"])).split("\n")
        pairs, header = [], ""
        for line in lines:
            if line.startswith("["):
                header = line.strip("[]")
            elif line:
                key, _, value = line.partition(" = ")
                pairs.append((f"{header}.{key}", value))
        section.tables.append(Table(["setting", "value"], pairs))
    return section


def _network_facts(fold: Fold) -> dict:
    if "members" in fold.config:
        kind = fold.config["average"] if fold.shares_validation else "calibrated probabilities"
        return {"ensemble": f"mean {kind} of {', '.join(fold.config['members'])}"}
    model = fold.config["experiment"]["model"]
    return {
        "network": model["name"],
        "input": f"grey, {model['size']} x {model['size']} pixels",
        "started from": model["weights"],
        "file": MODEL,
    }


def _data_facts(fold: Fold) -> dict:
    facts = {
        "records": fold.metrics["records"],
        "records fingerprint": fold.config["records_fingerprint"],
        "split": fold.metrics["split_name"],
        "folds": f"{fold.config['folds']['count']}, cut by patient with seed {fold.config['folds']['seed']}",
        "synthetic": "yes" if fold.metrics["is_synthetic"] else "no",
        "all listed images": "no, a part of them" if fold.metrics["is_partial"] else "yes",
    }
    for part, counts in fold.config["parts"].items():
        facts[f"{part} part"] = f"{num_of(counts['images'], 'image')} of {num_of(counts['patients'], 'patient')}"
    return facts


def _render_card(fold: Fold, main: Evaluation, source: str, table: Table) -> str:
    data, training = _data_facts(fold), {}
    if "members" not in fold.config:
        settings = fold.config["experiment"]
        training = {
            "loss": settings["loss"]["name"],
            "optimiser": f"{settings['optimiser']['name']}, learning rate {settings['optimiser']['learning_rate']:g}",
            "schedule": settings["schedule"]["name"],
            "sampling": settings["sampling"]["name"],
            "epochs": f"{settings['training']['epochs']}, of which epoch {fold.metrics['best_epoch']} was kept",
            "batch size": settings["training"]["batch_size"],
            "seed": settings["training"]["seed"],
        }
    limits = [
        "Heat maps show what moved the network, not where a disease is.",
        "Validation and test may differ in prevalence, view and severity; see the report.",
    ]
    if not fold.metrics["is_synthetic"]:
        limits.append(
            "Labels of ChestX-ray14 were read out of reports by a program and are right in about 90 % of cases."
        )
    return render(
        "model_card.md",
        run=fold.name,
        lede=" ".join(_lede(fold, main, source)),
        warnings=[*_warnings(fold), *fold.notes],
        network=_network_facts(fold),
        data=data,
        training=training,
        source=f"Source: {source}.",
        intervals=sections.INTERVALS,
        table=table,
        thresholds=sections.explain_thresholds(fold.thresholds) if fold.thresholds else "",
        limits=limits,
        versions=fold.config["versions"],
    )
