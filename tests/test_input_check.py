import keras
import numpy as np

from cxrkeras.models.classifier import build_classifier
from cxrkeras.records.manifest import TRAIN_VAL
from cxrkeras.records.pipeline import build_evaluation_batches
from cxrkeras.training.input_check import STATISTICS, describe_images, fit_input_check


def test_moments_are_those_of_all_images_at_once(records):
    network = build_classifier("resnet18", 32)
    parts = [build_evaluation_batches(records, TRAIN_VAL, fold=fold, batch_size=7) for fold in (1, 2)]
    fitted = fit_input_check(network, parts)
    images = np.concatenate([images.numpy() for part in parts for images, *_ in part])
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
    assert (dark_left["mean of row 0, column 1"], dark_left["mean of row 0, column 2"]) == (0, 1)
    assert black["share of black"] == 1
    assert not any(value for name, value in black.items() if name != "share of black")
