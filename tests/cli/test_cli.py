"""The command line from outside: exit codes, sentences, files."""

import shutil

import pandas as pd
import pytest

from tests.support.shell import run_cxrkeras, run_here


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["records", "--data", "nowhere"], ["no data folder nowhere", "cxrkeras phantom"]),
        (["records", "--name", "../x"], ["name", "'../x'"]),
        (["train"], ["MODEL=", "EXPERIMENT="]),
        (["train", "--model", "resnet18", "--set", "training.epoch=1"], ["did you mean epochs"]),
        (["train", "--model", "resnet18"], ["no records", "cxrkeras records"]),
        (["train", "--model", "resnet50"], ["recipe: ", "resnet_50_adam_steplr.toml", "no records"]),
        (["cv"], ["MODEL=", "EXPERIMENT="]),
        (["cv", "--model", "resnet18"], ["no records"]),
        (["sweep"], ["EXPERIMENTS="]),
        (["sweep", "nope"], ["no experiment 'nope'"]),
        (["experiment"], ["EXPERIMENT="]),
        (["augmentation"], ["no records"]),
        (["gradcam"], ["IMG="]),
        (["gradcam", "x.png"], ["no finished run", "cxrkeras demo"]),
        (["gradcam", "x.png", "--run", "nope"], ["no run 'nope'"]),
        (["report"], ["no finished run", "cxrkeras demo"]),
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
        (["app"], ["no finished run", "cxrkeras adopt"]),
        (["adopt"], ["--list", "NET="]),
        (["adopt", "xrv-nhi"], ["did you mean xrv-nih"]),
        (["adopt", "nowhere.cxr.zip"], ["no pack nowhere.cxr.zip"]),
        (["adopt", "xrv-nih", "--file", "nowhere.pt"], ["no file nowhere.pt", "--file"]),
        (["pack"], ["no finished run"]),
        (["publish"], ["owner/name", "REPO="]),
        (["records", "--like", "nope"], ["no run 'nope'"]),
        (["phantom", "--n", "5"], ["num_images must be at least 50"]),
        (["tensorboard"], ["no run"]),
        (["phantom", "--n", "five"], ["--n"]),
        (["fly"], ["fly"]),
    ],
)
def test_what_a_person_can_fix_is_a_sentence_and_exit_code_2(tmp_path, arguments, words):
    done = run_cxrkeras(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert all(word in done.stdout + done.stderr for word in words), done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_a_column_to_ignore_is_named_with_the_option(tmp_path):
    (tmp_path / "own.csv").write_text("image,patient,Mass,device\na.png,1,1,x\nb.png,2,0,x\n")
    done = run_cxrkeras("records", "--data", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert 'ignore="device" (the option --ignore; with make IGNORE=)' in " ".join(done.stdout.split())


def test_help_teaches(tmp_path):
    done = run_cxrkeras("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "resumes an unfinished" in " ".join(done.stdout.split())


def test_end_to_end_from_the_shell(phantom_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(phantom_folder, tmp_path / "data" / "phantom")
    image = next((tmp_path / "data" / "phantom" / "images").iterdir())
    made = run_here("records", "--data", "data/phantom", "--size", 32)
    assert "wrote 200 records of 32 px in records/phantom-32" in made.stdout
    settings = ["--model", "resnet18", "--weights", "none", "--set", "training.epochs=1"]
    trained = run_here("train", *settings)
    assert trained.returncode == 0, trained.stdout
    assert "synthetic phantoms" in trained.stdout
    assert "mean of the findings" in trained.stdout
    explained = run_here("gradcam", "nowhere.png", image, "--label", "all")
    assert explained.returncode == 1  # one of two
    assert "skipped cannot open nowhere.png" in explained.stdout
    saved = list((tmp_path / "experiments" / "runs").glob("*/fold0/gradcam/*-all.png"))
    assert len(saved) == 1
    assert str(saved[0].relative_to(tmp_path)) in explained.stdout
    (tmp_path / "data" / "phantom" / "images" / "broken.png").write_bytes(b"not an image")
    predicted = run_here("predict", "data/phantom/images", "--csv", "all.csv")
    assert predicted.returncode == 1
    assert "skipped data/phantom/images/broken.png: not a PNG, JPEG or DICOM image" in predicted.stdout
    assert (tmp_path / "all.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    table = pd.read_csv(tmp_path / "all.csv").set_index("file")
    assert len(table) == 201
    assert table["prob_Mass"].notna().sum() == 200
    odd = tmp_path / "odd"
    odd.mkdir()
    names = [b"\xff\xfe.png", b"a\x1b[2Jb.png", b"$x$ $\\frac{.png", b"y" * 251 + b".png"]
    for name in names:
        shutil.copy(image, bytes(odd) + b"/" + name)
    for command in ("predict", "gradcam"):
        done = run_here(command, "odd")
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert done.stdout.count(".png: ") == len(names)
    nothing = run_here("gradcam", "data/phantom/images/broken.png", "nowhere.png")
    assert nothing.returncode == 2
    assert "none of 2 files can be explained" in nothing.stdout
    calibrated = run_here("calibrate", "--sensitivity", "0.9", "--method", "isotonic")
    assert "sensitivity>=0.9 on calibrated probabilities (isotonic)" in " ".join(calibrated.stdout.split())
    explored = run_here("explore")
    scored = run_here(
        "score",
        next((tmp_path / "experiments" / "runs").glob("*/fold0/predictions_test.csv")),
        "--labels", "data/phantom/Data_Entry_2017_v2020.csv", "--out", "scored",
    )  # fmt: skip
    assert "no thresholds and no calibration" in scored.stdout
    for done, page in ((explored, "records/phantom-32/explore/explore.html"), (scored, "scored/report.html")):
        assert page in done.stdout
        assert (tmp_path / page).is_file()
