"""Localisation metrics for heat maps against ground-truth boxes, with random and centred control boxes."""

import numpy as np
import pandas as pd

from cxrkeras.explain.overlay import upsample_map

THRESHOLD = 0.5  # of a map's maximum; fixed in advance, because the boxes are in the test set
LEVELS = tuple(round(0.1 * step, 1) for step in range(1, 10))
DRAWS = 200  # random boxes per case
RANDOM, CENTRE = "random box", "centre box"


def build_mask(boxes: np.ndarray, size: int) -> np.ndarray:
    """Mark the pixels that boxes touch, bool (size, size); boxes: x, y, width, height as fractions, (K, 4)."""
    mask = np.zeros((size, size), bool)
    for x, y, width, height in boxes * size:
        left, top = min(int(x), size - 1), min(int(y), size - 1)
        mask[top : max(top + 1, int(np.ceil(y + height))), left : max(left + 1, int(np.ceil(x + width)))] = True
    return mask


def measure_map(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare a raw map, float (h, w), with the ground-truth pixels, bool (S, S).

    pointing: 1 if the maximum lies inside (pointing game of Zhang et al., ECCV 2016, without tolerance); iou and iobb:
    the intersection with the detected area, where the map is at least half its maximum, over the union and over the
    detected area (Wang et al., CVPR 2017). A map without evidence has no maximum and detects nothing.
    """
    smooth = upsample_map(heat, len(mask))
    if not smooth.any():
        return {"pointing": 0.0, "iou": 0.0, "iobb": 0.0}
    detected = smooth >= THRESHOLD * smooth.max()
    return {"pointing": float(mask.flat[smooth.argmax()]), **_overlap(detected, mask)}


def _overlap(detected: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    intersection = (detected & mask).sum()
    return {"iou": float(intersection / (detected | mask).sum()), "iobb": float(intersection / detected.sum())}


def measure_controls(boxes: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Measure control boxes of the true size, at random positions and centred, and control points likewise.

    boxes: ground truth, (K, 4) fractions, of which the largest gives the size; mask: as in `measure_map`. The random
    control is the mean over 200 positions, and for each level the share of them that reach it, as `iou>=0.1`.
    """
    size = len(mask)
    _, _, width, height = boxes[np.argmax(boxes[:, 2] * boxes[:, 3])]
    width, height = min(width, 1.0), min(height, 1.0)
    # A summed-area table gives the sum over a rectangle from its four corners.
    table = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    wide, tall = (min(max(1, round(side * size)), size) for side in (width, height))
    left, top = (rng.integers(0, size - side + 1, DRAWS) for side in (wide, tall))
    positions = {
        RANDOM: (left, top, float(mask.mean())),
        CENTRE: (np.array([(size - wide) // 2]), np.array([(size - tall) // 2]), float(mask[size // 2, size // 2])),
    }
    results = {}
    for name, (x, y, pointing) in positions.items():
        intersection = table[y + tall, x + wide] - table[y, x + wide] - table[y + tall, x] + table[y, x]
        iou, iobb = intersection / (mask.sum() + wide * tall - intersection), intersection / (wide * tall)
        means = {"pointing": pointing, "iou": float(iou.mean()), "iobb": float(iobb.mean())}
        results[name] = means | _shares_at_levels(iou, iobb)
    return results


def _shares_at_levels(iou: np.ndarray, iobb: np.ndarray) -> dict[str, float]:
    """Compute the share of values that reach each level."""
    return {
        f"{name}>={level}": float((values >= level).mean())
        for name, values in (("iou", iou), ("iobb", iobb))
        for level in LEVELS
    }


def measure_case(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compute `measure_map`, with 1 for each level that is reached and 0 for the others."""
    found = measure_map(heat, mask)
    return found | _shares_at_levels(np.array([found["iou"]]), np.array([found["iobb"]]))


def group_boxes(boxes: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Group boxes, (K, 4) fractions, by image and finding."""
    sides = ["x", "y", "width", "height"]
    return {key: rows[sides].to_numpy(float) for key, rows in boxes.groupby(["image_id", "label"], sort=True)}
