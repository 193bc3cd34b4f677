"""Runs at a glance."""

import json

import numpy as np
import pytest

from cxrkeras.scoring.run import open_run
from cxrkeras.scoring.run_list import describe_run, list_runs
from cxrkeras.scoring.run_scores import average_findings
from tests.support.runs import write_run
from tests.support.shell import run_here


def test_runs_with_their_mean_scores_the_newest_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "experiments" / "runs"
    write_run(root, "first", gap=1.0)
    write_run(root, "second", folds=2)
    (root / "unfinished" / "fold0").mkdir(parents=True)
    damaged = write_run(root, "damaged", folds=1)
    (damaged / "fold0" / "predictions_test.csv").write_text("nothing")
    found = {run.name: run for run in list_runs(root)}
    assert set(found) == {"first", "second", "damaged"}
    assert [run.finished for run in list_runs(root)] == sorted((run.finished for run in found.values()), reverse=True)
    (means,), count = average_findings([open_run(root / "first")], "test")
    assert found["first"].test == pytest.approx(means.mean())
    assert (found["first"].folds, found["first"].findings, found["second"].folds) == (3, count, 2)
    assert "predictions_test.csv" in found["damaged"].problem
    assert np.isnan(found["damaged"].test)
    listed = json.loads(run_here("runs", "--json").stdout)
    assert {run["name"]: run["test"] for run in listed}["damaged"] is None
    assert f"{found['first'].test:.3f}" in run_here("runs").stdout


def test_a_run_on_one_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "experiments" / "runs", "first", folds=2)
    facts = describe_run(open_run("first"))
    assert facts["network"] == "resnet18"
    assert facts["folds"] == "0 (epoch 4), 1 (epoch 4)"
    assert facts["thresholds"] == "youden, on platt calibrated probabilities"
    shown = run_here("info", "first").stdout
    assert "fold 1" in shown
    gone = run_here("info", "second")
    assert gone.returncode == 2
    assert "no run 'second'; there are first" in gone.stdout


def test_no_runs_is_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_here("runs")
    assert done.returncode == 0
    assert "no finished run in experiments/runs" in done.stdout
