import io
import json
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from cxrkeras.cli.tables import print_folds
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.scoring.run import open_run
from cxrkeras.scoring.run_scores import save_summary
from cxrkeras.training.sweep import plan_sweep, run_sweep, save_ranking
from cxrkeras.training.worker import call_in_process
from tests.support.notes import NotedProgress
from tests.support.runs import write_run


@pytest.fixture
def swept(trained, small_experiment, tmp_path):
    """A sweep of two experiments in which four folds of the first are done, copied from the trained fold."""
    other = small_experiment.model_copy(
        update={"training": small_experiment.training.model_copy(update={"epochs": 1, "seed": 1})}
    )
    planned = plan_sweep({"resnet18": small_experiment, "other": other}, tmp_path)
    for number, fold in enumerate(planned[1:5]):
        shutil.copytree(trained.folder, fold.folder)
        metrics = json.loads((fold.folder / "metrics.json").read_text())
        metrics["fold"] = fold.experiment.data.fold
        (fold.folder / "metrics.json").write_text(json.dumps(metrics))
        path = fold.folder / "predictions_validation.csv"
        table = pd.read_csv(path)
        table["Edema"] = 0  # has no AUC then
        table["logit_Atelectasis"] += number * table["Atelectasis"]
        table.to_csv(path, index=False)
    return {"resnet18": small_experiment, "other": other}, tmp_path


def test_only_missing_folds_are_trained_and_folds_are_averaged(swept):
    experiments, root = swept
    planned = plan_sweep(experiments, root)
    assert [fold.is_done for fold in planned] == [False] + 4 * [True] + 5 * [False]
    noted, finished = NotedProgress(), []
    run_sweep(planned[:5], root, progress=noted, finished=finished.append)
    assert finished == planned[:1]
    assert noted.said[0] == "resnet18, fold 0"
    assert noted.epochs == [1, 2]
    assert {"epoch 1/2", "scoring test"} <= set(noted.totals)
    ranked, path = save_ranking(planned, root)
    pd.testing.assert_frame_equal(pd.read_csv(path), ranked, check_dtype=False)
    assert ranked[["experiment", "folds", "of"]].to_numpy().tolist() == [["resnet18", 5, 5]]
    assert ranked["validation_findings"][0] <= 13  # without the one that has no AUC in four folds
    assert 500 < ranked["peak_memory_mb"][0] < 5000

    run = planned[0].folder.parent
    summary = save_summary(open_run(run)).set_index(["part", "label"])
    tables = [pd.read_csv(fold.folder / "predictions_validation.csv") for fold in planned[:5]]
    aucs = np.array([roc_auc_score(table["Atelectasis"], table["logit_Atelectasis"]) for table in tables])
    assert len(set(aucs)) > 2
    row = summary.loc[("validation", NIH.names[0])]
    assert (row["auc_mean"], row["auc_std"], row["folds"]) == pytest.approx((aucs.mean(), aucs.std(ddof=1), 5))
    epochs = pd.read_csv(run / "crossval_epochs.csv")
    assert epochs.query("column == 'loss/train'")["folds"].tolist() == [5, 5]


def test_collapsed_networks_are_counted_when_folds_are_averaged(tmp_path):
    run = write_run(tmp_path, "a")
    for fold, num_labels in ((0, 1), (2, 3)):
        path = run / f"fold{fold}" / "predictions_test.csv"
        table = pd.read_csv(path)
        for label in NIH.names[:num_labels]:
            table[f"logit_{label}"] = -3.0
        table.to_csv(path, index=False)
    for path in run.glob("fold*/history.csv"):
        pd.read_csv(path).to_csv(path, index=False)
    summary = save_summary(open_run(run))
    counts = summary.set_index(["part", "label"])["collapsed"]
    assert counts["test"].iloc[:5].tolist() == [4, 2, 1, 1, 0]  # the mean, then the labels
    assert not counts["validation"].any()
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    print_folds(console, summary, "a")
    assert console.export_text().count("(4 collapsed)") == 1


def test_experiments_with_different_folds_are_not_compared(small_experiment, dataset, tmp_path):
    from cxrkeras.records.write import write_records

    write_records(dataset, tmp_path / "three", size=32, num_folds=3)
    data = small_experiment.data.model_copy(update={"records": str(tmp_path / "three")})
    with pytest.raises(InputError, match=r"3 folds of seed 0.* cannot be compared"):
        plan_sweep({"a": small_experiment, "b": small_experiment.model_copy(update={"data": data})}, tmp_path)


def fail(progress):
    progress.say("before")
    raise InputError("wanted this")


def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)


def linger(progress):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress.say("ready")
    time.sleep(60)


def work(progress):
    first, second = progress.start("one", 3), progress.start("two", 5)
    second(5)
    progress.end_epoch(1)
    return first is not second


def test_progress_and_results_of_a_process_arrive():
    noted = NotedProgress()
    assert call_in_process(work, progress=noted) is True
    assert noted.totals == {"one": 3, "two": 5}
    assert (noted.done["two"], noted.epochs) == (5, [1])


def test_errors_and_deaths_of_a_process_are_reported():
    noted = NotedProgress()
    with pytest.raises(InputError, match="wanted this"):
        call_in_process(fail, progress=noted)
    assert noted.said == ["before"]
    with pytest.raises(InputError, match="ended with -9: killed, probably out of memory"):
        call_in_process(die)


def test_an_interruption_reaches_the_process():
    class Interrupting(NotedProgress):
        def say(self, sentence):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            call_in_process(linger, progress=Interrupting())
    finally:
        signal.signal(signal.SIGINT, before)
