"""The figures of reports. One idea per figure, colours that everyone can tell apart (Okabe and Ito's)."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import LineStyleType

from cxrkeras.labels import display_name
from cxrkeras.scoring.calibration import compute_bins
from cxrkeras.scoring.intervals import Interval
from cxrkeras.text import num_of, plain

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "#000000", "#8C6D31")
MARKERS = "osD^vPX*"
GREY = "#6B7480"
_COLUMNS = 5
_TITLE_LETTERS = 24  # in a line above a panel
_WIDTH = 10.6  # inches, at 104 dots


@dataclass(frozen=True)
class RocCurve:
    """One label's curve: rates (M,), its AUC and interval, and the operating point, if there is one."""

    false_positive_rate: np.ndarray
    sensitivity: np.ndarray
    auc: float
    interval: Interval
    point: tuple[float, float] | None


@dataclass(frozen=True)
class PrecisionRecall:
    """One label's curve (M,), its average precision and interval, and the prevalence."""

    recall: np.ndarray
    precision: np.ndarray
    average_precision: float
    interval: Interval
    prevalence: float


@dataclass(frozen=True)
class Reliability:
    """One label's truth, 0 or 1, and probabilities before and after calibration, (N,), and their errors."""

    truth: np.ndarray
    before: np.ndarray
    after: np.ndarray
    error_before: float
    error_after: float


def start_figure(height: float, title: str, source: str) -> Figure:
    """An empty figure that says what it shows and of which images."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", dpi=104)
    FigureCanvasAgg(figure)
    figure.suptitle(plain(title), fontsize=13)
    figure.supxlabel(plain(source, 1000), fontsize=9, color=GREY)
    return figure


def _grid(
    count: int, panel_height: float, title: str, source: str, *, is_shared: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each label, with the same axes or not; those left over are taken out."""
    columns = _count_columns(count)
    rows = -(-count // columns)
    figure = start_figure(panel_height * rows + 0.9, title, source)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=is_shared, sharey=is_shared).ravel()
    for number, panel in enumerate(panels):
        panel.tick_params(labelsize=8.5)
        if number >= count:
            panel.remove()
        elif number + columns >= count:
            panel.xaxis.set_tick_params(labelbottom=True)
    return figure, list(panels[:count])


def _count_columns(count: int) -> int:
    return min(count, _COLUMNS)


def _fit_title(label: str) -> str:
    """A label as the title of a panel: long ones in two lines, with what is too much left out of the middle."""
    pieces = re.findall(r".+?(?:[/ ,;-]+|$)", plain(display_name(label)))
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > _TITLE_LETTERS:
            lines.append("")
        lines[-1] += piece
    if len(lines) > 2:
        lines = [lines[0], "\u2026" + lines[-1]]
    return "\n".join(
        line.strip() if len(line) <= _TITLE_LETTERS + 2 else f"{line[:_TITLE_LETTERS]}\u2026" for line in lines
    )


def _label_outer(panels: Sequence[Axes], x: str, y: str) -> None:
    columns = _count_columns(len(panels))
    for number, panel in enumerate(panels):
        if number % columns == 0:
            panel.set_ylabel(y, fontsize=9)
        if number + columns >= len(panels):
            panel.set_xlabel(x, fontsize=9)


def _note_absence(panel: Axes, text: str) -> None:
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", fontsize=9, color=GREY)


def format_interval(value: float, interval: Interval, digits: int = 2) -> str:
    """`0.81 (0.79 to 0.83)`."""
    if not np.isfinite(value):
        return "undefined"
    if not interval.replicates:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def plot_roc(curves: Mapping[str, RocCurve | None], *, source: str) -> Figure:
    """ROC curves, a panel per label, with the operating point that was fixed on validation."""
    figure, panels = _grid(len(curves), 2.25, "ROC curves", source)
    for panel, (label, curve) in zip(panels, curves.items(), strict=True):
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        panel.set_title(_fit_title(label), fontsize=10)
        if curve is None:
            _note_absence(panel, "not defined")
            continue
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        panel.plot(curve.false_positive_rate, curve.sensitivity, color=BLUE, linewidth=1.6)
        panel.text(
            0.98, 0.04, f"AUC {curve.auc:.3f}\n{_range(curve.interval, 3)}", transform=panel.transAxes, ha="right",
            fontsize=8.5,
        )  # fmt: skip
        if curve.point:
            panel.plot(*curve.point, marker="o", color=RED, markersize=6, linestyle="none")
    _label_outer(panels, "1 - specificity", "sensitivity")
    _add_legend(
        figure,
        _key("o", RED, "operating point, fixed on validation"),
        _key("", GREY, "no better than chance", linestyle=":"),
    )
    return figure


def _range(interval: Interval, digits: int) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}" if interval.replicates else "no interval"


def _add_legend(figure: Figure, *keys: Line2D) -> None:
    """One legend for all panels, above them."""
    figure.legend(handles=keys, loc="outside upper right", ncols=len(keys), fontsize=9, frameon=False)


def _key(marker: str, colour: str, label: str, linestyle: LineStyleType = "none") -> Line2D:
    return Line2D([], [], marker=marker, color=colour, linestyle=linestyle, label=label, markersize=6)


def plot_precision_recall(curves: Mapping[str, PrecisionRecall | None], *, source: str) -> Figure:
    """Precision against recall, a panel per label, with the prevalence, what calling all positive would give."""
    figure, panels = _grid(len(curves), 2.4, "Precision and recall", source)
    for panel, (label, curve) in zip(panels, curves.items(), strict=True):
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        panel.set_title(_fit_title(label), fontsize=10)
        if curve is None:
            _note_absence(panel, "not defined")
            continue
        panel.step(curve.recall, curve.precision, where="post", color=BLUE, linewidth=1.6)
        panel.axhline(curve.prevalence, color=GREY, linewidth=1, linestyle=":")
        score = f"AP {curve.average_precision:.3f} ({_range(curve.interval, 3)})"
        panel.set_title(f"{_fit_title(label)}\n{score}", fontsize=9.5)
    _label_outer(panels, "recall (sensitivity)", "precision (PPV)")
    _add_legend(figure, _key("", GREY, "prevalence", linestyle=":"))
    return figure


def plot_confusion(outcomes: pd.DataFrame, *, source: str) -> Figure:
    """Confusion matrices at the thresholds, a panel per label, as counts and as shares of the row.

    outcomes: a row per label with tp, fp, fn, tn; NaN where there is no threshold.
    """
    figure, panels = _grid(len(outcomes), 2.2, "Confusion matrices at the thresholds fixed on validation", source)
    for panel, (label, row) in zip(panels, outcomes.iterrows(), strict=True):
        panel.set_title(_fit_title(str(label)), fontsize=10)
        panel.set(xticks=[0, 1], yticks=[0, 1])
        panel.set_xticklabels(["found", "not found"], fontsize=8.5)
        panel.set_yticklabels(["present", "absent"], fontsize=8.5, rotation=90, va="center")
        panel.tick_params(length=0)
        counts = np.array([[row["tp"], row["fn"]], [row["fp"], row["tn"]]])
        panel.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), box_aspect=0.85)
        if not np.isfinite(counts).all():
            _note_absence(panel, "no threshold")
            continue
        with np.errstate(invalid="ignore"):
            shares = counts / counts.sum(axis=1, keepdims=True)
        panel.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
        for i in range(2):
            for j in range(2):
                share = f"{shares[i, j]:.0%}" if np.isfinite(shares[i, j]) else "none"
                colour = "white" if shares[i, j] > 0.9 else "black"
                panel.text(j, i, f"{counts[i, j]:,.0f}\n{share}", ha="center", va="center", fontsize=9, color=colour)
    _label_outer(panels, "network", "label")
    return figure


def plot_losses(history: pd.DataFrame, best_epoch: int, *, source: str) -> Figure:
    """Training against validation loss, epoch by epoch."""
    figure = start_figure(3.9, "Loss on training and validation images", source)
    panel = figure.subplots()
    for column, colour, marker, name in (
        ("loss/train", BLUE, "o", "training (augmented images)"),
        ("loss/validation", RED, "s", "validation"),
    ):
        panel.plot(history["epoch"], history[column], color=colour, marker=marker, markersize=4, label=name)
    _mark_epoch(panel, best_epoch)
    panel.set(xlabel="epoch", ylabel="loss, mean over images and labels")
    panel.legend(fontsize=9.5, frameon=False)
    return figure


def _mark_epoch(panel: Axes, epoch: int) -> None:
    panel.axvline(epoch, color=GREY, linewidth=1, linestyle="--", label=f"kept epoch, {epoch}")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def plot_auc_epochs(history: pd.DataFrame, names: Sequence[str], best_epoch: int, *, source: str) -> Figure:
    """Validation AUC against the epoch, a panel per label, the mean of the findings behind each."""
    figure, panels = _grid(len(names), 1.9, "Validation AUC of each label by epoch", source)
    for panel, label in zip(panels, names, strict=True):
        panel.plot(history["epoch"], history["auc/mean"], color="#B9C0C9", linewidth=2.5)
        panel.plot(history["epoch"], history[f"auc/{label}"], color=BLUE, marker="o", markersize=3, linewidth=1.3)
        _mark_epoch(panel, best_epoch)
        panel.set_title(_fit_title(label), fontsize=10)
        if not np.isfinite(history[f"auc/{label}"]).any():
            _note_absence(panel, "not defined")
    _label_outer(panels, "epoch", "AUC")
    _add_legend(
        figure,
        _key("", "#B9C0C9", "mean of the findings", linestyle="-"),
        _key("", GREY, f"kept epoch, {best_epoch}", linestyle="--"),
    )
    return figure


def plot_reliability(curves: Mapping[str, Reliability], *, source: str) -> Figure:
    """Observed against predicted probability in bins of equal mass, before and after calibration, a panel per label."""
    # Each label has its own range: a rare one's probabilities are all small.
    figure, panels = _grid(len(curves), 2.45, "Reliability before and after calibration", source, is_shared=False)
    for panel, (label, curve) in zip(panels, curves.items(), strict=True):
        panel.set_title(_fit_title(label), fontsize=10)
        if not (len(curve.truth) and np.isfinite(curve.before).all() and np.isfinite(curve.after).all()):
            _note_absence(panel, "not defined")
            continue
        largest = 0.02
        for probs, colour, marker, style in ((curve.before, ORANGE, "s", "--"), (curve.after, BLUE, "o", "-")):
            bins = compute_bins(probs)
            predicted, observed = [probs[rows].mean() for rows in bins], [curve.truth[rows].mean() for rows in bins]
            panel.plot(predicted, observed, color=colour, marker=marker, markersize=4, linestyle=style, linewidth=1.2)
            largest = max(largest, *predicted, *observed)
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        errors = f"error {curve.error_before:.3f}, then {curve.error_after:.3f}"
        panel.set_title(f"{_fit_title(label)}\n{errors}", fontsize=9.5)
        limits = (-0.04 * largest, 1.08 * largest)
        panel.set(xlim=limits, ylim=limits, aspect="equal")
        panel.locator_params(nbins=4)
    _label_outer(panels, "predicted probability", "observed share")
    _add_legend(
        figure,
        _key("s", ORANGE, "sigmoid of the logits", linestyle="--"),
        _key("o", BLUE, "calibrated", linestyle="-"),
    )
    return figure


def plot_groups(groups: pd.DataFrame, *, title: str, source: str) -> Figure:
    """A mean AUC and its interval for each group of patients.

    groups: columns attribute, group, images, patients, auc, low, high, findings.
    """
    figure = start_figure(0.42 * len(groups) + 1.7, title, source)
    panel = figure.subplots()
    names, ticks, before, y = [], [], None, 0.0
    for row in groups.itertuples():
        y += 0.5 if before not in (None, row.attribute) else 0
        if np.isfinite(row.auc):
            panel.plot([row.low, row.high], [y, y], color=BLUE, linewidth=2)
            panel.plot(row.auc, y, marker="o", color=BLUE, markersize=7)
        names.append(f"{row.group}  ({num_of(row.images, 'image')}, {num_of(row.patients, 'patient')})")
        ticks.append(y)
        before, y = row.attribute, y + 1
    overall = groups.loc[groups["attribute"] == "all", "auc"]
    if len(overall) and np.isfinite(overall.iloc[0]):
        panel.axvline(overall.iloc[0], color=GREY, linestyle=":", linewidth=1)
    panel.set_yticks(ticks, names, fontsize=9.5)
    panel.invert_yaxis()
    panel.set_xlabel("mean AUC of the findings, with its 95 % interval")
    panel.grid(axis="x", color="#E3E7EC")
    panel.set_axisbelow(True)
    return figure


def plot_prevalence(
    shares: pd.DataFrame, *, source: str, title: str = "Prevalence in both sets", differing: Sequence[str] = ()
) -> Figure:
    """The share of images with each label in two sets, a line between them.

    shares: a row per label, a column for each set. The names of `differing` labels are set in bold.
    """
    figure = start_figure(0.36 * len(shares) + 1.9, title, source)
    panel = figure.subplots()
    places = np.arange(len(shares))
    panel.hlines(places, shares.min(axis=1), shares.max(axis=1), color="#B9C0C9", linewidth=3)
    for part, colour, marker in zip(shares.columns, (BLUE, RED), "os", strict=True):
        panel.plot(
            shares[part], places, marker=marker, color=colour, linestyle="none", label=part, markersize=7, clip_on=False
        )
    panel.set_yticks(places, [display_name(label) for label in shares.index], fontsize=9.5)
    for text, label in zip(panel.get_yticklabels(), shares.index, strict=True):
        text.set_fontweight("bold" if label in differing else "normal")
    panel.set_ylim(len(shares) - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_formatter(PercentFormatter(1))
    panel.set_xlabel("share of images")
    panel.grid(axis="x", color="#E3E7EC")
    panel.set_axisbelow(True)
    panel.legend(fontsize=9.5, frameon=False)
    return figure


def plot_bands(epochs: Mapping[str, pd.DataFrame], *, source: str) -> Figure:
    """Mean validation AUC against the epoch, a line per run, with a band of one standard deviation over its folds.

    epochs: by run, a table of epoch, mean, std (NaN of a single fold).
    """
    figure = start_figure(4.6, "Mean validation AUC by epoch, with one standard deviation over folds", source)
    panel = figure.subplots()
    for number, (run, rows) in enumerate(epochs.items()):
        colour, marker = CYCLE[number % len(CYCLE)], MARKERS[number // len(CYCLE) % len(MARKERS)]
        panel.plot(rows["epoch"], rows["mean"], color=colour, marker=marker, markersize=4, label=plain(run))
        panel.fill_between(
            rows["epoch"], rows["mean"] - rows["std"], rows["mean"] + rows["std"], color=colour, alpha=0.15, linewidth=0
        )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.set(xlabel="epoch", ylabel="mean AUC of the findings")
    figure.legend(fontsize=9.5, frameon=False, loc="outside right center")
    return figure


def plot_matrix(
    values: pd.DataFrame, *, title: str, source: str, text: Sequence[Sequence[str]], is_signed: bool = False
) -> Figure:
    """A square table of labels against labels in colour, with `text` in its cells."""
    figure = start_figure(max(3.0, 0.42 * len(values) + 1.9), title, source)
    panel = figure.subplots()
    array = values.to_numpy(float)
    strongest = np.nanmax(np.abs(array)) if np.isfinite(array).any() else 1
    limits = {"cmap": "RdBu_r", "vmin": -strongest, "vmax": strongest} if is_signed else {"cmap": "Blues", "vmin": 0}
    panel.imshow(array, **limits)
    names = [display_name(label) for label in values.index]
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=9.5)
    panel.set_yticks(range(len(names)), names, fontsize=9.5)
    for i, row in enumerate(text):
        for j, cell in enumerate(row):
            dark = np.isfinite(array[i, j]) and abs(array[i, j]) > 0.6 * strongest
            panel.text(j, i, cell, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return figure


def plot_histograms(parts: Mapping[str, np.ndarray], bins: np.ndarray, *, title: str, x: str, source: str) -> Figure:
    """The shares of two sets in the same bins, side by side."""
    figure = start_figure(3.9, title, source)
    panel = figure.subplots()
    width = 0.8 / len(parts)
    for number, ((part, values), colour, hatch) in enumerate(zip(parts.items(), (BLUE, RED), ("", "//"), strict=False)):
        counts, _ = np.histogram(values, bins)
        places = np.arange(len(counts)) + (number - (len(parts) - 1) / 2) * width
        shares = counts / max(len(values), 1)
        panel.bar(places, shares, width, color=colour, hatch=hatch, edgecolor="white", label=part)
    last = len(bins) - 2
    names = [
        f"{low:g}" + ("" if high == low + 1 else " and more" if number == last else f" to {high - 1:g}")
        for number, (low, high) in enumerate(itertools.pairwise(bins))
    ]
    panel.set_xticks(range(len(names)), names, fontsize=9.5)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set(xlabel=x, ylabel="share")
    panel.legend(fontsize=9.5, frameon=False)
    return figure
