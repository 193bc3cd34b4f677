"""External validation of a run: a page, its figures, and the results as files that other tools open."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxrkeras.config import CONFIG
from cxrkeras.files import make_folder, write_json, write_text
from cxrkeras.labels import display_name
from cxrkeras.progress import SILENT, Progress
from cxrkeras.reports import figures, sections
from cxrkeras.reports.figures import format_interval
from cxrkeras.reports.page import Page, Section, Table, save_page
from cxrkeras.scoring.evaluation import MEAN, Evaluation, evaluate, evaluate_groups
from cxrkeras.scoring.external_validation import Choice, Validated, tabulate_drift, validate_run
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.operating_points import save_operating_points
from cxrkeras.scoring.predictions import save_predictions
from cxrkeras.scoring.run import SYNTHETIC
from cxrkeras.scoring.run_files import ADOPTED, METRICS, RECALIBRATION, TEST_SET, VALIDATION
from cxrkeras.scoring.second_truth import tabulate_agreement
from cxrkeras.text import num_of

if TYPE_CHECKING:
    from cxrkeras.records.folder import Records
    from cxrkeras.scoring.run import Fold

PAGE, PREDICTIONS, DRIFT, AGREEMENT = "evaluation.html", "predictions.csv", "drift.csv", "agreement.csv"
MANY_UNLIKE = 0.05  # share of images above which the page warns that the data are unlike the training images


@dataclass(frozen=True)
class Written:
    """An external validation: the page's path, the scores, and sentences that its reader must know."""

    path: Path
    evaluation: Evaluation
    split_name: str
    notes: list[str]


def evaluate_externally(
    fold: Fold,
    records: Records,
    choice: Choice,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Written:
    """Evaluate a run on other records and write `evaluations/<records>-<8 hex digits>/` in the folder of the fold.

    Writes config.json, predictions.csv, drift.csv, groups.csv, evaluation.html with its figures, metrics.json, with
    another truth agreement.csv, and with a recalibration the calibration and thresholds. Nothing else of the run is
    touched. Raises InputError as `validate_run`.
    """
    validated = validate_run(fold, records, choice, progress)
    predictions, folder = validated.predictions, validated.folder
    make_folder(folder)
    save_predictions(folder / PREDICTIONS, predictions)
    evaluation = evaluate(predictions, points=validated.points, replicates=replicates, seed=seed, progress=progress)
    drift = tabulate_drift(fold, validated, seed=seed)
    groups = evaluate_groups(predictions, validated.groups, replicates=replicates, seed=seed, progress=progress)
    source = _describe_source(validated)
    chapters = [
        *([] if fold.kind == ADOPTED else [_build_drift(validated, evaluation, drift, source)]),
        *sections.build_scores(evaluation, validated.points, source=source),
        sections.build_groups(groups, predictions.labels, source=source),
    ]
    if validated.warnings is not None:
        chapters.insert(fold.kind != ADOPTED, _build_unlike(validated, source))
    for name, other in validated.truths.items():
        agreement = tabulate_agreement(
            predictions, other, replicates=replicates, seed=seed, advance=progress.start(f"truth of {name}", 0)
        )
        write_text(folder / AGREEMENT, agreement.to_csv())
        chapters.insert(1, _build_agreement(agreement, name, other.counts))
    chapters.append(Section("Data and software", tables=[Table(["what", "is"], _list_facts(fold, validated))]))
    notes = [*_list_warnings(validated, drift), *validated.notes, *evaluation.notes]
    page = Page(
        f"{fold.name} on {records.name}",
        _write_lede(fold, evaluation, drift, source),
        [f"{note[0].upper()}{note[1:]}." for note in notes],
        chapters,
    )
    save_page(page, folder / PAGE)
    write_text(folder / DRIFT, drift.to_csv())
    write_text(folder / "groups.csv", groups.to_csv(index=False))
    if choice.recalibrate:
        save_operating_points(folder, validated.points)
    write_json(folder / CONFIG, validated.config)
    write_json(folder / METRICS, _describe_metrics(fold, validated, evaluation, notes))
    return Written(folder / PAGE, evaluation, validated.config["split_name"], notes)


def _describe_source(validated: Validated) -> str:
    config = validated.config
    kind = "synthetic phantoms, " if config["is_synthetic"] else ""
    return (
        f"{config['run']} on {config['records']}; {kind}{config['split']} images of split {config['split_name']}: "
        f"{validated.predictions.counts}"
    )


def _list_warnings(validated: Validated, drift: pd.DataFrame) -> list[str]:
    """List what limits the scores."""
    warnings = [SYNTHETIC.rstrip(".")] if validated.config["is_synthetic"] else []
    if validated.warnings is None:
        warnings.append("nothing checks whether these images look like those of its training: it has no such check")
    else:
        unlike = sum(map(bool, validated.warnings.values()))
        if unlike > MANY_UNLIKE * len(validated.warnings):
            warnings.append(
                f"{unlike:,} of {len(validated.warnings):,} images ({unlike / len(validated.warnings):.0%}) look out "
                "of distribution to the network: its scores here say little about images like those of its training"
            )
    ages = validated.groups["age"].dropna()
    if len(ages) and (ages < 18).mean() > 0.5:
        warnings.append(f"most of the patients are children: {(ages < 18).mean():.0%} are under 18")
    if not len(ages):
        warnings.append("no age is given: whether these patients are as old as those it was trained on is not known")
    if shifted := find_biased(drift):
        names = ", ".join(map(display_name, shifted[:12])) + (", ..." if len(shifted) > 12 else "")
        warnings.append(
            f"the mean probability differs from the prevalence by more than chance in {names}: probabilities and "
            "thresholds need a recalibration on data like these"
        )
    return warnings


def _write_lede(fold: Fold, evaluation: Evaluation, drift: pd.DataFrame, source: str) -> list[str]:
    row = evaluation.scores.loc[MEAN]
    mean = format_interval(row["auc"], evaluation.interval(MEAN), 3)
    findings = [label for label in evaluation.predictions.labels.findings if np.isfinite(drift.loc[label, "auc_here"])]
    lede = [f"Mean AUC {mean} over the findings ({row['note']}), on data of others.", f"Source: {source}."]
    own = f"auc_{TEST_SET}"
    defined = [label for label in findings if own in drift.columns and np.isfinite(drift.loc[label, own])]
    if defined:
        test = fold.predictions[TEST_SET].counts
        both = drift.loc[defined, ["auc_here", own]].mean()
        lede.insert(
            1,
            f"Over the {num_of(len(defined), 'finding')} defined on both, {both['auc_here']:.3f} here and "
            f"{both[own]:.3f} on its own test set (split {fold.metrics.split_name}, {test}).",
        )
    return lede


def _build_drift(validated: Validated, evaluation: Evaluation, drift: pd.DataFrame, source: str) -> Section:
    """How scores, prevalence, calibration and decisions differ from what the run promised."""
    labels = sections.order_labels(evaluation)
    own = VALIDATION if f"auc_{VALIDATION}" in drift.columns else TEST_SET
    is_refitted = validated.points.thresholds.fitted_on.part == RECALIBRATION
    points = "fitted on a share of these data" if is_refitted else "of its own, as they are"
    text = (
        f"The run with calibration and thresholds {points}, next to what it promised on its own {own} set. Where the "
        "mean probability leaves the prevalence, its probabilities are too high or too low here; in bold where this is "
        "more than chance. Sensitivity and specificity shift with the calibration, the severity of disease and the "
        "images."
    )
    shown = drift.loc[labels, ["prevalence_here", "mean_probability_here"]].dropna()
    shown.columns = ["prevalence here", "mean probability here"]
    differing = find_biased(drift)
    pictures = sections.build_pages(
        "drift",
        list(shown.index),
        lambda names: figures.plot_prevalence(
            shown.loc[list(names)], source=source, title="Mean probability and prevalence", differing=differing
        ),
        "The mean calibrated probability of each label and the share of images that have it; in bold where they differ "
        "by more than chance.",
    )
    tables = [
        _tabulate_scores(drift.loc[labels], own, len(evaluation.predictions), source),
        _tabulate_decisions(drift.loc[labels], own, source),
    ]
    heading = "What the run promised, and what is here"
    return Section(heading, [text], pictures=pictures if len(shown) else [], tables=tables)


def find_biased(drift: pd.DataFrame) -> list[str]:
    """Find the labels whose mean probability differs from the prevalence by more than chance."""
    if "bias_low" not in drift.columns:
        return []
    return list(drift.index[(drift["bias_low"] > 0) | (drift["bias_high"] < 0)])


def _tabulate_scores(drift: pd.DataFrame, own: str, num_images: int, source: str) -> Table:
    """AUC, prevalence and mean probability of each label, here and on the run's own sets."""
    heads = ["AUC,\nown test", "AUC,\nhere", f"prevalence,\n{own}", "prevalence,\nhere", "mean probability,\nhere"]
    names = [f"auc_{TEST_SET}", "auc_here", f"prevalence_{own}", "prevalence_here", "mean_probability_here"]
    differing, rows, strong = find_biased(drift), [], []
    for label, row in drift.iterrows():
        bias = f"{row['bias']:+.3f}" if np.isfinite(row["bias"]) else ""
        if np.isfinite(row.get("bias_low", np.nan)):
            bias += f" ({row['bias_low']:+.3f} to {row['bias_high']:+.3f})"
        if label in differing:
            strong.append((len(rows), len(heads) + 2))
        of_known = f" of {row['known_here']:,.0f}" if row["known_here"] < num_images else ""
        counts = f"{row['positives_here']:,.0f}{of_known}"
        rows.append([display_name(str(label)), counts, *(_number(row[name]) for name in names), bias])
    columns = ["label", "positives", *heads, "less prevalence\n(95 % interval)"]
    return Table(columns, rows, source, frozenset(strong))


def _tabulate_decisions(drift: pd.DataFrame, own: str, source: str) -> Table:
    """Calibration error, sensitivity and specificity of each label, here and on the run's own set."""
    names = [f"{name}_{place}" for name in ("calibration_error", "sensitivity", "specificity")
             for place in (own, "here")]  # fmt: skip
    rows = [[display_name(str(label)), *(_number(row[name]) for name in names)] for label, row in drift.iterrows()]
    heads = [",\n".join(name.replace("_", " ").rsplit(" ", 1)) for name in names]
    return Table(["label", *heads], rows, source)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "undefined"


def _build_unlike(validated: Validated, source: str) -> Section:
    """How many images look out of distribution, and why."""
    assert validated.warnings is not None
    total = len(validated.warnings)
    reasons = Counter(reason for found in validated.warnings.values() for reason in found)
    rows = [[reason, f"{count:,}", f"{count / total:.1%}"] for reason, count in reasons.most_common()]
    passed = sum(not found for found in validated.warnings.values())
    rows.append(["none: it passed", f"{passed:,}", f"{passed / total:.1%}"])
    text = (
        "The run's out-of-distribution check, which 99 % of its own validation images pass: what it says of the images "
        "here."
    )
    table = Table(["reason", "images", "share"], rows, source)
    return Section("Images unlike those of the training", [text], tables=[table])


def _build_agreement(agreement: pd.DataFrame, name: str, counts: str) -> Section:
    """The labels of the records and another truth side by side, and the AUC against each."""
    rows = []
    for label, row in agreement.iterrows():
        aucs = []
        for kind in ("mined", "other"):
            text = _number(row[f"auc_{kind}"])
            if f"auc_{kind}_low" in agreement.columns and np.isfinite(row[f"auc_{kind}_low"]):
                text += f" ({row[f'auc_{kind}_low']:.3f} to {row[f'auc_{kind}_high']:.3f})"
            aucs.append(text)
        rows.append([display_name(str(label)), f"{row['images']:,.0f}", f"{row['both']:,.0f}",
                     f"{row['mined_only']:,.0f}", f"{row['other_only']:,.0f}", _number(row["kappa"], 2),
                     *aucs])  # fmt: skip
    heads = ["label", "images", "both", "records only", f"{name} only", "kappa", "AUC, records", f"AUC, {name}"]
    text = (
        "Two truths for the same images: how many have a label by both or by one, Cohen's kappa (1 is agreement, 0 is "
        "chance), and the network's AUC against each, over the images whose label both know."
    )
    return Section(f"The labels of the records and of {name}", [text], tables=[Table(heads, rows, counts)])


def _list_facts(fold: Fold, validated: Validated) -> list[tuple[str, str]]:
    config = validated.config
    sources = [f"{source['name']} ({source['kind']}, {source['label_file']}, split {source['split_name']})"
               for source in config["sources"]]  # fmt: skip
    facts = {
        "run": config["run"],
        "trained on": f"members {', '.join(fold.config.members)}" if fold.config.members else fold.trained_on,
        "records": config["records"],
        "made of": "; ".join(sources),
        "records fingerprint": config["records_fingerprint"],
        "split": f"{config['split_name']}, {config['split']} images",
        "views": ", ".join(f"{view} {count:,}" for view, count in config["views"].items()),
        "labels scored": ", ".join(config["labels"]),
        "other truth": config["truth"]["file"] if config["truth"] else "none",
        "synthetic": "yes" if config["is_synthetic"] else "no",
    }
    return [(name, str(value)) for name, value in {**facts, **config["versions"]}.items()]


def _describe_metrics(fold: Fold, validated: Validated, evaluation: Evaluation, notes: list[str]) -> dict:
    scores = evaluation.scores.reset_index()
    rows = scores.astype(object).where(scores.notna(), None).to_dict("records")
    predictions = validated.predictions
    return {
        "run": validated.config["run"],
        "records": validated.config["records"],
        "split": validated.config["split"],
        "split_name": validated.config["split_name"],
        "is_synthetic": validated.config["is_synthetic"],
        "images": len(predictions),
        "patients": predictions.num_patients,
        "labels": rows,
        "notes": notes,
    }
