"""A run that answers for image files, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrkeras.data.images import decode_image, open_image, read_warnings
from cxrkeras.errors import InputError
from cxrkeras.explain.overlay import stretch_map
from cxrkeras.scoring.find_runs import find_run, list_folds
from cxrkeras.scoring.run import Fold, Run
from cxrkeras.scoring.run_files import MODEL
from cxrkeras.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from cxrkeras.predict.predictor import Answer, Predictor


@dataclass(frozen=True)
class Prediction:
    """What a network finds in an image.

    probs: calibrated, by label; thresholds: those at which a label counts as found, None where there is none; found:
    the labels at or above theirs, the most confident first; warnings: reasons why the image looks out of distribution.
    """

    probs: dict[str, float]
    thresholds: dict[str, float | None]
    found: tuple[str, ...]
    warnings: tuple[str, ...]


class OpenedRun(Run):
    """A run whose first fold with a network answers for images; made by `open_predictor_run`."""

    @cached_property
    def predictor(self) -> Predictor:
        """The network, compiled; InputError for a run without one."""
        import_tensorflow()
        from cxrkeras.predict.predictor import Predictor

        with_network = [fold for fold in self.folds if (fold.folder / MODEL).is_file()]
        return Predictor((with_network or self.folds)[0])

    def predict(self, path: str | Path) -> Prediction:
        """Answer for a PNG, JPEG or DICOM file of any size; InputError for a file that is not an image."""
        answer, _ = self._answer(path, with_maps=False)
        return Prediction(answer.probs, self.predictor.facts.thresholds, answer.found, answer.warnings)

    def explain(self, path: str | Path, labels: str | Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Grad-CAM maps of one label or several, by default all, float32 (H, W) of the image's size, 0 to 1.

        Each is scaled to its own maximum; one without evidence is zero, as is what the network crops. Raises as
        `predict`, and for unknown labels.
        """
        chosen = self.labels if labels is None else [labels] if isinstance(labels, str) else labels
        wanted = [self.labels.require(label) for label in chosen]
        answer, shape = self._answer(path, with_maps=True)
        crop = self.predictor.facts.preparation.crop
        return {label: stretch_map(answer.maps[self.labels.index(label)], shape, crop) for label in wanted}

    def _answer(self, path: str | Path, *, with_maps: bool) -> tuple[Answer, tuple[int, int]]:
        path, predictor = Path(path), self.predictor
        if not path.is_file():
            raise InputError(f"no image file {path}")
        with open_image(path) as content:
            grey = decode_image(content, preparation=predictor.facts.preparation)
            return predictor.answer(grey, with_maps=with_maps, warnings=read_warnings(content)), grey.shape


def open_predictor_run(name: str | Path) -> OpenedRun:
    """Open a run under experiments/runs, a run folder, or one fold of either, `<run>/fold<k>`.

    An experiment's name is enough where only one run has it. Raises InputError where there is no finished one.
    """
    folder = find_run(str(name))
    return OpenedRun(folder, [Fold(path) for path in list_folds(folder)])
