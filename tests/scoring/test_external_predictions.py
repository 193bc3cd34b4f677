"""External predictions: files in any form are read, and inconsistencies named precisely."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from cxrkeras.data.readers import read_labels
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.reports.external_report import score_file
from cxrkeras.scoring.evaluation import MEAN, evaluate
from cxrkeras.scoring.external_predictions import read_external

NUM = 300


@pytest.fixture
def labels_file(tmp_path):
    """A label file of the release with 60 patients, of whom the last third is the test set."""
    rng = np.random.default_rng(0)
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,a[b,c],d[e,f]"]
    ids = []
    for number in range(NUM):
        findings = (rng.random(14) < 0.2).astype(int)
        text = NIH.encode([*findings, int(not findings.any())])
        ids.append(f"{number // 5:08d}_{number % 5:03d}.png")
        sex, view = rng.choice(["F", "M"]), rng.choice(["PA", "AP"])
        lines.append(f"{ids[-1]},{text},0,{number // 5},{rng.integers(20, 90)},{sex},{view},1,2,3,4")
    path = tmp_path / "Data_Entry_2017_v2020.csv"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "train_val_list.txt").write_text("\n".join(ids[:200]) + "\n")
    (tmp_path / "test_list.txt").write_text("\n".join(ids[200:]) + "\n")
    return path


def make_scores(labels_file, rows=slice(200, None)):
    table = read_labels(labels_file).table.iloc[rows]
    rng = np.random.default_rng(1)
    truth = table[list(NIH.names)].to_numpy()
    return table["image_id"].to_list(), truth, rng.normal(-1, 1, truth.shape) + 1.5 * truth


def write(path, images, scores, name="prob_{}", names=NIH.names, image="image"):
    table = pd.DataFrame({name.format(label): scores[:, NIH.index(label)] for label in names})
    table.insert(0, image, images)
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["prob_{}", "{}", "{}_pred", "logit_{}", "Prob {}", "{}_LOGIT", "p_{}"])
@pytest.mark.parametrize("image", ["image", "Image Index", "filename"])
def test_any_spelling_and_order_gives_the_same_scores(labels_file, tmp_path, name, image):
    images, truth, logits = make_scores(labels_file)
    scores = logits if "logit" in name.lower() else expit(logits)
    order = np.random.default_rng(2).permutation(len(images))
    names = list(NIH.names)[::-1]
    spelled = [label.replace("_", " ").lower() if name.startswith("Prob") else label for label in names]
    table = pd.DataFrame({name.format(s): scores[order, NIH.index(n)] for s, n in zip(spelled, names, strict=True)})
    table[image] = [f"some/folder/{images[k]}" for k in order]
    table.to_csv(tmp_path / "theirs.csv", index=False)
    read = read_external(tmp_path / "theirs.csv", labels_file)
    assert read.predictions.labels == NIH
    assert read.predictions.image_ids.tolist() == [images[k] for k in order]
    np.testing.assert_allclose(read.predictions.logits, logits[order], rtol=1e-6)
    np.testing.assert_array_equal(read.predictions.truth, truth[order])
    assert read.set_name == "test"
    assert read.kind == ("logits" if "logit" in name.lower() else "probabilities")


def test_the_logits_of_our_own_files_are_read(labels_file, tmp_path):
    images, truth, logits = make_scores(labels_file)
    table = pd.DataFrame({"image_id": images, "patient_id": "x"})
    for k, label in enumerate(NIH.names):
        table[label], table[f"logit_{label}"] = truth[:, k], logits[:, k]
    table.to_csv(tmp_path / "own.csv", index=False)
    read = read_external(tmp_path / "own.csv", labels_file)
    np.testing.assert_allclose(read.predictions.logits, logits)
    assert read.predictions.num_patients == 20


def test_a_report_with_intervals_and_thresholds_from_validation(labels_file, tmp_path):
    images, truth, logits = make_scores(labels_file)
    path = write(tmp_path / "theirs.csv", images, expit(3 * logits))
    earlier, _, before = make_scores(labels_file, slice(0, 200))
    validation = write(tmp_path / "validation.csv", earlier, expit(3 * before))
    scored = score_file(path, labels_file, validation, tmp_path / "out", replicates=30)
    page, evaluation, notes = scored.path, scored.evaluation, scored.notes
    assert notes == []
    for k, label in enumerate(NIH.names):
        assert evaluation.scores.loc[label, "auc"] == pytest.approx(roc_auc_score(truth[:, k], logits[:, k]))
    table = pd.read_csv(page.parent / "scores.csv").set_index("label")
    assert table["error_after"].mean() < 0.75 * table["error_before"].mean()
    assert table.loc["Mass", "threshold"] > 0
    assert (table["part"] == "test").all()
    assert {"roc.png", "confusion.png", "reliability.png", "groups.png"} <= {p.name for p in page.parent.iterdir()}
    scored = score_file(path, labels_file, None, tmp_path / "alone", replicates=30)
    without, evaluation, notes = scored.path, scored.evaluation, scored.notes
    assert "no thresholds and no calibration" in notes[0]
    assert "threshold" not in evaluation.scores
    assert not (without.parent / "confusion.png").exists()


def test_a_subset_of_labels_and_images_is_scored_and_noted(labels_file, tmp_path):
    images, _, logits = make_scores(labels_file)
    path = write(tmp_path / "theirs.csv", images[:80], expit(logits[:80]), names=("Mass", "Effusion"))
    scored = score_file(path, labels_file, None, tmp_path / "out", replicates=20)
    page, evaluation, notes = scored.path, scored.evaluation, scored.notes
    assert list(evaluation.scores.index) == ["Effusion", "Mass", "mean of findings"]
    assert any("80 of the 100 images of the test list" in note for note in notes)
    assert any("no column for Atelectasis" in note for note in notes)
    assert "80 images of" in page.read_text()


def test_a_mixture_of_sets_is_noted(labels_file, tmp_path):
    images, _, logits = make_scores(labels_file, slice(150, 250))
    read = read_external(write(tmp_path / "theirs.csv", images, expit(logits)), labels_file)
    assert read.set_name == "mixed"
    assert "50 images are of the train_val list and 50 of the test list" in read.notes[0]


def spoil(change, column="prob_Mass"):
    def write_spoiled(path, images, logits):
        table = pd.read_csv(write(path, images, expit(logits)))
        change(table)
        table.to_csv(path, index=False)

    return write_spoiled


def rename(table, old, new):
    table.columns = [new if name == old else name for name in table.columns]


WRONG = {
    "logits as probabilities": (
        lambda p, i, z: write(p, i, z),
        r"prob_Atelectasis is named as a probability and holds -.* call it logit_Atelectasis",
    ),
    "probabilities as logits": (
        lambda p, i, z: write(p, i, expit(z), "logit_{}"),
        r"named as logits and all values lie within 0 to 1",
    ),
    "decisions": (lambda p, i, z: write(p, i, (z > 0).astype(int)), r"holds 0 and 1 only"),
    "one logit among bare probabilities": (
        lambda p, i, z: write(p, i, np.where(np.arange(15) == 4, z, expit(z)), "{}"),
        r"mixes scales: Effusion has values outside 0 to 1 and Atelectasis has none",
    ),
    "logits and probabilities by name": (
        spoil(lambda t: rename(t, "prob_Mass", "logit_Mass")),
        r"mixes logits and probabilities",
    ),
    "unknown images": (
        spoil(lambda t: t.__setitem__("image", ["unknown.png", "other.png", *t["image"][2:]])),
        r"2 of 100 images that Data_Entry_2017_v2020\.csv does not list \(first: unknown\.png\)",
    ),
    "per cent": (lambda p, i, z: write(p, i, 100 * expit(z), "{}"), r"none below 0: if these are per cent, divide"),
    "two columns of the same name": (
        lambda p, i, z: p.write_text("image,Mass,Mass\n" + "".join(f"{image},0.3,0.1\n" for image in i)),
        r"has the column Mass 2 times",
    ),
    "an image twice": (
        spoil(lambda t: t.__setitem__("image", [t["image"][1], *t["image"][1:]])),
        r"1 image more than once \(first: .*, line 3\)",
    ),
    "no image": (spoil(lambda t: t.__setitem__("image", ["", *t["image"][1:]])), r"line 2: no image"),
    "a missing score": (
        spoil(lambda t: t.__setitem__("prob_Mass", [np.nan, *t["prob_Mass"][1:]])),
        r"prob_Mass holds '' in line 2",
    ),
    "text as scores": (
        spoil(lambda t: t.__setitem__("prob_Mass", "high")),
        r"prob_Mass holds 'high' in line 2 and no number in 99 more",
    ),
    "another label": (
        spoil(lambda t: rename(t, "prob_Mass", "prob_Lump")),
        r"prob_Lump names none of the labels: Atelectasis",
    ),
    "a label twice": (
        spoil(lambda t: t.__setitem__("Mass_pred", t["prob_Mass"])),
        r"two columns for Mass: prob_Mass and Mass_pred",
    ),
    "one column without a prefix": (
        spoil(lambda t: rename(t, "prob_Mass", "Mass")),
        r"names some columns as scores \(prob_Atelectasis\) and others not \(Mass\)",
    ),
    "no column of images": (spoil(lambda t: rename(t, "image", "who")), r"no column of images: call it image"),
    "no label": (lambda p, i, z: pd.DataFrame({"image": i, "x": 1}).to_csv(p, index=False), r"no column of a label"),
    "no rows": (lambda p, i, z: write(p, [], np.zeros((0, 15))), r"has no rows"),
    "nothing": (lambda p, i, z: p.write_text(""), r"has no rows"),
    "no file": (lambda p, i, z: None, r"no predictions file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_inconsistent_files_are_refused_precisely(labels_file, tmp_path, case):
    make, words = WRONG[case]
    images, _, logits = make_scores(labels_file)
    make(tmp_path / "theirs.csv", images, logits)
    with pytest.raises(InputError, match=words):
        read_external(tmp_path / "theirs.csv", labels_file)


def test_thresholds_come_from_other_patients_on_the_same_scale(labels_file, tmp_path):
    images, _, logits = make_scores(labels_file)
    path = write(tmp_path / "theirs.csv", images, expit(logits))
    with pytest.raises(InputError, match=r"20 patients are in .* and in the predictions too"):
        score_file(path, labels_file, path, tmp_path / "out")
    earlier, _, before = make_scores(labels_file, slice(0, 200))
    with pytest.raises(InputError, match="holds logits and the predictions hold probabilities"):
        score_file(path, labels_file, write(tmp_path / "v.csv", earlier, before, "logit_{}"), tmp_path / "out")
    fewer = write(tmp_path / "w.csv", earlier, expit(before), names=("Mass",))
    with pytest.raises(InputError, match="other labels"):
        score_file(path, labels_file, fewer, tmp_path / "out")


def test_rows_without_a_patient_are_left_out_and_counted(labels_file, tmp_path):
    lines = labels_file.read_text().splitlines()
    cells = lines[-1].split(",")
    lines[-1] = ",".join([*cells[:3], "", *cells[4:]])
    labels_file.write_text("\n".join(lines) + "\n")
    images, _, logits = make_scores(labels_file)
    images.append(cells[0])
    path = write(tmp_path / "theirs.csv", images, expit(np.vstack([logits, logits[:1]])))
    read = read_external(path, labels_file)
    assert len(read.predictions.truth) == 99
    assert any("no patient" in note for note in read.notes)
    assert any("1 image is left out" in note for note in read.notes)


def test_one_unknown_image_in_a_hundred_is_left_out_and_named(labels_file, tmp_path):
    images, _, logits = make_scores(labels_file)
    path = write(tmp_path / "theirs.csv", ["unknown.png", *images[1:]], expit(logits))
    read = read_external(path, labels_file)
    assert read.predictions.image_ids.tolist() == images[1:]
    assert any("1 image is left out" in note and "unknown.png" in note for note in read.notes)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "Image Index\nx.png\n"])
def test_invalid_label_files_are_named(labels_file, tmp_path, content):
    images, _, logits = make_scores(labels_file)
    path = write(tmp_path / "theirs.csv", images, expit(logits))
    labels_file.write_text(content)
    with pytest.raises(InputError, match="Data_Entry_2017_v2020"):
        read_external(path, labels_file)
    with pytest.raises(InputError, match="no label file"):
        read_external(path, tmp_path / "gone.csv")


def test_files_with_semicolons_blank_lines_and_other_encodings_are_read(labels_file, tmp_path):
    images, _, logits = make_scores(labels_file)
    path = write(tmp_path / "a.csv", images, expit(logits))
    expected = read_external(path, labels_file).predictions
    text = path.read_text().replace(",", ";").replace("\n", "\n\n")
    (tmp_path / "b.csv").write_text(text, "utf-16")
    found = read_external(tmp_path / "b.csv", labels_file).predictions
    assert np.array_equal(found.logits, expected.logits)
    lines = text.split("\n")
    lines[4] = ";".join([images[1], "much", *lines[4].split(";")[2:]])
    (tmp_path / "b.csv").write_text("\n".join(lines), "utf-16")
    with pytest.raises(InputError, match="holds 'much' in line 5"):
        read_external(tmp_path / "b.csv", labels_file)


def judge(labels_file, tmp_path, change):
    images, truth, logits = make_scores(labels_file)
    scores = expit(logits)
    change(scores, truth)
    return read_external(write(tmp_path / "theirs.csv", images, scores, "{}"), labels_file)


def test_a_column_that_holds_the_truth_is_refused_by_name(labels_file, tmp_path):
    def copy(scores, truth):
        scores[:, 7] = truth[:, 7]

    with pytest.raises(InputError, match="the column Hernia is the truth of Hernia in 100 images"):
        judge(labels_file, tmp_path, copy)


@pytest.mark.parametrize("values", [(0.01, 0.99), (1, 0)])
def test_a_column_that_encodes_the_truth_is_refused_by_name(labels_file, tmp_path, values):
    def recode(scores, truth):
        scores[:, 7] = np.where(truth[:, 7] > 0, values[1], values[0])

    with pytest.raises(InputError, match="the column Hernia is the truth of Hernia in 100 images"):
        judge(labels_file, tmp_path, recode)


def test_scores_that_separate_all_positives_are_noted(labels_file, tmp_path):
    def blur(scores, truth):
        scores[:, 7] = 0.01 * scores[:, 7] + 0.9 * truth[:, 7]

    found = judge(labels_file, tmp_path, blur)
    assert any(note.startswith("Hernia separates all") for note in found.notes)
    assert sum("separates all" in note for note in found.notes) == 1
    assert found.predictions.left_out == ()


def test_constant_and_two_valued_columns_are_noted_and_left_out_of_the_mean(labels_file, tmp_path):
    def spoil_two(scores, truth):
        scores[:, 3] = 0.25
        scores[:, 4] = np.where(scores[:, 4] > 0.5, 0.9, 0.1)

    found = judge(labels_file, tmp_path, spoil_two)
    assert found.predictions.left_out == ("Edema", "Effusion")
    assert "Edema has the same value, 0.25, for all images; Edema is left out of the mean" in found.notes
    assert any("Effusion has two values, 0.1 and 0.9: decisions rather than scores" in note for note in found.notes)
    evaluation = evaluate(found.predictions, replicates=20)
    kept = [label for label in NIH.names[:14] if label not in found.predictions.left_out]
    assert evaluation.scores.loc[MEAN, "auc"] == pytest.approx(evaluation.scores.loc[kept, "auc"].mean())
    assert evaluation.scores.loc[MEAN, "note"] == "12 of 14"
    assert evaluation.scores.loc["Edema", "note"].startswith("left out of the mean")


def test_probabilities_outside_0_to_1_by_rounding_are_clipped(labels_file, tmp_path):
    def miss(scores, truth):
        scores[0, 0], scores[1, 0] = -1e-9, 1 + 1e-9

    found = judge(labels_file, tmp_path, miss)
    assert found.kind == "probabilities"
    assert "2 probabilities lie outside 0 to 1 by up to 1e-06 and are taken as 0 or 1" in found.notes
    with pytest.raises(InputError, match="mixes scales"):
        judge(labels_file, tmp_path, lambda scores, truth: scores.__setitem__((0, 0), -0.01))


def test_external_scores_are_never_judged_as_collapsed(labels_file, tmp_path):
    def flatten(scores, truth):
        scores[:, 0] = 0.5 + 1e-8 * np.arange(len(scores))

    assert judge(labels_file, tmp_path, flatten).predictions.collapsed == ()


def test_predictions_of_a_data_set_of_ones_own_in_folders(tmp_path):
    rng = np.random.default_rng(0)
    images = [f"{folder}/{k}.png" for folder in "ab" for k in range(40)] + [f"c/only{k}.png" for k in range(20)]
    truth = (rng.random((100, 2)) < 0.4).astype(int)
    own = pd.DataFrame(truth, columns=["TB", "clear"])
    own.loc[truth[:, 0] == 1, "clear"] = 0
    own["TB"] = own["TB"].astype(object)
    own.loc[:9, "TB"] = ""
    own.loc[10:19, "TB"] = -1
    own.insert(0, "image", images)
    own["patient"], own["device of use"] = range(100), "x"
    own.to_csv(tmp_path / "own.csv", index=False)
    scores = rng.random((100, 2))
    theirs = pd.DataFrame(scores, columns=["tb_pred", "clear_pred"])
    theirs.insert(0, "file", [*images[:80], *[f"only{k}.png" for k in range(20)]])
    theirs.to_csv(tmp_path / "theirs.csv", index=False)
    with pytest.raises(InputError, match="device of use"):
        read_external(tmp_path / "theirs.csv", tmp_path / "own.csv")
    options = {"ignore": ["device_of_use"], "normal": "clear"}
    read = read_external(tmp_path / "theirs.csv", tmp_path / "own.csv", **options).predictions
    assert read.image_ids.tolist() == images
    assert (read.labels.names, read.labels.no_finding) == (("TB", "clear"), "clear")
    scored = score_file(tmp_path / "theirs.csv", tmp_path / "own.csv", None, tmp_path / "out", replicates=10, **options)
    is_known = np.arange(100) >= 20
    expected = roc_auc_score(own["TB"][is_known].astype(int), scores[is_known, 0])
    assert scored.evaluation.scores.loc["TB", "auc"] == pytest.approx(expected)
    assert scored.evaluation.scores.loc["TB", "known"] == 80
    theirs["file"] = theirs["file"].str.rpartition("/")[2]
    theirs.to_csv(tmp_path / "theirs.csv", index=False)
    with pytest.raises(InputError, match=r"0\.png may be a/0\.png or b/0\.png: name it with its folder"):
        read_external(tmp_path / "theirs.csv", tmp_path / "own.csv", **options)
