"""The sections of every evaluation, whether of a run or of external predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrkeras.labels import LabelSet, display_name
from cxrkeras.reports import figures
from cxrkeras.reports.figures import format_interval
from cxrkeras.reports.page import Picture, Section, Table
from cxrkeras.scoring.calibration import BINS, UNCALIBRATED, Calibration
from cxrkeras.scoring.evaluation import LEAST_PATIENTS, MEAN, Evaluation
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.operating_points import OperatingPoints
from cxrkeras.scoring.run_files import PUBLISHED, Origin
from cxrkeras.scoring.thresholds import YOUDEN, Thresholds
from cxrkeras.text import num_of

PAGE_LABELS = 40  # in one figure; more are divided over several
LEAST_POSITIVES = 5  # of a label, below which its interval says little
INTERVALS = (
    f"Intervals are 95 % percentile intervals of a bootstrap with {REPLICATES:,} replicates in which patients, not "
    "images, are drawn with replacement."
)


def explain_thresholds(thresholds: Thresholds) -> str:
    """Where the thresholds come from, in a sentence."""
    if not thresholds.fitted_on.is_verified:
        return (
            f"Each label's threshold is the mean of its members' thresholds, which were chosen on "
            f"{format_origin(thresholds.fitted_on)}; it was not chosen on the images it is applied to here."
        )
    if thresholds.fitted_on.part == PUBLISHED:
        return f"Thresholds: {thresholds.rule}. They were not chosen on the images they are applied to here."
    rule = (
        "has the largest sensitivity + specificity - 1 (Youden's J)"
        if thresholds.rule == YOUDEN
        else f"is the highest that keeps a sensitivity of {thresholds.rule.rpartition('=')[2]}"
    )
    return (
        f"Each label's threshold {rule} on {format_origin(thresholds.fitted_on)}; it applies to the calibrated "
        "probability and was not chosen on the images it is applied to here."
    )


def format_origin(origin: Origin) -> str:
    """The set that something was fitted on: `the validation set of fold 0, split nih-official (9 images ...)`."""
    fold = "" if origin.fold is None else f" of fold{'s' if isinstance(origin.fold, str) else ''} {origin.fold}"
    own = "" if origin.is_verified else ", each member on its own and not verified for their mean"
    return (
        f"the {origin.part} set{fold}, split {origin.split_name} ({num_of(origin.images, 'image')} of "
        f"{num_of(origin.patients, 'patient')}{own})"
    )


def build_pages(
    name: str, labels: Sequence[str], plot: Callable[[Sequence[str]], Figure], caption: str
) -> list[Picture]:
    """A figure with a panel or a row per label, as several where there are too many for one."""
    pages = [labels[start : start + PAGE_LABELS] for start in range(0, len(labels), PAGE_LABELS)]
    if len(pages) == 1:
        return [Picture(name, plot(labels), caption)]
    return [
        Picture(f"{name}_{number}", plot(page), f"{caption} Labels {number * PAGE_LABELS - PAGE_LABELS + 1} to "
                f"{number * PAGE_LABELS - PAGE_LABELS + len(page)} of {len(labels)}.")
        for number, page in enumerate(pages, 1)
    ]  # fmt: skip


def order_labels(evaluation: Evaluation) -> list[str]:
    """The labels in their own order; where they need several pages, those with the most positives first."""
    labels = evaluation.predictions.labels
    if len(labels) <= PAGE_LABELS:
        return list(labels)
    positives = evaluation.scores.loc[list(labels), "positives"].to_numpy(float)
    return [labels.names[k] for k in np.argsort(-positives, kind="stable")]


def build_scores(
    evaluation: Evaluation, points: OperatingPoints | None, *, source: str, validation: Evaluation | None = None
) -> list[Section]:
    """The sections on scores, curves and, with operating points, decisions and calibration."""
    built = [
        build_discrimination(evaluation, source=source, validation=validation),
        build_roc(evaluation, source=source),
    ]
    built.append(build_precision_recall(evaluation, source=source))
    if points:
        built.append(build_decisions(evaluation, points.thresholds, source=source))
        built.append(build_reliability(evaluation, points.calibration, source=source))
    return built


def build_discrimination(evaluation: Evaluation, *, source: str, validation: Evaluation | None = None) -> Section:
    """The table of AUC and average precision with intervals, and next to it the AUC on validation."""
    columns = [
        "label",
        "AUC (95 % interval)",
        "average precision (95 % interval)",
        "prevalence",
        "positives",
        "remarks",
    ]
    if validation:
        columns.insert(2, "AUC,\nvalidation")
    rows = []
    for label, row in evaluation.scores.loc[[MEAN, *order_labels(evaluation)]].iterrows():
        interval = evaluation.interval(str(label))
        precision = evaluation.interval(str(label), "average_precision")
        is_mean = label == MEAN
        cells = [
            display_name(str(label)),
            format_interval(row["auc"], interval, 3),
            format_interval(row["average_precision"], precision, 3),
            "" if is_mean else f"{row['prevalence']:.3f}",
            "" if is_mean else _count_positives(row),
            _remark(row, is_mean),
        ]
        if validation:
            cells.insert(2, _number(validation.scores["auc"].get(label, np.nan)))
        rows.append(cells)
    return Section(
        "AUC and average precision",
        [
            "AUC is the probability that an image with the finding gets a higher score than one without. Average "
            "precision depends on the prevalence, which stands next to it. "
            + (INTERVALS if _has_intervals(evaluation) else "")
        ],
        tables=[Table(columns, rows, source).without_empty()],
    )


def _count_positives(row: pd.Series) -> str:
    """The positives; where the label is not known of all images, of how many it is."""
    of_known = f" of {row['known']:,.0f}" if row["known"] < row["images"] else ""
    return f"{row['positives']:,.0f}{of_known}"


def _has_intervals(evaluation: Evaluation) -> bool:
    return bool((evaluation.scores["replicates"] > 0).any())


def _remark(row: pd.Series, is_mean: bool) -> str:
    if is_mean:
        return row["note"]
    if row["note"]:
        return row["note"]
    remarks = []
    if row["positives"] < LEAST_POSITIVES:
        remarks.append(f"fewer than {LEAST_POSITIVES} positives: neither score nor interval says much")
    elif row["positives"] < 10:
        remarks.append("few positives: read the interval, not the score")
    if 0 < row["replicates"] < REPLICATES:
        remarks.append(f"defined in {row['replicates']:,.0f} replicates")
    return "; ".join(remarks)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "undefined"


def build_roc(evaluation: Evaluation, *, source: str) -> Section:
    curves: dict[str, figures.RocCurve | None] = {}
    for label, truth, logits in _iterate_known(evaluation):
        row = evaluation.scores.loc[label]
        if not np.isfinite(row["auc"]):
            curves[label] = None
            continue
        false_positive_rate, sensitivity, _ = roc_curve(truth, logits)
        point = None
        if np.isfinite(row.get("sensitivity", np.nan)):
            point = (1 - row["specificity"], row["sensitivity"])
        curves[label] = figures.RocCurve(
            false_positive_rate, sensitivity, row["auc"], evaluation.interval(label), point
        )
    caption = (
        "ROC curve of each label. The dot is the operating point: the threshold fixed on validation, applied here."
    )
    pages = build_pages(
        "roc", list(curves), lambda names: figures.plot_roc({n: curves[n] for n in names}, source=source), caption
    )
    return Section("ROC curves", pictures=pages)


def _iterate_known(evaluation: Evaluation) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each label with truth and logits of the images of which it is known."""
    predictions = evaluation.predictions.flatten()
    for label in order_labels(evaluation):
        k = predictions.labels.index(label)
        is_known = np.isfinite(predictions.truth[:, k])
        yield label, predictions.truth[is_known, k], predictions.logits[is_known, k]


def build_precision_recall(evaluation: Evaluation, *, source: str) -> Section:
    curves: dict[str, figures.PrecisionRecall | None] = {}
    for label, truth, logits in _iterate_known(evaluation):
        row = evaluation.scores.loc[label]
        if not np.isfinite(row["average_precision"]):
            curves[label] = None
            continue
        precision, recall, _ = precision_recall_curve(truth, logits, drop_intermediate=True)
        curves[label] = figures.PrecisionRecall(
            recall,
            precision,
            row["average_precision"],
            evaluation.interval(label, "average_precision"),
            row["prevalence"],
        )
    caption = "Of the images called positive, the share that are (precision), against the share of positives found."
    pages = build_pages(
        "precision_recall",
        list(curves),
        lambda names: figures.plot_precision_recall({n: curves[n] for n in names}, source=source),
        caption,
    )
    return Section("Precision and recall", pictures=pages)


def build_decisions(evaluation: Evaluation, thresholds: Thresholds, *, source: str) -> Section:
    """Decisions at the thresholds: a table of rates, Hamming loss, exact match, and the confusion matrices."""
    scores = evaluation.scores.loc[order_labels(evaluation)]
    rates = ["sensitivity", "specificity", "ppv", "npv", "f1", "youden"]
    heads = ["sensitivity", "specificity", "PPV", "NPV", "F1", "Youden's J"]
    rows = []
    for label, row in scores.iterrows():
        note = thresholds.notes.get(str(label), "")
        threshold = f"{row['threshold']:.3f}" if np.isfinite(row["threshold"]) else "none"
        rows.append([display_name(str(label)), threshold, *(_number(row[rate]) for rate in rates), note])
    whole = evaluation.images
    texts = [
        explain_thresholds(thresholds),
        f"Hamming loss {_number(whole['hamming_loss'])} (the share of wrong decisions over images and labels), exact "
        f"match {_number(whole['exact_match'])} (the share of images with every decision right), over "
        f"{num_of(whole['labels'], 'label')} with a threshold.",
    ]
    pages = build_pages(
        "confusion",
        list(scores.index),
        lambda names: figures.plot_confusion(scores.loc[list(names), ["tp", "fp", "fn", "tn"]], source=source),
        "How many images with and without each label were found, as counts and as shares of the row.",
    )
    return Section(
        "Decisions at the thresholds",
        texts,
        pictures=pages,
        tables=[Table(["label", "threshold", *heads, "remarks"], rows, source).without_empty()],
    )


def build_reliability(evaluation: Evaluation, calibration: Calibration, *, source: str) -> Section:
    """Calibration before and after, as diagrams and errors."""
    predictions, scores = evaluation.predictions, evaluation.scores.loc[order_labels(evaluation)]
    before = expit(predictions.logits)

    def plot(names: Sequence[str]) -> Figure:
        curves = {}
        for label in names:
            k = predictions.labels.index(label)
            is_known = np.isfinite(predictions.truth[:, k])
            probs = before[is_known, k], evaluation.probs[is_known, k]
            errors = scores.loc[label, "error_before"], scores.loc[label, "error_after"]
            curves[label] = figures.Reliability(predictions.truth[is_known, k], *probs, *errors)
        return figures.plot_reliability(curves, source=source)

    rows = [
        [
            display_name(str(label)),
            *(_number(row[name]) for name in ("error_before", "error_after", "error_least", "brier")),
            calibration.curves[str(label)].note,
        ]
        for label, row in scores.iterrows()
    ]
    return Section(
        "Calibration",
        [_explain_calibration(calibration)],
        pictures=build_pages(
            "reliability",
            list(scores.index),
            plot,
            "Observed share against predicted probability; on the dotted line they are equal. Each panel has its own "
            "range.",
        ),
        tables=[
            Table(
                ["label", "error of the sigmoid", "error, calibrated", "error, if exact", "Brier score", "remarks"],
                rows,
                source,
            ).without_empty()
        ],
    )


def _explain_calibration(calibration: Calibration) -> str:
    if calibration.method == UNCALIBRATED:
        return (
            "Nothing is calibrated: what stands for a probability is the sigmoid of the network's outputs. The "
            f"calibration error is the mean distance of the observed share from it over {BINS} bins with equally many "
            "images."
        )
    methods = {
        "platt": "Platt's logistic curve",
        "temperature": "a temperature for each label",
        "isotonic": "an isotonic curve",
        "members": "the mean of the members' own calibrated probabilities",
    }
    return (
        f"Probabilities are calibrated label by label with {methods[calibration.method]}, fitted on "
        f"{format_origin(calibration.fitted_on)}. The calibration error is the mean distance of the observed share "
        f"from the predicted probability over {BINS} bins with equally many images. With few images even perfectly "
        "calibrated probabilities show an error: the last column of errors is its average for as many images."
    )


def build_groups(table: pd.DataFrame, labels: LabelSet, *, source: str) -> Section:
    """AUC by sex, age band, view and source; `table` is that of `evaluate_groups`."""
    means = table[table["label"] == MEAN]
    counts = means.groupby("attribute", sort=False)["findings"].max()
    number = ", ".join(f"{attribute} {count}" for attribute, count in counts.items())
    kinds = means[means["attribute"] != "all"].groupby("attribute", sort=False)
    tables = [_tabulate_groups(table, part, source) for _, part in kinds]
    heading = "By sex, age, view and source" if "source" in set(means["attribute"]) else "By sex, age and view"
    picture = Picture(
        "groups",
        figures.plot_groups(means, title=f"Mean AUC {heading[0].lower()}{heading[1:]}", source=source),
        "Mean AUC of the findings in each group, over those findings that are defined in every group of its kind.",
    )
    text = (
        f"Groups of fewer than {LEAST_PATIENTS} patients are counted and not scored, and labels with fewer than "
        f"{LEAST_POSITIVES} positives in a group not shown. Within a kind of group the "
        f"mean is over the findings defined in all its groups ({number} of {len(labels.findings)}), "
        "so that groups are comparable within their kind and not across kinds. A difference may come from the network, "
        "from other diseases in that group, or from how the images were taken."
    )
    return Section(heading, [text], pictures=[picture], tables=tables)


def build_sources(by_source: Mapping[str, Evaluation], *, source: str) -> Section:
    """Every score of each source of joined records, with the calibration and thresholds of the run."""
    rates = ("sensitivity", "specificity", "ppv", "npv", "f1", "error_after", "brier")
    heads = ("sensitivity", "specificity", "PPV", "NPV", "F1", "calibration error", "Brier score")
    tables = []
    for name, evaluation in by_source.items():
        rows = []
        for label in [MEAN, *order_labels(evaluation)]:
            row = evaluation.scores.loc[label]
            scores = [
                format_interval(row[score], evaluation.interval(label, score), 3)
                for score in ("auc", "average_precision")
            ]
            counts = "" if label == MEAN else _count_positives(row)
            decided = ["" if label == MEAN or rate not in row.index else _number(row[rate]) for rate in rates]
            rows.append([display_name(label), *scores, counts, *decided])
        columns = ["label", "AUC (95 % interval)", "average precision (95 % interval)", "positives", *heads]
        tables.append(Table(columns, rows, f"{name}: {evaluation.predictions.counts} of {source}").without_empty())
    text = (
        "Each source of the joined records alone, at the thresholds and with the calibration of the run, which were "
        "chosen on validation images of all sources."
    )
    return Section("Each source alone", [text], tables=tables)


def _tabulate_groups(table: pd.DataFrame, groups: pd.DataFrame, source: str) -> Table:
    """A column per group of one kind; `groups` are its rows of the mean."""
    heads = [
        f"{row.group}\n{num_of(row.images, 'image')}\n{num_of(row.patients, 'patient')}" for row in groups.itertuples()
    ]
    by_group = {row.group: table[table["group"] == row.group].set_index("label") for row in groups.itertuples()}
    rows = []
    for name in dict.fromkeys(table["label"]):
        cells = [display_name(name)]
        for row in groups.itertuples():
            scores = by_group[row.group].loc[name]
            if row.patients < LEAST_PATIENTS or (name != MEAN and scores["positives"] < LEAST_POSITIVES):
                cells.append("too few")
            elif np.isfinite(scores["auc"]):
                cells.append(f"{scores['auc']:.2f} ({scores['low']:.2f} to {scores['high']:.2f})")
            else:
                cells.append("undefined")
        rows.append(cells)
    return Table(["label", *heads], rows, source)
