import itertools

import numpy as np
import pytest

from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.records.batches import build_evaluation_batches, build_training_batches
from cxrkeras.records.manifest import load_index


def epoch_of(records, **settings):
    batches = build_training_batches(records, 0, **({"batch_size": 16, "seed": 0, "epoch": 0} | settings))
    return [(images.numpy(), hot.numpy()) for images, hot in batches]


def order_of(batches):
    return [image.tobytes() for images, _ in batches for image in images]


def test_each_example_comes_once_an_epoch(records):
    batches = epoch_of(records)
    index = load_index(records)
    wanted = index[(index["split"] == TRAIN_VAL) & (index["fold"] != 0)]
    assert sum(len(images) for images, _ in batches) == len(wanted)
    assert len(set(order_of(batches))) == len(wanted)
    hot = np.concatenate([hot for _, hot in batches])
    assert np.array_equal(hot.sum(0), wanted.iloc[:, -15:].sum())
    assert batches[0][0].dtype == np.uint8
    assert batches[0][0].shape == (16, 32, 32, 1)
    assert batches[0][1].dtype == np.float32


def test_order_is_a_function_of_seed_and_epoch(records):
    first = order_of(epoch_of(records))
    assert first == order_of(epoch_of(records))
    for other in ({"epoch": 1}, {"seed": 1}):
        again = order_of(epoch_of(records, **other))
        assert again != first
        assert sorted(again) == sorted(first)
        # no more neighbours in common than chance allows
        common = set(itertools.pairwise(first)) & set(itertools.pairwise(again))
        assert len(common) < len(first) // 8


@pytest.mark.parametrize(("split", "fold"), [(TRAIN_VAL, 0), (TRAIN_VAL, 3), (TEST, -1)])
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_evaluation_keeps_order_and_drops_nothing(records, split, fold, batch_size):
    index = load_index(records)
    wanted = index[(index["split"] == split) & (index["fold"] == fold)]
    batches = list(build_evaluation_batches(records, split, fold=fold, batch_size=batch_size))
    ids = [name.decode() for batch in batches for name in batch[2].numpy()]
    assert ids == wanted["image_id"].tolist()
    assert np.array_equal(np.concatenate([batch[1] for batch in batches]), wanted.iloc[:, -15:])


def test_a_fold_that_is_not_there_or_a_lost_shard_is_named(records, tmp_path):
    with pytest.raises(InputError, match="no images"):
        build_evaluation_batches(records, TRAIN_VAL, fold=9, batch_size=4)
    for path in records.iterdir():
        if "fold2" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match="fold2"):
        build_training_batches(tmp_path, 0, batch_size=4, seed=0, epoch=0)


def test_copies_come_as_often_as_asked_and_apart(records):
    index = load_index(records)
    wanted = index[(index["split"] == TRAIN_VAL) & (index["fold"] != 0)]
    rng = np.random.default_rng(0)
    copies = rng.integers(0, 4, (3, len(wanted)))
    copies[:, 5] = 0
    once = order_of(epoch_of(records))
    seen = order_of(epoch_of(records, copies=copies))
    assert len(seen) == copies.sum()
    # Which picture is which row is told by reading each alone.
    for row in (0, 5, len(wanted) // 2, len(wanted) - 1):
        alone = np.zeros_like(copies)
        alone[0, row] = 1
        (picture,) = order_of(epoch_of(records, copies=alone))
        assert seen.count(picture) == copies[:, row].sum()
        assert once.count(picture) == 1
    assert seen == order_of(epoch_of(records, copies=copies))
    assert seen != order_of(epoch_of(records, copies=copies, epoch=1))
    assert np.mean([one == two for one, two in itertools.pairwise(seen)]) < 0.1
