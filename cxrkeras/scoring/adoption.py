"""Adopts a public network: fetches its file, converts it, and writes a run folder like that of a training."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cxrkeras.config import CONFIG
from cxrkeras.data.download import check_digest, download_file
from cxrkeras.errors import InputError
from cxrkeras.files import make_folder, write_json
from cxrkeras.labels import LabelSet, find_no_finding
from cxrkeras.models.network_file import write_labels
from cxrkeras.models.past import UNKNOWN, write_past
from cxrkeras.models.public import build_public_network
from cxrkeras.models.public_table import PublicNetwork, find_public
from cxrkeras.models.sources import find_cache
from cxrkeras.progress import SILENT, Progress
from cxrkeras.scoring.calibration import UNCALIBRATED, Calibration, Curve
from cxrkeras.scoring.operating_points import OperatingPoints, save_operating_points
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import MODEL, PUBLISHED, RUNS_ROOT, Adoption, Config, Origin, PublishedScore
from cxrkeras.scoring.thresholds import Thresholds

DIGESTS = "cxrkeras_sha256.json"  # in the cache: the SHA-256 of each file when it was fetched first
FOLD = "fold0"  # the folder of the network in its run folder


@dataclass(frozen=True)
class Adopted:
    """An adopted network, whether it was there before, and what its user must know."""

    fold: Fold
    is_new: bool
    notes: list[str] = field(default_factory=list)


def adopt_public(
    name: str,
    *,
    file: str | None = None,
    sha256: str | None = None,
    root: Path = RUNS_ROOT,
    progress: Progress = SILENT,
) -> Adopted:
    """Adopt a public network by its name in the table as `<root>/<name>/fold0`.

    file: a path or an address to take the file from, by default its publisher's; sha256: what the file must have. The
    SHA-256 of the first fetch is kept, and a later file with another one is refused. Raises InputError if the file
    cannot be fetched, is another than expected, does not fit, or holds anything but weights.
    """
    row, folder = find_public(name), root / name / FOLD
    if folder.exists():
        return Adopted(Fold(folder), is_new=False)
    notes: list[str] = []
    path = _find_file(row, name, file, sha256, notes, progress)
    progress.start(f"converting {name}")
    network, left_out = build_public_network(row, path, name)
    if not np.isfinite(network(np.full((1, row.size, row.size, 1), 128, np.float32), training=False)).all():
        raise InputError(f"{path} does not hold a working network: its outputs are not finite")
    if left_out:
        notes.append(f"left out of the file: {', '.join(left_out)}")
    adoption = Adoption(
        network=row.network,
        size=row.size,
        source=path.name if file and not _is_address(file) else file or row.address,
        sha256=_hash_file(path),
        licence=row.licence,
        trained_on=row.trained_on,
        split=row.split,
        citation=row.citation,
        published=[PublishedScore(**score) for score in row.published],
        notes=list(row.notes),
    )
    names = tuple(row.labels[place] for place in row.outputs)
    labels = LabelSet(names, find_no_finding(names))
    config = Config(
        name=name,
        is_synthetic=False,
        labels=list(labels),
        no_finding=labels.no_finding,
        preparation=row.preparation,
        versions={package: version(package) for package in ("cxrkeras", "keras", "numpy")},
        adopted=adoption,
    )
    install_run(folder, config, network, _publish_points(row, labels))
    return Adopted(Fold(folder), is_new=True, notes=notes)


def install_run(folder: Path, config: Config, network: keras.Model, points: OperatingPoints) -> None:
    """Write the folder of an adopted network at once: it is there as a whole or not at all."""
    draft = folder.with_name(f".draft-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    make_folder(draft)
    try:
        network.save(draft / MODEL)
        write_labels(draft / MODEL, config.label_set)
        write_past(draft / MODEL, UNKNOWN)
        save_operating_points(draft, points)
        write_json(draft / CONFIG, config.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish_points(row: PublicNetwork, labels: LabelSet) -> OperatingPoints:
    """The sigmoid without a calibration, and the published thresholds."""
    origin = Origin(part=PUBLISHED, fold=None, split_name=row.split, images=0, patients=0)
    values = row.thresholds
    notes = {label: "" if values[label] is not None else "no threshold: none is published" for label in labels}
    curves = {label: Curve() for label in labels}
    return OperatingPoints(Calibration(UNCALIBRATED, origin, curves), Thresholds(row.rule, origin, values, notes))


def _find_file(
    row: PublicNetwork, name: str, file: str | None, sha256: str | None, notes: list[str], progress: Progress
) -> Path:
    """Find or fetch the file of a network, and compare it with what is known of it."""
    if sha256 is not None and not (len(sha256) == 64 and set(sha256.lower()) <= set("0123456789abcdef")):
        raise InputError(f"a SHA-256 has 64 hexadecimal digits; got {sha256!r}", option="sha256")
    wanted = (sha256 or "").lower() or row.sha256
    cache = find_cache()
    if file is not None and not _is_address(file):
        path = Path(file)
        if not path.is_file():
            raise InputError(f"no file {path}", option="file")
        if wanted:
            check_digest(path, wanted, str(path))
        return path
    address = file or row.address
    kept = _load_digests(cache)
    wanted = wanted or kept.get(name, "")
    path = cache / row.file_name
    try:
        if path.is_file() and wanted:
            check_digest(path, wanted, str(path))
        download_file(address, path, digest=wanted or None, progress=progress)
    except InputError as error:
        raise InputError(
            f"{name} cannot be fetched: {error}{'' if str(error).endswith('?') else '.'} Fetch it elsewhere, from "
            f"{row.page}, and name the file with --file"
        ) from None
    digest = _hash_file(path)
    if name not in kept or sha256:
        write_json(cache / DIGESTS, kept | {name: digest})
        if not row.sha256:
            notes.append(
                f"no checksum is published for {path.name}: its SHA-256 is {digest}, which is kept, and a later file "
                "with another one refused"
            )
    return path


def _is_address(file: str) -> bool:
    return file.startswith(("http://", "https://"))


def _load_digests(cache: Path) -> dict[str, Any]:
    try:
        content = json.loads((cache / DIGESTS).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{cache / DIGESTS} cannot be read ({error}): restore or delete it") from None
    return content if isinstance(content, dict) else {}


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
