"""Runs next to each other: the table of labels against runs, curves with bands over folds, paired tests."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.nih_tables import OFFICIAL_SPLIT
from cxrkeras.errors import InputError
from cxrkeras.files import write_text
from cxrkeras.labels import LabelSet, display_name
from cxrkeras.progress import SILENT, Progress
from cxrkeras.reports import figures
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.scoring.evaluation import MEAN
from cxrkeras.scoring.evaluations import WrittenEvaluation
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.paired import (
    check_comparable,
    check_folds,
    compare_with_best,
    find_best,
    sample_replicates,
)
from cxrkeras.scoring.run import SYNTHETIC, Run
from cxrkeras.scoring.run_files import COMPARISON, RUNS_ROOT, SCORED_SETS, TEST_SET, TRAINED, VALIDATION
from cxrkeras.scoring.run_scores import count_collapsed, count_images, rank_runs, tabulate_runs
from cxrkeras.scoring.scores import explain_collapse
from cxrkeras.text import format_spread, num_of

PUBLISHED = "published.csv"


@dataclass(frozen=True)
class Comparison:
    """Runs in the order of their rank, their scores and sources, and the page's path."""

    path: Path
    runs: list[Run]
    table: pd.DataFrame  # of `tabulate_runs`
    sources: dict[str, str]
    published: pd.DataFrame | None = None
    best: dict[str, str] | None = None  # by label; None where nothing was tested
    paired: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def labels(self) -> LabelSet:
        return self.runs[0].labels


def load_published(labels: LabelSet) -> pd.DataFrame:
    """AUCs of the eleven columns that this system was made to reproduce, a row per label, as they were published."""
    with files("cxrkeras.reports").joinpath(PUBLISHED).open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#", index_col="label")
    return table.loc[list(labels)] / 100


def write_comparison(
    runs: Sequence[Run],
    root: Path = RUNS_ROOT,
    *,
    evaluations: Sequence[WrittenEvaluation] = (),
    with_published: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare runs and write `<root>/comparison-.../`: comparison.html, .csv, .md, paired.csv.

    `evaluations` on other data stand in a table of their own and not in the ranking.

    Raises InputError for runs on different splits, images, labels or folds.
    """
    if len({run.name for run in runs}) < len(runs):
        raise InputError("a run is named twice")
    for run in runs:
        check_folds(run)
    check_comparable(runs)
    if with_published and runs[0].split_name != OFFICIAL_SPLIT:
        raise InputError(
            f"the published scores are on split {OFFICIAL_SPLIT} and these runs on {runs[0].split_name}: they cannot "
            "stand in one table; leave --with-published out"
        )
    runs = rank_runs(runs)
    drawn = _sample_all(runs, replicates, seed, progress)
    comparison = Comparison(
        _name_page(runs, evaluations, root),
        runs,
        tabulate_runs(runs),
        _describe_sources(runs),
        load_published(runs[0].labels) if with_published else None,
        find_best(runs, drawn) if drawn else None,
        compare_with_best(runs, drawn) if drawn else pd.DataFrame(),
    )
    bands, notes = _average_curves(runs)
    chapters = [_build_table(comparison, set_name) for set_name in SCORED_SETS]
    if evaluations:
        chapters.append(_build_external(evaluations))
    if bands:
        chapters.append(_build_bands(bands, comparison.sources[VALIDATION]))
    if len(comparison.paired):
        chapters.append(_build_paired(comparison))
    source = comparison.sources[TEST_SET]
    title, lede = f"Comparison of {num_of(len(runs), 'run')}", f"{source[0].upper()}{source[1:]}."
    _save(comparison, Page(title, [lede], [*_write_warnings(runs), *notes], chapters))
    return comparison


def compare_evaluations(evaluations: Sequence[WrittenEvaluation], root: Path = RUNS_ROOT) -> Path:
    """Write a page with evaluations on other data next to each other, of runs on any splits; returns its path."""
    path = _name_page([], evaluations, root)
    kinds = [SYNTHETIC] if any(found.metrics.is_synthetic for found in evaluations) else []
    lede = ["Scores on data that the runs were not trained on. The runs themselves may be on different splits."]
    title = f"Comparison of {num_of(len(evaluations), 'evaluation')}"
    section = _build_external(evaluations)
    _save_page(Page(title, lede, kinds, [section]), path)
    table = pd.DataFrame(
        section.tables[0].rows, columns=[name.replace("\n", " ") for name in section.tables[0].columns]
    )
    write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    return path


def _name_page(runs: Sequence[Run], evaluations: Sequence[WrittenEvaluation], root: Path) -> Path:
    compared = sorted(run.name for run in runs) + sorted(found.folder.name for found in evaluations)
    digest = hashlib.sha256(" ".join(compared).encode()).hexdigest()[:8]
    return root / f"{COMPARISON}-{digest}" / f"{COMPARISON}.html"


def _save_page(page: Page, path: Path) -> None:
    save_page(page, path)
    write_text(path.with_suffix(".md"), _to_markdown(page))


def _save(comparison: Comparison, page: Page) -> None:
    path = comparison.path
    _save_page(page, path)
    write_text(path.with_suffix(".csv"), comparison.table.to_csv(index=False))
    if len(comparison.paired):
        write_text(path.with_name("paired.csv"), comparison.paired.to_csv(index=False))


def _sample_all(runs: list[Run], replicates: int, seed: int, progress: Progress) -> dict[str, np.ndarray]:
    """Bootstrap replicates of each run; none of a single run, or where some images have no patient."""
    has_patients = all(fold.predictions[TEST_SET].has_patients for run in runs for fold in run.folds)
    if len(runs) < 2 or not has_patients:
        return {}
    advance, drawn = progress.start("paired tests", len(runs)), {}
    for run in runs:
        drawn[run.name] = sample_replicates(run, replicates, seed)
        advance()
    return drawn


def _describe_sources(runs: list[Run]) -> dict[str, str]:
    first = runs[0].folds[0]
    kind = "synthetic phantoms, " if first.metrics.is_synthetic else ""
    held_out = {name: max(count_images(run, VALIDATION)[name] for run in runs) for name in ("images", "patients")}
    counts = f"{num_of(held_out['images'], 'image')} of {num_of(held_out['patients'], 'patient')}"
    start = f"{kind}split {runs[0].split_name}"
    return {
        VALIDATION: f"{start}, validation: each fold on its own held-out patients, together {counts}",
        TEST_SET: f"{start}, test: {first.predictions[TEST_SET].counts}",
    }


def _write_warnings(runs: list[Run]) -> list[str]:
    warnings = list(runs[0].folds[0].warnings)
    for run in runs:
        collapsed = sorted(count_collapsed(run, VALIDATION) | count_collapsed(run, TEST_SET))
        if sentence := explain_collapse(collapsed):
            warnings.append(f"{run.name}: {sentence}.")
        if not run.folds[0].shares_validation:
            warnings.append(
                f"{run.name} is an ensemble over folds: no image was held out by all its members, so that its "
                "validation AUC is the mean of theirs, and it stands by that mean in the ranking."
            )
    return warnings


def _build_table(comparison: Comparison, set_name: str) -> Section:
    rows, strong = [], set()
    of_set = comparison.table[comparison.table["part"] == set_name].set_index(["label", "run"])
    names = [run.name for run in comparison.runs]
    published = comparison.published if set_name == TEST_SET else None
    for label in (MEAN, *comparison.labels):
        cells = [display_name(label)]
        for number, name in enumerate(names, 1):
            row = of_set.loc[(label, name)]
            mark = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
            cells.append(format_spread(row["mean"], row["std"]) + mark)
            if set_name == TEST_SET and comparison.best and comparison.best.get(label) == name:
                strong.add((len(rows), number))
        if published is not None:
            scores = published.loc[label] if label != MEAN else published.loc[list(comparison.labels.findings)].mean()
            cells += [f"{value:.3f}" for value in scores]
        rows.append(cells)
    columns = ["label", *(f"{run.name}\n{run.size}" for run in comparison.runs)]
    columns += [f"published:\n{name}" for name in (published.columns if published is not None else ())]
    texts = _explain_table(comparison, set_name, int(of_set["findings"].max()))
    table = Table(columns, rows, comparison.sources[set_name], frozenset(strong))
    return Section(f"AUC on {set_name}", texts, tables=[table])


def _build_external(evaluations: Sequence[WrittenEvaluation]) -> Section:
    """The AUCs on data of others, each next to the AUC of the same fold on its own test set."""
    labels = list(dict.fromkeys(label for found in evaluations for label in found.fold.labels))
    columns, rows, sources = ["label"], [[display_name(label)] for label in (MEAN, *labels)], []
    for found in evaluations:
        metrics, own = found.metrics, dict(zip(found.fold.labels, found.fold.aucs[TEST_SET], strict=True))
        columns += [f"{found.fold.name}\nown test", f"{found.fold.name}\non {metrics.records}"]
        shared = [label for label in found.fold.labels.findings
                  if np.isfinite([own[label], found.score(label)[0]]).all()]  # fmt: skip
        inside = {MEAN: float(np.mean([own[label] for label in shared])) if shared else np.nan, **own}
        for cells, label in zip(rows, (MEAN, *labels), strict=True):
            value, low, high = found.score(label)
            interval = f" ({low:.3f} to {high:.3f})" if np.isfinite(low) else ""
            cells.append(f"{inside[label]:.3f}" if np.isfinite(inside.get(label, np.nan)) else "")
            cells.append(f"{value:.3f}{interval}" if np.isfinite(value) else "")
        sources.append(
            f"{found.name}: {'synthetic phantoms, ' if metrics.is_synthetic else ''}{metrics.split} images of split "
            f"{metrics.split_name}, {num_of(metrics.images, 'image')} of {num_of(metrics.patients, 'patient')}"
        )
    text = (
        "AUC with its 95 % interval on data that a run was not trained on, next to its own test set, whose mean is "
        "over the findings defined on both. Nothing is ranked or chosen by these: other data have other patients, "
        "labels and images."
    )
    return Section("External validation", [text], tables=[Table(columns, rows, "; ".join(sources))])


def _explain_table(comparison: Comparison, set_name: str, num_findings: int) -> list[str]:
    texts = [
        f"AUC, mean and standard deviation over folds; the mean of findings is over the {num_findings} of "
        f"{len(comparison.labels.findings)} that are defined in every fold of every run."
    ]
    if set_name == VALIDATION:
        return [*texts, "Runs stand in the order of their mean on validation, from left to right."]
    texts.append("Runs keep the order of validation: test is shown, and nothing is chosen by it.")
    if comparison.best is not None:
        texts.append(
            "A value is in bold where it is better than every other value in its row by more than chance: the 95 % "
            "bootstrap interval of each paired difference leaves out zero."
        )
    elif len(comparison.runs) > 1:
        texts.append("Some images have no patient, so that no difference is tested and no value is in bold.")
    if comparison.published is not None:
        texts.append(
            "Columns marked as published were reported by the system that cxrkeras reimplements: another run on the "
            "same split by other code, mean over five folds, without standard deviations."
        )
    return texts


def _average_curves(runs: list[Run]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Mean and standard deviation of the validation AUC by epoch, of each run with curves; and why others have none."""
    bands, notes = {}, []
    for run in runs:
        if run.folds[0].kind != TRAINED:
            continue
        try:
            histories = [fold.load_history(("auc/mean",)) for fold in run.folds]
        except InputError as error:
            notes.append(f"{run.name} is without its curve: {error}.")
            continue
        grouped = pd.concat(histories).groupby("epoch")["auc/mean"]
        bands[run.name] = grouped.agg(["mean", "std"]).reset_index()
    return bands, notes


def _build_bands(bands: dict[str, pd.DataFrame], source: str) -> Section:
    caption = "One line per run; the band is one standard deviation over its folds."
    picture = Picture("auc_epochs", figures.plot_bands(bands, source=source), caption)
    return Section("AUC by epoch", pictures=[picture])


def _build_paired(comparison: Comparison) -> Section:
    paired = comparison.paired
    rows = [
        [
            row.run,
            f"{row.difference:+.4f}",
            f"{row.low:+.4f} to {row.high:+.4f}",
            f"{row.p_value:.3f}",
            f"{row.p_value_adjusted:.3f}",
        ]
        for row in paired[paired["label"] == MEAN].itertuples()
    ]
    columns = ["run", "difference in mean AUC", "95 % interval", "p-value", f"adjusted for {len(rows)}"]
    texts = [
        f"The difference of each run from {comparison.runs[0].name}, the best on validation, on the same test "
        f"images: the mean AUC of the findings, averaged over the folds of each run. {REPLICATES:,} bootstrap "
        "replicates over patients, the same patients for both; p-values are two-sided, and adjusted for the number of "
        "runs by Holm's method. Every label is in paired.csv.",
        "The interval is about other patients, not about another training, of which the standard deviation over folds "
        "gives an idea.",
    ]
    return Section("Paired differences", texts, tables=[Table(columns, rows, comparison.sources[TEST_SET])])


def _to_markdown(page: Page) -> str:
    """The texts and the tables of a page; figures lie next to it as PNGs."""
    parts = [f"# {page.title}", *page.lede, *(f"> {text}" for text in page.warnings)]
    for section in page.sections:
        parts += [f"## {section.heading}", *section.texts]
        parts += [f"![{picture.caption}]({picture.name}.png)" for picture in section.pictures]
        for table in section.tables:
            lines = [[column.replace("\n", " ") for column in table.columns], ["---"] * len(table.columns)]
            for i, row in enumerate(table.rows):
                lines.append([f"**{cell}**" if (i, j) in table.strong else cell for j, cell in enumerate(row)])
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
            parts.append(table.caption)
    return "\n\n".join(parts) + "\n"
