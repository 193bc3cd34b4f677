"""Model cards, after Model Cards (Mitchell et al., FAT* 2019) and CLAIM (Tejani et al., Radiology: AI, 2024)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrkeras.data.identity import NIH_PATIENTS
from cxrkeras.data.nih_tables import NIH_KIND
from cxrkeras.data.preparation import describe_preparation
from cxrkeras.data.reading import ALL_VIEWS
from cxrkeras.files import write_text
from cxrkeras.labels import display_name
from cxrkeras.reports import sections
from cxrkeras.reports.material import (
    Material,
    list_data_facts,
    list_network_facts,
    list_training_facts,
    write_lede,
    write_warnings,
)
from cxrkeras.reports.page import Table, render
from cxrkeras.scoring.evaluation import LEAST_PATIENTS, MEAN, Evaluation
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import LOCALISATION, MODEL_CARD, OOD_CHECK, PUBLISHED, Config
from cxrkeras.text import num_of

WORST = 3  # findings that are named as ranked worst


def render_card(material: Material, main: Evaluation, source: str, table: Table, groups: pd.DataFrame | None) -> str:
    """Render the card of a fold that was scored here.

    main, source: the evaluation that is shown and its images in words; table: its scores; groups: those of
    `evaluate_groups`, None if nothing is known of the patients.
    """
    fold = material.fold
    return render(
        "model_card.md",
        run=fold.name,
        lede=" ".join(write_lede(fold, main, source)),
        warnings=[*write_warnings(fold), *material.notes],
        network=list_network_facts(fold),
        data=list_data_facts(fold),
        prevalence=_tabulate_prevalence(material.config),
        training=list_training_facts(fold),
        source=f"Source: {source}.",
        intervals=sections.INTERVALS,
        table=table,
        groups=_tabulate_groups(groups),
        calibration=_describe_calibration(material, main),
        thresholds=sections.explain_thresholds(material.points.thresholds) if material.points else "",
        heat_maps=_describe_heat_maps(fold),
        limits=_list_limits(material, main),
        versions=material.config.versions,
    )


def _list_limits(material: Material, main: Evaluation) -> list[str]:
    """List known failures and limits, in sentences."""
    fold, scores = material.fold, main.scores
    findings = scores.loc[[label for label in fold.labels.findings if np.isfinite(scores.loc[label, "auc"])], "auc"]
    worst = [f"{display_name(str(label))} ({auc:.3f})" for label, auc in findings.nsmallest(WORST).items()]
    limits = [f"It ranks worst, by AUC: {', '.join(worst)}."] * bool(worst)
    if unseen := fold.unseen:
        limits.append(f"It saw no positive example in training of {', '.join(map(display_name, unseen))}.")
    if collapsed := main.predictions.collapsed:
        limits.append(f"It answers nearly the same for all images on {', '.join(map(display_name, collapsed))}.")
    limits.append("Validation and test may differ in prevalence, view and severity; see the report.")
    if any(source["settings"].get("views") == ALL_VIEWS for source in material.config.sources):
        limits.append("It was trained and scored on images of all views, lateral ones among them.")
    if not material.metrics.is_synthetic:
        limits.append("Labels of public sets are often extracted from reports automatically: some may be wrong.")
    kinds = {source["kind"] for source in material.config.sources}
    if NIH_KIND in kinds or (not kinds and material.config.namespace == NIH_PATIENTS):
        limits.append("The labels of ChestX-ray are right in about 90 % of cases.")
    return limits


def _tabulate_prevalence(config: Config) -> list[list[str]]:
    """Tabulate, for each label, the images of the training set that have it, of those where it is known."""
    counts = config.parts.get("training")
    if not (counts and counts.positives and counts.known):
        return []
    rows = []
    for label, positives in counts.positives.items():
        known = counts.known[label]
        share = f"{positives / known:.3f}" if known else "undefined"
        rows.append([display_name(label), f"{positives:,}", f"{known:,}", share])
    return rows


def _tabulate_groups(groups: pd.DataFrame | None) -> list[list[str]]:
    """Tabulate the mean AUC of the findings in each group of patients."""
    rows = []
    means = [] if groups is None else groups[groups["label"] == MEAN].itertuples()
    for row in means:
        if row.attribute != "all":
            is_small = row.patients < LEAST_PATIENTS
            auc = (
                "too few"
                if is_small or not np.isfinite(row.auc)
                else f"{row.auc:.3f} ({row.low:.3f} to {row.high:.3f})"
            )
            rows.append([row.attribute, str(row.group), auc, f"{row.images:,}", f"{row.patients:,}"])
    return rows


def _describe_calibration(material: Material, main: Evaluation) -> str:
    """Say how probabilities were calibrated and how well that holds on the images that are shown."""
    if not material.points:
        return ""
    calibration, labels = material.points.calibration, list(material.fold.labels.findings)
    errors = main.scores.loc[labels, ["error_before", "error_after", "error_least"]].mean()
    return (
        f"{calibration.method} for each label, fitted on {sections.format_origin(calibration.fitted_on)}. Mean "
        f"calibration error of the findings on the images scored here: {errors['error_before']:.3f} before, "
        f"{errors['error_after']:.3f} after; {errors['error_least']:.3f} would be expected of exact probabilities."
    )


def _describe_heat_maps(fold: Fold) -> str:
    """Say what the heat maps were measured to show."""
    path = fold.folder / LOCALISATION / "scores.csv"
    if not path.is_file():
        return "They were not compared with boxes; `cxrkeras localise` does that."
    by_method = pd.read_csv(path).groupby("method", sort=False).first()
    first = by_method.iloc[0]
    shares = [
        f"{name} in {row['pointing']:.2f} ({row['pointing_low']:.2f} to {row['pointing_high']:.2f})"
        for name, row in by_method.iterrows()
    ]
    return (
        f"The maximum of the map lies in the true box, of {num_of(int(first['cases']), 'boxed finding')} in "
        f"{num_of(int(first['images']), 'test image')} of {num_of(int(first['patients']), 'patient')}, split "
        f"{first['split_name']}: {'; '.join(shares)}."
    )


def write_adopted_card(fold: Fold) -> None:
    """Write `model_card.md` in the folder of an adopted public network: what is known of it, and what is not."""
    adopted, (calibration, thresholds) = fold.config.adopted, fold.operating_points
    assert adopted is not None
    is_published = calibration.fitted_on.part == PUBLISHED
    rows = []
    for label in fold.labels:
        value = thresholds.values[label]
        rows.append([label, "none" if value is None else f"{value:.4g}", thresholds.notes[label]])
    text = render(
        "adopted_card.md",
        run=fold.name,
        adopted=adopted,
        preparation=describe_preparation(fold.config.preparation),
        rule=thresholds.rule,
        fitted_on="" if is_published else f"{calibration.method}, on {sections.format_origin(calibration.fitted_on)}",
        rows=rows,
        has_check=(fold.folder / OOD_CHECK).is_file(),
        versions=fold.config.versions,
    )
    write_text(fold.folder / MODEL_CARD, text)
