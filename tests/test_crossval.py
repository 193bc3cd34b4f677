import io
import json
import os
import shutil
import signal
import time

import pandas as pd
import pytest
from rich.console import Console
from runs import write_run

from cxrkeras.cli.tables import print_folds
from cxrkeras.errors import InputError
from cxrkeras.labels import LABELS
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.training.crossval import in_process, plan_sweep, run_sweep, save_ranking, summarise_folds


@pytest.fixture
def swept(trained, small_experiment, tmp_path):
    """A plan of two experiments of which four folds of the first are done, made of the one that was trained."""
    other = small_experiment.model_copy(
        update={"training": small_experiment.training.model_copy(update={"epochs": 1, "seed": 1})}
    )
    planned = plan_sweep({"resnet18": small_experiment, "other": other}, tmp_path)
    for one in planned[1:5]:
        shutil.copytree(trained.folder, one.folder)
        metrics = json.loads((one.folder / "metrics.json").read_text())
        metrics["fold"] = one.experiment.data.fold
        for row in metrics["validation"]["labels"]:
            row["auc"] = 0.5 + metrics["fold"] / 100
        metrics["validation"]["labels"][3]["auc"] = None
        (one.folder / "metrics.json").write_text(json.dumps(metrics))
    return {"resnet18": small_experiment, "other": other}, tmp_path


def test_only_what_is_missing_is_trained_and_folds_are_averaged(swept):
    experiments, root = swept
    planned = plan_sweep(experiments, root)
    assert [one.is_done for one in planned] == [False] + 4 * [True] + 5 * [False]
    told, finished = [], []
    run_sweep(planned[:5], root, told.append, finished.append)
    assert finished == planned[:1]
    assert told[0] == ("next", "resnet18, fold 0")
    assert ("epoch", 2) in told
    ranked, path = save_ranking(planned, root)
    pd.testing.assert_frame_equal(pd.read_csv(path), ranked, check_dtype=False)
    assert ranked[["experiment", "folds", "of"]].to_numpy().tolist() == [["resnet18", 5, 5]]
    assert ranked["validation_findings"][0] <= 13  # not the one that four folds have no AUC of
    assert 500 < ranked["peak_memory_mb"][0] < 5000

    run = planned[0].folder.parent
    summary = summarise_folds(run).set_index(["part", "label"])
    metrics = json.loads((planned[0].folder / "metrics.json").read_text())
    first = metrics["validation"]["labels"][0]["auc"]
    aucs = pd.Series([first, 0.51, 0.52, 0.53, 0.54], dtype=float).dropna()
    row = summary.loc[("validation", LABELS[0])]
    assert (row["auc_mean"], row["auc_std"], row["folds"]) == pytest.approx((aucs.mean(), aucs.std(), len(aucs)))
    epochs = pd.read_csv(run / "crossval_epochs.csv")
    assert epochs.query("column == 'loss/train'")["folds"].tolist() == [5, 5]


def test_collapsed_networks_are_counted_where_folds_are_averaged(tmp_path):
    run = write_run(tmp_path, "a")
    for fold, num_labels in ((0, 1), (2, 3)):
        path = run / f"fold{fold}" / "metrics.json"
        metrics = json.loads(path.read_text())
        for row in metrics["test"]["labels"][:num_labels]:
            row |= {"auc": 0.5, "note": COLLAPSED}
        path.write_text(json.dumps(metrics))
    summary = summarise_folds(run)
    counts = summary.set_index(["part", "label"])["collapsed"]
    assert counts["test"].iloc[:5].tolist() == [4, 2, 1, 1, 0]  # the mean, then the labels
    assert not counts["validation"].any()
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    print_folds(console, summary, "a")
    assert console.export_text().count("(4 collapsed)") == 1


def test_experiments_of_other_folds_are_not_compared(small_experiment, release, tmp_path):
    from cxrkeras.records.write import write_records

    write_records(release, tmp_path / "three", size=32, num_folds=3)
    data = small_experiment.data.model_copy(update={"records": str(tmp_path / "three")})
    with pytest.raises(InputError, match=r"3 folds of seed 0.* cannot be compared"):
        plan_sweep({"a": small_experiment, "b": small_experiment.model_copy(update={"data": data})}, tmp_path)


def fail(tell):
    tell("before")
    raise InputError("wanted this")


def die(tell):
    os.kill(os.getpid(), signal.SIGKILL)


def linger(tell):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tell("ready")
    time.sleep(60)


def test_errors_and_deaths_of_a_process_are_told():
    told = []
    with pytest.raises(InputError, match="wanted this"):
        in_process(fail, tell=told.append)
    assert told == [("before",)]
    with pytest.raises(InputError, match="ended with -9: killed, probably for want of memory"):
        in_process(die)


def test_an_interruption_reaches_the_process():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_process(linger, tell=lambda message: os.kill(os.getpid(), signal.SIGINT))
    assert time.monotonic() - started < 50
