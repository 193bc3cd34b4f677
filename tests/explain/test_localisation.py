"""Localisation metrics on maps with known results, and the page of a run."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import zoom

from cxrkeras.errors import InputError
from cxrkeras.explain.localisation import (
    CENTRE,
    LEVELS,
    RANDOM,
    build_mask,
    group_boxes,
    measure_case,
    measure_controls,
    measure_map,
)
from cxrkeras.explain.variants import build_gradcam_plus_plus, build_scorecam
from cxrkeras.files import load_json
from cxrkeras.models.classifier import FEATURES, build_classifier
from cxrkeras.records.folder import open_records
from cxrkeras.reports.localise import localise
from cxrkeras.scoring.run import Fold
from tests.support.networks import draw_images, draw_weights

SIZE = 64


def flat_map(top, left, side, cells=64):
    heat = np.zeros((cells, cells), np.float32)
    heat[top : top + side, left : left + side] = 3.0
    return heat


def test_masks_cover_the_pixels_that_boxes_touch():
    mask = build_mask(np.array([[0.25, 0.5, 0.25, 0.125], [0.0, 0.0, 0.001, 0.001]]), SIZE)
    assert mask[32:40, 16:32].all()
    assert mask[0, 0]
    assert mask.sum() == 8 * 16 + 1
    assert build_mask(np.array([[0.999, 0.999, 0.2, 0.2]]), SIZE).sum() == 1


def test_a_map_equal_to_the_box_has_full_overlap_and_one_outside_none():
    mask = build_mask(np.array([[0.25, 0.25, 0.25, 0.25]]), SIZE)
    assert measure_map(flat_map(16, 16, 16), mask) == {"pointing": 1.0, "iou": 1.0, "iobb": 1.0}
    assert measure_map(flat_map(40, 40, 16), mask) == {"pointing": 0.0, "iou": 0.0, "iobb": 0.0}
    half = measure_map(flat_map(16, 24, 16), mask)  # half of it inside
    assert half["iou"] == pytest.approx(1 / 3, abs=0.02)
    assert half["iobb"] == pytest.approx(1 / 2, abs=0.02)


def test_a_map_is_thresholded_at_half_its_maximum():
    heat = flat_map(0, 0, 64) * 0.3 + flat_map(16, 16, 16) * 0.7
    mask = build_mask(np.array([[0.25, 0.25, 0.25, 0.25]]), SIZE)
    assert measure_map(heat, mask)["iou"] == pytest.approx(1.0)
    assert measure_map(heat + 3, mask)["iou"] == pytest.approx(1 / 16)


@pytest.mark.parametrize("heat", [np.zeros((4, 4)), np.full((4, 4), np.nan), -np.ones((4, 4))])
def test_a_map_without_evidence_misses(heat):
    mask = np.ones((SIZE, SIZE), bool)
    assert measure_map(heat.astype(np.float32), mask) == {"pointing": 0.0, "iou": 0.0, "iobb": 0.0}


def test_a_case_reaches_levels_or_not():
    mask = build_mask(np.array([[0.25, 0.25, 0.25, 0.25]]), SIZE)
    case = measure_case(flat_map(16, 24, 16), mask)
    assert [case[f"iou>={level}"] for level in LEVELS] == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert case["iobb>=0.4"] == 1
    assert case["iobb>=0.6"] == 0


def test_controls_depend_only_on_the_size():
    box = np.array([[0.375, 0.375, 0.25, 0.25]])
    mask = build_mask(box, SIZE)
    controls = measure_controls(box, mask, np.random.default_rng(0))
    assert controls[CENTRE]["pointing"] == 1
    assert controls[CENTRE]["iou"] == pytest.approx(1)
    assert controls[RANDOM]["pointing"] == pytest.approx(1 / 16)
    # The mean overlap of all 16 x 16 squares in 64 x 64 with the one in the middle.
    overlaps = []
    for top in range(49):
        for left in range(49):
            other = np.zeros((SIZE, SIZE), bool)
            other[top : top + 16, left : left + 16] = True
            overlaps.append((mask & other).sum() / (mask | other).sum())
    assert controls[RANDOM]["iou"] == pytest.approx(np.mean(overlaps), abs=0.03)
    assert controls[RANDOM]["iou>=0.1"] == pytest.approx(np.mean(np.array(overlaps) >= 0.1), abs=0.06)
    whole = measure_controls(np.array([[0, 0, 1.2, 1.0]]), np.ones((SIZE, SIZE), bool), np.random.default_rng(0))
    assert whole[RANDOM]["iou"] == 1


@pytest.fixture(scope="module")
def network():
    network, images = build_classifier("resnet18", 64, 15), draw_images(6, 64).astype(np.float32)
    draw_weights(network, images)
    return network, images


def test_gradcam_plus_plus_explains_the_requested_label(network):
    network, images = network
    columns = network(images).numpy().argmax(axis=1).tolist()
    maps = build_gradcam_plus_plus(network)(images, columns)
    assert maps.shape == (6, 2, 2)
    assert (maps >= 0).all()
    alone = build_gradcam_plus_plus(network)(images[2:3], [columns[2]])
    np.testing.assert_allclose(maps[2], alone[0], rtol=1e-3, atol=1e-4 * maps[2].max())


def test_scorecam_weights_channels_by_the_sigmoid_of_the_label(network):
    """By its definition: each normalised channel masks the image, and the sigmoid is its weight."""
    network, images = network
    column = 4
    maps = build_scorecam(network, 512)(images[:1], [column])
    features = keras.Model(network.input, network.get_layer(FEATURES).output)(images[:1]).numpy()[0]
    large = zoom(features, (32, 32, 1), order=1, mode="nearest")
    low, high = large.min(axis=(0, 1)), large.max(axis=(0, 1))
    masks = np.moveaxis((large - low) / (high - low + 1e-7), -1, 0)
    logits = network.predict(images[:1] * masks[..., None], verbose=0)[:, column]
    expected = np.maximum(features @ (1 / (1 + np.exp(-logits))), 0)
    np.testing.assert_allclose(maps[0], expected, rtol=1e-3)
    capped = build_scorecam(network, 8)(images[:1], [column])
    assert capped.shape == maps.shape
    assert not np.allclose(capped, maps)


def test_a_page_of_all_boxed_findings_of_the_test_set(run_copy, records):
    result = localise(Fold(run_copy), sample=3, channels=4, replicates=30)
    page, scores = result.path, result.scores
    boxes, index = open_records(records).boxes, open_records(records).index.set_index("image_id")
    cases = group_boxes(boxes[boxes["image_id"].map(index["split"]) == "test"])
    counts = scores[scores["label"] == "all findings"].set_index("method")["cases"]
    assert counts.to_dict() == {
        "Grad-CAM": len(cases), "Grad-CAM++": len(cases), "Score-CAM": 3, RANDOM: len(cases), CENTRE: len(cases),
    }  # fmt: skip
    table = pd.read_csv(page.parent / "cases.csv")
    assert table.groupby("method").size().to_dict() == counts.to_dict()
    assert set(table["image_id"]) <= set(index.index[index["split"] == "test"])
    of_all = scores[scores["label"] == "all findings"].set_index("method")
    own = table[table["method"] == "Grad-CAM"]
    assert of_all.loc["Grad-CAM", "pointing"] == pytest.approx(own["pointing"].mean())
    assert of_all.loc["Grad-CAM", "pointing_low"] <= own["pointing"].mean() <= of_all.loc["Grad-CAM", "pointing_high"]
    first = own.iloc[0]  # the map of this network has one cell
    assert first["cells"] == pytest.approx(build_mask(cases[first["image_id"], first["label"]], 32).mean(), rel=1e-3)
    text = page.read_text()
    assert "1 x 1 cells" in text
    assert {path.stem for path in page.parent.glob("*.png")} == {"pointing", "overlap", "cases"}


def test_runs_that_cannot_be_localised_give_the_reason(run_copy, tmp_path):
    metrics = load_json(run_copy / "metrics.json")
    (run_copy / "model.keras").rename(tmp_path / "away.keras")
    with pytest.raises(InputError, match=r"no model\.keras"):
        localise(Fold(run_copy))
    (tmp_path / "away.keras").rename(run_copy / "model.keras")
    (run_copy / "metrics.json").write_text(json.dumps(metrics | {"records": str(tmp_path / "gone")}))
    with pytest.raises(InputError, match="gone"):
        localise(Fold(run_copy))
    with pytest.raises(InputError, match="sample is 0 or more"):
        localise(Fold(run_copy), sample=-1)
