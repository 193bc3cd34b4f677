"""Public networks, converted: equal to PyTorch's, and refused where something does not fit."""

import os
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from benchmarks.parity import difference
from benchmarks.public_parity import NETWORKS, RESULTS, TOLERANCE, draw_grey
from benchmarks.public_parity import draw_state as draw_public
from cxrkeras.data.images import load_image
from cxrkeras.errors import InputError
from cxrkeras.models.public import build_public_network, fill_public_network, spread_channels
from cxrkeras.models.public_table import find_public, load_public_networks
from cxrkeras.models.registry import NETWORKS as REGISTRY
from cxrkeras.models.registry import TORCH
from tests.support.public import draw_state, tiny_row

FAST = ["xrv-all"]
# What torchxrayvision's README prints for tests/00000001_000.png of its repository with the network xrv-all
PRINTED = {
    "Atelectasis": 0.50577986, "Cardiomegaly": 0.62151504, "Consolidation": 0.3124331, "Edema": 0.21286564,
    "Effusion": 0.39427388, "Emphysema": 0.503361, "Enlarged Cardiomediastinum": 0.4313866, "Fibrosis": 0.5401596,
    "Fracture": 0.28907478, "Hernia": 0.012677962, "Infiltration": 0.5220189, "Lung Lesion": 0.21828467,
    "Lung Opacity": 0.36826086, "Mass": 0.4104132, "Nodule": 0.5091791, "Pleural_Thickening": 0.5104176,
    "Pneumonia": 0.18006423, "Pneumothorax": 0.30677897,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_logits_equal_those_of_pytorch(name):
    """The results stored by `make parity SAVE=1` are those of torchxrayvision's and torchvision's classes."""
    row = find_public(name)
    with np.load(RESULTS) as stored:
        expected = stored[name]
    network = fill_public_network(row, draw_public(name), "drawn weights")
    assert difference(network(draw_grey(row.size), training=False).numpy(), expected) < TOLERANCE
    assert np.abs(expected).std() > 0.1  # the comparison is not trivial


@pytest.mark.slow
def test_the_printed_answers_of_torchxrayvision_are_found_with_its_real_file():
    """XRV_FOLDER has the file of xrv-all, and the image of the README as 00000001_000.png."""
    row, folder = find_public("xrv-all"), Path(os.environ.get("XRV_FOLDER", "nowhere"))
    if not (folder / row.file_name).is_file():
        pytest.skip(f"no {row.file_name} in the folder that XRV_FOLDER names")
    network, _ = build_public_network(row, folder / row.file_name, "xrv-all")
    image = load_image((folder / "00000001_000.png").read_bytes(), row.size, row.preparation)
    logits = network(image[None, ..., None].astype(np.float32), training=False).numpy()[0]
    for logit, (label, point) in zip(logits, row.thresholds.items(), strict=True):
        prob = 1 / (1 + np.exp(-logit))
        shown = prob / (2 * point) if prob < point else 1 - (1 - prob) / (2 * (1 - point))
        assert abs(shown - PRINTED[label]) < 0.01, label


@pytest.mark.slow
def test_a_file_of_chexnet_keras_equals_the_network_of_keras_that_wrote_it(tmp_path):
    """Its code is DenseNet121 of keras.applications with 14 sigmoids, and its file a .h5 in the layout of Keras 2."""
    row = find_public("chexnet-keras")
    base = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
    theirs = keras.Model(base.input, keras.layers.Dense(14, name="predictions")(base.output))
    rng = np.random.default_rng(0)
    for variable in theirs.weights:
        if "moving" in variable.name:
            variable.assign(rng.uniform(0.001, 0.5, variable.shape))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layers = [layer for layer in theirs.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = variable.numpy()
    row = row.model_copy(update={"size": 64})
    ours, _ = build_public_network(row, tmp_path / "a.h5", "chexnet-keras")
    grey = draw_grey(64)
    scaled = np.repeat(grey, 3, axis=3) * np.array(TORCH[0]) + np.array(TORCH[1])
    expected = theirs(scaled.astype(np.float32), training=False).numpy()
    assert difference(ours(grey, training=False).numpy(), expected) < TOLERANCE


def test_one_channel_is_spread_over_three_with_another_scaling():
    kernel = np.random.default_rng(0).normal(size=(5, 1, 3, 3)).astype(np.float32)
    grey = np.random.default_rng(1).uniform(0, 255, (4, 3, 3))
    wanted = np.einsum("nhw,ohw->no", grey * 8 - 1024, kernel[:, 0])
    colour = grey[:, None] * np.array(TORCH[0])[:, None, None] + np.array(TORCH[1])[:, None, None]
    spread = spread_channels(kernel, (8, -1024), TORCH)
    np.testing.assert_allclose(np.einsum("nchw,ochw->no", colour, spread), wanted, rtol=1e-4, atol=1e-2)


def test_the_table_fits_the_registry():
    for name, row in load_public_networks().items():
        assert row.network in REGISTRY, name
        assert len(row.outputs) == sum(map(bool, row.labels)) == len(row.thresholds)
        assert all(point is None or 0 < point < 1 for point in row.thresholds.values()), name
        assert row.sha256 == "", "a checksum needs a source"
    assert len(load_public_networks()) == 11


def test_operating_points_of_a_sigmoid_taken_twice_are_those_of_one():
    row = find_public("xrv-resnet50-res512-all")
    points = np.array([point for point in row.operating_points if point])
    assert points.min() > 0.5
    assert points.max() < 1 / (1 + np.exp(-1))
    once = np.array([point for point in row.thresholds.values() if point])
    np.testing.assert_allclose(1 / (1 + np.exp(-once)), points)
    assert row.thresholds["Lung Lesion"] is None


def test_untrained_outputs_are_left_out():
    row = tiny_row()
    state = draw_state(row)
    network = fill_public_network(row, state, "x")
    kernel, bias = network.get_layer("logits").get_weights()
    np.testing.assert_array_equal(kernel, state["fc.weight"][[0, 2]].T)
    assert bias.shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("fc.weight"), "has none of classifier.weight"),
        (
            lambda state: state.update({"fc.weight": state["fc.weight"][:2], "fc.bias": state["fc.bias"][:2]}),
            "3 outputs",
        ),
        (lambda state: state.pop("bn1.running_mean"), "has no bn1.running_mean"),
        (lambda state: state.update({"more.weight": np.zeros(3)}), "no place for more.weight"),
        (lambda state: state.update({"conv1.weight": np.zeros((64, 3, 5, 5))}), "conv1.weight has the shape"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, message):
    row = tiny_row()
    state = draw_state(row)
    change(state)
    with pytest.raises(InputError, match=message):
        fill_public_network(row, state, "x")


def test_a_web_page_in_place_of_the_file_is_named(tmp_path):
    (tmp_path / "a.pt").write_text("<!DOCTYPE html><html>log in</html>")
    with pytest.raises(InputError, match="is a web page, not the weights of tiny: fetch the file from its page"):
        build_public_network(tiny_row(), tmp_path / "a.pt", "tiny")


def test_links_in_a_file_of_keras_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"x"]
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/")
    with pytest.raises(InputError, match="link to other files"):
        build_public_network(tiny_row(), tmp_path / "a.h5", "tiny")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match="did you mean xrv-nih"):
        find_public("xrv-nhi")
