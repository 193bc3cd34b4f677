"""Heat maps against the true boxes: a page, its figures and tables."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.config import CONFIG
from cxrkeras.data.dataset import TEST
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_gradcam
from cxrkeras.explain.localisation import (
    CENTRE,
    CUT,
    DRAWS,
    LEVELS,
    RANDOM,
    draw_mask,
    group_boxes,
    measure_case,
    measure_controls,
)
from cxrkeras.explain.variants import build_gradcam_plus_plus, build_scorecam
from cxrkeras.files import load_shaped, write_text
from cxrkeras.models.classifier import FEATURES
from cxrkeras.models.compiled import load_network
from cxrkeras.records.batches import read_images
from cxrkeras.records.manifest import load_boxes, load_index, load_manifest
from cxrkeras.reports import map_figures
from cxrkeras.reports.figures import spell
from cxrkeras.reports.page import Page, Picture, Section, Table, save_page
from cxrkeras.scoring.find_runs import LOCALISATION, METRICS, MODEL, Config, Metrics
from cxrkeras.scoring.intervals import REPLICATES, bootstrap_mean, find_interval
from cxrkeras.text import num_of

GRADCAM, GRADCAM_PLUS_PLUS, SCORECAM = "Grad-CAM", "Grad-CAM++", "Score-CAM"
ALL = "all findings"
BATCH = 16
SCORES = ["pointing", "iou", "iobb", *(f"{name}>={level}" for name in ("iou", "iobb") for level in LEVELS)]


def localise(
    folder: Path,
    *,
    sample: int = 20,
    channels: int = 64,
    seed: int = 0,
    replicates: int = REPLICATES,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> tuple[Path, pd.DataFrame]:
    """Score the heat maps of a fold against the boxes of its records, and write `localisation/` in its folder.

    Grad-CAM and Grad-CAM++ are run on every image and finding of the test part that has a box, Score-CAM on a random
    `sample` of them with at most `channels` channels of the features. Returns the page and the table of scores:
    method, label, cases, images, patients, seconds (a case), and each score with `_low` and `_high`. Raises
    InputError without a network, records or boxes.
    """
    if not (folder / MODEL).is_file():
        raise InputError(f"{folder} has no {MODEL}: heat maps need a network of its own, which an ensemble has not")
    if sample < 0 or channels < 1:
        raise InputError(f"SAMPLE is 0 or more and CHANNELS 1 or more; got {sample} and {channels}")
    metrics = load_shaped(folder / METRICS, Metrics)
    config = load_shaped(folder / CONFIG, Config)
    records = Path(metrics["records"])
    manifest, index = load_manifest(records), load_index(records).set_index("image_id")
    if manifest.fingerprint != config["records_fingerprint"]:
        raise InputError(f"{records} holds other data than {folder} was trained on: make the records anew")
    boxes = load_boxes(records)
    in_test = boxes["image_id"].map(index["split"]) == TEST
    cases = group_boxes(boxes[in_test])
    if not cases:
        raise InputError(
            f"{records} has no box on an image of the test part ({len(boxes):,} elsewhere): nothing to score"
        )
    network = load_network(folder / MODEL)
    cells = network.get_layer(FEATURES).output.shape[1]
    images = read_images(records, sorted({image for image, _ in cases}))
    keys = list(cases)
    chosen = sorted(np.random.default_rng(seed).permutation(len(keys))[:sample])
    rows, maps = [], {}
    for method, numbers in ((GRADCAM, range(len(keys))), (GRADCAM_PLUS_PLUS, range(len(keys))), (SCORECAM, chosen)):
        if not len(numbers):
            continue
        part = [keys[number] for number in numbers]
        heats, seconds = _explain(network, method, part, images, channels, progress)
        if method == GRADCAM:
            maps = dict(zip(part, heats, strict=True))
        for key, heat in zip(part, heats, strict=True):
            mask = draw_mask(cases[key], manifest.size)
            rows.append(
                _describe(key, index, mask, cells) | {"method": method, "seconds": seconds} | measure_case(heat, mask)
            )
    rng = np.random.default_rng(seed)
    for key in keys:
        mask = draw_mask(cases[key], manifest.size)
        for control, scores in measure_controls(cases[key], mask, rng).items():
            rows.append(_describe(key, index, mask, cells) | {"method": control, "seconds": np.nan} | scores)
    table = pd.DataFrame(rows)
    scores = _summarise(table, replicates, seed).assign(split_name=metrics["split_name"], part=TEST)
    patients = table["patient_id"].nunique()
    kind = "synthetic phantoms, " if metrics["is_synthetic"] else ""
    source = (
        f"{folder.parent.name}/{folder.name}; {kind}test part of split {metrics['split_name']}: {len(keys):,} boxed "
        f"findings on {num_of(len(images), 'image')} of {num_of(patients, 'patient')}"
    )
    page = _build_page(
        folder, metrics, scores, table, (keys, cases, maps, images), cells, source, len(chosen), channels
    )
    out = folder / LOCALISATION
    save_page(page, out / f"{LOCALISATION}.html")
    write_text(out / "cases.csv", table.to_csv(index=False, float_format="%.5g"))
    write_text(out / "scores.csv", scores.to_csv(index=False))
    return out / f"{LOCALISATION}.html", scores


def _explain(network, method, keys, images, channels, progress) -> tuple[list[np.ndarray], float]:
    """Raw maps of the cases by one method, and the seconds each took once the first batch was through."""
    explain = {
        GRADCAM: lambda: _choose_columns(build_gradcam(network, FEATURES)),
        GRADCAM_PLUS_PLUS: lambda: build_gradcam_plus_plus(network),
        SCORECAM: lambda: build_scorecam(network, channels),
    }[method]()
    heats, batch = [], 1 if method == SCORECAM else BATCH
    started, counted = time.monotonic(), 0
    for start in range(0, len(keys), batch):
        part = keys[start : start + batch]
        stack = np.stack([images[image] for image, _ in part]).astype(np.float32)[..., None]
        columns = [labels.LABELS.index(label) for _, label in part]
        heats += list(explain(stack, columns))
        if start == 0 and len(keys) > batch:
            started = time.monotonic()  # the first one compiles
        else:
            counted += len(part)
        progress(method, len(heats), len(keys))
    return heats, (time.monotonic() - started) / counted


def _choose_columns(explain: Callable) -> Callable:
    """Grad-CAM of all labels as a function of images and a label's column for each."""
    return lambda images, columns: explain(images)[1][np.arange(len(images)), columns]


def _describe(key: tuple[str, str], index: pd.DataFrame, mask: np.ndarray, cells: int) -> dict:
    image, label = key
    return {
        "image_id": image,
        "patient_id": index.loc[image, "patient_id"],
        "label": label,
        "cells": mask.mean() * cells * cells,
    }


def _summarise(table: pd.DataFrame, replicates: int, seed: int) -> pd.DataFrame:
    rows = []
    for method, of_method in table.groupby("method", sort=False):
        for label, part in ((ALL, of_method), *of_method.groupby("label", sort=True)):
            values = part[SCORES].to_numpy(float)
            drawn = bootstrap_mean(values, part["patient_id"].to_numpy(), replicates=replicates, seed=seed)
            row = {
                "method": method,
                "label": label,
                "cases": len(part),
                "images": part["image_id"].nunique(),
                "patients": part["patient_id"].nunique(),
                "cells": part["cells"].median(),
                "seconds": part["seconds"].mean(),
            }
            for k, score in enumerate(SCORES):
                interval = find_interval(drawn[:, k])
                row |= {score: values[:, k].mean(), f"{score}_low": interval.low, f"{score}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _cell(row: pd.Series, score: str) -> str:
    return f"{row[score]:.2f} ({row[f'{score}_low']:.2f} to {row[f'{score}_high']:.2f})"


def _build_page(folder, metrics, scores, table, drawn, cells, source, num_sampled, channels) -> Page:
    by_method = {method: rows.set_index("label") for method, rows in scores.groupby("method", sort=False)}
    gradcam = by_method[GRADCAM]
    findings = [ALL, *(label for label in labels.FINDINGS if label in gradcam.index)]
    pointing_rows, overlap_rows = [], []
    for label in findings:
        row = gradcam.loc[label]
        controls = [f"{by_method[name].loc[label, 'pointing']:.2f}" for name in (RANDOM, CENTRE)]
        counts = [f"{row['cases']:,}", f"{row['patients']:,}", f"{row['cells']:.1f}"]
        pointing_rows.append([spell(label), *counts, _cell(row, "pointing"), *controls])
        overlap_rows.append(
            [spell(label), f"{row['cases']:,}", _cell(row, "iou"), f"{by_method[RANDOM].loc[label, 'iou']:.2f}",
             f"{by_method[CENTRE].loc[label, 'iou']:.2f}", *(f"{row[f'iobb>={level}']:.2f}" for level in LEVELS)]
        )  # fmt: skip
    method_rows = []
    for method in by_method:
        row = by_method[method].loc[ALL]
        seconds = f"{row['seconds']:.3f}" if np.isfinite(row["seconds"]) else ""
        method_rows.append(
            [method, f"{row['cases']:,}", *(_cell(row, score) for score in ("pointing", "iou", "iobb>=0.1")), seconds]
        )
    keys, cases, maps, images = drawn
    empty = sum(not (heat > 0).any() for heat in maps.values())
    of_gradcam = table[table["method"] == GRADCAM].reset_index(drop=True)
    order = of_gradcam.sort_values(["iou", "pointing"], ascending=False, kind="stable").index.to_numpy()
    count = min(4, max(1, len(order) // 3))
    middle = max(0, len(order) // 2 - count // 2)
    sheet = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }
    panels = {
        kind: [(images[keys[n][0]], maps[keys[n]], cases[keys[n]], keys[n], of_gradcam.loc[n, "iou"]) for n in numbers]
        for kind, numbers in sheet.items()
    }
    small = [label for label in findings[1:] if gradcam.loc[label, "cells"] < 1]
    size_text = (
        f"The last feature map has {cells} x {cells} cells; the column of cells says how many of them the boxes of a "
        "finding cover in the median."
    )
    if small:
        size_text += (
            f" Smaller than one cell, so that no map of this network can outline it: {', '.join(map(spell, small))}."
        )
    texts = [
        f"A heat map is cut at {CUT:g} of its maximum. That was fixed in advance, as the boxes lie in the test "
        f"part and "
        "must not choose it. Pointing game: the largest value of the map lies inside a box. IoU and IoBB: the "
        "overlap with "
        "the detected area over the union, and over the detected area (Wang et al., CVPR 2017). Several boxes of "
        "a finding "
        "in an image count as one area. A map without evidence misses.",
        f"Random box: the true box's size put at {DRAWS} random places, or a random point. Centre box: the same in the "
        "middle. Both know the true size, which no heat map does.",
        "Intervals are 95 % intervals of a bootstrap over patients.",
    ]
    warnings = []
    if metrics["is_synthetic"]:
        warnings.append("Trained and scored on synthetic phantoms. It says nothing about radiographs of patients.")
    if cells <= 2:
        warnings.append(f"The feature map has {cells} x {cells} cells: it cannot show a place. Take larger images.")
    if empty:
        warnings.append(
            f"{empty:,} of {len(keys):,} heat maps of Grad-CAM have no evidence at all and count as misses."
        )
    if len(keys) < 100:
        warnings.append(f"Only {len(keys)} boxed findings: a smoke test, which ranks nothing.")
    sections = [
        Section(
            "Pointing game",
            [size_text],
            pictures=[
                Picture(
                    "pointing",
                    map_figures.plot_pointing(by_method, findings, (GRADCAM, RANDOM, CENTRE), source=source),
                    "Share of boxed findings whose heat map is largest inside the box, with its 95 % interval, "
                    "and what "
                    "a random point and the centre would reach.",
                )
            ],
            tables=[
                Table(
                    ["finding", "boxed", "patients", "cells", "pointing (95 % interval)", RANDOM, CENTRE],
                    pointing_rows,
                    source,
                )
            ],
        ),
        Section(
            "Overlap with the box",
            pictures=[
                Picture(
                    "overlap",
                    map_figures.plot_hit_rates(by_method, ALL, LEVELS, source=source),
                    "Share of boxed findings whose overlap reaches each level, of all findings together.",
                )
            ],
            tables=[
                Table(
                    ["finding", "boxed", "mean IoU (95 % interval)", f"IoU,\n{RANDOM}", f"IoU,\n{CENTRE}",
                     *(f"IoBB\n\u2265 {level}" for level in LEVELS)],
                    overlap_rows,
                    source,
                )
            ],
        ),
        Section(
            "Methods",
            [
                f"Grad-CAM is cxrkeras' own, the others are those of tf-keras-vis. Score-CAM was run on {num_sampled} "
                f"boxed findings drawn at random, with the {channels} channels of the features that vary most; "
                f"compare it "
                "with the others only loosely, as they were run on all. Seconds are for one finding of one image, the "
                "first batch left out."
            ],
            tables=[
                Table(["method", "boxed", "pointing", "mean IoU", "IoBB \u2265 0.1", "seconds"], method_rows, source)
            ],
        ),
        Section(
            "Best, median and worst cases",
            ["By IoU of Grad-CAM, over all findings. The true box is white; each map is scaled to its own maximum."],
            pictures=[
                Picture("cases", map_figures.plot_cases(panels, source=source), "Heat maps of Grad-CAM and true boxes.")
            ],
        ),
    ]  # fmt: skip
    row = gradcam.loc[ALL]
    lede = [
        f"Grad-CAM points into the box in {_cell(row, 'pointing')} of the boxed findings; a random point would in "
        f"{by_method[RANDOM].loc[ALL, 'pointing']:.2f}.",
        f"Source: {source}.",
        *texts,
    ]
    return Page(f"Localisation of {folder.parent.name}/{folder.name}", lede, warnings, sections)
