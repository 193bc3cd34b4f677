"""Pictures of what training sees."""

from pathlib import Path

import numpy as np
from keras import ops
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxrkeras.config import Experiment
from cxrkeras.data.dataset import TRAIN_VAL
from cxrkeras.records.batches import build_training_batches
from cxrkeras.records.manifest import load_manifest
from cxrkeras.text import plain
from cxrkeras.training.augment import Augmentation

NUM_IMAGES, NUM_WAYS = 4, 7


def plot_augmentation(experiment: Experiment, records: Path) -> Figure:
    """Draw four training images, a row each: as they are, then as the augmentation alters them."""
    settings, seed = experiment.augmentation, experiment.training.seed
    batches = build_training_batches(records, experiment.data.fold, batch_size=NUM_IMAGES, seed=seed, epoch=0)
    images = next(iter(batches))[0].numpy()
    augment = Augmentation(settings, seed=seed)
    columns = [images] + [ops.convert_to_numpy(augment(images, training=True)) for _ in range(NUM_WAYS)]
    figure = Figure(figsize=(1.6 * (NUM_WAYS + 1), 1.6 * len(images) + 0.8), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    chosen = ", ".join(f"{name} {value:g}" for name, value in settings.model_dump().items() if value) or "nothing"
    manifest = load_manifest(records)
    trained = [shard for shard in manifest.shards if shard.split == TRAIN_VAL and shard.fold != experiment.data.fold]
    figure.suptitle(
        f"{NUM_IMAGES} of the {sum(shard.count for shard in trained):,} training images of "
        f"{plain(str(records))}, split {manifest.split_name}, fold {experiment.data.fold} held out\n"
        f"Augmentation: {chosen}",
        fontsize=10,
    )
    panels = figure.subplots(len(images), NUM_WAYS + 1, squeeze=False)
    for row, panel_row in enumerate(panels):
        for way, panel in enumerate(panel_row):
            panel.imshow(np.round(columns[way][row, ..., 0]), cmap="gray", vmin=0, vmax=255)
            panel.axis("off")
    panels[0, 0].set_title("before", fontsize=9)
    panels[0, 1].set_title("after", fontsize=9)
    return figure
