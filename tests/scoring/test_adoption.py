"""Public networks as runs: fetched, converted, opened, scored and calibrated."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cxrkeras.data.images import load_image
from cxrkeras.data.preparation import Preparation
from cxrkeras.data.readers import read_dataset
from cxrkeras.errors import InputError
from cxrkeras.models.compiled import load_network
from cxrkeras.models.past import read_past
from cxrkeras.predict.opened import open_predictor_run
from cxrkeras.records.folder import open_records
from cxrkeras.records.write import write_records
from cxrkeras.reports.card import write_adopted_card
from cxrkeras.reports.evaluation_page import evaluate_externally
from cxrkeras.scoring.adoption import DIGESTS, adopt_public
from cxrkeras.scoring.calibrate_adopted import NOT_FITTED, calibrate_on
from cxrkeras.scoring.calibration import UNCALIBRATED
from cxrkeras.scoring.external_validation import Choice, validate_run
from cxrkeras.scoring.find_runs import find_fold
from cxrkeras.scoring.ood_check import load_ood_check
from cxrkeras.scoring.ood_images import LEAST_IMAGES, fit_on_images
from cxrkeras.scoring.operating_points import refit
from cxrkeras.scoring.run import Fold, open_fold, open_run
from cxrkeras.scoring.run_files import ADOPTED, MODEL, MODEL_CARD, OOD_CHECK
from cxrkeras.scoring.run_list import describe_run, list_runs
from cxrkeras.training.resolve import resolve_experiment
from tests.support.public import NAME, known, serve_folder, tiny_row, write_tiny

ALLOWED = Choice(allow="unknown-patients")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_tiny(folder / "tiny.pt")
    return folder


@pytest.fixture(scope="module")
def adopted_once(source, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, known(patch, tiny=tiny_row()):
        return adopt_public(NAME, file=str(source / "tiny.pt"), root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def fold(adopted_once, tmp_path):
    """An adopted network in a folder of its own."""
    folder = tmp_path / "runs" / NAME / "fold0"
    shutil.copytree(adopted_once.fold.folder, folder)
    return Fold(folder)


@pytest.fixture(scope="module")
def like_records(phantom_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("like") / "phantom-like"
    write_records(read_dataset(phantom_folder), folder, size=32, preparation=tiny_row().preparation)
    return open_records(folder)


@pytest.fixture(scope="module")
def opened(adopted_once):
    """The network, compiled once."""
    run = open_predictor_run(adopted_once.fold.folder)
    assert run.predictor
    return run


@pytest.fixture(scope="module")
def validated(adopted_once, like_records):
    return validate_run(adopted_once.fold, like_records, ALLOWED)


def test_an_adopted_network_is_a_run(fold):
    assert fold.kind == ADOPTED
    assert fold.name == NAME
    assert list(fold.labels) == ["Mass", "Effusion"]
    assert fold.config.preparation == tiny_row().preparation
    assert fold.operating_points.calibration.method == UNCALIBRATED
    assert fold.operating_points.thresholds.values == {"Mass": 0.4, "Effusion": 0.3}
    assert not fold.past.is_known
    assert not read_past(fold.folder / MODEL).is_known
    (summary,) = list_runs(fold.folder.parents[1])
    assert (summary.name, summary.kind, summary.network, summary.problem) == (NAME, ADOPTED, "resnet18", "")
    facts = describe_run(open_run(fold.folder.parent))
    assert facts["licence"] == "MIT"
    assert "uncalibrated" in facts["thresholds"]


def test_what_is_left_out_of_the_file_is_named(adopted_once):
    assert adopted_once.notes == ["left out of the file: epoch"]


def test_predict_obeys_its_preparation(opened, adopted_once, tmp_path):
    network = load_network(adopted_once.fold.folder / MODEL, opened.labels)
    for shape in ((50, 80, 3), (64, 64)):
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        seen = load_image((tmp_path / "a.png").read_bytes(), 32, tiny_row().preparation)
        logits = network(seen[None, ..., None].astype(np.float32)).numpy()[0]
        answer = opened.predict(tmp_path / "a.png")
        np.testing.assert_allclose(list(answer.probs.values()), 1 / (1 + np.exp(-logits)), atol=1e-5)
        heats = opened.explain(tmp_path / "a.png").values()
        assert {heat.shape for heat in heats} == {shape[:2]}
        if len(shape) == 3:  # what is cropped has no evidence
            assert not any(heat[:, :15].any() or heat[:, 65:].any() for heat in heats)
    assert opened.predictor.facts.is_checked is False


def test_a_file_is_fetched_checked_and_remembered(source, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "served").mkdir()
    shutil.copy(source / "tiny.pt", tmp_path / "served")
    with serve_folder(tmp_path / "served") as address, known(monkeypatch, tiny=tiny_row(address=f"{address}/tiny.pt")):
        found = adopt_public(NAME, root=tmp_path / "a")
        kept = json.loads((tmp_path / "keras" / "models" / DIGESTS).read_text())
        assert any(kept[NAME] in note for note in found.notes)
        assert found.fold.config.adopted.source == f"{address}/tiny.pt"
        assert found.fold.config.adopted.sha256 == kept[NAME]
        assert not adopt_public(NAME, root=tmp_path / "a").is_new
        (tmp_path / "keras" / "models" / "tiny.pt").unlink()
        write_tiny(tmp_path / "served" / "tiny.pt")  # other weights
        with pytest.raises(InputError, match=f"expected {kept[NAME]}"):
            adopt_public(NAME, root=tmp_path / "b")
        with pytest.raises(InputError, match="has the SHA-256 sum"):
            adopt_public(NAME, root=tmp_path / "b", sha256="0" * 64)
        with pytest.raises(InputError, match="64 hexadecimal digits"):
            adopt_public(NAME, root=tmp_path / "b", sha256="12")
    assert not (tmp_path / "b").exists()


def test_without_a_connection_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with (
        known(monkeypatch, tiny=tiny_row()),
        pytest.raises(InputError, match="from its page, and name the file with --file"),
    ):
        adopt_public(NAME, root=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_network_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    from tests.support.public import draw_state
    from tests.support.torch_files import save_state

    state = draw_state(tiny_row())
    save_state(tmp_path / "a.pt", state | {"bn1.weight": np.full(64, np.nan)}, epoch=1)
    with known(monkeypatch, tiny=tiny_row()), pytest.raises(InputError, match="outputs are not finite"):
        adopt_public(NAME, file=str(tmp_path / "a.pt"), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_scores_need_permission_and_the_right_records(fold, like_records, records):
    with pytest.raises(InputError, match=r"not known whom tiny was trained on \(a split that was not saved"):
        validate_run(fold, like_records, Choice())
    with pytest.raises(InputError, match="requires crop=centre: `cxrkeras records --like tiny`"):
        validate_run(fold, open_records(records), ALLOWED)
    written = evaluate_externally(fold, like_records, ALLOWED, replicates=20)
    page = written.path.read_text()
    assert "What the run promised" not in page
    assert "Nothing is calibrated" in page


def test_predict_and_evaluate_agree_on_a_file(opened, validated, phantom_folder):
    predictions = validated.predictions
    assert list(predictions.labels) == ["Mass", "Effusion"]
    probs = opened.predict(phantom_folder / "images" / str(predictions.image_ids[0])).probs
    np.testing.assert_allclose(list(probs.values()), 1 / (1 + np.exp(-predictions.logits[0])), atol=1e-5)


def test_calibration_uses_all_but_the_test_set_whose_patients_alone_are_scored_then(fold, like_records):
    with pytest.raises(InputError, match="without validation images: name records"):
        refit(fold)
    points, notes = calibrate_on(fold, like_records)
    split = like_records.index["split"]
    assert points.calibration.fitted_on.images == (split == "train_val").sum()
    assert points.calibration.method == "platt"
    assert any("test set were left out" in note for note in notes)
    again = Fold(fold.folder)
    assert again.operating_points.calibration.curves == points.calibration.curves
    with pytest.raises(InputError, match="was calibrated on images of"):
        validate_run(again, like_records, Choice(split="train_val", allow="unknown-patients"))
    assert len(validate_run(again, like_records, Choice(split="test", allow="unknown-patients")).predictions)
    write_adopted_card(again)
    assert "platt, on the recalibration set" in (fold.folder / MODEL_CARD).read_text()


def test_labels_that_the_records_lack_keep_what_they_have(fold, phantom_folder, tmp_path):
    table = read_dataset(phantom_folder).table.head(60)
    (tmp_path / "own" / "images").mkdir(parents=True)
    for path in table["path"]:
        shutil.copy(path, tmp_path / "own" / "images")
    own = table[["image_id", "patient_id", "Mass"]]
    own.columns = ["image", "patient", "Mass"]
    own.to_csv(tmp_path / "own" / "labels.csv", index=False)
    write_records(read_dataset(tmp_path / "own"), tmp_path / "records", size=32, preparation=tiny_row().preparation)
    points, _ = calibrate_on(fold, open_records(tmp_path / "records"))
    assert points.calibration.curves["Effusion"].note == NOT_FITTED
    assert points.thresholds.values["Effusion"] == 0.3
    assert points.calibration.curves["Mass"].note != NOT_FITTED


def test_a_run_that_was_trained_here_is_not_calibrated_on_records(trained, like_records):
    with pytest.raises(InputError, match="was trained here"):
        calibrate_on(trained, like_records)


def test_what_needs_a_training_says_so(fold):
    for what in ("metrics", "predictions"):
        with pytest.raises(InputError, match="an adopted network does not have one; choose a trained run"):
            getattr(fold, what)


def test_the_check_of_inputs_is_fitted_on_a_folder(fold, phantom_folder, tmp_path):
    said = fit_on_images(fold, phantom_folder)
    assert "fitted on 200 images" in said
    assert "skipped that cannot be read" in said
    check = load_ood_check(fold.folder / OOD_CHECK)
    images = np.zeros((1, 32, 32, 1), np.uint8)
    assert check.judge(images, np.zeros((1, len(check.features.mean)))) == [["it is blank"]]
    (tmp_path / "few").mkdir()
    for path in sorted((phantom_folder / "images").iterdir())[: LEAST_IMAGES - 1]:
        shutil.copy(path, tmp_path / "few")
    with pytest.raises(InputError, match=f"has {LEAST_IMAGES - 1} readable images"):
        fit_on_images(fold, tmp_path / "few")
    assert (fold.folder / OOD_CHECK).is_file()


def test_without_a_name_a_trained_run_comes_first(fold, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "runs").rename(tmp_path / "experiments" / "runs")
    assert find_fold(None, with_network=True).parent.name == NAME
    assert open_fold(NAME).kind == ADOPTED
    shutil.copytree(trained.folder, tmp_path / "experiments" / "runs" / "own" / "fold0")
    assert find_fold(None).parent.name == "own"


def test_messages_name_adopt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="`cxrkeras adopt` brings a public network"):
        open_fold()
    with pytest.raises(InputError, match="`cxrkeras adopt xrv-all` brings it"):
        open_fold("xrv-all")


def test_training_starts_from_it_by_name(fold, small_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "runs").rename(tmp_path / "experiments" / "runs")

    def resolve(weights):
        model = small_experiment.model.model_copy(update={"weights": weights})
        return resolve_experiment(small_experiment.model_copy(update={"model": model})).experiment.model.weights

    assert resolve(NAME) == f"experiments/runs/{NAME}/fold0/{MODEL}"
    with pytest.raises(InputError, match="`cxrkeras adopt xrv-all` brings it"):
        resolve("xrv-all")
    with pytest.raises(InputError, match="or the name of a run or an adopted network"):
        resolve("nonsense")


def test_records_like_it_have_no_boxes_and_another_fingerprint_of_settings(like_records):
    assert like_records.manifest.preparation == Preparation(crop="centre", grey="mean", window="off", resize="linear")
    assert not len(like_records.boxes)
