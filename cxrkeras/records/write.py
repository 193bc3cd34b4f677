"""Converts a data set to records, once: shards by split and fold, manifest, index, boxes."""

import hashlib
import itertools
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset
from cxrkeras.data.folds import HASHED, assign_folds, check_patients, check_split_rule
from cxrkeras.data.identity import ROUNDS, choose_salt, hash_patients
from cxrkeras.data.images import load_image, open_image
from cxrkeras.data.preparation import OWN, Preparation
from cxrkeras.errors import InputError
from cxrkeras.files import locked, write_text
from cxrkeras.labels import encode_values
from cxrkeras.progress import SILENT, Progress
from cxrkeras.records.duplicates import DUPLICATES, ERROR, describe_duplicates, digest_image, find_duplicates
from cxrkeras.records.find_records import BOXES, INDEX, MANIFEST, PATIENTS, SKIPPED
from cxrkeras.records.folder import INDEX_COLUMNS
from cxrkeras.records.journal import Entry, append_to_journal, delete_journal, read_journal
from cxrkeras.records.manifest import (
    NO_FOLD,
    SCHEMA_VERSION,
    Manifest,
    Shard,
    check_settings,
    load_manifest,
    save_manifest,
)
from cxrkeras.records.schema import encode_example
from cxrkeras.text import num_of

SHARD_IMAGES = 1024
EXAMPLE_OVERHEAD = 200  # bytes in addition to the pixels
IN_FLIGHT = 64  # images decoded ahead of the writer


@dataclass(frozen=True)
class Summary:
    folder: Path
    num_images: int
    skipped: pd.DataFrame  # image_id, path, reason of the images that could not be read or were dropped
    num_dropped: int
    is_new: bool


def write_records(
    dataset: Dataset,
    folder: Path,
    *,
    size: int = 224,
    num_folds: int = 5,
    seed: int = 0,
    split_rule: str = HASHED,
    max_skipped: float = 0.01,
    duplicates: str = ERROR,
    preparation: Preparation = OWN,
    num_threads: int | None = None,
    progress: Progress = SILENT,
) -> Summary:
    """Write the images of a data set as records of `size` x `size` grey bytes, with the salted hashes of its patients.

    Images that cannot be read are skipped and listed with the reason in skipped.csv; a larger share than `max_skipped`
    is an error. The same picture under two patients on two sides of a split, or in two folds, is an error by default;
    with `duplicates="drop"` only that of the test set, else of the lowest fold, is kept. An interrupted conversion
    resumes at the last complete shard, and its shards are byte-identical to those of an uninterrupted one, whatever the
    number of threads. Folds are assigned by `split_rule`, one of SPLIT_RULES. Boxes are left out if the `preparation`
    crops the images.

    Raises InputError if the folder holds records with other settings, another process is writing to it, or its disk
    has too little space.
    """
    if not 0 <= max_skipped <= 1:
        raise InputError(f"max_skipped must be a share from 0 to 1; got {max_skipped}")
    if not 16 <= size <= 2048:
        raise InputError(f"size must be 16 to 2048 pixels; got {size}")
    if duplicates not in DUPLICATES:
        raise InputError(f"duplicates must be {' or '.join(DUPLICATES)}; got {duplicates!r}")
    check_split_rule(split_rule)
    table = assign_shards(dataset, num_folds, seed, split_rule)
    settings = _describe_settings(dataset, size, preparation, num_folds, seed, split_rule)
    if (folder / MANIFEST).exists():
        return _open_finished(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with locked(lock, f"another process is writing to {folder}: wait for it, or choose another name"):
        try:
            conversion = _Conversion(folder, settings, num_threads or os.cpu_count() or 1, progress)
            return conversion.run(dataset, table, max_skipped, duplicates)
        except tf.errors.OpError as error:  # of the record writer
            raise InputError(f"cannot write to {folder}: {error.message}; the same command resumes later") from None


def _describe_settings(
    dataset: Dataset, size: int, preparation: Preparation, num_folds: int, seed: int, split_rule: str
) -> dict[str, Any]:
    """The values of the manifest that are known before the conversion."""
    members = dataset.members or {dataset.folder.resolve().name: dataset}
    return {
        "schema_version": SCHEMA_VERSION,
        "labels": dataset.labels.names,
        "no_finding": dataset.labels.no_finding,
        "sources": [
            _describe_source(member, name, is_joined=bool(dataset.members)) for name, member in members.items()
        ],
        "preparation": preparation.model_dump(),
        "size": size,
        "split_name": dataset.split_name,
        "list_checksums": dataset.list_checksums,
        "num_folds": num_folds,
        "fold_seed": seed,
        "fold_rule": split_rule,
        "is_synthetic": dataset.is_synthetic,
        "fingerprint": dataset.fingerprint(),
        "overlap": dataset.settings.get("overlap"),
        "namespace": dataset.namespace,
    }


def _describe_source(member: Dataset, name: str, *, is_joined: bool) -> dict[str, Any]:
    return {
        "name": name,
        "kind": member.kind,
        "settings": member.settings,
        "label_file": member.label_file,
        "split_name": member.split_name,
        "namespace": member.namespace if is_joined else "",
    }


def _open_finished(folder: Path, settings: dict[str, Any]) -> Summary:
    """Summarise records that were converted before. Raises InputError if their settings differ."""
    manifest = load_manifest(folder)
    check_settings(folder, manifest.model_dump(mode="json", include=set(settings)), settings)
    try:
        skipped = pd.read_csv(folder / SKIPPED, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {folder / SKIPPED} ({error}): delete {folder} and convert again") from None
    return Summary(folder, manifest.num_records, skipped, manifest.num_dropped, is_new=False)


class _Conversion:
    """A conversion with its settings and the journal of its finished shards."""

    def __init__(self, folder: Path, settings: dict[str, Any], num_threads: int, progress: Progress):
        self.folder, self.settings, self.num_threads, self.progress = folder, settings, num_threads, progress
        self.size, self.preparation = settings["size"], Preparation(**settings["preparation"])
        self.journal = read_journal(folder, settings)

    def run(self, dataset: Dataset, table: pd.DataFrame, max_skipped: float, duplicates: str) -> Summary:
        todo = table[~table["shard"].isin(self.journal)]
        _check_space(self.folder, len(todo) * (self.size * self.size + EXAMPLE_OVERHEAD))
        self._write_shards(todo, list(todo["shard"].unique()), {}, len(table) - len(todo), len(table))
        skipped = self._list("skipped")
        _check_skipped(skipped, len(table), max_skipped, self.folder)
        found = find_duplicates(self._keep(table))
        if len(found) and duplicates == ERROR:
            sentence = f"{describe_duplicates(found)}; fix the table, or drop them with duplicates=drop"
            raise InputError(sentence, option="duplicates")
        if len(found):
            self._drop(self._keep(table), found)
        kept, dropped = self._keep(table), self._list("dropped")
        left_out = pd.concat([skipped, dropped])
        write_text(self.folder / SKIPPED, left_out.to_csv(index=False))
        salt = choose_salt(self.settings["namespace"], self.settings["fingerprint"])
        manifest = Manifest(
            **self.settings,
            patient_salt=salt.hex(),
            patient_rounds=ROUNDS,
            num_listed=dataset.listed["rows"],
            num_skipped=len(skipped),
            num_dropped=len(dropped),
            table_checksums=_write_tables(
                dataset, kept, self.folder, salt, self.progress, has_boxes=self.preparation.crop == "none"
            ),
            shards=[self.journal[name].shard for name in table["shard"].unique()],
        )
        save_manifest(self.folder, manifest)
        delete_journal(self.folder)
        return Summary(self.folder, len(kept), left_out, len(dropped), is_new=True)

    def _list(self, kind: str) -> pd.DataFrame:
        rows = [row for entry in self.journal.values() for row in getattr(entry, kind)]
        return pd.DataFrame(rows, columns=["image_id", "path", "reason"]).sort_values("image_id")

    def _keep(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows whose images are in the shards, with the digests of their pixels."""
        digests = {image: digest for entry in self.journal.values() for image, digest in entry.digests.items()}
        kept = table[table["image_id"].isin(digests)]
        return kept.assign(digest=kept["image_id"].map(digests))

    def _drop(self, kept: pd.DataFrame, found: pd.DataFrame) -> None:
        """Rewrite the shards of the images in `found` without these images."""
        names = list(found["shard"].unique())
        before = {}
        for name in names:
            before[name] = self.journal[name].model_copy(deep=True)
            before[name].dropped += found[found["shard"] == name][["image_id", "path", "reason"]].to_dict("records")
            append_to_journal(self.folder, {"void": name})  # an interruption must not leave an outdated entry
        again = kept[kept["shard"].isin(names) & ~kept["image_id"].isin(found["image_id"])]
        self._write_shards(again, names, before, 0, len(again))

    def _write_shards(
        self, todo: pd.DataFrame, names: list[str], before: dict[str, Entry], num_done: int, total: int
    ) -> None:
        """Write the shards of the rows `todo`; `before` has the previous entries of rewritten shards."""
        advance = self.progress.start("converting", total)
        advance(num_done)
        with ThreadPoolExecutor(self.num_threads) as pool:
            by_shard = {name: todo[todo["shard"] == name] for name in names}
            paths = [path for rows in by_shard.values() for path in rows["path"]]
            decoded = _decode_ahead(pool, paths, self.size, self.preparation)
            for name, rows in by_shard.items():
                draft = self.folder / f".{name}.draft"
                failed, digests = [], {}
                with tf.io.TFRecordWriter(str(draft)) as writer:
                    values = rows[list(self.settings["labels"])].to_numpy(np.int8)
                    columns = (rows[name] for name in ("image_id", "patient_id", "path"))
                    for image_id, patient_id, path, value in zip(*columns, values, strict=True):
                        image = next(decoded).result()
                        if isinstance(image, bytes):
                            writer.write(encode_example(image, value.tobytes(), image_id, patient_id))
                            digests[image_id] = digest_image(image)
                        else:
                            failed.append({"image_id": image_id, "path": path, "reason": str(image)})
                        advance()
                with draft.open("rb") as file:
                    checksum = hashlib.file_digest(file, "sha256").hexdigest()
                    os.fsync(file.fileno())
                draft.replace(self.folder / name)
                if name in before:
                    entry = before[name]
                    shard = entry.shard.model_copy(update={"count": len(digests), "sha256": checksum})
                    entry = entry.model_copy(update={"shard": shard, "digests": digests})
                else:
                    split, fold = rows.iloc[0][["split", "fold"]]
                    shard = Shard(file=name, split=split, fold=fold, count=len(digests), sha256=checksum)
                    entry = Entry(shard=shard, skipped=failed, digests=digests)
                self.journal[name] = entry
                append_to_journal(self.folder, entry.model_dump())


def _check_skipped(skipped: pd.DataFrame, total: int, max_skipped: float, folder: Path) -> None:
    if len(skipped) < total and len(skipped) <= max_skipped * total:
        return
    write_text(folder / SKIPPED, skipped.to_csv(index=False))
    raise InputError(
        f"{len(skipped):,} of {num_of(total, 'image')} cannot be read, more than {max_skipped:.1%}: see "
        f"{folder / SKIPPED} for the reasons (first: {skipped['path'].iloc[0]}: {skipped['reason'].iloc[0]}); "
        "fix them, or allow a larger share with max_skipped"
    )


def assign_shards(dataset: Dataset, num_folds: int, seed: int, rule: str) -> pd.DataFrame:
    """Add fold and shard to the table of images, in the order of writing: each fold, shuffled by image, then test."""
    table = dataset.table.sort_values("image_id")
    is_test = table["split"] == TEST
    table["fold"] = NO_FOLD
    if not is_test.all():
        patients = table["patient_id"][~is_test].to_numpy()
        sources = table["source"][~is_test].to_numpy() if dataset.members else None
        folds = assign_folds(patients, num_folds, seed, rule=rule, namespace=dataset.namespace, sources=sources)
        table.loc[~is_test, "fold"] = folds
    check_patients(table)
    table = pd.concat(
        [table[~is_test].sample(frac=1, random_state=seed).sort_values("fold", kind="stable"), table[is_test]]
    )
    place = table.groupby("fold", sort=False).cumcount() // SHARD_IMAGES
    total = place.groupby(table["fold"]).transform("max") + 1
    subset = np.where(table["split"] == TEST, TEST, TRAIN_VAL + "-fold" + table["fold"].astype(str))
    table["shard"] = [f"{s}-{i:05d}-of-{n:05d}.tfrecord" for s, i, n in zip(subset, place, total, strict=True)]
    return table


def _decode_ahead(
    pool: ThreadPoolExecutor, paths: list[str], size: int, preparation: Preparation
) -> Iterator[Future[bytes | InputError]]:
    """Yield the decoded images of `paths` in order, with up to IN_FLIGHT decoded in advance."""
    waiting: deque[Future[bytes | InputError]] = deque()
    remaining = iter(paths)
    for path in itertools.islice(remaining, IN_FLIGHT):
        waiting.append(pool.submit(_decode_file, path, size, preparation))
    while waiting:
        yield waiting.popleft()
        for path in itertools.islice(remaining, 1):
            waiting.append(pool.submit(_decode_file, path, size, preparation))


def _decode_file(path: str, size: int, preparation: Preparation) -> bytes | InputError:
    try:
        with open_image(Path(path)) as content:
            return load_image(content, size, preparation).tobytes()
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"cannot be opened: {error.strerror}")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder} needs {needed / 1e9:.1f} GB; its disk has {free / 1e9:.1f} GB free")


def _write_tables(
    dataset: Dataset, kept: pd.DataFrame, folder: Path, salt: bytes, progress: Progress, *, has_boxes: bool
) -> dict[str, str]:
    """Write index, boxes and patients of the kept images; return the checksums of all tables, skipped.csv included."""
    index = kept[INDEX_COLUMNS]
    values = encode_values(kept[list(dataset.labels)].to_numpy())
    index = pd.concat([index, pd.DataFrame(values, index.index, list(dataset.labels))], axis=1)
    boxes = dataset.boxes[dataset.boxes["image_id"].isin(kept["image_id"]) & has_boxes]
    patients = sorted(kept["patient_id"].unique())
    advance = progress.start("hashing patients", len(patients))
    hashes = hash_patients(dataset.namespace, patients, salt, advance=advance)
    texts = {
        INDEX: index.to_csv(index=False, float_format="%.4g"),
        BOXES: boxes.to_csv(index=False, float_format="%.6f"),
        PATIENTS: pd.DataFrame({"patient_id": patients, "hash": [value.tobytes().hex() for value in hashes]}).to_csv(
            index=False
        ),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (*texts, SKIPPED)}
