"""A training in memory: what learns, how, and the copy that is saved."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.config import Experiment
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.freezing import unfreeze
from cxrkeras.models.fused import fuse_norms
from cxrkeras.models.weights import load_weights, set_prevalence_bias
from cxrkeras.training.augment import Augmentation
from cxrkeras.training.averaging import Average
from cxrkeras.training.losses import build_loss
from cxrkeras.training.optimisers import build_optimiser


class Trainer:
    """The network, the model around it that augments and learns, and the copy that is saved.

    That one, `saved`, is in float32 and of Keras' own layers, so that it can be used on any device without cxrkeras.
    `trained_on` has the positives and images of the training folds, for the loss and the prevalence bias. Several
    GPUs share each batch (tf.distribute.MirroredStrategy).
    """

    def __init__(self, resolved: Experiment, imagenet_file: Path | None = None, trained_on: dict | None = None):
        model, precision = resolved.model, resolved.training.precision
        positives, num_images = None, 0
        if trained_on:
            positives, num_images = np.array(list(trained_on["positives"].values())), trained_on["images"]
        self.resolved = resolved
        self.phase = None
        self.loss = build_loss(resolved.loss, positives, num_images)
        self.saved = build_classifier(model.name, model.size, head=model.head)
        load_weights(self.saved, model.weights, imagenet_file)
        if model.head.prevalence_bias:
            set_prevalence_bias(self.saved, positives, num_images)
        self.strategy = tf.distribute.MirroredStrategy() if _count_devices() > 1 else tf.distribute.get_strategy()
        with self.strategy.scope():
            alike = build_classifier(model.name, model.size, head=model.head, precision=precision)
            alike.set_weights(self.saved.get_weights())
            self.network = synchronise_norms(alike) if self.is_distributed else fuse_norms(alike)
            self.augmentation = Augmentation(resolved.augmentation, seed=resolved.training.seed)
            images = keras.Input(self.network.input_shape[1:], dtype="float32")
            self.model = keras.Model(images, self.network(self.augmentation(images)))
            decay = resolved.optimiser.average
            self.average = Average(self.network, decay) if decay else None

    @property
    def is_distributed(self) -> bool:
        return self.strategy.num_replicas_in_sync > 1

    def start_phase(self, number: int) -> None:
        """Let the layers of a phase, counted from 0, learn with a new optimiser."""
        phase = self.resolved.phases[number]
        unfreeze(self.network, phase.layers)
        with self.strategy.scope():
            optimiser = build_optimiser(self.resolved.optimiser, is_distributed=self.is_distributed)
            if self.resolved.training.precision == "mixed_float16":
                optimiser = keras.optimizers.LossScaleOptimizer(optimiser)
            self.model.compile(optimiser, self.loss)
            self.model.optimizer.build(self.model.trainable_variables)
        self.phase = number

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a training in this phase changes."""
        averages = self.average.variables if self.average else []
        return [*self.network.variables, *self.augmentation.variables, *self.model.optimizer.variables, *averages]

    def get_weights(self) -> list[np.ndarray]:
        """Those that are scored and saved: the network's, or their moving average."""
        return (self.average or self.network).get_weights()


def _count_devices() -> int:
    """GPUs; a CPU counts as several where TensorFlow was told to divide it."""
    return len(tf.config.list_logical_devices("GPU")) or len(tf.config.list_logical_devices("CPU"))


def synchronise_norms(network: keras.Model) -> keras.Model:
    """A copy of a network whose BatchNormalization takes its statistics over all devices."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = True
        return type(layer).from_config(config)

    copied = keras.models.clone_model(network, clone_function=copy)
    copied.set_weights(network.get_weights())
    return copied
