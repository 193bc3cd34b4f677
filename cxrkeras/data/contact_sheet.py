"""A contact sheet: examples of every finding on one page, to inspect before training."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxrkeras.data.dataset import Dataset
from cxrkeras.data.images import load_image
from cxrkeras.errors import InputError
from cxrkeras.labels import PRESENT, display_name
from cxrkeras.text import num_of, plain

COLUMNS = 6
PIXELS = 160


def plot_contact_sheet(dataset: Dataset) -> Figure:
    """Draw one row per label: the images with the fewest other findings; every second one shows the label's boxes."""
    is_present = dataset.table[list(dataset.labels.findings)] == PRESENT
    table = dataset.table.assign(num=is_present.sum(axis=1))
    boxes = dataset.boxes.groupby(["image_id", "label"])
    kind = "synthetic phantoms" if dataset.is_synthetic else f"split {dataset.split_name}"
    figure = Figure(figsize=(1.6 * COLUMNS, 1.72 * len(dataset.labels)), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    figure.supxlabel("Boxes are drawn in every second column; diffuse findings have none.", fontsize=8)
    figure.suptitle(
        f"{plain(dataset.folder.name)}: {num_of(len(table), 'image')} of "
        f"{num_of(table['patient_id'].nunique(), 'patient')} ({kind})",
        fontsize=11,
    )
    for panels, label in zip(figure.subplots(len(dataset.labels), COLUMNS), dataset.labels, strict=True):
        examples = table[table[label] == PRESENT].sort_values("num", kind="stable")["path"].index[:COLUMNS]
        for panel in panels:
            panel.set(xticks=[], yticks=[])
            panel.set_frame_on(False)
        panels[0].set_ylabel(display_name(label), fontsize=9)
        for column, (panel, row) in enumerate(zip(panels, table.loc[examples].itertuples(), strict=False)):
            try:
                panel.imshow(load_image(Path(row.path).read_bytes(), PIXELS), cmap="gray", vmin=0, vmax=255)
            except (InputError, OSError):
                continue  # the records list it as skipped
            if column % 2 and (row.image_id, label) in boxes.groups:
                sides = boxes.get_group((row.image_id, label))[["x", "y", "width", "height"]].to_numpy(np.float64)
                for x, y, width, height in sides * PIXELS:
                    panel.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="gold", linewidth=1))
    return figure
