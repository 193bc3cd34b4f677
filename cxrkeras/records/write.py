"""Converts a data folder into records, once: shards by split and fold, manifest, index, boxes."""

import hashlib
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.data.folds import assign_folds, check_patients
from cxrkeras.data.images import load_image, open_image
from cxrkeras.data.release import DETAILS, Release
from cxrkeras.errors import InputError
from cxrkeras.records.manifest import (
    NO_FOLD,
    SCHEMA_VERSION,
    TEST,
    TRAIN_VAL,
    Manifest,
    Shard,
    load_manifest,
    save_manifest,
)
from cxrkeras.records.schema import encode_example
from cxrkeras.runs import BOXES, INDEX, MANIFEST, SKIPPED, locked, write_text

SHARD_IMAGES = 1024
EXAMPLE_OVERHEAD = 200  # bytes beside the pixels
JOURNAL = "journal.jsonl"  # the settings and the finished shards of an unfinished conversion
IN_FLIGHT = 64  # images decoded ahead of the writer


@dataclass(frozen=True)
class Summary:
    folder: Path
    num_images: int
    skipped: pd.DataFrame  # image_id, path, reason
    is_new: bool


def write_records(
    release: Release,
    folder: Path,
    *,
    size: int = 224,
    num_folds: int = 5,
    seed: int = 0,
    max_skipped: float = 0.01,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Write the images of a release as records of `size` x `size` grey bytes.

    An image that cannot be read is left out and listed with the reason in skipped.csv; more than the share
    `max_skipped` of them is an error. An interrupted conversion is taken up at the last whole shard, and its
    shards are the same bytes as those of an unbroken one, whatever the number of threads. `progress` is called
    with the images done and wanted.

    Raises InputError for a folder that holds records with other settings, that another process is writing, or on
    a disk without enough space.
    """
    if not 0 <= max_skipped <= 1:
        raise InputError(f"MAX_SKIPPED must be a share from 0 to 1; got {max_skipped}")
    if not 16 <= size <= 2048:
        raise InputError(f"SIZE must be 16 to 2048 pixels; got {size}")
    table = _assign_shards(release.table, num_folds, seed)
    settings = {
        "schema_version": SCHEMA_VERSION,
        "labels": labels.LABELS,
        "size": size,
        "split_name": release.split_name,
        "list_checksums": release.list_checksums,
        "num_folds": num_folds,
        "fold_seed": seed,
        "label_file": release.label_file,
        "is_synthetic": release.is_synthetic,
        "source": release.folder.resolve().name,
        "fingerprint": release.fingerprint(),
    }
    if (folder / MANIFEST).exists():
        manifest = load_manifest(folder)
        _check_settings(folder, manifest.model_dump(include=settings.keys()), settings)
        try:
            skipped = pd.read_csv(folder / SKIPPED, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {folder / SKIPPED} ({error}): delete {folder} and make it anew") from None
        return Summary(folder, sum(shard.count for shard in manifest.shards), skipped, is_new=False)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"another process is writing to {folder}: wait for it, or give another NAME="):
        try:
            return _convert(release, table, folder, settings, max_skipped, num_threads or os.cpu_count(), progress)
        except tf.errors.OpError as error:  # of the record writer
            raise InputError(f"cannot write to {folder}: {error.message}; then the same command goes on") from None


def _convert(release, table, folder, settings, max_skipped, num_threads, progress) -> Summary:
    size = settings["size"]
    done, skipped = _read_journal(folder, settings)
    todo = table[~table["shard"].isin(done)]
    _check_space(folder, len(todo) * (size * size + EXAMPLE_OVERHEAD))
    num_done = len(table) - len(todo)
    progress(num_done, len(table))
    with ThreadPoolExecutor(num_threads) as pool, (folder / JOURNAL).open("a") as journal:
        decoded = _decode_ahead(pool, todo["path"], size)
        for name, rows in todo.groupby("shard", sort=False):
            draft = folder / f".{name}.draft"
            count, failed = 0, []
            with tf.io.TFRecordWriter(str(draft)) as writer:
                for row, hot in zip(rows.itertuples(), rows[list(labels.LABELS)].to_numpy(np.uint8), strict=True):
                    image = next(decoded).result()
                    if isinstance(image, bytes):
                        writer.write(encode_example(image, hot.tobytes(), row.image_id, row.patient_id))
                        count += 1
                    else:
                        failed.append({"image_id": row.image_id, "path": row.path, "reason": str(image)})
                    num_done += 1
                    progress(num_done, len(table))
            with draft.open("rb") as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            draft.replace(folder / name)
            first = rows.iloc[0]
            shard = Shard(file=name, split=first["split"], fold=first["fold"], count=count, sha256=checksum)
            entry = {"shard": shard.model_dump(), "skipped": failed}
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
            done[name] = shard
            skipped += failed
    skipped = pd.DataFrame(skipped, columns=["image_id", "path", "reason"])
    write_text(folder / SKIPPED, skipped.to_csv(index=False))
    if len(skipped) == len(table) or len(skipped) > max_skipped * len(table):
        raise InputError(
            f"{len(skipped):,} of {len(table):,} images cannot be read, more than {max_skipped:.1%}: see "
            f"{folder / SKIPPED} for each reason (first: {skipped['path'].iloc[0]}: {skipped['reason'].iloc[0]}); "
            "mend them, or allow a larger share with MAX_SKIPPED="
        )
    kept = table[~table["image_id"].isin(skipped["image_id"])]
    manifest = Manifest(
        **settings,
        num_listed=release.listed["rows"],
        num_skipped=len(skipped),
        table_checksums=_write_tables(release, kept, folder),
        shards=[done[name] for name in table["shard"].unique()],
    )
    save_manifest(folder, manifest)
    (folder / JOURNAL).unlink()
    return Summary(folder, len(kept), skipped, is_new=True)


def _assign_shards(table: pd.DataFrame, num_folds: int, seed: int) -> pd.DataFrame:
    """Add fold and shard, in the order of writing: folds shuffled, so that a reader meets patients mixed; then test."""
    table = table.sort_values("image_id")
    is_test = table["split"] == TEST
    table["fold"] = NO_FOLD
    table.loc[~is_test, "fold"] = assign_folds(table["patient_id"][~is_test].to_numpy(), num_folds, seed)
    check_patients(table)
    table = pd.concat(
        [table[~is_test].sample(frac=1, random_state=seed).sort_values("fold", kind="stable"), table[is_test]]
    )
    place = table.groupby("fold", sort=False).cumcount() // SHARD_IMAGES
    total = place.groupby(table["fold"]).transform("max") + 1
    part = np.where(table["split"] == TEST, TEST, TRAIN_VAL + "-fold" + table["fold"].astype(str))
    table["shard"] = [f"{p}-{i:05d}-of-{n:05d}.tfrecord" for p, i, n in zip(part, place, total, strict=True)]
    return table


def _decode_ahead(pool: ThreadPoolExecutor, paths: pd.Series, size: int) -> Iterator[Future]:
    waiting: deque[Future] = deque()
    remaining = iter(paths)
    for path in itertools.islice(remaining, IN_FLIGHT):
        waiting.append(pool.submit(_decode_file, path, size))
    while waiting:
        yield waiting.popleft()
        for path in itertools.islice(remaining, 1):
            waiting.append(pool.submit(_decode_file, path, size))


def _decode_file(path: str, size: int) -> bytes | InputError:
    try:
        with open_image(Path(path)) as content:
            return load_image(content, size).tobytes()
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"cannot be opened: {error.strerror}")


def _read_journal(folder: Path, settings: dict) -> tuple[dict[str, Shard], list[dict]]:
    """Finished shards and skipped images of an interrupted conversion; starts a journal where there is none."""
    path = folder / JOURNAL
    if not path.exists():
        write_text(path, json.dumps(settings) + "\n")
        return {}, []
    try:
        head, *entries = path.read_text().splitlines()
        found = json.loads(head)
    except ValueError:
        raise InputError(f"{path} is damaged: delete {folder}, and the same command makes it anew") from None
    _check_settings(folder, found, settings)
    done, skipped, whole = {}, [], [head]
    for line in entries:
        try:
            entry = json.loads(line)
        except ValueError:  # the line that was being written when the conversion was stopped
            break
        done[entry["shard"]["file"]] = Shard(**entry["shard"])
        skipped += entry["skipped"]
        whole.append(line)
    write_text(path, "\n".join(whole) + "\n")
    return done, skipped


def _check_settings(folder: Path, found: dict, wanted: dict) -> None:
    wanted = json.loads(json.dumps(wanted))
    found = json.loads(json.dumps(found))
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder} holds records with other settings: {key} is {found.get(key)!r} there and {value!r} now; "
                "give another NAME=, or delete the folder"
            )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{folder} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free")


def _write_tables(release: Release, kept: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Write index and boxes of the images that were kept; returns checksums of these and of the skipped ones."""
    columns = [*DETAILS[:3], "fold", *DETAILS[3:], *labels.LABELS]
    boxes = release.boxes[release.boxes["image_id"].isin(kept["image_id"])]
    texts = {
        INDEX: kept[columns].to_csv(index=False, float_format="%.4g"),
        BOXES: boxes.to_csv(index=False, float_format="%.6f"),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (*texts, SKIPPED)}
