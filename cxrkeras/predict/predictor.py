"""One finished fold at work: images in; probabilities, thresholds, warnings and heat maps out."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import keras
import numpy as np
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.config import CONFIG
from cxrkeras.data.images import resize_image
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import draw_maps
from cxrkeras.files import load_shaped
from cxrkeras.models.classifier import FEATURES, LOGITS
from cxrkeras.models.compiled import hold_weights, load_network
from cxrkeras.models.fused import fuse_norms
from cxrkeras.predict.memory import give_back_memory
from cxrkeras.scoring.find_runs import INPUT_CHECK, METRICS, MODEL, Config, Metrics
from cxrkeras.scoring.ood_check import load_input_check
from cxrkeras.scoring.operating_points import load_operating_points
from cxrkeras.text import num_of

LARGEST_BATCH = 16


@dataclass(frozen=True)
class Facts:
    """What a reader must know of the network behind an answer."""

    run: str
    network: str
    size: int
    cells: int
    is_synthetic: bool
    split_name: str
    trained_on: str  # in words
    epoch: int
    thresholds: dict[str, float | None]
    rule: str
    calibration: str
    unseen: tuple[str, ...]  # labels without an example in training
    versions: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """probs: calibrated, by label; found: labels at or over their threshold, the surest first; warnings: reasons
    against the image's being one like those of the training; maps: raw heat maps (15, h, w), if they were asked for."""

    probs: dict[str, float]
    found: tuple[str, ...]
    warnings: tuple[str, ...]
    width: int
    height: int
    maps: np.ndarray | None = None


class Predictor:
    """Answers for one image at a time, from any thread; images that come at once go through the network together.

    The network, its calibration, thresholds and input check are those of a finished fold's folder. Raises InputError if
    one of them is missing or damaged.
    """

    def __init__(self, folder: Path):
        if not (folder / MODEL).is_file():
            raise InputError(f"{folder} has no {MODEL}: take a fold that was trained, an ensemble has no network")
        config = load_shaped(folder / CONFIG, Config)
        metrics = load_shaped(folder / METRICS, Metrics)
        network = load_network(folder / MODEL)
        self._calibration, thresholds = load_operating_points(folder)
        self._cuts = thresholds.array()
        self._check = load_input_check(folder / INPUT_CHECK)
        if len(self._check.features.mean) != network.get_layer(LOGITS).input.shape[-1]:
            raise InputError(f"{folder / INPUT_CHECK} is of another network: train the fold anew")
        self._body, self._forward, self._explain = _build_functions(network)
        part = config["parts"]["training"]
        data = "synthetic phantoms" if config["is_synthetic"] else f"the training part of split {config['split_name']}"
        self.facts = Facts(
            run=f"{folder.resolve().parent.name}/{folder.resolve().name}",
            network=config["experiment"]["model"]["name"],
            size=network.input_shape[1],
            cells=network.get_layer(FEATURES).output.shape[1],
            is_synthetic=config["is_synthetic"],
            split_name=config["split_name"],
            trained_on=f"{num_of(part['images'], 'image')} of {num_of(part['patients'], 'patient')}, {data}",
            epoch=metrics["best_epoch"],
            thresholds=thresholds.values,
            rule=thresholds.rule,
            calibration=self._calibration.method,
            unseen=tuple(label for label, count in (part.get("positives") or {}).items() if not count),
            versions=config["versions"],
        )
        self._waiting: Queue = Queue()
        threading.Thread(target=self._work, daemon=True).start()
        for with_maps in (False, True):  # compiles both functions
            self.answer(np.zeros((self.facts.size, self.facts.size), np.uint8), with_maps=with_maps)
        give_back_memory()

    def answer(self, grey: np.ndarray, *, with_maps: bool = False, warnings: Sequence[str] = ()) -> Answer:
        """Answer for a decoded image, uint8 (height, width); `warnings` of its file's header come before our own."""
        done: Future = Future()
        self._waiting.put((resize_image(grey, self.facts.size), with_maps, done))
        logits, features, maps, image = done.result()
        probs = self._calibration.apply(logits[None])[0]
        order = np.argsort(-probs, kind="stable")
        with np.errstate(invalid="ignore"):
            found = tuple(labels.LABELS[k] for k in order if probs[k] >= self._cuts[k])
        warnings = (*warnings, *self._check.judge(image[None, ..., None], features[None].astype(np.float64))[0])
        height, width = grey.shape
        return Answer(dict(zip(labels.LABELS, probs.tolist(), strict=True)), found, warnings, width, height, maps)

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < LARGEST_BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except Empty:
                    break
            for with_maps in (False, True):
                if part := [one for one in batch if one[1] == with_maps]:
                    self._run(part, with_maps)

    def _run(self, part: Sequence[tuple[np.ndarray, bool, Future]], with_maps: bool) -> None:
        try:
            images = np.stack([image for image, _, _ in part])
            function = self._explain if with_maps else self._forward
            logits, features, *maps = (one.numpy() for one in function(self._body(images[..., None])))
            for row, (image, _, done) in enumerate(part):
                done.set_result((logits[row], features[row], maps[0][row] if maps else None, image))
        except Exception as error:  # whoever waits must hear of it, and the next ones must be answered
            for _, _, done in part:
                if not done.done():
                    done.set_exception(error)


def _build_functions(network: keras.Model):
    """Three compiled functions, with the weights as constants: the body's, and two for the head.

    Of images, uint8 (N, S, S, 1), the first gives features (N, h, w, C); of these the second gives logits (N, 15) and
    penultimate features (N, F), and the third raw Grad-CAM maps (N, 15, h, w) too: after one forward pass the gradients
    go through the head alone.
    """
    network = fuse_norms(network)
    features, penultimate = network.get_layer(FEATURES).output, network.get_layer(LOGITS).input
    body = hold_weights(keras.Model(network.input, features))
    head = hold_weights(keras.Model(features, [network.output, penultimate]))

    def explain(mapped):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(mapped)
            logits, last = head(mapped)
            each = tf.unstack(logits, num=len(labels.LABELS), axis=1)
        return logits, last, draw_maps(tape, each, mapped)

    images = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)
    mapped = tf.TensorSpec(features.shape, tf.float32)
    return (
        _compile(lambda batch: tf.cast(body(tf.cast(batch, tf.float32)), tf.float32), images),
        _compile(head, mapped),
        _compile(explain, mapped),
    )


def _compile(function, spec: tf.TensorSpec):
    return tf.function(function, autograph=False).get_concrete_function(spec)
