"""One picture file explained: the radiograph beside the heat maps of its labels."""

import difflib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cxrkeras import labels
from cxrkeras.config import CONFIG
from cxrkeras.data.dataset import PHANTOM_FILE
from cxrkeras.data.images import decode_image, read_warnings, resize_image, shrink_image
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_explainer
from cxrkeras.explain.overlay import plot_gradcam
from cxrkeras.files import load_shaped, make_folder
from cxrkeras.models.classifier import FEATURES
from cxrkeras.models.compiled import load_network
from cxrkeras.scoring.find_runs import GRADCAM, MODEL, Config
from cxrkeras.scoring.operating_points import load_operating_points
from cxrkeras.text import clean, fit_file_name, num_of, plain

NUM_TOP = 4
LARGEST_SIDE = 2048  # pixels of a picture that is drawn; the largest images would take gigabytes
ALL = "all"


@dataclass(frozen=True)
class Sheet:
    """A saved sheet: the calibrated probability of each label, and what the reader must be told."""

    path: Path
    probs: dict[str, float]
    shown: list[str]  # labels with a map, highest first
    warnings: list[str]


def check_label(label: str | None) -> str | None:
    """Return the label as it is spelled in the project, `all` or None; InputError with the nearest names otherwise."""
    if label is None or label == ALL:
        return label
    spelled = {name.lower().replace("_", " "): name for name in labels.LABELS}
    wanted = label.lower().replace("_", " ")
    if wanted not in spelled:
        near = difflib.get_close_matches(wanted, spelled, 1)
        hint = f"did you mean {spelled[near[0]]}? " if near else ""
        raise InputError(f"unknown label {label!r}; {hint}the labels are {', '.join(labels.LABELS)}, or {ALL}")
    return spelled[wanted]


def build_sheets(folder: Path) -> Callable[[Path, str | None], Sheet]:
    """Load the network of a run's fold once, for any number of sheets.

    Returns a function of an image file (PNG, JPEG or DICOM of any size) and a label: None draws the four most probable
    findings among those the network has seen examples of, `all` draws all labels. Sheets are saved in the fold's folder
    under the file's name and eight digits of its content. Raises InputError if the run has no network of its own or the
    file is no image.
    """
    if not (folder / MODEL).is_file():
        raise InputError(f"{folder} has no {MODEL} to explain")
    config = load_shaped(folder / CONFIG, Config)
    trained_on = config["parts"].get("training")
    if trained_on is None:
        raise InputError(f"{folder / CONFIG} does not say what the network was trained on")
    network = load_network(folder / MODEL)
    explain = build_explainer(network)
    calibration, _ = load_operating_points(folder)
    size, cells = network.input_shape[1], network.get_layer(FEATURES).output.shape[1]
    unseen = [label for label, count in (trained_on.get("positives") or {}).items() if not count]
    data = "synthetic phantoms" if config["is_synthetic"] else f"split {config['split_name']}"
    notice = (
        f"Grad-CAM of {folder.parent.name}/{folder.name}, trained on {num_of(trained_on['images'], 'image')} of "
        f"{num_of(trained_on['patients'], 'patient')} ({data}). The network sees {size} x {size} pixels, a map has "
        f"{cells} x {cells} cells and is scaled to its own maximum, so that colours of two maps cannot be compared. "
        "Numbers are probabilities, calibrated on validation. "
        "Research software, no medical device: a heat map shows what moved the network, not what is there."
    )

    def draw(path: Path, label: str | None = None) -> Sheet:
        label = check_label(label)
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for without end
            raise InputError(f"{clean(str(path))} is not a file, but a folder, a pipe or a device")
        try:
            content = path.read_bytes()
            grey, remarks = decode_image(content), read_warnings(content)
        except OSError as error:
            raise InputError(f"cannot open {clean(str(path))}: {error.strerror}") from None
        except InputError as error:
            raise InputError(f"{clean(str(path))}: {error}") from None
        image = resize_image(grey, size)
        logits, maps = explain(image)
        probs = dict(zip(labels.LABELS, calibration.apply(logits[None])[0].tolist(), strict=True))
        ranked = sorted(labels.LABELS, key=probs.get, reverse=True)
        seen = [name for name in ranked if name not in unseen]
        # That nothing was found has no place in the image: it stands last and is never shown unasked.
        ranked.sort(key=lambda name: name not in labels.FINDINGS)
        top = [name for name in seen if name in labels.FINDINGS][:NUM_TOP]
        chosen = ranked if label == ALL else top if label is None else [label]
        is_phantom = any((parent / PHANTOM_FILE).is_file() for parent in path.resolve().parents)
        title = f"{plain(path.name)}{' (synthetic phantom)' if is_phantom else ''}"
        drawn = shrink_image(grey, LARGEST_SIDE)
        warnings = []
        if remarks:
            warnings.append(f"this may not be a chest radiograph like the training images: {'; '.join(remarks)}")
        text = " ".join([notice, *(f"Warning: {warning}." for warning in warnings)])
        figure = plot_gradcam(drawn, {name: maps[name] for name in chosen}, probs, title=title, notice=text)
        digest = hashlib.sha256(content).hexdigest()[:8]  # two files of one name do not overwrite each other
        suffix = f"-{label.replace(' ', '_')}" if label else ""
        out = folder / GRADCAM / fit_file_name(path.stem, f"-{digest}{suffix}.png")
        make_folder(out.parent)
        figure.savefig(out)
        if empty := [name for name in chosen if not maps[name].any()]:
            warnings.append(f"empty map, nothing in the image speaks for: {', '.join(empty)}")
        if strange := [name for name in chosen if name in unseen]:
            warnings.append(f"the network has seen no example of: {', '.join(strange)}")
        if config["is_synthetic"] and not is_phantom:
            warnings.append("this network was trained on synthetic phantoms and knows nothing about patients")
        return Sheet(out, probs, chosen, warnings)

    return draw
