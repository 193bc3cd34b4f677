import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.utils.scores import CategoricalScore

from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_gradcam
from cxrkeras.explain.overlay import plot_gradcam, upsample_map
from cxrkeras.explain.sheet import SheetWriter, check_label
from cxrkeras.labels import NIH
from cxrkeras.models.classifier import FEATURES, build_classifier
from cxrkeras.models.registry import NETWORKS
from cxrkeras.scoring.run import Fold
from tests.support.dicoms import make_dicom
from tests.support.networks import draw_images, draw_weights

RNG = np.random.default_rng(0)
FAST = ["resnet18", "googlenet", "efficientnetlite0", "mobilenetv3small"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_equals_tf_keras_vis_on_raw_maps(name):
    size = 64
    network = build_classifier(name, size, 15)
    images = draw_images(6, size).astype(np.float32)
    draw_weights(network, images)
    logits, maps = build_gradcam(network, FEATURES)(images)
    assert np.allclose(logits, network(images), atol=1e-3)
    reference = Gradcam(network, clone=False)
    has_evidence = []
    for column in logits.mean(axis=0).argsort()[-3:].tolist():
        expected = reference(
            CategoricalScore([column] * len(images)),
            images,
            penultimate_layer=FEATURES,
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
        )
        for actual, reference_map in zip(maps[:, column], np.asarray(expected), strict=True):
            assert np.abs(actual - reference_map).max() <= 1e-4 * max(reference_map.max(), 1e-30)
            has_evidence.append(reference_map.max() > 0)
    assert np.mean(has_evidence) >= 0.5  # equality of empty maps would prove nothing


def test_maps_of_a_known_network():
    """Two filters, the second of which is evidence for label 0 and against label 1."""
    image = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(2, 1, use_bias=False, name="features")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    network = keras.Model(image, keras.layers.Dense(2, use_bias=False)(pooled))
    network.layers[1].set_weights([np.array([[[[0.0, 1.0]]]])])
    network.layers[3].set_weights([np.array([[0.0, 0.0], [2.0, -2.0]])])
    picture = RNG.uniform(0, 1, (1, 8, 8, 1)).astype(np.float32)
    _, maps = build_gradcam(network, "features")(picture)
    assert np.allclose(maps[0, 0], picture[0, ..., 0] * 2 / 64, rtol=1e-5)
    assert not maps[0, 1].any()


def test_upsampling_is_smooth_and_scaled_and_never_divides_by_zero():
    heat = np.zeros((4, 4), np.float32)
    assert not upsample_map(heat, 32).any()
    assert not upsample_map(np.full((4, 4), np.nan, np.float32), 32).any()
    heat[1, 2] = 1e-20
    smooth = upsample_map(heat, 32)
    assert smooth.max() > 0.8
    assert np.unravel_index(smooth.argmax(), smooth.shape)[0] in range(8, 16)
    assert np.abs(np.diff(smooth, axis=0)).max() < 0.25


def panel_titles(figure):
    return [panel.get_title() for panel in figure.axes if panel.get_title()]


def test_an_empty_map_says_so():
    grey = np.zeros((50, 80), np.uint8)
    maps = {"Mass": np.zeros((4, 4)), "Edema": np.eye(4)}
    figure = plot_gradcam(grey, maps, {"Mass": 0.1, "Edema": 0.95}, title="t", notice="n")
    texts = [[text.get_text() for text in panel.texts] for panel in figure.axes[:3]]
    assert texts == [[], ["no positive evidence"], []]
    assert panel_titles(figure) == ["radiograph", "Mass  10.0 %", "Edema  95.0 %"]


@pytest.fixture(scope="module")
def draw(trained):
    return SheetWriter(trained).write


@pytest.mark.parametrize(
    ("mode", "size", "extension"), [("L", (64, 64), "png"), ("RGB", (300, 200), "jpg"), ("RGBA", (17, 90), "png")]
)
def test_a_sheet_of_any_image(draw, tmp_path, mode, size, extension):
    path = tmp_path / f"some image.{extension}"
    Image.fromarray(RNG.integers(0, 256, (*size[::-1], 4), np.uint8), "RGBA").convert(mode).save(path)
    sheet = draw(path)
    assert list(sheet.probs) == list(NIH.names)
    assert all(0 <= prob <= 1 for prob in sheet.probs.values())
    with Image.open(sheet.paths[0]) as drawn:
        assert np.ptp(np.asarray(drawn.convert("L"))) > 100


def test_sheets_of_one_label_of_all_labels_and_of_a_phantom(draw, dataset, monkeypatch):
    drawn = []
    monkeypatch.setattr("cxrkeras.explain.sheet.plot_gradcam", lambda *a, **k: drawn.append(k) or plot_gradcam(*a, **k))
    path = dataset.table["path"][0]
    for label, suffix in ((None, ""), ("all", "-all"), ("No Finding", "-No_Finding")):
        assert draw(Path(path), label).paths[0].name.endswith(f"{suffix}.png")
    assert all("synthetic phantom" in kept["title"] for kept in drawn)
    assert all("synthetic phantoms" in kept["notice"] for kept in drawn)


def test_labels_without_positives_are_not_top_findings_and_are_reported(trained, dataset, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run" / "fold0")
    config = json.loads((folder / "config.json").read_text())
    path = Path(dataset.table["path"][0])
    config["is_synthetic"] = False
    positives = config["parts"]["training"]["positives"]
    unseen = SheetWriter(Fold(folder)).write(path).shown[0]
    positives[unseen] = 0
    (folder / "config.json").write_text(json.dumps(config))
    draw = SheetWriter(Fold(folder)).write
    assert unseen not in draw(path).shown
    assert any(
        "no positives in the training set" in warning and unseen in warning for warning in draw(path, unseen).warnings
    )


def test_files_with_the_same_name_have_separate_sheets(draw, tmp_path):
    saved = set()
    for shade in (10, 200):
        path = tmp_path / str(shade) / "x.png"
        path.parent.mkdir()
        Image.new("L", (32, 32), shade).save(path)
        sheet = draw(path)
        saved.add(sheet.paths[0])
        assert any("knows nothing about patients" in warning for warning in sheet.warnings)
    assert len(saved) == 2


def test_warnings_from_the_header_are_on_the_sheet_and_in_its_warnings(draw, tmp_path, monkeypatch):
    notices = []
    keep = lambda *a, **k: notices.append(k["notice"]) or plot_gradcam(*a, **k)  # noqa: E731
    monkeypatch.setattr("cxrkeras.explain.sheet.plot_gradcam", keep)
    words = "its header names a body part other than the chest; its header says that it is a localizer"
    for region, kind in (("CHEST", "PRIMARY"), ("KNEE", "LOCALIZER")):
        levels = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)
        content = make_dicom(levels, BodyPartExamined=region, ImageType=["ORIGINAL", kind])
        (tmp_path / f"{region}.dcm").write_bytes(content)
        warnings = draw(tmp_path / f"{region}.dcm").warnings
        assert any(words in warning for warning in warnings) == (region == "KNEE")
    assert [words in notice for notice in notices] == [False, True]


def test_probabilities_equal_those_of_the_predictions_file(draw, trained, dataset):
    """A PNG of the release has the calibrated probabilities of `predictions_test.csv`."""
    calibration, _ = trained.operating_points
    predictions = pd.read_csv(trained.folder / "predictions_test.csv").set_index("image_id")
    test = dataset.table[dataset.table["split"] == "test"].head(5)
    for row in test.itertuples():
        probs = draw(Path(row.path)).probs
        logits = predictions.loc[[row.image_id], [f"logit_{label}" for label in NIH.names]].to_numpy()
        for label, expected in zip(NIH.names, calibration.apply(logits, NIH.names)[0], strict=True):
            assert abs(probs[label] - expected) < 1e-5


def test_wrong_labels_and_runs_are_reported(trained, tmp_path):
    assert check_label("pleural thickening", NIH) == "Pleural_Thickening"
    with pytest.raises(InputError, match="did you mean Effusion"):
        check_label("Efusion", NIH)
    shutil.copy(trained.folder / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"model\.keras"):
        SheetWriter(Fold(tmp_path))
