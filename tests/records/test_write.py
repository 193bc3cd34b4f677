import fcntl
import hashlib
import io
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from cxrkeras.data.identity import hash_patients
from cxrkeras.data.images import load_image
from cxrkeras.data.preparation import Preparation
from cxrkeras.data.readers import read_dataset
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.records import write as write_module
from cxrkeras.records.folder import open_records
from cxrkeras.records.manifest import load_manifest, save_content
from cxrkeras.records.schema import encode_example, parse_examples
from cxrkeras.records.verify import check_source
from cxrkeras.records.write import assign_shards, write_records
from tests.support.notes import NotedProgress


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_parse_is_the_inverse_of_encode():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 9, 9), np.uint8)
    values = rng.integers(-2, 2, (7, 15), np.int8)
    ids = [f"é {i}.png" for i in range(7)]
    patients = [str(i // 2) for i in range(7)]
    rows = zip(images, values, ids, patients, strict=True)
    serialised = tf.constant([encode_example(i.tobytes(), v.tobytes(), name, p) for i, v, name, p in rows])
    got = parse_examples(serialised, 9, 15)
    assert np.array_equal(got[0][..., 0], images)
    assert got[1].dtype == tf.int8
    assert np.array_equal(got[1], values)
    assert [name.decode() for name in got[2].numpy()] == ids
    assert [name.decode() for name in got[3].numpy()] == patients


def test_records_match_the_index(dataset, records):
    manifest, index = load_manifest(records), open_records(records).index
    assert (manifest.size, manifest.num_folds, manifest.is_synthetic) == (32, 5, True)
    assert manifest.labels == NIH.names
    assert manifest.fingerprint == dataset.fingerprint()
    source = dataset.table.set_index("image_id")
    rows = index.itertuples()
    for shard in manifest.shards:
        count = 0
        for serialised in tf.data.TFRecordDataset(str(records / shard.file)):
            parsed = parse_examples(serialised[None], 32, 15)
            image, values, image_id, patient = (tensor[0].numpy() for tensor in parsed)
            row = next(rows)
            assert (row.image_id, row.patient_id) == (image_id.decode(), patient.decode())
            assert (row.split, row.fold) == (shard.split, shard.fold)
            expected = source.loc[row.image_id]
            assert np.array_equal(values, expected[list(NIH.names)].astype(int))
            with open(expected["path"], "rb") as file:
                assert np.array_equal(image[..., 0], load_image(file.read(), 32))
            count += 1
        assert count == shard.count
    assert next(rows, None) is None
    assert len(index) == 200
    assert index.groupby("patient_id")["fold"].nunique().max() == 1
    assert index[list(NIH.names)].sum().tolist() == source[list(NIH.names)].sum().tolist()
    boxes = pd.read_csv(records / "boxes.csv")
    assert len(boxes) == len(dataset.boxes)


def test_shards_do_not_depend_on_the_number_of_threads(dataset, records, tmp_path):
    write_records(dataset, tmp_path / "one", size=32, num_threads=1)
    assert contents(tmp_path / "one") == contents(records)


@pytest.mark.parametrize("stop_at", [1, 70, 199])
def test_an_interrupted_conversion_gives_identical_bytes(dataset, records, tmp_path, stop_at):
    folder = tmp_path / "phantom-32"
    with pytest.raises(KeyboardInterrupt):
        write_records(dataset, folder, size=32, progress=NotedProgress(("converting", stop_at)))
    assert not (folder / "manifest.json").exists()
    written = len(list(folder.glob("t*.tfrecord")))
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("t*.tfrecord")}
    assert write_records(dataset, folder, size=32).is_new
    kept = [name for name, time in times.items() if (folder / name).stat().st_mtime_ns == time]
    assert len(kept) == written >= stop_at // 60  # complete shards are not rewritten
    assert contents(folder) == contents(records)


def test_a_killed_conversion_gives_identical_bytes(phantom_folder, dataset, tmp_path):
    """In a subprocess that is killed when it finishes the first, third and fifth shard."""
    write_records(dataset, tmp_path / "whole", size=400)
    code = (
        "import sys; from pathlib import Path; from cxrkeras.data.readers import read_dataset; "
        "from cxrkeras.records.write import write_records; "
        "write_records(read_dataset(Path(sys.argv[1])), Path(sys.argv[2]), size=400, num_threads=1)"
    )
    folder = tmp_path / "killed"
    for num_shards in (1, 3, 5):
        process = subprocess.Popen([sys.executable, "-c", code, phantom_folder, folder], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob("t*.tfrecord"))) < num_shards:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    write_records(dataset, folder, size=400)
    assert contents(folder) == contents(tmp_path / "whole")


def test_finished_records_are_not_changed_and_other_settings_refused(dataset, records, tmp_path):
    before = contents(records)
    assert not write_records(dataset, records, size=32).is_new
    for settings in ({"size": 64}, {"size": 32, "num_folds": 4}, {"size": 32, "seed": 1}):
        with pytest.raises(InputError, match="other settings"):
            write_records(dataset, records, **settings)
    assert contents(records) == before
    newer = tmp_path / "newer"
    shutil.copytree(records, newer)
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "skipped.csv").unlink()
    with pytest.raises(InputError, match=r"skipped\.csv"):
        write_records(dataset, newer, size=32)
    for content in ("null", "[]", "{", "3"):
        (newer / "manifest.json").write_text(content)
        with pytest.raises(InputError, match="not a manifest of records"):
            load_manifest(newer)
    for change, words in (({"schema_version": 99}, "schema version 99"), ({"fingerprint": "0"}, "its own checksum")):
        (newer / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(InputError, match=words):
            load_manifest(newer)


@pytest.fixture
def damaged(phantom_folder, tmp_path):
    """200 phantoms of which two cannot be read."""
    folder = tmp_path / "damaged"
    shutil.copytree(phantom_folder, folder)
    names = sorted(path.name for path in (folder / "images").iterdir())
    (folder / "images" / names[3]).write_bytes((folder / "images" / names[3]).read_bytes()[:100])
    (folder / "images" / names[150]).unlink()
    (folder / "images" / names[150]).mkdir()
    return folder, [names[3], names[150]]


def test_unreadable_images_are_skipped_and_listed(damaged, tmp_path):
    folder, names = damaged
    summary = write_records(read_dataset(folder), tmp_path / "records", size=32)
    assert summary.num_images == 198
    skipped = pd.read_csv(tmp_path / "records" / "skipped.csv")
    assert sorted(skipped["image_id"]) == names
    assert skipped.set_index("image_id").loc[names[0], "reason"].startswith("damaged image")
    assert "directory" in skipped.set_index("image_id").loc[names[1], "reason"]
    assert len(open_records(tmp_path / "records").index) == 198
    assert sum(shard.count for shard in load_manifest(tmp_path / "records").shards) == 198


def png(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def interlaced(grey):
    """An Adam7 PNG, which Pillow reads and does not write."""
    height, width = grey.shape
    lines = b""
    for x0, y0, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        lines += b"".join(b"\0" + row.tobytes() for row in grey[y0::dy, x0::dx])

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_unusual_images_are_read_correctly_or_skipped_with_a_reason(phantom_folder, tmp_path):
    folder = shutil.copytree(phantom_folder, tmp_path / "data")
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    plain = png(Image.fromarray(grey))
    palette = Image.fromarray(grey).convert("P")
    jpeg = io.BytesIO()
    Image.fromarray(np.stack([grey] * 4, -1), "CMYK").save(jpeg, "JPEG")
    read = {
        "sixteen_bits": png(Image.fromarray(grey.astype(np.uint16) * 257)),
        "palette_with_transparency": png(palette, transparency=3),
        "interlaced": interlaced(grey),
        "cmyk_jpeg": jpeg.getvalue(),
        "one_pixel": png(Image.new("L", (1, 1), 99)),
        "Zoë's X-ray (2) ü": plain,
    }
    skipped = {
        "truncated": (plain[:500], "damaged image: "),
        "zero_bytes": (b"", "the file is empty"),
        "text": (b"not a picture", "not a PNG, JPEG or DICOM image"),
        "bomb": (png(Image.new("1", (20_000, 20_000))), "more pixels than the limit of 80,000,000"),
        "directory": (None, "cannot be opened: Is a directory"),
        "no_permission": (None, "cannot be opened: "),
        "dead_link": (None, "cannot be opened: No such file or directory"),
    }
    images = folder / "images"
    for name, content in {**read, **{name: content for name, (content, _) in skipped.items()}}.items():
        if content is not None:
            (images / f"{name}.png").write_bytes(content)
    (images / "directory.png").mkdir()
    (images / "dead_link.png").symlink_to(tmp_path / "nowhere.png")
    (images / "no_permission.png").symlink_to("/proc/1/mem")  # a mode would not keep root out
    labels, train_val = folder / "Data_Entry_2017_v2020.csv", folder / "train_val_list.txt"
    example = labels.read_text().splitlines()[1].split(",", 1)[1].split(",")
    example[2] = "99999"
    with labels.open("a") as table, train_val.open("a") as ids:
        for name in (*read, *skipped):
            table.write(f"{name}.png,{','.join(example)}\n")
            ids.write(f"{name}.png\n")
    summary = write_records(read_dataset(folder), tmp_path / "records", size=64, max_skipped=1)
    reasons = dict(zip(summary.skipped["image_id"], summary.skipped["reason"], strict=True))
    assert reasons.keys() == {f"{name}.png" for name in skipped}
    for name, (_, words) in skipped.items():
        assert reasons[f"{name}.png"].startswith(words), name
    index = open_records(tmp_path / "records").index
    stored = {}
    for shard in load_manifest(tmp_path / "records").shards:
        for serialised in tf.data.TFRecordDataset(str(tmp_path / "records" / shard.file)):
            image, _, image_id, _ = (tensor[0].numpy() for tensor in parse_examples(serialised[None], 64, 15))
            stored[image_id.decode()] = image[..., 0]
    assert len(index) == len(stored) == 200 + len(read)
    for name in ("sixteen_bits", "interlaced", "Zoë's X-ray (2) ü", "palette_with_transparency"):
        assert np.abs(stored[f"{name}.png"].astype(int) - grey).max() <= 1, name
    assert (stored["one_pixel.png"] == 99).all()
    with Image.open(jpeg) as image:
        assert np.array_equal(stored["cmyk_jpeg.png"], np.asarray(image.convert("L")))


def test_too_many_unreadable_images_are_an_error_and_can_be_allowed(damaged, tmp_path):
    dataset = read_dataset(damaged[0])
    with pytest.raises(InputError, match=r"2 of 200 .* more than 0.5%"):
        write_records(dataset, tmp_path / "records", size=32, max_skipped=0.005)
    assert not (tmp_path / "records" / "manifest.json").exists()
    summary = write_records(dataset, tmp_path / "records", size=32, max_skipped=0.01)
    assert summary.num_images == 198
    for share in (float("nan"), -1, 2):
        with pytest.raises(InputError, match="max_skipped"):
            write_records(dataset, tmp_path / "other", size=32, max_skipped=share)
    for path in (damaged[0] / "images").glob("*.png"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(InputError, match="200 of 200"):
        write_records(dataset, tmp_path / "none", size=32, max_skipped=1)


def test_a_second_conversion_into_the_folder_is_refused(dataset, tmp_path):
    folder = tmp_path / "records"
    with (tmp_path / ".records.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            write_records(dataset, folder, size=32)


@pytest.mark.parametrize("content", ["", "{", "\n"])
def test_a_damaged_journal_is_named(dataset, tmp_path, content):
    (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"journal\.jsonl is damaged"):
        write_records(dataset, tmp_path, size=32)


def test_a_full_disk_is_reported_before_the_start(dataset, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(write_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="GB free"):
        write_records(dataset, tmp_path / "records", size=32)
    assert not list((tmp_path / "records").glob("*.tfrecord"))


def test_real_images(nih_sample, tmp_path):
    dataset = read_dataset(nih_sample)
    summary = write_records(dataset, tmp_path / "nih", size=64)
    assert summary.num_images == 921
    assert len(summary.skipped) == 0
    sizes = sum(path.stat().st_size for path in (tmp_path / "nih").glob("*.tfrecord"))
    assert sizes / 921 < 64 * 64 + 200


@pytest.fixture
def doubled(phantom_folder, tmp_path):
    """200 phantoms with duplicates under other patients: among folds, and between training and test set."""
    folder = shutil.copytree(phantom_folder, tmp_path / "doubled")
    table = read_dataset(folder).table
    train = table[table["split"] == "train_val"].groupby("patient_id").head(1)["image_id"].tolist()
    test = table[table["split"] == "test"].groupby("patient_id").head(1)["image_id"].tolist()
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    for names, picture in ((train[:9], grey), ((train[9], test[0]), grey.T), ((train[10], test[1]), grey * 0 + 7)):
        for name in names:
            Image.fromarray(picture).save(folder / "images" / name)
    return folder, train, test


def test_the_same_picture_under_two_patients_on_two_sides_is_an_error_or_dropped(doubled, tmp_path):
    folder, train, test = doubled
    dataset, out = read_dataset(folder), tmp_path / "records"
    with pytest.raises(InputError) as caught:
        write_records(dataset, out, size=32)
    assert "pictures are under two patients on two sides" in str(caught.value)
    assert "duplicates=drop" in str(caught.value)
    assert f"the same picture as {test[0]} of patient" in str(caught.value)
    assert not (out / "manifest.json").exists()
    # The same folder with the other policy, interrupted once while a shard is rewritten.

    class StopAtTheEnd(NotedProgress):
        """Interrupts the rewriting of a shard just before its end."""

        def start(self, phase, total=0):
            advance = super().start(phase, total)
            if phase == "converting" and total < 200:
                self.stop_at = (phase, total)
            return advance

    with pytest.raises(KeyboardInterrupt):
        write_records(dataset, out, size=32, duplicates="drop", progress=StopAtTheEnd())
    summary = write_records(dataset, out, size=32, duplicates="drop")
    index, manifest = open_records(out).index, load_manifest(out)
    open_records(out).verify()
    check_source(open_records(out), dataset)
    kept = index[index["image_id"].isin(train[:9])]
    assert kept["fold"].nunique() == 1  # without a test image, that of the lowest fold is kept
    folds = assign_shards(dataset, 5, 0, "hashed").set_index("image_id")["fold"]
    assert kept["fold"].iloc[0] == folds[train[:9]].min()
    paths = dataset.table.set_index("image_id")["path"]
    for image_id, image in open_records(out).read_images(index["image_id"]).items():
        with open(paths[image_id], "rb") as file:
            assert np.array_equal(image, load_image(file.read(), 32))
    assert test[0] in set(index["image_id"])
    assert train[9] not in set(index["image_id"])
    assert {train[10], test[1]} <= set(index["image_id"])  # a constant image identifies no patient
    dropped = pd.read_csv(out / "skipped.csv")
    assert len(dropped) == manifest.num_dropped == summary.num_dropped == 200 - len(index)
    assert dropped.set_index("image_id").loc[train[9], "reason"].startswith(f"the same picture as {test[0]} of patient")
    whole = write_records(dataset, tmp_path / "whole", size=32, duplicates="drop")
    assert whole.num_images == summary.num_images
    assert contents(tmp_path / "whole") == contents(out)


def test_the_same_picture_on_one_side_or_of_one_patient_is_allowed(phantom_folder, tmp_path):
    folder = shutil.copytree(phantom_folder, tmp_path / "data")
    table = read_dataset(folder).table
    test = table[table["split"] == "test"].groupby("patient_id").head(1)["path"].tolist()
    again = table[table.duplicated("patient_id", keep=False) & (table["split"] == "train_val")].sort_values(
        "patient_id"
    )
    for source, target in (test[:2], again["path"].tolist()[:2]):
        shutil.copy(source, target)
    assert write_records(read_dataset(folder), tmp_path / "records", size=32).num_images == 200


def test_hashed_patients_and_folds_are_stored_with_the_records(dataset, records):
    manifest, index = load_manifest(records), open_records(records).index
    assert (manifest.fold_rule, manifest.namespace) == ("hashed", dataset.namespace)
    assert dataset.namespace.startswith("phantoms-")
    hashes = open_records(records).patient_hashes
    assert set(hashes.index) == set(index["patient_id"])
    salt = bytes.fromhex(manifest.patient_salt)
    for patient in index["patient_id"].unique()[:3]:
        (expected,) = hash_patients(manifest.namespace, [patient], salt, manifest.patient_rounds)
        assert hashes[patient] == expected.tobytes().hex()
    assert "0000" not in manifest.patient_salt[:4]


def test_grouped_folds_have_equal_numbers_of_patients(dataset, tmp_path):
    write_records(dataset, tmp_path / "grouped", size=32, split_rule="grouped")
    assert load_manifest(tmp_path / "grouped").fold_rule == "grouped"
    index = open_records(tmp_path / "grouped").index
    per_fold = index[index["fold"] >= 0].groupby("fold")["patient_id"].nunique()
    assert per_fold.max() - per_fold.min() <= 1
    with pytest.raises(InputError, match="fold_rule is 'grouped' there and 'hashed' now"):
        write_records(dataset, tmp_path / "grouped", size=32)


def test_a_manifest_of_schema_1_is_read(records, tmp_path):
    folder = shutil.copytree(records, tmp_path / "old")
    manifest = load_manifest(folder)
    newer = {"fold_rule", "namespace", "patient_salt", "patient_rounds", "num_dropped", "sources", "preparation"}
    content = manifest.model_dump(exclude={*newer, "no_finding"})
    (source,) = manifest.sources
    content |= {"schema_version": 1, "source": source.name, "label_file": source.label_file}
    index = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False).drop(columns="source")
    index.to_csv(folder / "index.csv", index=False)
    content["table_checksums"]["index.csv"] = hashlib.sha256((folder / "index.csv").read_bytes()).hexdigest()
    save_content(folder, content)
    old = open_records(folder)
    assert (old.manifest.fold_rule, old.manifest.namespace, old.manifest.patient_salt) == ("grouped", "", "")
    assert (old.labels, old.manifest.preparation) == (NIH, Preparation())
    assert old.manifest.sources == manifest.sources
    assert old.index.equals(open_records(records).index)
    old.verify()


@pytest.mark.parametrize("name", ["nan", "NA", "null", "7.0", "007"])
def test_patients_with_odd_names_survive_the_tables_of_records(tmp_path, name):
    rng = np.random.default_rng(0)
    rows = []
    for k in range(8):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / f"{k}.png")
        rows.append((f"{k}.png", name if k < 2 else f"p{k}", "Mass", "train_val" if k < 6 else "test"))
    pd.DataFrame(rows, columns=["image", "patient", "labels", "split"]).to_csv(tmp_path / "mine.csv", index=False)
    write_records(read_dataset(tmp_path), tmp_path / "records", size=16, num_folds=2)
    open_records(tmp_path / "records").verify()
    assert open_records(tmp_path / "records").index.set_index("image_id").loc["0.png", "patient_id"] == name
    assert name in open_records(tmp_path / "records").patient_hashes.index
