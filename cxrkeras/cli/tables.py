"""Tables that commands print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cxrkeras.data.preparation import describe_preparation
from cxrkeras.models.registry import DEFAULT_SIZE, Network
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.scoring.run_files import ADOPTED, SCORED_SETS
from cxrkeras.text import format_spread, num_of

if TYPE_CHECKING:  # commands that need no tables of scores should not wait for pandas
    import pandas as pd

    from cxrkeras.data.dataset import Dataset
    from cxrkeras.data.reader import Reader
    from cxrkeras.data.vocabulary import Terms
    from cxrkeras.models.public_table import PublicNetwork
    from cxrkeras.reports.compare import Comparison
    from cxrkeras.scoring.evaluation import Evaluation
    from cxrkeras.scoring.operating_points import OperatingPoints
    from cxrkeras.scoring.run import Fold, Run
    from cxrkeras.scoring.run_files import LabelScores
    from cxrkeras.scoring.run_list import RunSummary


def print_examination(console: Console, found: dict) -> None:
    """Print what the doctor found."""
    for error in found["errors"]:
        console.print(Text.assemble(("wrong: ", "bold red"), error))
    for note in found["notes"]:
        console.print(f"note: {note}")
    if "images" not in found:
        return
    images, patients, ages = found["images"], found["patients"], found["ages"]
    facts = Table(title=f"{found['folder']}, split {found['split_name']}", title_justify="left", show_header=False)
    facts.add_row("label file", f"{found['label_file']['name']}: {found['label_file']['version']}")
    facts.add_row("images", f"{images['found']:,} found; {images['missing']:,} of {images['listed']:,} listed missing")
    per_patient = patients["images_per_patient"]
    spread = f"median {per_patient['median']:g} images per patient, at most {per_patient['largest']}"
    facts.add_row("patients", f"{patients['count']:,}, {spread}")
    known = "" if ages["median"] is None else "{youngest:g} to {oldest:g}, median {median:g}, ".format(**ages)
    facts.add_row("ages", f"{known}blank {ages['blank']:,}")
    for name in ("sexes", "views", "boxes"):
        facts.add_row(name, ", ".join(f"{value} {count:,}" for value, count in found[name].items()) or "none")
    if found["odd_images"]:
        for kind, ids in found["odd_images"].items():
            if kind == "shared_pictures":
                continue  # an error above
            if kind == "other_sizes":
                counts = ", ".join(f"{size}: {len(those):,}" for size, those in ids.items())
                facts.add_row("other sizes" if found["label_file"]["is_release"] else "sizes", counts or "0")
                continue
            shown = f": {', '.join(map(str, list(ids)[:3]))}{', ...' if len(ids) > 3 else ''}" if ids else ""
            facts.add_row(kind.replace("_", " "), f"{len(ids):,}{shown}")
    console.print(facts)
    _print_prevalence(console, found["splits"])


def _print_prevalence(console: Console, splits: dict) -> None:
    """Print the share of the known images with each label; how many are uncertain or unknown stands next to it."""
    table = Table(title="prevalence", title_justify="left")
    table.add_column("label", overflow="fold")
    for name, split in splits.items():
        table.add_column(
            f"{name}\n{num_of(split['images'], 'image')}\n{num_of(split['patients'], 'patient')}", justify="right"
        )
    for label in next(iter(splits.values()))["prevalence"]:
        cells = []
        for split in splits.values():
            share = split["prevalence"][label]
            left_out = [f"{split[kind][label]:,} {kind}" for kind in ("uncertain", "unknown") if label in split[kind]]
            shown = "none known" if share is None else f"{share:.2%}"
            cells.append(shown + (f" ({', '.join(left_out)})" if left_out else ""))
        table.add_row(label, *cells)
    console.print(table)


def print_side_by_side(console: Console, found: list[dict]) -> None:
    """Print what the doctor found in several folders next to each other: sizes, views, and prevalence by label."""
    readable = [of_folder for of_folder in found if "images" in of_folder]
    table = Table(title="next to each other; a share is of the images whose label is known", title_justify="left")
    table.add_column("", overflow="fold")
    for of_folder in readable:
        table.add_column(of_folder["folder"], justify="right", overflow="fold")
    table.add_row("images", *(f"{of_folder['images']['found']:,}" for of_folder in readable))
    table.add_row("patients", *(f"{of_folder['patients']['count']:,}" for of_folder in readable))
    for name in dict.fromkeys(view for of_folder in readable for view in of_folder["views"]):
        table.add_row(f"view {name}", *(f"{of_folder['views'].get(name, 0):,}" for of_folder in readable))
    for label in dict.fromkeys(label for of_folder in readable for label in of_folder["labels"]):
        cells = []
        for of_folder in readable:
            shares = [(split["prevalence"].get(label), name) for name, split in of_folder["splits"].items()]
            known = [f"{share:.1%} {name}" for share, name in shares if share is not None]
            cells.append(", ".join(known) or ("not known" if label in of_folder["labels"] else "no such label"))
        table.add_row(label, *cells)
    console.print(table)


def print_sources(console: Console, index: pd.DataFrame) -> None:
    """Print how many images of each source are in the test set and in each fold, and which share of the source."""
    table = Table(title="images by source", title_justify="left")
    sides = index["fold"].map(lambda fold: "test" if fold < 0 else f"fold {fold}")
    counts = index.groupby(["source", sides]).size().unstack(fill_value=0)
    for column in ("source", *counts.columns):
        table.add_column(str(column), justify="right" if table.columns else "left", overflow="fold")
    for source, row in counts.iterrows():
        table.add_row(str(source), *(f"{count:,} ({count / row.sum():.1%})" for count in row))
    console.print(table)


def print_datasets(console: Console, readers: Sequence[Reader]) -> None:
    """Print what each data set is and how one gets it."""
    for reader in readers:
        facts = Table(title=f"{reader.kind}: {reader.title}", title_justify="left", show_header=False, box=None)
        facts.add_column(no_wrap=True)
        facts.add_column(overflow="fold")
        for name in ("size", "labels", "licence", "access", "layout", "source"):
            if value := getattr(reader, name):
                facts.add_row(name, value)
        if reader.takes:
            facts.add_row("settings", ", ".join("patients" if name == "namespace" else name for name in reader.takes))
        console.print(facts)
        console.print()


def print_public_networks(console: Console, networks: Mapping[str, PublicNetwork]) -> None:
    """Print what is known of each public network."""
    for name, row in networks.items():
        facts = Table(title=name, title_justify="left", show_header=False, box=None)
        facts.add_column(no_wrap=True)
        facts.add_column(overflow="fold")
        labels = [label for label in row.labels if label]
        untrained = len(row.labels) - len(labels)
        left_out = f"; {num_of(untrained, 'untrained output')} left out" if untrained else ""
        published = "; ".join(f"{score['score']} {score['value']:.3f}" for score in row.published)
        images = f" ({row.published[0]['images']})" if published else ""
        for title, value in {
            "network": f"{row.network}, {row.size} px, "
            + (
                f"grey levels scaled by {row.scaling[0]:.4g} g - {-row.scaling[1]:g}"
                if row.scaling
                else "ImageNet's scaling"
            ),
            "trained on": row.trained_on,
            "split": row.split,
            "labels": f"{len(labels)}: {', '.join(labels)}{left_out}",
            "prepared": describe_preparation(row.preparation),
            "thresholds": row.rule,
            "published": f"{published}{images}",
            "notes": "; ".join(row.notes),
            "licence": row.licence,
            "source": row.address,
            "page": row.page,
            "checksum": row.sha256 or "none is published",
        }.items():
            if value:
                facts.add_row(title, value)
        console.print(facts)
        console.print()


def print_shared_terms(console: Console, terms: Terms, first: str, second: str) -> None:
    """Print the labels that two kinds of data sets share, what each calls them and where that is stated."""
    table = Table(title=f"{first} and {second} in terms of {terms.name}", title_justify="left")
    for column in ("label", first, second):
        table.add_column(column, overflow="fold")
    lacking: dict[str, list[str]] = {first: [], second: []}
    for label in terms.labels:
        names = {
            kind: [name for name, meant in terms.names[kind].items() if label in meant] for kind in (first, second)
        }
        if all(names.values()):
            table.add_row(label, *("\n".join(of_kind) for of_kind in names.values()))
        for kind, of_kind in names.items():
            if not of_kind:
                lacking[kind].append(label)
    console.print(table)
    for kind, labels in lacking.items():
        if labels:
            console.print(f"not in {kind}: {', '.join(labels)}")
        if sources := sorted(set(terms.sources.get(kind, {}).values())):
            console.print(f"the names in {kind} by: {'; '.join(sources)}")


def print_labels(console: Console, dataset: Dataset) -> None:
    """Print the labels that were read, with how many images have each."""
    from cxrkeras.data.dataset import count_values

    nothing = dataset.labels.no_finding
    said = f"{nothing!r} means no finding" if nothing else "none means no finding"
    table = Table(title=f"{num_of(len(dataset.labels), 'label')}, of which {said}", title_justify="left")
    counts = count_values(dataset.table, dataset.labels)
    for column in ("label", *counts.columns):
        table.add_column(column, justify="right" if table.columns else "left")
    for label, row in counts.iterrows():
        table.add_row(str(label), *(f"{count:,}" for count in row))
    console.print(table)


def _count_positives(row: LabelScores) -> str:
    """The positives, and where they differ of how many images the label is known."""
    if row.positives is None:
        return ""
    of_known = f" of {row.known:,}" if row.known is not None and row.known != row.images else ""
    return f"{row.positives:,}{of_known}"


def print_runs(console: Console, runs: Sequence[RunSummary]) -> None:
    """Print one row per run."""
    title = "finished runs, the newest first; mean AUC of the findings over folds; dates in UTC"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("run", "network", "records", "finished", "folds", "valid.", "test", "MB", "origin"):
        table.add_column(column, overflow="fold", no_wrap=column in ("run", "network", "finished", "valid.", "folds"))
    for run in runs:
        scores = ["" if math.isnan(value) else f"{value:.3f}" for value in (run.validation, run.test)]
        records = f"{run.records}{' (synthetic)' if run.is_synthetic else ''}"
        folds = "" if run.kind == ADOPTED else str(run.folds)
        facts = (run.name, run.network, records, run.finished[:10], folds, *scores, f"{run.megabytes:,.0f}")
        table.add_row(*facts, run.problem or f"{run.kind}, from {run.started_from}")
    console.print(table)


def print_run(console: Console, run: Run) -> None:
    """Print what a run is: network, data, training, thresholds, files."""
    from cxrkeras.scoring.run_list import describe_run

    facts = Table(title=f"{run.name}, {run.folds[0].kind}", title_justify="left", show_header=False)
    for name, value in describe_run(run).items():
        facts.add_row(name, value)
    console.print(facts)


def print_scores(console: Console, fold: Fold) -> None:
    """Print the AUC of each label, and their mean, on both sets of a fold."""
    metrics, num_findings = fold.metrics, len(fold.labels.findings)
    kind = "synthetic phantoms" if metrics.is_synthetic else f"split {metrics.split_name}"
    share = ", a subset of its images" if metrics.is_partial else ""
    epoch = f", epoch {metrics.best_epoch}" if metrics.best_epoch else ""  # an ensemble has none
    title = f"AUC of {metrics.run}, fold {metrics.fold}{epoch} ({kind}{share})"
    table = Table(title=title, title_justify="left")
    table.add_column("label", overflow="fold")
    sets = metrics.sets
    for name, scores in sets.items():
        table.add_column(
            f"{name}\n{num_of(scores.images, 'image')}\n{num_of(scores.patients, 'patient')}", justify="right"
        )
        table.add_column("positives", justify="right", vertical="bottom")
    for rows in zip(*(scores.labels for scores in sets.values()), strict=True):
        cells = [rows[0].label]
        for row in rows:
            mark = " (collapsed)" if row.note == COLLAPSED else ""
            cells += [row.note if row.auc is None else f"{row.auc:.3f}{mark}", _count_positives(row)]
        table.add_row(*cells)
    table.add_section()
    means = ["mean of the findings"]
    for scores in sets.values():
        collapsed = len(set(scores.collapsed) & set(fold.labels.findings))
        means += [
            "undefined" if scores.mean_auc is None else f"{scores.mean_auc:.3f}",
            f"{scores.mean_auc_findings} of {num_findings}" + (f", {collapsed} collapsed" if collapsed else ""),
        ]
    table.add_row(*means)
    console.print(table)
    for note in dict.fromkeys(scores.note for scores in sets.values() if scores.note):
        console.print(f"note: {note}")


def print_published(console: Console, fold: Fold) -> None:
    """Print the scores that came with an adopted network, and what they are of."""
    adopted = fold.config.adopted
    if not (adopted and adopted.published):
        console.print("no scores were published with it that are known here: `cxrkeras evaluate` scores it on records")
        return
    for images in dict.fromkeys(row.images for row in adopted.published):
        table = Table(title=f"as published, not computed here; {images}", title_justify="left", box=None)
        for row in adopted.published:
            if row.images == images:
                interval = "" if row.low is None or row.high is None else f" ({row.low:.3f}, {row.high:.3f})"
                table.add_row(row.score, f"{row.value:.3f}{interval}")
        table.show_header = False
        table.add_column()
        console.print(table)


def print_folds(console: Console, summary: pd.DataFrame, run: str) -> None:
    """Print mean and standard deviation over folds of each label's AUC; `summary` is that of `save_summary`."""
    split = summary["split_name"].iloc[0]
    title = f"AUC of {run}, split {split}, mean and standard deviation over folds"
    table = Table(title=title, title_justify="left")
    table.add_column("label", overflow="fold")
    sets = {name: summary[summary["part"] == name].set_index("label") for name in SCORED_SETS}
    for name, rows in sets.items():
        first = rows.iloc[0]
        table.add_column(
            f"{name}\n{num_of(first['images'], 'image')}\n{num_of(first['patients'], 'patient')}", justify="right"
        )
        table.add_column("folds", justify="right")
    for number, label in enumerate(sets[SCORED_SETS[0]].index):
        cells = [label]
        for rows in sets.values():
            row = rows.loc[label]
            mark = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
            cells += [format_spread(row["auc_mean"], row["auc_std"]) + mark, str(int(row["folds"]))]
        table.add_row(*cells, end_section=number == 0)
    console.print(table)


def print_ranking(console: Console, ranked: pd.DataFrame) -> None:
    """Print the runs of a sweep, as `rank_sweep` gives them."""
    of_first = ranked.iloc[0]
    test = f"{of_first['test_images']:,} test images of {num_of(of_first['test_patients'], 'patient')}"
    title = f"mean AUC of the findings over folds, ranked on validation; split {of_first['test_split_name']}, {test}"
    table = Table(title=title, title_justify="left")
    for column in ("experiment", "folds", *SCORED_SETS):
        table.add_column(column, justify="right" if table.columns else "left")
    for row in ranked.itertuples():
        collapsed = f", {row.collapsed} collapsed" if row.collapsed else ""
        spreads = [
            f"{format_spread(getattr(row, f'{name}_auc'), getattr(row, f'{name}_auc_std'))} "
            f"({getattr(row, f'{name}_findings'):.0f} of {row.of_findings}{collapsed})"
            for name in SCORED_SETS
        ]
        table.add_row(row.experiment, f"{row.folds} of {row.of}", *spreads)
    console.print(table)


def print_thresholds(console: Console, points: OperatingPoints) -> None:
    """Print the threshold of each label."""
    calibration, thresholds = points
    origin = thresholds.fitted_on
    table = Table(
        title=f"thresholds by {thresholds.rule} on calibrated probabilities ({calibration.method}), fitted on "
        f"{origin.images:,} {origin.part} images of {num_of(origin.patients, 'patient')}",
        title_justify="left",
    )
    for column in ("label", "threshold", "remarks"):
        table.add_column(column, justify="right" if column == "threshold" else "left")
    for label, value in thresholds.values.items():
        remarks = "; ".join(filter(None, (thresholds.notes[label], calibration.curves[label].note)))
        table.add_row(label, "none" if value is None else f"{value:.3f}", remarks)
    console.print(table)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the mean AUC of runs in the order of their rank."""
    from cxrkeras.scoring.evaluation import MEAN
    from cxrkeras.scoring.run_scores import count_collapsed
    from cxrkeras.scoring.scores import explain_collapse

    runs, num_findings = comparison.runs, len(comparison.labels.findings)
    kind = ", synthetic phantoms" if runs[0].folds[0].metrics.is_synthetic else ""
    table = Table(
        title=f"mean AUC of the findings, split {runs[0].split_name}{kind}, ranked on validation", title_justify="left"
    )
    means = comparison.table.set_index(["label", "part", "run"]).loc[MEAN]
    table.add_column("run")
    table.add_column("networks", justify="right")
    for name in SCORED_SETS:
        first = means.loc[(name, runs[0].name)]
        images, patients = num_of(first["images"], "image"), num_of(first["patients"], "patient")
        heading = f"{name}, {first['findings']:.0f} of {num_findings}\n{images}\n{patients}"
        table.add_column(heading, justify="right")
    for run in runs:
        rows = [means.loc[(name, run.name)] for name in SCORED_SETS]
        spreads = [
            format_spread(row["mean"], row["std"]) + (f" ({row['collapsed']} collapsed)" if row["collapsed"] else "")
            for row in rows
        ]
        table.add_row(run.name, run.size, *spreads)
    console.print(table)
    for run in runs:
        if collapsed := sorted(set().union(*(count_collapsed(run, name) for name in SCORED_SETS))):
            console.print(f"note: {run.name}: {explain_collapse(collapsed)}")
        if not run.folds[0].shares_validation:
            console.print(f"note: {run.name} is an ensemble over folds; its validation AUC is the mean of its members'")


def print_localisation(console: Console, scores: pd.DataFrame) -> None:
    """Print what each method reaches over all findings; `scores` is that of `localise`."""
    first = scores.iloc[0]
    counts = f"{first['images']:,} test images of {num_of(first['patients'], 'patient')}, split {first['split_name']}"
    title = f"heat maps against boxes, all findings together (95 % interval); {counts}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("method", "boxed", "pointing game", "mean IoU", "IoBB \u2265 0.1", "seconds\neach"):
        table.add_column(column, justify="right" if table.columns else "left")
    for _, row in scores.groupby("method", sort=False).first().iterrows():
        cells = [
            f"{row[name]:.2f} ({row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f})"
            for name in ("pointing", "iou", "iobb>=0.1")
        ]
        seconds = "" if math.isnan(row["seconds"]) else f"{row['seconds']:.3f}"
        table.add_row(str(row.name), f"{row['cases']:,}", *cells, seconds)
    console.print(table)


def print_evaluation(console: Console, evaluation: Evaluation, split_name: str) -> None:
    """Print AUC and average precision of each label with their intervals."""
    predictions = evaluation.predictions
    title = f"split {split_name}, {predictions.counts}, 95 % intervals"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("label", "AUC", "average precision", "positives", "remarks"):
        table.add_column(column, justify="left" if column in ("label", "remarks") else "right")
    for label, row in evaluation.scores.iterrows():
        cells = [
            "undefined"
            if math.isnan(row[name])
            else f"{row[name]:.3f}"
            + ("" if math.isnan(row[f"{name}_low"]) else f" ({row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f})")
            for name in ("auc", "average_precision")
        ]
        of_known = f" of {row['known']:,.0f}" if row["known"] < row["images"] else ""
        positives = "" if math.isnan(row["positives"]) else f"{row['positives']:,.0f}{of_known}"
        table.add_row(str(label), *cells, positives, row["note"])
    console.print(table)


def print_networks(console: Console, networks: Mapping[str, Network]) -> None:
    """Print the registry."""
    title = f"networks, for images of {DEFAULT_SIZE} pixels (the default; others work)"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in ("network", "million\nweights", "GFLOPs", "batch", "cells"):
        table.add_column(column, justify="right" if table.columns else "left", no_wrap=True)
    for column in ("ImageNet weights", "licence"):
        table.add_column(column, no_wrap=True)
    for name, row in networks.items():
        figures = (f"{row.parameters / 1e6:.1f}", f"{row.gflops:.2f}", str(row.batch), f"{row.cells} x {row.cells}")
        source = row.imagenet
        table.add_row(name, *figures, *((source.origin, source.licence) if source else ("none", "")))
    console.print(table)
    smallest = max(row.smallest for row in networks.values())
    console.print(
        "GFLOPs: 10^9 multiplications and additions for one image. Batch: the default of training.batch_size.\n"
        "Cells: of the last feature map. A Grad-CAM heat map is no finer; twice the image side gives twice as many.\n"
        f"All take images of {smallest} pixels and more.\n"
        "* A file of PyTorch, read without it."
    )
