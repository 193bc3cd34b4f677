"""An ensemble: the mean of several networks, kept as a run like any other."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from cxrkeras.errors import InputError
from cxrkeras.runs import CONFIG, METRICS, RUNS_ROOT, Config, Metrics, load_shaped, predictions_file, write_json
from cxrkeras.scoring.operating import describe_part, fit_operating_points, save_operating_points
from cxrkeras.scoring.predictions import Predictions, load_parts, save_predictions
from cxrkeras.scoring.scores import describe_scores

AVERAGES = ("logits", "probabilities")
_SURE = 1e-7  # a mean probability is kept as a logit, which must be finite
_SAME = ("split_name", "records_fingerprint", "folds", "is_synthetic")


def average_logits(members: list[np.ndarray], average: str) -> np.ndarray:
    """The mean logits (N, L) of members' logits, or the logits of their mean probabilities."""
    if average == "logits":
        return np.mean(members, axis=0)
    return logit(np.clip(np.mean([expit(one) for one in members], axis=0), _SURE, 1 - _SURE))


def combine_validation(members: list[Predictions], average: str) -> Predictions:
    """Each validation image by those members that had held it out, and by no other: the rest was trained on it."""
    held: dict[str, list[tuple[int, int]]] = {}
    for number, member in enumerate(members):
        for row, image in enumerate(member.image_ids):
            held.setdefault(image, []).append((number, row))
    parts = []
    for places in held.values():
        logits = average_logits([members[number].logits[row] for number, row in places], average)
        number, row = places[0]
        first = members[number]
        if any((members[other].truth[place] != first.truth[row]).any() for other, place in places):
            raise InputError(f"the members have different labels of {first.image_ids[row]}: take runs on the same data")
        parts.append((first.image_ids[row], first.patient_ids[row], first.truth[row], logits))
    return Predictions(*(np.array(column) for column in zip(*parts, strict=True)))


def combine_test(members: list[Predictions], average: str) -> Predictions:
    """All members on the images of the first one. Raises InputError if they were scored on others."""
    first = members[0]
    try:
        logits = [member.align(first).logits for member in members]
    except InputError as error:
        raise InputError(
            f"the members were scored on different test parts, {error}: take runs on the same records"
        ) from None
    return Predictions(first.image_ids, first.patient_ids, first.truth, average_logits(logits, average))


def build_ensemble(
    folders: list[Path],
    *,
    average: str = "logits",
    root: Path = RUNS_ROOT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, dict]:
    """Average finished folds, write `<root>/ensemble-<8 hex digits>/fold.../` and return it with its metrics.

    Test images are predicted by all members, validation images by those that had held them out. The folder has the
    files of any run but no network. Raises InputError for members on other data, splits or folds.
    """
    if average not in AVERAGES:
        raise InputError(f"an ensemble averages {' or '.join(AVERAGES)}; got {average!r}")
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    if len(folders) < 2:
        raise InputError(f"an ensemble has two members or more; got {len(folders)}: {', '.join(map(str, folders))}")
    configs = [load_shaped(folder / CONFIG, Config) for folder in folders]
    metrics = [load_shaped(folder / METRICS, Metrics) for folder in folders]
    names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    if nested := [name for name, config in zip(names, configs, strict=True) if "members" in config]:
        raise InputError(f"{nested[0]} is an ensemble itself: name its members")
    for name, config in zip(names, configs, strict=True):
        for key in _SAME:
            if config[key] != configs[0][key]:
                raise InputError(
                    f"{name} has {key.replace('_', ' ')} {config[key]} and {names[0]} {configs[0][key]}: an "
                    f"ensemble is "
                    "of runs on the same records and folds"
                )
    members = []
    for number, folder in enumerate(folders):
        members.append(load_parts(folder))
        progress(number + 1, len(folders))
    parts = {
        "validation": combine_validation([member["validation"] for member in members], average),
        "test": combine_test([member["test"] for member in members], average),
    }
    held_out = sorted({one["fold"] for one in metrics})
    digest = hashlib.sha256(" ".join([average, *sorted(names)]).encode()).hexdigest()[:8]
    folder = root / f"ensemble-{digest}" / f"fold{'-'.join(map(str, held_out))}"
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: configs[0][key] for key in (*_SAME, "labels", "versions")} | {
        "name": "ensemble",
        "members": names,
        "average": average,
        "parts": {part: {"images": len(one.truth), "patients": one.num_patients} for part, one in parts.items()},
    }
    content = {
        "run": folder.parent.name,
        "fold": held_out[0] if len(held_out) == 1 else ", ".join(map(str, held_out)),
        "best_epoch": None,
        **{key: metrics[0][key] for key in ("records", "split_name", "is_partial", "is_synthetic")},
        **{part: describe_scores(predictions) for part, predictions in parts.items()},
    }
    write_json(folder / CONFIG, config)
    for part, predictions in parts.items():
        save_predictions(folder / predictions_file(part), predictions)
    fitted_on = describe_part(parts["validation"], content, "validation")
    save_operating_points(folder, *fit_operating_points(parts["validation"], fitted_on))
    write_json(folder / METRICS, content)
    return folder, content
