import keras
import numpy as np
import pytest

from cxrkeras.data.dataset import TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.models.classifier import build_classifier
from cxrkeras.records.folder import open_records
from cxrkeras.scoring.ood_check import (
    STATISTICS,
    VERSIONS,
    build_extractor,
    describe_images,
    fit_ood_check,
    load_ood_check,
)


def test_moments_equal_those_of_all_images_at_once(records):
    network = build_classifier("resnet18", 32, 15)
    folds = [open_records(records).evaluation_batches(TRAIN_VAL, fold=fold, batch_size=7) for fold in (1, 2)]
    held_out = open_records(records).evaluation_batches(TRAIN_VAL, fold=0, batch_size=7)
    fitted = fit_ood_check(network, folds, held_out)
    images = np.concatenate([images.numpy() for batches in folds for images, *_ in batches])
    features = keras.Model(network.input, network.get_layer("pool").output).predict(images, verbose=0)
    assert fitted["images"] == len(images)
    for name, rows in (("features", features.astype(np.float64)), ("statistics", describe_images(images))):
        assert np.allclose(fitted[f"{name}_mean"], rows.mean(axis=0), atol=1e-5)
        assert np.allclose(fitted[f"{name}_covariance"], np.cov(rows.T), atol=1e-4)


def test_statistics_of_known_images():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[0, :, 4:] = 255  # the right half white
    dark_left, black = (dict(zip(STATISTICS, row, strict=True)) for row in describe_images(images))
    assert dark_left["mean"] == dark_left["share of black"] == dark_left["share of white"] == 0.5
    assert dark_left["horizontal change"] == 1 / 7
    assert dark_left["vertical change"] == 0
    cells = [dark_left[f"standardised mean of row 0, column {column}"] for column in (3, 4)]
    assert cells == pytest.approx([-0.5 / 0.52, 0.5 / 0.52])  # the SD is 0.5, and 0.02 is added to it
    assert black["share of black"] == 1
    assert not any(value for name, value in black.items() if name != "share of black")


@pytest.fixture(scope="module")
def judge(trained):
    """The check of a run, as a function of images alone."""
    check = load_ood_check(trained.folder / "input_check.npz")
    extract = build_extractor(keras.models.load_model(trained.folder / "model.keras", compile=False))
    return lambda images: check.judge(images, extract(images))


def read_test_images(records):
    batches = open_records(records).evaluation_batches("test", batch_size=64)
    return np.concatenate([batch[0].numpy() for batch in batches])


def test_images_of_the_test_set_pass(judge, records):
    verdicts = judge(read_test_images(records))
    assert np.mean([bool(reasons) for reasons in verdicts]) <= 0.1


@pytest.mark.parametrize("version", VERSIONS)
def test_inverted_and_rotated_images_are_detected_with_the_reason(judge, records, version):
    undo = {"to the left": "to the right", "to the right": "to the left"}
    expected = next((version.replace(a, b) for a, b in undo.items() if a in version), version)
    verdicts = judge(np.ascontiguousarray(VERSIONS[version](read_test_images(records))))
    assert np.mean([reasons == [f"it looks as if {expected}"] for reasons in verdicts]) >= 0.9


def test_other_pictures_are_detected(judge):
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 32)
    pictures = {
        "noise": rng.integers(0, 256, (32, 32)),
        "ramp": np.tile(ramp, (32, 1)),
        "checks": 255 * (np.indices((32, 32)).sum(axis=0) // 4 % 2),
        "half": 255.0 * (ramp > 127)[None].repeat(32, axis=0),
    }
    verdicts = judge(np.stack(list(pictures.values())).astype(np.uint8)[..., None])
    assert all(verdicts), dict(zip(pictures, verdicts, strict=True))
    blank = judge(np.full((3, 32, 32, 1), 90, np.uint8))
    assert blank == [["it is blank"]] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"statistics": np.array(["mean"])}, "other statistics"),
        ({"cuts": np.ones(1)}, "three numbers"),
        ({"cuts": np.array(["a", "b", "c"])}, "out-of-distribution check"),
        ({"features_mean": np.zeros(3)}, "covariance of features"),
        ({"statistics_covariance": np.float64(1)}, "covariance of statistics"),
    ],
)
def test_damaged_checks_are_named(trained, tmp_path, changes, words):
    with np.load(trained.folder / "input_check.npz") as file:
        np.savez(tmp_path / "input_check.npz", **dict(file) | changes)
    with pytest.raises(InputError, match=words):
        load_ood_check(tmp_path / "input_check.npz")


def test_invalid_files_are_named(tmp_path):
    for content in (b"", b"not an archive"):
        (tmp_path / "input_check.npz").write_bytes(content)
        with pytest.raises(InputError, match="out-of-distribution check"):
            load_ood_check(tmp_path / "input_check.npz")
