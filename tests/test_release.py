import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrkeras import labels
from cxrkeras.data.folds import SPLIT_RULES, assign_folds, check_patients, choose_test_set
from cxrkeras.data.nih_tables import OFFICIAL_SPLIT
from cxrkeras.data.release import read_release
from cxrkeras.errors import InputError

OLD_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)


@pytest.fixture
def old_release(tmp_path):
    """The older label file with every trap of its tables, Kaggle's layout, no lists."""
    rows = [
        "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,Cardiomegaly|Emphysema,1,1,411Y,M,PA,2894,2729,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,011M,F,AP,2500,2048,0.168,0.168,",
        "00000003_000.png,Hernia,0,3,001D,F,PA,2582,2991,0.143,0.143,",
        "00000004_000.png,Infiltration,0,4,81,F,PA,2582,2991,0.143,0.143,",
        "00000005_000.png,Mass|Nodule,0,5,82,M,PA,2582,2991,0.143,0.143,",
    ]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([OLD_HEADER, *rows]) + "\n")
    for number, name in enumerate(row.split(",")[0] for row in rows[:5]):
        write_image(tmp_path / f"images_00{1 + number % 2}" / "images" / name)
    write_image(tmp_path / "images_001" / "images" / "99999999_000.png")
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000004_000.png,Infiltrate,256.0,512.0,128.0,64.0,,,\n"
        "00000001_000.png,Cardiomegaly,0,0,1024,1024\n"
        "00000005_000.png,Mass,1,1,5,5\n"
        "00000002_000.png,Nodule,1,1,0,5\n"
        "00000002_000.png,Nodule,1,1,inf,5\n"
    )
    return tmp_path


def test_old_label_file_with_its_traps(old_release):
    release = read_release(old_release)
    table = release.table.set_index("image_id")
    assert release.label_file == "Data_Entry_2017.csv"
    assert len(table) == 5
    assert table.loc["00000001_001.png", ["Cardiomegaly", "Emphysema", "Mass"]].tolist() == [1, 1, 0]
    assert table.loc["00000002_000.png", "No Finding"] == 1
    assert np.isnan(table.loc["00000001_001.png", "age"])
    assert table["age"].drop("00000001_001.png").round(3).tolist() == [58, 0.917, 0.003, 81]
    assert table.loc["00000002_000.png", ["sex", "view", "patient_id"]].tolist() == ["F", "AP", "2"]
    notes = " ".join(release.notes)
    assert "1 image file has no row" in notes
    assert "1 over 120 years left blank (the largest is 411)" in notes
    assert "1 of 6 listed images are not on disk" in notes
    assert "2 boxes" in notes
    assert release.split_name == "hashed-20-0"
    assert release.namespace == "nih"
    assert read_release(old_release, split_rule="grouped").split_name == "grouped-20-0"


def test_boxes_are_fractions_with_our_spelling(old_release):
    boxes = read_release(old_release).boxes
    assert boxes["label"].tolist() == ["Infiltration", "Cardiomegaly"]
    assert boxes.loc[0, ["x", "y", "width", "height"]].tolist() == [0.25, 0.5, 0.125, 0.0625]


def test_lists_must_not_share_patients_or_images(old_release):
    names = [f"0000000{i}_00{j}.png" for i, j in ((1, 0), (1, 1), (2, 0), (3, 0), (4, 0))]
    (old_release / "train_val_list.txt").write_text("\n".join(names[1:4]))
    (old_release / "test_list.txt").write_text("\n".join([names[0], names[4]]) + "\n")
    with pytest.raises(InputError, match="1 patient is in both"):
        read_release(old_release)
    (old_release / "test_list.txt").write_text("\n".join(names[3:]))
    with pytest.raises(InputError, match="image is in both"):
        read_release(old_release)
    (old_release / "test_list.txt").write_text(names[4])
    release = read_release(old_release)
    assert release.split_name.startswith("custom-")
    assert any("neither" in note for note in release.notes)
    assert release.table["split"].value_counts().to_dict() == {"train_val": 3, "test": 1}


def test_one_list_alone_or_a_binary_one_is_refused_and_a_byte_order_mark_read(old_release):
    names = [f"0000000{i}_00{j}.png" for i, j in ((1, 0), (1, 1), (2, 0), (3, 0), (4, 0))]
    (old_release / "train_val_list.txt").write_text("\r\n".join(names[:4]), "utf-8-sig")
    with pytest.raises(InputError, match=r"no test_list\.txt"):
        read_release(old_release)
    (old_release / "test_list.txt").write_bytes(b"\x9c\x00\xff")
    with pytest.raises(InputError, match=r"cannot read .*test_list\.txt"):
        read_release(old_release)
    (old_release / "test_list.txt").write_text(names[4])
    assert len(read_release(old_release).table) == 5


def test_fingerprint_follows_content_only(old_release):
    before = read_release(old_release).fingerprint()
    (old_release / "images_001" / "images" / "00000001_000.png").touch()
    assert read_release(old_release).fingerprint() == before
    entry = old_release / "Data_Entry_2017.csv"
    entry.write_text(entry.read_text().replace("Hernia", "Edema"))
    assert read_release(old_release).fingerprint() != before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Hernia", "Hernai", ["line 5", "Hernai"]),
        ("00000003_000.png", "00000002_000.png", ["more than once", "00000002_000.png"]),
        ("Finding Labels", "Findings", ["Finding Labels"]),
        ("0,4,81", "0,,81", ["line 6", "patient"]),
    ],
)
def test_broken_label_files_are_refused_by_line(old_release, old, new, words):
    path = old_release / "Data_Entry_2017.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        read_release(old_release)
    assert all(word in str(caught.value) for word in words), caught.value


def own_folder(tmp_path, table):
    for image in table["image"]:
        write_image(tmp_path / "pictures" / image)
    table.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path


def test_own_csv_with_label_text_and_split(tmp_path):
    table = pd.DataFrame(
        {
            "image": ["a b.png", "é.jpg", "c.png"],
            "patient": ["p1", "p2", "p3"],
            "labels": ["Effusion|Mass", "No Finding", "Edema"],
            "split": ["train_val", "train_val", "test"],
        }
    )
    release = read_release(own_folder(tmp_path, table))
    assert release.table[["Effusion", "Mass", "No Finding", "Edema"]].to_numpy().tolist() == [
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert release.split_name.startswith("custom-")
    assert not release.is_synthetic


def test_own_csv_with_label_columns(tmp_path):
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "patient": [0, 0, 1, 2, 3, 4], "Edema": [1, 0] * 3})
    release = read_release(own_folder(tmp_path, table))
    assert release.table["No Finding"].tolist() == [0, 1] * 3
    assert any("no column for Atelectasis" in note for note in release.notes)
    contradictory = table.assign(**{"No Finding": 1})
    with pytest.raises(InputError, match="line 2 and 2 more: No Finding is 1"):
        read_release(own_folder(tmp_path, contradictory))
    table["Edema"] = [1, 0, 2, 0, 0, 0]
    with pytest.raises(InputError, match="Edema"):
        read_release(own_folder(tmp_path, table))


def test_one_patient_or_image_written_two_ways_is_one(tmp_path):
    table = pd.DataFrame(
        {
            "image": ["a.png", "b.png", "c.png"],
            "patient": ["2", " 2 ", "3"],
            "labels": ["Mass", "Mass", "Edema"],
            "split": ["train_val", "test", "test"],
        }
    )
    with pytest.raises(InputError, match="1 patient is in both"):
        read_release(own_folder(tmp_path, table))
    table = table.assign(image=["pictures/a.png", "./pictures/a.png", "c.png"], patient=["1", "2", "3"])
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError, match="line 3: an image that another line names already"):
        read_release(tmp_path)


def test_ragged_rows_and_folders_in_place_of_lists_are_told(tmp_path, old_release):
    (old_release / "test_list.txt").mkdir()
    with pytest.raises(InputError, match=r"test_list\.txt is not a file"):
        read_release(old_release)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "mine.csv").write_text("image,patient,labels\na.png,1,Mass,\nb.png,2,Mass,\n")
    with pytest.raises(InputError, match="line 2: 4 fields where the header has 3, more fields"):
        read_release(folder)


@pytest.mark.parametrize("columns", [["image"], ["image", "patient"], ["image", "patient", "Cough"]])
def test_a_folder_without_usable_labels_says_what_is_wanted(tmp_path, columns):
    own_folder(tmp_path, pd.DataFrame({name: ["1.png", "2.png"] for name in columns}))
    with pytest.raises(InputError, match=r"patient|label"):
        read_release(tmp_path)


@pytest.mark.parametrize("values", [[1, 0], ["yes", "No"], ["TRUE", "false"], ["1.0", "0.0"]])
@pytest.mark.parametrize("column", ["Pleural Thickening", " pleural_thickening", "PleuralThickening"])
def test_label_columns_whatever_their_spelling(tmp_path, column, values):
    table = pd.DataFrame({"image": ["a.png", "b.png"], "patient": ["1", "2"], column: values})
    release = read_release(own_folder(tmp_path, table))
    assert release.table["Pleural_Thickening"].tolist() == [1, 0]
    assert release.table["No Finding"].tolist() == [0, 1]


@pytest.mark.parametrize("values", [[1, 0, 0], ["", "1", "-1"], ["yes", "no", ""], ["True", "False", "True"]])
def test_a_column_of_labels_that_is_not_ours_is_refused_by_name(tmp_path, values):
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(3)], "patient": [1, 2, 3], "Mass": [0, 1, 0]})
    folder = own_folder(tmp_path, table.assign(**{"Pleural Effusion": values}))
    with pytest.raises(InputError, match=r"'Pleural Effusion' holds labels .* did you mean Effusion"):
        read_release(folder)
    texts = table.drop(columns="Mass").assign(labels="Mass", Fracture=values)
    with pytest.raises(InputError, match="'Fracture' holds labels"):
        read_release(own_folder(tmp_path, texts))


def test_columns_that_are_not_read_are_named_and_contradictory_ones_refused(tmp_path):
    table = pd.DataFrame({"Image": ["a.png", "b.png"], "patient": [1, 2], "mass": [0, 1], "width": [64, 32]})
    for name in table["Image"]:
        write_image(tmp_path / name)
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert "mine.csv: columns that are not read: width" in read_release(tmp_path).notes
    for other, words in (
        ({"Mass": [0, 1]}, "two columns for Mass: 'mass' and 'Mass'"),
        ({"labels": "Mass"}, "keep one"),
    ):
        table.assign(**other).to_csv(tmp_path / "mine.csv", index=False)
        with pytest.raises(InputError, match=words):
            read_release(tmp_path)


def test_a_patient_written_two_ways_stands_on_one_side(tmp_path):
    spellings = [("7", "007"), ("8", "8.0"), ("ab9", "AB9"), ("10", " 10")] * 3
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(24)], "patient": np.ravel(spellings), "labels": "Mass"})
    release = read_release(own_folder(tmp_path, table))
    assert release.table["patient_id"].unique().tolist() == ["7", "8", "ab9", "10"]
    assert any("3 patients are written in more than one way" in note for note in release.notes)
    table["split"] = ["train_val", "test"] * 12
    with pytest.raises(InputError, match="4 patients are in both"):
        read_release(own_folder(tmp_path, table))


def test_a_patient_that_contradicts_the_name_of_the_image_is_refused(old_release):
    entry = old_release / "Data_Entry_2017.csv"
    entry.write_text(entry.read_text().replace("Hernia,0,3,", "Hernia,0,0003.0,"))
    assert read_release(old_release).table["patient_id"].tolist()[3] == "0003.0"
    entry.write_text(entry.read_text().replace("Hernia,0,0003.0,", "Hernia,0,4,"))
    with pytest.raises(InputError, match=r"line 5: the patient is 4 and the name of the image, 00000003_000.png, says"):
        read_release(old_release)


def test_one_name_in_two_folders_of_the_release(old_release):
    Image.new("L", (8, 8), 1).save(old_release / "images_002" / "images" / "00000001_000.png")
    Image.new("L", (8, 8), 2).save(old_release / "images_001" / "images" / "00000001_000.png")
    with pytest.raises(InputError, match=r"1 names are in several folders .*images_001/.*images_002/"):
        read_release(old_release)


@pytest.mark.parametrize("form", ["{}.png 0 0 1 0", "images/{}.png", "{}", "{}.PNG,1", "C:\\x\\{}.png", '"{}.png"'])
def test_split_lists_with_more_or_less_than_a_name(old_release, form):
    names = ["00000001_000", "00000001_001", "00000002_000", "00000003_000"]
    (old_release / "train_val_list.txt").write_text("\n".join(form.format(name) for name in names))
    (old_release / "test_list.txt").write_text("00000004_000.png\n")
    release = read_release(old_release)
    assert release.table["split"].value_counts().to_dict() == {"train_val": 4, "test": 1}
    assert any("train_val_list.txt: 4 lines are not just the name" in note for note in release.notes)
    (old_release / "test_list.txt").write_text("4\n5\n")
    with pytest.raises(InputError, match=r"test_list\.txt: none of its 2 lines begins with the name"):
        read_release(old_release)


def test_words_for_sex_view_and_age_reach_the_table(tmp_path):
    words = {"sex": ["Female", "m", "??"], "view": ["pa", "Lateral", "Frontal"], "age": ["45 years", "6M", "x"]}
    table = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "patient": [1, 2, 3], "labels": "Mass", **words})
    release = read_release(own_folder(tmp_path, table))
    assert release.table["sex"].tolist() == ["F", "M", ""]
    assert release.table["view"].tolist() == ["PA", "lateral", "other"]
    assert release.table["age"].tolist() == pytest.approx([45, 0.5, np.nan], nan_ok=True)
    assert "sex: 1 values are not understood and left blank: '??' (1)" in release.notes


def test_no_patient_on_two_sides_of_200_random_tables():
    rng = np.random.default_rng(0)
    for seed in range(200):
        rule = SPLIT_RULES[seed % 2]
        num_images = int(rng.integers(10, 300))
        patients = rng.integers(0, rng.integers(8, 60), num_images)
        is_test = choose_test_set(patients, "set", rule, seed)
        num_folds = min(int(rng.integers(2, 7)), len(np.unique(patients[~is_test])))
        table = pd.DataFrame({"patient_id": patients, "split": np.where(is_test, "test", "train_val"), "fold": -1})
        table.loc[~is_test, "fold"] = assign_folds(patients[~is_test], num_folds, seed, rule=rule, namespace="set")
        check_patients(table)
        sides = table.assign(side=table["split"] + table["fold"].astype(str)).groupby("patient_id")["side"].nunique()
        assert (sides == 1).all()
        assert set(table["fold"]) - {-1} == set(range(num_folds))
        table.loc[len(table)] = [table["patient_id"][0], "train_val", 99]
        with pytest.raises(InputError, match="two sides"):
            check_patients(table)


def test_folds_hold_equal_numbers_of_patients_and_follow_the_seed():
    patients = np.repeat(np.arange(103), 3)
    folds = assign_folds(patients, 5, seed=1, rule="grouped")
    per_fold = pd.Series(patients).groupby(folds).nunique()
    assert per_fold.max() - per_fold.min() <= 1
    assert np.array_equal(folds, assign_folds(patients, 5, seed=1))
    assert not np.array_equal(folds, assign_folds(patients, 5, seed=2))


def test_the_real_release(nih_sample):
    release = read_release(nih_sample)
    assert release.split_name == OFFICIAL_SPLIT
    assert len(release.table) == 921
    assert (release.table["split"] == "test").sum() == 233
    counts = release.table[list(labels.LABELS)].sum()
    assert (counts["No Finding"], counts["Effusion"], counts["Hernia"]) == (336, 153, 19)
    assert release.boxes["label"].value_counts()["Atelectasis"] == 4
    assert release.boxes[["x", "y", "width", "height"]].to_numpy().max() <= 1
