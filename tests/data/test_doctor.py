import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrkeras.data.doctor import examine_folder
from cxrkeras.data.readers import read_dataset
from tests.support.dicoms import make_dicom
from tests.support.notes import NotedProgress
from tests.support.pngs import write_deep
from tests.support.shell import run_cxrkeras


@pytest.fixture
def copy(phantom_folder, tmp_path):
    return shutil.copytree(phantom_folder, tmp_path / "data")


def test_a_valid_folder(phantom_folder, dataset):
    found = examine_folder(phantom_folder)
    assert not found["errors"]
    assert found["images"] == {"listed": 200, "found": 200, "missing": 0}
    assert found["patients"]["count"] == dataset.table["patient_id"].nunique()
    assert found["splits"]["test"]["images"] == (dataset.table["split"] == "test").sum()
    test = dataset.table[dataset.table["split"] == "test"]
    assert found["splits"]["test"]["prevalence"]["Mass"] == pytest.approx(test["Mass"].mean())
    assert sum(found["sexes"].values()) == sum(found["views"].values()) == 200
    assert sum(found["boxes"].values()) == len(dataset.boxes)
    assert found["odd_images"] is None
    assert "no patient is in both splits" in found["notes"]


def test_odd_images_are_listed_by_kind(copy):
    paths = sorted((copy / "images").iterdir())
    with Image.open(paths[0]) as image:
        image.convert("RGBA").save(paths[1])
        shutil.copy(paths[0], paths[2])
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 9).save(paths[3])
    Image.new("L", (64, 64), 100).save(paths[4])
    paths[5].write_bytes(b"")
    with Image.open(paths[6]) as image:
        image.convert("RGB").save(paths[6])
    noted = NotedProgress()
    odd = examine_folder(copy, is_opening=True, progress=noted)["odd_images"]
    names = [path.name for path in paths]
    assert odd["four_channels"] == [names[1]]
    assert odd["colour"] == [names[6]]
    assert odd["more_than_8_bits"] == [names[3]]
    assert odd["nearly_blank"] == [names[4]]
    assert odd["unreadable"] == {names[5]: "the file is empty"}
    assert odd["duplicates"] == [names[:3]]
    assert {size: len(ids) for size, ids in odd["other_sizes"].items()} == {"64 x 64": 199}
    assert noted.done == {"opening images": 200}


def test_an_image_under_two_patients_on_both_sides_of_the_split_is_an_error(copy):
    table = read_dataset(copy).table
    train = table[table["split"] == "train_val"].groupby("patient_id").head(1)["path"].tolist()
    test = table[table["split"] == "test"].groupby("patient_id").head(1)["path"].tolist()
    shutil.copy(train[0], train[1])
    assert not examine_folder(copy, is_opening=True)["errors"]  # both in the training set
    shutil.copy(train[0], test[0])
    for path in (train[2], test[2]):
        Image.new("L", (64, 64), 100).save(path)
    found = examine_folder(copy, is_opening=True)
    assert len(found["odd_images"]["shared_pictures"]) == 2
    assert "identical images under two patients" in found["errors"][0]
    assert "2 pairs" in found["errors"][0]
    assert f"{Path(train[0]).name} and {Path(test[0]).name}" in found["errors"][0]


def test_own_data_get_no_notes_about_the_release(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for k in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 30), np.uint8)).save(tmp_path / f"{k}.png")
        rows.append((f"{k}.png", f"p{k}", "Mass"))
    pd.DataFrame(rows, columns=["image", "patient", "labels"]).to_csv(tmp_path / "mine.csv", index=False)
    done = run_cxrkeras("doctor", tmp_path, "--open", cwd=tmp_path)
    assert done.returncode == 0
    assert not [word for word in ("None", "nan", "release", "v2020", "2017") if word in done.stdout], done.stdout
    assert "30 x 40: 10" in done.stdout


def test_sizes_follow_exif_orientation_and_dicom_is_decoded(copy):
    """EXIF rotates an image; a release may contain DICOM files of any depth and name."""
    paths = sorted((copy / "images").iterdir())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(paths[0], exif=exif)
    paths[1].write_bytes(make_dicom(np.arange(40 * 30, dtype=np.uint16).reshape(40, 30)))
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    paths[2].write_bytes(write_deep(deep))
    odd = examine_folder(copy, is_opening=True)["odd_images"]
    names = [path.name for path in paths]
    sizes = {size: ids for size, ids in odd["other_sizes"].items() if size != "64 x 64"}
    assert sizes == {"48 x 64": [names[0]], "30 x 40": [names[1]], "30 x 20": [names[2]]}
    assert odd["more_than_8_bits"] == names[1:3]
    assert odd["colour"] == [names[2]]
    assert not odd["unreadable"]


def test_exit_code_1_is_for_what_invalidates_results(copy, tmp_path):
    valid = run_cxrkeras("doctor", copy, "--json", cwd=tmp_path)
    assert valid.returncode == 0
    assert json.loads(valid.stdout)["images"]["found"] == 200
    missing = next((copy / "images").iterdir())
    missing.unlink()
    noted = run_cxrkeras("doctor", copy, cwd=tmp_path)
    assert noted.returncode == 0
    assert "1 of 200 listed images are not on disk" in noted.stdout
    labels = copy / "Data_Entry_2017_v2020.csv"
    labels.write_text(labels.read_text().replace("No Finding", "No Findings", 1))
    wrong = run_cxrkeras("doctor", copy, cwd=tmp_path)
    assert wrong.returncode == 1
    assert "unknown label 'No Findings'" in wrong.stdout


def test_a_patient_in_both_lists_is_an_error(copy):
    train_val, test = copy / "train_val_list.txt", copy / "test_list.txt"
    moved = next(
        line
        for line in train_val.read_text().split()
        if sum(other.startswith(line[:8]) for other in train_val.read_text().split()) > 1
    )
    train_val.write_text(train_val.read_text().replace(moved + "\n", ""))
    test.write_text(test.read_text() + moved + "\n")
    assert "both the training and the test set" in examine_folder(copy)["errors"][0]


def test_all_errors_are_reported_at_once_even_for_images_that_are_not_on_disk(copy):
    labels, train_val = copy / "Data_Entry_2017_v2020.csv", copy / "train_val_list.txt"
    in_training = train_val.read_text().split()
    patients = pd.Series(in_training).str[:8]
    moved = [name for name, patient in zip(in_training, patients, strict=True) if (patients == patient).sum() > 1][-1]
    train_val.write_text("\n".join(name for name in in_training if name != moved))
    with (copy / "test_list.txt").open("a") as file:
        file.write(moved + "\n")
    (copy / "images" / moved).unlink()
    head, first, second, *others = labels.read_text().splitlines()
    blank = second.split(",")
    blank[3] = ""
    lines = [head, first.replace(first.split(",")[1], "Nodul"), ",".join(blank), others[0], *others]
    labels.write_text("\n".join(lines))
    found = examine_folder(copy)
    expected = [
        "line 2: unknown label 'Nodul'",
        "line 3: no patient",
        "1 image more than once",
        "1 patient is in both",
    ]
    assert len(found["errors"]) == len(expected)
    assert all(words in error for words, error in zip(expected, found["errors"], strict=True))
    assert found["images"] == {"listed": 198, "found": 197, "missing": 1}
    assert "no patient is in both splits" not in found["notes"]


def test_incomplete_lists_are_noted(copy):
    assert any("lists are complete" in note for note in examine_folder(copy)["notes"])
    test = copy / "test_list.txt"
    test.write_text("\n".join(test.read_text().split()[1:]))
    found = examine_folder(copy)
    assert found["lists"]["in_neither"] == 1
    assert found["images"] == {"listed": 200, "found": 199, "missing": 0}
    assert any("1 image in neither split list" in note for note in found["notes"])
    assert not any("lists are complete" in note for note in found["notes"])


def test_the_real_label_file_and_a_truncated_one(nih_sample, tmp_path):
    found = examine_folder(nih_sample)
    assert found["label_file"]["version"].startswith("v2020")
    assert found["images"] == {"listed": 112_120, "found": 921, "missing": 111_199}
    assert found["split_name"] == "nih-official"
    assert not found["errors"]
    for path in nih_sample.iterdir():
        (tmp_path / path.name).symlink_to(path)
    labels = (tmp_path / "Data_Entry_2017_v2020.csv").read_text()
    (tmp_path / "Data_Entry_2017_v2020.csv").unlink()
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(labels[: len(labels) // 2].rpartition("\n")[0])
    truncated = examine_folder(tmp_path)
    assert "is truncated" in truncated["errors"][0]
    assert truncated["label_file"]["version"].startswith("neither")
