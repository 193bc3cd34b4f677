"""How well heat maps meet the true boxes, and how well boxes would that know nothing."""

import numpy as np
import pandas as pd

from cxrkeras.explain.overlay import upsample_map

CUT = 0.5  # of a map's maximum; fixed in advance, as the boxes lie in the test part and must not choose it
LEVELS = tuple(round(0.1 * step, 1) for step in range(1, 10))
DRAWS = 200  # random boxes a case
RANDOM, CENTRE = "random box", "centre box"


def draw_mask(boxes: np.ndarray, size: int) -> np.ndarray:
    """Pixels, bool (size, size), that boxes touch; boxes: x, y, width, height as fractions, (K, 4)."""
    mask = np.zeros((size, size), bool)
    for x, y, width, height in boxes * size:
        left, top = min(int(x), size - 1), min(int(y), size - 1)
        mask[top : max(top + 1, int(np.ceil(y + height))), left : max(left + 1, int(np.ceil(x + width)))] = True
    return mask


def measure_map(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compare a raw map, float (h, w), with the true pixels, bool (S, S).

    pointing: 1 if the largest value lies inside (Zhang et al., ECCV 2016, without tolerance); iou and iobb: the overlap
    with the detected area, where the map is at least half its maximum, over the union and over the detected area
    (Wang et al., CVPR 2017). A map without evidence points nowhere and detects nothing.
    """
    smooth = upsample_map(heat, len(mask))
    if not smooth.any():
        return {"pointing": 0.0, "iou": 0.0, "iobb": 0.0}
    detected = smooth >= CUT * smooth.max()
    return {"pointing": float(mask.flat[smooth.argmax()]), **_overlap(detected, mask)}


def _overlap(detected: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    shared = (detected & mask).sum()
    return {"iou": float(shared / (detected | mask).sum()), "iobb": float(shared / detected.sum())}


def measure_controls(boxes: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """What a box of the true size would reach, put anywhere and put in the middle, and a point likewise.

    boxes: the true ones, (K, 4) fractions, of which the largest gives the size; mask as in `measure_map`. The random
    control is the mean over 200 places, and at each level the share of them that reach it: `iou>=0.1` and so on.
    """
    size = len(mask)
    _, _, width, height = boxes[np.argmax(boxes[:, 2] * boxes[:, 3])]
    width, height = min(width, 1.0), min(height, 1.0)
    # Sums over rectangles from a table of sums, as each place is one of four corners' differences.
    table = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    wide, tall = (min(max(1, round(side * size)), size) for side in (width, height))
    left, top = (rng.integers(0, size - side + 1, DRAWS) for side in (wide, tall))
    places = {
        RANDOM: (left, top, float(mask.mean())),
        CENTRE: (np.array([(size - wide) // 2]), np.array([(size - tall) // 2]), float(mask[size // 2, size // 2])),
    }
    results = {}
    for name, (x, y, pointing) in places.items():
        shared = table[y + tall, x + wide] - table[y, x + wide] - table[y + tall, x] + table[y, x]
        iou, iobb = shared / (mask.sum() + wide * tall - shared), shared / (wide * tall)
        results[name] = {"pointing": pointing, "iou": float(iou.mean()), "iobb": float(iobb.mean())} | _reach(iou, iobb)
    return results


def _reach(iou: np.ndarray, iobb: np.ndarray) -> dict[str, float]:
    """The share of values that reach each level."""
    return {
        f"{name}>={level}": float((values >= level).mean())
        for name, values in (("iou", iou), ("iobb", iobb))
        for level in LEVELS
    }


def measure_case(heat: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """`measure_map` with 0 or 1 for each level that is reached."""
    found = measure_map(heat, mask)
    return found | _reach(np.array([found["iou"]]), np.array([found["iobb"]]))


def group_boxes(boxes: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """The boxes, (K, 4) fractions, of each image and finding."""
    sides = ["x", "y", "width", "height"]
    return {key: rows[sides].to_numpy(float) for key, rows in boxes.groupby(["image_id", "label"], sort=True)}
