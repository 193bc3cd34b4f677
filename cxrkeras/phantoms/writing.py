"""Writes a data set of phantoms in the layout of the NIH release, with ground-truth boxes.

For use without access to radiographs, and for tests that need the ground truth. A network trained on phantoms knows
nothing about patients.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.dataset import PHANTOM_FILE
from cxrkeras.data.nih_tables import BOX_FRAME, BOX_LIST, BOX_SPELLING, LABEL_FILES, TEST_LIST, TRAIN_VAL_LIST
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, write_json
from cxrkeras.phantoms.signs import draw_file
from cxrkeras.progress import SILENT, Progress

MILLIMETRES = 400  # of the image side

# Share of images with each finding. NIH: counts of Data_Entry_2017_v2020.csv over its 112,120 images.
BALANCED = dict.fromkeys(labels.NIH.findings, 0.15)
AS_NIH = {
    label: count / 112_120
    for label, count in zip(
        labels.NIH.findings,
        (11559, 2776, 4667, 2303, 13317, 2516, 1686, 227, 19894, 5782, 6331, 3385, 1431, 5302),
        strict=True,
    )
}
PREVALENCES = {"balanced": BALANCED, "nih": AS_NIH}

# Findings of one disease are correlated: heart failure, infection, smoking, tumour.
_DISEASES = (
    (labels.CARDIOMEGALY, labels.EDEMA, labels.EFFUSION),
    (labels.INFILTRATION, labels.CONSOLIDATION, labels.PNEUMONIA, labels.ATELECTASIS),
    (labels.EMPHYSEMA, labels.FIBROSIS, labels.PNEUMOTHORAX),
    (labels.MASS, labels.NODULE, labels.EFFUSION, labels.PLEURAL_THICKENING),
)


def sample_findings(num_images: int, prevalence: str, seed: int) -> pd.DataFrame:
    """Sample patients, their images and findings, without drawing.

    Returns one row per image: image_id, patient_id, follow_up, age, sex, view, is_test and a boolean column per
    finding. Findings follow a Gaussian copula with factors for diseases and for the patient; in both the training and
    the test set each finding has exactly the requested prevalence, and at least one image. About a fifth of the images,
    by whole patients, form the test set.
    """
    rng = np.random.default_rng([seed, 0])
    num_follow_ups = np.minimum(rng.geometric(0.35, num_images), 12)
    patient = np.repeat(np.arange(num_images), num_follow_ups)[:num_images] + 1
    num_patients = patient[-1]
    table = pd.DataFrame({"patient_id": patient})
    table["follow_up"] = table.groupby("patient_id").cumcount()
    table["image_id"] = [f"{p:08d}_{f:03d}.png" for p, f in zip(patient, table["follow_up"], strict=True)]
    index = patient - 1
    table["age"] = rng.integers(18, 90, num_patients)[index] + table["follow_up"]
    table["sex"] = np.where(rng.random(num_patients) < 0.45, "F", "M")[index]
    table["view"] = np.where(rng.random(num_images) < 0.4, "AP", "PA")

    order = rng.permutation(num_patients) + 1
    before = pd.Series(table.groupby("patient_id").size()[order].cumsum().shift(fill_value=0).to_numpy(), index=order)
    table["is_test"] = table["patient_id"].map(before) < 0.2 * num_images

    disease = rng.standard_normal((num_patients, len(_DISEASES)))
    for label in labels.NIH.findings:
        shared = sum(disease[:, i] for i, findings in enumerate(_DISEASES) if label in findings)
        of_patient = 0.5 * shared + 0.5 * rng.standard_normal(num_patients)
        risk = of_patient[index] + 0.7 * rng.standard_normal(num_images)
        positive = np.zeros(num_images, bool)
        for is_in_set in (table["is_test"], ~table["is_test"]):
            rows = np.flatnonzero(is_in_set)
            num_positives = min(max(1, round(PREVALENCES[prevalence][label] * len(rows))), len(rows))
            positive[rows[np.argsort(risk[rows])[len(rows) - num_positives :]]] = True
        table[label] = positive
    return table


def write_phantoms(
    folder: Path,
    *,
    num_images: int = 1200,
    size: int = 256,
    prevalence: str = "balanced",
    seed: int = 0,
    progress: Progress = SILENT,
) -> bool:
    """Write a data set of phantoms in the layout of the NIH release; equal settings give identical files.

    Returns False if the folder already holds this data set. Raises InputError if it holds anything else.
    """
    if num_images < 50 or not 64 <= size <= 1024:
        raise InputError(f"num_images must be at least 50 and size 64 to 1024; got {num_images} and {size}")
    if prevalence not in PREVALENCES:
        raise InputError(f"prevalence must be one of {', '.join(PREVALENCES)}; got {prevalence!r}")
    settings = {
        "synthetic": True,
        "drawing": 1,
        "images": num_images,
        "size": size,
        "prevalence": prevalence,
        "seed": seed,
    }
    marker, unfinished = folder / PHANTOM_FILE, folder / f"{PHANTOM_FILE}.unfinished"
    for path in (marker, unfinished):
        if path.exists() and (found := load_json(path)) != settings:
            raise InputError(
                f"{folder} holds phantoms with other settings, {found} instead of {settings}: choose another folder"
            )
    if marker.exists():
        return False
    if folder.exists() and any(folder.iterdir()) and not unfinished.exists():
        raise InputError(f"{folder} is not empty and holds no phantoms: choose another folder")

    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    write_json(unfinished, settings)
    table = sample_findings(num_images, prevalence, seed)
    tasks = [(images, size, seed, row) for row in table.to_dict("records")]
    advance, boxes = progress.start("drawing phantoms", num_images), []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for image_boxes in pool.map(draw_file, tasks, chunksize=16):
            boxes += image_boxes
            advance()
    write_tables(folder, table, boxes, size)
    unfinished.rename(marker)
    return True


def write_tables(folder: Path, table: pd.DataFrame, boxes: list[tuple], size: int) -> None:
    """Write label file, box file and split lists with the headers and spellings of the release.

    `table` is from `sample_findings`; `boxes` are image id, label, x, y, width, height as fractions.
    """
    spacing = MILLIMETRES / size
    lines = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    ]
    positives = table[list(labels.NIH.findings)].to_numpy()
    for row, findings in zip(table.itertuples(), positives, strict=True):
        text = labels.NIH.encode([*findings, not findings.any()])
        details = f"{row.follow_up},{row.patient_id},{row.age},{row.sex},{row.view}"
        lines.append(f"{row.image_id},{text},{details},{size},{size},{spacing},{spacing}")
    (folder / LABEL_FILES[0]).write_text("\n".join(lines) + "\n", "utf-8")
    spelling = {label: written for written, label in BOX_SPELLING.items()}
    box_lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for image_id, label, *box in boxes:
        box_lines.append(",".join([image_id, spelling.get(label, label), *(f"{BOX_FRAME * side:.3f}" for side in box)]))
    (folder / BOX_LIST).write_text("\n".join(box_lines) + "\n", "utf-8")
    for name, is_in_set in ((TEST_LIST, table["is_test"]), (TRAIN_VAL_LIST, ~table["is_test"])):
        (folder / name).write_text("\n".join(table["image_id"][is_in_set]) + "\n", "utf-8")
