"""Plots training images before and after augmentation."""

import numpy as np
from keras import ops
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxrkeras.config import Experiment
from cxrkeras.records.batches import build_targets
from cxrkeras.records.folder import Records
from cxrkeras.text import plain
from cxrkeras.training.augment import Augmentation

NUM_IMAGES, NUM_VARIANTS = 4, 7


def plot_augmentation(experiment: Experiment, records: Records) -> Figure:
    """Plot four training images, one per row: the original, then augmented variants."""
    settings, seed = experiment.augmentation, experiment.training.seed
    fold, targets = experiment.data.fold, build_targets(records.labels, records.labels, {})
    batches = records.training_batches(fold, targets, batch_size=NUM_IMAGES, seed=seed, epoch=0)
    images = next(iter(batches))[0].numpy()
    augment = Augmentation(settings, seed=seed)
    columns = [images] + [ops.convert_to_numpy(augment(images, training=True)) for _ in range(NUM_VARIANTS)]
    figure = Figure(figsize=(1.6 * (NUM_VARIANTS + 1), 1.6 * len(images) + 0.8), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    chosen = ", ".join(f"{name} {value:g}" for name, value in settings.model_dump().items() if value) or "nothing"
    figure.suptitle(
        f"{len(images)} of the {len(records.training_rows(fold)):,} training images of {plain(str(records.folder))}, "
        f"split {records.manifest.split_name}, fold {fold} held out\n"
        f"Augmentation: {chosen}",
        fontsize=10,
    )
    panels = figure.subplots(len(images), NUM_VARIANTS + 1, squeeze=False)
    for row, panel_row in enumerate(panels):
        for column, panel in enumerate(panel_row):
            panel.imshow(np.round(columns[column][row, ..., 0]), cmap="gray", vmin=0, vmax=255)
            panel.axis("off")
    panels[0, 0].set_title("before", fontsize=9)
    panels[0, 1].set_title("after", fontsize=9)
    return figure
