"""What networks can and cannot learn from phantoms. Each test takes minutes."""

import dataclasses

import numpy as np
import pytest

from cxrkeras.config import load_experiment
from cxrkeras.data.readers import read_dataset
from cxrkeras.labels import NIH
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.records.write import write_records
from cxrkeras.scoring.predictions import predict_batches
from cxrkeras.scoring.scores import mean_auc, score_labels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning") / "phantom"
    write_phantoms(folder, num_images=1600, size=96)
    return read_dataset(folder)


def train(dataset, folder, epochs):
    from cxrkeras.training.fit import train_fold

    write_records(dataset, folder / "records", size=96)
    settings = {
        "data": {"records": str(folder / "records")},
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"epochs": epochs},
        "optimiser": {"learning_rate": 1e-3},
        "schedule": {"gamma": 0.8},
    }
    return train_fold(load_experiment(settings=settings), root=folder / "runs")


def test_true_labels_are_learned_and_generalise_to_other_phantoms(phantoms, tmp_path):
    import keras

    from cxrkeras.models.compiled import compile_network
    from cxrkeras.records.folder import open_records

    result = train(phantoms, tmp_path, epochs=6)
    learned = result.fold.metrics.test.mean_auc
    assert learned > 0.7
    write_phantoms(tmp_path / "other", num_images=1600, size=96, seed=1)
    write_records(read_dataset(tmp_path / "other"), tmp_path / "other-records", size=96)
    predictor = compile_network(keras.models.load_model(result.fold.folder / "model.keras"))
    records = open_records(tmp_path / "other-records")
    subsets = [records.evaluation_batches("test", batch_size=64)]
    subsets += [records.evaluation_batches("train_val", fold=fold, batch_size=64) for fold in range(5)]
    predictions = [predict_batches(predictor, batches, NIH) for batches in subsets]
    truth, logits = (np.concatenate([getattr(p, name) for p in predictions]) for name in ("truth", "logits"))
    assert abs(mean_auc(score_labels(truth, logits, NIH.names), NIH)[0] - learned) < 0.03


def test_shuffled_labels_teach_nothing(phantoms, tmp_path):
    table = phantoms.table.copy()
    rows = np.flatnonzero(table["split"] == "train_val")
    names = list(NIH.names)
    table.loc[rows, names] = table.loc[np.random.default_rng(0).permutation(rows), names].to_numpy()
    result = train(dataclasses.replace(phantoms, table=table), tmp_path, epochs=3)
    assert 0.45 <= result.fold.metrics.test.mean_auc <= 0.55
