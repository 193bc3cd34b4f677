"""The report of one fold: a page, its figures, its scores as CSV, and a model card."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrkeras.config import Labels, format_experiment
from cxrkeras.data.identity import NIH_PATIENTS
from cxrkeras.data.nih_tables import NIH_KIND
from cxrkeras.data.reading import ALL_VIEWS
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.files import write_text
from cxrkeras.labels import display_name
from cxrkeras.models.compiled import load_network
from cxrkeras.progress import SILENT, Progress
from cxrkeras.reports import figures, map_figures, sections
from cxrkeras.reports.figures import format_interval
from cxrkeras.reports.page import Page, Picture, Section, Table, render, save_page
from cxrkeras.scoring.evaluation import (
    MEAN,
    Evaluation,
    compare_prevalence,
    evaluate,
    evaluate_groups,
    find_mistakes,
)
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.notes import UNVERIFIED
from cxrkeras.scoring.operating_points import OperatingPoints
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import (
    MODEL,
    MODEL_CARD,
    REPORT,
    SCORED_SETS,
    TEST_SET,
    TRAINED,
    VALIDATION,
    Config,
    Metrics,
    SetCounts,
)
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


def write_report(
    fold: Fold, *, replicates: int = REPLICATES, seed: int = 0, progress: Progress = SILENT
) -> tuple[Path, list[str]]:
    """Write `report/` in the folder of a fold; returns the page's path and what it is without, in sentences.

    Raises InputError if the fold has no predictions.
    """
    material = gather_material(fold)
    evaluations = {
        name: evaluate(
            predictions,
            points=material.points,
            replicates=replicates,
            seed=seed,
            progress=progress,
            phase=f"intervals of {name}",
        )
        for name, predictions in material.sets.items()
        if name == TEST_SET or fold.shares_validation  # images of different networks have no common score
    }
    shown = TEST_SET if TEST_SET in evaluations else VALIDATION
    main, source = evaluations[shown], material.describe(shown)
    material.notes += main.notes
    validation = evaluations.get(VALIDATION) if shown == TEST_SET else None
    chapters = sections.build_scores(main, material.points, source=source, validation=validation)
    if material.history is not None and fold.metrics.best_epoch is not None:
        chapters.append(_build_training(material, material.history, fold.metrics.best_epoch))
    tables = {"scores": _tabulate_scores(fold, evaluations)}
    if material.demographics is not None and main.predictions.has_patients:
        groups = evaluate_groups(
            main.predictions, material.demographics, replicates=replicates, seed=seed, progress=progress
        )
        tables["groups"] = groups.assign(part=shown, split_name=fold.metrics.split_name)
        chapters.append(sections.build_groups(groups, fold.labels, source=source))
        if by_source := _evaluate_sources(main, material, replicates, seed, progress):
            chapters.append(sections.build_sources(by_source, source=source))
            tables["sources"] = pd.concat(
                [found.scores.reset_index().assign(source=name, part=shown) for name, found in by_source.items()]
            )
    if len(material.sets) == 2:
        chapters.append(_build_prevalence(material, seed))
    if material.demographics is not None and material.points:
        chapters.append(_build_mistakes(material, main, material.points, source, progress))
    chapters.append(_build_experiment(material))
    lede, warnings = _write_lede(fold, main, source), [*_write_warnings(fold), *material.notes]
    out = fold.folder / REPORT
    save_page(Page(f"Report of {fold.name}", lede, warnings, chapters), out / f"{REPORT}.html")
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False))
    write_text(out / MODEL_CARD, _render_card(material, main, source, chapters[0].tables[0]))
    return out / f"{REPORT}.html", material.notes


def _evaluate_sources(
    main: Evaluation, material: Material, replicates: int, seed: int, progress: Progress
) -> dict[str, Evaluation]:
    """Score the images of each source of joined records; empty for records of one source."""
    assert material.demographics is not None
    sources = material.demographics["source"].reindex(main.predictions.image_ids).to_numpy(object)
    names = list(dict.fromkeys(sources))
    if len(names) < 2:
        return {}
    return {
        name: evaluate(
            main.predictions.take(sources == name),
            points=material.points,
            replicates=replicates,
            seed=seed,
            progress=progress,
            phase=f"intervals of {name}",
        )
        for name in names
    }


def _write_warnings(fold: Fold) -> list[str]:
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


def _write_lede(fold: Fold, main: Evaluation, source: str) -> list[str]:
    row = main.scores.loc[MEAN]
    mean = format_interval(row["auc"], main.interval(MEAN), 3)
    network = fold.experiment.model.name if fold.kind == TRAINED else "an ensemble"
    return [f"Mean AUC {mean} over the findings ({row['note']}), {network}.", f"Source: {source}."]


def _tabulate_scores(fold: Fold, evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    tables = []
    for name, evaluation in evaluations.items():
        facts = {
            "run": fold.metrics.run,
            "fold": fold.metrics.fold,
            "part": name,
            "split_name": fold.metrics.split_name,
            "is_synthetic": fold.metrics.is_synthetic,
            "patients": evaluation.predictions.num_patients,
        }
        tables.append(evaluation.scores.reset_index().assign(**facts))
    return pd.concat(tables)


def _count(counts: SetCounts) -> str:
    return f"{num_of(counts.images, 'image')} of {num_of(counts.patients, 'patient')}"


def _build_training(material: Material, history: pd.DataFrame, best: int) -> Section:
    fold, counts = material.fold, material.config.parts
    source = (
        f"{fold.name}; split {material.metrics.split_name}, fold {material.metrics.fold} held out: training on "
        f"{_count(counts['training'])}, validation on {_count(counts['validation'])}"
    )
    losses = figures.plot_losses(history, best, source=source)
    pages = sections.build_pages(
        "auc_epochs",
        list(fold.labels),
        lambda names: figures.plot_auc_epochs(history, names, best, source=source),
        "Validation AUC of each label against the epoch, and the mean of the findings in grey.",
    )
    return Section(
        "Training",
        [f"The network of epoch {best} was kept: that with the best mean AUC on validation."],
        pictures=[Picture("loss", losses, "Loss on training and validation images."), *pages],
    )


def _build_prevalence(material: Material, seed: int) -> Section:
    validation, test = material.sets[VALIDATION], material.sets[TEST_SET]
    section = Section("Prevalence of validation and test")
    if not (validation.has_patients and test.has_patients):
        section.texts.append("Images without a patient: no comparison, which needs patients.")
        return section
    table = compare_prevalence(validation, test, seed=seed)
    differing = list(table.index[table["differs"]])
    source = (
        f"{material.fold.name}; split {material.metrics.split_name}: validation {validation.counts}, test {test.counts}"
    )
    if differing:
        section.warnings.append(
            f"Validation and test differ by more than chance in {', '.join(map(display_name, differing))}. Precision, "
            "NPV, calibration and thresholds carry over from one prevalence to another only in part."
        )
    else:
        section.texts.append(
            "No label's prevalence differs by more than chance (95 % bootstrap interval over patients)."
        )
    caption = "Share of images with each label, of those where it is known" + (
        "; in bold those that differ by more than chance." if differing else "."
    )
    section.pictures += sections.build_pages(
        "prevalence",
        list(table.index),
        lambda names: figures.plot_prevalence(
            table.loc[list(names), list(SCORED_SETS)], source=source, differing=differing
        ),
        caption,
    )
    return section


def _build_mistakes(
    material: Material, main: Evaluation, points: OperatingPoints, source: str, progress: Progress
) -> Section:
    fold = material.fold
    mistakes = find_mistakes(main, points.thresholds)
    section = Section("The most confident mistakes")
    if not len(mistakes):
        section.texts.append("No finding is on the wrong side of its threshold.")
        return section
    section.texts.append(
        "Images whose calibrated probability of a finding lies farthest, in log odds, on the wrong side of its "
        "threshold."
    )
    if not material.metrics.is_synthetic:
        section.texts.append("Labels of public sets are often extracted from reports automatically: some may be wrong.")
    explain = None
    if (fold.folder / MODEL).is_file():
        explain = build_explainer(load_network(fold.folder / MODEL, fold.labels), fold.labels)
    else:
        section.texts.append(f"There is no {MODEL} here: the images are shown without heat maps.")
    try:
        images = fold.records.read_images(mistakes["image_id"])
    except InputError as error:
        section.warnings.append(f"Without pictures: {error}.")
        material.notes.append(f"Without pictures of mistakes: {error}.")
        return section
    advance, pairs = progress.start("heat maps of mistakes", len(mistakes)), []
    for row in mistakes.itertuples():
        maps = explain(images[row.image_id])[1] if explain else {row.label: None}
        pairs.append((images[row.image_id], maps[row.label]))
        advance()
    section.pictures.append(
        Picture(
            "mistakes",
            map_figures.plot_mistakes(mistakes, pairs, source=source),
            "Left the image, right the Grad-CAM of the finding, scaled to its own maximum. A map without evidence "
            "means that no region raised the logit: the threshold, often low for rare findings, was passed by what is "
            "common to all images.",
        )
    )
    return section


def _build_experiment(material: Material) -> Section:
    facts = {**_list_network_facts(material.fold), **_list_data_facts(material.fold), **material.config.versions}
    rows = [(name, str(value)) for name, value in facts.items()]
    section = Section("Experiment, data and software", tables=[Table(["what", "is"], rows)])
    if material.fold.kind == TRAINED:
        pairs, header = [], ""
        for line in format_experiment(material.fold.experiment).split("\n"):
            if line.startswith("["):
                header = line.strip("[]")
            elif line:
                key, _, value = line.partition(" = ")
                pairs.append((f"{header}.{key}", value))
        section.tables.append(Table(["setting", "value"], pairs))
    return section


def _list_network_facts(fold: Fold) -> dict:
    labels = f"{len(fold.labels)}: {fold.labels.describe()}"
    if fold.kind != TRAINED:
        kind = fold.config.average if fold.shares_validation else "calibrated probabilities"
        return {"ensemble": f"mean {kind} of {', '.join(fold.config.members or [])}", "labels": labels}
    model = fold.experiment.model
    return {
        "network": model.name,
        "input": f"grey, {model.size} x {model.size} pixels",
        "labels": labels,
        "started from": model.weights,
        "file": MODEL,
    }


def _list_data_facts(fold: Fold) -> dict:
    metrics, config = fold.metrics, fold.config
    facts = {
        "records": metrics.records,
        "records fingerprint": config.records_fingerprint,
        "split": metrics.split_name,
        "folds": f"{fold.division.count}, divided by patient with seed {fold.division.seed}",
        "synthetic": "yes" if metrics.is_synthetic else "no",
        "all listed images": "no, a subset" if metrics.is_partial else "yes",
    }
    for source in config.sources:
        settings = "".join(f", {key} {value}" for key, value in source["settings"].items())
        facts[f"source {source['name']}"] = f"{source['kind']}, {source['label_file']}{settings}"
    return facts | {f"{name} set": _count(counts) for name, counts in config.parts.items()}


def _list_training_facts(fold: Fold) -> dict:
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


def _render_card(material: Material, main: Evaluation, source: str, table: Table) -> str:
    fold = material.fold
    limits = [
        "Heat maps show what moved the network, not where a disease is.",
        "Validation and test may differ in prevalence, view and severity; see the report.",
    ]
    if any(source["settings"].get("views") == ALL_VIEWS for source in material.config.sources):
        limits.append("It was trained and scored on images of all views, lateral ones among them.")
    if not material.metrics.is_synthetic:
        limits.append("Labels of public sets are often extracted from reports automatically: some may be wrong.")
    kinds = {source["kind"] for source in material.config.sources}
    if NIH_KIND in kinds or (not kinds and material.config.namespace == NIH_PATIENTS):
        limits.append("The labels of ChestX-ray are right in about 90 % of cases.")
    return render(
        "model_card.md",
        run=fold.name,
        lede=" ".join(_write_lede(fold, main, source)),
        warnings=[*_write_warnings(fold), *material.notes],
        network=_list_network_facts(fold),
        data=_list_data_facts(fold),
        training=_list_training_facts(fold),
        source=f"Source: {source}.",
        intervals=sections.INTERVALS,
        table=table,
        thresholds=sections.explain_thresholds(material.points.thresholds) if material.points else "",
        limits=limits,
        versions=material.config.versions,
    )
