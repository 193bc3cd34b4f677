"""Boxes around findings: merged over readers, and scaled to fractions of their images."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.dataset import BOX_COLUMNS
from cxrkeras.data.images import open_image, read_header
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

CORNERS = ("x_min", "y_min", "x_max", "y_max")
MANY_OUTSIDE = 0.02  # share of boxes outside of their images from which these were resized
SAME_BOX = 0.4  # intersection over union from which two boxes count as one, as in the VinBigData challenge


def merge_boxes(boxes: pd.DataFrame) -> pd.DataFrame:
    """Merge the boxes of one label in one image that overlap by SAME_BOX, directly or by others between them.

    boxes: image_id, label, reader and CORNERS. Returns image_id, label, CORNERS, the means of each group, and
    num_readers, who drew one of them.
    """
    merged = []
    for (image_id, label), rows in boxes.groupby(["image_id", "label"], sort=False):
        corners, readers = rows[list(CORNERS)].to_numpy(), rows["reader"].to_numpy()
        groups = _group_boxes(corners)
        for group in np.unique(groups):
            mean = corners[groups == group].mean(axis=0)
            merged.append((image_id, label, *mean, len(set(readers[groups == group]))))
    return pd.DataFrame(merged, columns=["image_id", "label", *CORNERS, "num_readers"])


def _group_boxes(corners: np.ndarray) -> np.ndarray:
    """Number the groups of overlapping boxes (N, 4), int64 (N,)."""
    groups = np.arange(len(corners))
    if len(corners) == 1:
        return groups
    low, high = corners[:, None, :2], corners[:, None, 2:]
    shared = np.clip(np.minimum(high, corners[:, 2:]) - np.maximum(low, corners[:, :2]), 0, None).prod(axis=2)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    is_same = shared >= SAME_BOX * np.maximum(areas[:, None] + areas - shared, 1e-9)
    for first, second in np.argwhere(np.triu(is_same, 1)):
        groups[groups == groups[second]] = groups[first]
    return groups


def scale_to_files(boxes: pd.DataFrame, paths: dict[str, str | None], notes: list[str]) -> pd.DataFrame:
    """Scale boxes with CORNERS in pixels to BOX_COLUMNS, by the sizes of the image files at `paths`.

    Boxes of images that are missing or unreadable are left out; so are, with a note, those of images with a box that is
    empty or outside, and all boxes where many are outside, as the images were resized then.
    """
    sizes = {}
    for image_id in boxes["image_id"].unique():
        if path := paths.get(image_id):
            try:
                with open_image(Path(path)) as content:
                    header = read_header(content)
            except (InputError, OSError):
                continue  # the records will skip the image and say why
            sizes[image_id] = (header.width, header.height)
    boxes = boxes[boxes["image_id"].isin(sizes)]
    frame = np.array([sizes[image_id] for image_id in boxes["image_id"]], float).reshape(-1, 2)
    corners = boxes[list(CORNERS)].to_numpy(float) / np.tile(frame, 2)
    is_outside = (corners < 0).any(axis=1) | (corners > 1).any(axis=1)
    wrong = is_outside | (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    if is_outside.mean() > MANY_OUTSIDE:
        notes.append(
            f"all {len(boxes):,} boxes left out: {int(is_outside.sum()):,} lie outside of their images, which are "
            "therefore not of the original size, in whose pixels the boxes are"
        )
        wrong[:] = True
    elif wrong.any():
        wrong = boxes["image_id"].isin(boxes["image_id"][wrong]).to_numpy()
        count = num_of(int(wrong.sum()), "box")
        notes.append(f"{count} of {len(boxes):,} left out, of images with a box that is empty or outside")
    scaled = pd.DataFrame(np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]), boxes.index, BOX_COLUMNS[2:])
    return boxes[["image_id", "label"]].join(scaled)[~wrong].reset_index(drop=True)


def frame_boxes(boxes: pd.DataFrame, frame: int) -> pd.DataFrame:
    """Scale boxes with BOX_COLUMNS in pixels of images of `frame` x `frame` pixels to fractions."""
    return boxes.assign(**boxes[BOX_COLUMNS[2:]].astype(float) / frame)[BOX_COLUMNS]
