"""Readers of public data sets: on small sets with the peculiarities of each, and on rows of the real label files."""

import ast
import gzip
import json
import shutil

import numpy as np
import pytest

from cxrkeras.data.chexpert_labels import CHEXPERT
from cxrkeras.data.nih_readers import FOUR, FOURTEEN
from cxrkeras.data.readers import PUBLIC_READERS, read_dataset, read_labels, survey_dataset
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import NOT_KNOWN
from tests.support.public_sets import (
    find_label_file,
    read_texts,
    write_chexpert,
    write_images,
    write_mimic,
    write_packed,
    write_padchest,
)
from tests.support.shell import run_cxrkeras

ROWS = 2000  # of a real label file


def notes_of(dataset):
    return "\n".join(dataset.notes)


def test_chexpert_by_the_folder_that_its_table_names_or_another(tmp_path):
    folder = write_chexpert(tmp_path / "CheXpert-v1.0-small")
    dataset = read_dataset(folder)
    table = dataset.table.set_index("image_id")
    assert dataset.kind == dataset.namespace == "chexpert"
    assert dataset.labels == CHEXPERT
    assert dataset.split_name == "chexpert-valid"
    assert len(table) == 14  # ten frontal images, four of validation
    assert table.loc["patient00001/study1/view1_frontal.jpg", ["patient_id", "sex", "view", "age"]].tolist() == [
        "patient00001", "F", "AP", 51]  # fmt: skip
    assert (table.index[table["split"] == "test"].str[:12] == "patient64540").sum() == 1
    assert "patient00003/study1/view1_frontal.jpg" not in table.index  # AP/PA = LL
    assert "1 frontal image of train.csv with AP/PA = LL or RL read as lateral" in notes_of(dataset)
    assert "2 images left out as not frontal: 2 lateral" in notes_of(dataset)
    assert (dataset.listed["rows"], dataset.listed["missing"]) == (14, 0)  # whole, as far as it is wanted
    moved = tmp_path / "elsewhere" / "set"
    shutil.copytree(folder, moved)
    (moved / "train" / "patient00001" / "study1" / "view1_frontal.jpg").unlink()
    rest = [name for name in dataset.table["image_id"] if name != "patient00001/study1/view1_frontal.jpg"]
    assert read_dataset(moved).table["image_id"].tolist() == rest
    assert read_dataset(tmp_path / "elsewhere").fingerprint() == read_dataset(moved).fingerprint()


def test_blank_labels_of_chexpert_are_absent_or_unknown_as_decided(tmp_path):
    folder = write_chexpert(tmp_path)
    absent, unknown = read_dataset(folder), read_dataset(folder, Reading(blank="unknown"))
    first = [dataset.table.set_index("image_id").loc["patient00002/study1/view1_frontal.jpg"] for dataset in
             (absent, unknown)]  # fmt: skip
    assert [row["Consolidation"] for row in first] == [-1, -1]
    assert [row["Cardiomegaly"] for row in first] == [0, NOT_KNOWN]
    assert [dataset.settings for dataset in (absent, unknown)] == [{"blank": "absent"}, {"blank": "unknown"}]
    assert absent.fingerprint() != unknown.fingerprint()
    assert "they count as absent; blank=unknown reads them as not known" in notes_of(absent)
    (folder / "valid.csv").unlink()
    assert "No Finding is never absent but blank" in notes_of(read_dataset(folder, Reading(blank="unknown")))
    with pytest.raises(InputError, match="blank must be absent or unknown"):
        Reading(blank="maybe")


def test_chexpert_names_the_line_of_what_it_cannot_read(tmp_path):
    folder = write_chexpert(tmp_path)
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text.replace("-1.0", "2.0"))
    with pytest.raises(InputError, match=r"train\.csv, line 3: \w+ is '2\.0'; expected 1\.0, 0\.0, -1\.0 or blank"):
        read_dataset(folder)
    (folder / "train.csv").write_text(text.replace("patient00004/study1", "images"))
    with pytest.raises(InputError, match=r"line 5: the path '.*' does not end in patient<number>/study<number>"):
        read_dataset(folder)


def test_mimic_joins_labels_by_study_and_takes_the_official_split(tmp_path):
    dataset = read_dataset(write_mimic(tmp_path), Reading(views="all"))
    table = dataset.table.set_index("image_id")
    assert (dataset.kind, dataset.namespace) == ("mimic-chexpert", "mimic")
    assert dataset.split_name == "mimic-official"
    assert table["split"].to_dict() == {"dicom0": "train_val", "dicom1": "train_val", "dicom2": "train_val",
                                        "dicom4": "test", "dicom5": "test", "dicom7": "test"}  # fmt: skip
    assert table["view"].to_dict() == {"dicom0": "PA", "dicom1": "AP", "dicom2": "lateral", "dicom4": "",
                                       "dicom5": "other", "dicom7": "PA"}  # fmt: skip
    assert table.loc["dicom2", ["Atelectasis", "Cardiomegaly", "Consolidation"]].tolist() == [1, 0, -1]
    assert "1 image without a split in mimic-cxr-2.0.0-split.csv.gz left out" in notes_of(dataset)
    assert "1 image of studies without labels in mimic-cxr-2.0.0-chexpert.csv.gz left out" in notes_of(dataset)


def test_mimic_tests_on_the_labels_of_readers_where_they_are_there(tmp_path):
    folder = write_mimic(tmp_path)
    (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(
        "study_id,Atelectasis,Airspace Opacity\n50004,0.0,1.0\n50007,,0.0\n"
    )
    dataset = read_dataset(folder)
    table = dataset.table.set_index("image_id")
    assert dataset.split_name == "mimic-official-readers"
    assert table.loc["dicom4", ["Atelectasis", "Lung Opacity"]].tolist() == [0, 1]
    assert "dicom5" not in table.index
    assert "2 images, and 1 image that they did not label left out" in notes_of(dataset)
    assert "mimic-cxr-2.1.0-test-set-labeled.csv has no column of No Finding, Enlarged" in notes_of(dataset)
    assert table.loc["dicom4", ["Edema", "Pneumonia"]].tolist() == [NOT_KNOWN] * 2  # no column: not known, not absent
    assert table.loc["dicom7", ["Atelectasis", "Edema"]].tolist() == [0, NOT_KNOWN]


def replace_in(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("write", "path", "old", "new", "words"),
    [
        (
            "chexpert",
            "train.csv",
            "Path,Sex",
            "Where,Sex",
            "train.csv is not a table of CheXpert, although it is named",
        ),
        ("vindr", "annotations/image_labels_train.csv", "a,R2", "a,R1", "line 3: the same reader labels a twice"),
        ("vindr", "annotations/image_labels_train.csv", "a,R2", ",R2", "line 3: no image_id"),
        ("vindr", "annotations/annotations_train.csv", "10,10,50,50", "10,x,50,50", "line 2: y_min is 'x'; expected a"),
        ("rsna", "stage_2_train_labels.csv", "b,,,,,0", "b,,,,,2", "line 4: Target is '2'; expected 0 or 1"),
        ("rsna", "stage_2_train_labels.csv", "512,256", "512,", "line 2: y is ''; expected a number"),
        (
            "rsna",
            "stage_2_train_labels.csv",
            "a,0,0,1024,1024,1",
            "a,0,0,1024,1024,0",
            "a has rows with Target 0 and 1",
        ),
    ],
)
def test_broken_tables_are_refused_by_line(tmp_path, write, path, old, new, words):
    folder = {"chexpert": write_chexpert, "vindr": write_vindr, "rsna": write_rsna}[write](tmp_path)
    replace_in(folder / path, old, new)
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        read_dataset(folder)


def test_packed_tables_that_are_broken_or_repeat_an_image_are_refused(tmp_path):
    folder = write_mimic(tmp_path)
    path = folder / "mimic-cxr-2.0.0-split.csv.gz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cannot unpack .*split\.csv\.gz"):
        read_dataset(folder)
    text = gzip.decompress(content).decode()
    write_packed(path, text + text.splitlines()[1] + "\n")
    with pytest.raises(InputError, match=r"line 9: dicom0 is listed twice"):
        read_dataset(folder)


def test_tables_that_are_not_used_are_named(tmp_path):
    folder = write_chexpert(tmp_path)
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    assert f"1 CSV file of {folder} not used: notes.csv" in read_dataset(folder).notes


def test_both_label_files_of_mimic_need_a_kind(tmp_path):
    folder = write_mimic(tmp_path)
    shutil.copy(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", folder / "mimic-cxr-2.0.0-negbio.csv.gz")
    with pytest.raises(InputError, match="say which with kind, mimic-chexpert or mimic-negbio"):
        read_dataset(folder)
    assert read_dataset(folder, Reading(kind="mimic-negbio")).kind == "mimic-negbio"
    with pytest.raises(InputError, match="does not hold the label files of PadChest: expected PADCHEST"):
        read_dataset(folder, Reading(kind="padchest"))
    with pytest.raises(InputError, match="kind must be one of nih, "):
        read_dataset(folder, Reading(kind="cheXpert"))


def test_padchest_lists_views_and_ages(tmp_path):
    dataset = survey_dataset(write_padchest(tmp_path), Reading(views="all"))
    table = dataset.table.set_index("image_id")
    assert dataset.labels.names == ("cardiomegaly", "nodule", "pleural effusion", "scoliosis", "normal")
    assert dataset.labels.no_finding == "normal"
    assert table[list(dataset.labels)].apply(tuple, axis=1).to_dict() == {
        "image0.png": (0, 0, 0, 0, 1),
        "image1.png": (0, 1, 1, 0, 0),
        "image2.png": (NOT_KNOWN,) * 5,
        "image5.png": (0, 0, 0, 1, 0),
        "image6.png": (1, 0, 0, 0, 0),
        "image7.png": (0, 0, 0, 0, 1),
    }
    assert table["view"].tolist() == ["PA", "lateral", "AP", "other", "", "AP"]
    assert table["age"].tolist() == pytest.approx([84, 83, 82, 79, 78, np.nan], nan_ok=True)
    for sentence in (
        "1 image without labels left out",
        "1 image labelled exclude left out",
        "1 image labelled normal and with a finding: read with the finding",
        "1 image whose labels name no finding (unchanged, suboptimal study): their labels are not known",
    ):
        assert sentence in notes_of(dataset)
    write_packed(tmp_path / "second.csv.gz", "\n".join([
        "ImageID,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,Labels",
        "a,b,c,d,e,f,g,h",
    ]))  # fmt: skip
    with pytest.raises(InputError, match="two label files of PadChest"):
        read_dataset(tmp_path)


def write_vindr(folder):
    """Three readers of two training images, one test image by consensus; 200 x 100 pixels."""
    rows = ["a,R1,1,0,0", "a,R2,1,1,0", "a,R3,0,1,0", "b,R1,0,0,1", "b,R2,0,0,1", "b,R3,1,0,0"]
    (folder / "annotations").mkdir(parents=True)
    header = "image_id,{}Pneumonia,Tuberculosis,No finding".format
    (folder / "annotations" / "image_labels_train.csv").write_text("\n".join([header("rad_id,"), *rows]) + "\n")
    (folder / "annotations" / "image_labels_test.csv").write_text(f"{header('')}\nc,1,0,0\n")
    boxes = ["a,R1,Pneumonia,10,10,50,50", "a,R2,Pneumonia,14,10,54,50", "a,R3,Pneumonia,120,10,160,50",
             "b,R3,Pneumonia,0,0,10,10", "b,R1,No finding,,,,"]  # fmt: skip
    header = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    (folder / "annotations" / "annotations_train.csv").write_text("\n".join([header, *boxes]) + "\n")
    from PIL import Image

    for name in ("train/a.png", "train/b.png", "test/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("L", (200, 100)).save(folder / name)
    return folder


def test_vindr_by_most_or_any_of_its_readers(tmp_path):
    folder = write_vindr(tmp_path)
    most, any_reader = read_dataset(folder), read_dataset(folder, Reading(readers="any"))
    labels = ["Pneumonia", "Tuberculosis", "No finding"]
    assert most.table[labels].to_numpy().tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert any_reader.table[labels].to_numpy().tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert most.table["split"].tolist() == ["train_val", "train_val", "test"]
    assert most.split_name == "vindr-official"
    assert most.boxes.to_numpy().tolist() == [["a", "Pneumonia", 0.06, 0.1, 0.2, 0.4]]  # two of three readers
    assert any_reader.boxes["image_id"].tolist() == ["a", "a", "b"]
    assert "each image counts as a patient of its own" in notes_of(most)


def test_boxes_outside_of_a_resized_image_are_left_out_with_a_note(tmp_path):
    folder = write_vindr(tmp_path)
    path = folder / "annotations" / "annotations_train.csv"
    path.write_text(path.read_text().replace("10,10,50,50", "10,10,50,500").replace("14,10,54,50", "14,10,54,500"))
    dataset = read_dataset(folder)
    assert not len(dataset.boxes)
    assert (
        "all 1 boxes left out: 1 lie outside of their images, which are therefore not of the original size"
        in notes_of(dataset)
    )


def test_one_box_outside_takes_the_others_of_its_image_with_it(tmp_path):
    folder = write_vindr(tmp_path)
    path = folder / "annotations" / "annotations_train.csv"
    many = [f"b,R{k % 2 + 1},No finding,,,," for k in range(2)] + [f"c{k},R1,Pneumonia,1,1,9,9" for k in range(60)]
    path.write_text(path.read_text() + "\n".join(many) + "\na,R3,Pneumonia,190,10,220,50\n")
    labels = folder / "annotations" / "image_labels_train.csv"
    labels.write_text(labels.read_text() + "".join(f"c{k},R1,1,0,0\n" for k in range(60)))
    from PIL import Image

    for k in range(60):
        Image.new("L", (200, 100)).save(folder / "train" / f"c{k}.png")
    dataset = read_dataset(folder, Reading(readers="any"))
    assert "a" not in set(dataset.boxes["image_id"])
    assert len(dataset.boxes) == 61
    assert "3 boxes of 64 left out, of images with a box that is empty or outside" in notes_of(dataset)


def write_rsna(folder, images=("a", "b", "c")):
    rows = {"a": ["a,512,256,128,64,1", "a,0,0,1024,1024,1"], "b": ["b,,,,,0"], "c": ["c,,,,,0"]}
    lines = [row for image in images for row in rows[image]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage_2_train_labels.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *lines]) + "\n")
    write_images(folder, [f"stage_2_train_images/{image}.png" for image in images])
    return folder


def test_rsna_has_one_or_three_classes_boxes_and_patients_of_nih_with_the_mapping(tmp_path):
    folder = write_rsna(tmp_path)
    alone = survey_dataset(folder)
    assert alone.labels.names == ("Lung Opacity",)
    assert alone.namespace == "rsna"
    assert alone.boxes.to_numpy().tolist() == [["a", "Lung Opacity", 0.5, 0.25, 0.125, 0.0625],
                                               ["a", "Lung Opacity", 0, 0, 1, 1]]  # fmt: skip
    classes = ["a,Lung Opacity", "a,Lung Opacity", "b,Normal", "c,No Lung Opacity / Not Normal"]
    (folder / "stage_2_detailed_class_info.csv").write_text("\n".join(["patientId,class", *classes]) + "\n")
    mapping = [{"subset_img_id": name, "img_id": f"0000000{k // 2}_00{k}.png"} for k, name in enumerate("abc")]
    (folder / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    (folder / "headers.csv").write_text(
        "PatientID,PatientAge,PatientSex,ViewPosition\na,43,F,AP\nb,155,M,PA\nc,1,M,PA\n"
    )
    dataset = survey_dataset(folder)
    assert dataset.labels.no_finding == "Normal"
    assert dataset.table[list(dataset.labels)].to_numpy().tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert dataset.namespace == "nih"
    assert dataset.table["patient_id"].tolist() == ["00000000", "00000000", "00000001"]
    assert dataset.table["origin"].tolist()[1] == "00000000_001.png"
    assert dataset.table["age"].tolist() == pytest.approx([43, np.nan, 1], nan_ok=True)
    (folder / "stage_2_detailed_class_info.csv").write_text("patientId,class\na,Normal\nb,Normal\nc,Normal\n")
    with pytest.raises(InputError, match="disagree about Lung Opacity"):
        survey_dataset(folder)


def test_siim_masks_become_boxes(tmp_path):
    masks = ["a, 1044480 3 1021 3", "a, 5 2", "b, -1", "c, 1000 48", "d, -1", "d, 5 2"]
    (tmp_path / "train-rle.csv").write_text("\n".join(["ImageId, EncodedPixels", *masks[:4]]) + "\n")
    write_images(tmp_path, [f"x/{name}/{name}.png" for name in "abcd"])
    dataset = survey_dataset(tmp_path)
    assert dataset.table[["image_id", "Pneumothorax"]].to_numpy().tolist() == [["a", 1], ["b", 0], ["c", 1]]
    found = (dataset.boxes.set_index("image_id")[["x", "y", "width", "height"]] * 1024).round(6)
    # Columns 1020 and 1021, rows 0 to 2; column 0, rows 5 and 6; the end of column 0 and the start of column 1.
    assert found.to_numpy().tolist() == [[1020, 0, 2, 3], [0, 5, 1, 2], [0, 0, 2, 1024]]
    assert "1 image has several rows, read as one image" in notes_of(dataset)
    (tmp_path / "train-rle.csv").write_text("\n".join(["ImageId, EncodedPixels", *masks]) + "\n")
    assert "d has a mask and -1" in survey_dataset(tmp_path).errors[0]
    (tmp_path / "train-rle.csv").write_text("ImageId, EncodedPixels\na, 5 2 3\n")
    with pytest.raises(InputError, match=r"line 2: the mask '5 2 3' is not pairs"):
        survey_dataset(tmp_path)


def write_openi(folder):
    folder.mkdir(parents=True, exist_ok=True)
    report = (
        '<eCitation><uId id="CXR{0}"/><MeSH>{1}</MeSH><parentImage id="CXR{0}_IM-1"/><parentImage id="CXR{0}_IM-2"/>'
        "</eCitation>"
    )
    terms = ["<major>normal</major>", "<major>Opacity/lung/upper lobe</major><major>Thoracic Vertebrae/mild</major>",
             "<major>No Indexing</major>", "<major>Thoracic vertebrae/severe</major>"]  # fmt: skip
    (folder / "ecgen-radiology").mkdir()
    for k, of_report in enumerate(terms):
        (folder / "ecgen-radiology" / f"{k}.xml").write_text(report.format(k, of_report))
    write_images(folder, [f"CXR{k}_IM-{image}.png" for k in range(4) for image in (1, 2)])
    return folder


def test_openi_terms_and_views(tmp_path):
    folder = write_openi(tmp_path)
    dataset = survey_dataset(folder)
    assert dataset.labels.names == ("Opacity", "Thoracic Vertebrae", "normal")
    assert dataset.table.drop_duplicates("patient_id")[list(dataset.labels)].to_numpy().tolist() == [
        [0, 0, 1], [1, 1, 0], [NOT_KNOWN] * 3, [0, 1, 0]]  # fmt: skip
    assert "no table says which images are lateral" in notes_of(dataset)
    rows = [f"{k},{k}_IM-{image}.dcm.png,{view}" for k in range(4) for image, view in ((1, "Frontal"), (2, "Lateral"))]
    (folder / "indiana_projections.csv").write_text("\n".join(["uid,filename,projection", *rows]) + "\n")
    frontal = survey_dataset(folder)
    assert frontal.table["view"].tolist() == ["frontal"] * 4
    (folder / "ecgen-radiology" / "9.xml").write_text("<eCitation>")
    with pytest.raises(InputError, match=r"9\.xml is not a report of the collection"):
        survey_dataset(folder)


def write_google(folder):
    header = "Image Index,Patient ID,Patient Age,Patient Gender,View Position,Fracture,Pneumothorax,Airspace opacity"
    rows = ["00000001_000.png,1,58,M,PA,NO,YES,NO,NO,test", "00000002_000.png,2,58,F,AP,NO,NO,NO,YES,val"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "four.csv").write_text("\n".join([f"{header},Nodule or mass,Set Id", *rows]) + "\n")
    header = ("Image ID,Patient ID,Abnormal,Atelectasis,Cardiomegaly,Effusion,Infiltration,Mass,Nodule,Pneumonia,"
              "Pneumothorax,Consolidation,Edema,Emphysema,Fibrosis,Pleural Thickening,Hernia,Other")  # fmt: skip
    rows = ["00000001_000.png,1,YES" + ",NO" * 12 + ",YES,NO,NO", "00000003_000.png,3,NO" + ",NO" * 15]
    (folder / "all.csv").write_text("\n".join([header, *rows]) + "\n")
    write_images(folder / "images", [f"0000000{k}_000.png" for k in (1, 2, 3)])
    return folder


def test_labels_by_radiologists_for_images_of_nih(tmp_path):
    folder = write_google(tmp_path)
    four = read_dataset(folder, Reading(kind="google-four"))
    assert four.labels == FOUR
    assert four.table[[*FOUR, "split"]].to_numpy().tolist() == [[0, 1, 0, 0, "test"], [0, 0, 0, 1, "train_val"]]
    fourteen = read_dataset(folder, Reading(kind="google-fourteen"))
    assert fourteen.labels == FOURTEEN
    assert fourteen.table[["Pleural_Thickening", "Hernia", "Normal"]].to_numpy().tolist() == [[1, 0, 0], [0, 0, 1]]
    assert "all images belong to the test set: a network can be scored on them, not trained" in fourteen.notes
    assert {four.namespace, fourteen.namespace} == {"nih"}
    assert read_labels(folder / "all.csv").labels == FOURTEEN


def test_settings_that_a_set_does_not_take_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"CheXpert, in .*, is read without readers"):
        read_dataset(write_chexpert(tmp_path), Reading(readers="any"))


def test_the_command_lists_every_set(tmp_path):
    output = run_cxrkeras("datasets", cwd=tmp_path).stdout
    for reader in PUBLIC_READERS:
        assert f"{reader.kind}: " in output
        for text in (reader.size, reader.labels, reader.licence, reader.access, reader.layout, reader.source):
            assert text


def take_rows(name, path, rows=ROWS):
    """Copy the first rows of a real label file; return them as pandas reads them."""
    table = read_texts(find_label_file(name), nrows=rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return table


def test_real_chexpert_rows(tmp_path):
    given = take_rows("chexpert_train.csv.gz", tmp_path / "train.csv")
    write_images(tmp_path, given["Path"].str.partition("/")[2])
    dataset = survey_dataset(tmp_path, Reading(views="all", blank="unknown"))
    assert len(dataset.table) == ROWS
    assert dataset.table["patient_id"].nunique() == given["Path"].str.extract(r"(patient\d+)")[0].nunique()
    assert dataset.table["sex"].value_counts().to_dict() == {
        sex[0]: count for sex, count in given["Sex"].value_counts().items()
    }
    for label in CHEXPERT:
        expected = given[label].map({"1.0": 1, "0.0": 0, "-1.0": -1, "": NOT_KNOWN})
        assert (dataset.table[label].to_numpy() == expected.to_numpy()).all()
    lateral = (given["Frontal/Lateral"] == "Lateral") | given["AP/PA"].isin(["LL", "RL"])
    assert (dataset.table["view"] == "lateral").sum() == lateral.sum()


def test_real_padchest_rows(tmp_path):
    given = take_rows("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", tmp_path / "padchest.csv")
    write_images(tmp_path, given["ImageDir"] + "/" + given["ImageID"])
    dataset = survey_dataset(tmp_path, Reading(views="all"))
    names = given["Labels"].map(
        lambda text: {name.strip() for name in ast.literal_eval(text)} if text != "nan" else None
    )
    kept = names.map(lambda found: found is not None and "exclude" not in found)
    assert dataset.table["image_id"].tolist() == given["ImageID"][kept].tolist()
    for label in dataset.labels.findings:
        assert (dataset.table[label] == 1).sum() == names[kept].map(lambda found, label=label: label in found).sum()
    assert (dataset.table["view"] == "lateral").sum() == (given["Projection"][kept] == "L").sum()
    assert (dataset.table["sex"] == "F").sum() == (given["PatientSex_DICOM"][kept] == "F").sum()


def test_real_vindr_rows(tmp_path):
    given = take_rows("vinbigdata-train.csv.gz", tmp_path / "train.csv", rows=None)
    write_images(tmp_path / "train", [f"{name}.png" for name in given["image_id"].unique()[:300]])
    dataset = survey_dataset(tmp_path)
    votes = given.drop_duplicates(["image_id", "rad_id", "class_name"]).groupby(["class_name", "image_id"]).size()
    for label in dataset.labels:
        assert dataset.listed[label] == (votes[label] >= 2).sum()


def test_real_rsna_siim_openi_and_google_files(tmp_path):
    given = take_rows("kaggle_stage_2_train_labels.csv.zip", tmp_path / "rsna" / "labels.csv", rows=None)
    write_images(tmp_path / "rsna", [f"{name}.png" for name in given["patientId"].unique()[:50]])
    assert (
        survey_dataset(tmp_path / "rsna").listed["Lung Opacity"] == given["patientId"][given["Target"] == "1"].nunique()
    )
    given = take_rows("siim-pneumothorax-train-rle.csv.gz", tmp_path / "siim" / "train-rle.csv", rows=None)
    write_images(tmp_path / "siim", [f"{name}.png" for name in given["ImageId"].unique()[:50]])
    positive = given["ImageId"][given[" EncodedPixels"].str.strip() != "-1"].nunique()
    assert survey_dataset(tmp_path / "siim").listed["Pneumothorax"] == positive
    openi = tmp_path / "openi"
    openi.mkdir()
    for name in ("NLMCXR_reports.tgz", "nlmcxr_dicom_metadata.csv.gz"):
        shutil.copy(find_label_file(name), openi)
    write_images(openi, [f"{name}.png" for name in read_texts(openi / "nlmcxr_dicom_metadata.csv.gz")["imageid"][:50]])
    dataset = survey_dataset(openi)
    assert dataset.listed["rows"] == 7470 - 867  # without lateral images
    assert len(dataset.labels) == 117
    given = take_rows("google2019_nih-chest-xray-labels.csv.gz", tmp_path / "google" / "four.csv", rows=None)
    write_images(tmp_path / "google", given["Image Index"])
    dataset = survey_dataset(tmp_path / "google")
    assert {label: dataset.listed[label] for label in FOUR} == {label: (given[label] == "YES").sum() for label in FOUR}
    assert dataset.table["split"].value_counts().to_dict() == {"train_val": 2414, "test": 1962}
