"""Every command that trains or looks at runs, successfully and on one small project."""

import csv
import shutil
from pathlib import Path

import pytest

from cxrkeras.cli import demo
from tests.support.shell import run_here

RUNS = Path("experiments/runs")
PLAIN = ["--model", "resnet18", "--weights", "none", "--set", "training.epochs=1 optimiser.learning_rate=1e-3"]


@pytest.fixture(scope="module")
def project(phantom_folder, tmp_path_factory):
    """A folder with data, records of two folds, and a run of both folds."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(phantom_folder, folder / "data" / "phantom")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        succeed("records", "--data", "data/phantom", "--size", 32, "--folds", 2)
        for fold in range(2):
            succeed("train", *PLAIN, "--fold", fold)
    return folder


@pytest.fixture
def run(project, monkeypatch):
    """The name of the run; its project is the working folder."""
    monkeypatch.chdir(project)
    (folder,) = RUNS.glob("resnet18-*")
    return folder.name


def succeed(*arguments):
    """What a command prints, joined to one line; its exit code is 0."""
    done = run_here(*arguments)
    assert done.returncode == 0, done.stdout
    return " ".join(done.stdout.split())


def read_rows(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_phantom_and_doctor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    succeed("phantom", "--n", 60, "--size", 64, "--data", "drawn")
    assert len(list(Path("drawn/images").iterdir())) == 60
    assert "no patient is in both splits" in succeed("doctor", "drawn")


def test_verify(run):
    assert "200 records" in succeed("verify")
    assert "data/phantom" in succeed("verify", "--data", "data/phantom")


def test_models_and_experiment(run):
    assert "efficientnetb7" in succeed("models")
    Path("printed.toml").write_text('[model]\nname = "resnet18"\n[training]\nepochs = 3\n')
    line = succeed("experiment", "printed.toml", "--set", "training.seed=5")
    assert "epochs = 3" in line
    assert "seed = 5" in line


def test_augmentation(run):
    line = succeed("augmentation", "--set", "augmentation.zoom=0.1")
    (path,) = [word for word in line.split() if word.endswith(".png")]
    assert Path(path).is_file()


def test_report(run):
    assert "report.html" in succeed("report", "--run", f"{run}/fold1")
    folder = RUNS / run / "fold1" / "report"
    assert {"report.html", "scores.csv", "groups.csv", "model_card.md"} <= {path.name for path in folder.iterdir()}


def test_localise(run):
    succeed("localise", "--run", f"{run}/fold0", "--sample", 2, "--channels", 4)
    folder = RUNS / run / "fold0" / "localisation"
    assert {row["method"] for row in read_rows(folder / "scores.csv")} >= {"Grad-CAM", "Score-CAM"}


def test_ensemble_and_compare(run):
    succeed("ensemble", run)
    (ensemble,) = [path.name for path in RUNS.glob("ensemble-*")]
    assert ensemble in succeed("compare", run, ensemble)
    (comparison,) = RUNS.glob("comparison-*")
    assert {"comparison.html", "comparison.csv", "comparison.md", "paired.csv"} <= {
        path.name for path in comparison.iterdir()
    }


@pytest.mark.slow
def test_cv_and_sweep(run):
    """Each fold in a process of its own."""
    line = succeed("cv", *PLAIN)
    assert "2 trainings, 2 of them done" in line
    Path("mine.toml").write_text('[model]\nname = "resnet18"\nweights = "none"\n[training]\nepochs = 1\nseed = 1\n')
    line = succeed("sweep", "mine.toml")
    assert "2 trainings, 0 of them done" in line
    tables = [read_rows(path) for path in RUNS.glob("sweep-*.csv")]
    assert ["mine"] in [[row["experiment"] for row in rows] for rows in tables]
    (trained,) = RUNS.glob("mine-*")
    assert {row["label"] for row in read_rows(trained / "crossval.csv")} >= {"Mass", "mean of findings"}


@pytest.mark.slow
def test_demo(tmp_path, monkeypatch):
    experiments = Path("experiments").resolve()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(experiments, "experiments", ignore=shutil.ignore_patterns("runs"))
    for name, value in (("DEMO_IMAGES", 200), ("DEMO_PIXELS", 64), ("DEMO_SIZE", 32)):
        monkeypatch.setattr(demo, name, value)
    text = Path("experiments/phantom.toml").read_text()
    Path("experiments/phantom.toml").write_text(text.replace("epochs = 7", "epochs = 1"))
    line = succeed("demo")
    for name in ("model.keras", "report.html", "predictions_test.csv"):
        assert name in line
        assert list(RUNS.glob(f"phantom-*/fold0/**/{name}"))
