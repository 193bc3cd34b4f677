import itertools

import numpy as np
import pytest

from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.labels import NOT_KNOWN, UNCERTAIN, LabelSet
from cxrkeras.records.batches import build_targets
from cxrkeras.records.folder import open_records


def epoch_of(records, **settings):
    opened = open_records(records)
    targets = build_targets(opened.labels, opened.labels, {})
    batches = opened.training_batches(0, targets, **({"batch_size": 16, "seed": 0, "epoch": 0} | settings))
    return [(images.numpy(), values.numpy()) for images, values in batches]


def order_of(batches):
    return [image.tobytes() for images, _ in batches for image in images]


def test_each_example_occurs_once_per_epoch(records):
    batches = epoch_of(records)
    index = open_records(records).index
    wanted = index[(index["split"] == TRAIN_VAL) & (index["fold"] != 0)]
    assert sum(len(images) for images, _ in batches) == len(wanted)
    assert len(set(order_of(batches))) == len(wanted)
    labels = np.concatenate([labels for _, labels in batches])
    assert np.array_equal(labels.sum(0), wanted.iloc[:, -15:].sum())
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
        # no more neighbours in common than by chance
        common = set(itertools.pairwise(first)) & set(itertools.pairwise(again))
        assert len(common) < len(first) // 8


@pytest.mark.parametrize(("split", "fold"), [(TRAIN_VAL, 0), (TRAIN_VAL, 3), (TEST, -1)])
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_evaluation_keeps_the_order_and_all_images(records, split, fold, batch_size):
    index = open_records(records).index
    wanted = index[(index["split"] == split) & (index["fold"] == fold)]
    batches = list(open_records(records).evaluation_batches(split, fold=fold, batch_size=batch_size))
    ids = [name.decode() for batch in batches for name in batch[2].numpy()]
    assert ids == wanted["image_id"].tolist()
    assert np.array_equal(np.concatenate([batch[1] for batch in batches]), wanted.iloc[:, -15:])


def test_an_unknown_fold_or_a_lost_shard_is_named(records, tmp_path):
    with pytest.raises(InputError, match="no images"):
        open_records(records).evaluation_batches(TRAIN_VAL, fold=9, batch_size=4)
    for path in records.iterdir():
        if "fold2" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match="fold2"):
        epoch_of(tmp_path)


def test_copies_occur_as_often_as_requested_and_apart(records):
    index = open_records(records).index
    wanted = index[(index["split"] == TRAIN_VAL) & (index["fold"] != 0)]
    rng = np.random.default_rng(0)
    copies = rng.integers(0, 4, (3, len(wanted)))
    copies[:, 5] = 0
    once = order_of(epoch_of(records))
    seen = order_of(epoch_of(records, copies=copies))
    assert len(seen) == copies.sum()
    # Reading one example alone shows which picture belongs to which row.
    for row in (0, 5, len(wanted) // 2, len(wanted) - 1):
        alone = np.zeros_like(copies)
        alone[0, row] = 1
        (picture,) = order_of(epoch_of(records, copies=alone))
        assert seen.count(picture) == copies[:, row].sum()
        assert once.count(picture) == 1
    assert seen == order_of(epoch_of(records, copies=copies))
    assert seen != order_of(epoch_of(records, copies=copies, epoch=1))
    assert np.mean([first == second for first, second in itertools.pairwise(seen)]) < 0.1


def test_targets_have_the_chosen_labels_and_encoding_of_uncertain_values():
    of_records, chosen = LabelSet(("a", "b", "c")), LabelSet(("c", "a"))
    targets = build_targets(chosen, of_records, {"a": 1.0})
    values = np.array([[1, 0, 0], [UNCERTAIN, 1, UNCERTAIN], [NOT_KNOWN, 0, 1]], np.int8)
    expected = [[0, 1], [np.nan, 1], [1, np.nan]]
    assert np.array_equal(targets.encode(values), expected, equal_nan=True)
