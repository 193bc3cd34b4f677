import keras
import numpy as np
import pytest
import tensorflow as tf

from cxrkeras.config import Optimiser, load_experiment
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.models.registry import NETWORKS
from cxrkeras.training.averaging import Average
from cxrkeras.training.optimisers import build_optimiser
from cxrkeras.training.training_state import TrainingState, check_batch_size

RNG = np.random.default_rng(0)
BATCH = RNG.integers(0, 256, (8, 32, 32, 1), np.uint8), (RNG.random((8, 15)) < 0.3).astype(np.float32)
FAST = ["resnet18"]


def build_state(overrides="", phases=()):
    settings = {"model": {"name": "resnet18", "weights": "none", "size": 32}, "training": {"phases": list(phases)}}
    experiment = load_experiment(settings=settings, overrides=f"training.precision=float32 {overrides}")
    state = TrainingState(experiment, NIH)
    state.start_phase(0)
    return state


def changed_layers(state):
    """Find the layers whose weights a step changes."""
    before = {layer.name: layer.get_weights() for layer in state.network.layers}
    state.model.fit(tf.data.Dataset.from_tensors(BATCH), verbose=0, shuffle=False)
    return {
        layer.name.split(".")[0]
        for layer in state.network.layers
        if not all(map(np.array_equal, before[layer.name], layer.get_weights()))
    }


def test_each_phase_trains_its_layers_at_its_learning_rate():
    phases = [
        {"layers": "head", "epochs": 1, "learning_rate": 0.01},
        {"layers": 1, "epochs": 1},
        {"layers": "all", "epochs": 1},
    ]
    state = build_state(phases=phases)
    assert [phase.learning_rate for phase in state.experiment.phases] == [0.01, 1e-4, 1e-4]
    assert changed_layers(state) == {"logits"}
    state.start_phase(1)
    assert changed_layers(state) == {"layer4", "logits"}
    state.start_phase(2)
    assert changed_layers(state) >= {"conv1", "bn1", "layer1", "layer4", "logits"}


@pytest.mark.parametrize(
    "settings", [{"name": "adamw"}, {"name": "sgd", "nesterov": True}, {"name": "adam", "clip_norm": 0.1}]
)
def test_optimisers_equal_keras(settings):
    optimiser = Optimiser(learning_rate=0.1, **settings)
    by_name = {
        "adamw": keras.optimizers.AdamW(0.1, weight_decay=0.01),
        "sgd": keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "adam": keras.optimizers.Adam(0.1, global_clipnorm=0.1),
    }
    results = []
    for candidate in (
        build_optimiser(optimiser),
        by_name[settings["name"]],
        build_optimiser(optimiser, is_distributed=True),
    ):
        variables = [keras.Variable(np.linspace(-1, 1, 6)), keras.Variable(np.ones((2, 3)))]
        for step in range(5):
            candidate.apply([tf.sin(variable.value * (step + 1)) for variable in variables], variables)
        results.append(np.concatenate([np.ravel(variable) for variable in variables]))
    assert np.allclose(results[0], results[1], atol=1e-6)
    assert np.allclose(results[2], results[1], atol=1e-6)
    assert np.abs(results[0] - [*np.linspace(-1, 1, 6), *np.ones(6)]).max() > 0.05


def test_averages_follow_the_weights():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    average = Average(network, 0.5)
    network.set_weights([np.ones((1, 1))])
    expected = 0.0
    for step in range(1, 8):
        average.update()
        expected += (1 - min(0.5, (1 + step) / (10 + step))) * (1 - expected)
        assert average.get_weights()[0] == pytest.approx(expected, abs=1e-6)


def test_float16_scales_the_loss_and_learns():
    state = build_state()
    experiment = state.experiment
    training = experiment.training.model_copy(update={"precision": "mixed_float16"})
    state = TrainingState(experiment.model_copy(update={"training": training}), NIH)
    state.start_phase(0)
    assert isinstance(state.model.optimizer, keras.optimizers.LossScaleOptimizer)
    state.model.optimizer.learning_rate = 0.01
    assert changed_layers(state) >= {"conv1", "logits"}
    assert float(state.model.optimizer.inner_optimizer.learning_rate) == pytest.approx(0.01)
    assert np.isfinite(state.network.get_layer("conv1").get_weights()[0]).all()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_all_layers_support_xla(name):
    settings = {"model": {"name": name, "weights": "none", "size": 64}}
    overrides = "training.precision=float32 augmentation.zoom=0.1 augmentation.contrast=0.1 augmentation.noise=3"
    state = TrainingState(load_experiment(settings=settings, overrides=overrides), NIH)
    layers = [*state.network.layers, *state.saved.layers, state.augmentation]
    assert [layer.name for layer in layers if not layer.supports_jit] == []


def test_devices_share_batches_equally():
    check_batch_size(16, 2)
    with pytest.raises(InputError, match=r"a multiple of the 2 devices .* got 15: take 14"):
        check_batch_size(15, 2)
    with pytest.raises(InputError, match="got 1: take 4"):
        check_batch_size(1, 4)
