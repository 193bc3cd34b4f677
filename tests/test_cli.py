"""The command line from outside: exit codes, sentences, files."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest


def cxrkeras(*arguments, cwd):
    command = [sys.executable, "-m", "cxrkeras", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["records", "--data", "nowhere"], ["no data folder nowhere", "make phantom"]),
        (["records", "--name", "../x"], ["NAME", "'../x'"]),
        (["train"], ["MODEL=", "EXPERIMENT="]),
        (["train", "--model", "resnet18", "--set", "training.epoch=1"], ["did you mean epochs"]),
        (["train", "--model", "resnet18"], ["no records", "make records"]),
        (["train", "--model", "resnet50"], ["resnet_50_adam_steplr.toml here", "no records"]),
        (["cv"], ["MODEL=", "EXPERIMENT="]),
        (["cv", "--model", "resnet18"], ["no records"]),
        (["sweep"], ["EXPERIMENTS="]),
        (["sweep", "nope"], ["no experiment 'nope'"]),
        (["experiment"], ["EXPERIMENT="]),
        (["augmentation"], ["no records"]),
        (["gradcam"], ["IMG="]),
        (["gradcam", "x.png"], ["no finished run", "make demo"]),
        (["gradcam", "x.png", "--run", "nope"], ["no run 'nope'"]),
        (["report"], ["no finished run", "make demo"]),
        (["calibrate", "--run", "nope"], ["no run 'nope'"]),
        (["localise"], ["no finished run"]),
        (["compare"], ["RUNS="]),
        (["compare", "a", "b"], ["no run 'a'"]),
        (["ensemble"], ["RUNS="]),
        (["ensemble", "a"], ["no run 'a'"]),
        (["explore"], ["no records"]),
        (["score"], ["PREDICTIONS="]),
        (["score", "nope.csv"], ["no predictions file nope.csv"]),
        (["predict"], ["FILES="]),
        (["predict", "nope.png"], ["no file or folder nope.png"]),
        (["app"], ["no finished run"]),
        (["phantom", "--n", "5"], ["N of 50"]),
        (["tensorboard"], ["no run"]),
        (["phantom", "--n", "five"], ["--n"]),
        (["fly"], ["fly"]),
    ],
)
def test_what_a_person_can_mend_is_a_sentence_and_exit_code_2(tmp_path, arguments, words):
    done = cxrkeras(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stdout + done.stderr for word in words), done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_help_teaches(tmp_path):
    done = cxrkeras("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "goes on with an unfinished" in " ".join(done.stdout.split())


def test_the_whole_way_from_the_shell(phantom_folder, tmp_path):
    shutil.copytree(phantom_folder, tmp_path / "data" / "phantom")
    image = next((tmp_path / "data" / "phantom" / "images").iterdir())
    made = cxrkeras("records", "--data", "data/phantom", "--size", 32, cwd=tmp_path)
    assert "wrote 200 records of 32 px in records/phantom-32" in made.stdout
    settings = ["--model", "resnet18", "--weights", "none", "--set", "training.epochs=1"]
    trained = cxrkeras("train", *settings, cwd=tmp_path)
    assert trained.returncode == 0, trained.stdout
    assert "synthetic phantoms" in trained.stdout
    assert "mean of the findings" in trained.stdout
    explained = cxrkeras("gradcam", "nowhere.png", image, "--label", "all", cwd=tmp_path)
    assert explained.returncode == 0
    assert "skipped cannot open nowhere.png" in explained.stdout
    saved = list((tmp_path / "experiments" / "runs").glob("*/fold0/gradcam/*-all.png"))
    assert len(saved) == 1
    assert str(saved[0].relative_to(tmp_path)) in explained.stdout
    (tmp_path / "data" / "phantom" / "images" / "broken.png").write_bytes(b"no image")
    predicted = cxrkeras("predict", "data/phantom/images", "--csv", "all.csv", cwd=tmp_path)
    assert predicted.returncode == 0
    assert "skipped data/phantom/images/broken.png: not a PNG, JPEG or DICOM image" in predicted.stdout
    table = pd.read_csv(tmp_path / "all.csv").set_index("file")
    assert len(table) == 201
    assert table["prob_Mass"].notna().sum() == 200
    calibrated = cxrkeras("calibrate", "--sensitivity", "0.9", "--method", "isotonic", cwd=tmp_path)
    assert "sensitivity>=0.9 on calibrated probabilities (isotonic)" in " ".join(calibrated.stdout.split())
    explored = cxrkeras("explore", cwd=tmp_path)
    scored = cxrkeras(
        "score",
        next((tmp_path / "experiments" / "runs").glob("*/fold0/predictions_test.csv")),
        "--labels", "data/phantom/Data_Entry_2017_v2020.csv", "--out", "scored", cwd=tmp_path,
    )  # fmt: skip
    assert "no thresholds and no calibration" in scored.stdout
    for done, page in ((explored, "records/phantom-32/explore/explore.html"), (scored, "scored/report.html")):
        assert page in done.stdout
        assert (tmp_path / page).is_file()
