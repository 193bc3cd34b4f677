"""The sections that every evaluation has, of a run or of other people's predictions."""

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrkeras.labels import FINDINGS
from cxrkeras.reports import figures
from cxrkeras.reports.figures import format_interval, spell
from cxrkeras.reports.page import Picture, Section, Table
from cxrkeras.scoring.calibration import BINS, Calibration
from cxrkeras.scoring.evaluation import LEAST_PATIENTS, MEAN, Evaluation
from cxrkeras.scoring.intervals import REPLICATES
from cxrkeras.scoring.thresholds import YOUDEN, Thresholds
from cxrkeras.text import num_of

LEAST_POSITIVES = 5  # of a label in a group, under which its interval says nothing
INTERVALS = (
    f"Intervals are 95 % percentile intervals of a bootstrap with {REPLICATES:,} replicates in which patients, not "
    "images, are drawn with replacement."
)


def explain_thresholds(thresholds: Thresholds) -> str:
    """Where the thresholds come from, in a sentence."""
    if not thresholds.fitted_on.get("is_verified", True):
        return (
            f"Each label's threshold is the mean of its members' thresholds, which were chosen on "
            f"{describe_origin(thresholds.fitted_on)}; it never saw the images it is applied to here."
        )
    rule = (
        "has the largest sensitivity + specificity - 1 (Youden's J)"
        if thresholds.rule == YOUDEN
        else f"is the highest that keeps a sensitivity of {thresholds.rule.rpartition('=')[2]}"
    )
    return (
        f"Each label's threshold {rule} on {describe_origin(thresholds.fitted_on)}; it stands on the calibrated "
        "probability and never saw the images it is applied to here."
    )


def describe_origin(fitted_on: dict) -> str:
    """The set that something was fitted on: `the validation set of fold 0, split nih-official (9 images ...)`."""
    number = fitted_on["fold"]
    fold = "" if number is None else f" of fold{'s' if isinstance(number, str) else ''} {number}"
    own = "" if fitted_on.get("is_verified", True) else ", each member on its own and not verified for their mean"
    return (
        f"the {fitted_on['part']} set{fold}, split {fitted_on['split_name']} "
        f"({num_of(fitted_on['images'], 'image')} of "
        f"{num_of(fitted_on['patients'], 'patient')}{own})"
    )


def discrimination(
    evaluation: Evaluation, *, source: str, beside: Evaluation | None = None, beside_name: str = "validation"
) -> Section:
    """The table of AUC and average precision with intervals; of another part the AUC alone stands beside."""
    columns = [
        "label",
        "AUC (95 % interval)",
        "average precision (95 % interval)",
        "prevalence",
        "positives",
        "remarks",
    ]
    if beside:
        columns.insert(2, f"AUC,\n{beside_name}")
    rows = []
    for label, row in _mean_first(evaluation.scores).iterrows():
        interval = evaluation.interval(str(label))
        precision = evaluation.interval(str(label), "average_precision")
        is_mean = label == MEAN
        cells = [
            spell(str(label)),
            format_interval(row["auc"], interval, 3),
            format_interval(row["average_precision"], precision, 3),
            "" if is_mean else f"{row['prevalence']:.3f}",
            "" if is_mean else f"{row['positives']:,.0f}",
            _remark(row, is_mean),
        ]
        if beside:
            cells.insert(2, _number(beside.scores["auc"].get(label, np.nan)))
        rows.append(cells)
    return Section(
        "AUC and average precision",
        [
            "AUC is the probability that an image with the finding gets a higher score than one without. Average "
            "precision depends on the prevalence, which stands beside it. "
            + (INTERVALS if _has_intervals(evaluation) else "")
        ],
        tables=[Table(columns, rows, source).without_empty()],
    )


def _mean_first(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.loc[[MEAN, *scores.index.drop(MEAN)]]


def _has_intervals(evaluation: Evaluation) -> bool:
    return bool((evaluation.scores["replicates"] > 0).any())


def _remark(row: pd.Series, is_mean: bool) -> str:
    if is_mean:
        return row["note"]
    if row["note"]:
        return row["note"]
    if row["positives"] < 10:
        return "few positives: read the interval, not the score"
    return f"defined in {row['replicates']:,.0f} replicates" if 0 < row["replicates"] < REPLICATES else ""


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "undefined"


def roc(evaluation: Evaluation, *, source: str) -> Section:
    curves, logits = {}, evaluation.predictions.flatten().logits
    for k, label in enumerate(evaluation.predictions.names):
        row = evaluation.scores.loc[label]
        if not np.isfinite(row["auc"]):
            curves[label] = None
            continue
        rates = roc_curve(evaluation.predictions.truth[:, k], logits[:, k])[:2]
        point = None
        if np.isfinite(row.get("sensitivity", np.nan)):
            point = (1 - row["specificity"], row["sensitivity"])
        curves[label] = figures.RocCurve(*rates, row["auc"], evaluation.interval(label), point)
    caption = (
        "ROC curve of each label. The dot is the operating point: the threshold fixed on validation, applied here."
    )
    picture = Picture("roc", figures.plot_roc(curves, source=source), caption)
    return Section("ROC curves", pictures=[picture])


def precision_recall(evaluation: Evaluation, *, source: str) -> Section:
    curves, logits = {}, evaluation.predictions.flatten().logits
    for k, label in enumerate(evaluation.predictions.names):
        row = evaluation.scores.loc[label]
        if not np.isfinite(row["average_precision"]):
            curves[label] = None
            continue
        precision, recall, _ = precision_recall_curve(
            evaluation.predictions.truth[:, k], logits[:, k], drop_intermediate=True
        )
        curves[label] = figures.PrecisionRecall(
            recall,
            precision,
            row["average_precision"],
            evaluation.interval(label, "average_precision"),
            row["prevalence"],
        )
    caption = "Of the images called positive, the share that are (precision), against the share of positives found."
    return Section(
        "Precision and recall",
        pictures=[Picture("precision_recall", figures.plot_precision_recall(curves, source=source), caption)],
    )


def decisions(evaluation: Evaluation, thresholds: Thresholds, *, source: str) -> Section:
    """What the thresholds bring: a table of rates, Hamming loss, exact match, and the confusion matrices."""
    scores = evaluation.scores.drop(index=MEAN)
    rates = ["sensitivity", "specificity", "ppv", "npv", "f1", "youden"]
    heads = ["sensitivity", "specificity", "PPV", "NPV", "F1", "Youden's J"]
    rows = []
    for label, row in scores.iterrows():
        note = thresholds.notes.get(str(label), "")
        cut = f"{row['threshold']:.3f}" if np.isfinite(row["threshold"]) else "none"
        rows.append([spell(str(label)), cut, *(_number(row[rate]) for rate in rates), note])
    whole = evaluation.images
    texts = [
        explain_thresholds(thresholds),
        f"Hamming loss {_number(whole['hamming_loss'])} (the share of wrong decisions over images and labels), exact "
        f"match {_number(whole['exact_match'])} (the share of images with every decision right), over "
        f"{num_of(whole['labels'], 'label')} with a threshold.",
    ]
    picture = Picture(
        "confusion",
        figures.plot_confusion(scores[["tp", "fp", "fn", "tn"]], source=source),
        "How many images with and without each label were found, as counts and as shares of the row.",
    )
    return Section(
        "Decisions at the thresholds",
        texts,
        pictures=[picture],
        tables=[Table(["label", "threshold", *heads, "remarks"], rows, source).without_empty()],
    )


def reliability(evaluation: Evaluation, calibration: Calibration, *, source: str) -> Section:
    """Calibration before and after, as diagrams and errors."""
    predictions, scores = evaluation.predictions, evaluation.scores.drop(index=MEAN)
    errors = scores["error_before"].to_numpy(), scores["error_after"].to_numpy()
    figure = figures.plot_reliability(
        predictions.truth, expit(predictions.logits), evaluation.probs, predictions.names, errors, source=source
    )
    rows = [
        [
            spell(str(label)),
            *(_number(row[name]) for name in ("error_before", "error_after", "error_least", "brier")),
            calibration.curves[str(label)].note,
        ]
        for label, row in scores.iterrows()
    ]
    methods = {
        "platt": "Platt's logistic curve",
        "temperature": "a temperature for each label",
        "isotonic": "an isotonic curve",
        "members": "the mean of the members' own calibrated probabilities",
    }
    texts = [
        f"Probabilities are calibrated label by label with {methods[calibration.method]}, fitted on "
        f"{describe_origin(calibration.fitted_on)}. The calibration error is the mean distance of the observed share "
        f"from the predicted probability over {BINS} bins with equally many images. No error is zero with few images: "
        "the last column of errors is what exactly right probabilities would show on average with as many."
    ]
    return Section(
        "Calibration",
        texts,
        pictures=[
            Picture(
                "reliability",
                figure,
                "Observed share against predicted probability; on the dotted line both are equal. Each panel has "
                "its own "
                "range.",
            )
        ],
        tables=[
            Table(
                ["label", "error of the sigmoid", "error, calibrated", "error, if exact", "Brier score", "remarks"],
                rows,
                source,
            ).without_empty()
        ],
    )


def groups(table: pd.DataFrame, *, source: str) -> Section:
    """AUC by sex, age band and view; `table` is that of `evaluate_groups`."""
    means = table[table["label"] == MEAN]
    counts = means.groupby("attribute", sort=False)["findings"].max()
    number = ", ".join(f"{attribute} {count}" for attribute, count in counts.items())
    kinds = means[means["attribute"] != "all"].groupby("attribute", sort=False)
    tables = [_tabulate_groups(table, part, source) for _, part in kinds]
    picture = Picture(
        "groups",
        figures.plot_groups(means, title="Mean AUC by sex, age and view", source=source),
        "Mean AUC of the findings in each group, over those findings that are defined in every group of its kind.",
    )
    text = (
        f"Groups of fewer than {LEAST_PATIENTS} patients are counted and not scored, and labels with fewer than "
        f"{LEAST_POSITIVES} positives in a group not shown. Within a kind of group the "
        f"mean is over the findings defined in all its groups ({number} of "
        f"{len(FINDINGS)}), "
        "so that groups are comparable within their kind and not across kinds. A difference may come from the network, "
        "from other diseases in that group, or from how the images were taken."
    )
    return Section("By sex, age and view", [text], pictures=[picture], tables=tables)


def _tabulate_groups(table: pd.DataFrame, groups: pd.DataFrame, source: str) -> Table:
    """A column a group of one kind; `groups` are its rows of the mean."""
    heads = [
        f"{row.group}\n{num_of(row.images, 'image')}\n{num_of(row.patients, 'patient')}" for row in groups.itertuples()
    ]
    by_group = {row.group: table[table["group"] == row.group].set_index("label") for row in groups.itertuples()}
    rows = []
    for name in dict.fromkeys(table["label"]):
        cells = [spell(name)]
        for row in groups.itertuples():
            one = by_group[row.group].loc[name]
            if row.patients < LEAST_PATIENTS or (name != MEAN and one["positives"] < LEAST_POSITIVES):
                cells.append("too few")
            elif np.isfinite(one["auc"]):
                cells.append(f"{one['auc']:.2f} ({one['low']:.2f} to {one['high']:.2f})")
            else:
                cells.append("undefined")
        rows.append(cells)
    return Table(["label", *heads], rows, source)
