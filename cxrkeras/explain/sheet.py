"""Explains an image file: the radiograph next to the heat maps of its labels."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrkeras.data.dataset import PHANTOM_FILE
from cxrkeras.data.images import decode_for, read_warnings, resize_image, shrink_image
from cxrkeras.data.preparation import Preparation
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.explain.overlay import plot_gradcam
from cxrkeras.files import make_folder
from cxrkeras.labels import ALL, LabelSet, file_name
from cxrkeras.models.classifier import FEATURES
from cxrkeras.models.compiled import load_network
from cxrkeras.scoring.calibration import explain_numbers
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import GRADCAM, MODEL
from cxrkeras.text import clean, fit_file_name, plain

NUM_TOP = 4
PAGE_LABELS = 23  # maps in a figure, in addition to the radiograph
LARGEST_SIDE = 2048  # pixels of an image that is drawn; the largest images would take gigabytes


@dataclass(frozen=True)
class Sheet:
    """A saved sheet: the calibrated probability of each label, and warnings for the reader."""

    paths: list[Path]  # of figures, several if there are many labels
    probs: dict[str, float]
    shown: list[str]  # labels with a map, the most probable first
    warnings: list[str]


def check_label(label: str | None, labels: LabelSet) -> str | None:
    """Return the label in the network's spelling, `all` or None. Raises InputError that suggests similar labels."""
    return label if label is None or label == ALL else labels.require(label)


class SheetWriter:
    """Draws sheets with the network of a finished fold, loaded once.

    Raises InputError if the fold has no network.
    """

    def __init__(self, fold: Fold):
        fold.require(MODEL)
        self.fold, self.labels = fold, fold.labels
        self.calibration = fold.operating_points.calibration
        network = load_network(fold.folder / MODEL, fold.labels)
        self.explain = build_explainer(network, self.labels)
        self.size, self.cells = network.input_shape[1], network.get_layer(FEATURES).output.shape[1]

    @property
    def notice(self) -> str:
        """The notice on every sheet."""
        numbers = explain_numbers(self.calibration.method, self.calibration.fitted_on.part)
        return (
            f"Grad-CAM of {self.fold.name}, trained on {self.fold.trained_on}. The network sees {self.size} x "
            f"{self.size} pixels, a map has {self.cells} x {self.cells} cells and is scaled to its own maximum, so "
            f"that colours cannot be compared between maps. {numbers} "
            "Research software, not a medical device: a heat map shows what influenced the network, not where a "
            "disease is."
        )

    def write(self, path: Path, label: str | None = None) -> Sheet:
        """Explain an image file, PNG, JPEG or DICOM of any size, and save the sheet in the fold's folder.

        label: None draws the four most probable findings among those with positives in the training set, `all` draws
        all labels. The name of the sheet has the name of the file and eight hex digits of its hash. Raises InputError
        for a file that is not an image, or an unknown label.
        """
        label = check_label(label, self.labels)
        preparation = self.fold.config.preparation
        content, grey, seen, remarks = _read_file(path, preparation)
        logits, maps = self.explain(resize_image(seen, self.size, preparation))
        probs = dict(zip(self.labels, self.calibration.apply(logits[None], self.labels)[0].tolist(), strict=True))
        shown = self._choose(label, probs)
        is_phantom = any((parent / PHANTOM_FILE).is_file() for parent in path.resolve().parents)
        title = f"{plain(path.name)}{' (synthetic phantom)' if is_phantom else ''}"
        warnings = []
        if remarks:
            warnings.append(f"this may not be a chest radiograph like the training images: {'; '.join(remarks)}")
        text = " ".join([self.notice, *(f"Warning: {warning}." for warning in warnings)])
        drawn = shrink_image(grey, LARGEST_SIDE)
        digest = hashlib.sha256(content).hexdigest()[:8]  # files with the same name do not overwrite each other
        suffix = f"-{file_name(label)}" if label else ""
        pages = [shown[start : start + PAGE_LABELS] for start in range(0, len(shown), PAGE_LABELS)] or [[]]
        paths = []
        for number, names in enumerate(pages, 1):
            page = f"-{number}" if len(pages) > 1 else ""
            out = self.fold.folder / GRADCAM / fit_file_name(path.stem, f"-{digest}{suffix}{page}.png")
            make_folder(out.parent)
            shown_maps = {name: maps[name] for name in names}
            plot_gradcam(drawn, shown_maps, probs, title=title, notice=text, crop=preparation.crop).savefig(out)
            paths.append(out)
        if empty := [name for name in shown if not maps[name].any()]:
            warnings.append(f"empty map, no evidence in the image for: {', '.join(empty)}")
        if unseen := [name for name in shown if name in self.fold.unseen]:
            warnings.append(f"no positives in the training set for: {', '.join(unseen)}")
        if self.fold.config.is_synthetic and not is_phantom:
            warnings.append("this network was trained on synthetic phantoms and knows nothing about patients")
        return Sheet(paths, probs, shown, warnings)

    def _choose(self, label: str | None, probs: dict[str, float]) -> list[str]:
        """Choose the labels whose maps are drawn, the most probable first."""
        if label is not None and label != ALL:
            return [label]
        ranked = sorted(self.labels, key=probs.__getitem__, reverse=True)
        # The no-finding label has no location in the image: it is last, and shown only on request.
        ranked.sort(key=lambda name: name == self.labels.no_finding)
        if label == ALL:
            return ranked
        return [name for name in ranked if name in self.labels.findings and name not in self.fold.unseen][:NUM_TOP]


def _read_file(path: Path, preparation: Preparation) -> tuple[bytes, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read the content of a file, the grey image as readers and as the network see it, and its header's warnings."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe might never end
        raise InputError(f"{clean(str(path))} is not a file, but a folder, a pipe or a device")
    try:
        content = path.read_bytes()
        return content, *decode_for(preparation, content), read_warnings(content)
    except OSError as error:
        raise InputError(f"cannot open {clean(str(path))}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{clean(str(path))}: {error}") from None
