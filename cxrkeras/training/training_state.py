"""The state of a training in memory: network, optimiser, and the copy that is saved."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.config import Experiment
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.freezing import unfreeze
from cxrkeras.models.fused import fuse_norms
from cxrkeras.models.weights import load_weights, set_prevalence_bias
from cxrkeras.training.augment import Augmentation
from cxrkeras.training.averaging import Average
from cxrkeras.training.losses import TargetCounts, build_elements, build_loss, check_registered, require_counts
from cxrkeras.training.optimisers import build_optimiser


class TrainingState:
    """The network, the model around it that augments and trains, and the copy that is saved.

    The copy, `saved`, is in float32 and consists of Keras' own layers, so that it can be used on any device without
    cxrkeras. `counts` are those of the training folds, for the loss and the prevalence bias. Several GPUs share each
    batch (tf.distribute.MirroredStrategy). `remark` describes how the start weights differ from their file.
    """

    def __init__(
        self,
        experiment: Experiment,
        labels: LabelSet,
        counts: TargetCounts | None = None,
        imagenet_file: Path | None = None,
    ):
        model, precision = experiment.model, experiment.training.precision
        self.experiment, self.labels = experiment, labels
        self.phase: int | None = None
        check_registered(experiment.loss, len(labels))
        self.elements = build_elements(experiment.loss, counts)
        self.loss = build_loss(experiment.loss, len(labels), counts)
        self.saved = build_classifier(model.name, model.resolved_size, len(labels), head=model.head)
        self.remark = load_weights(self.saved, model.weights, imagenet_file, labels)
        if model.head.prevalence_bias:
            counts = require_counts(counts, "model.head.prevalence_bias")
            set_prevalence_bias(self.saved, counts.positives, counts.known)
        self.strategy = tf.distribute.MirroredStrategy() if _count_devices() > 1 else tf.distribute.get_strategy()
        if self.is_distributed:
            check_batch_size(experiment.training.resolved_batch_size, self.strategy.num_replicas_in_sync)
        with self.strategy.scope():
            size = model.resolved_size
            copied = build_classifier(model.name, size, len(labels), head=model.head, precision=precision)
            copied.set_weights(self.saved.get_weights())
            self.network = synchronise_norms(copied) if self.is_distributed else fuse_norms(copied)
            self.augmentation = Augmentation(experiment.augmentation, seed=experiment.training.seed)
            images = keras.Input(self.network.input_shape[1:], dtype="float32")
            self.model = keras.Model(images, self.network(self.augmentation(images)))
            decay = experiment.optimiser.average
            self.average = Average(self.network, decay) if decay else None

    @property
    def is_distributed(self) -> bool:
        """Whether several devices share each batch."""
        return self.strategy.num_replicas_in_sync > 1

    def start_phase(self, number: int) -> None:
        """Make the layers of a phase, counted from 0, trainable with a new optimiser."""
        phase = self.experiment.phases[number]
        unfreeze(self.network, phase.layers)
        with self.strategy.scope():
            optimiser = build_optimiser(self.experiment.optimiser, is_distributed=self.is_distributed)
            if self.experiment.training.precision == "mixed_float16":
                optimiser = keras.optimizers.LossScaleOptimizer(optimiser)
            self.model.compile(optimiser, self.loss)
            self.model.optimizer.build(self.model.trainable_variables)
        self.phase = number

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables that training changes in this phase."""
        averages = self.average.variables if self.average else []
        return [*self.network.variables, *self.augmentation.variables, *self.model.optimizer.variables, *averages]

    def get_weights(self) -> list[np.ndarray]:
        """Return the weights that are scored and saved: the network's, or their moving average."""
        return (self.average or self.network).get_weights()


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Raise InputError if the devices would get unequal shares of a full batch, which Keras cannot start with."""
    if batch_size % num_devices:
        nearest = batch_size - batch_size % num_devices or num_devices
        raise InputError(
            f"training.batch_size must be a multiple of the {num_devices} devices that share a batch; got "
            f"{batch_size}: take {nearest}"
        )


def _count_devices() -> int:
    """Count the GPUs, or without any the logical CPU devices."""
    return len(tf.config.list_logical_devices("GPU")) or len(tf.config.list_logical_devices("CPU"))


def synchronise_norms(network: keras.Model) -> keras.Model:
    """Copy a network with BatchNormalization synchronised over all devices."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = True
        return type(layer).from_config(config)

    copied = keras.models.clone_model(network, clone_function=copy)
    copied.set_weights(network.get_weights())
    return copied
