"""Several data sets in terms of one label set, and joined."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.data.identity import draw_shares, hash_patients
from cxrkeras.data.joining import join_datasets
from cxrkeras.data.readers import PUBLIC_READERS, read_again, read_dataset, read_datasets
from cxrkeras.data.reading import Reading
from cxrkeras.data.vocabulary import _combine, load_terms
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH, NOT_KNOWN
from tests.support.public_sets import write_chexpert, write_images, write_padchest
from tests.support.shell import run_here

COMMON = Reading(terms="common")


def write_release(folder, rows, lists=None):
    """NIH's layout: rows of (image, labels); lists: the images of the test set, all others are train_val."""
    folder.mkdir(parents=True)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position"
    lines = [f"{image},{labels},0,{int(image[:8])},50,F,PA" for image, labels in rows]
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *lines]) + "\n")
    write_images(folder / "images", [image for image, _ in rows])
    if lists is not None:
        names = [image for image, _ in rows]
        (folder / "test_list.txt").write_text("\n".join(name for name in names if name in lists))
        (folder / "train_val_list.txt").write_text("\n".join(name for name in names if name not in lists))
    return folder


def names(*patients):
    return [
        (f"{patient:08d}_{k:03d}.png", "Mass" if patient % 2 else "No Finding") for patient in patients for k in (0, 1)
    ]


def test_every_kind_of_set_has_terms_and_every_line_a_source():
    terms = load_terms("common")
    assert len(terms.labels) == 18
    assert set(terms.names) >= {reader.kind for reader in PUBLIC_READERS}
    for kind, of_kind in terms.names.items():
        for name, meant in of_kind.items():
            assert meant
            assert all(label in terms.labels for label in meant), (kind, name)
            assert terms.sources[kind][name].strip()
    nih = load_terms("nih")
    assert nih.labels == NIH
    assert nih.names["nih"] == {label: (label,) for label in NIH}
    assert "No Finding" not in nih.names["chexpert"]


def test_a_label_is_present_if_any_of_its_names_is(tmp_path):
    dataset = read_dataset(write_padchest(tmp_path), Reading(terms="common", views="all"))
    table = dataset.table.set_index("image_id")
    assert dataset.labels == load_terms("common").labels
    assert table["Effusion"].tolist() == [0, 1, NOT_KNOWN, 0, 0, 0]
    assert table["Cardiomegaly"].tolist() == [0, 0, NOT_KNOWN, 0, 1, 0]
    assert table["Pneumothorax"].tolist() == [
        0,
        0,
        NOT_KNOWN,
        0,
        0,
        0,
    ]  # a list that does not name it says that it is absent
    assert (table["Lung Lesion"] == NOT_KNOWN).all()  # no name of this set means it
    notes = "\n".join(dataset.notes)
    assert "3 labels of 5 read in terms of common" in notes
    assert "labels not read, without an equal in common: scoliosis, normal" in notes
    assert "not known in this set: Lung Lesion, Lung Opacity, Enlarged Cardiomediastinum" in notes
    assert dataset.settings == {"views": "all", "terms": "common"}


def test_several_names_of_one_label_are_absent_only_together():
    values = np.array([[1, -1], [1, NOT_KNOWN], [-1, 0], [0, 0], [0, NOT_KNOWN], [NOT_KNOWN, NOT_KNOWN]], np.int8)
    assert _combine(values).tolist() == [1, 1, -1, 0, NOT_KNOWN, NOT_KNOWN]


def test_terms_of_ones_own(tmp_path):
    folder = write_chexpert(tmp_path / "set")
    terms = tmp_path / "terms.toml"
    terms.write_text(
        'labels = ["Fluid", "Lesion"]\n[chexpert]\n"Pleural Effusion" = "fluid"\n"Lung Lesion" = "Lesion"\n'
    )
    dataset = read_dataset(folder, Reading(terms=str(terms)))
    assert dataset.labels.names == ("Fluid", "Lesion")
    own = tmp_path / "own"
    own.mkdir()
    (own / "table.csv").write_text("image,patient,LESION,Other\na.png,1,1,0\nb.png,2,0,0\n")
    write_images(own, ["a.png", "b.png"])
    assert read_dataset(own, Reading(terms=str(terms))).table["Lesion"].tolist() == [1, 0]  # by its spelling
    for content, words in (
        ('labels = ["A"]\n[chexpert]\n"x" = "B"', "unknown label 'B'"),
        ("labels = 3", "is not a file of terms"),
        ("[chexpert]", "is not a file of terms"),
        ("labels = [", "is not a file of terms"),
        ('labels = ["A"]\n[chexpert]\n', "none of its labels"),
        ('labels = ["A"]\n[chexprt]\nx = "A"', "chexprt is not a kind of data set: the kinds are nih, "),
        ('labels = ["A"]\n[chexpert]\nEdema = []', "Edema means no label"),
    ):
        terms.write_text(content)
        with pytest.raises(InputError, match=words):
            read_dataset(folder, Reading(terms=str(terms)))
    terms.write_text('labels = ["A"]\n[chexpert]\nEdma = "A"\nEdema = "A"')
    notes = read_dataset(folder, Reading(terms=str(terms))).notes
    assert f"names of {terms} that this set does not have: Edma" in notes
    with pytest.raises(InputError, match="terms must be nih, common or a TOML file"):
        read_dataset(folder, Reading(terms="commn"))


def test_sets_of_different_labels_need_terms(tmp_path):
    folders = [write_chexpert(tmp_path / "chexpert"), write_padchest(tmp_path / "padchest")]
    with pytest.raises(InputError, match="read both in terms of one label set, as terms=common"):
        read_datasets(folders)
    joined = read_datasets(folders, COMMON)
    assert joined.table["source"].unique().tolist() == ["chexpert", "padchest"]
    assert joined.table["image_id"].str.partition("/")[0].tolist() == joined.table["source"].tolist()
    assert set(joined.table["patient_id"].str.partition(":")[0]) == {"chexpert", "padchest"}
    assert joined.split_name.startswith("joined-")
    assert join_datasets([read_dataset(folder, COMMON) for folder in reversed(folders)]).split_name == joined.split_name
    with pytest.raises(InputError, match="every one of these data sets is read without readers"):
        read_datasets(folders, Reading(terms="common", readers="any"))
    unknown = read_datasets(folders, Reading(terms="common", blank="unknown"))  # a setting of one of them
    assert (unknown.table["Edema"] == NOT_KNOWN).sum() > (joined.table["Edema"] == NOT_KNOWN).sum()


def test_an_image_that_two_sets_have_is_kept_once_and_its_patient_on_one_side(tmp_path):
    first = write_release(tmp_path / "first", names(1, 2, 3, 4), lists=[f"{4:08d}_{k:03d}.png" for k in (0, 1)])
    second = write_release(tmp_path / "second", [*names(3, 5, 6)[1:], ("00000004_007.png", "Hernia")])
    dataset = read_datasets([first, second])
    table = dataset.table.set_index("image_id")
    assert table.loc["second/00000004_007.png", "split"] == TEST  # follows the lists of the first
    assert "second/00000003_001.png" not in table.index
    assert table.loc["first/00000003_001.png", "patient_id"] == "nih:3"
    notes = "\n".join(dataset.notes)
    assert "2 patients are in both first and second" in notes
    assert "1 image of second left out, as first has the same" in notes
    assert "differ in" not in notes
    assert table.groupby("patient_id")["split"].nunique().max() == 1


def test_labels_that_differ_for_the_same_image_are_counted(tmp_path):
    first = write_release(tmp_path / "first", names(1, 2, 3, 4))
    second = write_release(tmp_path / "second", [(image, "Hernia") for image, _ in names(3)] + names(4, 5))
    notes = read_datasets([first, second]).notes
    sentence = "4 images of second left out, as first has the same: the labels of first are kept, and those of second"
    assert f"{sentence} differ in 2 of them" in notes


def test_lists_that_contradict_each_other_are_refused_until_one_says_what_to_do(tmp_path):
    first = write_release(tmp_path / "first", names(1, 2, 3), lists=[name for name, _ in names(3)])
    rows = [(image.replace("_00", "_01"), labels) for image, labels in names(2, 3, 4)]
    second = write_release(tmp_path / "second", rows, lists=[image for image, _ in rows if image[7] == "2"])
    with pytest.raises(InputError, match=r"put 2 patients on two sides \(first: nih:2, in the training set of first "
                                         r"and the test set of second\)"):  # fmt: skip
        read_datasets([first, second])
    dropped = read_datasets([first, second], overlap="drop")
    tested = read_datasets([first, second], overlap="test")
    for dataset in (dropped, tested):
        sides = dataset.table.groupby("patient_id")["split"].agg(set).to_dict()
        assert sides == {"nih:1": {TRAIN_VAL}, "nih:2": {TEST}, "nih:3": {TEST}, "nih:4": {TRAIN_VAL}}
    assert len(dropped.table) == 8
    assert len(tested.table) == 12
    assert dropped.split_name != tested.split_name
    assert "4 training images of 2 patients left out" in "\n".join(dropped.notes)
    with pytest.raises(InputError, match="overlap must be drop or test"):
        read_datasets([first, second], overlap="keep")
    with pytest.raises(InputError, match="overlap is about several data sets"):
        read_datasets([first], overlap="drop")


def test_patients_of_a_joined_set_have_the_hashes_and_sides_of_the_set_alone(tmp_path):
    assert (hash_patients("joined", ["nih:7"], b"x" * 16, 2) == hash_patients("nih", ["007"], b"x" * 16, 2)).all()
    assert draw_shares("joined", ["nih:7"], 0, "fold") == draw_shares("nih", ["007"], 0, "fold")
    folders = [write_release(tmp_path / name, names(*patients)) for name, patients in
               (("first", range(1, 20)), ("second", range(30, 50)))]  # fmt: skip
    joined = read_datasets(folders).table.set_index("image_id")["split"]
    alone = read_dataset(folders[0]).table
    assert alone["split"].tolist() == joined["first/" + alone["image_id"]].tolist()


def test_equal_folder_names_get_the_folder_above(tmp_path):
    for name in ("a", "b"):
        write_release(tmp_path / name / "images-of", names(*((1, 2) if name == "a" else (3, 4, 5))))
    folders = [tmp_path / name / "images-of" for name in ("a", "b")]
    assert read_datasets(folders).table["source"].unique().tolist() == ["a-images-of", "b-images-of"]
    with pytest.raises(InputError, match="is given twice"):
        read_datasets([folders[0], folders[0]])


def test_joined_records_and_their_folds(tmp_path):
    from cxrkeras.records.folder import open_records
    from cxrkeras.records.verify import check_source
    from cxrkeras.records.write import write_records

    folders = [write_release(tmp_path / "first", names(*range(1, 30))), write_chexpert(tmp_path / "chexpert")]
    dataset = read_datasets(folders, Reading(terms="nih"))
    write_records(dataset, tmp_path / "records", size=32, num_folds=3, split_rule="grouped", max_skipped=0)
    records = open_records(tmp_path / "records")
    assert [source.namespace for source in records.manifest.sources] == ["nih", "chexpert"]
    assert [source.settings for source in records.manifest.sources][1] == {"terms": "nih", "blank": "absent"}
    counts = records.index[records.index["fold"] >= 0].groupby(["source", "fold"]).size().unstack()
    assert (counts.max(axis=1) - counts.min(axis=1) <= [4, 2]).all()  # two images of a patient, or one
    records.verify()
    sources = [source.model_dump() for source in records.manifest.sources]
    check_source(records, read_again(folders, sources, records.manifest.overlap))
    other = read_datasets(folders, Reading(terms="nih", blank="unknown"))
    with pytest.raises(InputError, match="sources, 2, settings, blank is 'absent' there and 'unknown' now"):
        write_records(other, tmp_path / "records", size=32, num_folds=3, split_rule="grouped")
    with pytest.raises(InputError, match="made of 2 data sets, first and chexpert in this order; got 1"):
        read_again(folders[:1], sources, None)
    ids = records.index["patient_id"].unique()
    salt, rounds = bytes.fromhex(records.manifest.patient_salt), records.manifest.patient_rounds
    stored = records.hash_patients([ids[0]], salt, rounds)
    namespace, _, patient = ids[0].partition(":")
    assert stored == hash_patients(namespace, [patient], salt, rounds)


def test_what_two_sets_share_is_printed_with_its_source():
    output = run_here("vocabulary", "chexpert", "vindr").stdout
    assert "Pleural Effusion" in output
    assert "the names in chexpert by: torchxrayvision 1.5.7, CheX_Dataset" in output
    assert "not in chexpert: Infiltration, Emphysema, Fibrosis" in output
    assert "no names of 'chex' in terms of common" in run_here("vocabulary", "chex", "vindr").stdout


def test_the_doctor_shows_sets_next_to_each_other(tmp_path):
    folders = [write_release(tmp_path / "first", names(*range(1, 9))), write_chexpert(tmp_path / "chexpert")]
    done = run_here("doctor", " ".join(map(str, folders)), "--terms", "common")
    assert done.returncode == 0, done.stdout
    output = done.stdout
    assert "next to each other" in output
    assert "view AP" in output
    gone = run_here("doctor", f"{folders[0]} {tmp_path / 'gone'}")
    assert gone.returncode == 1
    assert "no data folder" in gone.stdout


def test_pandas_agrees_on_prevalence_of_a_joined_set(tmp_path):
    folders = [write_release(tmp_path / "first", names(*range(1, 9))), write_padchest(tmp_path / "padchest")]
    joined = read_datasets(folders, Reading(terms="common", views="all"))
    alone = [read_dataset(folder, Reading(terms="common", views="all")).table for folder in folders]
    both = pd.concat(alone)
    for label in joined.labels:
        assert np.array_equal(np.sort(joined.table[label]), np.sort(both[label]))
    shutil.rmtree(folders[0] / "images")
    with pytest.raises(InputError, match="none of the 16 listed images is on disk"):
        read_datasets(folders, Reading(terms="common"))
