"""The package from Python: what README shows, run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import cxrkeras
from cxrkeras.config import REGISTERED_LOSSES, Loss
from cxrkeras.errors import InputError
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.compiled import load_network
from cxrkeras.models.registry import NETWORKS
from cxrkeras.scoring.run import Fold
from cxrkeras.training.losses import check_registered

README = Path(__file__).parents[1] / "README.md"


def test_the_front_is_lazy_and_whole():
    code = (
        "import sys, cxrkeras; assert not {'numpy', 'pydantic', 'tensorflow'} & set(sys.modules); "
        "assert set(cxrkeras.__all__) <= set(dir(cxrkeras)); cxrkeras.load_experiment; cxrkeras.open_records; "
        "cxrkeras.open_run; cxrkeras.NETWORKS; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'open_everything'"):
        cxrkeras.open_everything  # noqa: B018
    assert all(callable(getattr(cxrkeras, name)) for name in cxrkeras.__all__ if name != "NETWORKS")


def test_a_network_and_a_loss_of_ones_own_as_readme_shows_them(records, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(import keras\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 22
    monkeypatch.chdir(tmp_path)
    try:
        namespace = {}
        exec(code.replace('"nih-224"', repr(str(records))).replace('"epochs": 8', '"epochs": 1'), namespace)
        fold = namespace["fold"]
        assert fold.config.experiment.model.name == "plain"
        assert fold.config.experiment.loss.name == "squares"
        assert fold.metrics.test.mean_auc_findings == 14
        image = fold.records.read_images([fold.predictions["test"].image_ids[0]])
        assert image
    finally:
        NETWORKS.pop("plain", None)
        REGISTERED_LOSSES.pop("squares", None)
    # Without them the run still opens, and another training of it is refused by name.
    assert cxrkeras.open_run(fold.folder).folds[0].metrics.best_epoch == 1
    with pytest.raises(InputError, match="unknown loss 'squares'"):
        cxrkeras.load_experiment(settings={"model": {"name": "resnet18"}, "loss": {"name": "squares"}})


def test_names_that_are_taken_are_refused():
    with pytest.raises(InputError, match="there is a network 'resnet18' already"):
        cxrkeras.register_network("resnet18", lambda x: x)
    with pytest.raises(InputError, match="made of letters"):
        cxrkeras.register_network("my net", lambda x: x)
    with pytest.raises(InputError, match="none of bce"):
        cxrkeras.register_loss("bce", lambda targets, logits: logits)


@pytest.fixture
def registered():
    """What is registered here is forgotten afterwards."""
    networks, losses = set(NETWORKS), set(REGISTERED_LOSSES)
    yield
    for kept, table in ((networks, NETWORKS), (losses, REGISTERED_LOSSES)):
        for name in set(table) - kept:
            del table[name]


class Doubled(keras.layers.Layer):
    """A layer that does not ship with Keras."""

    def call(self, x):
        return 2 * x


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: keras.layers.GlobalAveragePooling2D()(x), "must return its last feature map"),
        (lambda x: None, "must return its last feature map"),
        (lambda x: keras.layers.Conv2D(4, 99)(x), "cannot be built on images"),
        (lambda x: Doubled()(keras.layers.Conv2D(4, 3)(x)), "has the layer Doubled"),
        (lambda x: keras.layers.Lambda(lambda y: y)(x), "has the layer Lambda"),
    ],
)
def test_a_network_of_another_form_is_refused_before_training(registered, build, message):
    cxrkeras.register_network("odd", build)
    with pytest.raises(InputError, match=message):
        build_classifier("odd", 32, 3)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (lambda targets, logits: keras.ops.mean(targets - logits), r"must return the loss of each element, \(2, 3\)"),
        (lambda targets, logits: keras.ops.mean(targets - logits, axis=-1, keepdims=True), r"got \(2, 1\)"),
        (lambda targets, logits: None, "loss odd fails"),
        (lambda targets: targets, "loss odd fails"),
    ],
)
def test_a_loss_of_another_form_is_refused_before_training(registered, elements, message):
    cxrkeras.register_loss("odd", elements)
    with pytest.raises(InputError, match=message):
        check_registered(Loss(name="odd"), 3)


def test_what_is_not_a_function_cannot_be_registered(registered):
    with pytest.raises(InputError, match="needs a function"):
        cxrkeras.register_network("odd", None)
    with pytest.raises(InputError, match="needs a function"):
        cxrkeras.register_loss("odd", None)
    with pytest.raises(InputError, match="three factors"):
        cxrkeras.register_network("odd", build_classifier, scaling=((1,), (0,)))


def test_a_network_for_other_labels_in_place_of_a_fold_s_own_is_refused(run_copy):
    config = json.loads((run_copy / "config.json").read_text())
    config["labels"] = config["labels"][::-1]
    (run_copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model\.keras is a network for the labels Atelectasis, .* retrain the fold"):
        load_network(run_copy / "model.keras", Fold(run_copy).labels)
