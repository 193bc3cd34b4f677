import dataclasses
import hashlib
import shutil

import pytest
import tensorflow as tf

from cxrkeras.errors import InputError
from cxrkeras.records.folder import open_records
from cxrkeras.records.manifest import load_manifest, save_manifest
from cxrkeras.records.schema import encode_example, parse_examples
from cxrkeras.records.verify import check_source
from tests.support.notes import NotedProgress


@pytest.fixture
def copy(records, tmp_path):
    return shutil.copytree(records, tmp_path / "copy")


def shard_of(folder, number=2):
    return folder / load_manifest(folder).shards[number].file


def rewrite(path, change):
    """Rewrite a shard; `change` takes the number and fields of each record, returns the fields or None to drop it."""
    serialised = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, example in enumerate(serialised):
            images, values, ids, patients = parse_examples(tf.constant([example]), 32, 15)
            fields = {
                "image": images.numpy().tobytes(),
                "values": values.numpy().tobytes(),
                "image_id": ids[0].numpy().decode(),
                "patient_id": patients[0].numpy().decode(),
            }
            if fields := change(number, fields):
                writer.write(encode_example(**fields))


def change_of(record, name, new):
    return lambda number, fields: fields | {name: new(fields[name])} if number == record else fields


def test_valid_records_pass_with_progress(records):
    noted = NotedProgress()
    opened = open_records(records)
    opened.verify(noted)
    assert noted.done == {f"verifying {records}": 200}
    opened.verify(noted)  # verified only once
    assert noted.done == {f"verifying {records}": 200}


def test_an_identically_rewritten_shard_passes(copy):
    rewrite(shard_of(copy), lambda number, fields: fields)
    open_records(copy).verify()


def test_the_source_is_compared_by_its_fingerprint(records, dataset):
    check_source(open_records(records), dataset)
    changed = dataset.table.copy()
    changed.loc[0, "Mass"] = 1 - changed.loc[0, "Mass"]
    with pytest.raises(InputError, match="was not made of what is in"):
        check_source(open_records(records), dataclasses.replace(dataset, table=changed))


def flip_first(content):
    return bytes([content[0] ^ 1]) + content[1:]


CHANGES = {
    "a label": (change_of(5, "values", flip_first), "record 5: id, patient"),
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
        open_records(copy).verify()
    assert path.name in str(caught.value)


@pytest.mark.parametrize("where", [30, 4000, -3])
def test_flipped_bits_are_found(copy, where):
    path = shard_of(copy)
    content = bytearray(path.read_bytes())
    content[where] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=path.name):
        open_records(copy).verify()


def test_a_truncated_or_lost_shard_is_named(copy):
    path = shard_of(copy)
    whole = path.read_bytes()
    record = len(whole) // load_manifest(copy).shards[2].count
    for length in (record * 2 + 100, record * 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=path.name):
            open_records(copy).verify()
    path.unlink()
    with pytest.raises(InputError, match="gone"):
        open_records(copy).verify()


def test_changed_tables_are_named(copy):
    for name in ("index.csv", "boxes.csv", "skipped.csv"):
        original = (copy / name).read_text()
        (copy / name).write_text(original.replace("a", "e", 1))
        with pytest.raises(InputError, match=name):
            open_records(copy).verify()
        (copy / name).write_text(original)


def test_a_patient_in_two_folds_is_refused_despite_a_correct_checksum(copy):
    lines = (copy / "index.csv").read_text().splitlines()
    place = lines[0].split(",").index("fold")
    first, second = lines[1].split(","), lines[2].split(",")
    fold = next(line.split(",")[place] for line in lines[1:] if line.split(",")[place] != first[place])
    second[1], second[place] = first[1], fold
    lines[2] = ",".join(second)
    text = "\n".join(lines) + "\n"
    (copy / "index.csv").write_text(text)
    manifest = load_manifest(copy)
    manifest.table_checksums["index.csv"] = hashlib.sha256(text.encode()).hexdigest()
    save_manifest(copy, manifest)
    with pytest.raises(InputError, match="two sides"):
        open_records(copy).verify()


def test_training_refuses_records_that_fail_verification(copy, small_experiment, tmp_path):
    from cxrkeras.training.fit import train_fold

    rewrite(shard_of(copy), CHANGES["a label"][0])
    data = small_experiment.data.model_copy(update={"records": str(copy)})
    with pytest.raises(InputError, match="record 5"):
        train_fold(small_experiment.model_copy(update={"data": data}), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
