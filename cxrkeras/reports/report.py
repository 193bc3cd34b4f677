"""The report of one fold: a page, its figures, its scores as CSV, and a model card."""

from pathlib import Path

import pandas as pd

from cxrkeras.config import format_experiment
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.files import write_text
from cxrkeras.labels import display_name
from cxrkeras.models.compiled import load_network
from cxrkeras.progress import SILENT, Progress
from cxrkeras.reports import figures, map_figures, sections
from cxrkeras.reports.card import render_card
from cxrkeras.reports.material import (
    Material,
    count_images,
    gather_material,
    list_data_facts,
    list_network_facts,
    write_lede,
    write_warnings,
)
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.scoring.evaluation import (
    Evaluation,
    compare_prevalence,
    evaluate,
    evaluate_groups,
    find_mistakes,
)
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.operating_points import OperatingPoints
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import (
    MODEL,
    MODEL_CARD,
    REPORT,
    SCORED_SETS,
    TEST_SET,
    TRAINED,
    VALIDATION,
)


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
    lede, warnings = write_lede(fold, main, source), [*write_warnings(fold), *material.notes]
    out = fold.folder / REPORT
    save_page(Page(f"Report of {fold.name}", lede, warnings, chapters), out / f"{REPORT}.html")
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False))
    card = render_card(material, main, source, chapters[0].tables[0], tables.get("groups"))
    write_text(out / MODEL_CARD, card)
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


def _build_training(material: Material, history: pd.DataFrame, best: int) -> Section:
    fold, counts = material.fold, material.config.parts
    source = (
        f"{fold.name}; split {material.metrics.split_name}, fold {material.metrics.fold} held out: training on "
        f"{count_images(counts['training'])}, validation on {count_images(counts['validation'])}"
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
    facts = {**list_network_facts(material.fold), **list_data_facts(material.fold), **material.config.versions}
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
