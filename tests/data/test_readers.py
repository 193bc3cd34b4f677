import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrkeras.data.dataset import count_values
from cxrkeras.data.folds import SPLIT_RULES, assign_folds, check_patients, choose_test_set
from cxrkeras.data.nih_tables import OFFICIAL_SPLIT
from cxrkeras.data.readers import read_dataset
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH, NOT_KNOWN, UNCERTAIN, LabelSet

OLD_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)


@pytest.fixture
def old_release(tmp_path):
    """The older label file with all peculiarities of its tables, Kaggle's layout, no lists."""
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


def test_the_old_label_file_with_its_peculiarities(old_release):
    dataset = read_dataset(old_release)
    table = dataset.table.set_index("image_id")
    assert dataset.label_file == "Data_Entry_2017.csv"
    assert len(table) == 5
    assert table.loc["00000001_001.png", ["Cardiomegaly", "Emphysema", "Mass"]].tolist() == [1, 1, 0]
    assert table.loc["00000002_000.png", "No Finding"] == 1
    assert np.isnan(table.loc["00000001_001.png", "age"])
    assert table["age"].drop("00000001_001.png").round(3).tolist() == [58, 0.917, 0.003, 81]
    assert table.loc["00000002_000.png", ["sex", "view", "patient_id"]].tolist() == ["F", "AP", "2"]
    notes = " ".join(dataset.notes)
    assert "1 image file without a row" in notes
    assert "1 value above 120 years left blank (largest: 411)" in notes
    assert "1 of 6 listed images are not on disk" in notes
    assert "2 boxes" in notes
    assert dataset.split_name == "hashed-20-0"
    assert dataset.namespace == "nih"
    assert read_dataset(old_release, Reading(split_rule="grouped")).split_name == "grouped-20-0"


def test_boxes_are_fractions_with_standard_spelling(old_release):
    boxes = read_dataset(old_release).boxes
    assert boxes["label"].tolist() == ["Infiltration", "Cardiomegaly"]
    assert boxes.loc[0, ["x", "y", "width", "height"]].tolist() == [0.25, 0.5, 0.125, 0.0625]


def test_lists_must_not_share_patients_or_images(old_release):
    names = [f"0000000{i}_00{j}.png" for i, j in ((1, 0), (1, 1), (2, 0), (3, 0), (4, 0))]
    (old_release / "train_val_list.txt").write_text("\n".join(names[1:4]))
    (old_release / "test_list.txt").write_text("\n".join([names[0], names[4]]) + "\n")
    with pytest.raises(InputError, match="1 patient is in both"):
        read_dataset(old_release)
    (old_release / "test_list.txt").write_text("\n".join(names[3:]))
    with pytest.raises(InputError, match="image is in both"):
        read_dataset(old_release)
    (old_release / "test_list.txt").write_text(names[4])
    dataset = read_dataset(old_release)
    assert dataset.split_name.startswith("custom-")
    assert any("neither" in note for note in dataset.notes)
    assert dataset.table["split"].value_counts().to_dict() == {"train_val": 3, "test": 1}


def test_a_single_or_binary_list_is_refused_and_a_byte_order_mark_read(old_release):
    names = [f"0000000{i}_00{j}.png" for i, j in ((1, 0), (1, 1), (2, 0), (3, 0), (4, 0))]
    (old_release / "train_val_list.txt").write_text("\r\n".join(names[:4]), "utf-8-sig")
    with pytest.raises(InputError, match=r"no test_list\.txt"):
        read_dataset(old_release)
    (old_release / "test_list.txt").write_bytes(b"\x9c\x00\xff")
    with pytest.raises(InputError, match=r"cannot read .*test_list\.txt"):
        read_dataset(old_release)
    (old_release / "test_list.txt").write_text(names[4])
    assert len(read_dataset(old_release).table) == 5


def test_fingerprint_follows_content_only(old_release):
    before = read_dataset(old_release).fingerprint()
    (old_release / "images_001" / "images" / "00000001_000.png").touch()
    assert read_dataset(old_release).fingerprint() == before
    entry = old_release / "Data_Entry_2017.csv"
    entry.write_text(entry.read_text().replace("Hernia", "Edema"))
    assert read_dataset(old_release).fingerprint() != before


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
        read_dataset(old_release)
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
    dataset = read_dataset(own_folder(tmp_path, table))
    assert dataset.table[["Effusion", "Mass", "No Finding", "Edema"]].to_numpy().tolist() == [
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert dataset.split_name.startswith("custom-")
    assert not dataset.is_synthetic


def test_own_csv_with_label_columns(tmp_path):
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "patient": [0, 0, 1, 2, 3, 4], "Edema": [1, 0] * 3})
    dataset = read_dataset(own_folder(tmp_path, table))
    assert dataset.labels == LabelSet(("Edema",))  # nothing is derived
    assert dataset.table["Edema"].tolist() == [1, 0] * 3
    assert any("1 label column: Edema" in note for note in dataset.notes)
    contradictory = table.assign(**{"No Finding": 1})
    with pytest.raises(InputError, match="line 2 and 2 more: No Finding is 1"):
        read_dataset(own_folder(tmp_path, contradictory))
    table["Edema"] = [1, 0, 2, 0, 0, 0]
    with pytest.raises(InputError, match=r"line 4: a label column holds 1, 0, -1 .* Edema holds '2'"):
        read_dataset(own_folder(tmp_path, table))


def test_own_csv_with_uncertain_and_unknown_labels(tmp_path):
    values = {"TB": ["1", "0", "-1", "", "1.0", "yes"], "normal": ["", "1", "unknown", "0", "n/a", "no"]}
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "patient": range(6), **values})
    dataset = read_dataset(own_folder(tmp_path, table))
    assert dataset.labels == LabelSet(("TB", "normal"), "normal")
    assert dataset.table["TB"].tolist() == [1, 0, UNCERTAIN, NOT_KNOWN, 1, 1]
    assert dataset.table["normal"].tolist() == [NOT_KNOWN, 1, NOT_KNOWN, 0, NOT_KNOWN, 0]
    assert dataset.listed["TB"] == 3
    counts = count_values(dataset.table, dataset.labels)
    assert counts.loc["TB"].tolist() == [3, 1, 1, 1]


def test_own_labels_of_any_name_in_order_of_occurrence_or_of_a_list(tmp_path):
    texts = ["Pneumonia/Viral/COVID-19", "Rib fracture|Scoliosis", "todo", "rib_fracture", "Healthy", "scoliosis"]
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "patient": range(6), "labels": texts})
    dataset = read_dataset(own_folder(tmp_path, table))
    assert dataset.labels.names == ("Pneumonia/Viral/COVID-19", "Rib fracture", "Scoliosis", "Healthy")
    assert dataset.labels.no_finding == "Healthy"
    assert dataset.table["Rib fracture"].tolist() == [0, 1, NOT_KNOWN, 1, 0, 0]
    notes = " ".join(dataset.notes)
    assert "1 image has no known label ('todo')" in notes
    assert "2 labels are written in more than one way and treated as one (first: 'Rib fracture' and" in notes
    (tmp_path / "labels.txt").write_text("Healthy\nScoliosis\nRib fracture\nPneumonia/Viral/COVID-19\nMass\n")
    listed = read_dataset(tmp_path)
    assert listed.labels.names == ("Healthy", "Scoliosis", "Rib fracture", "Pneumonia/Viral/COVID-19", "Mass")
    assert listed.fingerprint() != dataset.fingerprint()
    assert listed.table["Mass"].tolist() == [0, 0, NOT_KNOWN, 0, 0, 0]
    (tmp_path / "labels.txt").write_text("Healthy\n")
    with pytest.raises(
        InputError, match=r"has the label 'Pneumonia/Viral/COVID-19', but labels\.txt .* does not list it"
    ):
        read_dataset(tmp_path)


@pytest.mark.parametrize("form", ["labels", "columns"])
def test_the_no_finding_label_can_be_named(tmp_path, form):
    table = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "patient": [1, 2, 3]})
    if form == "labels":
        table["labels"] = ["TB", "clear", "clear"]
    else:
        table["TB"], table["clear"] = [1, 0, 0], [0, 1, 1]
    folder = own_folder(tmp_path, table)
    assert read_dataset(folder).labels.no_finding is None
    named = read_dataset(folder, Reading(normal="Clear"))
    assert (named.labels.no_finding, named.settings) == ("clear", {"normal": "Clear"})
    with pytest.raises(InputError, match="unknown label 'fine'; the labels are TB, clear"):
        read_dataset(folder, Reading(normal="fine"))


def test_invalid_label_names_are_refused(tmp_path):
    table = pd.DataFrame({"image": ["a.png", "b.png"], "patient": [1, 2], "labels": ["Source", "TB"]})
    with pytest.raises(InputError, match=r"mine\.csv: a label may not be called 'Source'"):
        read_dataset(own_folder(tmp_path, table))
    table["labels"] = ["TB||Mass", "TB"]
    with pytest.raises(InputError, match="line 2: an empty label name"):
        read_dataset(own_folder(tmp_path, table))


def test_a_patient_or_image_written_in_two_ways_is_the_same(tmp_path):
    table = pd.DataFrame(
        {
            "image": ["a.png", "b.png", "c.png"],
            "patient": ["2", " 2 ", "3"],
            "labels": ["Mass", "Mass", "Edema"],
            "split": ["train_val", "test", "test"],
        }
    )
    with pytest.raises(InputError, match="1 patient is in both"):
        read_dataset(own_folder(tmp_path, table))
    table = table.assign(image=["pictures/a.png", "./pictures/a.png", "c.png"], patient=["1", "2", "3"])
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError, match="line 3: an image that another line already names"):
        read_dataset(tmp_path)


def test_ragged_rows_and_folders_instead_of_lists_are_reported(tmp_path, old_release):
    (old_release / "test_list.txt").mkdir()
    with pytest.raises(InputError, match=r"test_list\.txt is not a file"):
        read_dataset(old_release)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "mine.csv").write_text("image,patient,labels\na.png,1,Mass,\nb.png,2,Mass,\n")
    with pytest.raises(InputError, match="line 2: 4 fields where the header has 3: quote fields"):
        read_dataset(folder)


@pytest.mark.parametrize("columns", [["image"], ["image", "patient"], ["image", "patient", "Cough"]])
def test_a_folder_without_usable_labels_names_what_is_missing(tmp_path, columns):
    own_folder(tmp_path, pd.DataFrame({name: ["1.png", "2.png"] for name in columns}))
    with pytest.raises(InputError, match=r"patient|label"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("values", [[1, 0], ["yes", "No"], ["TRUE", "false"], ["1.0", "0.0"]])
@pytest.mark.parametrize("column", ["Pleural Thickening", " pleural_thickening", "PleuralThickening"])
def test_label_columns_in_any_spelling(tmp_path, column, values):
    table = pd.DataFrame({"image": ["a.png", "b.png"], "patient": ["1", "2"], column: values})
    dataset = read_dataset(own_folder(tmp_path, table))
    assert dataset.labels.names == (column.strip(),)
    assert dataset.labels.find("Pleural_Thickening") == column.strip()
    assert dataset.table[column.strip()].tolist() == [1, 0]


@pytest.mark.parametrize("values", [[1, 0, 0], ["", "1", "-1"], ["yes", "no", ""], ["True", "False", "True"]])
def test_label_columns_are_detected_and_refused_next_to_a_column_of_names(tmp_path, values):
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(3)], "patient": [1, 2, 3], "Mass": [0, 1, 0]})
    both = read_dataset(own_folder(tmp_path, table.assign(**{"Pleural Effusion": values})))
    assert both.labels.names == ("Mass", "Pleural Effusion")
    texts = table.drop(columns="Mass").assign(labels="Mass", Fracture=values)
    with pytest.raises(InputError, match=r"'Fracture' holds labels too .* ignore=\"Fracture\""):
        read_dataset(own_folder(tmp_path, texts))
    assert read_dataset(tmp_path, Reading(ignore=("Fracture",))).labels.names == ("Mass",)


def test_unrecognised_columns_are_refused_or_ignored(tmp_path):
    table = pd.DataFrame({"Image": ["a.png", "b.png"], "patient": [1, 2], "mass": [0, 1], "pixel width": [64, 32]})
    for name in table["Image"]:
        write_image(tmp_path / name)
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError, match=r"'pixel width' is neither .* holds '64'; .* ignore=\"pixel_width\""):
        read_dataset(tmp_path)
    dataset = read_dataset(tmp_path, Reading(ignore=("Pixel_width",)))
    assert "mine.csv: ignored columns: pixel width" in dataset.notes
    assert (dataset.labels.names, dataset.settings) == (("mass",), {"ignore": ["Pixel_width"]})
    with pytest.raises(InputError, match="no column 'height' to ignore"):
        read_dataset(tmp_path, Reading(ignore=("pixel width", "height")))
    with pytest.raises(InputError, match="patient is needed"):
        read_dataset(tmp_path, Reading(ignore=("pixel width", "patient")))
    for other, words in (
        ({"Mass": [0, 1]}, "two columns for mass: 'mass' and 'Mass'"),
        ({"labels": "Mass"}, "keep one"),
        ({"notes": ""}, "'notes' is neither .* it is blank"),
        ({"Finding": "Mass"}, "'Finding' seems to hold label names: call it `labels`"),
    ):
        table.drop(columns="pixel width").assign(**other).to_csv(tmp_path / "mine.csv", index=False)
        with pytest.raises(InputError, match=words):
            read_dataset(tmp_path)


def test_a_patient_written_in_two_ways_is_on_one_side(tmp_path):
    spellings = [("7", "007"), ("8", "8.0"), ("ab9", "AB9"), ("10", " 10")] * 3
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(24)], "patient": np.ravel(spellings), "labels": "Mass"})
    dataset = read_dataset(own_folder(tmp_path, table))
    assert dataset.table["patient_id"].unique().tolist() == ["7", "8", "ab9", "10"]
    assert any("3 patients are written in more than one way" in note for note in dataset.notes)
    table["split"] = ["train_val", "test"] * 12
    with pytest.raises(InputError, match="4 patients are in both"):
        read_dataset(own_folder(tmp_path, table))


def test_a_patient_that_contradicts_the_name_of_the_image_is_refused(old_release):
    entry = old_release / "Data_Entry_2017.csv"
    entry.write_text(entry.read_text().replace("Hernia,0,3,", "Hernia,0,0003.0,"))
    assert read_dataset(old_release).table["patient_id"].tolist()[3] == "0003.0"
    entry.write_text(entry.read_text().replace("Hernia,0,0003.0,", "Hernia,0,4,"))
    with pytest.raises(InputError, match=r"line 5: the patient is 4, but 00000003 in the name of the image, 0"):
        read_dataset(old_release)


def test_one_name_in_two_folders_of_the_release(old_release):
    Image.new("L", (8, 8), 1).save(old_release / "images_002" / "images" / "00000001_000.png")
    Image.new("L", (8, 8), 2).save(old_release / "images_001" / "images" / "00000001_000.png")
    with pytest.raises(InputError, match=r"1 name is in several folders .*images_001/.*images_002/"):
        read_dataset(old_release)


@pytest.mark.parametrize("form", ["{}.png 0 0 1 0", "images/{}.png", "{}", "{}.PNG,1", "C:\\x\\{}.png", '"{}.png"'])
def test_split_lists_with_more_or_less_than_a_name(old_release, form):
    names = ["00000001_000", "00000001_001", "00000002_000", "00000003_000"]
    (old_release / "train_val_list.txt").write_text("\n".join(form.format(name) for name in names))
    (old_release / "test_list.txt").write_text("00000004_000.png\n")
    dataset = read_dataset(old_release)
    assert dataset.table["split"].value_counts().to_dict() == {"train_val": 4, "test": 1}
    assert any("train_val_list.txt: 4 lines are not exactly the name" in note for note in dataset.notes)
    (old_release / "test_list.txt").write_text("4\n5\n")
    with pytest.raises(InputError, match=r"test_list\.txt: none of its 2 lines begins with the name"):
        read_dataset(old_release)


def test_words_for_sex_view_and_age_reach_the_table(tmp_path):
    words = {"sex": ["Female", "m", "??"], "view": ["pa", "Lateral", "Frontal"], "age": ["45 years", "6M", "x"]}
    table = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "patient": [1, 2, 3], "labels": "Mass", **words})
    folder = own_folder(tmp_path, table)
    dataset = read_dataset(folder, Reading(views="all"))
    assert dataset.table["sex"].tolist() == ["F", "M", ""]
    assert dataset.table["view"].tolist() == ["PA", "lateral", "frontal"]
    assert dataset.table["age"].tolist() == pytest.approx([45, 0.5, np.nan], nan_ok=True)
    assert "sex: 1 value is not recognised and left blank: '??' (1)" in dataset.notes
    assert "images that are not frontal are kept: 1 lateral" in dataset.notes
    assert dataset.settings == {"views": "all"}
    frontal = read_dataset(folder)
    assert frontal.table["view"].tolist() == ["PA", "frontal"]
    assert "1 image left out as not frontal: 1 lateral" in frontal.notes


def test_no_patient_is_on_two_sides_of_a_split_in_200_random_tables():
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


def test_folds_have_equal_numbers_of_patients_and_depend_on_the_seed():
    patients = np.repeat(np.arange(103), 3)
    folds = assign_folds(patients, 5, seed=1, rule="grouped")
    per_fold = pd.Series(patients).groupby(folds).nunique()
    assert per_fold.max() - per_fold.min() <= 1
    assert np.array_equal(folds, assign_folds(patients, 5, seed=1))
    assert not np.array_equal(folds, assign_folds(patients, 5, seed=2))


def test_the_real_release(nih_sample):
    dataset = read_dataset(nih_sample)
    assert dataset.split_name == OFFICIAL_SPLIT
    assert len(dataset.table) == 921
    assert (dataset.table["split"] == "test").sum() == 233
    counts = dataset.table[list(NIH.names)].sum()
    assert (counts["No Finding"], counts["Effusion"], counts["Hernia"]) == (336, 153, 19)
    assert dataset.boxes["label"].value_counts()["Atelectasis"] == 4
    assert dataset.boxes[["x", "y", "width", "height"]].to_numpy().max() <= 1
