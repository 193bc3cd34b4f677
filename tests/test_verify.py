import dataclasses
import hashlib
import shutil

import pytest
import tensorflow as tf

from cxrkeras.errors import InputError
from cxrkeras.records.manifest import load_manifest, save_manifest
from cxrkeras.records.schema import encode_example, parse_examples
from cxrkeras.records.verify import verify_records


@pytest.fixture
def copy(records, tmp_path):
    return shutil.copytree(records, tmp_path / "copy")


def shard_of(folder, number=2):
    return folder / load_manifest(folder).shards[number].file


def rewrite(path, change):
    """Write a shard anew; `change` takes the number and the fields of each record, and returns the fields or None."""
    serialised = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, example in enumerate(serialised):
            images, hot, ids, patients = parse_examples(tf.constant([example]), 32)
            fields = {
                "image": images.numpy().tobytes(),
                "label_bits": hot.numpy().astype("uint8").tobytes(),
                "image_id": ids[0].numpy().decode(),
                "patient_id": patients[0].numpy().decode(),
            }
            if fields := change(number, fields):
                writer.write(encode_example(**fields))


def change_of(record, name, new):
    return lambda number, fields: fields | {name: new(fields[name])} if number == record else fields


def test_sound_records_pass_with_progress(records):
    seen = []
    assert verify_records(records, lambda *now: seen.append(now)) == load_manifest(records)
    assert seen[-1] == (200, 200)


def test_writing_a_shard_anew_without_a_change_passes(copy):
    rewrite(shard_of(copy), lambda number, fields: fields)
    verify_records(copy)


def test_the_source_is_compared_by_its_fingerprint(records, release):
    verify_records(records, release=release)
    changed = release.table.copy()
    changed.loc[0, "Mass"] = 1 - changed.loc[0, "Mass"]
    with pytest.raises(InputError, match="was not made of what is in"):
        verify_records(records, release=dataclasses.replace(release, table=changed))


def flip_first(content):
    return bytes([content[0] ^ 1]) + content[1:]


CHANGES = {
    "a label": (change_of(5, "label_bits", flip_first), "record 5: id, patient"),
    "an id": (change_of(3, "image_id", lambda name: "other.png"), "record 3: id, patient"),
    "a patient": (change_of(4, "patient_id", lambda name: "77777"), "record 4: id, patient"),
    "a pixel": (change_of(3, "image", flip_first), "checksum"),
    "one less": (lambda number, fields: fields if number else None, "record 0"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_record_is_named(copy, what):
    change, words = CHANGES[what]
    path = shard_of(copy)
    rewrite(path, change)
    with pytest.raises(InputError, match=words) as caught:
        verify_records(copy)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("where", [30, 4000, -3])
def test_flipped_bits_are_found(copy, where):
    path = shard_of(copy)
    content = bytearray(path.read_bytes())
    content[where] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=path.name):
        verify_records(copy)


def test_a_cut_or_lost_shard_is_named(copy):
    path = shard_of(copy)
    whole = path.read_bytes()
    record = len(whole) // load_manifest(copy).shards[2].count
    for length in (record * 2 + 100, record * 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=path.name):
            verify_records(copy)
    path.unlink()
    with pytest.raises(InputError, match="gone"):
        verify_records(copy)


def test_changed_tables_are_named(copy):
    for name in ("index.csv", "boxes.csv", "skipped.csv"):
        original = (copy / name).read_text()
        (copy / name).write_text(original.replace("a", "e", 1))
        with pytest.raises(InputError, match=name):
            verify_records(copy)
        (copy / name).write_text(original)


def test_a_patient_in_two_folds_is_refused_even_with_a_right_checksum(copy):
    lines = (copy / "index.csv").read_text().splitlines()
    first, second = lines[1].split(","), lines[2].split(",")
    fold = next(line.split(",")[3] for line in lines[1:] if line.split(",")[3] != first[3])
    second[1], second[3] = first[1], fold
    lines[2] = ",".join(second)
    text = "\n".join(lines) + "\n"
    (copy / "index.csv").write_text(text)
    manifest = load_manifest(copy)
    manifest.table_checksums["index.csv"] = hashlib.sha256(text.encode()).hexdigest()
    save_manifest(copy, manifest)
    with pytest.raises(InputError, match="two sides"):
        verify_records(copy)


def test_training_refuses_what_does_not_verify(copy, small_experiment, tmp_path):
    from cxrkeras.training.fit import train_fold

    rewrite(shard_of(copy), CHANGES["a label"][0])
    data = small_experiment.data.model_copy(update={"records": str(copy)})
    with pytest.raises(InputError, match="record 5"):
        train_fold(small_experiment.model_copy(update={"data": data}), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
