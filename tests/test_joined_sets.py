"""Two sets joined and a third kept outside, end to end."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrkeras.phantoms.writing import write_phantoms
from tests.support.shell import run_here

SIZE = 32


def write_set(folder, seed, prevalence="balanced", *, is_darker=False):
    write_phantoms(folder, num_images=160, size=64, prevalence=prevalence, seed=seed)
    if is_darker:
        for path in (folder / "images").glob("*.png"):
            grey = np.asarray(Image.open(path)) / 255
            Image.fromarray((150 * grey**1.5).astype(np.uint8)).save(path)


def run(*arguments):
    done = run_here(*arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_network_of_two_sets_is_scored_on_each_and_on_a_third(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "a", 1)
    write_set(tmp_path / "b", 2, is_darker=True)
    write_set(tmp_path / "c", 3, "nih", is_darker=True)
    output = run("records", "--data", "a b", "--name", "both", "--size", SIZE, "--folds", 3)
    assert "images by source" in output
    run("verify", "both", "--data", "a b")
    run("records", "--data", "c", "--name", "outside", "--size", SIZE)
    settings = "training.epochs=2 sampling.sources=equal optimiser.learning_rate=1e-3"
    run("train", "--model", "resnet18", "--weights", "none", "--records", "both", "--set", settings)
    run("report")
    (fold,) = (tmp_path / "experiments" / "runs").glob("*/fold0")
    by_source = pd.read_csv(fold / "report" / "sources.csv")
    assert set(by_source["source"]) == {"a", "b"}
    assert "Each source alone" in (fold / "report" / "report.html").read_text()
    test = pd.read_csv(fold / "predictions_test.csv")
    counts = test["image_id"].str.partition("/")[0].value_counts()
    assert by_source.groupby("source")["images"].first().to_dict() == counts.to_dict()
    assert "- source a: phantoms" in (fold / "report" / "model_card.md").read_text()
    run("evaluate", "--records", "outside", "--split", "all")
    (evaluation,) = (fold / "evaluations").iterdir()
    drift = pd.read_csv(evaluation / "drift.csv", index_col="label").drop("No Finding")
    assert drift["prevalence_here"].mean() < drift["prevalence_validation"].mean() - 0.05  # that was put in
    assert (drift["bias"] > 0).mean() > 0.7
    assert "External validation" in (tmp_path / run("compare", evaluation).split("comparison: ")[1].strip()).read_text()
