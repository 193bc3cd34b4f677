import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrkeras import labels
from cxrkeras.data.images import load_image
from cxrkeras.data.readers import read_dataset
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.phantoms.anatomy import Anatomy
from cxrkeras.phantoms.signs import draw_chest
from cxrkeras.phantoms.writing import AS_NIH, BALANCED, sample_findings, write_phantoms
from tests.support.notes import NotedProgress

DIFFUSE = {labels.EDEMA, labels.EMPHYSEMA, labels.FIBROSIS}


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in "ab":
        assert write_phantoms(tmp_path / name, num_images=50, size=64, seed=3)
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b")
    assert not write_phantoms(tmp_path / "a", num_images=50, size=64, seed=3)
    assert not sample_findings(50, "balanced", 3).equals(sample_findings(50, "balanced", 4))


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_phantoms(tmp_path, num_images=50, size=64)


def test_a_folder_with_other_phantoms_is_refused(phantom_folder):
    with pytest.raises(InputError, match="other settings"):
        write_phantoms(phantom_folder, num_images=60, size=64)


def test_an_interrupted_drawing_resumes(tmp_path):
    folder = tmp_path / "phantom"
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(folder, num_images=50, size=64, progress=NotedProgress(("drawing phantoms", 20)))
    assert write_phantoms(folder, num_images=50, size=64)
    write_phantoms(tmp_path / "whole", num_images=50, size=64)
    assert read_all(folder) == read_all(tmp_path / "whole")


def test_the_layout_is_that_of_the_release_marked_as_synthetic(phantom_folder, dataset):
    assert json.loads((phantom_folder / "phantom.json").read_text())["synthetic"]
    assert dataset.is_synthetic
    assert not dataset.notes
    assert dataset.split_name.startswith("custom-")
    assert len(dataset.table) == 200
    with Image.open(dataset.table["path"][0]) as image:
        assert (image.size, image.mode) == ((64, 64), "L")


@pytest.mark.parametrize(("prevalence", "shares"), [("balanced", BALANCED), ("nih", AS_NIH)])
def test_prevalence_is_exact_in_training_and_test_set(prevalence, shares):
    table = sample_findings(1200, prevalence, seed=0)
    for _, rows in table.groupby("is_test"):
        for label in NIH.findings:
            assert abs(rows[label].sum() - max(1, shares[label] * len(rows))) <= 0.5
    if prevalence == "balanced":
        assert min(table[list(NIH.findings)].mean()) >= 0.08
        assert table[table["is_test"]][list(NIH.findings)].sum().min() >= 20


def test_patients_have_several_images_in_one_set_and_findings_are_correlated():
    table = sample_findings(4000, "balanced", seed=0)
    assert table.groupby("patient_id")["is_test"].nunique().max() == 1
    assert 2 < len(table) / table["patient_id"].nunique() < 4
    assert table["is_test"].mean() == pytest.approx(0.2, abs=0.01)
    linked = table[labels.CARDIOMEGALY].astype(float).corr(table[labels.EDEMA].astype(float))
    unlinked = table[labels.CARDIOMEGALY].astype(float).corr(table[labels.FIBROSIS].astype(float))
    assert linked > 0.1 > abs(unlinked)
    pairs = table[table["follow_up"] < 2].pivot_table(index="patient_id", columns="follow_up", values=labels.MASS)
    pairs = pairs.dropna()
    assert pairs[0].astype(float).corr(pairs[1].astype(float)) > 0.1


def test_every_focal_finding_has_a_box_inside_the_image(dataset):
    boxes = dataset.boxes
    sides = boxes[["x", "y", "width", "height"]]
    assert sides.to_numpy().min() >= 0
    assert (boxes["x"] + boxes["width"]).max() <= 1
    assert (boxes["y"] + boxes["height"]).max() <= 1
    boxed = set(zip(boxes["image_id"], boxes["label"], strict=True))
    table = dataset.table.set_index("image_id")
    for label in NIH.findings:
        for image_id in table.index[table[label] == 1]:
            assert ((image_id, label) in boxed) == (label not in DIFFUSE)


@pytest.mark.parametrize("label", [label for label in NIH.findings if label not in DIFFUSE])
def test_a_focal_sign_changes_its_box_most(label):
    """Draw the same chest with and without the finding: the difference is in the box."""

    def draw(seed, findings):
        anatomy = Anatomy.draw(np.random.default_rng(seed), True)
        return draw_chest(128, np.random.default_rng(seed), anatomy, frozenset(findings), is_ap=False)

    inside, outside = [], []
    for seed in range(12):
        image, boxes = draw(seed, [label])
        images = image.astype(float), draw(seed, [])[0].astype(float)
        in_box = np.zeros((128, 128), bool)
        for _, x, y, width, height in boxes:
            rows, columns = np.array([y, y + height]) * 128, np.array([x, x + width]) * 128
            in_box[slice(*rows.round().astype(int)), slice(*columns.round().astype(int))] = True
        # Exposure and noise differ between the two; only contrast remains after standardisation.
        with_it, without = ((image - image.mean()) / image.std() for image in images)
        change = np.abs(with_it - without)
        inside.append(change[in_box].mean())
        outside.append(change[~in_box].mean())
    assert np.mean(inside) > np.mean(outside)


def test_findings_are_not_obvious_in_thumbnails(tmp_path):
    """A linear model on 16 x 16 pixels has a mean AUC of at most 0.75, or the phantoms would be too easy."""
    write_phantoms(tmp_path / "phantom", num_images=1200, size=64)
    table = read_dataset(tmp_path / "phantom").table
    pixels = np.stack([load_image(Path(path).read_bytes(), 16).ravel() for path in table["path"]]) / 255
    is_test = (table["split"] == "test").to_numpy()
    aucs = []
    for label in NIH.findings:
        truth = table[label].to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(pixels[~is_test], truth[~is_test])
        aucs.append(roc_auc_score(truth[is_test], model.decision_function(pixels[is_test])))
    assert np.mean(aucs) <= 0.75


def test_settings_out_of_range_are_refused(tmp_path):
    for settings in ({"num_images": 10}, {"size": 32}, {"prevalence": "rare"}):
        with pytest.raises(InputError):
            write_phantoms(tmp_path / "phantom", **settings)
    assert not (tmp_path / "phantom").exists()


def test_ages_and_views_are_read_back(dataset):
    assert dataset.table["age"].between(18, 110).all()
    assert set(dataset.table["view"]) == {"PA", "AP"}
