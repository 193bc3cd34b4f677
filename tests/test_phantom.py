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
from cxrkeras.data.release import read_release
from cxrkeras.errors import InputError
from cxrkeras.phantoms.anatomy import Anatomy
from cxrkeras.phantoms.signs import draw_chest
from cxrkeras.phantoms.writing import BALANCED, NIH, sample_findings, write_phantoms

DIFFUSE = {labels.EDEMA, labels.EMPHYSEMA, labels.FIBROSIS}


def all_bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in "ab":
        assert write_phantoms(tmp_path / name, num_images=50, size=64, seed=3)
    assert all_bytes(tmp_path / "a") == all_bytes(tmp_path / "b")
    assert not write_phantoms(tmp_path / "a", num_images=50, size=64, seed=3)
    assert not sample_findings(50, "balanced", 3).equals(sample_findings(50, "balanced", 4))


def test_a_folder_with_anything_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_phantoms(tmp_path, num_images=50, size=64)


def test_a_folder_with_other_phantoms_is_refused(phantom_folder):
    with pytest.raises(InputError, match="other settings"):
        write_phantoms(phantom_folder, num_images=60, size=64)


def test_an_interrupted_drawing_goes_on(tmp_path):
    folder = tmp_path / "phantom"

    def stop(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(folder, num_images=50, size=64, progress=stop)
    assert write_phantoms(folder, num_images=50, size=64)
    write_phantoms(tmp_path / "whole", num_images=50, size=64)
    assert all_bytes(folder) == all_bytes(tmp_path / "whole")


def test_layout_is_the_release_and_says_synthetic(phantom_folder, release):
    assert json.loads((phantom_folder / "phantom.json").read_text())["synthetic"]
    assert release.is_synthetic
    assert not release.notes
    assert release.split_name.startswith("custom-")
    assert len(release.table) == 200
    with Image.open(release.table["path"][0]) as image:
        assert (image.size, image.mode) == ((64, 64), "L")


@pytest.mark.parametrize(("prevalence", "shares"), [("balanced", BALANCED), ("nih", NIH)])
def test_prevalence_is_exact_in_both_parts(prevalence, shares):
    table = sample_findings(1200, prevalence, seed=0)
    for _, part in table.groupby("is_test"):
        for label in labels.FINDINGS:
            assert abs(part[label].sum() - max(1, shares[label] * len(part))) <= 0.5
    if prevalence == "balanced":
        assert min(table[list(labels.FINDINGS)].mean()) >= 0.08
        assert table[table["is_test"]][list(labels.FINDINGS)].sum().min() >= 20


def test_patients_have_several_films_in_one_part_and_findings_come_together():
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


def test_every_focal_finding_has_its_box_inside_the_image(release):
    boxes = release.boxes
    sides = boxes[["x", "y", "width", "height"]]
    assert sides.to_numpy().min() >= 0
    assert (boxes["x"] + boxes["width"]).max() <= 1
    assert (boxes["y"] + boxes["height"]).max() <= 1
    boxed = set(zip(boxes["image_id"], boxes["label"], strict=True))
    table = release.table.set_index("image_id")
    for label in labels.FINDINGS:
        for image_id in table.index[table[label] == 1]:
            assert ((image_id, label) in boxed) == (label not in DIFFUSE)


@pytest.mark.parametrize("label", [label for label in labels.FINDINGS if label not in DIFFUSE])
def test_a_focal_sign_changes_its_box_most(label):
    """Draw the same chest with and without the finding: the difference lies in the box."""

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
        # Exposure and noise differ between the two; contrast is what is left after matching both.
        with_it, without = ((image - image.mean()) / image.std() for image in images)
        change = np.abs(with_it - without)
        inside.append(change[in_box].mean())
        outside.append(change[~in_box].mean())
    assert np.mean(inside) > np.mean(outside)


def test_thumbnails_do_not_give_the_findings_away(tmp_path):
    """A linear model on 16 x 16 pixels stays at or under 0.75, or the phantoms would be cartoons."""
    write_phantoms(tmp_path / "phantom", num_images=1200, size=64)
    table = read_release(tmp_path / "phantom").table
    pixels = np.stack([load_image(Path(path).read_bytes(), 16).ravel() for path in table["path"]]) / 255
    is_test = (table["split"] == "test").to_numpy()
    aucs = []
    for label in labels.FINDINGS:
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


def test_ages_and_views_are_read_back(release):
    assert release.table["age"].between(18, 110).all()
    assert set(release.table["view"]) == {"PA", "AP"}
