"""Figures with heat maps in them, and of what heat maps score."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrkeras.explain.overlay import blend_map
from cxrkeras.labels import display_name
from cxrkeras.reports.figures import BLUE, CYCLE, GREY, MARKERS, ORANGE, start_figure
from cxrkeras.text import format_share, plain


def plot_mistakes(
    mistakes: pd.DataFrame, pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], *, source: str
) -> Figure:
    """Images on the wrong side of a threshold, each next to the heat map of the finding.

    mistakes: image_id, label, kind, prob, threshold; pairs: a grey image, uint8 (S, S), and a raw map (h, w) or None.
    """
    columns = 3
    rows = -(-len(mistakes) // columns)
    figure = start_figure(2.35 * rows + 0.9, "The most confident mistakes", source)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for panel, row, (grey, heat) in zip(panels, mistakes.itertuples(), pairs, strict=False):
        colour = np.repeat(grey[..., None], 3, axis=-1)
        gap = np.full((len(grey), max(1, len(grey) // 40), 3), 255, np.uint8)
        shown = [colour] if heat is None else [colour, gap, blend_map(grey, heat)]
        panel.imshow(np.concatenate(shown, axis=1))
        if heat is not None and not (heat > 0).any():
            _note_emptiness(panel, 0.75)
        panel.set_title(
            f"{row.kind}: {display_name(row.label)}\n{format_share(row.prob)}, threshold "
            f"{format_share(row.threshold)}; {plain(row.image_id[-24:])}",
            fontsize=8.5,
        )
    return figure


def _note_emptiness(panel: Axes, x: float) -> None:
    panel.text(
        x, 0.04, "no evidence", transform=panel.transAxes, ha="center", fontsize=9, color="white",
        bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0},
    )  # fmt: skip


def plot_pointing(
    by_method: Mapping[str, pd.DataFrame], findings: Sequence[str], methods: Sequence[str], *, source: str
) -> Figure:
    """The pointing game of each finding, a mark per method; the first one with its interval.

    by_method: a table per method with a row per finding and columns pointing, pointing_low, pointing_high, cases.
    """
    figure = start_figure(0.4 * len(findings) + 1.9, "Pointing game", source)
    panel = figure.subplots()
    places = np.arange(len(findings))
    for method, colour, marker in zip(methods, (BLUE, ORANGE, GREY), "oD|", strict=True):
        rows = by_method[method].loc[list(findings)]
        if method == methods[0]:
            panel.hlines(places, rows["pointing_low"], rows["pointing_high"], color=colour, linewidth=2)
        panel.plot(
            rows["pointing"], places, marker=marker, color=colour, linestyle="none",
            markersize=12 if marker == "|" else 7, markeredgewidth=2, label=method,
        )  # fmt: skip
    cases = by_method[methods[0]].loc[list(findings), "cases"]
    panel.set_yticks(places, [f"{display_name(name)} ({count:,})" for name, count in cases.items()], fontsize=9.5)
    panel.invert_yaxis()
    panel.set(xlim=(-0.02, 1.02), xlabel="share of boxed findings")
    panel.grid(axis="x", color="#E3E7EC")
    panel.set_axisbelow(True)
    figure.legend(fontsize=9.5, frameon=False, loc="outside upper right", ncols=3)
    return figure


def plot_hit_rates(
    by_method: Mapping[str, pd.DataFrame], finding: str, levels: Sequence[float], *, source: str
) -> Figure:
    """The share of cases that reach each level of IoU and of IoBB, a line per method."""
    figure = start_figure(3.9, "Overlap of heat map and box", source)
    for panel, (score, name) in zip(
        figure.subplots(1, 2, sharey=True), (("iou", "IoU"), ("iobb", "IoBB")), strict=True
    ):
        for number, (method, rows) in enumerate(by_method.items()):
            rates = [rows.loc[finding, f"{score}>={level}"] for level in levels]
            panel.plot(levels, rates, color=CYCLE[number], marker=MARKERS[number], markersize=4, label=method)
        panel.set(xlabel=f"{name} of at least", ylim=(-0.02, 1.02), xticks=levels)
        panel.grid(color="#E3E7EC")
    panel.figure.axes[0].set_ylabel("share of boxed findings")
    figure.legend(*panel.get_legend_handles_labels(), fontsize=9.5, frameon=False, loc="outside right upper")
    return figure


def plot_cases(panels: Mapping[str, Sequence[tuple]], *, source: str) -> Figure:
    """A row of images per kind: grey image, raw map, true boxes (K, 4), image id and finding, IoU."""
    columns = max(len(cases) for cases in panels.values())
    figure = start_figure(3.05 * len(panels) + 0.8, "Heat maps and true boxes", source)
    axes = figure.subplots(len(panels), columns, squeeze=False)
    for row, (kind, cases) in zip(axes, panels.items(), strict=True):
        for panel in row:
            panel.axis("off")
        for panel, (grey, heat, boxes, (image, finding), iou) in zip(row, cases, strict=False):
            panel.imshow(blend_map(grey, heat))
            if not (heat > 0).any():
                _note_emptiness(panel, 0.5)
            for x, y, width, height in boxes * len(grey):
                panel.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="white", linewidth=1.5))
            panel.set_title(f"{kind}: {display_name(finding)}, IoU {iou:.2f}\n{plain(image, 40)}", fontsize=9)
    return figure
