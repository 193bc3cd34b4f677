"""One picture file explained: the radiograph beside the heat maps of its labels."""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cxrkeras import labels
from cxrkeras.data.images import decode_image, resize_image
from cxrkeras.errors import InputError
from cxrkeras.explain.gradcam import build_gradcam
from cxrkeras.explain.overlay import plot_gradcam
from cxrkeras.models.registry import find_network
from cxrkeras.runs import CONFIG, GRADCAM, MODEL, PHANTOM_FILE

NUM_TOP = 4
ALL = "all"


@dataclass(frozen=True)
class Sheet:
    """A saved sheet, with the probability of every label (sigmoid of the logit) and the labels without evidence."""

    path: Path
    probs: dict[str, float]
    without_evidence: list[str]


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

    Returns a function of an image file (PNG or JPEG of any size) and a label: None draws the four labels with the
    highest logits, `all` draws all 15. Sheets are saved in the fold's folder. Raises InputError if the run has no
    network of its own or the file is no image.
    """
    if not (folder / MODEL).is_file():
        raise InputError(f"{folder} has no {MODEL} to explain")
    config = json.loads((folder / CONFIG).read_text())
    experiment = config["experiment"]
    network = keras.models.load_model(folder / MODEL, compile=False)
    explain = build_gradcam(network, find_network(experiment["model"]["name"]).cam_layer)
    trained_on = config["parts"]["training"]
    data = "synthetic phantoms" if config["is_synthetic"] else f"split {config['split_name']}"
    notice = (
        f"Grad-CAM of {folder.parent.name}/{folder.name}, trained on {trained_on['images']:,} images of "
        f"{trained_on['patients']:,} patients ({data}). Numbers are uncalibrated probabilities.\n"
        "Research software, no medical device: a heat map shows what moved the network, not what is there."
    )

    def draw(path: Path, label: str | None = None) -> Sheet:
        label = check_label(label)
        try:
            grey = decode_image(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot open {path}: {error.strerror}") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        image = resize_image(grey, network.input_shape[1])
        logits, maps = (part[0] for part in explain(image[None, ..., None]))
        probs = dict(zip(labels.LABELS, (1 / (1 + np.exp(-logits.astype(np.float64)))).tolist(), strict=True))
        maps = dict(zip(labels.LABELS, maps, strict=True))
        ranked = sorted(labels.LABELS, key=probs.get, reverse=True)
        chosen = ranked if label == ALL else ranked[:NUM_TOP] if label is None else [label]
        is_phantom = any((parent / PHANTOM_FILE).is_file() for parent in path.resolve().parents)
        title = f"{path.name}{' (synthetic phantom)' if is_phantom else ''}"
        figure = plot_gradcam(grey, {name: maps[name] for name in chosen}, probs, title=title, notice=notice)
        suffix = f"-{label.replace(' ', '_')}" if label else ""
        out = folder / GRADCAM / f"{path.stem}{suffix}.png"
        out.parent.mkdir(exist_ok=True)
        figure.savefig(out)
        return Sheet(out, probs, [name for name in chosen if not maps[name].any()])

    return draw
