"""Answers of one finished fold for images: probabilities, thresholds, warnings and heat maps."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, Queue

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.data.images import resize_image
from cxrkeras.data.preparation import Preparation
from cxrkeras.explain.gradcam import compute_maps
from cxrkeras.labels import LabelSet
from cxrkeras.models.classifier import FEATURES, LOGITS
from cxrkeras.models.compiled import hold_weights, load_network
from cxrkeras.models.fused import fuse_norms
from cxrkeras.predict.memory import give_back_memory
from cxrkeras.scoring.ood_check import open_ood_check
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import MODEL
from cxrkeras.scoring.run_list import describe_adoption

LARGEST_BATCH = 16


@dataclass(frozen=True)
class Facts:
    """What a reader must know about the network behind an answer."""

    labels: LabelSet
    run: str
    network: str
    size: int
    cells: int
    is_synthetic: bool
    split_name: str
    trained_on: str  # in words
    epoch: int | None
    thresholds: dict[str, float | None]
    rule: str
    calibration: str
    fitted_on: str  # the part of the data that calibration and thresholds were fitted on, or `published`
    is_checked: bool  # whether images are compared with those of the training
    preparation: Preparation
    unseen: tuple[str, ...]  # labels without an example in training
    versions: dict[str, str]
    about: dict[str, str]  # of an adopted network: where it is from, its licence and its published scores


@dataclass(frozen=True)
class Answer:
    """probs: calibrated, by label; found: labels at or above their threshold, the most confident first; warnings:
    reasons why the image looks out of distribution; maps: raw heat maps (L, h, w), empty if they were not asked for."""

    probs: dict[str, float]
    found: tuple[str, ...]
    warnings: tuple[str, ...]
    width: int
    height: int
    maps: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))


class Predictor:
    """Answers for one image at a time, from any thread; images that come at once go through the network together.

    The network, its calibration, thresholds and out-of-distribution check are those of the fold. Raises InputError if
    one of them is missing or damaged; only an adopted network may lack the check.
    """

    def __init__(self, fold: Fold):
        fold.require(MODEL)
        network = load_network(fold.folder / MODEL, fold.labels)
        self._calibration, thresholds = fold.operating_points
        self._limits = thresholds.array(fold.labels)
        self._check = open_ood_check(fold, network)
        self._body, self._forward, self._explain = _build_functions(network)
        self.facts = Facts(
            labels=fold.labels,
            run=fold.name,
            network=fold.network_name,
            size=network.input_shape[1],
            cells=network.get_layer(FEATURES).output.shape[1],
            is_synthetic=fold.config.is_synthetic,
            split_name=fold.config.adopted.split if fold.config.adopted else fold.config.split_name,
            trained_on=fold.trained_on,
            epoch=fold.epoch,
            thresholds=thresholds.values,
            rule=thresholds.rule,
            calibration=self._calibration.method,
            fitted_on=thresholds.fitted_on.part,
            is_checked=self._check is not None,
            preparation=fold.config.preparation,
            unseen=fold.unseen,
            versions=fold.config.versions,
            about=describe_adoption(fold.config.adopted) if fold.config.adopted else {},
        )
        self._waiting: Queue = Queue()
        threading.Thread(target=self._work, daemon=True).start()
        for with_maps in (False, True):  # compiles both functions
            self.answer(np.zeros((self.facts.size, self.facts.size), np.uint8), with_maps=with_maps)
        give_back_memory()

    def answer(self, grey: np.ndarray, *, with_maps: bool = False, warnings: Sequence[str] = ()) -> Answer:
        """Answer for an image that is decoded as the network's preparation says, uint8 (height, width).

        `warnings` of its file's header come before our own.
        """
        done: Future = Future()
        self._waiting.put((resize_image(grey, self.facts.size, self.facts.preparation), with_maps, done))
        logits, features, *maps, image = done.result()
        labels = self.facts.labels
        probs = self._calibration.apply(logits[None], labels)[0]
        order = np.argsort(-probs, kind="stable")
        with np.errstate(invalid="ignore"):
            found = tuple(labels.names[k] for k in order if probs[k] >= self._limits[k])
        judged = self._check.judge(image[None, ..., None], features[None].astype(np.float64))[0] if self._check else []
        height, width = grey.shape
        remarks = (*warnings, *judged)
        return Answer(dict(zip(labels, probs.tolist(), strict=True)), found, remarks, width, height, *maps)

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < LARGEST_BATCH:
                try:
                    batch.append(self._waiting.get_nowait())
                except Empty:
                    break
            for with_maps in (False, True):
                if requests := [request for request in batch if request[1] == with_maps]:
                    self._run(requests, with_maps)

    def _run(self, requests: Sequence[tuple[np.ndarray, bool, Future]], with_maps: bool) -> None:
        try:
            images = np.stack([image for image, _, _ in requests])
            function = self._explain if with_maps else self._forward
            logits, features, *maps = (result.numpy() for result in function(self._body(images[..., None])))
            for row, (image, _, done) in enumerate(requests):
                done.set_result((logits[row], features[row], *(rows[row] for rows in maps), image))
        except Exception as error:  # hand the error to the waiting callers and keep the worker alive
            for _, _, done in requests:
                if not done.done():
                    done.set_exception(error)


def _build_functions(network: keras.Model):
    """Three compiled functions, with the weights as constants: the body's, and two for the head.

    Of images, uint8 (N, S, S, 1), the first gives features (N, h, w, C); of these the second gives logits (N, L) and
    penultimate features (N, F), and the third raw Grad-CAM maps (N, L, h, w) too: after one forward pass the gradients
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
            by_label = tf.unstack(logits, num=logits.shape[-1], axis=1)
        return logits, last, compute_maps(tape, by_label, mapped)

    images = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)
    mapped = tf.TensorSpec(features.shape, tf.float32)
    return (
        _compile(lambda batch: tf.cast(body(tf.cast(batch, tf.float32)), tf.float32), images),
        _compile(head, mapped),
        _compile(explain, mapped),
    )


def _compile(function, spec: tf.TensorSpec):
    return tf.function(function, autograph=False).get_concrete_function(spec)
