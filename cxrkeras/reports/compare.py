"""Runs side by side: the table of labels against runs, curves with bands over folds, paired tests."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.config import CONFIG
from cxrkeras.data.nih_tables import OFFICIAL_SPLIT
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_text
from cxrkeras.reports import figures
from cxrkeras.reports.figures import spell
from cxrkeras.reports.history import load_history
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.scoring.evaluation import MEAN
from cxrkeras.scoring.find_runs import COMPARISON, METRICS, Config, Metrics
from cxrkeras.scoring.intervals import (
    REPLICATES,
    Interval,
    adjust_p_values,
    average_replicates,
    bootstrap_scores,
    find_interval,
    find_p_value,
)
from cxrkeras.scoring.predictions import Predictions, load_parts
from cxrkeras.scoring.scores import explain_collapse, score_predictions
from cxrkeras.text import num_of

PUBLISHED = "published.csv"


@dataclass
class Run:
    """The finished folds of one run, all on the same split; scores are AUCs, float64 (folds, labels)."""

    name: str
    folders: list[Path]
    metrics: list[dict]
    config: dict
    scores: dict[str, np.ndarray]
    validation: list[Predictions]
    test: list[Predictions]

    @property
    def is_over_folds(self) -> bool:
        """Whether it is an ensemble of which no validation image was held out by all members."""
        return not self.config.get("shares_validation", True)

    @property
    def collapsed(self) -> list[str]:
        """Labels for which one of its networks has collapsed, on validation or test."""
        return sorted(self.count_collapsed("validation") + self.count_collapsed("test"))

    def count_collapsed(self, part: str) -> Counter[str]:
        """In how many folds the network has collapsed, by label; of an ensemble over folds, whether a member has."""
        if part == "validation" and self.is_over_folds:
            found = (one["validation"].get("collapsed", ()) for one in self.metrics)
        else:
            found = (predictions.collapsed for predictions in getattr(self, part))
        return Counter(itertools.chain(*found))

    @property
    def size(self) -> str:
        """How many networks it is of: `5 folds`, or `ensemble of 5`."""
        if members := self.config.get("members"):
            return f"ensemble of {len(members)}"
        return f"{len(self.folders)} fold{'s' * (len(self.folders) > 1)}"

    @property
    def split(self) -> str:
        return self.metrics[0]["split_name"]


def load_run(folder: Path) -> Run:
    """Read the finished folds in a run folder, or the one fold that a folder is. Raises InputError, naming the file."""
    folders = [folder] if (folder / METRICS).is_file() else sorted(p.parent for p in folder.glob(f"fold*/{METRICS}"))
    metrics = [load_shaped(one / METRICS, Metrics) for one in folders]
    configs = [load_shaped(one / CONFIG, Config) for one in folders]
    both = [load_parts(one) for one in folders]
    parts = {part: [one[part] for one in both] for part in ("validation", "test")}
    scores = {
        part: np.stack([score_predictions(one)["auc"].to_numpy(float) for one in predictions])
        for part, predictions in parts.items()
    }
    for number, (config, own) in enumerate(zip(configs, metrics, strict=True)):
        if not config.get("shares_validation", True):  # of different networks' images, which have no common score
            rows = {row["label"]: row["auc"] for row in own["validation"]["labels"]}
            scores["validation"][number] = np.array([rows[label] for label in labels.LABELS], float)
    splits = {one["split_name"] for one in metrics}
    name = folder.name if len(folders) > 1 or folder not in folders else f"{folder.parent.name}/{folder.name}"
    if len(splits) > 1:
        raise InputError(
            f"the folds of {name} are on two splits, {' and '.join(sorted(splits))}: no mean goes over both"
        )
    for one, predictions, config in zip(folders, parts["test"], configs, strict=True):
        if config["records_fingerprint"] != configs[0]["records_fingerprint"] or config["folds"] != configs[0]["folds"]:
            raise InputError(
                f"{one} and {folders[0]} were trained on other data or other folds: no mean goes over both"
            )
        try:
            predictions.align(parts["test"][0])
        except InputError as error:
            raise InputError(
                f"{one} and {folders[0]} were scored on different test parts, {error}: delete the metrics.json of the "
                "wrong one, and `make train` scores it anew"
            ) from None
    return Run(name, folders, metrics, configs[0], scores, parts["validation"], parts["test"])


def check_comparable(runs: list[Run]) -> None:
    """Refuse runs whose scores are not of the same images. Raises InputError that says why."""
    first = runs[0]
    for other in runs[1:]:
        if other.split != first.split:
            raise InputError(
                f"{first.name} is on split {first.split} and {other.name} on {other.split}: the same network scores "
                "differently on other patients, so that their figures cannot stand in one table"
            )
        try:
            first.test[0].align(other.test[0])
        except InputError as error:
            raise InputError(
                f"{first.name} and {other.name} were scored on different test parts of split {first.split}, {error}: "
                "make both on the same records"
            ) from None
        if other.config["folds"] != first.config["folds"]:
            raise InputError(
                f"{first.name} and {other.name} were cut into other folds ({first.config['folds']} and "
                f"{other.config['folds']}): their validation patients differ, and ranking needs the same"
            )
        held_out = [{image for one in run.validation for image in one.image_ids} for run in (first, other)]
        if held_out[0] != held_out[1]:
            folds = [", ".join(str(one["fold"]) for one in run.metrics) for run in (first, other)]
            raise InputError(
                f"{first.name} was validated on {num_of(len(held_out[0]), 'image')} (fold {folds[0]}) and "
                f"{other.name} on "
                f"{len(held_out[1]):,} others (fold {folds[1]}): ranking needs the same; name the folds that both "
                f"have, as {first.name.partition('/')[0]}/fold0, or train the missing ones with `make cv`"
            )


def average_findings(runs: list[Run], part: str) -> tuple[list[np.ndarray], int]:
    """Mean AUC of each fold of each run, over the findings that are defined in all of them; and how many these are."""
    columns = [labels.LABELS.index(name) for name in labels.FINDINGS]
    together = np.concatenate([run.scores[part][:, columns] for run in runs])
    common = np.isfinite(together).all(axis=0)
    means = [run.scores[part][:, columns][:, common].mean(axis=1) if common.any() else np.full(len(run.folders), np.nan)
             for run in runs]  # fmt: skip
    return means, int(common.sum())


def rank_runs(runs: list[Run]) -> list[Run]:
    """The best mean validation AUC first, whatever test says."""
    means, _ = average_findings(runs, "validation")
    order = sorted(range(len(runs)), key=lambda k: (np.isnan(means[k].mean()), -means[k].mean()))
    return [runs[k] for k in order]


def tabulate(runs: list[Run]) -> pd.DataFrame:
    """A row for each run, part and label, the mean of findings first: mean, std (of a sample), folds, findings.

    `collapsed` counts the AUCs that are 0.5 as a network has collapsed there.
    """
    rows = []
    for part in ("validation", "test"):
        means, count = average_findings(runs, part)
        for run, mean in zip(runs, means, strict=True):
            facts = {"run": run.name, "part": part, "split_name": run.split}
            counted = run.metrics if part == "validation" else run.metrics[:1]
            facts |= {name: sum(one[part][name] for one in counted) for name in ("images", "patients")}
            collapsed = run.count_collapsed(part)
            of_findings = sum(collapsed[label] for label in labels.FINDINGS)
            rows.append(facts | {"label": MEAN, **_spread(mean), "findings": count, "collapsed": of_findings})
            for k, label in enumerate(labels.LABELS):
                rows.append(facts | {"label": label, **_spread(run.scores[part][:, k]), "collapsed": collapsed[label]})
    return pd.DataFrame(rows)


def _spread(values: np.ndarray) -> dict:
    values = values[np.isfinite(values)]
    return {
        "mean": values.mean() if len(values) else np.nan,
        "std": values.std(ddof=1) if len(values) > 1 else np.nan,
        "folds": len(values),
    }


def compare_paired(
    best: Run,
    other: Run,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Differences in AUC on the test images, `other` less `best`, each the mean over its folds.

    A row a label, the mean of findings first: difference, low, high (95 % bootstrap interval), p_value. The same
    patients are drawn for both.
    """
    drawn = [draw_replicates(run, replicates, seed) for run in (best, other)]
    progress(2, 2)
    return tabulate_differences(best, other, *drawn)


def draw_replicates(run: Run, replicates: int, seed: int) -> np.ndarray:
    """AUC on bootstrap replicates of the test images, (R, L), the mean over the folds of a run; paired between runs."""
    replicas = []
    for predictions in run.test:
        part = predictions.flatten()
        part = part.take(np.argsort(part.image_ids))
        replicas.append(
            bootstrap_scores(part.truth, part.logits, part.patient_ids, replicates=replicates, seed=seed).auc
        )
    return np.mean(replicas, axis=0)


def tabulate_differences(best: Run, other: Run, of_best: np.ndarray, of_other: np.ndarray) -> pd.DataFrame:
    """What `compare_paired` returns, from the replicates of both."""
    differences = of_other - of_best
    point = other.scores["test"].mean(axis=0) - best.scores["test"].mean(axis=0)
    columns = [labels.LABELS.index(name) for name in labels.FINDINGS]
    defined = np.isfinite(point[columns])
    mean = average_replicates(differences[:, columns], point[columns])
    entries = [(MEAN, point[columns][defined].mean() if defined.any() else np.nan, mean)]
    entries += [(label, point[k], differences[:, k]) for k, label in enumerate(labels.LABELS)]
    rows = []
    for label, value, replicas in entries:
        interval = find_interval(replicas) if np.isfinite(value) else Interval(np.nan, np.nan, 0)
        p_value = find_p_value(replicas) if np.isfinite(value) else np.nan
        rows.append(
            {"label": label, "difference": value, "low": interval.low, "high": interval.high, "p_value": p_value}
        )
    first = best.test[0]
    facts = {"split_name": best.split, "images": len(first.truth), "patients": first.num_patients}
    return pd.DataFrame(rows).assign(run=other.name, compared_with=best.name, **facts)


def find_best(runs: list[Run], drawn: dict[str, np.ndarray]) -> dict[str, str]:
    """By label, and for the mean of the findings, the run that is better on test than every other by more than chance.

    The 95 % interval of each paired difference leaves out zero. Labels without such a run are left out.
    """
    columns = [labels.LABELS.index(name) for name in labels.FINDINGS]
    points = {run.name: run.scores["test"].mean(axis=0) for run in runs}
    defined = np.isfinite(list(points.values())).all(axis=0)
    found = {}
    for label, places in [(MEAN, [k for k in columns if defined[k]]), *((n, [k]) for k, n in enumerate(labels.LABELS))]:
        if not places or not defined[places].all():
            continue
        best = max(points, key=lambda name: points[name][places].mean())
        differences = (
            average_replicates(
                drawn[best][:, places] - drawn[other][:, places], points[best][places] - points[other][places]
            )
            for other in points
            if other != best
        )
        if all(find_interval(replicas).low > 0 for replicas in differences):
            found[label] = best
    return found


def load_published() -> pd.DataFrame:
    """AUCs of the eleven columns that this system was made to reproduce, a row a label, as they were published."""
    with files("cxrkeras.reports").joinpath(PUBLISHED).open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#", index_col="label")
    return table.loc[list(labels.LABELS)] / 100


def write_comparison(
    folders: list[Path],
    root: Path,
    *,
    with_published: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> tuple[Path, list[Run]]:
    """Compare runs and write `<root>/comparison-.../`: comparison.html, .csv, .md, paired.csv; the page and the runs.

    Raises InputError for runs on different splits, images or folds.
    """
    runs = [load_run(folder) for folder in folders]
    if len({run.name for run in runs}) < len(runs):
        raise InputError("a run is named twice")
    check_comparable(runs)
    if with_published and runs[0].split != OFFICIAL_SPLIT:
        raise InputError(
            f"the published scores are on split {OFFICIAL_SPLIT} and these runs on {runs[0].split}: they cannot "
            f"stand in "
            "one table; leave --with-published out"
        )
    runs = rank_runs(runs)
    table = tabulate(runs)
    first = runs[0].test[0]
    kind = "synthetic phantoms, " if runs[0].metrics[0]["is_synthetic"] else ""
    held_out = [
        max(sum(one["validation"][name] for one in run.metrics) for run in runs) for name in ("images", "patients")
    ]
    source = {
        "validation": f"{kind}split {runs[0].split}, validation: each fold on its own held-out patients, together "
        f"{num_of(held_out[0], 'image')} of {num_of(held_out[1], 'patient')}",
        "test": f"{kind}split {runs[0].split}, test: {num_of(len(first.truth), 'image')} of "
        f"{num_of(first.num_patients, 'patient')}",
    }
    published = load_published() if with_published else None
    drawn = {}
    if len(runs) > 1 and all(one.has_patients for run in runs for one in run.test):
        for number, run in enumerate(runs):
            drawn[run.name] = draw_replicates(run, replicates, seed)
            progress("paired tests", number + 1, len(runs))
    best = find_best(runs, drawn) if drawn else None
    chapters = [_table_section(runs, table, part, source, published, best) for part in ("validation", "test")]
    bands, notes = _bands(runs)
    if bands:
        caption = "One line a run; the band is one standard deviation over its folds."
        picture = Picture("auc_epochs", figures.plot_bands(bands, source=source["validation"]), caption)
        chapters.append(Section("AUC by epoch", pictures=[picture]))
    paired = pd.DataFrame()
    if drawn:
        parts = [tabulate_differences(runs[0], other, drawn[runs[0].name], drawn[other.name]) for other in runs[1:]]
        paired = pd.concat(parts, ignore_index=True)
        for label in paired["label"].unique():
            rows = paired["label"] == label
            paired.loc[rows, "p_value_adjusted"] = adjust_p_values(paired.loc[rows, "p_value"].to_numpy())
        chapters.append(_paired_section(runs, paired, source["test"]))
    digits = _digest([run.name for run in runs])
    out = root / f"{COMPARISON}-{digits}"
    warnings = []
    if runs[0].metrics[0]["is_synthetic"]:
        warnings.append("Trained and scored on synthetic phantoms. It says nothing about radiographs of patients.")
    if runs[0].metrics[0]["is_partial"]:
        warnings.append("Part of the listed images only: not comparable with scores on the whole release.")
    for run in runs:
        if sentence := explain_collapse(run.collapsed):
            warnings.append(f"{run.name}: {sentence}.")
        if run.is_over_folds:
            warnings.append(
                f"{run.name} is an ensemble over folds: no image was held out by all its members, so that its "
                "validation AUC is the mean of theirs, and it stands by that mean in the ranking."
            )
    page = Page(
        f"Comparison of {len(runs)} runs",
        [f"{source['test'][0].upper()}{source['test'][1:]}."],
        [*warnings, *notes],
        chapters,
    )
    save_page(page, out / f"{COMPARISON}.html")
    write_text(out / f"{COMPARISON}.csv", table.to_csv(index=False))
    write_text(out / f"{COMPARISON}.md", _to_markdown(page))
    if len(paired):
        write_text(out / "paired.csv", paired.to_csv(index=False))
    return out / f"{COMPARISON}.html", runs


def _table_section(
    runs: list[Run],
    table: pd.DataFrame,
    part: str,
    source: dict[str, str],
    published: pd.DataFrame | None,
    best: dict[str, str] | None,
) -> Section:
    rows, strong = [], set()
    of_part = table[table["part"] == part]
    names = [run.name for run in runs]
    shown = published if part == "test" and published is not None else None
    for label in (MEAN, *labels.LABELS):
        by_run = of_part[of_part["label"] == label].set_index("run").loc[names]
        cells = [spell(label)]
        for number, (_, row) in enumerate(by_run.iterrows()):
            mark = f" ({row['collapsed']} collapsed)" if row["collapsed"] else ""
            cells.append("undefined" if np.isnan(row["mean"]) else _format_spread(row["mean"], row["std"]) + mark)
            if part == "test" and best and best.get(label) == names[number]:
                strong.add((len(rows), number + 1))
        if shown is not None:
            column = shown.loc[label] if label != MEAN else shown.loc[list(labels.FINDINGS)].mean()
            cells += [f"{value:.3f}" for value in column]
        rows.append(cells)
    count = int(of_part["findings"].max())
    columns = ["label", *(f"{run.name}\n{run.size}" for run in runs)]
    texts = [
        f"AUC, mean and standard deviation over folds; the mean of findings is over the {count} of "
        f"{len(labels.FINDINGS)} "
        "that are defined in every fold of every run."
    ]
    if part == "validation":
        texts.append("Runs stand in the order of their mean on validation, from left to right.")
    else:
        texts.append("Runs keep the order of validation: test is shown, and nothing is chosen by it.")
        if best is not None:
            texts.append(
                "A value is in bold where it is better than each other one of its row by more than chance: the 95 % "
                "bootstrap interval of each paired difference leaves out zero."
            )
        elif len(runs) > 1:
            texts.append("Some images have no patient, so that no difference is tested and no value is in bold.")
    if shown is not None:
        columns += [f"published:\n{name}" for name in shown.columns]
        texts.append(
            "Columns marked as published were reported by the system that cxrkeras reimplements: another run of "
            "the same "
            "split by other code, mean over five folds, without deviations."
        )
    return Section(f"AUC on {part}", texts, tables=[Table(columns, rows, source[part], frozenset(strong))])


def _format_spread(mean: float, std: float) -> str:
    return f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} \u00b1 {std:.3f}"


def _bands(runs: list[Run]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Mean and deviation of the validation AUC by epoch, of each run that has curves; and why others have none."""
    bands, notes = {}, []
    for run in runs:
        if "members" in run.config:
            continue
        try:
            histories = [load_history(folder, ("auc/mean",)) for folder in run.folders]
        except InputError as error:
            notes.append(f"{run.name} is without its curve: {error}.")
            continue
        grouped = pd.concat(histories).groupby("epoch")["auc/mean"]
        bands[run.name] = grouped.agg(["mean", "std"]).reset_index()
    return bands, notes


def _paired_section(runs: list[Run], paired: pd.DataFrame, source: str) -> Section:
    rows = []
    for row in paired[paired["label"] == MEAN].itertuples():
        rows.append(
            [
                row.run,
                f"{row.difference:+.4f}",
                f"{row.low:+.4f} to {row.high:+.4f}",
                f"{row.p_value:.3f}",
                f"{row.p_value_adjusted:.3f}",
            ]
        )
    columns = ["run", "difference in mean AUC", "95 % interval", "p-value", f"adjusted for {len(rows)}"]
    texts = [
        f"Each run less {runs[0].name}, the best on validation, on the same test images: the mean AUC of the findings, "
        f"averaged over the folds of each run. {REPLICATES:,} bootstrap replicates over patients, the same "
        f"patients for "
        "both; p-values are two-sided, and adjusted for the number of runs by Holm's method. Every label is in "
        "paired.csv.",
        "The interval is about other patients, not about another training: the deviation over folds tells that.",
    ]
    return Section("Paired differences", texts, tables=[Table(columns, rows, source)])


def _digest(names: list[str]) -> str:
    import hashlib

    return hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:8]


def _to_markdown(page: Page) -> str:
    """The texts and the tables of a page; figures stand beside it as PNGs."""
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
