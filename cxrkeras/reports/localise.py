"""Heat maps against the true boxes: a page, its figures and tables."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from cxrkeras.data.dataset import TEST
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_gradcam
from cxrkeras.explain.localisation import (
    CENTRE,
    DRAWS,
    LEVELS,
    RANDOM,
    THRESHOLD,
    build_mask,
    group_boxes,
    measure_case,
    measure_controls,
)
from cxrkeras.explain.variants import build_gradcam_plus_plus, build_scorecam
from cxrkeras.files import write_text
from cxrkeras.labels import LabelSet, display_name
from cxrkeras.models.classifier import FEATURES
from cxrkeras.models.compiled import load_network
from cxrkeras.progress import SILENT, Advance, Progress
from cxrkeras.reports import map_figures
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.reports.sections import build_pages
from cxrkeras.scoring.intervals import REPLICATES, bootstrap_mean, compute_interval
from cxrkeras.scoring.run import SYNTHETIC, Fold
from cxrkeras.scoring.run_files import LOCALISATION, MODEL
from cxrkeras.text import num_of

GRADCAM, GRADCAM_PLUS_PLUS, SCORECAM = "Grad-CAM", "Grad-CAM++", "Score-CAM"
EVERY = "all findings"
COARSEST = 2  # cells of a side that show no place
FEW_CASES = 100
BATCH = 16
SCORES = ["pointing", "iou", "iobb", *(f"{name}>={level}" for name in ("iou", "iobb") for level in LEVELS)]


@dataclass(frozen=True)
class Cases:
    """The boxed findings of the test set: their keys (image, label), true boxes, images, and where these are from."""

    keys: list[tuple[str, str]]
    boxes: dict[tuple[str, str], np.ndarray]
    images: dict[str, np.ndarray]
    index: pd.DataFrame
    size: int
    cells: int  # of a side of the last feature map
    labels: LabelSet

    def describe(self, key: tuple[str, str], mask: np.ndarray) -> dict:
        image, label = key
        return {
            "image_id": image,
            "patient_id": self.index.loc[image, "patient_id"],
            "label": label,
            "cells": mask.mean() * self.cells * self.cells,
        }


@dataclass(frozen=True)
class Localisation:
    """What heat maps score against boxes.

    path: of the page; scores: method, label, cases, images, patients, seconds (per case), and each score with `_low`
    and `_high`; table: the same of each case; maps: those of Grad-CAM, by case.
    """

    path: Path
    scores: pd.DataFrame
    table: pd.DataFrame
    maps: dict[tuple[str, str], np.ndarray]
    source: str
    num_sampled: int
    channels: int

    def by_method(self) -> dict[str, pd.DataFrame]:
        return {method: rows.set_index("label") for method, rows in self.scores.groupby("method", sort=False)}


def localise(
    fold: Fold,
    *,
    sample: int = 20,
    channels: int = 64,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Progress = SILENT,
) -> Localisation:
    """Score the heat maps of a fold against the boxes of its records, and write `localisation/` in its folder.

    Grad-CAM and Grad-CAM++ are run on every image and finding of the test set that has a box, Score-CAM on a random
    `sample` of them with at most `channels` channels of the features. Raises InputError without a network, records or
    boxes.
    """
    fold.require(MODEL)
    if sample < 0 or channels < 1:
        raise InputError(f"sample is 0 or more and channels 1 or more; got {sample} and {channels}")
    network = load_network(fold.folder / MODEL, fold.labels)
    cases = _find_cases(fold, network.get_layer(FEATURES).output.shape[1])
    chosen = sorted(np.random.default_rng(seed).permutation(len(cases.keys))[:sample])
    table, maps = _measure(network, cases, chosen, channels, seed, progress)
    metrics = fold.metrics
    scores = _summarise(table, replicates, seed).assign(split_name=metrics.split_name, part=TEST)
    kind = "synthetic phantoms, " if metrics.is_synthetic else ""
    source = (
        f"{fold.name}; {kind}test set of split {metrics.split_name}: {len(cases.keys):,} boxed findings on "
        f"{num_of(len(cases.images), 'image')} of {num_of(table['patient_id'].nunique(), 'patient')}"
    )
    out = fold.folder / LOCALISATION
    result = Localisation(out / f"{LOCALISATION}.html", scores, table, maps, source, len(chosen), channels)
    save_page(_build_page(fold, result, cases), result.path)
    write_text(out / "cases.csv", table.to_csv(index=False, float_format="%.5g"))
    write_text(out / "scores.csv", scores.to_csv(index=False))
    return result


def _find_cases(fold: Fold, cells: int) -> Cases:
    records, index = fold.records, fold.records.index.set_index("image_id")
    boxes = records.boxes
    wanted = boxes[(boxes["image_id"].map(index["split"]) == TEST) & boxes["label"].isin(fold.labels.names)]
    if not len(wanted):
        raise InputError(
            f"{records.folder} has no box of a label of this network on an image of the test set ({len(boxes):,} "
            "elsewhere): nothing to score"
        )
    by_key = group_boxes(wanted)
    images = records.read_images(sorted({image for image, _ in by_key}))
    return Cases(list(by_key), by_key, images, index, records.manifest.size, cells, fold.labels)


def _measure(
    network: keras.Model, cases: Cases, chosen: list[int], channels: int, seed: int, progress: Progress
) -> tuple[pd.DataFrame, dict[tuple[str, str], np.ndarray]]:
    """A row for each method, control and case; and the heat maps of Grad-CAM."""
    rows, maps = [], {}
    everything = range(len(cases.keys))
    for method, numbers in ((GRADCAM, everything), (GRADCAM_PLUS_PLUS, everything), (SCORECAM, chosen)):
        if not len(numbers):
            continue
        keys = [cases.keys[number] for number in numbers]
        heats, seconds = _explain(network, method, keys, cases, channels, progress.start(method, len(keys)))
        if method == GRADCAM:
            maps = dict(zip(keys, heats, strict=True))
        for key, heat in zip(keys, heats, strict=True):
            mask = build_mask(cases.boxes[key], cases.size)
            facts = {"method": method, "seconds": seconds}
            rows.append(cases.describe(key, mask) | facts | measure_case(heat, mask))
    rng = np.random.default_rng(seed)
    for key in cases.keys:
        mask = build_mask(cases.boxes[key], cases.size)
        for control, scores in measure_controls(cases.boxes[key], mask, rng).items():
            rows.append(cases.describe(key, mask) | {"method": control, "seconds": np.nan} | scores)
    return pd.DataFrame(rows), maps


def _explain(
    network: keras.Model,
    method: str,
    keys: list[tuple[str, str]],
    cases: Cases,
    channels: int,
    advance: Advance,
) -> tuple[list[np.ndarray], float]:
    """Raw maps of some cases by one method, and the seconds that each took, without the first batch."""
    explain = {
        GRADCAM: lambda: _choose_columns(build_gradcam(network, FEATURES)),
        GRADCAM_PLUS_PLUS: lambda: build_gradcam_plus_plus(network),
        SCORECAM: lambda: build_scorecam(network, channels),
    }[method]()
    heats, batch = [], 1 if method == SCORECAM else BATCH
    started, counted = time.monotonic(), 0
    for start in range(0, len(keys), batch):
        of_batch = keys[start : start + batch]
        stack = np.stack([cases.images[image] for image, _ in of_batch]).astype(np.float32)[..., None]
        heats += list(explain(stack, [cases.labels.index(label) for _, label in of_batch]))
        if start == 0 and len(keys) > batch:
            started = time.monotonic()  # the first one compiles
        else:
            counted += len(of_batch)
        advance(len(of_batch))
    return heats, (time.monotonic() - started) / counted


def _choose_columns(explain: Callable) -> Callable:
    """Grad-CAM of all labels as a function of images and a label's column for each."""
    return lambda images, columns: explain(images)[1][np.arange(len(images)), columns]


def _summarise(table: pd.DataFrame, replicates: int, seed: int) -> pd.DataFrame:
    rows = []
    for method, of_method in table.groupby("method", sort=False):
        for label, rows_of_label in ((EVERY, of_method), *of_method.groupby("label", sort=True)):
            values = rows_of_label[SCORES].to_numpy(float)
            drawn = bootstrap_mean(values, rows_of_label["patient_id"].to_numpy(), replicates=replicates, seed=seed)
            row = {
                "method": method,
                "label": label,
                "cases": len(rows_of_label),
                "images": rows_of_label["image_id"].nunique(),
                "patients": rows_of_label["patient_id"].nunique(),
                "cells": rows_of_label["cells"].median(),
                "seconds": rows_of_label["seconds"].mean(),
            }
            for k, score in enumerate(SCORES):
                interval = compute_interval(drawn[:, k])
                row |= {score: values[:, k].mean(), f"{score}_low": interval.low, f"{score}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _cell(row: pd.Series, score: str) -> str:
    return f"{row[score]:.2f} ({row[f'{score}_low']:.2f} to {row[f'{score}_high']:.2f})"


def _build_page(fold: Fold, result: Localisation, cases: Cases) -> Page:
    by_method = result.by_method()
    gradcam = by_method[GRADCAM]
    findings = [EVERY, *(label for label in fold.labels.findings if label in gradcam.index)]
    row = gradcam.loc[EVERY]
    lede = [
        f"Grad-CAM points into the box in {_cell(row, 'pointing')} of the boxed findings; a random point would in "
        f"{by_method[RANDOM].loc[EVERY, 'pointing']:.2f}.",
        f"Source: {result.source}.",
        *_explain_scores(),
    ]
    sections = [
        _build_pointing(by_method, findings, cases.cells, result.source),
        _build_overlap(by_method, findings, result.source),
        _build_methods(by_method, result),
        _build_examples(result, cases),
    ]
    return Page(f"Localisation of {fold.name}", lede, _write_warnings(fold, result, cases), sections)


def _explain_scores() -> list[str]:
    return [
        f"A heat map detects what is at least {THRESHOLD:g} of its maximum. That was fixed in advance, as the boxes "
        "lie in the test set and must not choose it. Pointing game: the largest value of the map lies inside a box. "
        "IoU and IoBB: the overlap with the detected area over the union, and over the detected area (Wang et al., "
        "CVPR 2017). Several boxes of a finding in an image count as one area. A map without evidence misses.",
        f"Random box: the true box's size put at {DRAWS} random places, or a random point. Centre box: the same in the "
        "middle. Both know the true size, which no heat map does.",
        "Intervals are 95 % intervals of a bootstrap over patients.",
    ]


def _write_warnings(fold: Fold, result: Localisation, cases: Cases) -> list[str]:
    warnings, num_cases = [SYNTHETIC] * fold.metrics.is_synthetic, len(cases.keys)
    if cases.cells <= COARSEST:
        warnings.append(
            f"The feature map has {cases.cells} x {cases.cells} cells: it cannot show a place. Take larger images."
        )
    if empty := sum(not (heat > 0).any() for heat in result.maps.values()):
        warnings.append(
            f"{empty:,} of {num_cases:,} heat maps of Grad-CAM have no evidence at all and count as misses."
        )
    if num_cases < FEW_CASES:
        warnings.append(f"Only {num_of(num_cases, 'boxed finding')}: a smoke test, which ranks nothing.")
    return warnings


def _build_pointing(by_method: dict[str, pd.DataFrame], findings: list[str], cells: int, source: str) -> Section:
    gradcam, rows = by_method[GRADCAM], []
    for label in findings:
        row = gradcam.loc[label]
        controls = [f"{by_method[name].loc[label, 'pointing']:.2f}" for name in (RANDOM, CENTRE)]
        counts = [f"{row['cases']:,}", f"{row['patients']:,}", f"{row['cells']:.1f}"]
        rows.append([display_name(label), *counts, _cell(row, "pointing"), *controls])
    text = (
        f"The last feature map has {cells} x {cells} cells; the column of cells says how many of them the boxes of a "
        "finding cover in the median."
    )
    if small := [label for label in findings[1:] if gradcam.loc[label, "cells"] < 1]:
        names = ", ".join(map(display_name, small))
        text += f" Smaller than one cell, so that no map of this network can outline it: {names}."
    pages = build_pages(
        "pointing",
        findings,
        lambda names: map_figures.plot_pointing(by_method, names, (GRADCAM, RANDOM, CENTRE), source=source),
        "Share of boxed findings whose heat map is largest inside the box, with its 95 % interval, and what a random "
        "point and the centre would reach.",
    )
    columns = ["finding", "boxed", "patients", "cells", "pointing (95 % interval)", RANDOM, CENTRE]
    return Section("Pointing game", [text], pictures=pages, tables=[Table(columns, rows, source)])


def _build_overlap(by_method: dict[str, pd.DataFrame], findings: list[str], source: str) -> Section:
    rows = []
    for label in findings:
        row = by_method[GRADCAM].loc[label]
        controls = [f"{by_method[name].loc[label, 'iou']:.2f}" for name in (RANDOM, CENTRE)]
        reached = [f"{row[f'iobb>={level}']:.2f}" for level in LEVELS]
        rows.append([display_name(label), f"{row['cases']:,}", _cell(row, "iou"), *controls, *reached])
    columns = ["finding", "boxed", "mean IoU (95 % interval)", f"IoU,\n{RANDOM}", f"IoU,\n{CENTRE}"]
    columns += [f"IoBB\n\u2265 {level}" for level in LEVELS]
    figure = map_figures.plot_hit_rates(by_method, EVERY, LEVELS, source=source)
    caption = "Share of boxed findings whose overlap reaches each level, of all findings together."
    picture = Picture("overlap", figure, caption)
    return Section("Overlap with the box", pictures=[picture], tables=[Table(columns, rows, source)])


def _build_methods(by_method: dict[str, pd.DataFrame], result: Localisation) -> Section:
    rows = []
    for method, table in by_method.items():
        row = table.loc[EVERY]
        seconds = f"{row['seconds']:.3f}" if np.isfinite(row["seconds"]) else ""
        scores = (_cell(row, score) for score in ("pointing", "iou", "iobb>=0.1"))
        rows.append([method, f"{row['cases']:,}", *scores, seconds])
    text = (
        f"Grad-CAM is cxrkeras' own, the others are those of tf-keras-vis. Score-CAM was run on {result.num_sampled} "
        f"boxed findings drawn at random, with the {result.channels} channels of the features that vary most; compare "
        "it with the others only loosely, as they were run on all. Seconds are for one finding of one image, the first "
        "batch left out."
    )
    columns = ["method", "boxed", "pointing", "mean IoU", "IoBB \u2265 0.1", "seconds"]
    return Section("Methods", [text], tables=[Table(columns, rows, result.source)])


def _build_examples(result: Localisation, cases: Cases) -> Section:
    """The best, median and worst cases, as pictures."""
    of_gradcam = result.table[result.table["method"] == GRADCAM].reset_index(drop=True)
    order = of_gradcam.sort_values(["iou", "pointing"], ascending=False, kind="stable").index.to_numpy()
    count = min(4, max(1, len(order) // 3))
    middle = max(0, len(order) // 2 - count // 2)
    chosen = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }
    panels = {}
    for kind, numbers in chosen.items():
        keys = [cases.keys[number] for number in numbers]
        panels[kind] = [
            (cases.images[key[0]], result.maps[key], cases.boxes[key], key, of_gradcam.loc[number, "iou"])
            for key, number in zip(keys, numbers, strict=True)
        ]
    figure = map_figures.plot_cases(panels, source=result.source)
    text = "By IoU of Grad-CAM, over all findings. The true box is white; each map is scaled to its own maximum."
    picture = Picture("cases", figure, "Heat maps of Grad-CAM and true boxes.")
    return Section("Best, median and worst cases", [text], pictures=[picture])
